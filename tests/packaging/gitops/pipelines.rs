//! The recipes for pipelines: their scripts run in a shell with the permissions of their service account, and their
//! conditions are evaluated on resources of the API server.

use super::kstatus::each_reason;
use super::manifests::{blocks, on_a_day, task_scripts};
use super::tool::{live, output};
use crate::chart::helm::{documents, read};
use crate::env::{TestEnv, dataset_arn, eventually, shared_control_plane, text};
use personalize_operator::api::conditions::{OWN, Reason, StatusPhase, set};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

const RECIPE: &str = "docs/recipes/pipelines.md";

/// A folder of programs: a kubectl with the namespace and the credentials of this service account, as in a pod, and
/// scripts that replace other programs.
fn programs(env: &TestEnv, account: &str, others: &[(&str, &str)]) -> PathBuf {
    let bin = env.dir().join("bin");
    fs::create_dir_all(&bin).unwrap();
    let kubeconfig = env.dir().join("pod.kubeconfig");
    let user = format!("system:serviceaccount:{}:{account}", env.namespace);
    env.control_plane.kubeconfig_for(&user, &["system:authenticated"], &kubeconfig).unwrap();
    let script = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        fs::write(bin.join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    let kubectl = control_plane::path_of("kubectl").unwrap();
    let kubectl =
        format!("exec {} --kubeconfig {} -n {} \"$@\"", kubectl.display(), kubeconfig.display(), env.namespace);
    script("kubectl", &kubectl);
    for (name, text) in others {
        script(name, text);
    }
    bin
}

/// Runs a command in the folder of the test, with these programs first in PATH.
fn run(env: &TestEnv, bin: &std::path::Path, command: &[&str], variables: &[(&str, String)]) -> Output {
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut run = Command::new(command[0]);
    run.args(&command[1..])
        .current_dir(env.dir())
        .env("PATH", path)
        .env("HOME", env.dir())
        .envs(variables.iter().cloned());
    run.output().unwrap()
}

/// Runs the script of the weekly CronJob with the permissions of its service account, in this week.
fn run_weekly(env: &TestEnv, cron_job: &Value, week: &str) {
    let container = &cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
    let bin = programs(env, "weekly-import", &[("date", &format!("echo {week}"))]);
    let strings = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let command = [strings(&container["command"]), strings(&container["args"])].concat();
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let variables = container["env"].as_array().unwrap().iter().map(|variable| {
        // The fake service has other datasets and data.
        let (name, value) = (variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap());
        let value = match name {
            "DATASET" => dataset_arn("d0"),
            "DATA" => "s3://bucket/interactions.csv".into(),
            _ => value.to_owned(),
        };
        (name, value)
    });
    let output = run(env, &bin, &command, &variables.collect::<Vec<_>>());
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn weekly_job_that_runs_twice_imports_once_and_keeps_eight_resources() {
    let env = TestEnv::new();
    let manifests = read("examples/pipelines/weekly.yaml");
    let here = manifests.replace("namespace: shop", &format!("namespace: {}", env.namespace));
    let applied = shared_control_plane().kubectl(&["apply", "-f", "-"], Some(&here)).unwrap();
    assert!(applied.status.success(), "{}", text(&applied));
    let cron_job = documents(&here).into_iter().find(|d| d["kind"] == "CronJob").unwrap();
    let _operator = env.start_operator(&[]);
    env.service.set_durations(1, 1);
    for week in 10..20 {
        let runs = if week < 12 { 2 } else { 1 };
        let week = format!("2026-w{week}");
        for _ in 0..runs {
            run_weekly(&env, &cron_job, &week);
        }
        env.wait_for_reason(&format!("weekly-{week}"), "ImportSucceeded");
    }
    assert_eq!(env.accepted_count(), 10);
    let remaining = text(&env.kubectl(&["get", "dij", "-o", "name"]));
    assert_eq!(remaining.lines().count(), 8, "{remaining}");
    assert!(env.get("weekly-2026-w11").is_none() && env.get("weekly-2026-w12").is_some());
}

/// Outcomes of an import: the reason, the dataset and the data that lead to it, and whether it is a success.
const OUTCOMES: [(&str, &str, &str, bool); 3] = [
    ("ImportSucceeded", "d0", "s3://bucket/interactions.csv", true),
    ("ImportFailed", "d1", "s3://bucket/few.csv", false),
    // The service rejects it.
    ("InvalidInput", "d2", "s3://bucket/interactions.csv", false),
];

/// Changes a manifest of the recipe so that its import has this outcome.
fn with_outcome(manifest: &str, env: &TestEnv, (_, dataset, data, _): (&str, &str, &str, bool)) -> String {
    let arn = regex::Regex::new(r"datasetArn: .*").unwrap();
    let location = regex::Regex::new(r"dataSource:\n +dataLocation: .*").unwrap();
    let manifest = arn.replace(manifest, format!("datasetArn: {}", dataset_arn(dataset)));
    let manifest = location.replace(&manifest, format!("dataSource: {{dataLocation: {data}}}\n"));
    manifest.replace("namespace: shop", &format!("namespace: {}", env.namespace))
}

/// Applies the service account and the permissions of the recipe.
fn create_importer(env: &TestEnv) {
    let manifests: Vec<String> = blocks(&read(RECIPE), "yaml")
        .into_iter()
        .map(|(_, text)| text)
        .filter(|text| text.contains("kind: RoleBinding"))
        .map(|text| text.replace("namespace: shop", &format!("namespace: {}", env.namespace)))
        .collect();
    assert_eq!(manifests.len(), 1);
    let applied = env.control_plane.kubectl(&["apply", "-f", "-"], Some(&manifests[0])).unwrap();
    assert!(applied.status.success(), "{}", text(&applied));
}

/// The workflow of the recipe, and its template that waits for a resource.
fn workflow_template() -> (Value, Value) {
    let markdown = read(RECIPE);
    let workflow = blocks(&markdown, "yaml").into_iter().flat_map(|(_, text)| documents(&text)).next().unwrap();
    let templates = workflow["spec"]["templates"].as_array().unwrap();
    let resource = templates.iter().find(|t| t["resource"].is_object()).unwrap()["resource"].clone();
    (workflow, resource)
}

/// What Argo Workflows makes of this object with the conditions of the template: Running, Succeeded or Failed.
fn node_phase(template: &Value, object: &Value) -> String {
    let conditions = ["successCondition", "failureCondition"].map(|condition| template[condition].as_str().unwrap());
    output("argo-match", &conditions, &object.to_string()).trim().to_owned()
}

#[test]
fn workflow_finishes_with_the_outcome_of_its_import() {
    let env = TestEnv::new();
    create_importer(&env);
    env.service.reject_imports_into("d2");
    let (workflow, resource) = workflow_template();
    let bin = programs(&env, workflow["spec"]["serviceAccountName"].as_str().unwrap(), &[]);
    let action = resource["action"].as_str().unwrap();
    env.service.set_durations(100, 600_000);
    for (number, outcome) in OUTCOMES.into_iter().enumerate() {
        let name = format!("interactions-2026-11-2{}", 4 + number);
        let manifest = on_a_day(resource["manifest"].as_str().unwrap()).replace("interactions-2026-11-24", &name);
        fs::write(env.dir().join("manifest.yaml"), with_outcome(&manifest, &env, outcome)).unwrap();
        let applied = run(&env, &bin, &["kubectl", action, "-f", "manifest.yaml"], &[]);
        assert!(applied.status.success(), "{}", text(&applied));
        assert_eq!(node_phase(&resource, &live(&env, &name)), "Running", "{} is not observed yet", outcome.0);
    }
    let _operator = env.start_operator(&[]);
    env.wait_for_reason("interactions-2026-11-24", "Importing");
    assert_eq!(node_phase(&resource, &live(&env, "interactions-2026-11-24")), "Running");
    env.service.set_durations(1, 1);
    for (number, (reason, _, _, success)) in OUTCOMES.into_iter().enumerate() {
        let name = format!("interactions-2026-11-2{}", 4 + number);
        env.wait_for_reason(&name, reason);
        let expected = if success { "Succeeded" } else { "Failed" };
        assert_eq!(node_phase(&resource, &live(&env, &name)), expected, "{reason}");
    }
}

#[test]
fn workflow_finishes_for_each_reason_behind_a_condition_of_another_controller() {
    let (_, resource) = workflow_template();
    for (mut object, reason) in each_reason().into_iter().zip(Reason::ALL) {
        let conditions = object["status"]["conditions"].as_array_mut().unwrap();
        let foreign =
            serde_json::json!({"type": "example.org/Billed", "status": "True", "reason": "Billed", "message": ""});
        conditions.insert(0, foreign);
        let expected = match reason.phase() {
            StatusPhase::Succeeded => "Succeeded",
            StatusPhase::Failed | StatusPhase::Stalled => "Failed",
            _ => "Running",
        };
        assert_eq!(node_phase(&resource, &object), expected, "{reason:?}");
    }
}

/// Workflows from before `status.phase` address conditions by their index.
#[test]
fn conditions_keep_their_order() {
    for reason in Reason::ALL {
        let mut status = personalize_operator::api::DatasetImportJobStatus::default();
        set(&mut status, 1, *reason, "", jiff::Timestamp::now());
        assert_eq!(status.conditions.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>(), OWN[..4], "{reason:?}");
    }
}

#[test]
fn waiting_scripts_exit_with_the_outcome_of_the_import() {
    let env = TestEnv::new();
    create_importer(&env);
    env.service.reject_imports_into("d2");
    let _operator = env.start_operator(&[]);
    env.service.set_durations(1, 1);
    let bin = programs(&env, "importer", &[]);
    let markdown = read(RECIPE);
    let scripts: Vec<String> = blocks(&markdown, "sh").into_iter().map(|(_, text)| text).collect();
    let [wait, poll] = scripts.as_slice() else { panic!("{scripts:?}") };
    let tasks: Vec<String> = blocks(&markdown, "yaml").iter().flat_map(|(_, text)| task_scripts(text)).collect();
    let python = blocks(&markdown, "python").remove(0).1;
    let airflow = python.split("\"\"\"").nth(1).unwrap();
    let sh = |script: &str, name: &str| {
        let script = script.replace("interactions-2026-11-24", name).replace("sleep 10", "sleep 1");
        run(&env, &bin, &["sh", "-euc", &script], &[])
    };
    let manifest = TestEnv::manifest("interactions-2026-11-24", "any", serde_json::json!({}));
    let manifest = serde_yaml::to_string(&manifest).unwrap();
    for (number, outcome) in OUTCOMES.into_iter().enumerate() {
        let (reason, _, _, success) = outcome;
        let name = format!("one-{number}");
        let manifest = with_outcome(&manifest, &env, outcome).replace("interactions-2026-11-24", &name);
        fs::write(env.dir().join("import.yaml"), manifest).unwrap();
        let polled = sh(poll, &name);
        assert_eq!(polled.status.success(), success, "{reason}: {}", text(&polled));
        assert!(success || text(&polled).contains(&format!("{reason}: ")), "{}", text(&polled));
        // It ends only with its timeout if the import fails.
        let waited = sh(&wait.replace("6h", if success { "60s" } else { "2s" }), &name);
        assert_eq!(waited.status.success(), success, "{reason}: {}", text(&waited));
        for (tool, script) in [("tekton", tasks[0].as_str()), ("airflow", airflow)] {
            let script = with_outcome(&on_a_day(script), &env, outcome);
            // A repeated task finds its import.
            for _ in 0..2 {
                let ran = sh(&script, &format!("{tool}-{number}"));
                assert_eq!(ran.status.success(), success, "{tool}, {reason}: {}", text(&ran));
            }
            env.wait_for_reason(&format!("{tool}-{number}"), reason);
        }
    }
    eventually("each import is submitted once", || (env.accepted_count() == 6).then_some(()));
    env.check_invariants();
}
