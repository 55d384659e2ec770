//! Submitting exactly once: the intent, the create call and its answers.

use super::world::{FAILURE, IN_PROGRESS, World, failure};
use crate::api::RECONCILE_REQUESTED_AT;
use crate::api::conditions::Reason;
use crate::import::plan::{Effect, Observations, Requeue, decide};
use crate::import::timing::tests::policy;
use crate::import::timing::{Severity, Timing, after, since};
use crate::personalize::{ACTIVE, CREATE_PENDING, ErrorKind, JobSummary};
use crate::queue::Admission;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

#[test]
fn a_lost_answer_is_looked_up_whether_or_not_the_call_took_effect() {
    for effect in [true, false] {
        let mut world = World::new();
        world.answers = vec![(effect, Err(failure(ErrorKind::Indeterminate)))];
        world.settle();
        assert_eq!(world.conditions(), IN_PROGRESS);
        for _ in 0..3 {
            world.later();
            world.settle();
        }
        assert_eq!(world.accepted.len(), 1, "effect: {effect}");
        assert_eq!(world.reason(), Reason::Pending);
    }
}

#[test]
fn each_answer_to_create_has_its_own_reason() {
    for (class, reason, row) in [
        (ErrorKind::InvalidInput, Reason::InvalidInput, FAILURE),
        (ErrorKind::AccessDenied, Reason::AccessDenied, FAILURE),
        (ErrorKind::TooManyTags, Reason::TooManyTags, FAILURE),
        (ErrorKind::QuotaExceeded, Reason::Queued, IN_PROGRESS),
        (ErrorKind::Throttled, Reason::Throttled, IN_PROGRESS),
        (ErrorKind::NotFound, Reason::DatasetNotReady, IN_PROGRESS),
        (ErrorKind::InUse, Reason::Queued, IN_PROGRESS),
        (ErrorKind::Credentials, Reason::CredentialsRefused, IN_PROGRESS),
        (ErrorKind::Indeterminate, Reason::Submitting, IN_PROGRESS),
    ] {
        let mut world = World::new();
        world.answers = vec![(false, Err(failure(class)))];
        let rest = world.settle();
        assert_eq!((world.reason(), world.conditions()), (reason, row.map(String::from)), "{class:?}");
        assert_eq!(world.status().submission.is_some(), class == ErrorKind::Indeterminate, "{class:?}");
        assert!(matches!(rest.again, Requeue::Backoff(_)), "{class:?}: it is tried again");
        for _ in 0..3 {
            world.later();
            world.settle();
        }
        assert_eq!(world.accepted.len(), 1, "{class:?}: once the cause is mended, it is imported");
    }
}

/// A world that died right after its intent was recorded.
fn intended() -> World {
    let mut world = World::new();
    for steps in 1.. {
        assert!(world.pass(true, steps).is_none(), "the intent comes before the end");
        if world.status().submission.is_some() {
            break;
        }
    }
    world.crash();
    world
}

#[test]
fn a_left_over_intent_waits_for_what_others_have_begun_since() {
    let mut world = intended();
    world.now = after(world.now, policy().grace * 2);
    world.running =
        vec![JobSummary { name: "theirs".into(), status: CREATE_PENDING.into(), created: None, updated: None }];
    world.settle();
    assert_eq!((world.reason(), world.accepted.len()), (Reason::Queued, 0));
    world.running.clear();
    world.later();
    world.settle();
    assert_eq!(world.accepted.len(), 1);
}

#[test]
fn an_intent_by_a_clock_that_runs_ahead_is_waited_for_no_longer_than_another() {
    let mut world = intended();
    world.now = after(world.now, Duration::from_secs(1));
    let ahead = after(world.now, Duration::from_secs(24 * 3600));
    if let Some(submission) = world.job.status.as_mut().and_then(|status| status.submission.as_mut()) {
        submission.time = Time(ahead);
    }
    let (writes, began) = (world.writes, world.now);
    world.settle();
    assert!(since(began, world.now) <= policy().grace * 2, "{:?}", since(began, world.now));
    assert_eq!((world.accepted.len(), world.reason()), (1, Reason::Pending));
    assert!(world.writes <= writes + 6, "{} writes", world.writes);
}

