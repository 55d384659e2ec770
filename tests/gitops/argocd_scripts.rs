//! The customization for Argo CD, on Argo CD's own Lua engine with the libraries that it allows to
//! scripts from argocd-cm: over the cases in Argo CD's own layout, and over live resources.

use crate::env::{TestEnv, eventually, text};
use crate::tool::{checkout, compare, live, output, read};
use personalize_operator::api::GROUP;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const ACTIONS: [&str; 4] = ["reconcile", "resume", "retry", "suspend"];

fn customization() -> PathBuf {
    checkout("gitops/argocd/resource_customizations").join(GROUP).join("DatasetImportJob")
}

fn yaml(path: &Path) -> Value {
    serde_yaml::from_str(&read(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn lua(mode: &str, script: &Path, object: &Value) -> Value {
    let told = output("argocd-lua", &[mode, script.to_str().unwrap()], &object.to_string());
    serde_json::from_str(&told).unwrap()
}

pub fn health(object: &Value) -> Value {
    lua("health", &customization().join("health.lua"), object)
}

/// The names of the actions that are offered and not disabled.
fn offered(object: &Value) -> Vec<String> {
    let all = lua("discover", &customization().join("actions/discovery.lua"), object);
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

/// What the action makes of the resource.
fn acted(action: &str, object: &Value) -> Value {
    let made = lua("action", &customization().join("actions").join(action).join("action.lua"), object);
    let made = made.as_array().unwrap();
    assert_eq!(made.len(), 1, "it patches the one resource");
    assert_eq!(made[0]["operation"], "patch");
    made[0]["resource"].clone()
}

#[test]
fn health_is_what_the_cases_expect() {
    let cases = yaml(&customization().join("health_test.yaml"));
    let cases = cases["tests"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let input = case["inputPath"].as_str().unwrap();
        assert_eq!(health(&yaml(&customization().join(input))), case["healthStatus"], "{input}");
    }
}

#[test]
fn actions_are_offered_and_act_as_the_cases_expect() {
    let dir = customization().join("actions");
    let cases = yaml(&dir.join("action_test.yaml"));
    for case in cases["discoveryTests"].as_array().unwrap() {
        let input = case["inputPath"].as_str().unwrap();
        let told = lua("discover", &dir.join("discovery.lua"), &yaml(&dir.join(input)));
        let by_name = |list: &Value| {
            let mut list = list.as_array().unwrap().clone();
            list.sort_by_key(|a| a["name"].to_string());
            // What is false is left out in one of them.
            list.iter_mut().filter_map(Value::as_object_mut).for_each(|a| a.retain(|_, v| *v != json!(false)));
            list
        };
        assert_eq!(by_name(&told), by_name(&case["result"]), "{input}");
    }
    for case in cases["actionTests"].as_array().unwrap() {
        let (action, input) = (case["action"].as_str().unwrap(), case["inputPath"].as_str().unwrap());
        let mut made = acted(action, &yaml(&dir.join(input)));
        let expected = yaml(&dir.join(case["expectedOutputPath"].as_str().unwrap()));
        // The time of the click is not the time in the case.
        for (key, value) in made["metadata"]["annotations"].as_object_mut().unwrap() {
            if key.ends_with("-requested-at") {
                let clicked: jiff::Timestamp = value.as_str().unwrap().parse().unwrap();
                assert!(jiff::Timestamp::now().duration_since(clicked).as_secs().abs() < 600, "it is the time now");
                *value = expected["metadata"]["annotations"][key].clone();
            }
        }
        assert_eq!(made, expected, "{action} {input}");
    }
    let mut scripts: Vec<String> = crate::tool::files(&dir, "lua")
        .iter()
        .filter(|f| f.ends_with("action.lua"))
        .map(|f| f.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    scripts.sort();
    assert_eq!(scripts, ACTIONS, "every action has its script and its cases");
}

#[test]
fn the_snippet_for_argocd_cm_holds_the_same_scripts() {
    let script = |path: &str| read(&customization().join(path));
    let indented = |text: &str, by: usize| -> String {
        let pad = " ".repeat(by);
        text.lines().map(|l| if l.is_empty() { "\n".into() } else { format!("{pad}{l}\n") }).collect()
    };
    let mut expected = format!(
        "# Generated from resource_customizations/ by `make generate`. Merge it into Argo CD's own ConfigMap:\n\
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
    // As Argo CD reads it: YAML in YAML.
    let map: Value = serde_yaml::from_str(&expected).unwrap();
    let actions = map["data"][format!("resource.customizations.actions.{GROUP}_DatasetImportJob")].as_str().unwrap();
    let actions: Value = serde_yaml::from_str(actions).unwrap();
    assert_eq!(actions["discovery.lua"], script("actions/discovery.lua"));
    for (definition, action) in actions["definitions"].as_array().unwrap().iter().zip(ACTIONS) {
        assert_eq!(definition["action.lua"], script(&format!("actions/{action}/action.lua")));
    }
}

#[test]
fn the_snippet_leaves_the_rest_of_argocd_cm_alone() {
    let env = TestEnv::new();
    let made = env.kubectl(&["create", "configmap", "argocd-cm", "--from-literal=url=https://argocd.example.org"]);
    assert!(made.status.success(), "{}", text(&made));
    // The namespace is another one here; the rest is as users do it.
    let patch = read(&checkout("gitops/argocd/argocd-cm.yaml"))
        .replace("namespace: argocd", &format!("namespace: {}", env.namespace));
    let file = env.dir().join("patch.yaml");
    std::fs::write(&file, patch).unwrap();
    let done = env.kubectl(&["patch", "configmap", "argocd-cm", "--patch-file", file.to_str().unwrap()]);
    assert!(done.status.success(), "{}", text(&done));
    let map: Value =
        serde_json::from_slice(&env.kubectl(&["get", "configmap", "argocd-cm", "-o", "json"]).stdout).unwrap();
    assert_eq!(map["data"]["url"], "https://argocd.example.org");
    let health = format!("resource.customizations.health.{GROUP}_DatasetImportJob");
    assert_eq!(map["data"][health], read(&customization().join("health.lua")));
}

/// Argo CD's health of a live resource, without its message.
fn judged(env: &TestEnv, name: &str) -> String {
    health(&live(env, name))["status"].as_str().unwrap().to_owned()
}

/// Clicks on an action: only if it is offered, and then the patch that Argo CD would send.
fn click(env: &TestEnv, name: &str, action: &str) {
    let before = live(env, name);
    assert!(offered(&before).contains(&action.to_owned()), "{action} is offered for {name}: {:?}", offered(&before));
    let after = acted(action, &before);
    assert_eq!(after["spec"], before["spec"], "an action changes nothing that Git tracks");
    env.patch(name, &json!({"metadata": {"annotations": after["metadata"]["annotations"]}}));
}

#[test]
fn live_states_have_the_health_of_the_table_and_actions_that_work() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let few = json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}});
    env.import("good", "d0", json!({}));
    assert_eq!(judged(&env, "good"), "Progressing", "not seen yet");
    env.import("held", "d2", json!({"suspend": true}));
    env.import("waiting", "nowhere", json!({}));
    let _operator = env.start_operator(&[]);
    env.wait_for_reason("good", "Importing");
    assert_eq!(judged(&env, "good"), "Progressing");
    assert_eq!(offered(&live(&env, "good")), ["reconcile"]);
    env.wait_for_reason("held", "Suspended");
    assert_eq!(judged(&env, "held"), "Suspended");
    assert_eq!(offered(&live(&env, "held")), ["reconcile"], "Git holds it back, so Git has to resume it");
    env.wait_for_reason("waiting", "DatasetNotReady");
    assert_eq!(judged(&env, "waiting"), "Progressing");

    click(&env, "waiting", "suspend");
    env.wait_for_reason("waiting", "Suspended");
    assert_eq!(judged(&env, "waiting"), "Suspended");
    env.service.put_dataset("nowhere", "ACTIVE");
    click(&env, "waiting", "reconcile");
    eventually("the request was handled", || env.status("waiting").last_handled_reconcile_at.map(drop));
    assert_eq!(env.service.call_count("CreateDatasetImportJob"), 1, "only the first was submitted");
    click(&env, "waiting", "resume");
    env.wait_for_reason("waiting", "Importing");

    env.service.set_durations(1, 1);
    env.wait_for_reason("good", "ImportSucceeded");
    assert_eq!(judged(&env, "good"), "Healthy");
    assert!(offered(&live(&env, "good")).is_empty());
    env.import("bad", "d1", few);
    env.wait_for_reason("bad", "ImportFailed");
    assert_eq!(judged(&env, "bad"), "Degraded");
    click(&env, "bad", "retry");
    eventually("another attempt was made", || {
        (env.status("bad").attempts == Some(2) && env.status("bad").completion_time.is_some()).then_some(())
    });
}
