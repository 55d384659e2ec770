//! Faults of the Kubernetes API.

use super::{
    CREATE, DESCRIBE, STATUS, errors, is_not_ready, leads_no_more, made_once, nightly, not_found, once, rough_plane,
    times,
};
use crate::env::proxy::{Call, Fate, Proxy};
use crate::env::{Bed, block_on, eventually, text};
use control_plane::Part;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn status(code: u16, reason: &str) -> String {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": "as ordered"}).to_string()
}

fn refused(code: u16, reason: &str) -> Fate {
    refused_for(code, reason, Duration::ZERO)
}

/// Refused, and asked to come back after so long.
fn refused_for(code: u16, reason: &str, pause: Duration) -> Fate {
    Fate::Answer(code, vec![("retry-after", pause.as_secs().to_string())], status(code, reason))
}

/// A watch's event that the history from its version on is gone.
fn expired() -> Fate {
    let gone = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": "Expired", "code": 410, "message": "too old resource version"}});
    Fate::Answer(200, vec![], format!("{gone}\n"))
}

/// How often the operator has listed all resources, beyond finding out whether they are served.
fn listings(proxy: &Proxy) -> usize {
    let probes = |call: &Call| call.path.split(['?', '&']).any(|part| part == "limit=1");
    proxy.calls().iter().filter(|call| call.label == "LIST datasetimportjobs" && !probes(call)).count()
}

fn is_intent(call: &Call) -> bool {
    call.label == STATUS && call.body.contains("\"submission\"")
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
    is_not_ready(&operator);
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
    is_not_ready(&operator);
    plane.start_part(Part::Etcd).unwrap();
    made_once(&bed);
}

#[test]
fn fault_14_watch_410() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    times(&proxy, 3, expired(), |c| c.label == "WATCH datasetimportjobs");
    let _operator = bed.operator_behind(&proxy, &[]);
    nightly(&bed);
    made_once(&bed);
    eventually("the watch was told 410", || (proxy.count("WATCH datasetimportjobs") > 3).then_some(()));
    assert!(listings(&proxy) >= 4, "each time all is listed again");
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
    bed.service.durations(600_000, 600_000);
    let proxy = bed.proxy();
    // It looks at no job meanwhile: nothing but the listing can tell it what is gone.
    let operator = bed.operator_behind(&proxy, &["--watch-timeout=1s", "--poll-min=1h", "--poll-max=1h"]);
    bed.import("gone", "d0", json!({}));
    let job = bed.until("gone", "Pending").job_name.unwrap();
    eventually("its job was looked at", || bed.status("gone").creation_date_time.map(drop));
    // While nobody watches, it goes, its job ends, and another resource wants its place.
    proxy.rule(|c| if c.label.ends_with(" datasetimportjobs") { Fate::Break } else { Fate::Pass });
    let looks = || proxy.count("WATCH datasetimportjobs");
    let before = looks();
    eventually("the watch has ended", || (looks() > before).then_some(()));
    bed.delete("gone");
    bed.service.finish(&job);
    nightly(&bed);
    let listed = listings(&proxy);
    once(&proxy, expired(), |c| c.label == "WATCH datasetimportjobs");
    eventually("nightly has the place", || (bed.accepted() == 2).then_some(()));
    assert!(listings(&proxy) > listed, "what was missed was listed");
    operator.kill();
    bed.service.durations(1, 1);
    let _operator = bed.operator_behind(&proxy, &[]);
    bed.until("nightly", "ImportSucceeded");
    assert_eq!(bed.accepted(), 2);
    bed.judged_settled();
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

/// The import runs, and a new operator is shown the past: a resource of which nobody has seen anything, of which the
/// service knows no job. A live read shows the past, too, if that is `read`.
fn shown_the_past(read: bool) -> (Bed, Proxy) {
    let bed = Bed::new();
    bed.service.durations(100, 600_000);
    nightly(&bed);
    let resources = format!("/apis/personalize-operator.io/v1alpha1/namespaces/{}/datasetimportjobs", bed.namespace);
    let raw = |path: &str| text(&bed.kubectl(&["get", "--raw", path]));
    let (list, resource) = (raw(&resources), raw(&format!("{resources}/nightly")));
    let operator = bed.operator(&["--identity=one"]);
    bed.until("nightly", "Importing");
    operator.kill();
    let proxy = bed.proxy();
    let mut live = false;
    proxy.rule(move |call| match call.label.as_str() {
        "LIST datasetimportjobs" => Fate::Answer(200, vec![], list.clone()),
        "WATCH datasetimportjobs" => Fate::Freeze,
        "GET datasetimportjobs" if read => Fate::Answer(200, vec![], resource.clone()),
        DESCRIBE if !live => not_found(),
        label => {
            live |= label == "GET datasetimportjobs";
            Fate::Pass
        }
    });
    (bed, proxy)
}

