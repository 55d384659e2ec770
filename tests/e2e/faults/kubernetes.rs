//! Faults of the Kubernetes API.

use super::{
    CREATE, DESCRIBE, STATUS, assert_imported_beside, assert_imported_once, dedicated_control_plane, error_count,
    import_nightly, job_not_found, records_intent, wait_until_not_leader, wait_until_unready,
};
use crate::env::proxy::{Call, Fault, Proxy};
use crate::env::{SHORT_LEASE, TestEnv, block_on, eventually, text};
use control_plane::Component;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn status(code: u16, reason: &str) -> String {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": "injected"}).to_string()
}

fn reject(code: u16, reason: &str) -> Fault {
    Fault::Respond(code, vec![], status(code, reason))
}

/// Rejects a call as an overloaded API server does, and asks for no call for a while.
fn overloaded(retry_after: Duration) -> Fault {
    let headers = [("retry-after", retry_after.as_secs().to_string()), ("content-type", "text/plain".into())];
    Fault::Respond(429, headers.into(), "Too many requests, please try again later.\n".into())
}

/// The watch event for a resource version that is no longer available.
fn version_expired() -> Fault {
    let gone = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": "Expired", "code": 410, "message": "too old resource version"}});
    Fault::Respond(200, vec![], format!("{gone}\n"))
}

/// How often the operator has listed all resources, without the checks whether the CRD exists.
fn list_count(proxy: &Proxy) -> usize {
    let is_crd_check = |call: &Call| call.path.split(['?', '&']).any(|part| part == "limit=1");
    proxy.calls().iter().filter(|call| call.label == "LIST datasetimportjobs" && !is_crd_check(call)).count()
}

#[test]
fn fault_12_api_server_restart_keeps_imports_going() {
    let (_guard, control_plane, env) = dedicated_control_plane();
    env.service.set_durations(100, 600_000);
    let operator = env.start_operator(&[SHORT_LEASE]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    control_plane.stop_component(Component::ApiServer).unwrap();
    // It is down for longer than the lease.
    wait_until_not_leader(&operator);
    wait_until_unready(&operator);
    control_plane.start_component(Component::ApiServer).unwrap();
    env.import("after", "d1", json!({}));
    assert_imported_beside(&env, "after");
}

#[test]
fn fault_13_etcd_restart_keeps_the_import_going() {
    let (_guard, control_plane, env) = dedicated_control_plane();
    env.service.set_durations(100, 600_000);
    let operator = env.start_operator(&[SHORT_LEASE]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    control_plane.stop_component(Component::Etcd).unwrap();
    // The API server runs, but can neither read nor write, not even the lease.
    env.service.set_durations(1, 1);
    wait_until_not_leader(&operator);
    wait_until_unready(&operator);
    control_plane.start_component(Component::Etcd).unwrap();
    assert_imported_once(&env);
}

#[test]
fn fault_14_watch_410_lists_again() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    proxy.inject_times(3, version_expired(), |c| c.label == "WATCH datasetimportjobs");
    let _operator = env.spawn_operator_behind(&proxy, &[]);
    import_nightly(&env);
    assert_imported_once(&env);
    eventually("the watch is open after 410s", || (proxy.count("WATCH datasetimportjobs") > 3).then_some(()));
    assert!(list_count(&proxy) >= 4, "each 410 leads to a new list");
}

#[test]
fn fault_14_watch_that_can_not_be_resumed_lists_again() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    let _operator = env.spawn_operator_behind(&proxy, &["--watch-timeout=1s"]);
    let watches = || proxy.count("WATCH datasetimportjobs");
    eventually("the watch was resumed", || (watches() > 1).then_some(()));
    assert_eq!(list_count(&proxy), 1, "a watch that ends is resumed");
    proxy.inject_once(Fault::DropRequest, |c| c.label == "WATCH datasetimportjobs");
    eventually("a new list", || (list_count(&proxy) == 2).then_some(()));
    let before = watches();
    eventually("the watch was resumed", || (watches() > before + 1).then_some(()));
    assert_eq!(list_count(&proxy), 2, "one list is enough");
    import_nightly(&env);
    assert_imported_once(&env);
}

#[test]
fn fault_15_half_open_watch_is_replaced() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    proxy.inject_once(Fault::HangBody, |c| c.label == "WATCH datasetimportjobs");
    let _operator = env.spawn_operator_behind(&proxy, &["--watch-timeout=10s", "--kube-timeout=2s"]);
    eventually("the watch is open", || (proxy.count("WATCH datasetimportjobs") > 0).then_some(()));
    import_nightly(&env);
    assert_imported_once(&env);
}

