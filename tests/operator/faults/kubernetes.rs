//! Faults of the Kubernetes API.

use super::{CREATE, STATUS, leads_no_more, made_once, nightly, once, rough_plane, times};
use crate::bed::{Bed, eventually, text};
use crate::proxy::Fate;
use control_plane::Part;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn refused(code: u16, reason: &str) -> Fate {
    refused_for(code, reason, Duration::ZERO)
}

/// Refused, and asked to come back after so long.
fn refused_for(code: u16, reason: &str, pause: Duration) -> Fate {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": "as ordered"});
    Fate::Answer(code, vec![("retry-after", pause.as_secs().to_string())], status.to_string())
}

#[test]
fn fault_12_kube_apiserver_restart() {
    let (_mine, plane, bed) = rough_plane();
    bed.service.durations(100, 600_000);
    let operator = bed.operator(&[]);
    nightly(&bed);
    bed.until("nightly", "Importing");
    plane.stop_part(Part::ApiServer).unwrap();
    // It stays away for longer than the lease.
    leads_no_more(&operator);
    plane.start_part(Part::ApiServer).unwrap();
    bed.import("after", "d1", json!({}));
    bed.until("after", "Importing");
    bed.service.durations(1, 1);
    bed.until("after", "ImportSucceeded");
    bed.until("nightly", "ImportSucceeded");
    assert_eq!(bed.accepted(), 2);
    bed.judged_settled();
}

#[test]
fn fault_13_etcd_restart() {
    let (_mine, plane, bed) = rough_plane();
    bed.service.durations(100, 600_000);
    let operator = bed.operator(&[]);
    nightly(&bed);
    bed.until("nightly", "Importing");
    plane.stop_part(Part::Etcd).unwrap();
    // The API server lives and can neither read nor write, the lease included.
    bed.service.durations(1, 1);
    leads_no_more(&operator);
    plane.start_part(Part::Etcd).unwrap();
    made_once(&bed);
}

#[test]
fn fault_14_watch_410() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    let gone = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": "Expired", "code": 410, "message": "too old resource version"}});
    let gone = format!("{gone}\n");
    times(&proxy, 3, Fate::Answer(200, vec![], gone), |c| c.label == "WATCH datasetimportjobs");
    let _operator = bed.operator_behind(&proxy, &[]);
    nightly(&bed);
    made_once(&bed);
    eventually("the watch was told 410", || (proxy.count("WATCH datasetimportjobs") > 3).then_some(()));
}

#[test]
fn fault_15_half_open_watch() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    once(&proxy, Fate::Freeze, |c| c.label == "WATCH datasetimportjobs");
    let _operator = bed.operator_behind(&proxy, &["--watch-timeout=2s", "--kube-timeout=2s"]);
    eventually("the watch is open", || (proxy.count("WATCH datasetimportjobs") == 1).then_some(()));
    nightly(&bed);
    made_once(&bed);
}

#[test]
fn fault_16_missed_events_are_listed_again() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    let operator = bed.operator_behind(&proxy, &["--watch-timeout=1s"]);
    eventually("the operator is ready", || operator.ready().then_some(()));
    proxy.rule(|c| if c.label.ends_with(" datasetimportjobs") { Fate::Break } else { Fate::Pass });
    let looks = || proxy.count("WATCH datasetimportjobs") + proxy.count("LIST datasetimportjobs");
    let before = looks();
    eventually("the watch has ended", || (looks() > before).then_some(()));
    // While nobody watches, one comes and goes, and another comes.
    bed.import("gone", "d1", json!({"suspend": true}));
    bed.delete("gone");
    nightly(&bed);
    proxy.pass();
    made_once(&bed);
}

#[test]
fn fault_17_409_from_somebody_else() {
    let bed = Arc::new(Bed::new());
    let proxy = bed.proxy();
    let (meanwhile, edits) = (Arc::clone(&bed), Mutex::new(0));
    // Before each of the first three status writes arrives, somebody else edits the resource.
    proxy.rule(move |call| {
        let mut edits = edits.lock().unwrap();
        if call.label == STATUS && *edits < 3 {
            *edits += 1;
            meanwhile.annotate("nightly", &format!("example.org/edit={edits}"));
        }
        Fate::Pass
    });
    let _operator = bed.operator_behind(&proxy, &[]);
    nightly(&bed);
    made_once(&bed);
    assert_eq!(proxy.count(CREATE), 1);
}

