//! The states as Flux, Helm's `--wait` and cli-utils judge them: by kstatus itself and by Flux' own code for
//! its expressions, over resources as the API server has them.

use crate::env::{TestEnv, eventually};
use crate::manifests::{blocks, documents};
use crate::tool::{checkout, live, output, read};
use personalize_operator::api::conditions::{Reason, State};
use serde_json::{Value, json};

/// kstatus' verdict on each object.
fn verdicts(objects: &[Value]) -> Vec<String> {
    judge(&[], objects)
}

/// The same, or Flux' verdict by expressions.
fn judge(expressions: &[&str], objects: &[Value]) -> Vec<String> {
    let input: String = objects.iter().map(|o| format!("{o}\n")).collect();
    let told = output("kstatus", expressions, &input);
    let status = |line: &str| serde_json::from_str::<Value>(line).unwrap()["status"].as_str().unwrap().to_owned();
    told.lines().map(status).collect()
}

/// What kstatus has to say of each state of the table.
fn expected(state: State) -> &'static str {
    match state {
        State::Succeeded => "Current",
        State::Failed => "Failed",
        // What is held back is not done.
        State::InProgress | State::Suspended => "InProgress",
    }
}

#[test]
fn each_state_of_the_table_is_judged_right_live() {
    let env = TestEnv::new();
    env.service.set_durations(2000, 2000);
    let judged = |name: &str| verdicts(&[live(&env, name)]).remove(0);
    let told = |name: &str, reason: &str| {
        env.wait_for_reason(name, reason);
        let object = live(&env, name);
        let now = object["status"]["conditions"][0]["reason"].as_str().unwrap().to_owned();
        let state = Reason::ALL.iter().find(|r| r.as_str() == now).unwrap().state();
        assert_eq!(verdicts(&[object])[0], expected(state), "{name} {now}");
    };
    env.import("good", "d0", json!({}));
    assert_eq!(judged("good"), "InProgress", "not seen yet");
    env.import("bad", "d1", json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    env.import("held", "d2", json!({"suspend": true}));
    env.import("waiting", "nowhere", json!({}));
    env.import("rejected", "d3", json!({"importMode": "INCREMENTAL"}));
    env.service.put_job(&json!({
        "name": "taken", "datasetArn": crate::env::dataset_arn("d4"), "dataLocation": "s3://bucket/interactions.csv",
        "roleArn": crate::env::ROLE,
    }));
    env.import("conflict", "d4", json!({"jobName": "taken"}));
    let _operator = env.start_operator(&[]);
    told("good", "Pending");
    told("good", "Importing");
    told("good", "ImportSucceeded");
    told("bad", "ImportFailed");
    told("held", "Suspended");
    told("waiting", "DatasetNotReady");
    told("rejected", "InvalidInput");
    told("conflict", "JobNameConflict");
    // An edit that changes nothing of the import is seen all the same.
    env.patch("good", &json!({"spec": {"backoffLimit": 1}}));
    eventually("the new generation was seen", || (judged("good") == "Current").then_some(()));
}

/// A resource for each reason that there is.
fn each_reason() -> Vec<Value> {
    let made = |reason: &Reason| {
        let mut status = personalize_operator::api::DatasetImportJobStatus::default();
        personalize_operator::api::conditions::set(&mut status, 1, *reason, "", jiff::Timestamp::now());
        let mut object = TestEnv::manifest("x", "d0", json!({}));
        object["metadata"]["generation"] = 1.into();
        object["status"] = serde_json::to_value(status).unwrap();
        object
    };
    Reason::ALL.iter().map(made).collect()
}

#[test]
fn each_reason_there_is_is_judged_as_its_state() {
    let objects = each_reason();
    for (verdict, reason) in verdicts(&objects).iter().zip(Reason::ALL) {
        assert_eq!(verdict, expected(reason.state()), "{reason:?}");
    }
}

#[test]
fn the_expressions_for_flux_hold_as_the_docs_say() {
    let env = TestEnv::new();
    let markdown = read(&checkout("docs/flux.md"));
    let kustomizations = blocks(&markdown, "yaml").into_iter().flat_map(|(_, text)| documents(&text));
    let exprs = kustomizations.map(|k| k["spec"]["healthCheckExprs"][0].clone()).find(Value::is_object).unwrap();
    let exprs = exprs.to_string();
    let judged = |name: &str| judge(&[&exprs], &[live(&env, name)]).remove(0);
    env.service.set_durations(100, 600_000);
    env.import("running", "d0", json!({}));
    assert_eq!(judged("running"), "InProgress", "the operator has not seen it");
    env.import("held", "d2", json!({"suspend": true}));
    env.import("rejected", "d3", json!({"importMode": "INCREMENTAL"}));
    let _operator = env.start_operator(&[]);
    env.wait_for_reason("running", "Importing");
    assert_eq!(judged("running"), "InProgress");
    env.wait_for_reason("held", "Suspended");
    assert_eq!(judged("held"), "Current", "suspended is as good as done");
    env.wait_for_reason("rejected", "InvalidInput");
    assert_eq!(judged("rejected"), "Failed");
    env.service.set_durations(1, 1);
    env.wait_for_reason("running", "ImportSucceeded");
    assert_eq!(judged("running"), "Current");
    let objects = each_reason();
    for (verdict, reason) in judge(&[&exprs], &objects).iter().zip(Reason::ALL) {
        let suspended = reason.state() == State::Suspended;
        assert_eq!(verdict, if suspended { "Current" } else { expected(reason.state()) }, "{reason:?}");
    }
}
