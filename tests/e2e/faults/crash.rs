//! Crash (kill -9) and restart. Each test kills the operator at one point and replaces it.

use super::{CREATE, DESCRIBE, STATUS, assert_imported_once, import_nightly, kill_and_replace};
use crate::env::proxy::{Call, Fault};
use crate::env::{TestEnv, eventually};
use tokio::sync::watch;

fn writes_intent(call: &Call) -> bool {
    call.label == STATUS && call.body.contains("\"submission\"") && !call.body.contains("datasetImportJobArn")
}

fn writes_job_arn(call: &Call) -> bool {
    call.label == STATUS && call.body.contains("datasetImportJobArn")
}

fn writes_end(call: &Call) -> bool {
    call.label == STATUS && call.body.contains("\"ACTIVE\"")
}

#[test]
fn fault_01_killed_before_the_intent_submits_once() {
    let (env, _proxy) = kill_and_replace(Fault::KillBefore, writes_intent);
    assert_eq!(env.service.call_count(CREATE), 1);
}

#[test]
fn fault_02_killed_before_the_response_to_the_intent_submits_once() {
    let (env, _proxy) = kill_and_replace(Fault::KillAfter, writes_intent);
    assert_eq!(env.service.call_count(CREATE), 1);
}

#[test]
fn fault_02_lost_response_to_the_intent_submits_once() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    proxy.inject_once(Fault::DropResponse, writes_intent);
    let _operator = env.spawn_operator_behind(&proxy, &[]);
    import_nightly(&env);
    assert_imported_once(&env);
}

#[test]
fn fault_03_killed_between_intent_and_create_submits_again() {
    let (_env, proxy) = kill_and_replace(Fault::KillBefore, |call| call.label == CREATE);
    assert!(proxy.count(CREATE) >= 2);
}

#[test]
fn fault_04_killed_while_sending_the_create_submits_again() {
    let (_env, proxy) = kill_and_replace(Fault::KillMidRequest, |call| call.label == CREATE);
    assert!(proxy.count(CREATE) >= 2);
}

#[test]
fn fault_05_killed_before_the_response_to_the_create_adopts_the_job() {
    let (env, _proxy) = kill_and_replace(Fault::KillAfter, |call| call.label == CREATE);
    assert_eq!(env.service.call_count(CREATE), 1, "the accepted job is found, not created again");
}

#[test]
fn fault_05_lost_response_to_the_create_adopts_the_job() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    proxy.inject_once(Fault::DropResponse, |call| call.label == CREATE);
    let _operator = env.spawn_operator_behind(&proxy, &[]);
    import_nightly(&env);
    assert_imported_once(&env);
    assert_eq!(env.service.call_count(CREATE), 1);
}

#[test]
fn fault_06_killed_before_recording_the_job_adopts_it() {
    let (env, _proxy) = kill_and_replace(Fault::KillBefore, writes_job_arn);
    assert_eq!(env.service.call_count(CREATE), 1);
}

#[test]
fn fault_07_killed_after_recording_the_job_polls_it() {
    let (env, _proxy) = kill_and_replace(Fault::KillAfter, writes_job_arn);
    assert_eq!(env.service.call_count(CREATE), 1);
}

#[test]
fn fault_08_killed_between_polls_resumes_polling() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let operator = env.start_operator(&[]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    let polls = env.service.call_count(DESCRIBE);
    eventually("the job is polled again", || (env.service.call_count(DESCRIBE) > polls).then_some(()));
    operator.kill();
    let _operator = env.start_operator(&[]);
    env.service.set_durations(1, 1);
    assert_imported_once(&env);
}

#[test]
fn fault_09_killed_before_recording_the_end_records_it_after_restart() {
    let (env, _proxy) = kill_and_replace(Fault::KillBefore, writes_end);
    assert_eq!(env.service.call_count(CREATE), 1);
}

#[test]
fn fault_10_sigterm_during_create_records_the_job_before_exit() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    let (release, held) = watch::channel(false);
    proxy.inject(move |call| if call.label == CREATE { Fault::HoldUntil(held.clone()) } else { Fault::None });
    let flags = ["--grace=120s", "--drain-timeout=60s"];
    let operator = env.spawn_operator_behind(&proxy, &flags);
    import_nightly(&env);
    eventually("the create is in flight", || (proxy.count(CREATE) == 1).then_some(()));
    operator.signal("-TERM");
    eventually("it is no longer ready", || (operator.get("/readyz")? == (503, "shutting down\n".into())).then_some(()));
    assert!(operator.metrics().contains("personalize_operator_"), "metrics are served to the end");
    release.send(true).unwrap();
    assert!(operator.wait_for_exit());
    assert!(env.status("nightly").dataset_import_job_arn.is_some(), "the status names the job");
    let _operator = env.start_operator(&[]);
    assert_imported_once(&env);
}

#[test]
fn fault_10_drain_timeout_during_create_leaves_the_intent() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    proxy.inject_once(Fault::HangResponse, |call| call.label == CREATE);
    let operator = env.spawn_operator_behind(&proxy, &["--drain-timeout=1s"]);
    import_nightly(&env);
    eventually("the service accepts the job", || (env.accepted_count() == 1).then_some(()));
    operator.stop();
    assert!(env.status("nightly").submission.is_some(), "the successor finds the intent");
    proxy.clear();
    let _operator = env.spawn_operator_behind(&proxy, &[]);
    assert_imported_once(&env);
}
