//! Fixtures for the tests of the checks, and two histories that must pass. Histories that violate an invariant are in
//! the file of that invariant.

use super::adoption::request;
use super::{History, check_settled};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The dataset of the fixtures, and another one.
pub(super) const DATASET: &str = "arn:aws:personalize:eu-west-1:123456789012:dataset/shop/d";
pub(super) const OTHER_DATASET: &str = "arn:aws:personalize:eu-west-1:123456789012:dataset/shop/another";

fn arn(job_name: &str) -> String {
    format!("arn:aws:personalize:eu-west-1:123456789012:dataset-import-job/{job_name}")
}

/// A time of the day on which all fixtures happen, in milliseconds.
pub(super) fn millis_at(time: &str) -> i64 {
    format!("2026-01-01T{time}Z").parse::<Timestamp>().unwrap().as_millisecond()
}

/// A moment of that day, in seconds.
pub(super) fn at(second: usize) -> String {
    format!("2026-01-01T{:02}:{:02}:{:02}.000000Z", second / 3600, second / 60 % 60, second % 60)
}

/// The renewals of a leader's Lease in the first seconds of that day.
pub(super) fn renewals(seconds: usize) -> Vec<Value> {
    let renewal = |second| {
        json!({"userAgent": "personalize-operator/0.1.0", "verb": "update", "requestReceivedTimestamp": at(second),
               "objectRef": {"resource": "leases", "namespace": "shop"}, "responseStatus": {"code": 200}})
    };
    (0..seconds).map(renewal).collect()
}

/// A write by a user at the time when the resource is created.
pub(super) fn created(name: &str, status: &Value) -> Value {
    let mut write = write(name, status);
    write["verb"] = json!("create");
    write["userAgent"] = json!("kubectl/v1");
    write["requestReceivedTimestamp"] = write["responseObject"]["metadata"]["creationTimestamp"].clone();
    write
}

/// A call about the job with this name.
pub(super) fn call(job: &str, region: &str, second: usize) -> Value {
    json!({"time": at(second), "operation": "DescribeDatasetImportJob", "account": "123456789012", "region": region,
           "jobName": job, "httpStatus": 200})
}

/// A call that a fault keeps without an answer.
pub(super) fn hanging_call(job: &str, region: &str, second: usize) -> Value {
    let mut call = call(job, region, second);
    call["httpStatus"] = json!(0);
    call["fault"] = json!("silenceBeforeHeaders");
    call
}

pub(super) fn accepted_create(name: &str, dataset: &str) -> Value {
    json!({"time": "2026-01-01T00:01:00.5Z", "operation": "CreateDatasetImportJob", "account": "123456789012",
           "region": "eu-west-1", "jobName": name, "datasetArn": dataset, "datasetImportJobArn": arn(name)})
}

pub(super) fn describe_call(job: &str, second: u32) -> Value {
    json!({"time": format!("2026-01-01T00:02:{second:02}.5Z"), "operation": "DescribeDatasetImportJob", "jobName": job})
}

/// The resource `name`. The name is also its UID, and its length is the second of its creation.
pub(super) fn resource(name: &str, status: &Value) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": name, "uid": name, "generation": 1,
                     "creationTimestamp": format!("2026-01-01T00:00:0{}Z", name.len())},
        "spec": {"datasetArn": DATASET, "dataSource": {"dataLocation": "s3://bucket/i.csv"}, "roleArn": "role",
                 "importMode": "FULL", "backoffLimit": 0, "suspend": false},
        "status": summarized(status),
    })
}

/// The status with the phase and the reason that its conditions have.
pub(super) fn summarized(status: &Value) -> Value {
    let mut status = status.clone();
    let state: Vec<_> = status["conditions"].as_array().into_iter().flatten().map(|c| c["status"].clone()).collect();
    if let [ready, _, reconciling, _] = state.as_slice() {
        let phase = match (ready.as_str(), reconciling.as_str()) {
            (Some("True"), _) => "Succeeded",
            (Some("False"), _) => "Failed",
            (_, Some("True")) => "Running",
            _ => "Suspended",
        };
        status["phase"] = json!(phase);
        status["reason"] = status["conditions"][0]["reason"].clone();
    }
    status
}

/// A write by the operator to that resource.
pub(super) fn write(name: &str, status: &Value) -> Value {
    json!({"verb": "update", "requestURI": "/status?&fieldManager=personalize-operator",
        "userAgent": "personalize-operator/0.1.0", "objectRef": {"subresource": "status"},
        "requestReceivedTimestamp": "2026-01-01T00:00:30.000000Z", "responseObject": resource(name, status)})
}

