//! Crash (kill -9) and restart.

use super::{CREATE, DESCRIBE, STATUS, killed_and_replaced, made_once, nightly};
use crate::env::proxy::{Call, Fate};
use crate::env::{Bed, eventually};
use serde_json::json;

fn intent(call: &Call) -> bool {
    call.label == STATUS && call.body.contains("\"submission\"") && !call.body.contains("datasetImportJobArn")
}

fn submitted(call: &Call) -> bool {
    call.label == STATUS && call.body.contains("datasetImportJobArn")
}

fn finished(call: &Call) -> bool {
    call.label == STATUS && call.body.contains("\"ACTIVE\"")
}

#[test]
fn fault_01_killed_before_the_intent() {
    let (_bed, proxy) = killed_and_replaced(Fate::KillBefore, intent);
    assert_eq!(proxy.count(CREATE), 1);
}

#[test]
fn fault_02_intent_applied_reply_lost() {
    let (_bed, proxy) = killed_and_replaced(Fate::KillAfter, intent);
    assert_eq!(proxy.count(CREATE), 1);
}

#[test]
fn fault_02_intent_applied_reply_lost_to_an_operator_that_lives_on() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    super::once(&proxy, Fate::Lose, intent);
    let _operator = bed.operator_behind(&proxy, &[]);
    nightly(&bed);
    made_once(&bed);
}

#[test]
fn fault_03_killed_after_the_intent_before_sending() {
    let (_bed, proxy) = killed_and_replaced(Fate::KillBefore, |call| call.label == CREATE);
    assert_eq!(proxy.count(CREATE), 2);
}

#[test]
fn fault_04_request_half_sent() {
    let (_bed, proxy) = killed_and_replaced(Fate::Half, |call| call.label == CREATE);
    assert_eq!(proxy.count(CREATE), 2);
}

#[test]
fn fault_05_accepted_reply_lost() {
    let (_bed, proxy) = killed_and_replaced(Fate::KillAfter, |call| call.label == CREATE);
    assert_eq!(proxy.count(CREATE), 1, "what was accepted is found, not sent again");
}

#[test]
fn fault_05_accepted_reply_lost_to_an_operator_that_lives_on() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    super::once(&proxy, Fate::Lose, |call| call.label == CREATE);
    let _operator = bed.operator_behind(&proxy, &[]);
    nightly(&bed);
    made_once(&bed);
    assert_eq!(proxy.count(CREATE), 1);
}

#[test]
fn fault_06_reply_read_status_not_written() {
    let (_bed, proxy) = killed_and_replaced(Fate::KillBefore, submitted);
    assert_eq!(proxy.count(CREATE), 1);
}

#[test]
fn fault_07_status_applied_reply_lost() {
    let (_bed, proxy) = killed_and_replaced(Fate::KillAfter, submitted);
    assert_eq!(proxy.count(CREATE), 1);
}

#[test]
fn fault_08_killed_between_polls() {
    let bed = Bed::new();
    bed.service.durations(100, 600_000);
    let operator = bed.operator(&["--identity=one"]);
    nightly(&bed);
    bed.until("nightly", "Importing");
    let looks = bed.service.calls(DESCRIBE);
    eventually("it was looked at again", || (bed.service.calls(DESCRIBE) > looks).then_some(()));
    operator.kill();
    let _operator = bed.operator(&["--identity=one"]);
    bed.service.durations(1, 1);
    made_once(&bed);
}

#[test]
fn fault_09_terminal_seen_not_written() {
    let (_bed, proxy) = killed_and_replaced(Fate::KillBefore, finished);
    assert_eq!(proxy.count(CREATE), 1);
}

#[test]
fn fault_10_sigterm_in_mid_create_drains() {
    let bed = Bed::new();
    bed.service.fault(&json!({"operation": CREATE, "count": 1, "action": {"delay": {"ms": 1500}}}));
    let operator = bed.operator(&[]);
    nightly(&bed);
    eventually("the call is under way", || (bed.service.calls(CREATE) == 1).then_some(()));
    assert!(operator.stop());
    assert!(bed.status("nightly").dataset_import_job_arn.is_some(), "it was brought to a safe point");
    let _operator = bed.operator(&[]);
    made_once(&bed);
}

#[test]
fn fault_10_sigterm_in_mid_create_leaves_the_intent_when_the_drain_is_over() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    super::once(&proxy, Fate::Forget, |call| call.label == CREATE);
    let operator = bed.operator_behind(&proxy, &["--drain-timeout=1s", "--aws-timeout=60s", "--aws-read-timeout=60s"]);
    nightly(&bed);
    eventually("the service has taken the job", || (bed.accepted() == 1).then_some(()));
    operator.stop();
    assert!(bed.status("nightly").submission.is_some(), "the intent tells the next one where to look");
    proxy.pass();
    let _operator = bed.operator_behind(&proxy, &[]);
    made_once(&bed);
}
