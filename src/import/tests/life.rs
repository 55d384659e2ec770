//! A job from its submission to its end, and what comes after.

use super::world::{IN_PROGRESS, SUCCESS, World, failure};
use crate::api::RECONCILE_REQUESTED_AT;
use crate::api::conditions::Reason;
use crate::import::plan::{Effect, Observations, Outcome, Requeue, decide};
use crate::import::timing::tests::policy;
use crate::personalize::{ACTIVE, CREATE_FAILED, ErrorKind};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

#[test]
fn a_manifest_becomes_one_job_and_is_followed_to_its_end() {
    let mut world = World::new();
    world.settle();
    let name = world.request().job_name(1);
    assert_eq!(world.accepted, std::slice::from_ref(&name));
    assert_eq!((world.reason(), world.conditions()), (Reason::Pending, IN_PROGRESS.map(String::from)));
    world.end(&name, ACTIVE);
    world.later();
    assert_eq!(world.settle().again, Requeue::AwaitChange);
    assert_eq!((world.reason(), world.conditions()), (Reason::ImportSucceeded, SUCCESS.map(String::from)));
    assert!(world.status().completion_time.is_some());
}

#[test]
fn after_the_end_nothing_is_asked_or_written() {
    for end in [ACTIVE, CREATE_FAILED] {
        let mut world = World::new();
        world.settle();
        let name = world.request().job_name(1);
        world.end(&name, end);
        world.later();
        world.settle();
        let (reads, writes, status) = (world.reads, world.writes, world.status());
        world.annotate("example.org/label", "edited");
        world.annotate(RECONCILE_REQUESTED_AT, "now");
        world.end(&name, "CREATE IN_PROGRESS");
        for _ in 0..3 {
            world.crash();
            world.later();
            world.settle();
        }
        assert_eq!((world.reads, world.writes, world.status()), (reads, writes, status));
    }
}

#[test]
fn a_crash_after_any_step_neither_loses_nor_doubles_the_import() {
    for end in [ACTIVE, CREATE_FAILED] {
        for first in 0..14 {
            for second in 0..14 {
                let mut world = World::new();
                for steps in [first, second] {
                    world.pass(true, steps);
                    world.crash();
                }
                world.settle();
                world.later();
                world.settle();
                let name = world.request().job_name(1);
                world.end(&name, end);
                world.later();
                world.settle();
                assert_eq!(world.accepted, [name], "killed after {first} and {second} steps");
                assert_eq!(world.status().status.as_deref(), Some(end));
            }
        }
    }
}

#[test]
fn a_job_that_vanished_is_reported_and_not_submitted_again() {
    let mut world = World::new();
    world.settle();
    world.jobs.clear();
    for _ in 0..4 {
        world.later();
        world.settle();
    }
    assert_eq!((world.accepted.len(), world.reason()), (1, Reason::JobNotFound));
}

#[test]
fn a_resource_on_its_way_out_is_left_alone() {
    let mut world = World::new();
    world.job.metadata.deletion_timestamp = Some(Time(world.now));
    world.settle();
    assert_eq!((world.accepted.len(), world.writes, world.reads), (0, 0, 0));
}

#[test]
fn an_end_that_the_service_spells_oddly_is_an_end_and_no_reason_to_import_again() {
    for (spelt, end) in [("CREATE  FAILED\n", CREATE_FAILED), (" ACTIVE", ACTIVE)] {
        let mut world = World::new();
        world.settle();
        let name = world.request().job_name(1);
        world.end(&name, spelt);
        for _ in 0..3 {
            world.later();
            world.settle();
        }
        assert_eq!((world.accepted.len(), world.status().status.as_deref()), (1, Some(end)), "{spelt:?}");
        assert!(world.status().completion_time.is_some(), "{spelt:?}");
    }
}

#[test]
fn a_look_is_taken_when_due_and_at_once_when_a_person_asks() {
    let mut world = World::new();
    world.settle();
    let reads = world.reads;
    for _ in 0..5 {
        world.annotate("example.org/label", "edited");
        world.settle();
    }
    assert_eq!(world.reads, reads, "an edit that means nothing asks nothing");
    world.annotate(RECONCILE_REQUESTED_AT, "1");
    world.settle();
    world.settle();
    assert_eq!(world.reads, reads + 1);
}

#[test]
fn a_passing_failure_never_makes_a_running_import_look_failed() {
    for class in [ErrorKind::Throttled, ErrorKind::Indeterminate, ErrorKind::Credentials, ErrorKind::AccessDenied] {
        let mut world = World::new();
        world.settle();
        let mut seen = Observations::default();
        seen.lookups.insert(1, Err(failure(class)));
        let step = decide(&world.job, true, &seen, &world.memory, world.now, &policy());
        let Effect::Outcome(Outcome { status: Some(status), .. }) = step else { panic!("{class:?}: {step:?}") };
        assert_eq!(Reason::of(&status), Some(Reason::Pending), "{class:?}");
        assert!(status.conditions[0].message.contains("can't be followed"), "{class:?}");
    }
}
