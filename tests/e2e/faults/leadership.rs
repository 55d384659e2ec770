//! Leader election: lost, stolen and expired leases.

use super::{
    CREATE, DESCRIBE, STATUS, assert_imported_beside, assert_imported_once, import_nightly, records_intent,
    wait_until_not_leader,
};
use crate::env::proxy::Fault;
use crate::env::{SHORT_LEASE, TestEnv, eventually, ready_condition, text};
use personalize_operator::api::DatasetImportJobStatus;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::watch;

const LEASE: &str = "personalize-operator";
/// With these flags only a lost lease ends a reconcile or prevents the create.
const ONLY_LEASE_EXPIRES: [&str; 2] = [SHORT_LEASE, "--grace=14s"];

fn holder(env: &TestEnv) -> String {
    text(&env.kubectl(&["get", "lease", LEASE, "-o", "jsonpath={.spec.holderIdentity}"]))
}

#[test]
fn fault_30_two_leaders_at_once_import_each_resource_once() {
    let env = TestEnv::new();
    // Without leader election both work on all resources, so only the protocol prevents duplicates.
    let _both = ["--identity=first", "--identity=second"]
        .map(|identity| env.start_operator(&[identity, "--leader-elect=false"]));
    for i in 0..8 {
        env.import(&format!("r{i}"), &format!("d{}", i % 4), json!({}));
    }
    for i in 0..8 {
        env.wait_for_reason(&format!("r{i}"), "ImportSucceeded");
    }
    assert_eq!(env.accepted_count(), 8);
    env.check_invariants_settled();
}

/// Writes the lease as another client.
fn write_lease(env: &TestEnv, spec: &Value) {
    let patch = json!({"spec": spec}).to_string();
    let patched = env.kubectl(&["patch", "lease", LEASE, "--type=merge", "-p", &patch]);
    assert!(patched.status.success(), "{}", text(&patched));
}

/// Another replica takes the lease and keeps it for longer than any test takes.
fn steal(env: &TestEnv) {
    // The time is from a clock that is behind. Only the duration counts.
    let other =
        json!({"holderIdentity": "other", "leaseDurationSeconds": 3600, "renewTime": "1999-01-01T00:00:00.000000Z"});
    write_lease(env, &other);
}

#[test]
fn fault_31_lease_lost_during_create_does_not_create_again() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    // The service accepts the job, but its response is late. Meanwhile another replica takes the lease.
    proxy.inject(|call| if call.label == CREATE { Fault::HangResponse } else { Fault::None });
    let first = env.spawn_operator_behind(&proxy, &["--grace=120s"]);
    import_nightly(&env);
    eventually("the service accepts the job", || (env.accepted_count() == 1).then_some(()));
    steal(&env);
    wait_until_not_leader(&first);
    let second = env.start_operator(&["--identity=second", SHORT_LEASE]);
    assert_eq!(env.status("nightly").dataset_import_job_arn, None, "no leader has reported the job yet");
    first.kill();
    write_lease(&env, &json!({"holderIdentity": ""}));
    assert_imported_once(&env);
    assert_eq!(holder(&env), "second");
    assert_eq!(env.service.call_count(CREATE), 1, "the accepted job is found, not created again");
    assert!(second.stop());
}

#[test]
fn fault_31_lease_lost_between_intent_and_create_prevents_the_create() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    // The lookup between intent and create takes longer than the lease, which can't be renewed meanwhile.
    let mut recorded = false;
    proxy.inject(move |call| {
        recorded |= records_intent(call);
        match call.label.as_str() {
            DESCRIBE if recorded => Fault::Delay(Duration::from_secs(4)),
            "PUT leases" | "GET leases" if recorded => Fault::DropRequest,
            _ => Fault::None,
        }
    });
    let first = env.spawn_operator_behind(&proxy, &ONLY_LEASE_EXPIRES);
    import_nightly(&env);
    eventually("the intent is recorded", || env.status("nightly").submission.map(drop));
    wait_until_not_leader(&first);
    assert_eq!(proxy.count(CREATE), 0, "a replica that does not lead creates nothing");
    proxy.clear();
    assert_imported_once(&env);
}

