//! What was made before the status knew of it, and what must not be believed or repeated.

use super::world::{FAILURE, World, failure};
use crate::api::conditions::{self, READY, Reason};
use crate::api::{ADOPT, DatasetImportJobStatus, RETRY_REQUESTED_AT};
use crate::import::plan::{Effect, Memory, Observations, Requeue, UserInputs, decide};
use crate::import::timing::tests::policy;
use crate::import::timing::{Severity, after};
use crate::personalize::{ACTIVE, CREATE_FAILED, CREATE_PENDING, ErrorKind};
use crate::queue::{Admission, Key};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use std::time::Duration;

#[test]
fn a_resource_that_was_put_back_to_its_wait_finds_the_attempt_that_landed_and_not_the_first() {
    let mut world = World::new();
    let (first, second) = (world.request().job_name(1), world.request().job_name(2));
    let tags = world.request().own_tags();
    world.make_job(&first, CREATE_FAILED, tags.clone());
    world.make_job(&second, ACTIVE, tags);
    let mut status = DatasetImportJobStatus::default();
    conditions::set(&mut status, 1, Reason::Queued, "", world.now);
    world.job.status = Some(status);
    world.settle();
    assert_eq!((world.reason(), world.status().attempts), (Reason::ImportSucceeded, Some(2)));
    assert_eq!(world.accepted.len(), 0);
}

#[test]
fn a_request_to_retry_that_was_withdrawn_does_not_fire_when_it_comes_back() {
    let mut world = World::new();
    let fail = |world: &mut World, attempt| {
        world.settle();
        let name = world.request().job_name(attempt);
        world.end(&name, CREATE_FAILED);
        for _ in 0..2 {
            world.later();
            world.settle();
        }
    };
    fail(&mut world, 1);
    world.annotate(RETRY_REQUESTED_AT, "monday");
    world.settle();
    world.job.metadata.annotations = None;
    world.later();
    fail(&mut world, 2);
    world.annotate(RETRY_REQUESTED_AT, "monday");
    world.later();
    world.settle();
    assert_eq!((world.reason(), world.accepted.len()), (Reason::ImportFailed, 2));
}

#[test]
fn an_own_young_job_without_tags_is_in_doubt_and_after_the_grace_a_strangers() {
    let mut world = World::new();
    let name = world.request().job_name(1);
    world.answers = vec![(true, Err(failure(ErrorKind::Indeterminate)))];
    world.pass(true, 100);
    let tags = std::mem::take(&mut world.jobs.get_mut(&name).unwrap().1);
    world.pass(true, 100);
    assert_eq!((world.reason(), world.status().submission.is_some()), (Reason::Submitting, true));
    let mut never = world.clone();
    world.jobs.get_mut(&name).unwrap().1 = tags;
    world.later();
    world.settle();
    assert_eq!((world.reason(), world.accepted.len()), (Reason::Pending, 1));
    never.later();
    never.settle();
    assert_eq!((never.reason(), never.conditions()), (Reason::JobNameConflict, FAILURE.map(String::from)));
}

#[test]
fn an_attempt_that_failed_is_over_when_a_newer_import_has_landed_before_the_next() {
    let mut world = World::new();
    world.job.spec.backoff_limit = 1;
    world.settle();
    let name = world.request().job_name(1);
    world.end(&name, CREATE_FAILED);
    world.later();
    world.pass(true, 100);
    assert_eq!((world.reason(), world.status().completion_time), (Reason::Retrying, None));
    world.later();
    let by = Key { namespace: "elsewhere".into(), name: "secret".into() };
    let seen =
        Observations { permission: Some(Ok(())), turn: Some(Admission::Superseded { by }), ..Observations::default() };
    let Effect::Outcome(rest) = decide(&world.job, true, &seen, &world.memory, world.now, &policy()) else {
        panic!("that is final")
    };
    let status = rest.status.unwrap();
    assert_eq!(Reason::of(&status), Some(Reason::Superseded));
    assert!(status.completion_time.is_some());
    let told = &status.conditions[0].message;
    assert!(!told.contains("secret") && !told.contains("elsewhere"), "{told}");
}

#[test]
fn what_a_namespace_may_not_import_is_not_looked_at_for_it_whoever_wiped_the_books() {
    let mut world = World::new();
    world.permission = Err("its list has no such dataset".into());
    let name = world.request().job_name(1);
    world.make_job(&name, ACTIVE, vec![]);
    world.annotate(ADOPT, "true");
    let rest = world.pass(false, 100).unwrap();
    assert_eq!((world.reason(), rest.again), (Reason::NotPermitted, Requeue::Backoff(Severity::NeedsUser)));
    assert_eq!(world.reads, 0);
    // What claims to be submitted is looked up under its own name, and adopted by its tags alone.
    world.job.status.as_mut().unwrap().dataset_import_job_arn = Some(world.request().job_arn(1).0);
    world.later();
    world.pass(false, 100);
    assert_eq!(world.reason(), Reason::JobNameConflict);
}

#[test]
fn a_status_that_is_not_believed_keeps_the_conditions_that_others_set() {
    let mut world = World::new();
    let theirs = Condition {
        type_: "example.org/Billed".into(),
        status: "True".into(),
        reason: "Because".into(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: Time(world.now),
    };
    world.job.status = Some(DatasetImportJobStatus { conditions: vec![theirs.clone()], ..Default::default() });
    world.pass(false, 100);
    assert!(world.status().conditions.contains(&theirs));
    assert!(world.status().conditions.iter().any(|c| c.type_ == READY));
}

#[test]
fn what_a_look_confirms_is_believed_from_then_on() {
    let mut world = World::new();
    world.settle();
    let name = world.request().job_name(1);
    world.end(&name, ACTIVE);
    world.later();
    world.settle();
    let written = world.writes;
    let rest = world.pass(false, 100).unwrap();
    assert!(rest.verified && rest.status.is_none());
    assert_eq!(world.writes, written);
}

#[test]
fn what_appears_under_the_name_of_a_lost_job_is_adopted_only_if_it_is_its_own() {
    let mut world = World::new();
    world.settle();
    let (name, tags) = (world.request().job_name(1), world.request().own_tags());
    world.jobs.clear();
    for _ in 0..3 {
        world.later();
        world.settle();
    }
    assert_eq!(world.reason(), Reason::JobNotFound);
    world.make_job(&name, CREATE_PENDING, vec![]);
    world.later();
    world.settle();
    assert_eq!(world.reason(), Reason::JobNotFound);
    world.make_job(&name, CREATE_PENDING, tags);
    world.later();
    world.settle();
    assert_eq!(world.reason(), Reason::Pending);
}

#[test]
fn a_pause_that_a_clock_turned_back_would_draw_out_is_over() {
    let world = World::new();
    let rests = |until| {
        let memory = Memory { pause: Some((until, UserInputs::of(&world.job))), ..Memory::default() };
        matches!(decide(&world.job, true, &Observations::default(), &memory, world.now, &policy()), Effect::Outcome(_))
    };
    let longest = policy().rejected_max;
    assert!(rests(after(world.now, longest)));
    assert!(!rests(after(world.now, longest + Duration::from_secs(1))));
}
