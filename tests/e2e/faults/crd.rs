//! What becomes of the operator when the CRD does.

use super::{errors, nightly, rough_plane};
use crate::env::{Bed, eventually, install_crd, text};
use serde_json::{Value, json};

const CRD: &str = "datasetimportjobs.personalize-operator.io";

#[test]
fn fault_26_crd_absent_at_start_removed_and_added_again() {
    let (_mine, plane, bed) = rough_plane();
    let remove = || assert!(bed.kubectl(&["delete", "crd", CRD]).status.success());
    remove();
    let operator = bed.operator_unready();
    eventually("it says what is missing", || operator.get("/readyz").filter(|(s, t)| *s == 503 && t.contains("CRD")));
    assert_eq!(operator.get("/healthz").map(|(s, _)| s), Some(200), "alive all the same");
    install_crd(plane);
    eventually("it is ready", || operator.ready().then_some(()));
    nightly(&bed);
    bed.until("nightly", "ImportSucceeded");
    remove();
    eventually("it is not ready any more", || (!operator.ready()).then_some(()));
    install_crd(plane);
    nightly(&bed);
    bed.until("nightly", "ImportSucceeded");
    eventually("it is ready again", || operator.ready().then_some(()));
    assert_eq!(bed.accepted(), 1, "the same manifest is the same import");
    bed.judged_settled();
}

fn apply_crd(bed: &Bed, crd: &Value) {
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    let applied = bed.plane.kubectl(&apply, Some(&crd.to_string())).unwrap();
    assert!(applied.status.success(), "{}", text(&applied));
}

#[test]
fn fault_27_a_crd_upgrade_that_adds_a_default_changes_no_request_hash() {
    let (_mine, _, bed) = rough_plane();
    let _operator = bed.operator(&["--identity=one"]);
    nightly(&bed);
    let before = bed.until("nightly", "ImportSucceeded");
    let crd: Value = serde_json::from_slice(&bed.kubectl(&["get", "crd", CRD, "-o", "json"]).stdout).unwrap();
    let mut newer = json!({"apiVersion": crd["apiVersion"], "kind": crd["kind"], "metadata": {"name": crd["metadata"]["name"]}, "spec": crd["spec"]});
    let spec = &mut newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    spec["publishAttributionMetricsToS3"]["default"] = json!(false);
    spec["newField"] = json!({"type": "string", "default": "something"});
    apply_crd(&bed, &newer);
    eventually("the default shows", || {
        text(&bed.kubectl(&["get", "dij", "nightly", "-o", "json"])).contains("newField").then_some(())
    });
    // Made anew under the new defaults, it is the same import.
    bed.delete("nightly");
    nightly(&bed);
    let after = bed.until("nightly", "ImportSucceeded");
    assert_eq!((after.job_name, bed.accepted()), (before.job_name, 1));
    bed.judged_settled();
}

#[test]
fn fault_28_an_object_that_can_not_be_decoded_suffers_alone() {
    let (_mine, _, bed) = rough_plane();
    // An older CRD let things through that the operator can't read.
    let loose = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": CRD},
        "spec": {"group": "personalize-operator.io", "scope": "Namespaced",
            "names": {"kind": "DatasetImportJob", "plural": "datasetimportjobs", "singular": "datasetimportjob", "shortNames": ["dij"]},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    apply_crd(&bed, &loose);
    let mut bad = Bed::manifest("bad", "d1", json!({}));
    bad["spec"] = json!({"datasetArn": 7});
    eventually("the loose schema is in force", || bed.try_apply(&bad).status.success().then_some(()));
    let operator = bed.operator(&[]);
    nightly(&bed);
    bed.until("nightly", "ImportSucceeded");
    let named = |name: &str| {
        let line = format!("\"{name}\"");
        operator.log().lines().any(|l| l.contains(&line) && l.contains("can't be read")).then_some(())
    };
    eventually("the log names it", || named("bad"));
    // Another comes while the operator watches, and one that could be read is edited so that it can't be any more.
    bad["metadata"]["name"] = json!("worse");
    bed.apply(&bad);
    eventually("the log names the one that came later", || named("worse"));
    bed.patch("nightly", &json!({"spec": {"datasetArn": 7}}));
    eventually("the log names the one that was edited", || named("nightly"));
    bed.import("after", "d2", json!({}));
    bed.until("after", "ImportSucceeded");
    assert!(errors(&operator, "Unreadable") >= 3, "the metric tells");
    assert_eq!(bed.accepted(), 2);
    for name in ["bad", "worse", "nightly"] {
        bed.delete(name);
    }
    bed.judged_settled();
}