#[test]
fn fault_32_replica_paused_past_its_lease_does_not_lead_after_resuming() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let first = env.start_operator(&["--identity=first", SHORT_LEASE]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    first.signal("-STOP");
    let second = env.start_operator(&["--identity=second", SHORT_LEASE]);
    eventually("the second replica leads", || (holder(&env) == "second").then_some(()));
    env.import("meanwhile", "d1", json!({}));
    env.wait_for_reason("meanwhile", "Importing");
    first.signal("-CONT");
    wait_until_not_leader(&first);
    env.import("after", "d2", json!({}));
    env.wait_for_reason("after", "Importing");
    env.service.set_durations(1, 1);
    for name in ["nightly", "meanwhile", "after"] {
        env.wait_for_reason(name, "ImportSucceeded");
    }
    assert_eq!(env.accepted_count(), 3);
    // On a busy machine the second replica may lose its lease in turn.
    let leads_again = first.log().matches("\"leading\"").count() > 1;
    assert!(leads_again || !first.log().contains("\"after\""), "only the leader reconciles");
    env.check_invariants_settled();
    assert!(second.stop());
}

#[test]
fn fault_32_replica_paused_between_intent_and_create_creates_nothing() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    // The operator is paused during the lookup between intent and create. The response is there when it resumes, and
    // would lead to a create: no timeout has expired, and the intent is recent.
    let (release, held) = watch::channel(false);
    let mut recorded = false;
    proxy.inject(move |call| {
        recorded |= call.label == STATUS;
        if recorded && call.label == DESCRIBE { Fault::HoldUntil(held.clone()) } else { Fault::None }
    });
    let flags =
        ["--identity=first", "--lease-duration=15s", "--aws-timeout=600s", "--aws-read-timeout=600s", "--grace=600s"];
    let first = env.spawn_operator_behind(&proxy, &flags);
    import_nightly(&env);
    eventually("the intent is recorded", || env.status("nightly").submission.map(drop));
    eventually("the lookup is in flight", || (proxy.count(DESCRIBE) > 1).then_some(()));
    first.signal("-STOP");
    let _second = env.start_operator(&["--identity=second", "--lease-duration=15s", "--grace=8s"]);
    eventually("the second replica leads", || (holder(&env) == "second").then_some(()));
    release.send(true).unwrap();
    first.signal("-CONT");
    wait_until_not_leader(&first);
    first.kill();
    assert_imported_once(&env);
    assert_eq!(proxy.count(CREATE), 0, "the paused replica creates nothing");
}

#[test]
fn lease_taken_by_another_client_is_respected_until_released() {
    let env = TestEnv::new();
    let operator = env.start_operator(&[SHORT_LEASE]);
    eventually("the operator leads", || (holder(&env) == "one").then_some(()));
    steal(&env);
    wait_until_not_leader(&operator);
    import_nightly(&env);
    eventually("the operator stands by", || operator.log().contains("standing by").then_some(()));
    assert_eq!(env.service.ledger().len(), 0, "a replica that does not lead makes no calls");
    assert_eq!(holder(&env), "other");
    write_lease(&env, &json!({"holderIdentity": ""}));
    assert_imported_once(&env);
    assert_eq!(holder(&env), "one");
}

#[test]
fn api_server_down_for_longer_than_the_lease_keeps_imports_going() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let proxy = env.start_proxy();
    let operator = env.spawn_operator_behind(&proxy, &[SHORT_LEASE]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    proxy.inject(|call| if call.is_kubernetes() { Fault::DropRequest } else { Fault::None });
    wait_until_not_leader(&operator);
    env.import("meanwhile", "d1", json!({}));
    proxy.clear();
    assert_imported_beside(&env, "meanwhile");
}

