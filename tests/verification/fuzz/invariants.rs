//! Invariants that hold for every input.

use crate::document::contains_secret;
use boon::{Compiler, Draft, SchemaIndex, Schemas};
use jiff::Timestamp;
use personalize_operator::api::{DatasetImportJob, DatasetImportJobStatus};
use personalize_operator::import::timing::after;
use personalize_operator::import::{AfterWrite, Effect, Timing};
use personalize_operator::reconciliation::Reconciliation;
use personalize_operator::redact::MAX_CHARS;
use serde_json::Value;
use std::sync::LazyLock;
use std::time::Duration;

/// The delays of these tests.
pub(crate) fn timing() -> Timing {
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

/// The time of a round of reconciliation: later than every delay of the round before.
pub(crate) fn now(round: u64) -> Timestamp {
    after(Timestamp::from_second(1_750_000_000).unwrap(), Duration::from_secs(1000 * round))
}

/// The CRD's schema, without its CEL rules.
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

fn validate(resource: &DatasetImportJob) -> Result<(), String> {
    let resource = serde_json::to_value(resource).expect("JSON");
    let (schemas, index) = &*SCHEMA;
    schemas.validate(&resource, *index).map_err(|error| format!("{error:#}"))
}

/// Checks a status before it is written: new texts are short, printable and without the secret, and the API server
/// accepts the status if it accepted the one before.
pub(crate) fn check_written(before: &DatasetImportJob, status: &DatasetImportJobStatus) {
    let old = before.status.clone().unwrap_or_default();
    let texts = |status: &DatasetImportJobStatus| {
        let mut all = vec![status.status.clone(), status.failure_reason.clone()];
        all.extend(status.conditions.iter().map(|c| Some(c.message.clone())));
        all
    };
    let known = texts(&old);
    for text in texts(status).into_iter().filter(|text| !known.contains(text)).flatten() {
        assert!(text.chars().count() <= MAX_CHARS, "too long: {}", text.len());
        assert!(!text.contains(char::is_control), "not printable: {text:?}");
        assert!(!contains_secret(&text), "contains the secret: {text}");
    }
    if validate(before).is_ok() {
        let after = DatasetImportJob { status: Some(status.clone()), ..before.clone() };
        if let Err(error) = validate(&after) {
            panic!("the API server would reject it: {error}");
        }
    }
}

#[test]
fn resource_that_api_server_rejects_is_rejected_by_schema() {
    let valid: Value = crate::resources::template();
    let resource = |value: Value| serde_json::from_value::<DatasetImportJob>(value).expect("a resource");
    assert_eq!(validate(&resource(valid.clone())), Ok(()));
    for (pointer, invalid) in [
        ("/spec/roleArn", "arn:aws:iam::1:role/Reader"),
        ("/spec/dataSource/dataLocation", ""),
        ("/status/completionTime", "-009999-01-02T01:59:59Z"),
    ] {
        let mut value = valid.clone();
        *value.pointer_mut(pointer).expect("a field") = invalid.into();
        assert!(validate(&resource(value)).is_err(), "{pointer}");
    }
}

/// Checks each effect of a reconciliation before it is performed: a create follows a recorded intent, and a lookup
/// after the intent.
#[derive(Debug, Default)]
pub(crate) struct ProtocolCheck {
    looked_up: Option<i32>,
}

impl ProtocolCheck {
    /// Checks the next effect.
    pub(crate) fn check(&mut self, reconciliation: &Reconciliation, effect: &Effect) {
        let observations = reconciliation.observations();
        match effect {
            Effect::WriteStatus { status, then } => {
                check_written(reconciliation.resource(), status);
                if matches!(then, AfterWrite::Submit { .. }) {
                    assert!(observations.live, "an intent is written only after a live read");
                    self.looked_up = None;
                }
            }
            Effect::DescribeJob { attempt, with_tags: true } => self.looked_up = Some(*attempt),
            Effect::CreateJob { attempt } => {
                assert_eq!(observations.intent, Some(*attempt), "a create follows an intent of this reconciliation");
                let recorded = reconciliation.resource().status.clone().unwrap_or_default();
                assert_eq!(recorded.submission.map(|s| s.attempt), Some(*attempt), "the intent is recorded");
                assert_eq!(self.looked_up, Some(*attempt), "a create follows a lookup after the intent");
            }
            _ => {}
        }
    }
}
