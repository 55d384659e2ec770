//! Leadership and time.

use super::{CREATE, leads_no_more, made_once, nightly, once};
use crate::env::proxy::{Call, Fate};
use crate::env::{Bed, eventually, text};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::watch;

const LEASE: &str = "personalize-operator";
/// With these nothing but a lost lease ends a pass, and nothing but a lost lease keeps it from create.
const PATIENT: [&str; 3] = ["--aws-timeout=60s", "--aws-read-timeout=60s", "--grace=20s"];

fn holder(bed: &Bed) -> String {
    text(&bed.kubectl(&["get", "lease", LEASE, "-o", "jsonpath={.spec.holderIdentity}"]))
}

#[test]
fn fault_30_two_leaders_at_once() {
    let bed = Bed::new();
    // Without election both work on everything: the protocol alone has to hold.
    let _both = [bed.operator(&["--leader-elect=false"]), bed.operator(&["--leader-elect=false"])];
    for i in 0..8 {
        bed.import(&format!("r{i}"), &format!("d{}", i % 4), json!({}));
    }
    for i in 0..8 {
        bed.until(&format!("r{i}"), "ImportSucceeded");
    }
    assert_eq!(bed.accepted(), 8);
    bed.judged_settled();
}

/// Writes the lease as somebody else would.
fn write_lease(bed: &Bed, spec: &Value) {
    let patch = json!({"spec": spec}).to_string();
    let patched = bed.kubectl(&["patch", "lease", LEASE, "--type=merge", "-p", &patch]);
    assert!(patched.status.success(), "{}", text(&patched));
}

/// Another replica has the lease, and keeps it for longer than any test takes.
fn steal(bed: &Bed) {
    // Of a clock that runs behind; what counts is the promise to renew it within an hour.
    let thief =
        json!({"holderIdentity": "thief", "leaseDurationSeconds": 3600, "renewTime": "1999-01-01T00:00:00.000000Z"});
    write_lease(bed, &thief);
}

#[test]
fn fault_31_lease_lost_mid_create() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    // The service takes the job and its answer is slow. Meanwhile another replica takes the lease.
    proxy.rule(|call| if call.label == CREATE { Fate::Forget } else { Fate::Pass });
    let first = bed.operator_behind(&proxy, &PATIENT);
    nightly(&bed);
    eventually("the service has taken the job", || (bed.accepted() == 1).then_some(()));
    steal(&bed);
    leads_no_more(&first);
    let second = bed.operator(&["--identity=second"]);
    assert_eq!(bed.status("nightly").dataset_import_job_arn, None, "nobody who leads has told of the job yet");
    first.kill();
    write_lease(&bed, &json!({"holderIdentity": ""}));
    made_once(&bed);
    assert_eq!(holder(&bed), "second");
    assert_eq!(bed.service.calls(CREATE), 1, "what was accepted is found, not sent again");
    assert!(second.stop());
}

#[test]
fn fault_31_a_lease_that_is_lost_between_intent_and_create_stops_the_create() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    // The look between intent and create takes longer than the lease, which can't be renewed meanwhile.
    let intended = |call: &Call| call.label == super::STATUS && call.body.contains("\"submission\"");
    let mut seen = false;
    proxy.rule(move |call| {
        seen |= intended(call);
        match call.label.as_str() {
            super::DESCRIBE if seen => Fate::Delay(Duration::from_secs(5)),
            "PUT leases" | "GET leases" if seen => Fate::Break,
            _ => Fate::Pass,
        }
    });
    let first = bed.operator_behind(&proxy, &PATIENT);
    nightly(&bed);
    eventually("the intent is recorded", || bed.status("nightly").submission.map(drop));
    leads_no_more(&first);
    assert_eq!(proxy.count(CREATE), 0, "who does not lead submits nothing");
    proxy.pass();
    made_once(&bed);
}

#[test]
fn fault_32_sigstop_past_the_lease_then_sigcont() {
    let bed = Bed::new();
    bed.service.durations(100, 600_000);
    let first = bed.operator(&["--identity=first"]);
    nightly(&bed);
    bed.until("nightly", "Importing");
    first.signal("-STOP");
    let second = bed.operator(&["--identity=second"]);
    eventually("the second leads", || (holder(&bed) == "second").then_some(()));
    bed.import("meanwhile", "d1", json!({}));
    bed.until("meanwhile", "Importing");
    first.signal("-CONT");
    leads_no_more(&first);
    bed.import("after", "d2", json!({}));
    bed.until("after", "Importing");
    bed.service.durations(1, 1);
    for name in ["nightly", "meanwhile", "after"] {
        bed.until(name, "ImportSucceeded");
    }
    assert_eq!(bed.accepted(), 3);
    assert!(!first.log().contains("\"after\""), "only the leader works");
    bed.judged_settled();
    assert!(second.stop());
}

