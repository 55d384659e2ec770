//! Jobs that the status does not name, and requests that must not be handled twice.

use super::scenario::{FAILURE, Scenario};
use crate::api::conditions::{self, DATA_CURRENT, READY, Reason};
use crate::api::{ADOPT, DatasetImportJobStatus, RETRY_REQUESTED_AT, Submission};
use crate::import::timing::after;
use crate::import::{Key, Next, Observations};
use crate::personalize::{ACTIVE, CREATE_FAILED, CREATE_PENDING, Dataset, ErrorKind, JobSummary};
use crate::testing::timing;
use crate::testing::{active_dataset, job_summary, service_error};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

#[test]
fn restored_waiting_resource_finds_its_successful_attempt() {
    let mut scenario = Scenario::new();
    let (first, second) = (scenario.request().job_name(1), scenario.request().job_name(2));
    let tags = scenario.request().own_tags();
    scenario.add_job(&first, CREATE_FAILED, tags.clone());
    scenario.add_job(&second, ACTIVE, tags);
    let mut status = DatasetImportJobStatus::default();
    conditions::set(&mut status, 1, Reason::Queued, "", scenario.now);
    scenario.resource.status = Some(status);
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.status().attempts), (Reason::ImportSucceeded, Some(2)));
    assert_eq!(scenario.accepted.len(), 0);
}

#[test]
fn removed_and_repeated_retry_annotation_is_handled_once() {
    let mut scenario = Scenario::new();
    let fail = |scenario: &mut Scenario, attempt| {
        scenario.reconcile_until_idle();
        let name = scenario.request().job_name(attempt);
        scenario.set_job_status(&name, CREATE_FAILED);
        for _ in 0..2 {
            scenario.wait();
            scenario.reconcile_until_idle();
        }
    };
    fail(&mut scenario, 1);
    scenario.annotate(RETRY_REQUESTED_AT, "monday");
    scenario.reconcile_until_idle();
    scenario.resource.metadata.annotations = None;
    scenario.wait();
    fail(&mut scenario, 2);
    scenario.annotate(RETRY_REQUESTED_AT, "monday");
    scenario.wait();
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::ImportFailed, 2));
}

#[test]
fn untagged_job_is_indeterminate_until_grace_expires_then_conflicts() {
    let mut scenario = Scenario::new();
    let name = scenario.request().job_name(1);
    scenario.answers = vec![(true, Err(service_error(ErrorKind::Indeterminate)))];
    scenario.reconcile();
    let tags = std::mem::take(&mut scenario.jobs.get_mut(&name).unwrap().1);
    scenario.reconcile();
    assert_eq!((scenario.reason(), scenario.status().submission.is_some()), (Reason::Submitting, true));
    let mut untagged = scenario.clone();
    scenario.jobs.get_mut(&name).unwrap().1 = tags;
    scenario.wait();
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::Pending, 1));
    untagged.wait();
    untagged.reconcile_until_idle();
    assert_eq!((untagged.reason(), untagged.conditions()), (Reason::JobNameConflict, FAILURE.map(String::from)));
}

#[test]
fn forged_failure_under_the_operators_own_name_starts_no_attempt() {
    let mut scenario = Scenario::new();
    scenario.resource.spec.backoff_limit = 1;
    scenario.reconcile_until_idle();
    let status = scenario.resource.status.as_mut().unwrap();
    status.status = Some(CREATE_FAILED.into());
    for _ in 0..3 {
        scenario.wait();
        scenario.reconcile_until_idle();
    }
    assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::Pending, 1));
    assert_eq!(scenario.status().status.as_deref(), Some(CREATE_PENDING));
}

#[test]
fn failed_attempt_completes_when_a_newer_import_supersedes_the_next() {
    let mut scenario = Scenario::new();
    scenario.resource.spec.backoff_limit = 1;
    scenario.reconcile_until_idle();
    let name = scenario.request().job_name(1);
    scenario.set_job_status(&name, CREATE_FAILED);
    scenario.wait();
    scenario.reconcile();
    assert_eq!((scenario.reason(), scenario.status().completion_time), (Reason::Retrying, None));
    scenario.wait();
    scenario.other_jobs = vec![job_summary("newer", ACTIVE)];
    scenario.requested_at.insert("newer".into(), Ok(Some(scenario.now)));
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::Superseded, 1));
    assert!(scenario.status().completion_time.is_some());
    scenario.annotate(RETRY_REQUESTED_AT, "now");
    for _ in 0..2 {
        scenario.wait();
        scenario.reconcile_until_idle();
    }
    assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::Pending, 2), "a user asked for it");
}

