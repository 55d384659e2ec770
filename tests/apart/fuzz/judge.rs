//! What must hold of every decision, whatever came from outside.

use crate::document::tells_secret;
use boon::{Compiler, Draft, SchemaIndex, Schemas};
use jiff::Timestamp;
use personalize_operator::api::{DatasetImportJob, DatasetImportJobStatus};
use personalize_operator::import::plan::Effect;
use personalize_operator::import::timing::{Timing, after};
use personalize_operator::reconciliation::Reconciliation;
use personalize_operator::redact::MAX_CHARS;
use serde_json::Value;
use std::sync::LazyLock;
use std::time::Duration;

/// The delays of these tests.
pub(crate) fn policy() -> Timing {
    let (short, long) = (Duration::from_secs(5), Duration::from_secs(300));
    Timing {
        poll_min: short,
        poll_max: long,
        grace: Duration::from_secs(60),
        backoff_min: short,
        backoff_max: long,
        rejected_min: short,
        rejected_max: long,
        retry_min: short,
        waiting: long,
    }
}

/// The moment of these tests.
pub(crate) fn now(pass: u64) -> Timestamp {
    after(Timestamp::from_second(1_750_000_000).unwrap(), Duration::from_secs(1000 * pass))
}

/// The CRD's own schema, as the API server has it; what CEL adds is not part of it.
static SCHEMA: LazyLock<(Schemas, SchemaIndex)> = LazyLock::new(|| {
    let crd = personalize_operator::api::crd();
    let schema = crd.spec.versions[0].schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
    let schema = serde_json::to_value(schema.expect("a schema")).expect("JSON");
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.set_default_draft(Draft::V7);
    compiler.enable_format_assertions();
    compiler.add_resource("crd.json", schema).expect("a resource");
    let index = compiler.compile("crd.json", &mut schemas).expect("a schema");
    (schemas, index)
});

fn validate(job: &DatasetImportJob) -> Result<(), String> {
    let job = serde_json::to_value(job).expect("JSON");
    let (schemas, index) = &*SCHEMA;
    schemas.validate(&job, *index).map_err(|error| format!("{error:#}"))
}

/// What the operator wrote is taken by the API server, if it took what was there before.
pub(crate) fn written(before: &DatasetImportJob, status: &DatasetImportJobStatus) {
    let old = before.status.clone().unwrap_or_default();
    let told = |status: &DatasetImportJobStatus| {
        let mut texts = vec![status.status.clone(), status.failure_reason.clone()];
        texts.extend(status.conditions.iter().map(|c| Some(c.message.clone())));
        texts
    };
    let known = told(&old);
    for text in told(status).into_iter().filter(|text| !known.contains(text)).flatten() {
        assert!(text.chars().count() <= MAX_CHARS, "too long: {}", text.len());
        assert!(!text.contains(char::is_control), "not printable: {text:?}");
        assert!(!tells_secret(&text), "a secret is told: {text}");
    }
    if validate(before).is_ok() {
        let after = DatasetImportJob { status: Some(status.clone()), ..before.clone() };
        if let Err(error) = validate(&after) {
            panic!("the API server would not take it: {error}");
        }
    }
}

#[test]
fn the_schema_refuses_what_the_api_server_refuses() {
    let good: Value = crate::resources::template();
    let job = |value: Value| serde_json::from_value::<DatasetImportJob>(value).expect("a resource");
    assert_eq!(validate(&job(good.clone())), Ok(()));
    for (pointer, bad) in [
        ("/spec/roleArn", "arn:aws:iam::1:role/Reader"),
        ("/spec/dataSource/dataLocation", ""),
        ("/status/completionTime", "-009999-01-02T01:59:59Z"),
    ] {
        let mut value = good.clone();
        *value.pointer_mut(pointer).expect("a field") = bad.into();
        assert!(validate(&job(value)).is_err(), "{pointer}");
    }
}

/// Watches that nothing is created but on a look after an intent that is recorded.
#[derive(Debug, Default)]
pub(crate) struct Protocol {
    looked: Option<i32>,
}

impl Protocol {
    /// Takes note of a step that is about to be carried out.
    pub(crate) fn step(&mut self, pass: &Reconciliation, step: &Effect) {
        match step {
            Effect::RecordIntent(status) => {
                assert!(pass.seen().live, "an intent is written only over a live read");
                written(pass.job(), status);
                self.looked = None;
            }
            Effect::DescribeJob { attempt, prove: true } => self.looked = Some(*attempt),
            Effect::Create { attempt } => {
                assert_eq!(pass.seen().intent, Some(*attempt), "nothing is created without an intent of this pass");
                assert_eq!(
                    recorded(pass.job()).submission.map(|s| s.attempt),
                    Some(*attempt),
                    "the intent is recorded"
                );
                assert_eq!(self.looked, Some(*attempt), "nothing is created without a look after the intent");
            }
            Effect::Outcome(rest) => {
                if let Some(status) = &rest.status {
                    written(pass.job(), status);
                }
            }
            _ => {}
        }
    }
}

fn recorded(job: &DatasetImportJob) -> DatasetImportJobStatus {
    job.status.clone().unwrap_or_default()
}
