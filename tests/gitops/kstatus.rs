//! The states as Flux, Helm's `--wait` and cli-utils judge them: by kstatus itself, over resources as
//! the API server has them.

use crate::bed::{Bed, eventually, text};
use crate::manifests::{blocks, documents};
use crate::tool::{checkout, live, output, read};
use personalize_operator::conditions::{Reason, State};
use serde_json::{Value, json};

/// kstatus' verdict on each object.
fn verdicts(objects: &[Value]) -> Vec<String> {
    let input: String = objects.iter().map(|o| format!("{o}\n")).collect();
    let told = output("kstatus", &[], &input);
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
    let bed = Bed::new();
    bed.service.durations(2000, 2000);
    let judged = |name: &str| verdicts(&[live(&bed, name)]).remove(0);
    let told = |name: &str, reason: &str| {
        bed.until(name, reason);
        let object = live(&bed, name);
        let now = object["status"]["conditions"][0]["reason"].as_str().unwrap().to_owned();
        let state = Reason::ALL.iter().find(|r| r.as_str() == now).unwrap().state();
        assert_eq!(verdicts(&[object])[0], expected(state), "{name} {now}");
    };
    bed.import("good", "d0", json!({}));
    assert_eq!(judged("good"), "InProgress", "not seen yet");
    bed.import("bad", "d1", json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    bed.import("held", "d2", json!({"suspend": true}));
    bed.import("waiting", "nowhere", json!({}));
    bed.import("rejected", "d3", json!({"importMode": "INCREMENTAL"}));
    bed.service.put_job(&json!({
        "name": "taken", "datasetArn": crate::bed::dataset_arn("d4"), "dataLocation": "s3://bucket/interactions.csv",
        "roleArn": crate::bed::ROLE,
    }));
    bed.import("conflict", "d4", json!({"jobName": "taken"}));
    let _operator = bed.operator(&[]);
    told("good", "Pending");
    told("good", "Importing");
    told("good", "ImportSucceeded");
    told("bad", "ImportFailed");
    told("held", "Suspended");
    told("waiting", "DatasetNotReady");
    told("rejected", "InvalidInput");
    told("conflict", "JobNameConflict");
    // An edit that changes nothing of the import is seen all the same.
    bed.patch("good", &json!({"spec": {"backoffLimit": 1}}));
    eventually("the new generation was seen", || (judged("good") == "Current").then_some(()));
}

#[test]
fn each_reason_there_is_is_judged_as_its_state() {
    let objects: Vec<Value> = Reason::ALL
        .iter()
        .map(|reason| {
            let mut status = personalize_operator::api::DatasetImportJobStatus::default();
            personalize_operator::conditions::set(&mut status, 1, *reason, "", jiff::Timestamp::now());
            let mut object = Bed::manifest("x", "d0", json!({}));
            object["metadata"]["generation"] = 1.into();
            object["status"] = serde_json::to_value(status).unwrap();
            object
        })
        .collect();
    for (verdict, reason) in verdicts(&objects).iter().zip(Reason::ALL) {
        assert_eq!(verdict, expected(reason.state()), "{reason:?}");
    }
}

/// Lets the API server's own CEL judge live resources: a policy that refuses a dry run of a status update
/// if the expression holds.
fn offer(bed: &Bed, name: &str, expression: &str) {
    let object = expression.replace("status.conditions", "object.status.conditions");
    let name = format!("{}-{name}", bed.namespace);
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": ["personalize-operator.io"], "apiVersions": ["*"],
                "operations": ["UPDATE"], "resources": ["datasetimportjobs/status"]}]},
            "matchConditions": [{"name": "probe", "expression": "has(request.dryRun) && request.dryRun == true"}],
            "validations": [{"expression": format!("!({object})"), "message": format!("it is {name}")}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector":
            {"matchLabels": {"kubernetes.io/metadata.name": bed.namespace}}}},
    });
    bed.apply(&policy);
    bed.apply(&binding);
}

/// The first of the states whose expression holds, in the order in which Flux asks.
fn by_expressions(bed: &Bed, name: &str) -> Option<&'static str> {
    let args = [
        "patch",
        "dij",
        name,
        "--subresource=status",
        "--type=merge",
        "--dry-run=server",
        "-p",
        "{\"status\":{\"attempts\":9}}",
    ];
    let told = text(&bed.kubectl(&args));
    let states = [("inProgress", "InProgress"), ("failed", "Failed"), ("current", "Current")];
    states
        .into_iter()
        .find(|(key, _)| told.contains(&format!("it is {}-{}", bed.namespace, key.to_lowercase())))
        .map(|(_, s)| s)
}

#[test]
fn the_expressions_for_flux_hold_as_the_docs_say() {
    let bed = Bed::new();
    let markdown = read(&checkout("docs/flux.md"));
    let kustomizations = blocks(&markdown, "yaml").into_iter().flat_map(|(_, text)| documents(&text));
    let exprs = kustomizations.map(|k| k["spec"]["healthCheckExprs"][0].clone()).find(Value::is_object).unwrap();
    for key in ["inProgress", "failed", "current"] {
        offer(&bed, &key.to_lowercase(), exprs[key].as_str().unwrap());
    }
    bed.service.durations(100, 600_000);
    bed.import("running", "d0", json!({}));
    assert_eq!(by_expressions(&bed, "running"), None, "nothing holds before the operator has seen it");
    let _operator = bed.operator(&[]);
    bed.until("running", "Importing");
    eventually("the policies are in force", || by_expressions(&bed, "running").filter(|s| *s == "InProgress"));
    bed.import("held", "d2", json!({"suspend": true}));
    bed.until("held", "Suspended");
    // One policy may come into force later than another.
    eventually("suspended is as good as done", || by_expressions(&bed, "held").filter(|s| *s == "Current"));
    bed.import("rejected", "d3", json!({"importMode": "INCREMENTAL"}));
    bed.until("rejected", "InvalidInput");
    eventually("rejected has failed", || by_expressions(&bed, "rejected").filter(|s| *s == "Failed"));
    bed.service.durations(1, 1);
    bed.until("running", "ImportSucceeded");
    assert_eq!(by_expressions(&bed, "running"), Some("Current"));
}