#[test]
fn a_submission_whose_tags_come_later_than_its_job_never_looks_refused() {
    for class in [ErrorKind::NotFound, ErrorKind::InUse] {
        let mut world = World::new();
        world.answers = vec![(true, Err(failure(ErrorKind::Indeterminate)))];
        world.tags = Some(failure(class));
        world.settle();
        world.later();
        world.settle();
        assert_eq!((world.reason(), world.conditions()), (Reason::Submitting, IN_PROGRESS.map(String::from)));
        world.tags = None;
        world.later();
        world.settle();
        assert_eq!((world.reason(), world.accepted.len()), (Reason::Pending, 1));
    }
}

#[test]
fn a_restart_asks_no_sooner_again_for_what_was_rejected() {
    let mut world = World::new();
    world.answers = vec![(false, Err(failure(ErrorKind::AccessDenied))), (true, Ok(()))];
    world.settle();
    assert_eq!(world.reason(), Reason::AccessDenied);
    world.crash();
    let (reads, writes) = (world.reads, world.writes);
    assert_eq!(world.settle().again, Requeue::Backoff(Severity::NeedsUser));
    assert_eq!((world.reads, world.writes), (reads, writes));
    world.crash();
    world.annotate(RECONCILE_REQUESTED_AT, "now");
    world.settle();
    assert_eq!((world.reason(), world.accepted.len()), (Reason::Pending, 1), "a person need not wait");
}

/// A pass that has found that it may go on.
fn nothing_in_the_way() -> Observations {
    Observations {
        live: true,
        permission: Some(Ok(())),
        turn: Some(Admission::Admitted),
        dataset: Some(Ok(ACTIVE.into())),
        jobs: Some(Ok(Vec::new())),
        ..Observations::default()
    }
}

#[test]
fn a_fresh_intent_differs_from_the_one_it_replaces_however_short_the_grace() {
    let mut world = intended();
    world.memory.notice_intent(world.job.status.as_ref(), world.now);
    let policy = Timing { grace: Duration::ZERO, ..policy() };
    let mut seen = nothing_in_the_way();
    seen.lookups.insert(1, Err(failure(ErrorKind::NotFound)));
    let within = decide(&world.job, true, &seen, &world.memory, world.now, &policy);
    assert!(!matches!(within, Effect::RecordIntent(_)), "{within:?}");
    let later = after(world.now, Duration::from_secs(1));
    let Effect::RecordIntent(status) = decide(&world.job, true, &seen, &world.memory, later, &policy) else {
        panic!("a second later it is recorded afresh");
    };
    assert_ne!(status.submission, world.status().submission);
}

#[test]
fn an_intent_that_grew_old_before_the_create_is_recorded_anew() {
    let mut world = World::new();
    let mut seen = Observations { intent: Some(1), ..nothing_in_the_way() };
    seen.lookups.insert(1, Err(failure(ErrorKind::NotFound)));
    let steps = (1..).take_while(|steps| {
        world.pass(true, *steps);
        world.status().submission.is_none()
    });
    assert!(steps.count() > 0 && world.accepted.is_empty());
    let step = |world: &World| decide(&world.job, true, &seen, &world.memory, world.now, &policy());
    assert_eq!(step(&world), Effect::Create { attempt: 1 });
    world.now = after(world.now, policy().grace / 2);
    assert!(matches!(step(&world), Effect::Outcome(_)), "who takes it for lost then may be creating when this arrives");
    world.memory.notice_intent(world.job.status.as_ref(), world.now);
    world.now = after(world.now, policy().grace);
    assert!(matches!(step(&world), Effect::RecordIntent(_)), "whoever read the old one may be creating by now");
}

#[test]
fn an_intent_that_a_crash_left_over_is_not_carried_out_once_the_namespace_may_not() {
    let mut world = intended();
    world.permission = Err("its list has no such dataset".into());
    world.pass(true, 100);
    world.now = after(world.now, policy().grace);
    world.pass(true, 100);
    assert_eq!(Reason::of(&world.status()), Some(Reason::NotPermitted));
    assert_eq!((world.status().submission, world.accepted.len()), (None, 0));
}
