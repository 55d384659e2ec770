//! Properties of every plan, for any resource and any observations.

use super::scenario::Scenario;
use super::schema::violations;
use crate::api::conditions::{self, Reason};
use crate::api::{DatasetImportJob, DatasetImportJobStatus, suspended_by};
use crate::import::{
    AfterWrite, Effect, IdleState, ImportRequest, Key, LocalState, MANAGER, Next, Requeue, Trust, is_idle, plan,
};
use crate::personalize::{ACTIVE, Dataset, ErrorKind, ServiceError};
use crate::queue::Queue;
use crate::reconciliation::{Observation, Reconciliation};
use crate::redact::MAX_CHARS;
use crate::testing::strategies::{
    SECRET, dataset, job, moment, resource, result, service_error, situation, summaries, tags, text,
};
use crate::testing::{set_status_manager, timing};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::time::Duration;

/// The texts of a status that users see.
fn texts(status: &DatasetImportJobStatus) -> impl Iterator<Item = &String> {
    let messages = status.conditions.iter().map(|condition| &condition.message);
    [&status.status, &status.failure_reason, &status.message].into_iter().flatten().chain(messages)
}

/// New texts are readable, short and without secrets, and the API server accepts the status if it accepted the one
/// before.
fn check_written(
    resource: &DatasetImportJob,
    before: &DatasetImportJobStatus,
    after: &DatasetImportJobStatus,
) -> Result<(), TestCaseError> {
    let invisible = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}');
    for text in texts(after).filter(|text| texts(before).all(|old| old != *text)) {
        prop_assert!(text.chars().count() <= MAX_CHARS, "{} characters", text.chars().count());
        prop_assert!(!text.contains(|c| char::is_control(c) || invisible(c)), "{text:?}");
        prop_assert!(!text.contains(SECRET), "{text:?}");
    }
    let mut summarized = after.clone();
    conditions::summarize(&mut summarized);
    prop_assert_eq!(&summarized, after, "the summary agrees with the conditions");
    let with = |status: &DatasetImportJobStatus| DatasetImportJob { status: Some(status.clone()), ..resource.clone() };
    if violations(&with(before)).is_empty() {
        prop_assert_eq!(violations(&with(after)), Vec::<String>::new());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn create_follows_all_checks_and_each_write_is_a_valid_change(
        (resource, observations, local) in situation(),
        trusted: bool,
        now in moment(),
    ) {
        let before = resource.status.clone().unwrap_or_default();
        let trust = if trusted { Trust::Trusted } else { Trust::Untrusted };
        let next = plan(&resource, trust, &observations, &local, now, &timing());
        prop_assert_eq!(&next, &plan(&resource, trust, &observations, &local, now, &timing()), "plans are repeatable");
        match &next {
            Next::Perform(Effect::CreateJob { attempt }) => {
                prop_assert!(trusted, "no create with an untrusted status");
                prop_assert_eq!(observations.intent, Some(*attempt), "no create without an intent of this reconciliation");
                prop_assert_eq!(before.submission.map(|s| s.attempt), Some(*attempt), "no create without a recorded intent");
                let lookup = observations.lookups.get(attempt).and_then(|lookup| lookup.as_ref().err());
                prop_assert_eq!(lookup.map(|error| error.kind), Some(ErrorKind::NotFound), "no create without a lookup");
                prop_assert!(observations.create.is_none(), "no second create in a reconciliation");
                prop_assert!(resource.metadata.deletion_timestamp.is_none());
            }
            Next::Perform(Effect::WriteStatus { status: after, then }) => {
                let is_intent = matches!(then, AfterWrite::Submit { .. });
                prop_assert!(is_intent);
                prop_assert!(trusted && observations.live, "an intent is written only after a live read");
                prop_assert_eq!(&observations.namespace, &Some(Ok(())), "and only where it is allowed");
                let created = observations.dataset.clone().and_then(|dataset| dataset.ok()?.created);
                let active = Dataset { status: ACTIVE.into(), created, schema_arn: None };
                prop_assert_eq!(&observations.dataset, &Some(Ok(active)), "into an active dataset");
                let deletion = observations.data_deletion.as_ref();
                let refused = || deletion.and_then(|d| d.as_ref().err()).is_some_and(ServiceError::is_refusal);
                prop_assert!(deletion == Some(&Ok(None)) || refused(), "and not while users are deleted: {:?}", deletion);
                prop_assert!(suspended_by(&resource).is_none() && resource.metadata.deletion_timestamp.is_none());
                let submission = after.submission.as_ref().unwrap();
                let request = ImportRequest::of(&resource).unwrap();
                prop_assert_eq!(&submission.job_name, &request.job_name(submission.attempt));
                prop_assert_ne!(&after.submission, &before.submission, "a compare-and-swap needs a difference");
                check_written(&resource, &before, after)?;
            }
            Next::Finish(outcome) => if let Some(after) = &outcome.status {
                prop_assert_ne!(&**after, &before, "a write changes something");
                let generations = [before.observed_generation, Some(resource.metadata.generation.unwrap_or(0)), None];
                prop_assert!(generations.contains(&after.observed_generation), "{:?}", after.observed_generation);
                check_written(&resource, &before, after)?;
            },
            Next::Perform(_) | Next::TryAdmit | Next::FindNewerImport => {}
        }
    }
}

