//! What Argo CD's syncs do to a resource, done by the commands that stand behind them: whatever it is,
//! the ledger of the service shows one import.

use crate::argocd_scripts::health;
use crate::env::{TestEnv, dataset_arn, eventually, text};
use crate::manifests::{blocks, documents};
use crate::tool::{checkout, live, read};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Output;

fn kubectl(env: &TestEnv, args: &[&str], manifest: &Value) -> Output {
    let args: Vec<&str> = ["-n", &env.namespace].into_iter().chain(args.iter().copied()).collect();
    env.control_plane.kubectl(&args, Some(&manifest.to_string())).unwrap()
}

fn well(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

/// A sync with `ServerSideApply=true`.
fn server_side(env: &TestEnv, manifest: &Value) {
    let args = ["apply", "--server-side", "--force-conflicts", "--field-manager=argocd-controller", "-f", "-"];
    well(&kubectl(env, &args, manifest));
}

/// As Argo CD tracks what it has applied.
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
fn a_hook_that_is_deleted_and_made_anew_before_each_sync_imports_once() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let _operator = env.start_operator(&[]);
    let mut hook = tracked("hook", "d0", json!({}));
    hook["metadata"]["annotations"]["argocd.argoproj.io/hook"] = "PreSync".into();
    server_side(&env, &hook);
    env.wait_for_reason("hook", "Importing");
    // BeforeHookCreation: in mid-flight, and after the end.
    for again in ["in flight", "ended"] {
        let before = uid(&env, "hook");
        env.delete("hook");
        server_side(&env, &hook);
        assert_ne!(uid(&env, "hook"), before, "{again}");
        env.service.set_durations(1, 1);
        env.wait_for_reason("hook", "ImportSucceeded");
    }
    assert_eq!(env.accepted_count(), 1);
    env.check_invariants();
}

/// Waits until Argo CD takes it for ended, and tells as what.
fn ended(env: &TestEnv, name: &str) -> String {
    eventually("it is neither on its way nor held", || {
        let told = health(&live(env, name))["status"].as_str().unwrap().to_owned();
        ["Healthy", "Degraded"].contains(&told.as_str()).then_some(told)
    })
}

/// A sync in waves: each is applied once all of the one before it are healthy. Tells what it failed at.
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
            if ended(env, name) != "Healthy" {
                return Err(name.to_owned());
            }
        }
    }
    Ok(())
}

#[test]
fn a_later_wave_begins_when_the_data_of_the_earlier_one_is_there() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let _operator = env.start_operator(&[]);
    // The first is the import that the docs show, with the stand-in's dataset and data.
    let markdown = read(&checkout("docs/argocd.md"));
    let mut first = blocks(&markdown, "yaml").into_iter().flat_map(|(_, text)| documents(&text)).next().unwrap();
    let named = first["metadata"]["name"].as_str().unwrap().to_owned();
    let stand_in = TestEnv::manifest(&named, "d0", json!({}));
    first["spec"] = stand_in["spec"].clone();
    assert_eq!(first["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"], "1");
    let mut second = tracked("second", "d0", json!({"importMode": "INCREMENTAL"}));
    second["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"] = "2".into();
    // As Git lists them, which is no order.
    let application = [second, first];
    std::thread::scope(|scope| {
        let syncing = scope.spawn(|| sync(&env, &application));
        env.wait_for_reason(&named, "Importing");
        assert!(env.get("second").is_none(), "wave 2 waits");
        env.service.set_durations(1, 1);
        assert_eq!(syncing.join().unwrap(), Ok(()));
    });
    let (before, after) = (env.status(&named), env.status("second"));
    assert!(before.completion_time.unwrap() <= after.creation_date_time.unwrap(), "one after the other");
    assert_eq!(sync(&env, &application), Ok(()), "another sync finds all of it done");
    assert_eq!(env.accepted_count(), 2);

    let mut failing = tracked("failing", "d1", json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    let mut rejected = tracked("rejected", "d2", json!({"importMode": "INCREMENTAL"}));
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
fn a_hook_that_is_deleted_once_it_has_ended_finds_its_job_at_the_next_sync() {
    let env = TestEnv::new();
    env.service.set_durations(1, 1);
    let _operator = env.start_operator(&[]);
    let few = json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}});
    for (policy, dataset, edit, end) in
        [("HookSucceeded", "d0", json!({}), "Healthy"), ("HookFailed", "d1", few, "Degraded")]
    {
        let name = policy.to_lowercase();
        let mut hook = tracked(&name, dataset, edit);
        let annotations = &mut hook["metadata"]["annotations"];
        annotations["argocd.argoproj.io/hook"] = "Sync".into();
        annotations["argocd.argoproj.io/hook-delete-policy"] = policy.into();
        for round in 0..3 {
            server_side(&env, &hook);
            assert_eq!(ended(&env, &name), end, "{policy}, sync {round}");
            env.delete(&name);
        }
    }
    assert_eq!(env.accepted_count(), 2, "one for each of the two");
    env.check_invariants();
}