#[test]
fn denied_namespace_with_an_untrusted_status_gets_no_lookup() {
    let mut scenario = Scenario::new();
    scenario.namespace = Err("its list has no such dataset".into());
    let name = scenario.request().job_name(1);
    scenario.add_job(&name, ACTIVE, vec![]);
    scenario.annotate(ADOPT, "true");
    let finished = scenario.reconcile_untrusted();
    assert_eq!(scenario.reason(), Reason::NotPermitted);
    assert!(finished.requeue_after.unwrap() >= timing().rejected_min / 2);
    assert_eq!(scenario.reads, 0);
    // A status that claims a submission is looked up under the derived name, and adopted only if the tags prove it.
    scenario.resource.status.as_mut().unwrap().dataset_import_job_arn = Some(scenario.request().job_arn(1).0);
    scenario.wait();
    scenario.reconcile_untrusted();
    assert_eq!(scenario.reason(), Reason::JobNameConflict);
}

#[test]
fn untrusted_status_keeps_the_conditions_of_other_controllers() {
    let mut scenario = Scenario::new();
    let foreign = Condition {
        type_: "example.org/Billed".into(),
        status: "True".into(),
        reason: "Because".into(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: Time(scenario.now),
    };
    scenario.resource.status = Some(DatasetImportJobStatus { conditions: vec![foreign.clone()], ..Default::default() });
    scenario.reconcile_untrusted();
    assert!(scenario.status().conditions.contains(&foreign));
    assert!(scenario.status().conditions.iter().any(|c| c.type_ == READY));
}

/// An import that has succeeded.
fn succeeded() -> Scenario {
    let mut scenario = Scenario::new();
    scenario.reconcile_until_idle();
    let name = scenario.request().job_name(1);
    scenario.set_job_status(&name, ACTIVE);
    scenario.wait();
    scenario.reconcile_until_idle();
    scenario
}

#[test]
fn status_that_the_service_confirms_is_trusted() {
    let mut scenario = succeeded();
    let written = scenario.written.len();
    scenario.reconcile_untrusted();
    assert!(scenario.local.trust(&scenario.resource).is_trusted());
    assert_eq!(scenario.written.len(), written);
}

#[test]
fn job_that_reappears_is_adopted_only_if_its_tags_prove_ownership() {
    let mut scenario = Scenario::new();
    scenario.reconcile_until_idle();
    let (name, tags) = (scenario.request().job_name(1), scenario.request().own_tags());
    scenario.jobs.clear();
    for _ in 0..3 {
        scenario.wait();
        scenario.reconcile_until_idle();
    }
    assert_eq!(scenario.reason(), Reason::JobNotFound);
    scenario.add_job(&name, CREATE_PENDING, vec![]);
    scenario.wait();
    scenario.reconcile_until_idle();
    assert_eq!(scenario.reason(), Reason::JobNotFound);
    scenario.add_job(&name, CREATE_PENDING, tags);
    scenario.wait();
    scenario.reconcile_until_idle();
    assert_eq!(scenario.reason(), Reason::Pending);
}

#[test]
fn retry_delay_is_no_longer_if_the_clock_of_the_service_is_ahead() {
    let mut scenario = Scenario::new();
    scenario.resource.spec.backoff_limit = 1;
    scenario.reconcile_until_idle();
    let name = scenario.request().job_name(1);
    scenario.set_job_status(&name, CREATE_FAILED);
    scenario.jobs.get_mut(&name).unwrap().0.updated = Some(after(scenario.now, timing().rejected_max * 9));
    scenario.wait();
    let finished = scenario.reconcile();
    assert_eq!((scenario.reason(), finished.requeue_after), (Reason::Retrying, Some(timing().retry_min)));
    scenario.now = after(scenario.now, timing().retry_min / 2);
    scenario.reconcile();
    assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::Retrying, 1), "the delay is not over");
    scenario.now = after(scenario.now, timing().retry_min / 2);
    scenario.reconcile();
    assert_eq!(scenario.accepted.len(), 2);
}

fn data_current(scenario: &Scenario) -> Option<String> {
    let status = scenario.status();
    status.conditions.iter().find(|c| c.type_ == DATA_CURRENT).map(|c| format!("{} {}", c.status, c.reason))
}

/// The dataset is deleted and created again after all jobs.
fn recreate_dataset(scenario: &mut Scenario) {
    scenario.dataset = Ok(Dataset { created: Some(after(scenario.now, timing().poll_min)), ..active_dataset() });
}

/// A resource that was created again, and whose job has succeeded before.
fn recreated() -> Scenario {
    let mut scenario = Scenario::new();
    let (name, tags) = (scenario.request().job_name(1), scenario.request().own_tags());
    scenario.add_job(&name, ACTIVE, tags);
    scenario
}