proptest! {
    #[test]
    fn resource_at_rest_needs_neither_a_call_nor_a_write(
        (mut resource, _, local) in situation(),
        owned: bool,
        replaced: bool,
        (now, later) in (moment(), moment()),
    ) {
        if owned {
            set_status_manager(&mut resource, MANAGER);
        }
        let newer = replaced.then(|| Key { namespace: "shop".into(), name: "newer".into() });
        let idle = |local: &LocalState, now| {
            is_idle(&resource, local.trust(&resource), newer.clone(), local, now, &timing())
        };
        if idle(&local, now) {
            let left = LocalState::from(IdleState::new(&resource, &local));
            prop_assert!(idle(&left, later), "at any time, whatever the process forgets");
            let mut reconciliation = Reconciliation::new(resource.clone(), local);
            if reconciliation.next(now, &timing()) == Next::FindNewerImport {
                let mut queue = Queue::new(5, timing());
                reconciliation.apply(Observation::NewerImport(newer.clone()), now, &mut queue).unwrap();
            }
            let Next::Finish(outcome) = reconciliation.next(now, &timing()) else { panic!("an effect") };
            prop_assert_eq!((outcome.status, outcome.requeue), (None, Requeue::AwaitChange));
        }
    }
}

/// A resource, and a service in which any job may exist and that may answer anything.
fn scenario() -> impl Strategy<Value = Scenario> {
    let service = |request: &ImportRequest| {
        let jobs = vec((job(request).boxed(), tags(request)), 0..4).boxed();
        let answers = vec((any::<bool>(), result(Just(()))), 0..3);
        let dataset = result(dataset()).boxed();
        let job_list_age = of((0..3600_u64).prop_map(Duration::from_secs));
        let namespace = prop_oneof![4 => Just(Ok(())), 1 => text().prop_map(Err)];
        let others = (summaries().boxed(), result(of(moment())), job_list_age).boxed();
        (jobs, answers, of(service_error()), dataset, others, namespace).boxed()
    };
    let valid =
        resource().boxed().prop_filter("the spec names a dataset", |resource| ImportRequest::of(resource).is_ok());
    valid.prop_flat_map(move |resource| {
        let request = ImportRequest::of(&resource).unwrap();
        (service(&request), moment(), Just(resource)).prop_map(|(service, now, resource)| {
            let (jobs, answers, tags_error, dataset, (other_jobs, requested_at, job_list_age), namespace) = service;
            let mut scenario = Scenario { answers, tags_error, dataset, namespace, now, resource, ..Scenario::new() };
            let names = (1..).map(|attempt| scenario.request().job_name(attempt));
            scenario.jobs = names.zip(jobs).collect();
            scenario.requested_at = other_jobs.iter().map(|job| (job.name.clone(), requested_at.clone())).collect();
            Scenario { other_jobs, job_list_age, ..scenario }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn reconciliation_of_any_status_finishes_and_claims_only_jobs_that_exist(
        mut scenario in scenario(),
        trusted: bool,
    ) {
        let before = scenario.status();
        if trusted {
            scenario.reconcile();
        } else {
            scenario.reconcile_untrusted();
        }
        prop_assert!(scenario.accepted.len() <= 1);
        for after in &scenario.written {
            check_written(&scenario.resource, &before, after)?;
        }
        let status = scenario.status();
        if !trusted && let Some(arn) = &status.dataset_import_job_arn && !scenario.written.is_empty() {
            let request = scenario.request();
            let exists = scenario.jobs.keys().any(|name| request.dataset.job(name).0 == *arn);
            prop_assert!(exists || Reason::of(&status) == Some(Reason::JobNotFound));
        }
    }
}
