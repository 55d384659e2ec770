//! Argo CD's sync operations, as the commands that Argo CD runs. After each one, the ledger of the fake service shows
//! one import.

use super::argocd_scripts::health;
use super::manifests::blocks;
use super::tool::live;
use crate::chart::helm::{documents, read};
use crate::env::{TestEnv, dataset_arn, eventually, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Output;

fn kubectl(env: &TestEnv, args: &[&str], manifest: &Value) -> Output {
    let args: Vec<&str> = ["-n", &env.namespace].into_iter().chain(args.iter().copied()).collect();
    env.control_plane.kubectl(&args, Some(&manifest.to_string())).unwrap()
}

fn assert_success(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

/// A sync with `ServerSideApply=true`.
fn server_side(env: &TestEnv, manifest: &Value) {
    let args = ["apply", "--server-side", "--force-conflicts", "--field-manager=argocd-controller", "-f", "-"];
    assert_success(&kubectl(env, &args, manifest));
}

/// A manifest with the tracking annotation of Argo CD.
fn tracked(name: &str, dataset: &str, edit: Value) -> Value {
    let mut manifest = TestEnv::manifest(name, dataset, edit);
    let id = format!("shop:personalize-operator.io/DatasetImportJob:shop/{name}");
    manifest["metadata"]["annotations"] = json!({"argocd.argoproj.io/tracking-id": id});
    manifest
}

fn uid(env: &TestEnv, name: &str) -> String {
    env.get(name).and_then(|j| j.metadata.uid).unwrap()
}

#[test]
fn hook_recreated_before_each_sync_imports_once() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let _operator = env.start_operator(&[]);
    let mut hook = tracked("hook", "d0", json!({}));
    hook["metadata"]["annotations"]["argocd.argoproj.io/hook"] = "PreSync".into();
    server_side(&env, &hook);
    env.wait_for_reason("hook", "Importing");
    // BeforeHookCreation, while the import runs and after it finished.
    for moment in ["running", "finished"] {
        let before = uid(&env, "hook");
        env.delete("hook");
        server_side(&env, &hook);
        assert_ne!(uid(&env, "hook"), before, "{moment}");
        env.service.set_durations(1, 1);
        env.wait_for_reason("hook", "ImportSucceeded");
    }
    assert_eq!(env.accepted_count(), 1);
    env.check_invariants();
}

/// Waits until the resource is Healthy or Degraded.
fn final_health(env: &TestEnv, name: &str) -> String {
    eventually("the resource is Healthy or Degraded", || {
        let status = health(&live(env, name))["status"].as_str().unwrap().to_owned();
        ["Healthy", "Degraded"].contains(&status.as_str()).then_some(status)
    })
}

/// Applies each wave after all resources of the previous one are healthy. The error names the one that failed.
fn sync(env: &TestEnv, manifests: &[Value]) -> Result<(), String> {
    let mut waves: BTreeMap<i64, Vec<&Value>> = BTreeMap::new();
    for manifest in manifests {
        let wave = manifest["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"].as_str();
        waves.entry(wave.map_or(0, |wave| wave.parse().unwrap())).or_default().push(manifest);
    }
    for wave in waves.values() {
        wave.iter().for_each(|manifest| server_side(env, manifest));
        for manifest in wave {
            let name = manifest["metadata"]["name"].as_str().unwrap();
            if final_health(env, name) != "Healthy" {
                return Err(name.to_owned());
            }
        }
    }
    Ok(())
}

#[test]
fn next_sync_wave_starts_only_after_the_import_succeeded() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let _operator = env.start_operator(&[]);
    // The first import is the example of the docs, with the dataset and the data of the fake service.
    let markdown = read("docs/argocd.md");
    let mut first = blocks(&markdown, "yaml").into_iter().flat_map(|(_, text)| documents(&text)).next().unwrap();
    let name = first["metadata"]["name"].as_str().unwrap().to_owned();
    first["spec"] = TestEnv::manifest(&name, "d0", json!({}))["spec"].clone();
    assert_eq!(first["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"], "1");
    let mut second = tracked("second", "d0", json!({"importMode": "INCREMENTAL"}));
    second["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"] = "2".into();
    // The order in Git does not matter.
    let application = [second, first];
    std::thread::scope(|scope| {
        let syncing = scope.spawn(|| sync(&env, &application));
        env.wait_for_reason(&name, "Importing");
        assert!(env.get("second").is_none(), "wave 2 waits");
        env.service.set_durations(1, 1);
        assert_eq!(syncing.join().unwrap(), Ok(()));
    });
    let (before, after) = (env.status(&name), env.status("second"));
    assert!(
        before.completion_time.unwrap() <= after.creation_date_time.unwrap(),
        "the second import starts after the first one completed"
    );
    assert_eq!(sync(&env, &application), Ok(()), "a second sync finds both imports finished");
    assert_eq!(env.accepted_count(), 2);

    let mut failing = tracked("failing", "d1", json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    env.service.reject_imports_into("d2");
    let mut rejected = tracked("rejected", "d2", json!({}));
    let mut later = tracked("later", "d3", json!({}));
    for (manifest, wave) in [(&mut failing, "-1"), (&mut rejected, "-1"), (&mut later, "0")] {
        manifest["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"] = wave.into();
    }
    for bad in [failing, rejected] {
        let name = bad["metadata"]["name"].as_str().unwrap().to_owned();
        assert_eq!(sync(&env, &[later.clone(), bad]), Err(name), "a failed import fails the sync");
        assert!(env.get("later").is_none());
    }
    env.check_invariants();
}

#[test]
fn hook_deleted_after_it_finished_finds_its_job_at_the_next_sync() {
    let env = TestEnv::new();
    env.service.set_durations(1, 1);
    let _operator = env.start_operator(&[]);
    let few = json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}});
    for (policy, dataset, edit, expected) in
        [("HookSucceeded", "d0", json!({}), "Healthy"), ("HookFailed", "d1", few, "Degraded")]
    {
        let name = policy.to_lowercase();
        let mut hook = tracked(&name, dataset, edit);
        let annotations = &mut hook["metadata"]["annotations"];
        annotations["argocd.argoproj.io/hook"] = "Sync".into();
        annotations["argocd.argoproj.io/hook-delete-policy"] = policy.into();
        for round in 0..3 {
            server_side(&env, &hook);
            assert_eq!(final_health(&env, &name), expected, "{policy}, sync {round}");
            env.delete(&name);
        }
    }
    assert_eq!(env.accepted_count(), 2, "one import for each policy");
    env.check_invariants();
}