#[test]
fn fault_18_409_from_ones_own_retried_write() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    // Each of the first four status writes takes effect and its answer is lost: the next try meets it.
    times(&proxy, 4, Fate::Lose, |c| c.label == STATUS);
    let _operator = bed.operator_behind(&proxy, &[]);
    nightly(&bed);
    made_once(&bed);
    assert_eq!(proxy.count(CREATE), 1);
}

#[test]
fn fault_19_stale_cache_after_a_restart() {
    let bed = Bed::new();
    bed.service.durations(100, 600_000);
    nightly(&bed);
    let unseen = bed.kubectl(&[
        "get",
        "--raw",
        &format!("/apis/personalize-operator.io/v1alpha1/namespaces/{}/datasetimportjobs", bed.namespace),
    ]);
    let operator = bed.operator(&["--identity=one"]);
    bed.until("nightly", "Importing");
    operator.kill();
    // The next one is shown the past: a resource of which nobody has seen anything.
    let proxy = bed.proxy();
    let past = text(&unseen);
    proxy.rule(move |call| match call.label.as_str() {
        "LIST datasetimportjobs" => Fate::Answer(200, vec![], past.clone()),
        "WATCH datasetimportjobs" => Fate::Freeze,
        _ => Fate::Pass,
    });
    let operator = bed.operator_behind(&proxy, &[]);
    eventually("it has looked at the service", || (proxy.count("DescribeDatasetImportJob") > 0).then_some(()));
    eventually("it has read the resource live", || (proxy.count("GET datasetimportjobs") > 0).then_some(()));
    assert_eq!(proxy.count(CREATE), 0, "the past is not believed");
    operator.kill();
    bed.service.durations(1, 1);
    proxy.pass();
    let _operator = bed.operator_behind(&proxy, &[]);
    made_once(&bed);
}

#[test]
fn fault_20_429_with_retry_after() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    // Longer than any delay of its own: what it waits for is what it was told.
    let pause = Duration::from_secs(4);
    let labels = ["GET datasetimportjobs", STATUS, "WATCH datasetimportjobs"];
    let refusals = Arc::new(Mutex::new(HashMap::from(labels.map(|label| (label, Vec::new())))));
    let (told, again) = (Arc::clone(&refusals), Arc::new(Mutex::new(None)));
    let sooner = Arc::clone(&again);
    proxy.rule(move |call| {
        let (mut told, now) = (told.lock().unwrap(), Instant::now());
        let passes = ["GET datasetimportjobs", STATUS].contains(&call.label.as_str());
        let last = ["GET datasetimportjobs", STATUS].iter().filter_map(|label| told[label].last().copied()).max();
        if passes && last.is_some_and(|last: Instant| now - last < pause) {
            *sooner.lock().unwrap() = Some(call.label.clone());
        }
        match told.get_mut(call.label.as_str()) {
            Some(refusals) if refusals.len() < 2 => {
                refusals.push(now);
                refused_for(429, "TooManyRequests", pause)
            }
            _ => Fate::Pass,
        }
    });
    let _operator = bed.operator_behind(&proxy, &[]);
    nightly(&bed);
    made_once(&bed);
    assert!(refusals.lock().unwrap().values().all(|refusals| refusals.len() == 2), "each was refused twice");
    assert_eq!(*again.lock().unwrap(), None, "no pass goes on before the API server wants it to");
}

#[test]
fn what_the_api_server_refuses_is_tried_ever_more_rarely_and_costs_the_service_little() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    proxy.rule(|call| if call.label == STATUS { refused(403, "Forbidden") } else { Fate::Pass });
    let _operator = bed.operator_behind(&proxy, &["--backoff-min=500ms", "--backoff-max=1h"]);
    nightly(&bed);
    let began = Instant::now();
    eventually("it was refused four times", || (proxy.count(STATUS) == 4).then_some(()));
    // 0.5 s, 1 s and 2 s, each at least by half.
    assert!(began.elapsed() >= Duration::from_millis(1750), "{:?}", began.elapsed());
    assert!(proxy.count("DescribeDataset") <= 5, "{}", proxy.count("DescribeDataset"));
    assert_eq!(proxy.count(CREATE), 0);
    bed.judged();
}

