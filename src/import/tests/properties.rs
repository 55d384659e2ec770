//! What holds of every decision, whatever stands in the resource and whatever was seen.

use super::anything::{
    SECRET, failure, job, job_status, memory, moment, resource, result, seen, summaries, tags, text,
};
use super::schema::faults;
use super::world::World;
use crate::api::conditions::Reason;
use crate::api::{DatasetImportJob, DatasetImportJobStatus, held_back_by};
use crate::import::plan::{Effect, Memory, Observations, decide};
use crate::import::request::ImportRequest;
use crate::import::timing::tests::policy;
use crate::personalize::{ACTIVE, ErrorKind};
use crate::redact::MAX_CHARS;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

/// What people see of a status.
fn told(status: &DatasetImportJobStatus) -> impl Iterator<Item = &String> {
    let messages = status.conditions.iter().map(|condition| &condition.message);
    [&status.status, &status.failure_reason].into_iter().flatten().chain(messages)
}

/// What is written is fit for people, and the API server takes it if it took what was there before.
fn is_fit(
    job: &DatasetImportJob,
    before: &DatasetImportJobStatus,
    after: &DatasetImportJobStatus,
) -> Result<(), TestCaseError> {
    let invisible = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}');
    for text in told(after).filter(|text| told(before).all(|old| old != *text)) {
        prop_assert!(text.chars().count() <= MAX_CHARS, "{} characters", text.chars().count());
        prop_assert!(!text.contains(|c| char::is_control(c) || invisible(c)), "{text:?}");
        prop_assert!(!text.contains(SECRET), "{text:?}");
    }
    let with = |status: &DatasetImportJobStatus| DatasetImportJob { status: Some(status.clone()), ..job.clone() };
    if faults(&with(before)).is_empty() {
        prop_assert_eq!(faults(&with(after)), Vec::<String>::new());
    }
    Ok(())
}

/// A resource, and what a pass over it may have seen and remember.
fn situation() -> impl Strategy<Value = (DatasetImportJob, Observations, Memory)> {
    resource().boxed().prop_flat_map(|job| {
        let seen =
            ImportRequest::of(&job).map_or(Just(Observations::default()).boxed(), |request| seen(&request).boxed());
        let memory = memory(&job).boxed();
        (Just(job), seen, memory)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_decision_creates_unprepared_or_writes_what_is_not_fit_or_says_nothing_new(
        (job, seen, memory) in situation(),
        proven: bool,
        now in moment(),
    ) {
        let before = job.status.clone().unwrap_or_default();
        let step = decide(&job, proven, &seen, &memory, now, &policy());
        prop_assert_eq!(&step, &decide(&job, proven, &seen, &memory, now, &policy()), "the same again");
        match &step {
            Effect::Create { attempt } => {
                prop_assert!(proven, "nothing is created on the word of somebody else's status");
                prop_assert_eq!(seen.intent, Some(*attempt), "nor without an intent of this pass");
                prop_assert_eq!(before.submission.map(|s| s.attempt), Some(*attempt), "nor without a recorded one");
                let look = seen.lookups.get(attempt).and_then(|look| look.as_ref().err()).map(|failure| failure.kind);
                prop_assert_eq!(look, Some(ErrorKind::NotFound), "nor without having looked");
                prop_assert!(seen.create.is_none(), "nor twice in a pass");
                prop_assert!(job.metadata.deletion_timestamp.is_none());
            }
            Effect::RecordIntent(after) => {
                prop_assert!(proven && seen.live, "an intent is written only over a live read");
                prop_assert_eq!(&seen.permission, &Some(Ok(())), "and only where it is permitted");
                prop_assert_eq!(&seen.dataset, &Some(Ok(ACTIVE.to_owned())), "into a dataset that is there");
                prop_assert!(held_back_by(&job).is_none() && job.metadata.deletion_timestamp.is_none());
                let submission = after.submission.as_ref().unwrap();
                prop_assert_eq!(&submission.job_name, &ImportRequest::of(&job).unwrap().job_name(submission.attempt));
                prop_assert_ne!(&after.submission, &before.submission, "a swap needs a difference");
                is_fit(&job, &before, after)?;
            }
            Effect::Outcome(rest) => if let Some(after) = &rest.status {
                prop_assert_ne!(&**after, &before, "nothing is written that says nothing new");
                let generations = [before.observed_generation, Some(job.metadata.generation.unwrap_or(0)), None];
                prop_assert!(generations.contains(&after.observed_generation), "{:?}", after.observed_generation);
                is_fit(&job, &before, after)?;
            },
            _ => {}
        }
    }
}

/// A resource in a world in which anything may stand under its names and be answered.
fn world() -> impl Strategy<Value = World> {
    let service = |request: &ImportRequest| {
        let jobs = vec((job(request).boxed(), tags(request)), 0..4).boxed();
        let answers = vec((any::<bool>(), result(Just(()))), 0..3);
        let unread = of(failure());
        let dataset = result(prop_oneof![3 => Just(ACTIVE.to_owned()), 1 => job_status()]).boxed();
        let age = result(of(moment()));
        let permission = prop_oneof![4 => Just(Ok(())), 1 => text().prop_map(Err)];
        (jobs, answers, unread, dataset, (summaries().boxed(), age), permission).boxed()
    };
    let valid = resource().boxed().prop_filter("the spec names a dataset", |job| ImportRequest::of(job).is_ok());
    valid.prop_flat_map(move |job| {
        let request = ImportRequest::of(&job).unwrap();
        (service(&request), moment(), Just(job)).prop_map(|(service, now, job)| {
            let (jobs, answers, tags, dataset, (running, age), permission) = service;
            let mut world = World { answers, tags, dataset, permission, now, job, ..World::new() };
            world.jobs = (1..).zip(jobs).map(|(attempt, job)| (world.request().job_name(attempt), job)).collect();
            world.ages = running.iter().map(|job| (job.name.clone(), age.clone())).collect();
            World { running, ..world }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_status_however_forged_comes_to_rest_and_claims_nothing_it_has_not_seen(
        mut world in world(),
        proven: bool,
    ) {
        let before = world.status();
        prop_assert!(world.pass(proven, 1000).is_some());
        prop_assert!(world.accepted.len() <= 1);
        for after in &world.written {
            is_fit(&world.job, &before, after)?;
        }
        let status = world.status();
        if !proven && let Some(arn) = &status.dataset_import_job_arn && world.writes > 0 {
            let request = world.request();
            let known = world.jobs.keys().any(|name| request.dataset.job(name).0 == *arn);
            prop_assert!(known || Reason::of(&status) == Some(Reason::JobNotFound));
        }
    }
}
