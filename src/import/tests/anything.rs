//! Whatever may stand in a resource, and whatever a pass may have seen and a process remember.
//!
//! Strategies within others are boxed: all of them at once would not fit on a test's stack.

use crate::api::conditions::Reason;
use crate::api::{self, DatasetImportJob, DatasetImportJobSpec, DatasetImportJobStatus, ImportMode, Submission, Tag};
use crate::import::plan::{Memory, Observations, ObservedJob, UserInputs};
use crate::import::request::ImportRequest;
use crate::import::request::tests::spec;
use crate::personalize::{ACTIVE, CREATE_FAILED, CREATE_PENDING, ErrorKind, Job, JobSummary, ServiceError};
use crate::queue::{Admission, Key};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeMap;
use std::time::Duration;

/// A secret that must never be seen again.
pub(super) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKE1";

/// Words of the service, plain text, and what nobody should see as it came.
pub(super) fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zA-Z ]{0,20}",
        1 => "(?s).{0,30}",
        1 => Just("line\r\nbreak\u{1b}[1m\u{202e}\u{200b}\u{2028}".to_owned()),
        1 => Just("é—\u{10ffff}".repeat(900)),
        1 => Just(format!("X-Amz-Security-Token: {SECRET}")),
    ]
}

pub(super) fn job_status() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] =
        &[CREATE_PENDING, "CREATE IN_PROGRESS", ACTIVE, CREATE_FAILED, "CREATE  FAILED\n", " ACTIVE", ""];
    prop_oneof![6 => select(KNOWN).prop_map(str::to_owned), 1 => text()]
}

/// Mostly within a few minutes or days of each other, so that every delay is sometimes over and sometimes not.
pub(super) fn moment() -> impl Strategy<Value = Timestamp> {
    let now = 1_700_000_000_i64;
    let second = prop_oneof![3 => -200..200_i64, 2 => -200_000..200_000_i64].prop_map(move |s| now + s);
    let second = prop_oneof![8 => second, 1 => 0..253_402_207_200_i64];
    (second, 0..1_000_000_000_i32).prop_map(|(second, nano)| Timestamp::new(second, nano).unwrap())
}

/// A moment as Kubernetes keeps it.
fn time() -> impl Strategy<Value = Time> {
    moment().prop_map(api::conditions::whole_seconds)
}

pub(super) fn failure() -> impl Strategy<Value = ServiceError> {
    const CLASSES: &[ErrorKind] = &[
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::Indeterminate,
        ErrorKind::Throttled,
        ErrorKind::QuotaExceeded,
        ErrorKind::InvalidInput,
        ErrorKind::AccessDenied,
        ErrorKind::TooManyTags,
        ErrorKind::InUse,
        ErrorKind::Credentials,
    ];
    (select(CLASSES), text()).prop_map(|(kind, text)| ServiceError::unanswered(kind, kind.label(), &text))
}

pub(super) fn result<T: std::fmt::Debug>(
    ok: impl Strategy<Value = T>,
) -> impl Strategy<Value = Result<T, ServiceError>> {
    prop_oneof![2 => ok.prop_map(Ok), 1 => failure().prop_map(Err)]
}

fn any_spec() -> impl Strategy<Value = DatasetImportJobSpec> {
    let dataset = prop_oneof![
        12 => Just(spec().dataset_arn),
        2 => "arn:aws-cn:personalize:[a-z]{2}-[a-z]{4}-[0-9]:[0-9]{12}:dataset/[a-zA-Z0-9_/.-]{1,30}",
        1 => text(),
    ];
    let tags = vec(("[a-z]{1,9}", "[a-z]{0,9}"), 0..3);
    (
        (dataset, prop_oneof![4 => Just(spec().data_source.data_location), 1 => "s3://[a-z]{1,40}/[ -~]{0,40}"]),
        of("[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}"),
        select(&[ImportMode::Full, ImportMode::Incremental][..]),
        of(any::<bool>()),
        of(tags),
        any::<bool>(),
        prop_oneof![3 => 0..=2, 2 => 0..=100, 1 => any::<i32>()],
    )
        .prop_map(
            |((dataset_arn, data_location), job_name, import_mode, publish, tags, suspend, backoff_limit)| {
                let tag = |(tag_key, tag_value)| Tag { tag_key, tag_value };
                DatasetImportJobSpec {
                    dataset_arn,
                    data_source: api::DataSource { data_location },
                    job_name,
                    import_mode,
                    publish_attribution_metrics_to_s3: publish,
                    tags: tags.map(|tags| tags.into_iter().map(tag).collect()),
                    suspend: suspend && backoff_limit % 2 == 0,
                    backoff_limit,
                    ..spec()
                }
            },
        )
}