#[test]
fn fault_16_missed_events_are_found_by_the_next_list() {
    let env = TestEnv::new();
    env.service.set_durations(600_000, 600_000);
    let proxy = env.start_proxy();
    // The operator polls no job, so only a list can reveal what was deleted.
    let operator = env.spawn_operator_behind(&proxy, &["--watch-timeout=1s", "--poll-min=1h", "--poll-max=1h"]);
    env.import("gone", "d0", json!({}));
    let job = env.wait_for_reason("gone", "Pending").job_name.unwrap();
    // While no watch is open, the resource is deleted, its job ends, and another resource needs the dataset.
    proxy.inject(|c| if c.label.ends_with(" datasetimportjobs") { Fault::DropRequest } else { Fault::None });
    let watches = || proxy.count("WATCH datasetimportjobs");
    let before = watches();
    eventually("the watch has ended", || (watches() > before).then_some(()));
    env.delete("gone");
    env.service.finish_job(&job);
    import_nightly(&env);
    let lists = list_count(&proxy);
    proxy.inject_once(version_expired(), |c| c.label == "WATCH datasetimportjobs");
    eventually("nightly is submitted", || (env.accepted_count() == 2).then_some(()));
    assert!(list_count(&proxy) > lists, "the list revealed the deletion");
    operator.kill();
    env.service.set_durations(1, 1);
    let _operator = env.spawn_operator_behind(&proxy, &[]);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 2);
    env.check_invariants_settled();
}

#[test]
fn fault_17_conflict_with_another_client_is_retried() {
    let env = Arc::new(TestEnv::new());
    let proxy = env.start_proxy();
    let (editor, edits) = (Arc::clone(&env), Mutex::new(0));
    // Another client edits the resource before each of the first three status writes arrives.
    proxy.inject(move |call| {
        let mut edits = edits.lock().unwrap();
        if call.label == STATUS && *edits < 3 {
            *edits += 1;
            editor.annotate("nightly", &format!("example.org/edit={edits}"));
        }
        Fault::None
    });
    let _operator = env.spawn_operator_behind(&proxy, &[]);
    import_nightly(&env);
    assert_imported_once(&env);
    assert_eq!(env.service.call_count(CREATE), 1);
}

#[test]
fn fault_18_conflict_with_its_own_applied_write_is_retried() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    // The first four status writes take effect, but their responses are lost. The next write conflicts with them.
    proxy.inject_times(4, Fault::DropResponse, |c| c.label == STATUS);
    let _operator = env.spawn_operator_behind(&proxy, &[]);
    import_nightly(&env);
    assert_imported_once(&env);
    assert_eq!(env.service.call_count(CREATE), 1);
}

/// The import runs, and the responses for a new operator are from the past: the resource has no status, and its job
/// does not exist. With `stale_read`, live reads are from the past, too.
fn stale_responses(stale_read: bool) -> (TestEnv, Proxy) {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    import_nightly(&env);
    let resources = format!("/apis/personalize-operator.io/v1alpha1/namespaces/{}/datasetimportjobs", env.namespace);
    let raw = |path: &str| text(&env.kubectl(&["get", "--raw", path]));
    let (list, resource) = (raw(&resources), raw(&format!("{resources}/nightly")));
    let operator = env.start_operator(&[]);
    env.wait_for_reason("nightly", "Importing");
    operator.kill();
    let proxy = env.start_proxy();
    let mut read_live = false;
    proxy.inject(move |call| match call.label.as_str() {
        "LIST datasetimportjobs" => Fault::Respond(200, vec![], list.clone()),
        "WATCH datasetimportjobs" => Fault::HangBody,
        "GET datasetimportjobs" if stale_read => Fault::Respond(200, vec![], resource.clone()),
        DESCRIBE if !read_live => job_not_found(),
        label => {
            read_live |= label == "GET datasetimportjobs";
            Fault::None
        }
    });
    (env, proxy)
}

/// The responses are current again, and the import is made once.
fn assert_imported_with_current_responses(env: &TestEnv, proxy: &Proxy) {
    env.service.set_durations(1, 1);
    proxy.clear();
    let _operator = env.spawn_operator_behind(proxy, &[]);
    assert_imported_once(env);
    assert_eq!(env.service.call_count(CREATE), 1);
}

