//! What an import waits for, and what prevents its submission for good.

use super::scenario::{FAILURE, IN_PROGRESS, SUSPENDED, Scenario};
use crate::api::conditions::Reason;
use crate::api::{RECONCILE_REQUESTED_AT, SUSPEND};
use crate::personalize::{ACTIVE, CREATE_PENDING, ErrorKind, JobSummary};
use crate::testing::{service_error, timing};
use jiff::Timestamp;
use kube::ResourceExt;

#[test]
fn missing_or_inactive_dataset_delays_the_import() {
    for dataset in [Ok("CREATE PENDING".to_owned()), Err(service_error(ErrorKind::NotFound))] {
        let mut scenario = Scenario::new();
        scenario.dataset = dataset;
        scenario.reconcile_until_idle();
        assert_eq!(
            (scenario.reason(), scenario.conditions()),
            (Reason::DatasetNotReady, IN_PROGRESS.map(String::from))
        );
        scenario.dataset = Ok(ACTIVE.into());
        scenario.wait();
        scenario.reconcile_until_idle();
        assert_eq!(scenario.accepted.len(), 1);
    }
}

#[test]
fn running_job_of_somebody_else_delays_the_import() {
    let mut scenario = Scenario::new();
    scenario.other_jobs =
        vec![JobSummary { name: "theirs".into(), status: "CREATE IN_PROGRESS".into(), created: None, updated: None }];
    scenario.reconcile_until_idle();
    assert_eq!(scenario.reason(), Reason::Queued);
    assert!(scenario.accepted.is_empty());
    scenario.other_jobs[0].status = ACTIVE.into();
    scenario.wait();
    scenario.reconcile_until_idle();
    assert_eq!(scenario.accepted.len(), 1);
}

fn succeeded(name: &str, at: Timestamp) -> JobSummary {
    JobSummary { name: name.into(), status: ACTIVE.into(), created: Some(at), updated: Some(at) }
}

#[test]
fn older_import_is_superseded_by_a_newer_one_whose_resource_is_deleted() {
    let (older, newer) = (1_699_998_000, 1_699_999_500);
    for (requested_at, submitted) in [
        (Ok(Some(newer)), false),
        (Ok(Some(older)), true),
        (Ok(None), true),
        (Err(service_error(ErrorKind::NotFound)), true),
    ] {
        let mut scenario = Scenario::new();
        scenario.other_jobs = vec![succeeded("other", scenario.now)];
        let requested_at = requested_at.map(|at| at.map(|second| Timestamp::from_second(second).unwrap()));
        scenario.requested_at.insert("other".into(), requested_at.clone());
        scenario.reconcile_until_idle();
        assert_eq!(scenario.accepted.len() == 1, submitted, "{requested_at:?}");
        if submitted {
            continue;
        }
        assert_eq!((scenario.reason(), scenario.conditions()), (Reason::Superseded, FAILURE.map(String::from)));
        // This is final.
        let (reads, writes) = (scenario.reads, scenario.written.len());
        scenario.other_jobs.clear();
        scenario.crash();
        scenario.wait();
        scenario.annotate(RECONCILE_REQUESTED_AT, "now");
        scenario.reconcile_until_idle();
        assert_eq!((scenario.reason(), scenario.reads, scenario.written.len()), (Reason::Superseded, reads, writes));
    }
}

#[test]
fn unreadable_age_of_another_import_delays_the_submission() {
    let mut scenario = Scenario::new();
    scenario.other_jobs = vec![succeeded("other", scenario.now)];
    scenario.requested_at.insert("other".into(), Err(service_error(ErrorKind::AccessDenied)));
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::AccessDenied, 0));
    scenario.requested_at.insert("other".into(), Ok(None));
    scenario.wait();
    scenario.reconcile_until_idle();
    assert_eq!(scenario.accepted.len(), 1);
}

#[test]
fn tags_of_jobs_older_than_the_resource_are_not_read() {
    let mut scenario = Scenario::new();
    scenario.other_jobs = vec![succeeded("other", Timestamp::from_second(1_699_990_000).unwrap())];
    scenario.reconcile_until_idle();
    let mut alone = Scenario::new();
    alone.reconcile_until_idle();
    assert_eq!((scenario.reads, scenario.accepted.len()), (alone.reads, 1));
}

#[test]
fn restart_repeats_no_lookup_for_waiting_resources() {
    let mut scenario = Scenario::new();
    scenario.other_jobs.push(JobSummary {
        name: "theirs".into(),
        status: CREATE_PENDING.into(),
        created: None,
        updated: None,
    });
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.reads), (Reason::Queued, 1), "one lookup before it waits");
    scenario.crash();
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.reads), (Reason::Queued, 1));
    scenario.other_jobs.clear();
    scenario.crash();
    scenario.reconcile_until_idle();
    assert_eq!(scenario.accepted.len(), 1);
}

#[test]
fn suspend_delays_only_an_import_that_is_not_submitted() {
    let mut scenario = Scenario::new();
    scenario.resource.spec.suspend = true;
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.conditions()), (Reason::Suspended, SUSPENDED.map(String::from)));
    assert_eq!((scenario.accepted.len(), scenario.reads), (0, 0));
    scenario.resource.spec.suspend = false;
    scenario.resource.metadata.generation = Some(2);
    scenario.reconcile_until_idle();
    assert_eq!(scenario.accepted.len(), 1);
    scenario.resource.spec.suspend = true;
    scenario.resource.metadata.generation = Some(3);
    scenario.wait();
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.status().observed_generation), (Reason::Pending, Some(3)));
}

#[test]
fn annotation_suspends_like_the_field() {
    let mut scenario = Scenario::new();
    scenario.resource.annotations_mut().insert(SUSPEND.into(), "true".into());
    scenario.reconcile_until_idle();
    assert_eq!(scenario.reason(), Reason::Suspended);
    assert!(scenario.status().conditions[0].message.contains("the annotation personalize-operator.io/suspend"));
    scenario.resource.annotations_mut().insert(SUSPEND.into(), "false".into());
    scenario.reconcile_until_idle();
    assert_eq!(scenario.accepted.len(), 1);
}

#[test]
fn import_of_a_denied_namespace_is_neither_looked_up_nor_submitted() {
    let mut scenario = Scenario::new();
    scenario.namespace = Err("its list has no such dataset".into());
    let finished = scenario.reconcile_until_idle();
    assert_eq!(Reason::of(&scenario.status()), Some(Reason::NotPermitted));
    assert!(finished.requeue_after.unwrap() >= timing().rejected_min / 2);
    assert_eq!((scenario.reads, scenario.accepted.len()), (0, 0));
    scenario.namespace = Ok(());
    scenario.wait();
    scenario.reconcile_until_idle();
    assert_eq!(scenario.accepted.len(), 1);
}
