//! Generators of any resource, any observations and any local state.
//!
//! Nested strategies are boxed: all of them at once do not fit on the stack of a test.

use super::spec;
use crate::api::conditions::Reason;
use crate::api::{
    self, DatasetImportJob, DatasetImportJobSpec, DatasetImportJobStatus, Guard, ImportMode, ImportedData, Submission,
    Tag,
};
use crate::import::local_state::KnownIntent;
use crate::import::{
    Admission, DataCheck, ImportRequest, Key, LocalState, Observations, ObservedJob, Phase, UserInputs,
};
use crate::personalize::{ACTIVE, CREATE_FAILED, CREATE_PENDING, Dataset, ErrorKind, Job, JobSummary, ServiceError};
use crate::preflight::{Report, Schema};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use proptest::array::uniform8;
use proptest::bool::weighted;
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeMap;
use std::time::Duration;

/// A secret that no output may contain.
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKE1";

/// Texts of the service: plain ones, and ones that must not be shown as they are.
pub fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zA-Z ]{0,20}",
        1 => "(?s).{0,30}",
        1 => Just("line\r\nbreak\u{1b}[1m\u{202e}\u{200b}\u{2028}".to_owned()),
        1 => Just("é—\u{10ffff}".repeat(900)),
        1 => Just(format!("X-Amz-Security-Token: {SECRET}")),
    ]
}

/// The status of a job.
pub fn job_status() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] =
        &[CREATE_PENDING, "CREATE IN_PROGRESS", ACTIVE, CREATE_FAILED, "CREATE  FAILED\n", " ACTIVE", ""];
    prop_oneof![6 => select(KNOWN).prop_map(str::to_owned), 1 => text()]
}

/// A moment, mostly within minutes or days of the others, so that each delay is over in some cases.
pub fn moment() -> impl Strategy<Value = Timestamp> {
    let now = 1_700_000_000_i64;
    let second = prop_oneof![3 => -200..200_i64, 2 => -200_000..200_000_i64].prop_map(move |s| now + s);
    let second = prop_oneof![8 => second, 1 => 0..253_402_207_200_i64];
    (second, 0..1_000_000_000_i32).prop_map(|(second, nano)| Timestamp::new(second, nano).unwrap())
}

/// A moment as Kubernetes stores it: whole seconds.
fn time() -> impl Strategy<Value = Time> {
    moment().prop_map(api::conditions::whole_seconds)
}

/// A failed call of any kind.
pub fn service_error() -> impl Strategy<Value = ServiceError> {
    const KINDS: &[ErrorKind] = &[
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
    (select(KINDS), text()).prop_map(|(kind, text)| ServiceError::unanswered(kind, kind.label(), &text))
}

/// A result, mostly good.
pub fn result<T: std::fmt::Debug>(ok: impl Strategy<Value = T>) -> impl Strategy<Value = Result<T, ServiceError>> {
    prop_oneof![2 => ok.prop_map(Ok), 1 => service_error().prop_map(Err)]
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
        prop_oneof![2 => Just(None), 1 => (of(0..1000_i64), of(0..=100)).prop_map(Some)],
    )
        .prop_map(
            |((dataset_arn, data_location), job_name, import_mode, publish, tags, suspend, backoff_limit, guard)| {
                let guard = guard.map(|(min_bytes, max_shrink_percent)| Guard { min_bytes, max_shrink_percent });
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
                    preflight: None,
                    guard,
                    ..spec()
                }
            },
        )
}

/// Conditions as the operator writes them, as others do, and invalid ones.
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

/// A status without the names and hashes that depend on the resource; whether its job is the resource's own; and an
/// intent, with whether it is under the resource's own job name.
fn status_parts() -> impl Strategy<Value = (DatasetImportJobStatus, bool, Option<(i32, Time, bool)>)> {
    let attempt = || prop_oneof![8 => 1..4_i32, 1 => any::<i32>()];
    let times = (of(time()), of(time()), of(time()), of(time()));
    let handled = || of(select(&["1", "2"][..]).prop_map(str::to_owned));
    (
        of(job_status()),
        of(text()),
        of(attempt()),
        times,
        of(prop_oneof![-1..4_i64, any::<i64>()]),
        (handled(), handled(), of(attempt())),
        conditions().boxed(),
        any::<bool>(),
        of((attempt(), time(), any::<bool>())),
        prop_oneof![2 => Just(None), 1 => of(text()).prop_map(Some)],
    )
        .prop_map(
            |(status, failure_reason, attempts, times, observed, handled, conditions, own, intent, forged)| {
                let mut status = DatasetImportJobStatus {
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
                    requested_attempt: handled.2,
                    conditions,
                    ..DatasetImportJobStatus::default()
                };
                api::conditions::summarize(&mut status);
                if let Some(phase) = forged {
                    status.phase = phase;
                }
                (status, own, intent)
            },
        )
}

