//! An import from its submission until after its job has ended.

use super::scenario::{IN_PROGRESS, SUCCESS, Scenario};
use crate::api::RECONCILE_REQUESTED_AT;
use crate::api::conditions::{Reason, ready_message};
use crate::import::timing::after;
use crate::import::{Next, Observations, POLL_FAILED};
use crate::personalize::{ACTIVE, CREATE_FAILED, CREATE_IN_PROGRESS, ErrorKind};
use crate::testing::{service_error, timing};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

#[test]
fn new_resource_becomes_one_job_that_is_polled_to_its_end() {
    let mut scenario = Scenario::new();
    scenario.reconcile_until_idle();
    let name = scenario.request().job_name(1);
    assert_eq!(scenario.accepted, std::slice::from_ref(&name));
    assert_eq!((scenario.reason(), scenario.conditions()), (Reason::Pending, IN_PROGRESS.map(String::from)));
    scenario.set_job_status(&name, ACTIVE);
    scenario.wait();
    assert_eq!(scenario.reconcile_until_idle().requeue_after, None);
    assert_eq!((scenario.reason(), scenario.conditions()), (Reason::ImportSucceeded, SUCCESS.map(String::from)));
    assert!(scenario.status().completion_time.is_some());
}

#[test]
fn finished_import_is_neither_polled_nor_written() {
    for end in [ACTIVE, CREATE_FAILED] {
        let mut scenario = Scenario::new();
        scenario.reconcile_until_idle();
        let name = scenario.request().job_name(1);
        scenario.set_job_status(&name, end);
        scenario.wait();
        scenario.reconcile_until_idle();
        let (reads, writes, status) = (scenario.reads, scenario.written.len(), scenario.status());
        scenario.annotate("example.org/label", "edited");
        scenario.annotate(RECONCILE_REQUESTED_AT, "now");
        scenario.set_job_status(&name, "CREATE IN_PROGRESS");
        for _ in 0..3 {
            scenario.crash();
            scenario.wait();
            scenario.reconcile_until_idle();
        }
        assert_eq!((scenario.reads, scenario.written.len(), scenario.status()), (reads, writes, status));
    }
}

#[test]
fn crash_after_any_effect_neither_loses_nor_repeats_the_import() {
    for end in [ACTIVE, CREATE_FAILED] {
        for first in 0..14 {
            for second in 0..14 {
                let mut scenario = Scenario::new();
                for effects in [first, second] {
                    scenario.reconcile_within(effects);
                    scenario.crash();
                }
                scenario.reconcile_until_idle();
                scenario.wait();
                scenario.reconcile_until_idle();
                let name = scenario.request().job_name(1);
                scenario.set_job_status(&name, end);
                scenario.wait();
                scenario.reconcile_until_idle();
                assert_eq!(scenario.accepted, [name], "crashes after {first} and {second} effects");
                assert_eq!(scenario.status().status.as_deref(), Some(end));
            }
        }
    }
}

#[test]
fn lists_replace_polls_while_the_status_stays_and_each_change_is_described() {
    let mut scenario = Scenario { job_list_age: Some(Duration::ZERO), ..Scenario::new() };
    scenario.reconcile_until_idle();
    let name = scenario.request().job_name(1);
    for status in [CREATE_IN_PROGRESS, ACTIVE] {
        let described = scenario.reads;
        for _ in 0..10 {
            scenario.now = after(scenario.now, timing().poll_max);
            scenario.reconcile();
        }
        assert_eq!(scenario.reads, described, "the job has its recorded status");
        scenario.set_job_status(&name, status);
        scenario.now = after(scenario.now, timing().poll_max);
        scenario.reconcile();
        assert_eq!((scenario.reads, scenario.status().status.as_deref()), (described + 1, Some(status)));
    }
}

#[test]
fn job_is_described_although_a_list_does_not_change_for_a_long_time() {
    let mut scenario = Scenario { job_list_age: Some(Duration::ZERO), ..Scenario::new() };
    scenario.reconcile_until_idle();
    let described = scenario.reads;
    for _ in 0..25 {
        scenario.now = after(scenario.now, timing().poll_max);
        scenario.reconcile();
    }
    assert_eq!(scenario.reads, described + 2);
}