#[test]
fn fault_21_500_and_504_on_status_writes() {
    for code in [500, 504] {
        let bed = Bed::new();
        let proxy = bed.proxy();
        times(&proxy, 6, refused(code, "InternalError"), |c| c.label == STATUS);
        let _operator = bed.operator_behind(&proxy, &[]);
        nightly(&bed);
        made_once(&bed);
        assert_eq!(proxy.count(CREATE), 1);
    }
}

#[test]
fn fault_22_a_read_that_never_answers() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    times(&proxy, 2, Fate::Silence, |c| c.label == "GET datasetimportjobs");
    let _operator = bed.operator_behind(&proxy, &["--kube-timeout=1s"]);
    nightly(&bed);
    made_once(&bed);
}

#[test]
fn fault_23_etcd_restored_to_before_the_intent() {
    let (_mine, plane, bed) = rough_plane();
    nightly(&bed);
    let snapshot = bed.dir().join("snapshot");
    plane.snapshot(&snapshot).unwrap();
    let operator = bed.operator(&["--identity=one"]);
    bed.until("nightly", "ImportSucceeded");
    operator.kill();
    plane.restore(&snapshot).unwrap();
    assert_eq!(bed.status("nightly").observed_generation, Some(-1), "the cluster knows nothing of it any more");
    let _operator = bed.operator(&["--identity=one"]);
    made_once(&bed);
}

/// A kubeconfig of a user with these rules in the bed's namespace, and to read namespaces.
fn user_with(bed: &Bed, rules: &Value) -> String {
    let user = format!("limited-{}", bed.namespace);
    let subjects = json!([{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}]);
    let reference = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": user});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": user}, "rules": rules},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": user}, "subjects": subjects, "roleRef": reference("Role")},
    ]});
    bed.apply(&list);
    let path = bed.dir().join("limited.kubeconfig");
    bed.plane.kubeconfig_for(&user, &[], &path).unwrap();
    path.display().to_string()
}

fn rule(group: &str, resource: &str, verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": [resource], "verbs": verbs})
}

#[test]
fn fault_24_status_rbac_denied_no_create() {
    let bed = Bed::new();
    let group = "personalize-operator.io";
    let rules = json!([
        rule(group, "datasetimportjobs", &["get", "list", "watch"]),
        rule("coordination.k8s.io", "leases", &["get", "create", "update"]),
        rule("events.k8s.io", "events", &["create", "patch"]),
        rule("", "namespaces", &["get"]),
    ]);
    let kubeconfig = user_with(&bed, &rules);
    let operator = bed.operator_with(&[("KUBECONFIG", &kubeconfig)], &[]);
    nightly(&bed);
    eventually("the log tells", || operator.log().contains("forbidden").then_some(()));
    let (_, metrics) = operator.get("/metrics").unwrap();
    let none = "personalize_operator_errors_total{error=\"KubernetesForbidden\"} 0";
    assert!(!metrics.contains(none), "the metric tells");
    assert_eq!(bed.service.calls(CREATE), 0, "what can't be recorded is not begun");
    let mut more = rules;
    more.as_array_mut().unwrap().push(rule(group, "datasetimportjobs/status", &["update"]));
    user_with(&bed, &more);
    made_once(&bed);
}

#[test]
fn fault_25_lease_rbac_denied_never_leads() {
    let bed = Bed::new();
    let rules = json!([rule("personalize-operator.io", "*", &["*"]), rule("", "namespaces", &["get"])]);
    let kubeconfig = user_with(&bed, &rules);
    let operator = bed.operator_with(&[("KUBECONFIG", &kubeconfig)], &[]);
    nightly(&bed);
    eventually("the log tells", || operator.log().contains("leases.coordination.k8s.io").then_some(()));
    let (_, metrics) = operator.get("/metrics").unwrap();
    assert!(metrics.contains("leader_election_master_status{name=\"personalize-operator\"} 0"));
    assert_eq!(bed.service.ledger().len(), 0);
    assert_eq!(bed.status("nightly").observed_generation, Some(-1));
    bed.judged();
}