/// Conditions as the operator writes them, as others do, and as nobody should.
fn conditions() -> impl Strategy<Value = Vec<Condition>> {
    let type_ = prop_oneof![
        6 => select(&["Ready", "Succeeded", "Reconciling", "Stalled"][..]).prop_map(str::to_owned),
        1 => "[A-Z][a-z]{1,20}",
    ];
    let reasons: Vec<String> = Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    let reason = prop_oneof![8 => select(reasons), 1 => "[A-Za-z][A-Za-z0-9_]{0,40}", 1 => text()];
    let status = select(&["True", "False", "Unknown"][..]);
    let one = (status, reason, text(), of(any::<i64>()), time());
    btree_map(type_, one, 0..6).prop_map(|conditions| {
        let condition = |(type_, (status, reason, message, observed_generation, last_transition_time))| Condition {
            type_,
            status: str::to_owned(status),
            reason,
            message,
            observed_generation,
            last_transition_time,
        };
        conditions.into_iter().map(condition).collect()
    })
}

/// What a status claims beside its conditions; names and hashes come with the resource.
fn claims() -> impl Strategy<Value = (DatasetImportJobStatus, bool, Option<(i32, Time, bool)>)> {
    let attempt = || prop_oneof![8 => 1..4_i32, 1 => any::<i32>()];
    let times = (of(time()), of(time()), of(time()), of(time()));
    let handled = || of(select(&["1", "2"][..]).prop_map(str::to_owned));
    (
        of(job_status()),
        of(text()),
        of(attempt()),
        times,
        of(prop_oneof![-1..4_i64, any::<i64>()]),
        (handled(), handled()),
        conditions().boxed(),
        any::<bool>(),
        of((attempt(), time(), any::<bool>())),
    )
        .prop_map(|(status, failure_reason, attempts, times, observed, handled, conditions, own, intent)| {
            let status = DatasetImportJobStatus {
                observed_generation: observed,
                status,
                failure_reason,
                attempts,
                creation_date_time: times.0,
                last_updated_date_time: times.1,
                start_time: times.2,
                completion_time: times.3,
                last_handled_reconcile_at: handled.0,
                last_handled_retry_at: handled.1,
                conditions,
                ..DatasetImportJobStatus::default()
            };
            (status, own, intent)
        })
}