/// The present is shown again, and the import is made once.
fn shown_the_present(bed: &Bed, proxy: &Proxy) {
    bed.service.durations(1, 1);
    proxy.pass();
    let _operator = bed.operator_behind(proxy, &[]);
    made_once(bed);
    assert_eq!(bed.service.calls(CREATE), 1);
}

#[test]
fn fault_19_stale_cache_after_a_restart() {
    let (bed, proxy) = shown_the_past(false);
    let operator = bed.operator_behind(&proxy, &[]);
    eventually("it has looked at the job that the live read told of", || {
        let calls = proxy.calls();
        let read = calls.iter().position(|call| call.label == "GET datasetimportjobs")?;
        calls[read..].iter().any(|call| call.label == DESCRIBE).then_some(())
    });
    assert!(!proxy.calls().iter().any(is_intent), "the past is not believed");
    operator.kill();
    assert_eq!(proxy.count(CREATE), 0);
    shown_the_present(&bed, &proxy);
}

#[test]
fn fault_19_a_stale_read_is_stopped_by_compare_and_swap() {
    let (bed, proxy) = shown_the_past(true);
    let operator = bed.operator_behind(&proxy, &[]);
    eventually("it tries to record an intent, again and again", || {
        (proxy.calls().iter().filter(|call| is_intent(call)).count() > 2).then_some(())
    });
    operator.kill();
    assert_eq!(proxy.count(CREATE), 0, "what can't be recorded is not begun");
    shown_the_present(&bed, &proxy);
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
        for applied in [false, true] {
            let bed = Bed::new();
            let proxy = bed.proxy();
            let text = status(code, "InternalError");
            let fate = if applied { Fate::AnswerAfter(code, vec![], text) } else { Fate::Answer(code, vec![], text) };
            times(&proxy, 6, fate, |c| c.label == STATUS);
            let _operator = bed.operator_behind(&proxy, &[]);
            nightly(&bed);
            made_once(&bed);
            assert_eq!(proxy.count(CREATE), 1, "{code}, applied: {applied}");
        }
    }
}

#[test]
fn fault_22_a_read_that_never_answers() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    times(&proxy, 2, Fate::Silence, |c| c.label == "GET datasetimportjobs");
    let operator = bed.operator_behind(&proxy, &["--kube-timeout=1s"]);
    nightly(&bed);
    made_once(&bed);
    assert!(errors(&operator, "KubernetesTimeout") >= 2);
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

/// Lets etcd's revision grow by so much.
fn write_so_often(bed: &Bed, times: usize) {
    let api: Api<ConfigMap> = Api::namespaced(bed.client.clone(), &bed.namespace);
    block_on(async move {
        let map = ConfigMap {
            metadata: kube::api::ObjectMeta { name: Some("busy".into()), ..Default::default() },
            ..Default::default()
        };
        api.create(&PostParams::default(), &map).await.unwrap();
        for i in 0..times {
            let data = json!({"data": {"i": i.to_string()}});
            api.patch("busy", &PatchParams::default(), &Patch::Merge(data)).await.unwrap();
        }
    });
}

#[test]
fn fault_23_etcd_restored_under_an_operator_that_lives_on() {
    let (_mine, plane, bed) = rough_plane();
    nightly(&bed);
    let snapshot = bed.dir().join("snapshot");
    plane.snapshot(&snapshot).unwrap();
    let operator = bed.operator(&["--lease-duration=60s"]);
    bed.until("nightly", "ImportSucceeded");
    // What the operator knows is then of versions that the cluster reaches again only after a while.
    write_so_often(&bed, 2000);
    plane.restore(&snapshot).unwrap();
    bed.import("after", "d1", json!({}));
    bed.until("after", "ImportSucceeded");
    bed.until("nightly", "ImportSucceeded");
    assert_eq!(bed.accepted(), 2);
    assert_eq!(operator.get("/healthz").map(|(status, _)| status), Some(200));
    bed.judged_settled();
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
        rule("events.k8s.io", "events", &["create"]),
        rule("", "namespaces", &["get"]),
    ]);
    let kubeconfig = user_with(&bed, &rules);
    let operator = bed.operator_with(&[("KUBECONFIG", &kubeconfig)], &[]);
    nightly(&bed);
    eventually("the log tells", || operator.log().contains("forbidden").then_some(()));
    eventually("it is tried again and again", || (errors(&operator, "KubernetesForbidden") > 2).then_some(()));
    assert_eq!(bed.service.calls(CREATE), 0, "what can't be recorded is not begun");
    assert_eq!(bed.status("nightly").observed_generation, Some(-1), "nobody has seen it");
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
    let refusals = || operator.log().lines().filter(|line| line.contains("leases.coordination.k8s.io")).count();
    eventually("the log tells, again and again", || (refusals() > 3).then_some(()));
    let (_, metrics) = operator.get("/metrics").unwrap();
    assert!(metrics.contains("leader_election_master_status{name=\"personalize-operator\"} 0"));
    assert_eq!(bed.service.ledger().len(), 0);
    assert_eq!(bed.status("nightly").observed_generation, Some(-1));
    bed.judged();
}
