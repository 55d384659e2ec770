//! How Flux, Helm's `--wait` and cli-utils see the states: kstatus, and the code of Flux for its expressions,
//! evaluate resources of the API server.

use super::manifests::blocks;
use super::tool::{live, output};
use crate::bed::{Bed, eventually};
use crate::chart::helm::{documents, read};
use personalize_operator::api::conditions::{Reason, State};
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
    let bed = Bed::new();
    bed.service.durations(2000, 2000);
    let status = |name: &str| kstatus(&[live(&bed, name)]).remove(0);
    let check = |name: &str, reason: &str| {
        bed.until(name, reason);
        let object = live(&bed, name);
        let now = object["status"]["conditions"][0]["reason"].as_str().unwrap().to_owned();
        let state = Reason::ALL.iter().find(|r| r.as_str() == now).unwrap().state();
        assert_eq!(kstatus(&[object])[0], expected(state), "{name} {now}");
    };
    bed.import("good", "d0", json!({}));
    assert_eq!(status("good"), "InProgress", "not observed yet");
    bed.import("bad", "d1", json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    bed.import("suspended", "d2", json!({"suspend": true}));
    bed.import("waiting", "nowhere", json!({}));
    bed.import("rejected", "d3", json!({"importMode": "INCREMENTAL"}));
    bed.service.put_job(&json!({
        "name": "existing", "datasetArn": crate::bed::dataset_arn("d4"), "dataLocation": "s3://bucket/interactions.csv",
        "roleArn": crate::bed::ROLE,
    }));
    bed.import("conflict", "d4", json!({"jobName": "existing"}));
    let _operator = bed.operator(&[]);
    check("good", "Pending");
    check("good", "Importing");
    check("good", "ImportSucceeded");
    check("bad", "ImportFailed");
    check("suspended", "Suspended");
    check("waiting", "DatasetNotReady");
    check("rejected", "InvalidInput");
    check("conflict", "JobNameConflict");
    // The operator also observes an edit that does not change the import.
    bed.patch("good", &json!({"spec": {"backoffLimit": 1}}));
    eventually("the operator observes the new generation", || (status("good") == "Current").then_some(()));
}

/// A resource for each reason.
fn each_reason() -> Vec<Value> {
    let resource = |reason: &Reason| {
        let mut status = personalize_operator::api::DatasetImportJobStatus::default();
        personalize_operator::api::conditions::set(&mut status, 1, *reason, "", jiff::Timestamp::now());
        let mut object = Bed::manifest("x", "d0", json!({}));
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
    let bed = Bed::new();
    let markdown = read("docs/flux.md");
    let kustomizations = blocks(&markdown, "yaml").into_iter().flat_map(|(_, text)| documents(&text));
    let exprs = kustomizations.map(|k| k["spec"]["healthCheckExprs"][0].clone()).find(Value::is_object).unwrap();
    let exprs = exprs.to_string();
    let status = |name: &str| evaluate(&[&exprs], &[live(&bed, name)]).remove(0);
    bed.service.durations(100, 600_000);
    bed.import("running", "d0", json!({}));
    assert_eq!(status("running"), "InProgress", "not observed yet");
    bed.import("suspended", "d2", json!({"suspend": true}));
    bed.import("rejected", "d3", json!({"importMode": "INCREMENTAL"}));
    let _operator = bed.operator(&[]);
    bed.until("running", "Importing");
    assert_eq!(status("running"), "InProgress");
    bed.until("suspended", "Suspended");
    assert_eq!(status("suspended"), "Current");
    bed.until("rejected", "InvalidInput");
    assert_eq!(status("rejected"), "Failed");
    bed.service.durations(1, 1);
    bed.until("running", "ImportSucceeded");
    assert_eq!(status("running"), "Current");
    let objects = each_reason();
    for (status, reason) in evaluate(&[&exprs], &objects).iter().zip(Reason::ALL) {
        let suspended = reason.state() == State::Suspended;
        assert_eq!(status, if suspended { "Current" } else { expected(reason.state()) }, "{reason:?}");
    }
}
