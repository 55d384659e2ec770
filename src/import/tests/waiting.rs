//! What an import waits for, and what prevents its submission for good.

use super::scenario::{FAILURE, IN_PROGRESS, SUSPENDED, Scenario};
use crate::api::conditions::Reason;
use crate::api::{DatasetImportJobSpec, ImportMode, RECONCILE_REQUESTED_AT, RETRY_REQUESTED_AT, SUSPEND};
use crate::personalize::{ACTIVE, CREATE_PENDING, DataDeletion, Dataset, ErrorKind, JobSummary, ServiceError};
use crate::testing::{self, active_dataset, job_summary, service_error, spec, timing};
use jiff::Timestamp;
use kube::ResourceExt;

#[test]
fn missing_or_inactive_dataset_delays_the_import() {
    for dataset in
        [Ok(Dataset { status: "CREATE PENDING".into(), ..active_dataset() }), Err(service_error(ErrorKind::NotFound))]
    {
        let mut scenario = Scenario::new();
        scenario.dataset = dataset;
        scenario.reconcile_until_idle();
        assert_eq!(
            (scenario.reason(), scenario.conditions()),
            (Reason::DatasetNotReady, IN_PROGRESS.map(String::from))
        );
        scenario.dataset = Ok(active_dataset());
        scenario.wait();
        scenario.reconcile_until_idle();
        assert_eq!(scenario.accepted.len(), 1);
    }
}

#[test]
fn running_job_of_somebody_else_delays_the_import() {
    let mut scenario = Scenario::new();
    scenario.other_jobs = vec![job_summary("theirs", "CREATE IN_PROGRESS")];
    scenario.reconcile_until_idle();
    assert_eq!(scenario.reason(), Reason::Queued);
    assert!(scenario.accepted.is_empty());
    scenario.other_jobs[0].status = ACTIVE.into();
    scenario.wait();
    scenario.reconcile_until_idle();
    assert_eq!(scenario.accepted.len(), 1);
}

#[test]
fn data_deletion_that_runs_delays_the_import() {
    for status in ["PENDING", "IN_PROGRESS"] {
        let mut scenario = Scenario::new();
        let deletion = |name: &str, status: &str| DataDeletion { name: name.into(), status: status.into() };
        scenario.data_deletions = Ok(vec![deletion("newest", "COMPLETED"), deletion("erasure", status)]);
        scenario.reconcile_until_idle();
        let waits = (Reason::DataDeletionRunning, IN_PROGRESS.map(String::from));
        assert_eq!((scenario.reason(), scenario.conditions()), waits);
        assert!(scenario.status().message.unwrap().contains("data deletion job erasure"));
        scenario.crash();
        let reads = scenario.reads;
        scenario.wait();
        scenario.reconcile_until_idle();
        assert_eq!((scenario.reason(), scenario.reads), (Reason::DataDeletionRunning, reads), "no repeated lookup");
        scenario.data_deletions = Ok(vec![deletion("erasure", "FAILED")]);
        scenario.wait();
        scenario.reconcile_until_idle();
        assert_eq!(scenario.accepted.len(), 1);
    }
}

#[test]
fn data_deletions_that_can_not_be_listed_delay_the_import_only_for_a_while() {
    for (kind, reason) in [
        (ErrorKind::AccessDenied, Reason::Pending),
        (ErrorKind::InvalidInput, Reason::Pending),
        (ErrorKind::Throttled, Reason::Throttled),
        (ErrorKind::Indeterminate, Reason::ServiceUnavailable),
        (ErrorKind::Credentials, Reason::CredentialsRefused),
    ] {
        let mut scenario = Scenario::new();
        scenario.data_deletions = Err(service_error(kind));
        scenario.reconcile_until_idle();
        assert_eq!(scenario.reason(), reason, "{kind:?}");
        scenario.data_deletions = Ok(Vec::new());
        scenario.wait();
        scenario.reconcile_until_idle();
        assert_eq!(scenario.accepted.len(), 1, "{kind:?}");
    }
}