/// A resource with anything in it, its status forged or not.
pub(super) fn resource() -> impl Strategy<Value = DatasetImportJob> {
    let annotation = |key: &'static str, values: &'static [&'static str]| of((Just(key), select(values)));
    let annotations = (
        annotation(api::ADOPT, &["true", "false", "yes"]),
        prop_oneof![3 => Just(None), 1 => annotation(api::SUSPEND, &["true", "false"])],
        annotation(api::RETRY_REQUESTED_AT, &["1", "2", "3"]),
        annotation(api::RECONCILE_REQUESTED_AT, &["1", "2", "3"]),
    );
    let leaves = prop_oneof![9 => Just(None), 1 => time().prop_map(Some)];
    (any_spec().boxed(), of(0..4_i64), of(time()), leaves, annotations.boxed(), claims().boxed()).prop_map(
        |(spec, generation, created, leaves, annotations, (mut status, own, intent))| {
            let mut job = DatasetImportJob::new("nightly", spec);
            job.metadata.namespace = Some("shop".into());
            job.metadata.uid = Some("uid".into());
            job.metadata.generation = generation;
            job.metadata.creation_timestamp = created;
            job.metadata.deletion_timestamp = leaves;
            let (adopt, suspend, retry, reconcile) = annotations;
            let set = [adopt, suspend, retry, reconcile].into_iter().flatten();
            job.metadata.annotations = Some(set.map(|(key, value)| (key.into(), value.into())).collect());
            if let Ok(request) = ImportRequest::of(&job) {
                let attempt = status.attempts.unwrap_or(1);
                status.job_name = own.then(|| request.job_name(attempt));
                status.dataset_import_job_arn = own.then(|| request.job_arn(attempt).0);
                status.submission = intent.map(|(attempt, time, own)| Submission {
                    job_name: if own { request.job_name(attempt) } else { "another".into() },
                    attempt,
                    request_hash: request.hash(),
                    generation: 1,
                    time,
                });
            }
            job.status = Some(status);
            job
        },
    )
}

/// A job that stands under a name of the resource: made for it or not, in any state.
pub(super) fn job(request: &ImportRequest) -> impl Strategy<Value = Job> + use<> {
    let request = request.clone();
    let times = (of(moment()), of(moment()));
    (text(), prop_oneof![3 => Just(None), 1 => text().prop_map(Some)], job_status(), of(text()), times).prop_map(
        move |(name, elsewhere, status, failure_reason, (created, updated))| Job {
            name,
            dataset: request.dataset.as_str().into(),
            data_location: elsewhere.unwrap_or_else(|| request.data_location.clone()),
            role_arn: request.role_arn.clone(),
            import_mode: Some(request.import_mode.as_str().into()),
            publish_attribution_metrics_to_s3: request.publish_attribution_metrics_to_s3,
            status,
            failure_reason,
            created,
            updated,
        },
    )
}

pub(super) fn tags(request: &ImportRequest) -> impl Strategy<Value = Vec<Tag>> + use<> {
    let own = request.own_tags();
    let mut others = own.clone();
    others[1].tag_value = "another".into();
    prop_oneof![3 => Just(own), 1 => Just(others), 1 => Just(Vec::new())]
}

pub(super) fn summaries() -> impl Strategy<Value = Vec<JobSummary>> {
    let one = (text(), job_status(), of(moment()), of(moment()));
    let one = one.prop_map(|(name, status, created, updated)| JobSummary { name, status, created, updated });
    vec(one, 0..3)
}

/// Anything that a pass over this resource may have seen, in any order, possible or not.
pub(super) fn seen(request: &ImportRequest) -> impl Strategy<Value = Observations> + use<> {
    let turn = prop_oneof![
        4 => Just(Admission::Admitted),
        1 => (text(), of(moment())).prop_map(|(why, until)| Admission::Pending { why, until }),
        1 => Just(Admission::Superseded { by: Key { namespace: "shop".into(), name: "newer".into() } }),
    ];
    let found =
        (job(request).boxed(), of(result(tags(request)))).prop_map(|(job, tags)| ObservedJob { job, tags }).boxed();
    let age = result(of(moment()));
    (
        any::<bool>(),
        of(prop_oneof![4 => Just(Ok(())), 1 => text().prop_map(Err)]),
        of(turn),
        of(result(prop_oneof![3 => Just(ACTIVE.to_owned()), 1 => job_status()])),
        of(result(summaries())).boxed(),
        btree_map(1..4_i32, result(found), 0..4),
        of(1..4_i32),
        of(result(Just(()))),
        age,
    )
        .prop_map(|(live, permission, turn, dataset, jobs, lookups, intent, create, age)| {
            let named = jobs.iter().flatten().flatten().map(|job: &JobSummary| (job.name.clone(), age.clone()));
            let ages: BTreeMap<_, _> = named.collect();
            Observations { live, permission, turn, dataset, jobs, ages, lookups, intent, create }
        })
}

pub(super) fn memory(job: &DatasetImportJob) -> impl Strategy<Value = Memory> + use<> {
    let inputs = prop_oneof![Just(UserInputs::of(job)), Just(UserInputs::default())];
    let typical = of((0..1_u64 << 40).prop_map(Duration::from_secs));
    let intent = of((1..4_i32, moment(), moment()));
    (of(moment()), any::<bool>(), any::<bool>(), of((moment(), inputs)), typical, intent).prop_map(
        |(described, looked_up, rested, pause, typical, intent)| Memory {
            described,
            looked_up,
            rested,
            pause,
            typical,
            intent,
        },
    )
}