#[test]
fn fault_19_stale_cache_after_a_restart_creates_nothing() {
    let (env, proxy) = stale_responses(false);
    let operator = env.spawn_operator_behind(&proxy, &[]);
    eventually("the operator polls the job after a live read", || {
        let calls = proxy.calls();
        let read = calls.iter().position(|call| call.label == "GET datasetimportjobs")?;
        calls[read..].iter().any(|call| call.label == DESCRIBE).then_some(())
    });
    assert!(!proxy.calls().iter().any(records_intent), "no intent is based on a stale cache");
    operator.kill();
    assert_eq!(proxy.count(CREATE), 0);
    assert_imported_with_current_responses(&env, &proxy);
}

#[test]
fn fault_19_stale_read_is_stopped_by_compare_and_swap() {
    let (env, proxy) = stale_responses(true);
    let operator = env.spawn_operator_behind(&proxy, &[]);
    eventually("the operator tries to record an intent several times", || {
        (proxy.calls().iter().filter(|call| records_intent(call)).count() > 2).then_some(())
    });
    operator.kill();
    assert_eq!(proxy.count(CREATE), 0, "without a recorded intent there is no create");
    assert_imported_with_current_responses(&env, &proxy);
}

#[test]
fn fault_20_retry_after_of_a_429_is_respected() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    // Longer than any delay of the operator, so it waits because of Retry-After.
    let retry_after = Duration::from_secs(2);
    let labels = ["GET datasetimportjobs", STATUS, "WATCH datasetimportjobs"];
    let rejected_at = Arc::new(Mutex::new(HashMap::from(labels.map(|label| (label, Vec::new())))));
    let early_call = Arc::new(Mutex::new(None));
    let (rejections, early) = (Arc::clone(&rejected_at), Arc::clone(&early_call));
    proxy.inject(move |call| {
        let (mut rejections, now) = (rejections.lock().unwrap(), Instant::now());
        let of_reconcile = ["GET datasetimportjobs", STATUS];
        let last = of_reconcile.iter().filter_map(|label| rejections[label].last().copied()).max();
        let too_early = last.is_some_and(|last: Instant| now - last < retry_after);
        if too_early && of_reconcile.contains(&call.label.as_str()) {
            *early.lock().unwrap() = Some(call.label.clone());
        }
        match rejections.get_mut(call.label.as_str()) {
            Some(times) if times.len() < 2 => {
                times.push(now);
                overloaded(retry_after)
            }
            _ => Fault::None,
        }
    });
    let _operator = env.spawn_operator_behind(&proxy, &[]);
    import_nightly(&env);
    assert_imported_once(&env);
    assert!(rejected_at.lock().unwrap().values().all(|times| times.len() == 2), "each was rejected twice");
    assert_eq!(*early_call.lock().unwrap(), None, "no reconcile continues before Retry-After");
}

#[test]
fn rejected_status_writes_back_off_and_cause_few_service_calls() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    let rejected_at = Arc::new(Mutex::new(Vec::new()));
    let rejections = Arc::clone(&rejected_at);
    proxy.inject(move |call| {
        if call.label != STATUS {
            return Fault::None;
        }
        rejections.lock().unwrap().push(Instant::now());
        reject(403, "Forbidden")
    });
    let _operator = env.spawn_operator_behind(&proxy, &["--backoff-min=500ms", "--backoff-max=1h"]);
    import_nightly(&env);
    eventually("the write was rejected four times", || (proxy.count(STATUS) >= 4).then_some(()));
    // The delays are 0.5 s, 1 s and 2 s, with jitter of at most half.
    let times = rejected_at.lock().unwrap().clone();
    let took = times[3] - times[0];
    assert!(took >= Duration::from_millis(1750), "{took:?}");
    let calls = proxy.calls();
    let writes: Vec<usize> = (0..calls.len()).filter(|i| calls[*i].label == STATUS).collect();
    let lookups = calls[..writes[3]].iter().filter(|call| call.label == "DescribeDataset").count();
    assert!(lookups <= 4, "{lookups}");
    assert_eq!(proxy.count(CREATE), 0);
    env.check_invariants();
}

#[test]
fn fault_21_status_writes_with_500_or_504_are_retried() {
    for code in [500, 504] {
        for applied in [false, true] {
            let env = TestEnv::new();
            let proxy = env.start_proxy();
            let text = status(code, "InternalError");
            let fault = if applied {
                Fault::ForwardThenRespond(code, vec![], text)
            } else {
                Fault::Respond(code, vec![], text)
            };
            proxy.inject_times(6, fault, |c| c.label == STATUS);
            let _operator = env.spawn_operator_behind(&proxy, &["--backoff-min=50ms", "--backoff-max=200ms"]);
            import_nightly(&env);
            assert_imported_once(&env);
            assert_eq!(env.service.call_count(CREATE), 1, "{code}, applied: {applied}");
        }
    }
}

