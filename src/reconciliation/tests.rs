//! Reconciliations by example.

use super::*;
use crate::api::RECONCILE_REQUESTED_AT;
use crate::api::conditions::Reason;
use crate::import::{MANAGER, Severity};
use crate::personalize::{ACTIVE, CREATE_IN_PROGRESS};
use crate::testing::{self, set_status_manager, spec, timing};
use std::time::Duration;

fn written_by(manager: &str) -> DatasetImportJob {
    let mut resource = testing::resource(spec());
    resource.status =
        Some(DatasetImportJobStatus { status: Some(ACTIVE.into()), attempts: Some(1), ..Default::default() });
    set_status_manager(&mut resource, manager);
    resource
}

fn queue() -> Queue {
    Queue::new(5, timing())
}

#[test]
fn status_that_the_service_confirmed_is_trusted_without_a_write() {
    let restored = written_by("velero-server");
    let mut reconciliation = Reconciliation::new(restored.clone(), LocalState::default());
    assert!(!reconciliation.local().trust(&restored).is_trusted());
    let outcome = Outcome { status: None, requeue: Requeue::AwaitChange, cooldown: None, confirmed: true };
    reconciliation.finish(&outcome, Timestamp::UNIX_EPOCH, &timing(), || 0.0, &mut queue());
    assert!(reconciliation.into_local().trust(&restored).is_trusted());
}

#[test]
fn list_replaces_the_poll_of_a_running_job_unless_that_is_needed() {
    let (start, timing) = (Timestamp::UNIX_EPOCH, timing());
    let local = LocalState { last_polled: Some(start), last_described: Some(start), ..LocalState::default() };
    let confirmed = |resource: &DatasetImportJob, local: &LocalState, now| {
        let reconciliation = Reconciliation::new(resource.clone(), local.clone());
        reconciliation.confirmed_poll(now, &timing).map(|(at, status)| (at, status.to_owned()))
    };
    let mut running = written_by(MANAGER);
    running.status.get_or_insert_default().status = Some(CREATE_IN_PROGRESS.into());
    assert_eq!(confirmed(&running, &local, start), Some((start, CREATE_IN_PROGRESS.to_owned())));
    assert_eq!(confirmed(&running, &LocalState::default(), start), None, "this process has not polled it");

    let failed = LocalState { last_described: None, ..local.clone() };
    assert_eq!(confirmed(&running, &failed, start), None, "the last poll failed: its message has to go");
    let later = after(start, timing.poll_max * MAX_LISTED);
    let listed = LocalState { last_polled: Some(later), ..local.clone() };
    assert_eq!(confirmed(&running, &listed, later), None, "a list may be wrong");

    running.annotations_mut().insert(RECONCILE_REQUESTED_AT.into(), "now".into());
    assert_eq!(confirmed(&running, &local, start), None, "a user asks for a poll");
    running.status.get_or_insert_default().last_handled_reconcile_at = Some("now".into());
    assert!(confirmed(&running, &local, start).is_some());
}

#[test]
fn reconciliation_restarts_after_a_conflict_until_there_are_too_many() {
    let mut reconciliation = Reconciliation::new(written_by(MANAGER), LocalState::default());
    let mut conflict = || reconciliation.apply(Observation::Conflict, Timestamp::UNIX_EPOCH, &mut queue());
    assert!((0..MAX_CONFLICTS).all(|_| conflict().is_ok()));
    assert_eq!(conflict(), Err(Interrupted::TooManyConflicts));
}

#[test]
fn waiting_in_the_queue_between_two_rejections_keeps_their_backoff() {
    let mut resource = written_by(MANAGER);
    conditions::set(resource.status.as_mut().unwrap(), 1, Reason::AccessDenied, "", Timestamp::UNIX_EPOCH);
    let mut reconciliation = Reconciliation::new(resource, LocalState::default());
    let mut finish = |requeue, hour: i64| {
        let now = Timestamp::from_second(hour * 3600).unwrap();
        let outcome = Outcome { status: None, requeue, cooldown: None, confirmed: false };
        reconciliation.finish(&outcome, now, &timing(), || 1.0, &mut queue()).requeue_after.unwrap_or_default()
    };
    let first = finish(Requeue::Backoff(Severity::NeedsUser), 1);
    finish(Requeue::After(Duration::from_secs(1)), 2);
    assert_eq!(finish(Requeue::Backoff(Severity::NeedsUser), 3), first * 2);
    finish(Requeue::AwaitChange, 4);
    assert_eq!(finish(Requeue::Backoff(Severity::NeedsUser), 5), first);
}

#[test]
fn waiting_resources_are_requeued_at_different_times() {
    let requeue_after = |jitter: f64| {
        let mut reconciliation = Reconciliation::new(written_by(MANAGER), LocalState::default());
        let requeue = Requeue::After(Duration::from_secs(600));
        let outcome = Outcome { status: None, requeue, cooldown: None, confirmed: false };
        reconciliation.finish(&outcome, Timestamp::UNIX_EPOCH, &timing(), || jitter, &mut queue()).requeue_after
    };
    assert_eq!([0.0, 1.0].map(requeue_after), [300, 600].map(|seconds| Some(Duration::from_secs(seconds))));
}

#[test]
fn outcome_with_a_status_finishes_only_after_the_write() {
    let mut resource = testing::resource(spec());
    resource.spec.suspend = true;
    let mut reconciliation = Reconciliation::new(resource, LocalState::default());
    let now = Timestamp::UNIX_EPOCH;
    let Next::Perform(Effect::WriteStatus { status, then }) = reconciliation.next(now, &timing()) else {
        panic!("the status says that the import is suspended")
    };
    let written = testing::status_written(&reconciliation, *status, then);
    reconciliation.apply(written, now, &mut queue()).unwrap();
    let Next::Finish(outcome) = reconciliation.next(now, &timing()) else { panic!("nothing is left to do") };
    assert_eq!(outcome.status, None);
    let finished = reconciliation.finish(&outcome, now, &timing(), || 0.0, &mut queue());
    assert_eq!(finished, Finished { requeue_after: None, frees_others: true });
}

#[test]
fn resource_deleted_during_its_reconciliation_stays_out_of_the_queue() {
    let resource = testing::resource(spec());
    let (mut queue, now) = (queue(), Timestamp::UNIX_EPOCH);
    queue.observe(&resource, LocalState::default().trust(&resource));
    let mut reconciliation = Reconciliation::new(resource, LocalState::default());
    queue.forget("uid", now);
    let outcome = Outcome { status: None, requeue: Requeue::AwaitChange, cooldown: None, confirmed: true };
    reconciliation.finish(&outcome, now, &timing(), || 0.0, &mut queue);
    assert!(!queue.contains("uid"), "it would block its dataset for ever");
}
