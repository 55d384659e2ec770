//! Deleted resources and namespaces, and resources that are created again.

use super::{CREATE, DESCRIBE, assert_imported_once, import_nightly, reconcile_count};
use crate::env::proxy::Fault;
use crate::env::{TestEnv, dataset_arn, eventually, text};
use serde_json::{Value, json};
use tokio::sync::watch;

#[test]
fn fault_61_resource_deleted_before_the_intent_is_not_submitted() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let _operator = env.start_operator(&[]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    env.import("waiting", "d0", json!({}));
    env.wait_for_reason("waiting", "Queued");
    env.delete("waiting");
    env.service.set_durations(1, 1);
    assert_imported_once(&env);
    env.import("last", "d0", json!({}));
    env.wait_for_reason("last", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 2, "the deleted import is not created");
    env.check_invariants_settled();
}

#[test]
fn fault_62_resource_deleted_during_create_is_adopted_when_applied_again() {
    let env = TestEnv::new();
    env.service.inject_fault(&json!({"operation": CREATE, "count": 1, "action": {"delay": {"ms": 1500}}}));
    let operator = env.start_operator(&[]);
    import_nightly(&env);
    eventually("the create is in flight", || (env.service.call_count(CREATE) == 1).then_some(()));
    env.delete("nightly");
    eventually("the service accepts the job", || (env.accepted_count() == 1).then_some(()));
    // The same manifest adopts it.
    import_nightly(&env);
    assert_imported_once(&env);
    assert!(operator.stop());
}

#[test]
fn fault_63_resource_being_deleted_is_not_submitted() {
    let env = TestEnv::new();
    let mut manifest = TestEnv::manifest("nightly", "d0", json!({"suspend": true}));
    manifest["metadata"]["finalizers"] = json!(["example.org/foreign"]);
    env.apply(&manifest);
    let _operator = env.start_operator(&[]);
    env.wait_for_reason("nightly", "Suspended");
    let deleted = env.kubectl(&["delete", "dij", "nightly", "--wait=false"]);
    assert!(deleted.status.success(), "{}", text(&deleted));
    env.patch("nightly", &json!({"spec": {"suspend": false}}));
    env.annotate("nightly", "personalize-operator.io/reconcile-requested-at=now");
    env.import("after", "d1", json!({}));
    env.wait_for_reason("after", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 1, "a resource that is being deleted is not submitted");
    let finalizers = env.get("nightly").unwrap().metadata.finalizers;
    assert_eq!(finalizers, Some(vec!["example.org/foreign".to_owned()]), "a foreign finalizer stays");
    env.patch("nightly", &json!({"metadata": {"finalizers": null}}));
    env.check_invariants_settled();
}

#[test]
fn fault_64_recreated_resource_adopts_its_job() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let _operator = env.start_operator(&[]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    let first = env.uid("nightly");
    for _ in 0..3 {
        env.delete("nightly");
        import_nightly(&env);
    }
    assert_ne!(env.uid("nightly"), first);
    env.service.set_durations(1, 1);
    assert_imported_once(&env);
    env.delete("nightly");
    import_nightly(&env);
    assert_imported_once(&env);
}

/// Deletes the namespace of the test. The lease goes with it, so these operators run without leader election.
fn delete_namespace(env: &TestEnv) {
    let deleted = env.kubectl(&["delete", "namespace", &env.namespace, "--wait=false"]);
    assert!(deleted.status.success(), "{}", text(&deleted));
}

fn wait_until_namespace_is_gone(env: &TestEnv) {
    eventually("the namespace is gone", || {
        (!env.kubectl(&["get", "namespace", &env.namespace]).status.success()).then_some(())
    });
}

#[test]
fn fault_67_resource_in_a_terminating_namespace_is_not_submitted() {
    let env = TestEnv::new();
    // Only a foreign job keeps the import waiting.
    env.service.put_job(
        &json!({"name": "foreign", "datasetArn": dataset_arn("d0"), "status": "CREATE IN_PROGRESS", "hold": true}),
    );
    let mut manifest = TestEnv::manifest("nightly", "d0", json!({}));
    manifest["metadata"]["finalizers"] = json!(["example.org/foreign"]);
    env.apply(&manifest);
    let operator = env.start_operator(&["--leader-elect=false"]);
    env.wait_for_reason("nightly", "Queued");
    delete_namespace(&env);
    eventually("the resource is being deleted", || env.get("nightly")?.metadata.deletion_timestamp.map(drop));
    env.service.finish_job("foreign");
    for i in 0..3 {
        let before = reconcile_count(&operator);
        env.annotate("nightly", &format!("personalize-operator.io/reconcile-requested-at={i}"));
        eventually("the resource is reconciled", || (reconcile_count(&operator) > before).then_some(()));
    }
    assert_eq!(env.service.call_count(CREATE), 0, "nothing else prevents the create");
    env.patch("nightly", &json!({"metadata": {"finalizers": null}}));
    wait_until_namespace_is_gone(&env);
    assert_eq!(env.service.call_count(CREATE), 0);
    assert_eq!(operator.get("/healthz").map(|(s, _)| s), Some(200));
    env.check_invariants();
}

#[test]
fn fault_67_namespace_deleted_during_create_does_not_create_again() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    let (release, held) = watch::channel(false);
    proxy.inject(move |call| if call.label == CREATE { Fault::HoldUntil(held.clone()) } else { Fault::None });
    let flags = ["--leader-elect=false", "--grace=120s"];
    let operator = env.spawn_operator_behind(&proxy, &flags);
    import_nightly(&env);
    eventually("the create is in flight", || (proxy.count(CREATE) == 1).then_some(()));
    delete_namespace(&env);
    wait_until_namespace_is_gone(&env);
    release.send(true).unwrap();
    eventually("the service accepts the job", || (env.accepted_count() == 1).then_some(()));
    // There is no status left to report the job in, and the create is not repeated.
    eventually("the reconcile ends", || (reconcile_count(&operator) > 0).then_some(()));
    assert_eq!((proxy.count(CREATE), env.accepted_count()), (1, 1));
    assert_eq!(operator.get("/healthz").map(|(s, _)| s), Some(200));
    env.check_invariants();
}

#[test]
fn fault_68_resource_restored_without_status_adopts_its_job() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let _operator = env.start_operator(&[]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    let mut backup = serde_json::to_value(env.get("nightly").unwrap()).unwrap();
    backup["status"] = Value::Null;
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
        backup["metadata"][field] = Value::Null;
    }
    let uid = env.uid("nightly");
    env.delete("nightly");
    env.apply(&backup);
    assert_ne!(env.uid("nightly"), uid);
    env.wait_for_reason("nightly", "Importing");
    env.service.set_durations(1, 1);
    assert_imported_once(&env);
}

#[test]
fn fault_110_job_of_a_deleted_resource_counts_until_it_ends() {
    let env = TestEnv::new();
    env.service.set_durations(0, 600_000);
    let _operator = env.start_operator(&["--max-in-flight=1"]);
    env.import("deleted", "d1", json!({}));
    env.wait_for_reason("deleted", "Importing");
    env.delete("deleted");
    import_nightly(&env);
    env.wait_for_reason("nightly", "Queued");
    let polls = env.service.call_count(DESCRIBE);
    eventually("the job of the deleted resource is polled", || {
        (env.service.call_count(DESCRIBE) > polls + 3).then_some(())
    });
    assert_eq!(env.accepted_count(), 1);
    env.service.set_durations(0, 0);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 2);
    env.check_invariants_settled();
}