#[test]
fn fault_22_read_without_a_response_times_out_and_is_retried() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    proxy.inject_times(2, Fault::HangRequest, |c| c.label == "GET datasetimportjobs");
    let operator = env.spawn_operator_behind(&proxy, &["--kube-timeout=1s"]);
    import_nightly(&env);
    assert_imported_once(&env);
    assert!(error_count(&operator, "KubernetesTimeout") >= 2);
}

#[test]
fn fault_23_etcd_restored_to_before_the_intent_adopts_the_job() {
    let (_guard, control_plane, env) = dedicated_control_plane();
    import_nightly(&env);
    let snapshot = env.dir().join("snapshot");
    control_plane.snapshot(&snapshot).unwrap();
    let operator = env.start_operator(&[]);
    env.wait_for_reason("nightly", "ImportSucceeded");
    operator.kill();
    control_plane.restore(&snapshot).unwrap();
    eventually("the status is lost", || (env.get("nightly")?.status?.observed_generation? == -1).then_some(()));
    let _operator = env.start_operator(&[]);
    assert_imported_once(&env);
}

/// Increases etcd's revision by this many writes.
fn write_config_maps(env: &TestEnv, count: usize) {
    let api: Api<ConfigMap> = Api::namespaced(env.client.clone(), &env.namespace);
    let create = move |i: usize| {
        let api = api.clone();
        let metadata = ObjectMeta { name: Some(format!("busy-{i}")), ..ObjectMeta::default() };
        async move { api.create(&PostParams::default(), &ConfigMap { metadata, ..ConfigMap::default() }).await.map(drop) }
    };
    block_on(stream::iter(0..count).map(create).buffer_unordered(24).try_collect::<()>()).unwrap();
}

#[test]
fn fault_23_etcd_restored_under_a_running_operator_makes_no_second_import() {
    let (_guard, control_plane, env) = dedicated_control_plane();
    import_nightly(&env);
    let snapshot = env.dir().join("snapshot");
    control_plane.snapshot(&snapshot).unwrap();
    let operator = env.start_operator(&[]);
    env.wait_for_reason("nightly", "ImportSucceeded");
    // The operator's cache is ahead of the restored cluster by many revisions.
    write_config_maps(&env, 2000);
    control_plane.restore(&snapshot).unwrap();
    env.import("after", "d1", json!({}));
    env.wait_for_reason("after", "ImportSucceeded");
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 2);
    assert_eq!(operator.get("/healthz").map(|(status, _)| status), Some(200));
    env.check_invariants_settled();
}

#[test]
fn fault_100_writes_that_hang_in_some_namespaces_do_not_hold_up_another() {
    let env = TestEnv::new();
    let slow = ["a", "b"].map(|suffix| format!("{}-{suffix}", env.namespace));
    let imports = slow.iter().flat_map(|namespace| {
        (0..10).map(move |i| {
            let mut manifest = TestEnv::manifest(&format!("slow-{i}"), &format!("{namespace}-{i}"), json!({}));
            manifest["metadata"]["namespace"] = json!(namespace);
            manifest
        })
    });
    let namespaces =
        slow.iter().map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    let list = json!({"apiVersion": "v1", "kind": "List", "items": namespaces.chain(imports).collect::<Vec<_>>()});
    let applied = env.control_plane.kubectl(&["apply", "-f", "-"], Some(&list.to_string())).unwrap();
    assert!(applied.status.success(), "{}", text(&applied));
    let proxy = env.start_proxy();
    let suffering = slow.clone();
    proxy.inject(move |call| {
        let hangs = call.label == STATUS && suffering.iter().any(|name| call.path.contains(&format!("/{name}/")));
        if hangs { Fault::HangRequest } else { Fault::None }
    });
    let watched = format!("--watch-namespaces={},{}", env.namespace, slow.join(","));
    let flags = [watched.as_str(), "--concurrency=4", "--max-in-flight=50", "--kube-timeout=1h"];
    let operator = env.spawn_operator_behind(&proxy, &flags);
    eventually("writes of both namespaces hang", || {
        let calls = proxy.calls();
        let hangs = |name: &String| calls.iter().any(|c| c.label == STATUS && c.path.contains(name.as_str()));
        slow.iter().all(hangs).then_some(())
    });
    import_nightly(&env);
    assert_imported_once(&env);
    operator.kill();
}