#[test]
fn import_that_has_just_succeeded_is_current_until_a_newer_full_one_replaces_its_data() {
    let scenario = succeeded();
    assert_eq!(data_current(&scenario).as_deref(), Some("True NewestImport"));
    for (namespace, by) in [("shop", "DatasetImportJob newer"), ("elsewhere", "in another namespace")] {
        let newer = Key { namespace: namespace.into(), name: "newer".into() };
        let observations = Observations { newer_import: Some(Some(newer)), ..Observations::default() };
        let Next::Finish(outcome) = scenario.plan(&observations) else { panic!("nothing is left to do") };
        let status = outcome.status.unwrap();
        assert_eq!(Reason::of(&status), Some(Reason::ImportSucceeded));
        let current = status.conditions.iter().find(|c| c.type_ == DATA_CURRENT).unwrap();
        assert_eq!((current.status.as_str(), current.reason.as_str()), ("False", "SupersededBy"));
        assert!(current.message.contains(by), "{}", current.message);
    }
}

#[test]
fn adopted_success_says_whether_a_newer_full_import_has_replaced_its_data() {
    for (mode, seconds, expected) in
        [("FULL", 1, "False SupersededBy"), ("FULL", -1, "True NewestImport"), ("INCREMENTAL", 1, "True NewestImport")]
    {
        let mut scenario = recreated();
        let created = Timestamp::from_second(scenario.now.as_second() + seconds).unwrap();
        let other =
            JobSummary { created: Some(created), import_mode: Some(mode.into()), ..job_summary("other", ACTIVE) };
        scenario.other_jobs = vec![other];
        scenario.reconcile_until_idle();
        assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::ImportSucceeded, 0));
        assert_eq!(data_current(&scenario).as_deref(), Some(expected));
    }
    let mut unknown = recreated();
    unknown.dataset = Err(service_error(ErrorKind::AccessDenied));
    unknown.reconcile_until_idle();
    assert_eq!(
        (unknown.reason(), data_current(&unknown).as_deref()),
        (Reason::ImportSucceeded, Some("Unknown NotChecked"))
    );
}

#[test]
fn job_older_than_its_dataset_is_imported_again_only_if_a_user_asks_for_it() {
    let mut scenario = recreated();
    scenario.annotate(RETRY_REQUESTED_AT, "from the manifest");
    let created = after(scenario.now, timing().poll_min);
    scenario.dataset = Ok(Dataset { created: Some(created), ..active_dataset() });
    for _ in 0..2 {
        scenario.reconcile_until_idle();
        assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::DatasetReplaced, 0));
        assert_eq!(scenario.conditions(), FAILURE);
        scenario.now = after(scenario.now, timing().poll_min);
        scenario.reconcile();
        assert_eq!(scenario.written.len(), 1, "nothing is written again");
        scenario.crash();
        scenario.wait();
    }
    scenario.annotate(RETRY_REQUESTED_AT, "now");
    for _ in 0..2 {
        scenario.wait();
        scenario.reconcile_until_idle();
    }
    assert_eq!((scenario.reason(), scenario.accepted.clone()), (Reason::Pending, vec![scenario.request().job_name(2)]));
}

#[test]
fn job_under_a_fixed_name_that_is_older_than_its_dataset_is_never_imported_again() {
    let mut scenario = Scenario::new();
    scenario.resource.spec.job_name = Some("mine".into());
    let (name, tags) = (scenario.request().job_name(1), scenario.request().own_tags());
    scenario.add_job(&name, ACTIVE, tags);
    recreate_dataset(&mut scenario);
    scenario.reconcile_until_idle();
    let message = conditions::ready_message(&scenario.status()).to_owned();
    assert!(message.contains("another jobName"), "{message}");
    scenario.annotate(RETRY_REQUESTED_AT, "now");
    for _ in 0..3 {
        scenario.wait();
        scenario.reconcile_until_idle();
        assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::DatasetReplaced, 0));
    }
}

#[test]
fn intent_whose_job_is_older_than_the_dataset_reports_no_success() {
    let mut scenario = Scenario::new();
    scenario.answers = vec![(true, Err(service_error(ErrorKind::Indeterminate)))];
    scenario.reconcile();
    assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::Submitting, 1));
    let name = scenario.request().job_name(1);
    scenario.set_job_status(&name, ACTIVE);
    recreate_dataset(&mut scenario);
    for crashes in [false, true] {
        let mut scenario = scenario.clone();
        if crashes {
            scenario.crash();
        }
        scenario.wait();
        scenario.reconcile();
        assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::DatasetReplaced, 1));
        assert_eq!(scenario.status().submission, None, "it holds no slot of the queue");
        let written = scenario.written.len();
        for _ in 0..3 {
            scenario.reconcile();
            scenario.wait();
        }
        assert_eq!((scenario.written.len(), scenario.status().submission), (written, None), "nothing is written again");
    }
}

