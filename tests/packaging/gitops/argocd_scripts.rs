//! The Lua scripts for Argo CD, run by Argo CD's own Lua engine with the libraries that it allows for argocd-cm: on the
//! test cases in Argo CD's layout, and on live resources.

use super::tool::{files, live, output};
use crate::chart::helm::{compare, file, read};
use crate::env::{TestEnv, eventually, text};
use personalize_operator::api::GROUP;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const ACTIONS: [&str; 4] = ["reconcile", "resume", "retry", "suspend"];

fn customization() -> PathBuf {
    file("gitops/argocd/resource_customizations").join(GROUP).join("DatasetImportJob")
}

fn yaml(path: impl AsRef<Path>) -> Value {
    let path = customization().join(path);
    serde_yaml::from_str(&read(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn lua(mode: &str, script: &str, object: &Value) -> Value {
    let script = customization().join(script);
    let result = output("argocd-lua", &[mode, script.to_str().unwrap()], &object.to_string());
    serde_json::from_str(&result).unwrap()
}

pub fn health(object: &Value) -> Value {
    lua("health", "health.lua", object)
}

/// The names of the enabled actions.
fn enabled_actions(object: &Value) -> Vec<String> {
    let all = lua("discover", "actions/discovery.lua", object);
    let mut names: Vec<String> = all
        .as_array()
        .unwrap()
        .iter()
        .filter(|a| a["disabled"] != true)
        .map(|a| a["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// The resource as the action changes it.
fn run_action(action: &str, object: &Value) -> Value {
    let changes = lua("action", &format!("actions/{action}/action.lua"), object);
    let changes = changes.as_array().unwrap();
    assert_eq!(changes.len(), 1, "an action patches only its resource");
    assert_eq!(changes[0]["operation"], "patch");
    changes[0]["resource"].clone()
}

#[test]
fn health_script_passes_its_cases() {
    let cases = yaml("health_test.yaml");
    let cases = cases["tests"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let input = case["inputPath"].as_str().unwrap();
        assert_eq!(health(&yaml(input)), case["healthStatus"], "{input}");
    }
}

#[test]
fn action_scripts_pass_their_cases() {
    let cases = yaml("actions/action_test.yaml");
    let read_case = |path: &Value| yaml(format!("actions/{}", path.as_str().unwrap()));
    for case in cases["discoveryTests"].as_array().unwrap() {
        let actions = lua("discover", "actions/discovery.lua", &read_case(&case["inputPath"]));
        let by_name = |list: &Value| {
            let mut list = list.as_array().unwrap().clone();
            list.sort_by_key(|a| a["name"].to_string());
            // Only one of the lists contains fields that are false.
            list.iter_mut().filter_map(Value::as_object_mut).for_each(|a| a.retain(|_, v| *v != json!(false)));
            list
        };
        assert_eq!(by_name(&actions), by_name(&case["result"]), "{}", case["inputPath"]);
    }
    for case in cases["actionTests"].as_array().unwrap() {
        let mut changed = run_action(case["action"].as_str().unwrap(), &read_case(&case["inputPath"]));
        let expected = read_case(&case["expectedOutputPath"]);
        // The annotation holds the current time, not the time of the case.
        for (key, value) in changed["metadata"]["annotations"].as_object_mut().unwrap() {
            if key.ends_with("-requested-at") {
                let requested: jiff::Timestamp = value.as_str().unwrap().parse().unwrap();
                assert!(jiff::Timestamp::now().duration_since(requested).as_secs().abs() < 600, "{requested}");
                *value = expected["metadata"]["annotations"][key].clone();
            }
        }
        assert_eq!(changed, expected, "{case}");
    }
    let mut scripts: Vec<String> = files(&customization().join("actions"), "lua")
        .iter()
        .filter(|f| f.ends_with("action.lua"))
        .map(|f| f.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    scripts.sort();
    assert_eq!(scripts, ACTIONS, "ACTIONS lists every action");
}

#[test]
fn argocd_cm_snippet_contains_the_scripts() {
    let script = |path: &str| read(customization().join(path));
    let indented = |text: &str, by: usize| -> String {
        let pad = " ".repeat(by);
        text.lines().map(|l| if l.is_empty() { "\n".into() } else { format!("{pad}{l}\n") }).collect()
    };
    let mut expected = format!(
        "# Generated from resource_customizations/ by `make generate`. Merge it into the ConfigMap of Argo CD:\n\
         #   kubectl -n argocd patch configmap argocd-cm --patch-file argocd-cm.yaml\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: argocd-cm\n  namespace: argocd\ndata:\n\
         \x20 resource.customizations.health.{GROUP}_DatasetImportJob: |\n{}\
         \x20 resource.customizations.actions.{GROUP}_DatasetImportJob: |\n    discovery.lua: |\n{}    definitions:\n",
        indented(&script("health.lua"), 4),
        indented(&script("actions/discovery.lua"), 6),
    );
    for action in ACTIONS {
        let lua = indented(&script(&format!("actions/{action}/action.lua")), 10);
        expected.push_str(&format!("      - name: {action}\n        action.lua: |\n{lua}"));
    }
    compare("gitops/argocd/argocd-cm.yaml", &expected);
    // Argo CD parses the actions as YAML within YAML.
    let map: Value = serde_yaml::from_str(&expected).unwrap();
    let actions = map["data"][format!("resource.customizations.actions.{GROUP}_DatasetImportJob")].as_str().unwrap();
    let actions: Value = serde_yaml::from_str(actions).unwrap();
    assert_eq!(actions["discovery.lua"], script("actions/discovery.lua"));
    for (definition, action) in actions["definitions"].as_array().unwrap().iter().zip(ACTIONS) {
        assert_eq!(definition["action.lua"], script(&format!("actions/{action}/action.lua")));
    }
}

#[test]
fn argocd_cm_snippet_keeps_other_entries_of_the_config_map() {
    let env = TestEnv::new();
    let created = env.kubectl(&["create", "configmap", "argocd-cm", "--from-literal=url=https://argocd.example.org"]);
    assert!(created.status.success(), "{}", text(&created));
    let patch =
        read("gitops/argocd/argocd-cm.yaml").replace("namespace: argocd", &format!("namespace: {}", env.namespace));
    let path = env.dir().join("patch.yaml");
    std::fs::write(&path, patch).unwrap();
    let patched = env.kubectl(&["patch", "configmap", "argocd-cm", "--patch-file", path.to_str().unwrap()]);
    assert!(patched.status.success(), "{}", text(&patched));
    let map: Value =
        serde_json::from_slice(&env.kubectl(&["get", "configmap", "argocd-cm", "-o", "json"]).stdout).unwrap();
    assert_eq!(map["data"]["url"], "https://argocd.example.org");
    let health = format!("resource.customizations.health.{GROUP}_DatasetImportJob");
    assert_eq!(map["data"][health], read(customization().join("health.lua")));
}

/// Argo CD's health status of a live resource.
fn live_health(env: &TestEnv, name: &str) -> String {
    health(&live(env, name))["status"].as_str().unwrap().to_owned()
}

/// Runs an enabled action on a live resource, and patches it as Argo CD does.
fn click(env: &TestEnv, name: &str, action: &str) {
    let before = live(env, name);
    let enabled = enabled_actions(&before);
    assert!(enabled.contains(&action.to_owned()), "{action} must be enabled for {name}: {enabled:?}");
    let after = run_action(action, &before);
    assert_eq!(after["spec"], before["spec"], "an action must not change what Git tracks");
    env.patch(name, &json!({"metadata": {"annotations": after["metadata"]["annotations"]}}));
}

#[test]
fn live_resource_has_the_health_of_its_state_and_working_actions() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let few = json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}});
    env.import("good", "d0", json!({}));
    assert_eq!(live_health(&env, "good"), "Progressing", "not observed yet");
    env.import("suspended", "d2", json!({"suspend": true}));
    env.import("waiting", "nowhere", json!({}));
    let _operator = env.start_operator(&[]);
    env.wait_for_reason("good", "Importing");
    assert_eq!(live_health(&env, "good"), "Progressing");
    assert_eq!(enabled_actions(&live(&env, "good")), ["reconcile"]);
    env.wait_for_reason("suspended", "Suspended");
    assert_eq!(live_health(&env, "suspended"), "Suspended");
    assert_eq!(
        enabled_actions(&live(&env, "suspended")),
        ["reconcile"],
        "only Git resumes an import that Git suspends"
    );
    env.wait_for_reason("waiting", "DatasetNotReady");
    assert_eq!(live_health(&env, "waiting"), "Progressing");

    click(&env, "waiting", "suspend");
    env.wait_for_reason("waiting", "Suspended");
    assert_eq!(live_health(&env, "waiting"), "Suspended");
    env.service.put_dataset("nowhere", "ACTIVE");
    click(&env, "waiting", "reconcile");
    eventually("the operator handles the request", || env.status("waiting").last_handled_reconcile_at.map(drop));
    assert_eq!(env.service.call_count("CreateDatasetImportJob"), 1, "only the first import is submitted");
    click(&env, "waiting", "resume");
    env.wait_for_reason("waiting", "Importing");

    env.service.set_durations(1, 1);
    env.wait_for_reason("good", "ImportSucceeded");
    assert_eq!(live_health(&env, "good"), "Healthy");
    assert!(enabled_actions(&live(&env, "good")).is_empty());
    env.import("bad", "d1", few);
    env.wait_for_reason("bad", "ImportFailed");
    assert_eq!(live_health(&env, "bad"), "Degraded");
    click(&env, "bad", "retry");
    eventually("the second attempt finishes", || {
        (env.status("bad").attempts == Some(2) && env.status("bad").completion_time.is_some()).then_some(())
    });
}