#[test]
fn list_that_is_older_than_the_interval_ends_the_reconciliation() {
    let mut scenario = Scenario { job_list_age: Some(timing().poll_max), ..Scenario::new() };
    scenario.reconcile_until_idle();
    scenario.now = after(scenario.now, timing().poll_max * 3);
    assert_eq!(scenario.reconcile().requeue_after, Some(Duration::ZERO), "the next one reads the resource again");
    scenario.now = after(scenario.now, timing().poll_min);
    scenario.reconcile();
}

#[test]
fn job_that_a_list_shows_to_have_ended_is_polled_at_once() {
    let mut scenario = Scenario::new();
    scenario.reconcile_until_idle();
    let described = scenario.reads;
    scenario.reconcile();
    assert_eq!(scenario.reads, described, "no poll is due");
    scenario.local.note_shared_polls(2, true);
    scenario.set_job_status(&scenario.request().job_name(1), ACTIVE);
    scenario.reconcile();
    assert_eq!((scenario.reads, scenario.reason()), (described + 1, Reason::ImportSucceeded));
}

#[test]
fn message_of_a_failed_poll_ends_although_lists_replace_polls() {
    let mut scenario = Scenario::new();
    scenario.reconcile_until_idle();
    scenario.poll_error = Some(service_error(ErrorKind::Throttled));
    scenario.now = after(scenario.now, timing().poll_max);
    scenario.reconcile();
    let message = |scenario: &Scenario| ready_message(&scenario.status()).to_owned();
    assert!(message(&scenario).starts_with(POLL_FAILED));
    (scenario.poll_error, scenario.job_list_age) = (None, Some(Duration::ZERO));
    scenario.now = after(scenario.now, timing().poll_max);
    scenario.reconcile();
    assert!(!message(&scenario).starts_with(POLL_FAILED), "the job itself is polled");
}

#[test]
fn missing_job_is_reported_and_never_submitted_again() {
    let mut scenario = Scenario::new();
    scenario.reconcile_until_idle();
    scenario.jobs.clear();
    for _ in 0..4 {
        scenario.wait();
        scenario.reconcile_until_idle();
    }
    assert_eq!((scenario.accepted.len(), scenario.reason()), (1, Reason::JobNotFound));
}

#[test]
fn resource_marked_for_deletion_is_left_alone() {
    let mut scenario = Scenario::new();
    scenario.resource.metadata.deletion_timestamp = Some(Time(scenario.now));
    scenario.reconcile_until_idle();
    assert_eq!((scenario.accepted.len(), scenario.written.len(), scenario.reads), (0, 0, 0));
}

#[test]
fn oddly_spelled_final_status_ends_the_import() {
    for (spelled, end) in [("CREATE  FAILED\n", CREATE_FAILED), (" ACTIVE", ACTIVE)] {
        let mut scenario = Scenario::new();
        scenario.reconcile_until_idle();
        let name = scenario.request().job_name(1);
        scenario.set_job_status(&name, spelled);
        for _ in 0..3 {
            scenario.wait();
            scenario.reconcile_until_idle();
        }
        assert_eq!((scenario.accepted.len(), scenario.status().status.as_deref()), (1, Some(end)), "{spelled:?}");
        assert!(scenario.status().completion_time.is_some(), "{spelled:?}");
    }
}

#[test]
fn job_is_polled_when_due_and_at_once_when_requested() {
    let mut scenario = Scenario::new();
    scenario.reconcile_until_idle();
    let reads = scenario.reads;
    for _ in 0..5 {
        scenario.annotate("example.org/label", "edited");
        scenario.reconcile_until_idle();
    }
    assert_eq!(scenario.reads, reads, "an irrelevant edit causes no poll");
    scenario.annotate(RECONCILE_REQUESTED_AT, "1");
    scenario.reconcile_until_idle();
    scenario.reconcile_until_idle();
    assert_eq!(scenario.reads, reads + 1);
}

#[test]
fn transient_failure_never_makes_a_running_import_look_failed() {
    for kind in [ErrorKind::Throttled, ErrorKind::Indeterminate, ErrorKind::Credentials, ErrorKind::AccessDenied] {
        let mut scenario = Scenario::new();
        scenario.reconcile_until_idle();
        let mut observations = Observations::default();
        observations.lookups.insert(1, Err(service_error(kind)));
        let Next::Finish(outcome) = scenario.plan(&observations) else { panic!("{kind:?}") };
        let status = outcome.status.unwrap();
        assert_eq!(Reason::of(&status), Some(Reason::Pending), "{kind:?}");
        assert!(status.conditions[0].message.starts_with(POLL_FAILED), "{kind:?}");
    }
}