#[test]
fn api_server_down_for_longer_than_the_lease_during_create_does_not_create_again() {
    for answered in [false, true] {
        let env = TestEnv::new();
        let proxy = env.start_proxy();
        // From the create on, no call reaches the API server: neither a renewal nor the result of the create.
        let mut sent = false;
        proxy.inject(move |call| {
            sent |= call.label == CREATE;
            match (call.label.as_str(), sent) {
                (CREATE, _) if !answered => Fault::HangResponse,
                (label, true) if label.contains(' ') => Fault::DropRequest,
                _ => Fault::None,
            }
        });
        let operator = env.spawn_operator_behind(&proxy, &ONLY_LEASE_EXPIRES);
        import_nightly(&env);
        eventually("the service accepts the job", || (env.accepted_count() == 1).then_some(()));
        wait_until_not_leader(&operator);
        assert_eq!(env.status("nightly").dataset_import_job_arn, None);
        proxy.clear();
        assert_imported_once(&env);
        assert_eq!(env.service.call_count(CREATE), 1, "the accepted job is found, not created again");
    }
}

#[test]
fn lost_response_to_a_lease_write_loses_no_import() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    proxy.inject_once(Fault::DropResponse, |call| call.label == "PUT leases");
    let _operator = env.spawn_operator_behind(&proxy, &[]);
    import_nightly(&env);
    eventually("the lease is renewed", || (proxy.count("PUT leases") > 1).then_some(()));
    assert_imported_once(&env);
}

#[test]
fn fault_77_newer_import_waits_for_the_create_of_a_former_leader() {
    for signal in ["-KILL", "-TERM"] {
        let env = TestEnv::new();
        let proxy = env.start_proxy();
        let (release, held) = watch::channel(false);
        proxy.inject_once(Fault::HoldUntil(held), |call| call.label == CREATE);
        let flags = [ONLY_LEASE_EXPIRES.as_slice(), &["--drain-timeout=100ms"]].concat();
        let former = env.spawn_operator_behind(&proxy, &flags);
        import_nightly(&env);
        eventually("the create is in flight", || (proxy.count(CREATE) == 1).then_some(()));
        former.signal(signal);
        former.wait_for_exit();
        env.delete("nightly");
        env.import("nightly", "d0", json!({"jobName": "newer"}));
        let _successor = env.spawn_operator_behind(&proxy, &ONLY_LEASE_EXPIRES);
        let waits = |status: &DatasetImportJobStatus| {
            ready_condition(status).is_some_and(|ready| ready.message.contains("an earlier leader"))
        };
        eventually("the successor waits, or submits", || {
            (waits(&env.status("nightly")) || env.accepted_count() > 0).then_some(())
        });
        release.send(true).unwrap();
        env.wait_for_reason("nightly", "ImportSucceeded");
        assert_eq!(env.accepted_count(), 2, "{signal}");
        let jobs = env.service.jobs();
        let last = jobs.last().map(|job| job["name"].clone());
        assert_eq!(last, Some(json!("newer")), "{signal}: {jobs:?}");
        env.check_invariants_settled();
    }
}

#[test]
fn successor_of_a_drained_leader_submits_at_once() {
    let env = TestEnv::new();
    // A lease that expires would say that requests may be in flight.
    let former = env.start_operator(&["--grace=2s"]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert!(former.stop());
    let _successor = env.start_operator(&["--grace=1h"]);
    env.import("after", "d1", json!({}));
    env.wait_for_reason("after", "ImportSucceeded");
    env.check_invariants_settled();
}

#[test]
fn fault_83_deleted_lease_does_not_let_two_replicas_lead() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let proxy = env.start_proxy();
    let first = env.start_operator(&["--identity=first", "--lease-duration=40s"]);
    let second = env.spawn_operator_behind(&proxy, &["--identity=second", "--lease-duration=40s"]);
    eventually("the second replica stands by", || second.log().contains("standing by").then_some(()));
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    // The first replica can't create the Lease again before the second one has looked for it.
    first.signal("-STOP");
    assert!(env.kubectl(&["delete", "lease", LEASE]).status.success());
    let before = proxy.count("GET leases");
    eventually("the second replica looks for the lease", || (proxy.count("GET leases") > before + 1).then_some(()));
    first.signal("-CONT");
    eventually("the first replica holds the lease again", || (holder(&env) == "first").then_some(()));
    assert!(!second.log().contains("\"leading\""), "{}", second.log());
    env.service.set_durations(1, 1);
    assert_imported_once(&env);
    eventually("the first replica is ready", || first.is_ready().then_some(()));
}
