//! The outside judge: the invariants A to H of docs/faults.md, from the stand-in's books (its ledger
//! and its jobs) and the API server's (its audit log and its resources), never from the operator's word.
//! Each invariant has a file of its own, which ends in made-up histories that break it or must pass.

mod adoption;
mod at_most_once;
mod bounds;
mod histories;
mod liveness;
mod no_op_writes;
mod order;
mod rejections;
mod secrets;
mod status_truth;

use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

pub use bounds::bounded_memory;
pub use secrets::told;

/// What the two sides that the operator talks to have in their books.
#[derive(Debug, Clone, Copy, Default)]
pub struct Books<'a> {
    /// Each call to the service, in order.
    pub ledger: &'a [Value],
    /// The service's own jobs; none if they are not known.
    pub jobs: &'a [Value],
    /// The faults that the stand-in was told of and has not spent.
    pub faults: &'a [Value],
    /// Successful writes to the resources, by whomever, in order.
    pub writes: &'a [Value],
    /// The resources that exist; none if they are not known.
    pub resources: &'a [Value],
}

/// What breaks an invariant at any moment, in words; empty when all hold.
pub fn judge(ledger: &[Value], writes: &[Value]) -> Vec<String> {
    judge_books(&Books { ledger, writes, ..Books::default() })
}

/// The same, over all that is in the books.
pub fn judge_books(books: &Books<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    at_most_once::judge(books, &mut faults);
    adoption::judge(books, &mut faults);
    status_truth::judge(books, &mut faults);
    no_op_writes::judge(books, &mut faults);
    secrets::judge(books, &mut faults);
    bounds::judge(books, &mut faults);
    order::judge(books, &mut faults);
    faults
}

/// What breaks an invariant once everything had its time: beside the others, that nothing is lost (B)
/// and that each status tells what the service tells (D).
pub fn judge_settled(books: &Books<'_>) -> Vec<String> {
    let mut faults = judge_books(books);
    liveness::judge(books, &mut faults);
    status_truth::judge_settled(books, &mut faults);
    faults
}

/// An accepted CreateDatasetImportJob.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    pub job_name: String,
    pub dataset: String,
    pub account: String,
    pub region: String,
    pub time: Option<Timestamp>,
}

/// The accepted creates of a ledger, in order.
pub fn accepted(ledger: &[Value]) -> Vec<Accepted> {
    let owned = |line: &Value, key: &str| text(line, key).to_owned();
    ledger
        .iter()
        .filter(|line| line["operation"] == "CreateDatasetImportJob" && line["datasetImportJobArn"].is_string())
        .map(|line| Accepted {
            job_name: owned(line, "jobName"),
            dataset: owned(line, "datasetArn"),
            account: owned(line, "account"),
            region: owned(line, "region"),
            time: time(&line["time"]),
        })
        .collect()
}

/// Successful writes to DatasetImportJobs and their status in a namespace, in order.
pub fn writes(audit: &Path, namespace: &str) -> Vec<Value> {
    successful_writes(&fs::read_to_string(audit).unwrap_or_default(), namespace, "datasetimportjobs")
}

/// The same, of those that the audit log tells after so many bytes.
pub fn writes_after(audit: &Path, bytes: u64, namespace: &str) -> Vec<Value> {
    let log = fs::read_to_string(audit).unwrap_or_default();
    let from = usize::try_from(bytes).unwrap_or(usize::MAX);
    successful_writes(log.get(from..).unwrap_or_default(), namespace, "datasetimportjobs")
}

/// The events that were written in a namespace, in order.
pub fn events(audit: &Path, namespace: &str) -> Vec<Value> {
    successful_writes(&fs::read_to_string(audit).unwrap_or_default(), namespace, "events")
}

fn successful_writes(log: &str, namespace: &str, resource: &str) -> Vec<Value> {
    let marks = [format!("\"resource\":\"{resource}\""), format!("\"namespace\":\"{namespace}\"")];
    log.lines()
        // Most lines are of other tests: what needn't be parsed is not.
        .filter(|line| marks.iter().all(|mark| line.contains(mark)))
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["objectRef"]["namespace"] == namespace && line["objectRef"]["resource"] == resource)
        .filter(|line| {
            matches!(line["verb"].as_str(), Some("create" | "update" | "patch" | "delete" | "deletecollection"))
        })
        .filter(|line| line["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300))
        .collect()
}

/// The operator's own writes among these. The API server notes who called, so what the operator says of
/// itself in a write plays no part; whether it is one that the operator may make, E judges.
pub fn of_operator(writes: &[Value]) -> impl Iterator<Item = &Value> {
    writes.iter().filter(|write| text(write, "userAgent").starts_with("personalize-operator/"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str().and_then(|t| t.parse().ok())
}

/// The resource as a write left it.
fn object(write: &Value) -> &Value {
    &write["responseObject"]
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

fn annotation<'a>(resource: &'a Value, key: &str) -> Option<&'a str> {
    resource["metadata"]["annotations"][key].as_str()
}

/// The job of this ARN.
fn job<'a>(jobs: &'a [Value], arn: &str) -> Option<&'a Value> {
    jobs.iter().find(|job| job["arn"] == arn)
}

fn tag<'a>(job: &'a Value, key: &str) -> Option<&'a str> {
    job["tags"].as_array()?.iter().find(|tag| tag["tagKey"] == key)?["tagValue"].as_str()
}

/// An intent that was recorded.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Intent {
    uid: String,
    attempt: i64,
    job_name: String,
    dataset: String,
}

/// Every intent that was recorded, and when the first write of it was asked for.
fn intents(writes: &[Value]) -> BTreeMap<Intent, Option<Timestamp>> {
    let mut intents = BTreeMap::new();
    for write in of_operator(writes) {
        let object = object(write);
        let submission = &object["status"]["submission"];
        let (Some(uid), Some(attempt), Some(job_name)) =
            (object["metadata"]["uid"].as_str(), submission["attempt"].as_i64(), submission["jobName"].as_str())
        else {
            continue;
        };
        let dataset = text(&object["spec"], "datasetArn").to_owned();
        let intent = Intent { uid: uid.to_owned(), attempt, job_name: job_name.to_owned(), dataset };
        intents.entry(intent).or_insert_with(|| time(&write["requestReceivedTimestamp"]));
    }
    intents
}
