//! The recipes for pipelines, run: their scripts by a shell, with the rights of the service account that they
//! name, and their conditions over resources as the API server has them.

use crate::env::{TestEnv, eventually, shared_control_plane, text};
use crate::manifests::{blocks, documents, on_a_day};
use crate::tool::{checkout, live, read};
use personalize_operator::api::conditions::{Reason, set};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

const RECIPE: &str = "docs/recipes/pipelines.md";

/// A folder of programs: kubectl as it is in a pod of this service account, where it finds its namespace and
/// credentials by itself, and scripts in the place of others.
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

/// Runs a command in the env's folder, with these programs before all others.
fn run(env: &TestEnv, bin: &std::path::Path, command: &[&str], vars: &[(&str, String)]) -> Output {
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut run = Command::new(command[0]);
    run.args(&command[1..]).current_dir(env.dir()).env("PATH", path).env("HOME", env.dir()).envs(vars.iter().cloned());
    run.output().unwrap()
}

/// Runs the script of the weekly CronJob as its service account would, with that week's date.
fn run_weekly(env: &TestEnv, cron_job: &Value, week: &str) {
    let container = &cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
    let bin = programs(env, "weekly-import", &[("date", &format!("echo {week}"))]);
    let strings = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let command = [strings(&container["command"]), strings(&container["args"])].concat();
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let variables = container["env"].as_array().unwrap().iter().map(|variable| {
        // The stand-in's datasets and data have other names.
        let (name, value) = (variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap());
        let value = match name {
            "DATASET" => crate::env::dataset_arn("d0"),
            "DATA" => "s3://bucket/interactions.csv".into(),
            _ => value.to_owned(),
        };
        (name, value)
    });
    let output = run(env, &bin, &command, &variables.collect::<Vec<_>>());
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn the_weekly_job_imports_once_a_week_however_often_it_runs_and_keeps_eight() {
    let env = TestEnv::new();
    let manifests = read(&checkout("examples/pipelines/weekly.yaml"));
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
    let left = env.kubectl(&["get", "dij", "-o", "name"]);
    assert_eq!(text(&left).lines().count(), 8, "{}", text(&left));
    assert!(env.get("weekly-2026-w11").is_none() && env.get("weekly-2026-w12").is_some());
}

/// How an import may end, what makes it so, and whether that is well.
const ENDS: [(&str, &str, &str, bool); 3] = [
    ("ImportSucceeded", "d0", "s3://bucket/interactions.csv", true),
    ("ImportFailed", "d1", "s3://bucket/few.csv", false),
    // The service has no data to add to there.
    ("InvalidInput", "d2", "s3://bucket/interactions.csv\n  importMode: INCREMENTAL", false),
];

/// A manifest of the recipe for this env, so that it ends in one of these ways.
fn ending(manifest: &str, env: &TestEnv, (_, dataset, data, _): (&str, &str, &str, bool)) -> String {
    let arn = regex::Regex::new(r"datasetArn: .*").unwrap();
    let location = regex::Regex::new(r"dataSource:\n +dataLocation: .*").unwrap();
    let manifest = arn.replace(manifest, format!("datasetArn: {}", crate::env::dataset_arn(dataset)));
    let (data, more) = data.split_once('\n').unwrap_or((data, ""));
    let manifest = location.replace(&manifest, format!("dataSource: {{dataLocation: {data}}}\n{more}"));
    manifest.replace("namespace: shop", &format!("namespace: {}", env.namespace))
}

/// The service account that the recipe makes, with its rights.
fn importer(env: &TestEnv) {
    let manifests: Vec<String> = blocks(&read(&checkout(RECIPE)), "yaml")
        .into_iter()
        .map(|(_, text)| text)
        .filter(|text| text.contains("kind: RoleBinding"))
        .map(|text| text.replace("namespace: shop", &format!("namespace: {}", env.namespace)))
        .collect();
    assert_eq!(manifests.len(), 1);
    let applied = env.control_plane.kubectl(&["apply", "-f", "-"], Some(&manifests[0])).unwrap();
    assert!(applied.status.success(), "{}", text(&applied));
}

#[test]
fn a_workflow_ends_when_the_import_does_and_as_it_does() {
    let env = TestEnv::new();
    importer(&env);
    let markdown = read(&checkout(RECIPE));
    let workflow = blocks(&markdown, "yaml").into_iter().flat_map(|(_, text)| documents(&text)).next().unwrap();
    let templates = workflow["spec"]["templates"].as_array().unwrap();
    let resource = &templates.iter().find(|t| t["resource"].is_object()).unwrap()["resource"];
    let place = regex::Regex::new(r"^status\.conditions\.(\d)\.status == True$").unwrap();
    let holds = |condition: &str, object: &Value| {
        let at: usize = place.captures(resource[condition].as_str().unwrap()).unwrap()[1].parse().unwrap();
        object["status"]["conditions"][at]["status"] == "True"
    };
    let told = |object: &Value| (holds("successCondition", object), holds("failureCondition", object));
    let bin = programs(&env, workflow["spec"]["serviceAccountName"].as_str().unwrap(), &[]);
    let action = resource["action"].as_str().unwrap();
    env.service.set_durations(100, 600_000);
    for (number, end) in ENDS.into_iter().enumerate() {
        let name = format!("interactions-2026-11-2{}", 4 + number);
        let manifest = on_a_day(resource["manifest"].as_str().unwrap()).replace("interactions-2026-11-24", &name);
        fs::write(env.dir().join("manifest.yaml"), ending(&manifest, &env, end)).unwrap();
        let applied = run(&env, &bin, &["kubectl", action, "-f", "manifest.yaml"], &[]);
        assert!(applied.status.success(), "{}", text(&applied));
        assert_eq!(told(&live(&env, &name)), (false, false), "{} is not seen yet", end.0);
    }
    let _operator = env.start_operator(&[]);
    env.wait_for_reason("interactions-2026-11-24", "Importing");
    assert_eq!(told(&live(&env, "interactions-2026-11-24")), (false, false));
    env.service.set_durations(1, 1);
    for (number, (reason, _, _, well)) in ENDS.into_iter().enumerate() {
        let name = format!("interactions-2026-11-2{}", 4 + number);
        env.wait_for_reason(&name, reason);
        assert_eq!(told(&live(&env, &name)), (well, !well), "{reason}");
    }
}

#[test]
fn the_conditions_come_in_the_order_that_the_recipe_tells() {
    let recipe = read(&checkout(RECIPE)).replace('\n', " ");
    let told = regex::Regex::new(r"in the order ([^;]*);").unwrap().captures(&recipe).unwrap()[1].to_owned();
    for reason in Reason::ALL {
        let mut status = personalize_operator::api::DatasetImportJobStatus::default();
        set(&mut status, 1, *reason, "", jiff::Timestamp::now());
        let order = status.conditions.iter().enumerate().map(|(at, c)| format!("{} ({at})", c.type_));
        assert_eq!(order.collect::<Vec<_>>().join(", "), told, "{reason:?}");
    }
}

#[test]
fn the_scripts_that_wait_end_as_the_import_does() {
    let env = TestEnv::new();
    importer(&env);
    let _operator = env.start_operator(&[]);
    env.service.set_durations(1, 1);
    let bin = programs(&env, "importer", &[]);
    let markdown = read(&checkout(RECIPE));
    let scripts: Vec<String> = blocks(&markdown, "sh").into_iter().map(|(_, text)| text).collect();
    let [wait, give_up] = scripts.as_slice() else { panic!("{scripts:?}") };
    let python = blocks(&markdown, "python").remove(0).1;
    let airflow = python.split("\"\"\"").nth(1).unwrap();
    // A rejected import is found out at the second look; how long the first one lasts is the reader's to say.
    let give_up = give_up.replace("--timeout=60s", "--timeout=2s");
    let sh = |script: &str, name: &str| {
        let script = script.replace("interactions-2026-11-24", name);
        run(&env, &bin, &["sh", "-euc", &script], &[])
    };
    let manifest = TestEnv::manifest("interactions-2026-11-24", "any", serde_json::json!({}));
    let manifest = serde_yaml::to_string(&manifest).unwrap();
    for (number, end) in ENDS.into_iter().enumerate() {
        let (reason, _, _, well) = end;
        let name = format!("one-{number}");
        let of_script = ending(&manifest, &env, end).replace("interactions-2026-11-24", &name);
        fs::write(env.dir().join("import.yaml"), of_script).unwrap();
        if reason != "InvalidInput" {
            let waited = sh(wait, &name);
            assert_eq!(waited.status.success(), well, "{reason}: {}", text(&waited));
            let run = sh(&ending(&on_a_day(airflow), &env, end), &format!("two-{number}"));
            assert_eq!(run.status.success(), well, "{reason}: {}", text(&run));
            env.wait_for_reason(&format!("two-{number}"), reason);
            let again = sh(&ending(&on_a_day(airflow), &env, end), &format!("two-{number}"));
            assert_eq!(again.status.success(), well, "a repeated task finds its import: {}", text(&again));
        } else {
            let applied = run(&env, &bin, &["kubectl", "apply", "-f", "import.yaml"], &[]);
            assert!(applied.status.success(), "{}", text(&applied));
        }
        // It goes on once the import has ended, and gives up on one that is rejected.
        let gone_on = sh(&give_up, &name).status.success();
        assert_eq!(gone_on, reason != "InvalidInput", "{reason}");
        env.wait_for_reason(&name, reason);
    }
    eventually("each was made once", || (env.accepted_count() == 4).then_some(()));
    env.check_invariants();
}
