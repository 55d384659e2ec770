//! How Flux, Helm's `--wait` and cli-utils see the states: kstatus, and the code of Flux for its expressions,
//! evaluate resources of the API server.

use super::manifests::blocks;
use super::tool::{live, output};
use crate::chart::helm::{documents, read};
use crate::env::{TestEnv, eventually};
use personalize_operator::api::conditions::{Reason, State, set, summarize};
use serde_json::{Value, json};

/// The kstatus of each object.
fn kstatus(objects: &[Value]) -> Vec<String> {
    evaluate(&[], objects)
}

/// The kstatus of each object, or its status by expressions of Flux.
fn evaluate(expressions: &[&str], objects: &[Value]) -> Vec<String> {
    let input: String = objects.iter().map(|o| format!("{o}\n")).collect();
    let lines = output("kstatus", expressions, &input);
    let status = |line: &str| serde_json::from_str::<Value>(line).unwrap()["status"].as_str().unwrap().to_owned();
    lines.lines().map(status).collect()
}

/// The expected kstatus of each state.
fn expected(state: State) -> &'static str {
    match state {
        State::Succeeded => "Current",
        State::Failed => "Failed",
        State::InProgress | State::Suspended => "InProgress",
    }
}

#[test]
fn kstatus_of_a_live_resource_follows_its_state() {
    let env = TestEnv::new();
    env.service.set_durations(600_000, 600_000);
    let status = |name: &str| kstatus(&[live(&env, name)]).remove(0);
    let check = |name: &str, reason: &str| {
        env.wait_for_reason(name, reason);
        let object = live(&env, name);
        let now = object["status"]["conditions"][0]["reason"].as_str().unwrap().to_owned();
        let state = Reason::ALL.iter().find(|r| r.as_str() == now).unwrap().state();
        assert_eq!(kstatus(&[object])[0], expected(state), "{name} {now}");
    };
    env.import("good", "d0", json!({}));
    assert_eq!(status("good"), "InProgress", "not observed yet");
    env.import("bad", "d1", json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    env.import("suspended", "d2", json!({"suspend": true}));
    env.import("waiting", "nowhere", json!({}));
    env.service.reject_imports_into("d3");
    env.import("rejected", "d3", json!({}));
    env.service.put_job(&json!({
        "name": "existing", "datasetArn": crate::env::dataset_arn("d4"), "dataLocation": "s3://bucket/interactions.csv",
        "roleArn": crate::env::ROLE,
    }));
    env.import("conflict", "d4", json!({"jobName": "existing"}));
    let _operator = env.start_operator(&[]);
    check("good", "Pending");
    env.service.set_durations(0, 600_000);
    check("good", "Importing");
    env.service.set_durations(0, 0);
    check("good", "ImportSucceeded");
    check("bad", "ImportFailed");
    check("suspended", "Suspended");
    check("waiting", "DatasetNotReady");
    check("rejected", "InvalidInput");
    check("conflict", "JobNameConflict");
    // The operator also observes an edit that does not change the import.
    env.patch("good", &json!({"spec": {"backoffLimit": 1}}));
    eventually("the operator observes the new generation", || (status("good") == "Current").then_some(()));
}

/// A resource for each reason.
pub(super) fn each_reason() -> Vec<Value> {
    let resource = |reason: &Reason| {
        let mut status = personalize_operator::api::DatasetImportJobStatus::default();
        set(&mut status, 1, *reason, "", jiff::Timestamp::now());
        summarize(&mut status);
        let mut object = TestEnv::manifest("x", "d0", json!({}));
        object["metadata"]["generation"] = 1.into();
        object["status"] = serde_json::to_value(status).unwrap();
        object
    };
    Reason::ALL.iter().map(resource).collect()
}

#[test]
fn kstatus_of_each_reason_follows_its_state() {
    let objects = each_reason();
    for (status, reason) in kstatus(&objects).iter().zip(Reason::ALL) {
        assert_eq!(status, expected(reason.state()), "{reason:?}");
    }
}

#[test]
fn flux_expressions_of_the_docs_report_a_suspended_import_as_current() {
    let env = TestEnv::new();
    let markdown = read("docs/flux.md");
    let kustomizations = blocks(&markdown, "yaml").into_iter().flat_map(|(_, text)| documents(&text));
    let exprs = kustomizations.map(|k| k["spec"]["healthCheckExprs"][0].clone()).find(Value::is_object).unwrap();
    let exprs = exprs.to_string();
    let status = |name: &str| evaluate(&[&exprs], &[live(&env, name)]).remove(0);
    env.service.set_durations(100, 600_000);
    env.import("running", "d0", json!({}));
    assert_eq!(status("running"), "InProgress", "not observed yet");
    env.import("suspended", "d2", json!({"suspend": true}));
    env.service.reject_imports_into("d3");
    env.import("rejected", "d3", json!({}));
    let _operator = env.start_operator(&[]);
    env.wait_for_reason("running", "Importing");
    assert_eq!(status("running"), "InProgress");
    env.wait_for_reason("suspended", "Suspended");
    assert_eq!(status("suspended"), "Current");
    env.wait_for_reason("rejected", "InvalidInput");
    assert_eq!(status("rejected"), "Failed");
    env.service.set_durations(1, 1);
    env.wait_for_reason("running", "ImportSucceeded");
    assert_eq!(status("running"), "Current");
    let objects = each_reason();
    for (status, reason) in evaluate(&[&exprs], &objects).iter().zip(Reason::ALL) {
        let suspended = reason.state() == State::Suspended;
        assert_eq!(status, if suspended { "Current" } else { expected(reason.state()) }, "{reason:?}");
    }
}
