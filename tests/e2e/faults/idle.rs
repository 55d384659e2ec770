//! Finished resources: they are idle, so a start reconciles none of them, and whatever concerns one of them wakes it.

use super::scale::{create, succeeded};
use super::{DESCRIBE, reconcile_count};
use crate::env::{OperatorProcess, TestEnv, block_on, eventually, text};
use crate::invariants::resource_writes_after;
use kube::ResourceExt;
use kube::api::PostParams;
use serde_json::json;

const FINISHED: usize = 300;

/// A resource that waits for nothing is the last one that a start reconciles.
fn wait_until_all_are_reconciled(env: &TestEnv, operator: &OperatorProcess) -> u64 {
    env.import("last", "d29", json!({"suspend": true}));
    env.wait_for_reason("last", "Suspended");
    eventually("it is reconciled", || (reconcile_count(operator) > 0).then_some(()));
    reconcile_count(operator)
}

fn data_current(env: &TestEnv, name: &str) -> Option<String> {
    let status = env.status(name);
    let condition = status.conditions.iter().find(|condition| condition.type_ == "DataCurrent")?;
    Some(condition.status.clone())
}

/// Imports, and starts another operator after the end of the import.
fn restart_after(env: &TestEnv, import: impl Fn()) -> OperatorProcess {
    let operator = env.start_operator(&[]);
    import();
    assert!(operator.stop());
    env.start_operator(&[])
}

#[test]
fn fault_120_start_over_finished_resources_reconciles_none_of_them() {
    let env = TestEnv::new();
    create(&env, FINISHED, "", succeeded);
    let before = std::fs::metadata(env.control_plane.audit_log()).unwrap().len();
    let operator = env.start_operator(&[]);
    let reconciles = wait_until_all_are_reconciled(&env, &operator);
    assert!(reconciles < 5, "{reconciles} reconciles");
    assert_eq!(env.service.ledger().len(), 0, "no call to the service");
    let writes = resource_writes_after(&env.control_plane.audit_log(), before, &env.namespace);
    assert!(writes.iter().all(|write| write["objectRef"]["name"] == "last"), "no write");
    // The test itself wrote the statuses of jobs that never existed.
    env.assert_no_violations(Vec::new());
}

#[test]
fn fault_121_finished_import_whose_data_is_replaced_after_a_restart_says_so() {
    let env = TestEnv::new();
    let operator = restart_after(&env, || {
        env.import("january", "d0", json!({}));
        env.wait_for_reason("january", "ImportSucceeded");
    });
    env.wait_until_others_are_newer("january");
    env.import("february", "d0", json!({}));
    env.wait_for_reason("february", "ImportSucceeded");
    eventually("the older import says so", || (data_current(&env, "january")? == "False").then_some(()));
    env.patch("january", &json!({"spec": {"suspend": true}}));
    eventually("an edit is seen", || (env.status("january").observed_generation == Some(2)).then_some(()));

    // A leader that crashed right after the newer import succeeded.
    operator.kill();
    let mut restored = env.get("january").unwrap();
    let conditions = &mut restored.status.as_mut().unwrap().conditions;
    conditions.iter_mut().filter(|c| c.type_ == "DataCurrent").for_each(|c| c.status = "True".into());
    let (api, params) =
        (env.api(), PostParams { field_manager: Some("personalize-operator".into()), ..Default::default() });
    block_on(async move { api.replace_status(&restored.name_any(), &params, &restored).await }).unwrap();
    let _operator = env.start_operator(&[]);
    eventually("a start finds it", || (data_current(&env, "january")? == "False").then_some(()));
    assert_eq!(data_current(&env, "february").as_deref(), Some("True"));
    assert_eq!(env.accepted_count(), 2);
    env.check_invariants_settled();
}

#[test]
fn fault_122_failed_or_suspended_import_is_submitted_on_request_after_a_restart() {
    let env = TestEnv::new();
    let _operator = restart_after(&env, || {
        env.import("failed", "d0", json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
        env.import("suspended", "d1", json!({"suspend": true}));
        env.wait_for_reason("failed", "ImportFailed");
        env.wait_for_reason("suspended", "Suspended");
    });
    env.annotate("failed", "personalize-operator.io/retry-requested-at=1");
    env.patch("suspended", &json!({"spec": {"suspend": false}}));
    env.wait_for_reason("suspended", "ImportSucceeded");
    eventually("another attempt has failed", || {
        let status = env.status("failed");
        (status.attempts == Some(2) && status.completion_time.is_some()).then_some(())
    });
    assert_eq!(env.accepted_count(), 3);
    env.check_invariants_settled();
}

#[test]
fn fault_123_finished_resource_that_an_editor_touched_is_verified_once() {
    let env = TestEnv::new();
    let operator = restart_after(&env, || {
        for (name, dataset) in [("wiped", "d0"), ("replaced", "d1")] {
            env.import(name, dataset, json!({}));
            env.wait_for_reason(name, "ImportSucceeded");
        }
    });
    assert!(operator.stop());
    env.patch("wiped", &json!({"metadata": {"managedFields": [{}]}}));
    assert_eq!(env.get("wiped").unwrap().managed_fields().len(), 0);
    // An editor that writes what it has read becomes another owner of the same values.
    let status = serde_json::to_value(env.status("replaced")).unwrap();
    let resource = TestEnv::manifest("replaced", "d1", json!({}));
    let touched = json!({"apiVersion": resource["apiVersion"], "kind": resource["kind"], "metadata": resource["metadata"], "status": status});
    let args = ["-n", &env.namespace, "apply", "--server-side", "--subresource=status", "--force-conflicts", "-f", "-"];
    let applied = env.control_plane.kubectl(&args, Some(&touched.to_string())).unwrap();
    assert!(applied.status.success(), "{}", text(&applied));

    let (before, lookups) = (env.service.ledger().len(), env.service.call_count(DESCRIBE));
    let operator = env.start_operator(&[]);
    eventually("it is verified", || (env.service.ledger().len() >= before + 2).then_some(()));
    eventually("the operator owns the status again", || {
        let owns = |entry: &_| {
            let entry: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry = entry;
            entry.manager.as_deref() == Some("personalize-operator")
        };
        env.get("wiped")?.managed_fields().iter().any(owns).then_some(())
    });
    assert!(operator.stop());
    assert_eq!(env.service.call_count(DESCRIBE), lookups + 1, "only what was wiped is looked up");
    let operator = env.start_operator(&[]);
    assert!(wait_until_all_are_reconciled(&env, &operator) < 5);
    assert_eq!(env.service.ledger().len(), before + 2, "one lookup of the job and one of its tags");
    env.check_invariants_settled();
}