#[test]
fn message_about_a_failed_call_names_account_region_and_role() {
    for kind in [ErrorKind::Throttled, ErrorKind::QuotaExceeded, ErrorKind::Indeterminate, ErrorKind::Credentials] {
        for role in [None, Some("arn:aws:iam::123456789012:role/Importer".to_owned())] {
            let mut scenario = Scenario::new();
            let at = scenario.request().dataset.account_region().to_string();
            scenario.data_deletions = Err(ServiceError { role: role.clone(), ..service_error(kind) });
            scenario.reconcile_until_idle();
            let message = scenario.status().message.unwrap();
            assert!(message.contains(&format!("for {at} ({}", kind.label())), "{message}");
            assert!(role.is_none_or(|role| message.contains(&role)), "{message}");
        }
    }
}

fn succeeded(name: &str, at: Timestamp) -> JobSummary {
    JobSummary { created: Some(at), updated: Some(at), ..job_summary(name, ACTIVE) }
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
    scenario.other_jobs.push(job_summary("theirs", CREATE_PENDING));
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

/// A job of the dataset that was created this many seconds after the resource, whose request is as old.
fn add_success(scenario: &mut Scenario, name: &str, seconds: i64, mode: ImportMode) {
    let created = Timestamp::from_second(1_699_999_000 + seconds).unwrap();
    let job = JobSummary { import_mode: Some(mode.as_str().into()), ..succeeded(name, created) };
    scenario.other_jobs.push(job);
    scenario.requested_at.insert(name.into(), Ok(Some(created)));
}

fn incremental() -> Scenario {
    Scenario::with(DatasetImportJobSpec { import_mode: ImportMode::Incremental, ..spec() })
}

#[test]
fn incremental_import_waits_for_the_first_full_one_and_is_not_superseded_by_it() {
    let mut scenario = incremental();
    add_success(&mut scenario, "other", -100, ImportMode::Incremental);
    scenario.reconcile_until_idle();
    assert_eq!(
        (scenario.reason(), scenario.conditions()),
        (Reason::WaitingForFullImport, IN_PROGRESS.map(String::from))
    );
    assert_eq!(scenario.local.backoff.until(), None, "a wake-up does not have to wait");
    add_success(&mut scenario, "first", 100, ImportMode::Full);
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::Pending, 1));
}

#[test]
fn incremental_import_is_superseded_only_by_a_newer_full_one_that_is_not_the_first() {
    for (later, reason) in [(ImportMode::Incremental, Reason::Pending), (ImportMode::Full, Reason::Superseded)] {
        let mut scenario = incremental();
        add_success(&mut scenario, "first", -100, ImportMode::Full);
        add_success(&mut scenario, "later", 100, later);
        scenario.reconcile_until_idle();
        assert_eq!(scenario.reason(), reason, "after a newer {later:?}");
    }
}

#[test]
fn full_import_is_superseded_by_a_newer_incremental_one_until_a_user_asks_for_it() {
    let mut scenario = Scenario::new();
    scenario.annotate(RETRY_REQUESTED_AT, "from the manifest");
    add_success(&mut scenario, "newer", 100, ImportMode::Incremental);
    for _ in 0..2 {
        scenario.reconcile_until_idle();
        assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::Superseded, 0));
        scenario.crash();
        scenario.wait();
    }
    scenario.annotate(RETRY_REQUESTED_AT, "now");
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::Pending, 1));
}

#[test]
fn jobs_of_an_earlier_dataset_of_the_same_name_do_not_count() {
    let mut scenario = incremental();
    let created = Timestamp::from_second(1_699_999_500).unwrap();
    scenario.dataset = Ok(Dataset { created: Some(created), ..active_dataset() });
    add_success(&mut scenario, "first", 100, ImportMode::Full);
    scenario.reconcile_until_idle();
    assert_eq!(scenario.reason(), Reason::WaitingForFullImport);
    let mut full = Scenario { resource: testing::resource(spec()), ..scenario };
    full.reconcile_until_idle();
    assert_eq!(full.reason(), Reason::Pending, "the newer import was into the former dataset");
}