/// The Applications that an ApplicationSet's list generator makes of its template.
fn applications(set: &Value, elements: &[Value]) -> Vec<Value> {
    let field = regex::Regex::new(r"\{\{ (lower )?\.(\w+) \}\}").unwrap();
    let made = elements.iter().map(|element| {
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
    made.collect()
}

/// What the chart that the example speaks of would render for an Application, for the stand-in's service.
fn import_of(application: &Value) -> Value {
    let values = &application["spec"]["source"]["helm"]["valuesObject"];
    let arn = values["datasetArn"].as_str().unwrap();
    let (_, dataset) = arn.split_once(":dataset/").unwrap();
    let edit = json!({"datasetArn": dataset_arn(&dataset.replace('/', "-"))});
    assert!(values["dataLocation"].as_str().unwrap().starts_with("s3://"), "{values}");
    tracked(values["name"].as_str().unwrap(), "", edit)
}

#[test]
fn a_dataset_that_leaves_the_list_and_comes_back_is_not_imported_again_and_a_new_month_is() {
    let env = TestEnv::new();
    crate::crds::install();
    env.service.set_durations(1, 1);
    let _operator = env.start_operator(&[]);
    let example = read(&checkout("examples/argocd/datasets.yaml"));
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
        let made = applications(&documents(git)[0], elements);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": made.iter().map(|a| {
            let mut here = a.clone();
            here["metadata"]["namespace"] = env.namespace.clone().into();
            here
        }).collect::<Vec<_>>()});
        let taken = eventually("the API server serves Applications", || {
            let output = kubectl(&env, &["apply", "--dry-run=server", "--validate=strict", "-f", "-"], &list);
            (!text(&output).contains("no matches for kind")).then_some(output)
        });
        well(&taken);
        let manifests: Vec<Value> = made.iter().map(import_of).collect();
        let names: Vec<String> = manifests.iter().map(|m| m["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        // An Application that is no longer generated takes its resources with it.
        for gone in imported.iter().filter(|name| !names.contains(name)) {
            env.delete(gone);
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
    well(&kubectl(&env, &["create", "-f", "-"], &manifest));
    env.wait_for_reason("nightly", "ImportSucceeded");
    // Replace=true.
    let before = uid(&env, "nightly");
    well(&kubectl(&env, &["replace", "-f", "-"], &manifest));
    assert_eq!(uid(&env, "nightly"), before);
    // Replace=true,Force=true.
    well(&kubectl(&env, &["replace", "--force", "-f", "-"], &manifest));
    assert_ne!(uid(&env, "nightly"), before);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 1);

    let changed = tracked("nightly", "d1", json!({}));
    for args in [vec!["apply", "-f", "-"], vec!["replace", "-f", "-"]] {
        let refused = kubectl(&env, &args, &changed);
        assert!(!refused.status.success());
        assert!(
            text(&refused).contains("datasetArn is immutable: to import into another dataset"),
            "{}",
            text(&refused)
        );
    }
    well(&kubectl(&env, &["replace", "--force", "-f", "-"], &changed));
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 2, "another import, made once");
    env.check_invariants();
}

#[test]
fn pruned_and_applied_again_or_deleted_and_healed_it_is_the_same_import() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    let manifest = tracked("nightly", "d0", json!({}));
    server_side(&env, &manifest);
    env.wait_for_reason("nightly", "ImportSucceeded");
    for _ in 0..2 {
        // A prune is a delete with foreground propagation; it must not hang.
        let pruned = env.kubectl(&["delete", "dij", "nightly", "--cascade=foreground", "--timeout=30s"]);
        well(&pruned);
        server_side(&env, &manifest);
        let done = env.wait_for_reason("nightly", "ImportSucceeded");
        assert_eq!(done.attempts, Some(1));
    }
    assert_eq!(env.accepted_count(), 1);
    env.check_invariants();
}

#[test]
fn self_heal_takes_back_what_git_says_and_leaves_what_actions_set() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let _operator = env.start_operator(&[]);
    let manifest = tracked("nightly", "d0", json!({"backoffLimit": 0, "suspend": false}));
    server_side(&env, &manifest);
    env.wait_for_reason("nightly", "Importing");
    // Drift, and a click: both by other managers than Argo CD's controller.
    env.patch("nightly", &json!({"spec": {"backoffLimit": 3}}));
    env.annotate("nightly", "personalize-operator.io/reconcile-requested-at=2026-11-01T03:00:00Z");
    server_side(&env, &manifest);
    let healed = env.get("nightly").unwrap();
    assert_eq!(healed.spec.backoff_limit, 0);
    assert_eq!(
        healed.metadata.annotations.unwrap()["personalize-operator.io/reconcile-requested-at"],
        "2026-11-01T03:00:00Z"
    );

    // A suspension by action survives; one in the spec would not, as Git says false.
    let held = tracked("held", "nowhere", json!({"suspend": false}));
    server_side(&env, &held);
    env.wait_for_reason("held", "DatasetNotReady");
    env.annotate("held", "personalize-operator.io/suspend=true");
    env.wait_for_reason("held", "Suspended");
    server_side(&env, &held);
    env.service.put_dataset("nowhere", "ACTIVE");
    env.annotate("held", "personalize-operator.io/reconcile-requested-at=now");
    eventually("the request was handled", || {
        (env.status("held").last_handled_reconcile_at.as_deref() == Some("now")).then_some(())
    });
    env.wait_for_reason("held", "Suspended");
    env.service.set_durations(1, 1);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 1);
    env.check_invariants();
}

#[test]
fn many_datasets_at_once_are_imported_once_each_however_often_they_are_synced() {
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
