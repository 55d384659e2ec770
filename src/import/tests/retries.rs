//! Another attempt after a failed one.

use super::scenario::Scenario;
use crate::api::conditions::Reason;
use crate::api::{DatasetImportJobSpec, RETRY_REQUESTED_AT};
use crate::personalize::{CREATE_FAILED, ErrorKind};
use crate::testing::{service_error, spec};

#[test]
fn failed_job_is_retried_up_to_the_backoff_limit() {
    let mut scenario = Scenario::with(DatasetImportJobSpec { backoff_limit: 2, ..spec() });
    for attempt in 1..=3 {
        scenario.wait();
        scenario.reconcile_until_idle();
        let name = scenario.request().job_name(attempt);
        scenario.set_job_status(&name, CREATE_FAILED);
        scenario.wait();
        scenario.reconcile_until_idle();
    }
    scenario.wait();
    scenario.reconcile_until_idle();
    assert_eq!(scenario.accepted, [1, 2, 3].map(|n| scenario.request().job_name(n)));
    assert_eq!((scenario.reason(), scenario.status().attempts), (Reason::ImportFailed, Some(3)));
    assert_eq!(scenario.status().failure_reason.as_deref(), Some("Invalid Data location."));
}

#[test]
fn rejected_attempt_keeps_the_failure_reason_of_the_failed_job_and_has_no_completion_time() {
    let mut scenario = Scenario::with(DatasetImportJobSpec { backoff_limit: 1, ..spec() });
    scenario.reconcile_until_idle();
    scenario.set_job_status(&scenario.request().job_name(1), CREATE_FAILED);
    scenario.answers.push((false, Err(service_error(ErrorKind::InvalidInput))));
    scenario.wait();
    scenario.reconcile_until_idle();
    let status = scenario.status();
    assert_eq!((scenario.reason(), status.status.as_deref()), (Reason::InvalidInput, Some(CREATE_FAILED)));
    assert_eq!(status.failure_reason.as_deref(), Some("Invalid Data location."));
    assert_eq!(status.completion_time, None);
}

#[test]
fn new_retry_annotation_grants_exactly_one_more_attempt() {
    let mut scenario = Scenario::new();
    scenario.annotate(RETRY_REQUESTED_AT, "before anything failed");
    for (attempt, value) in [(1, ""), (2, "first"), (3, "second")] {
        if !value.is_empty() {
            scenario.annotate(RETRY_REQUESTED_AT, value);
        }
        scenario.wait();
        scenario.reconcile_until_idle();
        scenario.wait();
        scenario.reconcile_until_idle();
        let name = scenario.request().job_name(attempt);
        assert_eq!(scenario.accepted.len(), usize::try_from(attempt).unwrap());
        scenario.set_job_status(&name, CREATE_FAILED);
        for _ in 0..3 {
            scenario.wait();
            scenario.crash();
            scenario.reconcile_until_idle();
        }
        assert_eq!(scenario.reason(), Reason::ImportFailed);
    }
    assert_eq!(scenario.accepted.len(), 3);
}

#[test]
fn fixed_job_name_is_not_retried_and_the_message_says_why() {
    let mut scenario =
        Scenario::with(DatasetImportJobSpec { job_name: Some("fixed".into()), backoff_limit: 3, ..spec() });
    scenario.reconcile_until_idle();
    scenario.set_job_status("fixed", CREATE_FAILED);
    scenario.annotate(RETRY_REQUESTED_AT, "please");
    scenario.wait();
    scenario.reconcile_until_idle();
    scenario.wait();
    scenario.reconcile_until_idle();
    assert_eq!((scenario.accepted.len(), scenario.reason()), (1, Reason::ImportFailed));
    assert!(scenario.status().conditions[0].message.contains("the name in spec.jobName"));
}