#[test]
fn intent_stays_while_a_failed_call_hides_whether_its_data_is_in_the_dataset() {
    let mut scenario = Scenario::new();
    scenario.answers = vec![(true, Err(service_error(ErrorKind::Indeterminate)))];
    scenario.reconcile();
    let name = scenario.request().job_name(1);
    scenario.set_job_status(&name, ACTIVE);
    scenario.dataset = Err(service_error(ErrorKind::Throttled));
    scenario.wait();
    scenario.reconcile();
    assert_eq!((scenario.reason(), scenario.status().submission.is_some()), (Reason::Throttled, true));
    scenario.resource.spec.suspend = true;
    scenario.dataset = Ok(active_dataset());
    scenario.wait();
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::ImportSucceeded, 1));
}

#[test]
fn claimed_job_of_a_later_attempt_is_kept_while_its_dataset_does_not_exist() {
    let mut scenario = Scenario::new();
    let (second, tags) = (scenario.request().job_name(2), scenario.request().own_tags());
    scenario.add_job(&second, ACTIVE, tags);
    scenario.dataset = Err(service_error(ErrorKind::NotFound));
    scenario.resource.status = Some(DatasetImportJobStatus {
        dataset_import_job_arn: Some(scenario.request().job_arn(2).0),
        attempts: Some(2),
        ..Default::default()
    });
    scenario.reconcile_untrusted();
    scenario.dataset = Ok(active_dataset());
    scenario.wait();
    scenario.reconcile_untrusted();
    assert_eq!((scenario.reason(), scenario.status().attempts), (Reason::ImportSucceeded, Some(2)));
    assert_eq!(scenario.accepted.len(), 0);
}

#[test]
fn success_is_adopted_only_once_its_dataset_is_known() {
    for (error, meanwhile) in [
        (ErrorKind::NotFound, Reason::DatasetNotReady),
        (ErrorKind::Throttled, Reason::Throttled),
        (ErrorKind::Indeterminate, Reason::ServiceUnavailable),
    ] {
        for is_older in [false, true] {
            for is_trusted in [false, true] {
                let mut scenario = recreated();
                scenario.dataset = Err(service_error(error));
                if is_trusted {
                    scenario.reconcile_until_idle();
                    assert_eq!(scenario.reason(), meanwhile);
                } else {
                    scenario.resource.status = Some(DatasetImportJobStatus::default());
                    scenario.reconcile_untrusted();
                }
                let created = after(scenario.now, timing().poll_min);
                scenario.dataset = Ok(Dataset { created: is_older.then_some(created), ..active_dataset() });
                for _ in 0..3 {
                    scenario.wait();
                    scenario.reconcile_until_idle();
                }
                let expected = if is_older { Reason::DatasetReplaced } else { Reason::ImportSucceeded };
                let case = format!("{error:?}, older: {is_older}, trusted: {is_trusted}");
                assert_eq!((scenario.reason(), scenario.accepted.len()), (expected, 0), "{case}");
            }
        }
    }
}

#[test]
fn later_attempt_is_found_behind_a_job_that_is_older_than_its_dataset() {
    for (state, expected) in
        [(ACTIVE, Reason::ImportSucceeded), (CREATE_PENDING, Reason::Pending), (CREATE_FAILED, Reason::ImportFailed)]
    {
        let mut scenario = recreated();
        let replaced = after(scenario.now, timing().poll_min);
        scenario.dataset = Ok(Dataset { created: Some(replaced), ..active_dataset() });
        let (second, tags) = (scenario.request().job_name(2), scenario.request().own_tags());
        scenario.now = after(replaced, timing().poll_min);
        scenario.add_job(&second, state, tags);
        scenario.reconcile_until_idle();
        assert_eq!((scenario.reason(), scenario.status().attempts), (expected, Some(2)));
        scenario.reconcile_untrusted();
        assert_eq!((scenario.reason(), scenario.status().attempts), (expected, Some(2)), "after an edit of its status");
        scenario.annotate(RETRY_REQUESTED_AT, "now");
        for _ in 0..3 {
            scenario.wait();
            scenario.reconcile_until_idle();
        }
        let third = (state == CREATE_FAILED).then(|| scenario.request().job_name(3));
        assert_eq!(scenario.accepted, Vec::from_iter(third), "{state}");
    }
}

#[test]
fn forged_intent_of_a_later_attempt_under_the_operators_own_name_starts_no_attempt() {
    let mut scenario = succeeded();
    let intent = Submission {
        job_name: scenario.request().job_name(2),
        attempt: 2,
        request_hash: scenario.request().hash(),
        generation: 1,
        time: Time(scenario.now),
    };
    scenario.resource.status = Some(DatasetImportJobStatus { submission: Some(intent), ..Default::default() });
    for _ in 0..4 {
        scenario.wait();
        scenario.reconcile_until_idle();
    }
    assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::ImportSucceeded, 1));
}
