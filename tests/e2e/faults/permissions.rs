//! What the operator may do in the cluster, and what a namespace may import.

use super::{CREATE, assert_imported_once, error_count, import_nightly};
use crate::env::proxy::{Fault, Proxy};
use crate::env::{TestEnv, block_on, dataset_arn, eventually, text};
use kube::api::ListParams;
use personalize_operator::api::conditions::Reason;
use serde_json::{Value, json};

/// A kubeconfig of a user with these rules in the namespace of the test.
fn user_with(env: &TestEnv, rules: &Value) -> String {
    let user = format!("limited-{}", env.namespace);
    let subjects = json!([{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}]);
    let reference = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": user});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": user}, "rules": rules},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": user}, "subjects": subjects, "roleRef": reference("Role")},
    ]});
    env.apply(&list);
    let path = env.dir().join("limited.kubeconfig");
    env.control_plane.kubeconfig_for(&user, &[], &path).unwrap();
    path.display().to_string()
}

/// The kubeconfig of a user with the rights of a Role in the namespace, which can't let it watch the Namespace.
fn user_of_one_namespace(env: &TestEnv) -> String {
    let rules = json!([
        rule("personalize-operator.io", "*", &["*"]),
        rule("coordination.k8s.io", "leases", &["get", "create", "update"]),
        rule("events.k8s.io", "events", &["create"]),
        rule("", "namespaces", &["get"]),
    ]);
    user_with(env, &rules)
}

fn rule(group: &str, resource: &str, verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": [resource], "verbs": verbs})
}

#[test]
fn fault_24_denied_status_writes_prevent_the_create() {
    let env = TestEnv::new();
    let group = "personalize-operator.io";
    let rules = json!([
        rule(group, "datasetimportjobs", &["get", "list", "watch"]),
        rule("coordination.k8s.io", "leases", &["get", "create", "update"]),
        rule("events.k8s.io", "events", &["create"]),
        rule("", "namespaces", &["get"]),
    ]);
    let kubeconfig = user_with(&env, &rules);
    let operator = env.start_operator_with(&[("KUBECONFIG", &kubeconfig)], &[]);
    import_nightly(&env);
    eventually("the log reports it", || operator.log().contains("forbidden").then_some(()));
    eventually("the write is retried", || (error_count(&operator, "KubernetesForbidden") > 2).then_some(()));
    assert_eq!(env.service.call_count(CREATE), 0, "without a recorded intent there is no create");
    assert_eq!(env.status("nightly").observed_generation, Some(-1));
    let mut extended = rules;
    extended.as_array_mut().unwrap().push(rule(group, "datasetimportjobs/status", &["update"]));
    user_with(&env, &extended);
    assert_imported_once(&env);
}

#[test]
fn fault_78_namespace_that_can_not_be_listed_does_not_hold_up_the_others() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let operator = env.start_operator(&[]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    operator.kill();
    // The user of the next operator may list one of its two namespaces.
    let kubeconfig = user_of_one_namespace(&env);
    let namespaces = format!("--watch-namespaces={},kube-public", env.namespace);
    let operator = env.spawn_operator_with(&[("KUBECONFIG", &kubeconfig)], &[&namespaces]);
    env.import("after", "d1", json!({}));
    env.wait_for_reason("after", "Importing");
    env.service.set_durations(1, 1);
    env.wait_for_reason("nightly", "ImportSucceeded");
    env.wait_for_reason("after", "ImportSucceeded");
    let (status, reason) = operator.get("/readyz").unwrap();
    assert!(status == 503 && reason.contains("kube-public"), "{status} {reason}");
    assert_eq!(env.accepted_count(), 2);
    env.check_invariants_settled();
}

/// How often the operator has read, listed or watched Namespaces.
fn namespace_calls(proxy: &Proxy) -> usize {
    proxy.calls().iter().filter(|call| call.label.ends_with(" namespaces")).count()
}

/// Limits the datasets that the namespace may import into.
fn permit(env: &TestEnv, datasets: &str) {
    let annotation = format!("personalize-operator.io/allowed-dataset-arns={}", dataset_arn(datasets));
    let annotated = env.kubectl(&["annotate", "--overwrite", "namespace", &env.namespace, &annotation]);
    assert!(annotated.status.success(), "{}", text(&annotated));
}

/// No second try without a cause.
const REJECTED_FOR_LONG: [&str; 2] = ["--rejected-min=1h", "--rejected-max=1h"];

#[test]
fn fault_101_waiting_resources_do_not_read_their_namespace() {
    let env = TestEnv::new();
    env.service.set_durations(600_000, 600_000);
    let imports: Vec<Value> = (0..100).map(|i| TestEnv::manifest(&format!("r{i:03}"), "d0", json!({}))).collect();
    env.apply(&json!({"apiVersion": "v1", "kind": "List", "items": imports}));
    let proxy = env.start_proxy();
    let operator = env.spawn_operator_behind(&proxy, &["--watch-timeout=200s", "--grace=60s"]);
    let api = env.api();
    eventually("all but one wait", || {
        let api = api.clone();
        let list = block_on(async move { api.list(&ListParams::default()).await }).ok()?;
        let queued = list.iter().filter_map(|r| Reason::of(r.status.as_ref()?)).filter(|r| *r == Reason::Queued);
        (queued.count() == 99).then_some(())
    });
    assert!(namespace_calls(&proxy) <= 4, "{}", namespace_calls(&proxy));
    operator.kill();
    env.check_invariants();
}

