//! Clocks that differ between the cluster's hosts, or from the service's clock.

use super::host::Host;
use super::{
    CREATE, DESCRIBE, assert_imported_once, import_nightly, leaves_no_intent, records_intent, wait_until_not_leader,
};
use crate::env::proxy::Fault;
use crate::env::{SHORT_LEASE, TestEnv, eventually, ready_condition, text};
use jiff::Timestamp;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::watch;

const HOUR: i64 = 3600;

/// The error codes with which the service answered this operation.
fn error_codes(env: &TestEnv, operation: &str) -> Vec<String> {
    let ledger = env.service.ledger();
    let lines = ledger.iter().filter(|line| line["operation"] == operation);
    lines.filter_map(|line| line["errorCode"].as_str().map(String::from)).collect()
}

#[test]
fn fault_33_lease_from_a_clock_years_ahead_expires_as_usual() {
    let env = TestEnv::new();
    // The lease of a crashed replica whose clock was years ahead.
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "personalize-operator"},
        "spec": {"holderIdentity": "ahead", "leaseDurationSeconds": 3, "acquireTime": "2056-01-01T00:00:00.000000Z",
                 "renewTime": "2056-01-01T00:00:00.000000Z", "leaseTransitions": 1}});
    env.apply(&lease);
    let _operator = env.start_operator(&["--identity=present", SHORT_LEASE]);
    import_nightly(&env);
    assert_imported_once(&env);
    let holder = text(&env.kubectl(&["get", "lease", "personalize-operator", "-o", "jsonpath={.spec.holderIdentity}"]));
    assert_eq!(holder, "present", "a lease expires when it is not renewed, whatever times it contains");
}

/// The first replica is paused while its create is in flight, and the second takes over. Then the create arrives. The
/// service accepts clocks that differ by five minutes.
fn take_over_with_clock_offsets(first: i64, second: i64) {
    let env = TestEnv::new();
    let (first_host, second_host) = (Host::new(&env.dir().join("first")), Host::new(&env.dir().join("second")));
    first_host.set_clock_offset(first);
    second_host.set_clock_offset(second);
    let proxy = env.start_proxy();
    let (release, held) = watch::channel(false);
    proxy.inject(move |call| if call.label == CREATE { Fault::HoldUntil(held.clone()) } else { Fault::None });
    let flags = ["--identity=first", SHORT_LEASE, "--grace=30s"];
    let first = env.spawn_operator_behind_with(&proxy, &first_host.vars(), &flags);
    import_nightly(&env);
    eventually("the create is in flight", || (proxy.count(CREATE) == 1).then_some(()));
    first.signal("-STOP");
    let _second = env.start_operator_with(&second_host.vars(), &["--identity=second", SHORT_LEASE]);
    env.wait_for_reason("nightly", "ImportSucceeded");
    release.send(true).unwrap();
    eventually("the first replica's create arrives", || (env.service.call_count(CREATE) == 2).then_some(()));
    assert_eq!(error_codes(&env, CREATE), ["ResourceAlreadyExistsException"]);
    first.signal("-CONT");
    wait_until_not_leader(&first);
    assert_imported_once(&env);
}

#[test]
fn fault_33_intent_that_looks_expired_to_a_clock_ahead_is_submitted_once() {
    take_over_with_clock_offsets(-120, 120);
}

#[test]
fn fault_33_intent_from_the_future_for_a_clock_behind_is_submitted_once() {
    take_over_with_clock_offsets(120, -120);
}

/// The service rejected signatures of describes, and nothing else.
fn assert_only_signatures_rejected(env: &TestEnv) {
    let codes = error_codes(env, DESCRIBE);
    let signatures = codes.iter().filter(|code| *code == "InvalidSignatureException").count();
    let not_found = codes.iter().filter(|code| *code == "ResourceNotFoundException").count();
    assert!(signatures > 0 && signatures + not_found == codes.len(), "{codes:?}");
}

#[test]
fn fault_34_skewed_clock_is_corrected_after_the_first_rejected_signature() {
    for offset in [HOUR, -HOUR] {
        let env = TestEnv::new();
        let host = Host::new(&env.dir().join("host"));
        host.set_clock_offset(offset);
        let _operator = env.start_operator_with(&host.vars(), &[]);
        import_nightly(&env);
        // The rejection contains the service's time, with which the SDK signs from then on.
        assert_imported_once(&env);
        assert!(leaves_no_intent(&env, "CredentialsRefused"), "the rejected call leaves no intent");
        assert_only_signatures_rejected(&env);
    }
}

/// Whether a rejected signature of the create ended the submission. If the operator notices the change before it calls
/// create, its leadership starts over, and other calls are rejected.
fn change_clock_between_intent_and_create() -> bool {
    let env = TestEnv::new();
    let host = Arc::new(Host::new(&env.dir().join("host")));
    let proxy = env.start_proxy();
    let host_for_proxy = Arc::clone(&host);
    let mut recorded = false;
    proxy.inject(move |call| {
        recorded |= records_intent(call);
        if recorded && call.label == DESCRIBE {
            host_for_proxy.set_clock_offset(-HOUR);
        }
        Fault::None
    });
    let _operator = env.spawn_operator_behind_with(&proxy, &host.vars(), &["--backoff-min=3s", "--backoff-max=3s"]);
    import_nightly(&env);
    assert_imported_once(&env);
    let creates = error_codes(&env, CREATE);
    assert!(creates.iter().all(|code| code == "InvalidSignatureException"), "{creates:?}");
    !creates.is_empty() && leaves_no_intent(&env, "CredentialsRefused")
}

#[test]
fn fault_34_clock_changed_between_intent_and_create_submits_once() {
    let ended = (0..10).any(|_| change_clock_between_intent_and_create());
    assert!(ended, "a rejected signature ends the submission");
}

#[test]
fn fault_34_clock_corrected_while_waiting_submits_once() {
    for offset in [HOUR, -HOUR] {
        let env = TestEnv::new();
        let host = Host::new(&env.dir().join("host"));
        host.set_clock_offset(offset);
        let flags = ["--backoff-min=10s", "--backoff-max=10s"];
        let _operator = env.start_operator_with(&host.vars(), &flags);
        import_nightly(&env);
        env.wait_for_reason("nightly", "CredentialsRefused");
        // The clock changes while the operator waits for its backoff.
        host.set_clock_offset(0);
        assert_imported_once(&env);
        assert_only_signatures_rejected(&env);
    }
}

#[test]
fn fault_108_clock_set_back_or_ahead_delays_nothing() {
    for offset in [-HOUR, HOUR] {
        let env = TestEnv::new();
        let host = Host::new(&env.dir().join("host"));
        env.service.set_durations(0, 600_000);
        let flags = ["--max-in-flight=1"];
        let operator = env.start_operator_with(&host.vars(), &flags);
        import_nightly(&env);
        env.wait_for_reason("nightly", "Importing");
        env.import("next", "d1", json!({}));
        env.wait_for_reason("next", "Queued");
        host.set_clock_offset(offset);
        eventually("the operator notices", || operator.log().contains("the wall clock was set").then_some(()));
        env.service.set_durations(0, 0);
        env.wait_for_reason("nightly", "ImportSucceeded");
        let next = env.wait_for_reason("next", "ImportSucceeded");
        let ready = ready_condition(&next).unwrap().last_transition_time.0.as_second();
        let wall = Timestamp::now().as_second() + offset;
        assert!((ready - wall).abs() < HOUR / 2, "the status has the time of the new clock: {ready}, {wall}");
        assert_eq!(env.accepted_count(), 2);
        env.check_invariants_settled();
    }
}