/// The Applications that the list generator of an ApplicationSet creates.
fn applications(set: &Value, elements: &[Value]) -> Vec<Value> {
    let field = regex::Regex::new(r"\{\{ (lower )?\.(\w+) \}\}").unwrap();
    let applications = elements.iter().map(|element| {
        let filled = set["spec"]["template"].to_string();
        let filled = field.replace_all(&filled, |found: &regex::Captures<'_>| {
            let value = element[&found[2]].as_str().unwrap();
            if found.get(1).is_some() { value.to_lowercase() } else { value.to_owned() }
        });
        assert!(!filled.contains("{{"), "{filled}");
        let mut application: Value = serde_json::from_str(&filled).unwrap();
        application["apiVersion"] = set["apiVersion"].clone();
        application["kind"] = "Application".into();
        application
    });
    applications.collect()
}

/// The import that the chart of the example renders for an Application, with a dataset of the fake service.
fn import_of(application: &Value) -> Value {
    let values = &application["spec"]["source"]["helm"]["valuesObject"];
    let arn = values["datasetArn"].as_str().unwrap();
    let (_, dataset) = arn.split_once(":dataset/").unwrap();
    let edit = json!({"datasetArn": dataset_arn(&dataset.replace('/', "-"))});
    assert!(values["dataLocation"].as_str().unwrap().starts_with("s3://"), "{values}");
    tracked(values["name"].as_str().unwrap(), "", edit)
}

#[test]
fn dataset_removed_and_readded_is_not_imported_again_but_a_new_month_is() {
    let env = TestEnv::new();
    super::crds::install();
    env.service.set_durations(1, 1);
    let _operator = env.start_operator(&[]);
    let example = read("examples/argocd/datasets.yaml");
    let elements = documents(&example)[0]["spec"]["generators"][0]["list"]["elements"].as_array().unwrap().clone();
    for element in &elements {
        let name = format!("{}-{}", element["shop"].as_str().unwrap(), element["dataset"].as_str().unwrap());
        env.service.put_dataset(&name, "ACTIVE");
    }
    let (some, all): (Vec<Value>, _) = (elements[1..].to_vec(), elements);
    let mut imported: Vec<String> = Vec::new();
    let next_month = example.replace("2026-11", "2026-12");
    for (git, elements, expected) in
        [(&example, &all, 3), (&example, &some, 3), (&example, &all, 3), (&next_month, &all, 6)]
    {
        let applications = applications(&documents(git)[0], elements);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": applications.iter().cloned().map(|mut application| {
            application["metadata"]["namespace"] = env.namespace.clone().into();
            application
        }).collect::<Vec<_>>()});
        let applied = eventually("the API server serves Applications", || {
            let output = kubectl(&env, &["apply", "--dry-run=server", "--validate=strict", "-f", "-"], &list);
            (!text(&output).contains("no matches for kind")).then_some(output)
        });
        assert_success(&applied);
        let manifests: Vec<Value> = applications.iter().map(import_of).collect();
        let names: Vec<String> = manifests.iter().map(|m| m["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        // Argo CD deletes the resources of an Application that is no longer generated.
        for removed in imported.iter().filter(|name| !names.contains(name)) {
            env.delete(removed);
        }
        manifests.iter().for_each(|manifest| server_side(&env, manifest));
        for name in &names {
            env.wait_for_reason(name, "ImportSucceeded");
        }
        assert_eq!(env.accepted_count(), expected);
        imported = names;
    }
    env.check_invariants();
}

