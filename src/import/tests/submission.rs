//! Submitting exactly once: the intent, the create call and its answers.

use super::scenario::{FAILURE, IN_PROGRESS, Scenario};
use crate::api::conditions::Reason;
use crate::api::{RECONCILE_REQUESTED_AT, Submission};
use crate::import::timing::{Timing, after, since};
use crate::import::{Admission, AfterWrite, Effect, Next, Observations, Trust, plan};
use crate::personalize::{CREATE_PENDING, ErrorKind};
use crate::testing::{active_dataset, job_summary, service_error, timing};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

#[test]
fn lost_answer_is_looked_up_whether_or_not_the_call_took_effect() {
    for took_effect in [true, false] {
        let mut scenario = Scenario::new();
        scenario.answers = vec![(took_effect, Err(service_error(ErrorKind::Indeterminate)))];
        scenario.reconcile_until_idle();
        assert_eq!(scenario.conditions(), IN_PROGRESS);
        for _ in 0..3 {
            scenario.wait();
            scenario.reconcile_until_idle();
        }
        assert_eq!(scenario.accepted.len(), 1, "took effect: {took_effect}");
        assert_eq!(scenario.reason(), Reason::Pending);
    }
}

#[test]
fn each_create_error_leads_to_its_reason_and_a_retry() {
    for (kind, reason, conditions) in [
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
        let mut scenario = Scenario::new();
        scenario.answers = vec![(false, Err(service_error(kind)))];
        scenario.reconcile_until_idle();
        assert_eq!((scenario.reason(), scenario.conditions()), (reason, conditions.map(String::from)), "{kind:?}");
        assert_eq!(scenario.status().submission.is_some(), kind == ErrorKind::Indeterminate, "{kind:?}");
        assert!(scenario.local.backoff.until().is_some(), "{kind:?}: it is retried");
        for _ in 0..3 {
            scenario.wait();
            scenario.reconcile_until_idle();
        }
        assert_eq!(scenario.accepted.len(), 1, "{kind:?}: it is imported once the cause is fixed");
    }
}

#[test]
fn taken_name_whose_job_stays_invisible_is_a_conflict_with_growing_delays() {
    let mut scenario = Scenario::new();
    let taken = || (false, Err(service_error(ErrorKind::AlreadyExists)));
    scenario.answers = std::iter::repeat_with(taken).take(10).collect();
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.conditions()), (Reason::Submitting, IN_PROGRESS.map(String::from)));
    scenario.wait();
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.conditions()), (Reason::JobNameConflict, FAILURE.map(String::from)));
    assert!(scenario.status().submission.is_none(), "the service accepted no job");
    for _ in 0..3 {
        scenario.wait();
        let finished = scenario.reconcile_until_idle();
        assert!(finished.requeue_after.unwrap() >= timing().rejected_min / 2);
        assert_eq!(scenario.reason(), Reason::JobNameConflict);
    }
    scenario.answers.clear();
    scenario.wait();
    scenario.reconcile_until_idle();
    assert_eq!(scenario.accepted.len(), 1, "the name is free again");
}

/// A scenario whose operator crashed right after its intent was recorded.
fn crashed_after_intent() -> Scenario {
    let mut scenario = Scenario::new();
    for effects in 1.. {
        assert_eq!(scenario.reconcile_within(effects), None, "the intent is recorded before the end");
        if scenario.status().submission.is_some() {
            break;
        }
    }
    scenario.crash();
    scenario
}

#[test]
fn resumed_intent_waits_for_a_job_that_started_meanwhile() {
    let mut scenario = crashed_after_intent();
    scenario.now = after(scenario.now, timing().grace * 2);
    scenario.other_jobs = vec![job_summary("theirs", CREATE_PENDING)];
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::Queued, 0));
    scenario.other_jobs.clear();
    scenario.wait();
    scenario.reconcile_until_idle();
    assert_eq!(scenario.accepted.len(), 1);
}

#[test]
fn intent_time_in_the_future_does_not_prolong_the_grace_period() {
    let mut scenario = crashed_after_intent();
    scenario.now = after(scenario.now, Duration::from_secs(1));
    let ahead = after(scenario.now, Duration::from_secs(24 * 3600));
    if let Some(submission) = scenario.resource.status.as_mut().and_then(|status| status.submission.as_mut()) {
        submission.time = Time(ahead);
    }
    let (writes, start) = (scenario.written.len(), scenario.now);
    scenario.reconcile_until_idle();
    assert!(since(start, scenario.now) <= timing().grace * 2, "{:?}", since(start, scenario.now));
    assert_eq!((scenario.accepted.len(), scenario.reason()), (1, Reason::Pending));
    assert!(scenario.written.len() <= writes + 6, "{} writes", scenario.written.len());
}