#[test]
fn fault_32_sigstop_between_intent_and_create_makes_no_second_import() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    // The operator is halted while its look between intent and create is under way. The answer is there when it goes
    // on, and would lead to a create: nothing has timed out, and the intent is not old.
    let (answer, way) = watch::channel(false);
    let mut intended = false;
    proxy.rule(move |call| {
        intended |= call.label == super::STATUS;
        if intended && call.label == super::DESCRIBE { Fate::Hold(way.clone()) } else { Fate::Pass }
    });
    let extra = ["--identity=first", "--aws-timeout=600s", "--aws-read-timeout=600s", "--grace=600s"];
    let first = bed.operator_behind(&proxy, &extra);
    nightly(&bed);
    eventually("the intent is recorded", || bed.status("nightly").submission.map(drop));
    eventually("it looks again", || (proxy.count(super::DESCRIBE) > 1).then_some(()));
    first.signal("-STOP");
    let _second = bed.operator(&["--identity=second", "--grace=15s"]);
    eventually("the second leads", || (holder(&bed) == "second").then_some(()));
    answer.send(true).unwrap();
    first.signal("-CONT");
    leads_no_more(&first);
    made_once(&bed);
    assert_eq!(proxy.count(CREATE), 0, "who wakes up late sends nothing");
}

#[test]
fn a_lease_that_somebody_else_writes_is_respected_until_it_is_given_back() {
    let bed = Bed::new();
    let operator = bed.operator(&["--identity=one"]);
    eventually("it leads", || (holder(&bed) == "one").then_some(()));
    steal(&bed);
    leads_no_more(&operator);
    nightly(&bed);
    eventually("it stands by", || operator.log().contains("standing by").then_some(()));
    assert_eq!(bed.service.ledger().len(), 0, "who does not lead asks nothing");
    assert_eq!(holder(&bed), "thief");
    write_lease(&bed, &json!({"holderIdentity": ""}));
    made_once(&bed);
    assert_eq!(holder(&bed), "one");
}

#[test]
fn an_api_server_that_is_away_for_longer_than_the_lease() {
    let bed = Bed::new();
    bed.service.durations(100, 600_000);
    let proxy = bed.proxy();
    let operator = bed.operator_behind(&proxy, &[]);
    nightly(&bed);
    bed.until("nightly", "Importing");
    proxy.rule(|call| if call.label.contains(' ') { Fate::Break } else { Fate::Pass });
    leads_no_more(&operator);
    bed.import("meanwhile", "d1", json!({}));
    proxy.pass();
    bed.until("meanwhile", "Importing");
    bed.service.durations(1, 1);
    bed.until("nightly", "ImportSucceeded");
    bed.until("meanwhile", "ImportSucceeded");
    assert_eq!(bed.accepted(), 2);
    bed.judged_settled();
}

#[test]
fn an_api_server_that_is_away_for_longer_than_the_lease_in_mid_create() {
    for answered in [false, true] {
        let bed = Bed::new();
        let proxy = bed.proxy();
        // From the create on nothing comes through to the API server, neither a renewal nor what became of it.
        let mut sent = false;
        proxy.rule(move |call| {
            sent |= call.label == CREATE;
            match (call.label.as_str(), sent) {
                (CREATE, _) if !answered => Fate::Forget,
                (label, true) if label.contains(' ') => Fate::Break,
                _ => Fate::Pass,
            }
        });
        let operator = bed.operator_behind(&proxy, &PATIENT);
        nightly(&bed);
        eventually("the service has taken the job", || (bed.accepted() == 1).then_some(()));
        leads_no_more(&operator);
        assert_eq!(bed.status("nightly").dataset_import_job_arn, None);
        proxy.pass();
        made_once(&bed);
        assert_eq!(proxy.count(CREATE), 1, "what was accepted is found, not sent again");
    }
}

#[test]
fn a_lease_write_whose_answer_is_lost_costs_no_import() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    once(&proxy, Fate::Lose, |call| call.label == "PUT leases");
    let _operator = bed.operator_behind(&proxy, &[]);
    nightly(&bed);
    eventually("the lease was written", || (proxy.count("PUT leases") > 1).then_some(()));
    made_once(&bed);
}