/// The same, to a resource that imports into this dataset.
pub(super) fn with_dataset(mut write: Value, dataset: &str) -> Value {
    write["responseObject"]["spec"]["datasetArn"] = json!(dataset);
    write
}

/// The same, to a resource with this backoff limit.
pub(super) fn write_with_backoff_limit(name: &str, limit: i64, status: &Value) -> Value {
    let mut write = write(name, status);
    write["responseObject"]["spec"]["backoffLimit"] = json!(limit);
    write
}

/// The same, to a resource whose user requests another attempt.
pub(super) fn write_with_retry_requested(name: &str, status: &Value) -> Value {
    let mut write = write(name, status);
    write["responseObject"]["metadata"]["annotations"] = json!({"personalize-operator.io/retry-requested-at": "now"});
    write
}

/// The conditions Ready, Succeeded, Reconciling and Stalled.
pub(super) fn conditions(reason: &str, [ready, succeeded, reconciling, stalled]: [&str; 4]) -> Value {
    json!([{"type": "Ready", "status": ready, "reason": reason}, {"type": "Succeeded", "status": succeeded},
           {"type": "Reconciling", "status": reconciling}, {"type": "Stalled", "status": stalled}])
}

pub(super) fn in_progress() -> Value {
    conditions("Importing", ["Unknown", "Unknown", "True", "False"])
}

pub(super) fn stalled(reason: &str) -> Value {
    conditions(reason, ["False", "False", "False", "True"])
}

pub(super) fn failed() -> Value {
    stalled("ImportFailed")
}

pub(super) fn intent(job_name: &str, attempt: i64) -> Value {
    json!({"observedGeneration": 1, "submission": {"jobName": job_name, "attempt": attempt}, "conditions": in_progress()})
}

pub(super) fn succeeded(job_name: &str) -> Value {
    json!({"observedGeneration": 1, "status": "ACTIVE", "completionTime": "x",
           "conditions": conditions("ImportSucceeded", ["True", "True", "False", "False"]),
           "datasetImportJobArn": arn(job_name), "submission": {"jobName": job_name, "attempt": 1}})
}

/// The derived name of a resource's first job.
pub(super) fn derived_name(owner: &str) -> String {
    request(&resource(owner, &Value::Null)).unwrap().job_name(1)
}

/// A job of the resource `a`.
pub(super) fn job(name: &str, status: &str, begin: i64, end: i64) -> Value {
    job_owned_by("a", name, status, begin, end)
}

pub(super) fn job_owned_by(owner: &str, name: &str, status: &str, begin: i64, end: i64) -> Value {
    let hash = request(&resource(owner, &Value::Null)).unwrap().hash();
    let tag = |key: &str, value: &str| json!({"tagKey": format!("personalize-operator.io/{key}"), "tagValue": value});
    json!({"name": name, "arn": arn(name), "account": "123456789012", "region": "eu-west-1", "status": status,
           "datasetArn": DATASET, "dataLocation": "s3://bucket/i.csv", "roleArn": "role", "importMode": "FULL",
           "publishAttributionMetricsToS3": false, "createdMs": begin, "updatedMs": end,
           "tags": [tag("namespace", "shop"), tag("name", owner), tag("request-hash", &hash)]})
}

pub(super) fn job_in_dataset(dataset: &str, name: &str, status: &str, begin: i64, end: i64) -> Value {
    let mut job = job(name, status, begin, end);
    job["datasetArn"] = json!(dataset);
    job
}

#[track_caller]
pub(super) fn assert_violates(invariant: &str, violations: &[String]) {
    let only = violations.iter().all(|violation| violation.starts_with(invariant));
    assert!(!violations.is_empty() && only, "{invariant}: {violations:?}");
}

#[track_caller]
pub(super) fn assert_holds(violations: &[String]) {
    assert_eq!(violations, Vec::<String>::new());
}

#[test]
fn correct_history_has_no_violations() {
    let writes = [
        write("a", &intent("a-1", 1)),
        write("bb", &intent("b-1", 1)),
        write("a", &succeeded("a-1")),
        write("bb", &succeeded("b-1")),
    ];
    let ledger = [accepted_create("a-1", DATASET), describe_call("a-1", 0), accepted_create("b-1", DATASET)];
    let jobs = [job("a-1", "ACTIVE", 0, 5), job_owned_by("bb", "b-1", "ACTIVE", 5, 9)];
    let resources = [resource("a", &succeeded("a-1")), resource("bb", &succeeded("b-1"))];
    let history =
        History { ledger: &ledger, writes: &writes, resources: &resources, jobs: &jobs, ..History::default() };
    assert_holds(&check_settled(&history));
}

#[test]
fn empty_history_has_no_violations() {
    assert_holds(&check_settled(&History::default()));
}