#[test]
fn submission_whose_tags_appear_late_never_looks_rejected() {
    for kind in [ErrorKind::NotFound, ErrorKind::InUse] {
        let mut scenario = Scenario::new();
        scenario.answers = vec![(true, Err(service_error(ErrorKind::Indeterminate)))];
        scenario.tags_error = Some(service_error(kind));
        scenario.reconcile_until_idle();
        scenario.wait();
        scenario.reconcile_until_idle();
        assert_eq!((scenario.reason(), scenario.conditions()), (Reason::Submitting, IN_PROGRESS.map(String::from)));
        scenario.tags_error = None;
        scenario.wait();
        scenario.reconcile_until_idle();
        assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::Pending, 1));
    }
}

#[test]
fn restart_retries_a_rejected_import_no_sooner() {
    let mut scenario = Scenario::new();
    scenario.answers = vec![(false, Err(service_error(ErrorKind::AccessDenied))), (true, Ok(()))];
    scenario.reconcile_until_idle();
    assert_eq!(scenario.reason(), Reason::AccessDenied);
    scenario.crash();
    let (reads, writes) = (scenario.reads, scenario.written.len());
    let delay = scenario.reconcile_until_idle().requeue_after.unwrap();
    assert!(delay >= timing().rejected_min / 2, "{delay:?}");
    assert_eq!((scenario.reads, scenario.written.len()), (reads, writes));
    scenario.crash();
    scenario.annotate(RECONCILE_REQUESTED_AT, "now");
    scenario.reconcile_until_idle();
    assert_eq!((scenario.reason(), scenario.accepted.len()), (Reason::Pending, 1), "a user's request is not delayed");
}

/// The intent that is recorded next.
fn recorded_intent(next: &Next) -> Option<Submission> {
    match next {
        Next::Perform(Effect::WriteStatus { status, then: AfterWrite::Submit { .. } }) => status.submission.clone(),
        _ => None,
    }
}

/// Observations that let a submission continue.
fn all_checks_pass() -> Observations {
    Observations {
        live: true,
        namespace: Some(Ok(())),
        admission: Some(Admission::Admitted),
        dataset: Some(Ok(active_dataset())),
        jobs: Some(Ok(Vec::new())),
        data_deletion: Some(Ok(None)),
        data: Some(None),
        ..Observations::default()
    }
}

#[test]
fn new_intent_differs_from_the_one_it_replaces_with_any_grace() {
    let mut scenario = crashed_after_intent();
    scenario.local.note_intent(scenario.resource.status.as_ref(), scenario.now);
    let timing = Timing { grace: Duration::ZERO, ..timing() };
    let mut observations = all_checks_pass();
    observations.lookups.insert(1, Err(service_error(ErrorKind::NotFound)));
    let plan_at = |now| plan(&scenario.resource, Trust::Trusted, &observations, &scenario.local, now, &timing);
    let within = plan_at(scenario.now);
    assert!(recorded_intent(&within).is_none(), "{within:?}");
    let later = plan_at(after(scenario.now, Duration::from_secs(1)));
    let intent = recorded_intent(&later).expect("a second later it is recorded again");
    assert_ne!(Some(intent), scenario.status().submission);
}

#[test]
fn old_intent_is_recorded_again_before_the_create() {
    let mut scenario = Scenario::new();
    let mut observations = Observations { intent: Some(1), ..all_checks_pass() };
    observations.lookups.insert(1, Err(service_error(ErrorKind::NotFound)));
    let effects = (1..).take_while(|effects| {
        scenario.reconcile_within(*effects);
        scenario.status().submission.is_none()
    });
    assert!(effects.count() > 0 && scenario.accepted.is_empty());
    let next = |scenario: &Scenario| scenario.plan(&observations);
    assert_eq!(next(&scenario), Next::Perform(Effect::CreateJob { attempt: 1 }));
    scenario.now = after(scenario.now, timing().grace / 2);
    assert!(matches!(next(&scenario), Next::Finish(_)), "the request would arrive after another replica resubmits");
    scenario.local.note_intent(scenario.resource.status.as_ref(), scenario.now);
    scenario.now = after(scenario.now, timing().grace);
    assert!(recorded_intent(&next(&scenario)).is_some(), "another replica may act on the old intent");
}

#[test]
fn resumed_intent_is_dropped_when_the_namespace_is_no_longer_allowed() {
    let mut scenario = crashed_after_intent();
    scenario.namespace = Err("its list has no such dataset".into());
    scenario.reconcile();
    scenario.now = after(scenario.now, timing().grace);
    scenario.reconcile();
    assert_eq!(Reason::of(&scenario.status()), Some(Reason::NotPermitted));
    assert_eq!((scenario.status().submission, scenario.accepted.len()), (None, 0));
}
