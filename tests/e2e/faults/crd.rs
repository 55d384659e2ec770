//! Changes of the CRD under a running operator.

use super::{dedicated_control_plane, error_count, import_nightly};
use crate::env::{TestEnv, dataset_arn, eventually, install_crd, text};
use serde_json::{Value, json};

const CRD: &str = "datasetimportjobs.personalize-operator.io";

#[test]
fn fault_26_operator_recovers_when_a_missing_crd_is_installed() {
    let (_guard, control_plane, env) = dedicated_control_plane();
    let remove = || assert!(env.kubectl(&["delete", "crd", CRD]).status.success());
    remove();
    let operator = env.spawn_operator();
    eventually("readyz names the missing CRD", || {
        operator.get("/readyz").filter(|(status, body)| *status == 503 && body.contains("CRD"))
    });
    assert_eq!(operator.get("/healthz").map(|(status, _)| status), Some(200));
    install_crd(control_plane);
    eventually("the operator is ready", || operator.is_ready().then_some(()));
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    remove();
    eventually("the operator is not ready", || (!operator.is_ready()).then_some(()));
    install_crd(control_plane);
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    eventually("the operator is ready again", || operator.is_ready().then_some(()));
    assert_eq!(env.accepted_count(), 1, "the same manifest is the same import");
    env.check_invariants_settled();
}

fn apply_crd(env: &TestEnv, crd: &Value) {
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    let applied = env.control_plane.kubectl(&apply, Some(&crd.to_string())).unwrap();
    assert!(applied.status.success(), "{}", text(&applied));
}

#[test]
fn fault_27_crd_upgrade_with_a_new_default_keeps_the_request_hash() {
    let (_guard, _, env) = dedicated_control_plane();
    let _operator = env.start_operator(&[]);
    import_nightly(&env);
    let before = env.wait_for_reason("nightly", "ImportSucceeded");
    let crd: Value = serde_json::from_slice(&env.kubectl(&["get", "crd", CRD, "-o", "json"]).stdout).unwrap();
    let mut upgraded = json!({"apiVersion": crd["apiVersion"], "kind": crd["kind"], "metadata": {"name": crd["metadata"]["name"]}, "spec": crd["spec"]});
    let spec = &mut upgraded["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    spec["publishAttributionMetricsToS3"]["default"] = json!(false);
    spec["newField"] = json!({"type": "string", "default": "something"});
    apply_crd(&env, &upgraded);
    eventually("the default applies", || {
        text(&env.kubectl(&["get", "dij", "nightly", "-o", "json"])).contains("newField").then_some(())
    });
    // A new resource under the new defaults is the same import.
    env.delete("nightly");
    import_nightly(&env);
    let after = env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!((after.job_name, env.accepted_count()), (before.job_name, 1));
    env.check_invariants_settled();
}

#[test]
fn fault_28_undecodable_object_does_not_affect_others() {
    let (_guard, _, env) = dedicated_control_plane();
    // An older CRD accepted objects that the operator can't decode.
    let permissive_crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": CRD},
        "spec": {"group": "personalize-operator.io", "scope": "Namespaced",
            "names": {"kind": "DatasetImportJob", "plural": "datasetimportjobs", "singular": "datasetimportjob", "shortNames": ["dij"]},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    apply_crd(&env, &permissive_crd);
    let mut bad = TestEnv::manifest("bad", "d1", json!({}));
    bad["spec"] = json!({"datasetArn": 7});
    eventually("the permissive schema applies", || env.try_apply(&bad).status.success().then_some(()));
    let operator = env.start_operator(&[]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    let is_logged = |name: &str| {
        let line = format!("\"{name}\"");
        operator.log().lines().any(|l| l.contains(&line) && l.contains("can't be read")).then_some(())
    };
    eventually("the log names the object", || is_logged("bad"));
    // A second one is created while the operator watches, and a valid one becomes undecodable.
    bad["metadata"]["name"] = json!("worse");
    env.apply(&bad);
    eventually("the log names the new object", || is_logged("worse"));
    env.patch("nightly", &json!({"spec": {"datasetArn": 7}}));
    eventually("the log names the edited object", || is_logged("nightly"));
    env.import("after", "d2", json!({}));
    env.wait_for_reason("after", "ImportSucceeded");
    assert!(error_count(&operator, "Unreadable") >= 3);
    assert_eq!(env.accepted_count(), 2);
    for name in ["bad", "worse", "nightly"] {
        env.delete(name);
    }
    env.check_invariants_settled();
}

#[test]
fn fault_92_resources_that_an_older_crd_accepted_still_get_statuses() {
    let (_guard, control_plane, env) = dedicated_control_plane();
    // The older CRD has no rules.
    let mut older = serde_json::to_value(personalize_operator::api::crd()).unwrap();
    without_rules(&mut older);
    apply_crd(&env, &older);
    let location = |location: &str| json!({"dataSource": {"dataLocation": location}});
    let resources = [
        ("type", json!({"datasetArn": dataset_arn("interactions")}), "DatasetNotReady"),
        ("partition", json!({"datasetArn": dataset_arn("d1").replace("arn:aws:", "arn:aws-cn:")}), "DatasetNotReady"),
        ("role", json!({"roleArn": "arn:aws:iam::999999999999:role/Reader"}), "ImportSucceeded"),
        ("job-name", json!({"jobName": "job-0123456789abcdef"}), "ImportSucceeded"),
        ("signed", location("https://b.s3.amazonaws.com/x.csv?X-Amz-Signature=0123abcd"), "ImportFailed"),
        ("invisible", location("s3://bucket/x\u{202e}vsc.csv"), "ImportFailed"),
        ("tag", json!({"tags": [{"tagKey": "k\u{3164}", "tagValue": "v\u{3164}"}]}), "ImportSucceeded"),
        ("arn", json!({"datasetArn": "arn:aws:personalize:::dataset/shop/ITEMS"}), "InvalidSpec"),
    ];
    let manifest = |name: &str, spec: &Value| {
        let mut manifest = TestEnv::manifest(name, "d0", spec.clone());
        manifest["spec"]["suspend"] = json!(false);
        manifest
    };
    for (i, (name, spec, _)) in resources.iter().enumerate() {
        let mut manifest = manifest(name, spec);
        if spec["datasetArn"].is_null() {
            manifest["spec"]["datasetArn"] = json!(dataset_arn(&format!("d{i}")));
        }
        eventually("the older CRD applies", || env.try_apply(&manifest).status.success().then_some(()));
    }
    install_crd(control_plane);
    eventually("the CRD applies", || {
        (!env.try_apply(&manifest("new", &json!({"jobName": "job-0123456789abcdef"}))).status.success()).then_some(())
    });
    let _operator = env.start_operator(&[]);
    for (name, _, reason) in &resources {
        env.wait_for_reason(name, reason);
    }
    env.check_invariants();
}

/// Removes the CEL rules from a schema.
fn without_rules(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("x-kubernetes-validations");
            fields.values_mut().for_each(without_rules);
        }
        Value::Array(items) => items.iter_mut().for_each(without_rules),
        _ => {}
    }
}