#[test]
fn fault_102_granted_permission_ends_the_wait_although_the_watch_failed() {
    let env = TestEnv::new();
    permit(&env, "none");
    let proxy = env.start_proxy();
    let flags = [&REJECTED_FOR_LONG[..], &["--watch-timeout=1s"]].concat();
    let _operator = env.spawn_operator_behind(&proxy, &flags);
    import_nightly(&env);
    env.wait_for_reason("nightly", "NotPermitted");
    // It is granted while no watch is open.
    proxy.inject(|c| if c.label.ends_with(" namespaces") { Fault::DropRequest } else { Fault::None });
    let before = namespace_calls(&proxy);
    eventually("the watch has failed", || (namespace_calls(&proxy) > before).then_some(()));
    permit(&env, "*");
    assert_eq!(env.accepted_count(), 0);
    proxy.clear();
    assert_imported_once(&env);
}

#[test]
fn fault_102_import_that_is_permitted_late_gets_the_next_free_slot() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    permit(&env, "d1*");
    let operator = env.start_operator(&[&["--max-in-flight=1"], &REJECTED_FOR_LONG[..]].concat());
    import_nightly(&env);
    env.wait_for_reason("nightly", "NotPermitted");
    env.wait_until_others_are_newer("nightly");
    env.import("running", "d1", json!({}));
    let running = env.wait_for_reason("running", "Importing").job_name.unwrap();
    for (name, dataset) in [("waits", "d10"), ("waits-too", "d11")] {
        env.import(name, dataset, json!({}));
        env.wait_for_reason(name, "Queued");
    }
    permit(&env, "*");
    eventually("/queue shows it first", || {
        let page: Value = serde_json::from_str(&operator.get("/queue")?.1).ok()?;
        (page["pools"][0]["waiting"][0]["name"] == "nightly").then_some(())
    });
    env.service.finish_job(&running);
    env.wait_for_reason("nightly", "Importing");
    assert_eq!(env.accepted_count(), 2, "the others still wait");
    env.service.set_durations(1, 1);
    for name in ["running", "waits", "waits-too", "nightly"] {
        env.wait_for_reason(name, "ImportSucceeded");
    }
    assert_eq!(env.accepted_count(), 4);
    env.check_invariants_settled();
}

#[test]
fn fault_103_withdrawn_permission_stops_the_submission_although_the_watch_is_silent() {
    let env = TestEnv::new();
    permit(&env, "*");
    let proxy = env.start_proxy();
    proxy.inject(|c| if c.label == "WATCH namespaces" { Fault::HangBody } else { Fault::None });
    let flags = [&REJECTED_FOR_LONG[..], &["--watch-timeout=200s"]].concat();
    let operator = env.spawn_operator_behind(&proxy, &flags);
    eventually("the Namespaces are watched", || (proxy.count("WATCH namespaces") > 0).then_some(()));
    permit(&env, "none");
    import_nightly(&env);
    env.wait_for_reason("nightly", "NotPermitted");
    assert_eq!(proxy.count(CREATE), 0);
    operator.kill();
    proxy.clear();
    permit(&env, "*");
    let _operator = env.spawn_operator_behind(&proxy, &REJECTED_FOR_LONG);
    assert_imported_once(&env);
}

#[test]
fn fault_104_namespace_that_may_not_be_watched_is_read_now_and_then() {
    let env = TestEnv::new();
    let kubeconfig = user_of_one_namespace(&env);
    permit(&env, "none");
    let _operator = env.start_operator_with(&[("KUBECONFIG", &kubeconfig)], &REJECTED_FOR_LONG);
    import_nightly(&env);
    env.wait_for_reason("nightly", "NotPermitted");
    permit(&env, "*");
    assert_imported_once(&env);
}

#[test]
fn fault_25_denied_lease_prevents_leading() {
    let env = TestEnv::new();
    let rules = json!([rule("personalize-operator.io", "*", &["*"]), rule("", "namespaces", &["get"])]);
    let kubeconfig = user_with(&env, &rules);
    let operator = env.start_operator_with(&[("KUBECONFIG", &kubeconfig)], &[]);
    import_nightly(&env);
    let denials = || operator.log().lines().filter(|line| line.contains("leases.coordination.k8s.io")).count();
    eventually("the log reports it several times", || (denials() > 3).then_some(()));
    assert!(operator.metrics().contains("leader_election_master_status{name=\"personalize-operator\"} 0"));
    assert_eq!(env.service.ledger().len(), 0);
    assert_eq!(env.status("nightly").observed_generation, Some(-1));
    env.check_invariants();
}
