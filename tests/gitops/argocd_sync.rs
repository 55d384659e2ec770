//! What Argo CD's syncs do to a resource, done by the commands that stand behind them: whatever it is,
//! the ledger of the service shows one import.

use crate::bed::{Bed, eventually, text};
use serde_json::{Value, json};
use std::process::Output;

fn kubectl(bed: &Bed, args: &[&str], manifest: &Value) -> Output {
    let args: Vec<&str> = ["-n", &bed.namespace].into_iter().chain(args.iter().copied()).collect();
    bed.plane.kubectl(&args, Some(&manifest.to_string())).unwrap()
}

fn well(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

/// A sync with `ServerSideApply=true`.
fn server_side(bed: &Bed, manifest: &Value) {
    let args = ["apply", "--server-side", "--force-conflicts", "--field-manager=argocd-controller", "-f", "-"];
    well(&kubectl(bed, &args, manifest));
}

/// As Argo CD tracks what it has applied.
fn tracked(name: &str, dataset: &str, edit: Value) -> Value {
    let mut manifest = Bed::manifest(name, dataset, edit);
    let id = format!("shop:personalize-operator.io/DatasetImportJob:shop/{name}");
    manifest["metadata"]["annotations"] = json!({"argocd.argoproj.io/tracking-id": id});
    manifest
}

fn uid(bed: &Bed, name: &str) -> String {
    bed.get(name).and_then(|j| j.metadata.uid).unwrap()
}

#[test]
fn a_hook_that_is_deleted_and_made_anew_before_each_sync_imports_once() {
    let bed = Bed::new();
    bed.service.durations(100, 600_000);
    let _operator = bed.operator(&[]);
    let mut hook = tracked("hook", "d0", json!({}));
    hook["metadata"]["annotations"]["argocd.argoproj.io/hook"] = "PreSync".into();
    server_side(&bed, &hook);
    bed.until("hook", "Importing");
    // BeforeHookCreation: in mid-flight, and after the end.
    for again in ["in flight", "ended"] {
        let before = uid(&bed, "hook");
        bed.delete("hook");
        server_side(&bed, &hook);
        assert_ne!(uid(&bed, "hook"), before, "{again}");
        bed.service.durations(1, 1);
        bed.until("hook", "ImportSucceeded");
    }
    assert_eq!(bed.accepted(), 1);
    bed.judged();
}

#[test]
fn replace_and_force_import_once_and_a_changed_import_needs_both() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    let manifest = tracked("nightly", "d0", json!({}));
    well(&kubectl(&bed, &["create", "-f", "-"], &manifest));
    bed.until("nightly", "ImportSucceeded");
    // Replace=true.
    let before = uid(&bed, "nightly");
    well(&kubectl(&bed, &["replace", "-f", "-"], &manifest));
    assert_eq!(uid(&bed, "nightly"), before);
    // Replace=true,Force=true.
    well(&kubectl(&bed, &["replace", "--force", "-f", "-"], &manifest));
    assert_ne!(uid(&bed, "nightly"), before);
    bed.until("nightly", "ImportSucceeded");
    assert_eq!(bed.accepted(), 1);

    let changed = tracked("nightly", "d1", json!({}));
    for args in [vec!["apply", "-f", "-"], vec!["replace", "-f", "-"]] {
        let refused = kubectl(&bed, &args, &changed);
        assert!(!refused.status.success());
        assert!(
            text(&refused).contains("datasetArn is immutable: to import into another dataset"),
            "{}",
            text(&refused)
        );
    }
    well(&kubectl(&bed, &["replace", "--force", "-f", "-"], &changed));
    bed.until("nightly", "ImportSucceeded");
    assert_eq!(bed.accepted(), 2, "another import, made once");
    bed.judged();
}

#[test]
fn pruned_and_applied_again_or_deleted_and_healed_it_is_the_same_import() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    let manifest = tracked("nightly", "d0", json!({}));
    server_side(&bed, &manifest);
    bed.until("nightly", "ImportSucceeded");
    for _ in 0..2 {
        // A prune is a delete with foreground propagation; it must not hang.
        let pruned = bed.kubectl(&["delete", "dij", "nightly", "--cascade=foreground", "--timeout=30s"]);
        well(&pruned);
        server_side(&bed, &manifest);
        let done = bed.until("nightly", "ImportSucceeded");
        assert_eq!(done.attempts, Some(1));
    }
    assert_eq!(bed.accepted(), 1);
    bed.judged();
}

#[test]
fn self_heal_takes_back_what_git_says_and_leaves_what_actions_set() {
    let bed = Bed::new();
    bed.service.durations(100, 600_000);
    let _operator = bed.operator(&[]);
    let manifest = tracked("nightly", "d0", json!({"backoffLimit": 0, "suspend": false}));
    server_side(&bed, &manifest);
    bed.until("nightly", "Importing");
    // Drift, and a click: both by other managers than Argo CD's controller.
    bed.patch("nightly", &json!({"spec": {"backoffLimit": 3}}));
    bed.annotate("nightly", "personalize-operator.io/reconcile-requested-at=2026-11-01T03:00:00Z");
    server_side(&bed, &manifest);
    let healed = bed.get("nightly").unwrap();
    assert_eq!(healed.spec.backoff_limit, 0);
    assert_eq!(
        healed.metadata.annotations.unwrap()["personalize-operator.io/reconcile-requested-at"],
        "2026-11-01T03:00:00Z"
    );

    // A suspension by action survives; one in the spec would not, as Git says false.
    let held = tracked("held", "nowhere", json!({"suspend": false}));
    server_side(&bed, &held);
    bed.until("held", "DatasetNotReady");
    bed.annotate("held", "personalize-operator.io/suspend=true");
    bed.until("held", "Suspended");
    server_side(&bed, &held);
    bed.service.put_dataset("nowhere", "ACTIVE");
    bed.annotate("held", "personalize-operator.io/reconcile-requested-at=now");
    eventually("the request was handled", || {
        (bed.status("held").last_handled_reconcile_at.as_deref() == Some("now")).then_some(())
    });
    bed.until("held", "Suspended");
    bed.service.durations(1, 1);
    bed.until("nightly", "ImportSucceeded");
    assert_eq!(bed.accepted(), 1);
    bed.judged();
}

#[test]
fn many_datasets_at_once_are_imported_once_each_however_often_they_are_synced() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    let set: Vec<Value> = (0..12).map(|i| tracked(&format!("dataset-{i}"), &format!("d{i}"), json!({}))).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": set});
    for _ in 0..3 {
        server_side(&bed, &list);
    }
    for i in 0..12 {
        bed.until(&format!("dataset-{i}"), "ImportSucceeded");
        server_side(&bed, &list);
    }
    assert_eq!(bed.accepted(), 12);
    bed.judged();
}
