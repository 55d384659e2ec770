//! The invariants A to L of docs/architecture.md, checked from outside: against the ledger and jobs of the stand-in and
//! against the audit log and resources of the API server.
//!
//! The checks implement the operator's rules a second time, on plain JSON, on purpose: a checker that shared code with
//! the operator would share its bugs. Only constants and the request hash come from the operator's library. Each
//! invariant has its own file, which ends with histories that violate it and histories that must pass.

mod adoption;
mod at_most_once;
mod audit_log;
mod bounds;
mod data_deletions;
mod footprint;
mod histories;
mod isolation;
mod liveness;
mod no_op_writes;
mod order;
mod progress;
mod rejections;
pub mod secrets;
mod status_truth;
mod waiting;

use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;

pub use audit_log::{events, requests, resource_writes, resource_writes_after};
pub use footprint::{Footprint, check_footprints};
pub use waiting::{Disturbance, Limits, renewals};

/// What the service and the API server have recorded.
#[derive(Debug, Clone, Copy, Default)]
pub struct History<'a> {
    /// Every call to the service, in order.
    pub ledger: &'a [Value],
    /// The jobs of the service; empty if unknown.
    pub jobs: &'a [Value],
    /// The data deletion jobs of the service.
    pub data_deletions: &'a [Value],
    /// The faults injected into the service that are not used up.
    pub faults: &'a [Value],
    /// Successful writes to the resources by any client, in order.
    pub writes: &'a [Value],
    /// The resources that exist; empty if unknown.
    pub resources: &'a [Value],
    /// Requests of the operator, and writes to the namespaces by any client, in order. Empty if unknown.
    pub requests: &'a [Value],
    /// The namespaces; empty if unknown.
    pub namespaces: &'a [Value],
    /// What happened to calls of the operator on the network, in order.
    pub disturbances: &'a [Disturbance],
    /// What bounds the waits.
    pub limits: Limits,
}

/// The violations in a ledger and an audit log alone.
pub fn check_logs(ledger: &[Value], writes: &[Value]) -> Vec<String> {
    check(&History { ledger, writes, ..History::default() })
}

/// The violations of the invariants that hold at any moment.
pub fn check(history: &History<'_>) -> Vec<String> {
    let mut violations = Vec::new();
    at_most_once::check(history, &mut violations);
    adoption::check(history, &mut violations);
    status_truth::check(history, &mut violations);
    no_op_writes::check(history, &mut violations);
    secrets::check(history, &mut violations);
    bounds::check(history, &mut violations);
    data_deletions::check(history, &mut violations);
    order::check(history, &mut violations);
    footprint::check(history, &mut violations);
    let waits = waiting::too_long(history);
    isolation::check(&waits, &mut violations);
    progress::check(&waits, &mut violations);
    violations
}

/// The violations once every import had time to finish: also that none is lost (B), that every status agrees with the
/// service (D), and that none waits for a permission that it has (J).
pub fn check_settled(history: &History<'_>) -> Vec<String> {
    let mut violations = check(history);
    liveness::check(history, &mut violations);
    status_truth::check_settled(history, &mut violations);
    progress::check_settled(history, &mut violations);
    violations
}

/// An accepted CreateDatasetImportJob.
#[derive(Debug, Clone, PartialEq)]
pub struct AcceptedCreate {
    pub job_name: String,
    pub dataset: String,
    pub account: String,
    pub region: String,
    pub time: Option<Timestamp>,
}

/// The accepted creates of a ledger, in order.
pub fn accepted_creates(ledger: &[Value]) -> Vec<AcceptedCreate> {
    let owned = |line: &Value, key: &str| text(line, key).to_owned();
    ledger
        .iter()
        .filter(|line| line["operation"] == "CreateDatasetImportJob" && line["datasetImportJobArn"].is_string())
        .map(|line| AcceptedCreate {
            job_name: owned(line, "jobName"),
            dataset: owned(line, "datasetArn"),
            account: owned(line, "account"),
            region: owned(line, "region"),
            time: time(&line["time"]),
        })
        .collect()
}

fn is_successful_write(request: &Value) -> bool {
    matches!(request["verb"].as_str(), Some("create" | "update" | "patch" | "delete" | "deletecollection"))
        && request["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300)
}

fn is_by_operator(request: &Value) -> bool {
    text(request, "userAgent").starts_with("personalize-operator/")
}

/// The writes by the operator. The API server records the user agent, so the content of a write can't hide its
/// author. Invariant E checks whether the operator may make such a write.
pub fn operator_writes(writes: &[Value]) -> impl Iterator<Item = &Value> {
    writes.iter().filter(|write| is_by_operator(write))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str().and_then(|t| t.parse().ok())
}

/// The resource as a write left it.
fn written_resource(write: &Value) -> &Value {
    &write["responseObject"]
}

fn condition<'a>(status: &'a Value, type_: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|c| c["type"] == type_)
}

fn annotation<'a>(resource: &'a Value, key: &str) -> Option<&'a str> {
    resource["metadata"]["annotations"][key].as_str()
}

fn is_being_deleted(resource: &Value) -> bool {
    !resource["metadata"]["deletionTimestamp"].is_null()
}

/// The job with this ARN.
fn job<'a>(jobs: &'a [Value], arn: &str) -> Option<&'a Value> {
    jobs.iter().find(|job| job["arn"] == arn)
}

fn tag<'a>(job: &'a Value, key: &str) -> Option<&'a str> {
    job["tags"].as_array()?.iter().find(|tag| tag["tagKey"] == key)?["tagValue"].as_str()
}

/// A recorded intent.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Intent {
    uid: String,
    attempt: i64,
    job_name: String,
    dataset: String,
}

/// Every recorded intent, and when the API server received its first write.
fn intents(writes: &[Value]) -> BTreeMap<Intent, Option<Timestamp>> {
    let mut intents = BTreeMap::new();
    for write in operator_writes(writes) {
        let resource = written_resource(write);
        let submission = &resource["status"]["submission"];
        let (Some(uid), Some(attempt), Some(job_name)) =
            (resource["metadata"]["uid"].as_str(), submission["attempt"].as_i64(), submission["jobName"].as_str())
        else {
            continue;
        };
        let dataset = text(&resource["spec"], "datasetArn").to_owned();
        let intent = Intent { uid: uid.to_owned(), attempt, job_name: job_name.to_owned(), dataset };
        intents.entry(intent).or_insert_with(|| time(&write["requestReceivedTimestamp"]));
    }
    intents
}