/// A resource with any spec and any status, forged or not.
pub fn resource() -> impl Strategy<Value = DatasetImportJob> {
    let annotation = |key: &'static str, values: &'static [&'static str]| of((Just(key), select(values)));
    let annotations = (
        annotation(api::ADOPT, &["true", "false", "yes"]),
        prop_oneof![3 => Just(None), 1 => annotation(api::SUSPEND, &["true", "false"])],
        annotation(api::RETRY_REQUESTED_AT, &["1", "2", "3"]),
        annotation(api::RECONCILE_REQUESTED_AT, &["1", "2", "3"]),
    );
    let deleted = prop_oneof![9 => Just(None), 1 => time().prop_map(Some)];
    (any_spec().boxed(), of(0..4_i64), of(time()), deleted, annotations.boxed(), status_parts().boxed()).prop_map(
        |(spec, generation, created, deleted, annotations, (mut status, own, intent))| {
            let mut resource = super::resource(spec);
            resource.metadata.generation = generation;
            resource.metadata.creation_timestamp = created;
            resource.metadata.deletion_timestamp = deleted;
            let (adopt, suspend, retry, reconcile) = annotations;
            let set = [adopt, suspend, retry, reconcile].into_iter().flatten();
            resource.metadata.annotations = Some(set.map(|(key, value)| (key.into(), value.into())).collect());
            if let Ok(request) = ImportRequest::of(&resource) {
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
            resource.status = Some(status);
            resource
        },
    )
}

/// A job with any status under a name of the resource; it may have another request.
pub fn job(request: &ImportRequest) -> impl Strategy<Value = Job> + use<> {
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

/// The tags of a job: those of this resource, those of another, or none.
pub fn tags(request: &ImportRequest) -> impl Strategy<Value = Vec<Tag>> + use<> {
    let own = request.own_tags();
    let mut others = own.clone();
    others[1].tag_value = "another".into();
    prop_oneof![3 => Just(own), 1 => Just(others), 1 => Just(Vec::new())]
}

/// A dataset, ACTIVE more often than not.
pub fn dataset() -> impl Strategy<Value = Dataset> {
    let status = prop_oneof![3 => Just(ACTIVE.to_owned()), 1 => job_status()];
    (status, of(moment())).prop_map(|(status, created)| Dataset { status, created, schema_arn: None })
}

/// Some data.
pub fn imported_data() -> impl Strategy<Value = ImportedData> {
    let fingerprint = select(&["a", "b"][..]).prop_map(str::to_owned);
    (0..3_i64, 0..1000_i64, fingerprint).prop_map(|(files, bytes, fingerprint)| ImportedData {
        files,
        bytes,
        fingerprint,
    })
}

/// What is known of the data before its import.
pub fn data_check() -> impl Strategy<Value = DataCheck> {
    let invalid = Report::of(Schema::parse("", None, None).unwrap_err());
    let report = prop_oneof![Just(Report::default()), Just(invalid)];
    let check = (any::<bool>(), result(imported_data()), of(result(report)));
    check.prop_map(|(enforced, data, report)| DataCheck { enforced, data, report })
}

/// The jobs of a dataset.
pub fn summaries() -> impl Strategy<Value = Vec<JobSummary>> {
    let mode = of(select(&["FULL", "INCREMENTAL"][..]).prop_map(str::to_owned));
    let one = (text(), job_status(), of(moment()), of(moment()), mode);
    let one = one.prop_map(|(name, status, created, updated, import_mode)| JobSummary {
        name,
        status,
        created,
        updated,
        import_mode,
    });
    vec(one, 0..3)
}

/// What a reconciliation of this resource may have observed, in any order, possible or not.
pub fn observations(request: &ImportRequest) -> impl Strategy<Value = Observations> + use<> {
    let admission = prop_oneof![
        4 => Just(Admission::Admitted),
        1 => (text(), of(moment())).prop_map(|(message, until)| Admission::Pending { message, until }),
    ];
    let found =
        (job(request).boxed(), of(result(tags(request)))).prop_map(|(job, tags)| ObservedJob { job, tags }).boxed();
    let requested = result(of(moment()));
    (
        any::<bool>(),
        of(prop_oneof![4 => Just(Ok(())), 1 => text().prop_map(Err)]),
        (of(admission), of(of(Just(Key { namespace: "shop".into(), name: "newer".into() })))),
        (of(result(dataset())), of(of(data_check())), of(result(imported_data())), result(of(imported_data()))).boxed(),
        (of(result(summaries())), of(result(of(text())))).boxed(),
        (btree_map(1..4_i32, result(found), 0..4), any::<bool>()),
        of(1..4_i32),
        of(result(Just(()))),
        requested,
    )
        .prop_map(
            |(
                live,
                namespace,
                (admission, newer_import),
                (dataset, data, listed, imported),
                (jobs, data_deletion),
                (lookups, job_listed),
                intent,
                create,
                requested,
            )| {
                let names = || jobs.iter().flatten().flatten().map(|job: &JobSummary| job.name.clone());
                let requested_at: BTreeMap<_, _> = names().map(|name| (name, requested.clone())).collect();
                let imported = names().map(|name| (name, imported.clone())).collect();
                Observations {
                    live,
                    namespace,
                    admission,
                    newer_import,
                    dataset,
                    data,
                    listed,
                    imported,
                    jobs,
                    data_deletion,
                    requested_at,
                    lookups,
                    job_listed,
                    intent,
                    create,
                }
            },
        )
}

/// What a process may remember of this resource.
pub fn local_state(resource: &DatasetImportJob) -> impl Strategy<Value = LocalState> + use<> {
    let inputs = prop_oneof![Just(UserInputs::of(resource)), Just(UserInputs::default())];
    let durations = vec((0..1_u64 << 40).prop_map(Duration::from_secs), 0..4);
    let intent = of((1..4_i32, moment(), moment()));
    let polled = (of(moment()), of(moment()), 0..4_u32, any::<bool>());
    (polled, any::<bool>(), any::<bool>(), of((moment(), inputs)), durations, intent).prop_map(
        |(polled, no_job_found, finished_before, backoff, durations, intent)| {
            let (last_polled, last_described, polled_together, listed_as_ended) = polled;
            let mut local = LocalState {
                last_polled,
                last_described,
                polled_together,
                listed_as_ended,
                no_job_found,
                finished_before,
                durations,
                intent: intent.map(|(attempt, time, seen)| KnownIntent { attempt, time, seen }),
                ..LocalState::default()
            };
            if let Some((until, inputs)) = backoff {
                local.backoff.fail(until, |_| Duration::ZERO);
                local.backoff_inputs = Some(inputs);
            }
            local
        },
    )
}

/// A resource, what its reconciliation may have observed, and what the process may remember.
pub fn situation() -> impl Strategy<Value = (DatasetImportJob, Observations, LocalState)> {
    resource().boxed().prop_flat_map(|resource| {
        let request = ImportRequest::of(&resource).ok();
        let observed = request.as_ref().map_or(Just(Observations::default()).boxed(), |r| observations(r).boxed());
        let phase = request.map(|request| Phase::of(&resource.status.clone().unwrap_or_default(), &request));
        let favourable = uniform8(weighted(0.75));
        (observed, local_state(&resource).boxed(), favourable).prop_map(move |(mut observed, mut local, favourable)| {
            if let Some(phase) = phase {
                favour(&mut observed, &mut local, phase, favourable);
            }
            (resource.clone(), observed, local)
        })
    })
}

/// Makes some observations favourable. Random ones alone hardly ever lead as far as a create.
fn favour(observations: &mut Observations, local: &mut LocalState, phase: Phase, favourable: [bool; 8]) {
    let attempt = if let Phase::Unsubmitted(attempt) | Phase::Submitting(attempt) = phase { attempt } else { 1 };
    let [no_backoff, live, allowed, admitted, active, no_other_job, no_job, intended] = favourable;
    if no_backoff {
        *local = LocalState { finished_before: true, ..LocalState::default() };
    }
    observations.live |= live;
    if allowed {
        observations.namespace = Some(Ok(()));
    }
    if admitted {
        observations.admission = Some(Admission::Admitted);
    }
    if active {
        observations.dataset = Some(Ok(super::active_dataset()));
        observations.data_deletion = Some(Ok(None));
    }
    if no_other_job {
        observations.jobs = Some(Ok(Vec::new()));
    }
    if no_job {
        observations.lookups.insert(attempt, Err(super::service_error(ErrorKind::NotFound)));
        observations.create = None;
    }
    if intended {
        observations.intent = Some(attempt);
    }
}
