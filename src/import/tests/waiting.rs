//! What an import waits for, and what it is never made after.

use super::world::{FAILURE, HELD, IN_PROGRESS, World, failure};
use crate::api::conditions::Reason;
use crate::api::{RECONCILE_REQUESTED_AT, SUSPEND};
use crate::import::plan::Requeue;
use crate::import::timing::Severity;
use crate::personalize::{ACTIVE, CREATE_PENDING, ErrorKind, JobSummary};
use jiff::Timestamp;
use kube::ResourceExt;

#[test]
fn a_dataset_that_is_not_there_or_not_active_is_waited_for() {
    for dataset in [Ok("CREATE PENDING".to_owned()), Err(failure(ErrorKind::NotFound))] {
        let mut world = World::new();
        world.dataset = dataset;
        world.settle();
        assert_eq!((world.reason(), world.conditions()), (Reason::DatasetNotReady, IN_PROGRESS.map(String::from)));
        world.dataset = Ok(ACTIVE.into());
        world.later();
        world.settle();
        assert_eq!(world.accepted.len(), 1);
    }
}

#[test]
fn an_import_that_somebody_else_runs_into_the_dataset_is_waited_for() {
    let mut world = World::new();
    world.running =
        vec![JobSummary { name: "theirs".into(), status: "CREATE IN_PROGRESS".into(), created: None, updated: None }];
    world.settle();
    assert_eq!(world.reason(), Reason::Queued);
    assert!(world.accepted.is_empty());
    world.running[0].status = ACTIVE.into();
    world.later();
    world.settle();
    assert_eq!(world.accepted.len(), 1);
}

fn landed(name: &str, at: Timestamp) -> JobSummary {
    JobSummary { name: name.into(), status: ACTIVE.into(), created: Some(at), updated: Some(at) }
}

#[test]
fn what_a_newer_import_has_overtaken_is_not_made_even_when_the_newer_resource_is_gone() {
    let (older, newer) = (1_699_998_000, 1_699_999_500);
    for (age, made) in
        [(Ok(Some(newer)), false), (Ok(Some(older)), true), (Ok(None), true), (Err(failure(ErrorKind::NotFound)), true)]
    {
        let mut world = World::new();
        world.running = vec![landed("other", world.now)];
        let age = age.map(|age| age.map(|second| Timestamp::from_second(second).unwrap()));
        world.ages.insert("other".into(), age.clone());
        world.settle();
        assert_eq!(world.accepted.len() == 1, made, "{age:?}");
        if made {
            continue;
        }
        assert_eq!((world.reason(), world.conditions()), (Reason::Superseded, FAILURE.map(String::from)));
        // It said that this is final.
        let (reads, writes) = (world.reads, world.writes);
        world.running.clear();
        world.crash();
        world.later();
        world.annotate(RECONCILE_REQUESTED_AT, "now");
        world.settle();
        assert_eq!((world.reason(), world.reads, world.writes), (Reason::Superseded, reads, writes));
    }
}

#[test]
fn while_it_can_not_be_told_how_old_another_import_is_nothing_is_sent() {
    let mut world = World::new();
    world.running = vec![landed("other", world.now)];
    world.ages.insert("other".into(), Err(failure(ErrorKind::AccessDenied)));
    world.settle();
    assert_eq!((world.reason(), world.accepted.len()), (Reason::AccessDenied, 0));
    world.ages.insert("other".into(), Ok(None));
    world.later();
    world.settle();
    assert_eq!(world.accepted.len(), 1);
}

#[test]
fn what_landed_long_before_the_resource_was_made_is_not_asked_about() {
    let mut world = World::new();
    world.running = vec![landed("other", Timestamp::from_second(1_699_990_000).unwrap())];
    world.settle();
    let mut alone = World::new();
    alone.settle();
    assert_eq!((world.reads, world.accepted.len()), (alone.reads, 1));
}

#[test]
fn a_restart_over_a_queue_asks_the_service_nothing_about_those_who_wait() {
    let mut world = World::new();
    world.running.push(JobSummary {
        name: "theirs".into(),
        status: CREATE_PENDING.into(),
        created: None,
        updated: None,
    });
    world.settle();
    assert_eq!((world.reason(), world.reads), (Reason::Queued, 1), "looked up once, before it waits");
    world.crash();
    world.settle();
    assert_eq!((world.reason(), world.reads), (Reason::Queued, 1));
    world.running.clear();
    world.crash();
    world.settle();
    assert_eq!(world.accepted.len(), 1);
}

#[test]
fn suspend_holds_back_what_was_not_submitted_and_nothing_else() {
    let mut world = World::new();
    world.job.spec.suspend = true;
    world.settle();
    assert_eq!((world.reason(), world.conditions()), (Reason::Suspended, HELD.map(String::from)));
    assert_eq!((world.accepted.len(), world.reads), (0, 0));
    world.job.spec.suspend = false;
    world.job.metadata.generation = Some(2);
    world.settle();
    assert_eq!(world.accepted.len(), 1);
    world.job.spec.suspend = true;
    world.job.metadata.generation = Some(3);
    world.later();
    world.settle();
    assert_eq!((world.reason(), world.status().observed_generation), (Reason::Pending, Some(3)));
}

#[test]
fn the_annotation_suspends_like_the_field() {
    let mut world = World::new();
    world.job.annotations_mut().insert(SUSPEND.into(), "true".into());
    world.settle();
    assert_eq!(world.reason(), Reason::Suspended);
    assert!(world.status().conditions[0].message.contains("the annotation personalize-operator.io/suspend"));
    world.job.annotations_mut().insert(SUSPEND.into(), "false".into());
    world.settle();
    assert_eq!(world.accepted.len(), 1);
}

#[test]
fn what_a_namespace_may_not_import_is_neither_looked_up_nor_sent() {
    let mut world = World::new();
    world.permission = Err("its list has no such dataset".into());
    let rest = world.settle();
    assert_eq!(Reason::of(&world.status()), Some(Reason::NotPermitted));
    assert_eq!(rest.again, Requeue::Backoff(Severity::NeedsUser));
    assert_eq!((world.reads, world.accepted.len()), (0, 0));
    world.permission = Ok(());
    world.settle();
    assert_eq!(world.accepted.len(), 1);
}
