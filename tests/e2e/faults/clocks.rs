//! Clocks that are wrong: those of the cluster's machines, against each other and against the service's.

use super::host::Machine;
use super::{CREATE, DESCRIBE, STATUS, leads_no_more, made_once, nightly};
use crate::env::proxy::Fate;
use crate::env::{Bed, eventually, text};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::watch;

const HOUR: i64 = 3600;

/// The error codes that the service answered this operation with.
fn refusals(bed: &Bed, operation: &str) -> Vec<String> {
    let ledger = bed.service.ledger();
    let of = ledger.iter().filter(|line| line["operation"] == operation);
    of.filter_map(|line| line["errorCode"].as_str().map(String::from)).collect()
}

#[test]
fn fault_33_skewed_cluster_clock() {
    let bed = Bed::new();
    // A replica whose clock runs years ahead held the lease, and is gone.
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "personalize-operator"},
        "spec": {"holderIdentity": "ahead", "leaseDurationSeconds": 3, "acquireTime": "2056-01-01T00:00:00.000000Z",
                 "renewTime": "2056-01-01T00:00:00.000000Z", "leaseTransitions": 1}});
    bed.apply(&lease);
    let _operator = bed.operator(&["--identity=present"]);
    nightly(&bed);
    made_once(&bed);
    let holder = text(&bed.kubectl(&["get", "lease", "personalize-operator", "-o", "jsonpath={.spec.holderIdentity}"]));
    assert_eq!(holder, "present", "what counts is how long nobody renews, by one's own clock");
}

/// The first replica is halted while its create is on its way, and the second takes over; then the create arrives. The
/// service bears with five minutes between a clock and its own.
fn replicas_apart(first: i64, second: i64) {
    let bed = Bed::new();
    let (of_first, of_second) = (Machine::new(&bed.dir().join("first")), Machine::new(&bed.dir().join("second")));
    of_first.clock(first);
    of_second.clock(second);
    let proxy = bed.proxy();
    let (arrive, way) = watch::channel(false);
    proxy.rule(move |call| if call.label == CREATE { Fate::Hold(way.clone()) } else { Fate::Pass });
    let patient = ["--identity=first", "--aws-timeout=60s", "--aws-read-timeout=60s"];
    let first = bed.operator_behind_with(&proxy, &of_first.env(), &patient);
    nightly(&bed);
    eventually("the create is on its way", || (proxy.count(CREATE) == 1).then_some(()));
    first.signal("-STOP");
    let _second = bed.operator_with(&of_second.env(), &["--identity=second"]);
    bed.until("nightly", "ImportSucceeded");
    arrive.send(true).unwrap();
    eventually("the first one's create has arrived", || (bed.service.calls(CREATE) == 2).then_some(()));
    assert_eq!(refusals(&bed, CREATE), ["ResourceAlreadyExistsException"]);
    first.signal("-CONT");
    leads_no_more(&first);
    made_once(&bed);
}

#[test]
fn fault_33_an_intent_that_looks_expired_to_a_replica_whose_clock_is_ahead() {
    replicas_apart(-120, 120);
}

#[test]
fn fault_33_an_intent_of_the_future_to_a_replica_whose_clock_is_behind() {
    replicas_apart(120, -120);
}

/// All that the service has refused so far are signatures, and it has refused some.
fn only_signatures_were_refused(bed: &Bed, operation: &str) {
    let codes = refusals(bed, operation);
    let signatures = codes.iter().filter(|code| *code == "InvalidSignatureException").count();
    let unknown = codes.iter().filter(|code| *code == "ResourceNotFoundException").count();
    assert!(signatures > 0 && signatures + unknown == codes.len(), "{codes:?}");
}

#[test]
fn fault_34_skewed_aws_clock() {
    for ahead in [HOUR, -HOUR] {
        let bed = Bed::new();
        let machine = Machine::new(&bed.dir().join("machine"));
        machine.clock(ahead);
        let _operator = bed.operator_with(&machine.env(), &[]);
        nightly(&bed);
        let refused = bed.until("nightly", "CredentialsRefused");
        assert!(refused.submission.is_none(), "nothing is under way");
        // The refusal tells the service's time, by which it signs from then on.
        made_once(&bed);
        only_signatures_were_refused(&bed, DESCRIBE);
    }
}

#[test]
fn fault_34_a_clock_that_is_turned_between_intent_and_create() {
    let bed = Bed::new();
    let machine = Arc::new(Machine::new(&bed.dir().join("machine")));
    let proxy = bed.proxy();
    let turned = Arc::clone(&machine);
    let mut intended = false;
    proxy.rule(move |call| {
        intended |= call.label == STATUS && call.body.contains("\"submission\"");
        if intended && call.label == DESCRIBE {
            turned.clock(-HOUR);
        }
        Fate::Pass
    });
    let _operator = bed.operator_behind_with(&proxy, &machine.env(), &["--backoff-min=3s", "--backoff-max=3s"]);
    nightly(&bed);
    let refused = bed.until("nightly", "CredentialsRefused");
    assert!(refused.submission.is_none(), "a signature that is refused made no job");
    made_once(&bed);
    only_signatures_were_refused(&bed, CREATE);
}

#[test]
fn fault_34_a_clock_that_is_set_right_under_the_operator() {
    for ahead in [HOUR, -HOUR] {
        let bed = Bed::new();
        let machine = Machine::new(&bed.dir().join("machine"));
        machine.clock(ahead);
        let extra = ["--backoff-min=4s", "--backoff-max=4s", "--lease-duration=60s"];
        let _operator = bed.operator_with(&machine.env(), &extra);
        nightly(&bed);
        bed.until("nightly", "CredentialsRefused");
        // It waits for the next try, which is due by a clock that is another now.
        machine.clock(0);
        made_once(&bed);
        only_signatures_were_refused(&bed, DESCRIBE);
    }
}
