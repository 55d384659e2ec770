//! `status.phase`, `reason` and `message` repeat the condition Ready, cost no write and decide nothing.

use super::scenario::Scenario;
use crate::api::DatasetImportJobStatus;
use crate::api::conditions::{Reason, is_without_summary, ready_message, summarize};
use crate::personalize::{ACTIVE, CREATE_IN_PROGRESS};

/// Asserts that each status that was written says the same in its summary and in its conditions.
fn assert_written_summaries(scenario: &Scenario) {
    for status in &scenario.written {
        let reason = Reason::of(status).expect("a reason");
        assert_eq!(status.phase.as_deref(), Some(reason.phase().as_str()));
        assert_eq!(status.reason.as_deref(), Some(reason.as_str()));
        assert_eq!(status.message.as_deref(), Some(ready_message(status)));
    }
}

fn without_summary(scenario: &mut Scenario) {
    let status = scenario.status();
    scenario.resource.status = Some(DatasetImportJobStatus { phase: None, reason: None, message: None, ..status });
}

fn end(scenario: &mut Scenario, status: &str) {
    let name = scenario.request().job_name(1);
    scenario.set_job_status(&name, status);
    scenario.wait();
    scenario.reconcile_until_idle();
}

#[test]
fn each_written_status_has_the_phase_of_its_reason() {
    let mut scenario = Scenario::new();
    scenario.reconcile_until_idle();
    let phase = |scenario: &Scenario| scenario.status().phase;
    assert_eq!(phase(&scenario).as_deref(), Some("Pending"));
    end(&mut scenario, CREATE_IN_PROGRESS);
    assert_eq!(phase(&scenario).as_deref(), Some("Running"));
    end(&mut scenario, ACTIVE);
    assert_eq!(phase(&scenario).as_deref(), Some("Succeeded"));
    assert_written_summaries(&scenario);
}

#[test]
fn status_of_an_older_version_is_not_written_only_to_add_a_summary() {
    let mut scenario = Scenario::new();
    scenario.reconcile_until_idle();
    end(&mut scenario, CREATE_IN_PROGRESS);
    without_summary(&mut scenario);
    scenario.crash();
    let written = scenario.written.len();
    for _ in 0..3 {
        scenario.wait();
        scenario.reconcile_until_idle();
    }
    assert_eq!(scenario.written.len(), written, "polls of a running job");
    end(&mut scenario, ACTIVE);
    assert_eq!(scenario.status().phase.as_deref(), Some("Succeeded"), "the next change adds it");
    without_summary(&mut scenario);
    scenario.crash();
    let written = scenario.written.len();
    scenario.reconcile_until_idle();
    scenario.reconcile_untrusted();
    assert_eq!(scenario.written.len(), written, "a finished import");
}

#[test]
fn forged_summary_is_corrected_and_decides_nothing() {
    let forge = |scenario: &mut Scenario| {
        let status = scenario.resource.status.as_mut().unwrap();
        status.phase = Some("Succeeded".into());
        status.reason = Some("ImportSucceeded".into());
        status.message = None;
    };
    let mut new = Scenario::new();
    forge(&mut new);
    new.reconcile_until_idle();
    assert_eq!((new.accepted.len(), new.reason()), (1, Reason::Pending), "it is submitted all the same");
    assert_written_summaries(&new);
    let mut running = new.clone();
    end(&mut running, CREATE_IN_PROGRESS);
    let mut failed = running.clone();
    end(&mut failed, "CREATE FAILED");
    for scenario in [&mut running, &mut failed] {
        for untrusted in [false, true] {
            let before = scenario.status();
            forge(scenario);
            scenario.crash();
            if untrusted {
                scenario.reconcile_untrusted()
            } else {
                scenario.reconcile()
            };
            assert_eq!(scenario.status(), before, "untrusted: {untrusted}");
        }
        assert_eq!(scenario.accepted.len(), 1);
    }
}

#[test]
fn summary_of_a_status_without_conditions_is_removed() {
    let mut status = DatasetImportJobStatus { phase: Some("Running".into()), ..Default::default() };
    summarize(&mut status);
    assert!(is_without_summary(&status));
}