#[test]
fn replace_and_force_import_once_and_a_changed_import_needs_both() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    let manifest = tracked("nightly", "d0", json!({}));
    assert_success(&kubectl(&env, &["create", "-f", "-"], &manifest));
    env.wait_for_reason("nightly", "ImportSucceeded");
    // Replace=true.
    let before = uid(&env, "nightly");
    assert_success(&kubectl(&env, &["replace", "-f", "-"], &manifest));
    assert_eq!(uid(&env, "nightly"), before);
    // Replace=true,Force=true.
    assert_success(&kubectl(&env, &["replace", "--force", "-f", "-"], &manifest));
    assert_ne!(uid(&env, "nightly"), before);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 1);

    let changed = tracked("nightly", "d1", json!({}));
    for args in [vec!["apply", "-f", "-"], vec!["replace", "-f", "-"]] {
        let rejected = kubectl(&env, &args, &changed);
        assert!(!rejected.status.success());
        let message = text(&rejected);
        assert!(message.contains("datasetArn is immutable: to import into another dataset"), "{message}");
    }
    assert_success(&kubectl(&env, &["replace", "--force", "-f", "-"], &changed));
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 2, "the changed import runs once");
    env.check_invariants();
}

#[test]
fn pruned_and_reapplied_resource_does_not_import_again() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    let manifest = tracked("nightly", "d0", json!({}));
    server_side(&env, &manifest);
    env.wait_for_reason("nightly", "ImportSucceeded");
    for _ in 0..2 {
        // A prune deletes with foreground propagation. It must not hang.
        let pruned = env.kubectl(&["delete", "dij", "nightly", "--cascade=foreground", "--timeout=5m"]);
        assert_success(&pruned);
        server_side(&env, &manifest);
        assert_eq!(env.wait_for_reason("nightly", "ImportSucceeded").attempts, Some(1));
    }
    assert_eq!(env.accepted_count(), 1);
    env.check_invariants();
}

#[test]
fn self_heal_reverts_the_spec_and_keeps_the_annotations_of_actions() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let _operator = env.start_operator(&[]);
    let manifest = tracked("nightly", "d0", json!({"backoffLimit": 0, "suspend": false}));
    server_side(&env, &manifest);
    env.wait_for_reason("nightly", "Importing");
    // Drift and an action, both by other field managers than the controller of Argo CD.
    env.patch("nightly", &json!({"spec": {"backoffLimit": 3}}));
    env.annotate("nightly", "personalize-operator.io/reconcile-requested-at=2026-11-01T03:00:00Z");
    server_side(&env, &manifest);
    let healed = env.get("nightly").unwrap();
    assert_eq!(healed.spec.backoff_limit, 0);
    assert_eq!(
        healed.metadata.annotations.unwrap()["personalize-operator.io/reconcile-requested-at"],
        "2026-11-01T03:00:00Z"
    );

    // A suspension by an action survives. One in the spec would not, because Git sets false.
    let suspended = tracked("suspended", "nowhere", json!({"suspend": false}));
    server_side(&env, &suspended);
    env.wait_for_reason("suspended", "DatasetNotReady");
    env.annotate("suspended", "personalize-operator.io/suspend=true");
    env.wait_for_reason("suspended", "Suspended");
    server_side(&env, &suspended);
    env.service.put_dataset("nowhere", "ACTIVE");
    env.annotate("suspended", "personalize-operator.io/reconcile-requested-at=now");
    eventually("the operator handles the request", || {
        (env.status("suspended").last_handled_reconcile_at.as_deref() == Some("now")).then_some(())
    });
    env.wait_for_reason("suspended", "Suspended");
    env.service.set_durations(1, 1);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 1);
    env.check_invariants();
}

#[test]
fn many_datasets_synced_repeatedly_are_imported_once_each() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    let set: Vec<Value> = (0..12).map(|i| tracked(&format!("dataset-{i}"), &format!("d{i}"), json!({}))).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": set});
    for _ in 0..3 {
        server_side(&env, &list);
    }
    for i in 0..12 {
        env.wait_for_reason(&format!("dataset-{i}"), "ImportSucceeded");
        server_side(&env, &list);
    }
    assert_eq!(env.accepted_count(), 12);
    env.check_invariants();
}
