//! The judge judged: what made-up histories are made of, and two that are good. Those that break an
//! invariant are with its file.

use super::adoption::request;
use super::{Books, judge_settled};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The dataset of the histories, and another.
pub(super) const D: &str = "arn:aws:personalize:eu-west-1:123456789012:dataset/shop/d";
pub(super) const ANOTHER: &str = "arn:aws:personalize:eu-west-1:123456789012:dataset/shop/another";

fn arn(job_name: &str) -> String {
    format!("arn:aws:personalize:eu-west-1:123456789012:dataset-import-job/{job_name}")
}

/// The milliseconds of a time of the day of all histories.
pub(super) fn history(time: &str) -> i64 {
    format!("2026-01-01T{time}Z").parse::<Timestamp>().unwrap().as_millisecond()
}

pub(super) fn create(name: &str, dataset: &str) -> Value {
    json!({"time": "2026-01-01T00:01:00.5Z", "operation": "CreateDatasetImportJob", "account": "123456789012",
           "region": "eu-west-1", "jobName": name, "datasetArn": dataset, "datasetImportJobArn": arn(name)})
}

pub(super) fn look(job: &str, second: u32) -> Value {
    json!({"time": format!("2026-01-01T00:02:{second:02}.5Z"), "operation": "DescribeDatasetImportJob", "jobName": job})
}

/// The resource `name`, whose UID is its name, and whose age is the length of that.
pub(super) fn resource(name: &str, status: &Value) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": name, "uid": name, "generation": 1,
                     "creationTimestamp": format!("2026-01-01T00:00:0{}Z", name.len())},
        "spec": {"datasetArn": D, "dataSource": {"dataLocation": "s3://bucket/i.csv"}, "roleArn": "role",
                 "importMode": "FULL", "backoffLimit": 0, "suspend": false},
        "status": status,
    })
}

/// A write of the operator to that resource.
pub(super) fn write(name: &str, status: &Value) -> Value {
    json!({"verb": "update", "requestURI": "/status?&fieldManager=personalize-operator",
        "userAgent": "personalize-operator/0.1.0", "objectRef": {"subresource": "status"},
        "requestReceivedTimestamp": "2026-01-01T00:00:30.000000Z", "responseObject": resource(name, status)})
}

/// The same, of a resource that imports into this dataset.
pub(super) fn into(mut write: Value, dataset: &str) -> Value {
    write["responseObject"]["spec"]["datasetArn"] = json!(dataset);
    write
}

/// The same, of a resource with this backoff limit.
pub(super) fn limited(name: &str, limit: i64, status: &Value) -> Value {
    let mut write = write(name, status);
    write["responseObject"]["spec"]["backoffLimit"] = json!(limit);
    write
}

/// The same, of a resource for which a person asked for another attempt.
pub(super) fn retried(name: &str, status: &Value) -> Value {
    let mut write = write(name, status);
    write["responseObject"]["metadata"]["annotations"] = json!({"personalize-operator.io/retry-requested-at": "now"});
    write
}

/// Ready, Succeeded, Reconciling and Stalled.
pub(super) fn row(reason: &str, [ready, succeeded, reconciling, stalled]: [&str; 4]) -> Value {
    json!([{"type": "Ready", "status": ready, "reason": reason}, {"type": "Succeeded", "status": succeeded},
           {"type": "Reconciling", "status": reconciling}, {"type": "Stalled", "status": stalled}])
}

pub(super) fn going() -> Value {
    row("Importing", ["Unknown", "Unknown", "True", "False"])
}

pub(super) fn stalled(reason: &str) -> Value {
    row(reason, ["False", "False", "False", "True"])
}

pub(super) fn failed() -> Value {
    stalled("ImportFailed")
}

pub(super) fn intent(job_name: &str, attempt: i64) -> Value {
    json!({"observedGeneration": 1, "submission": {"jobName": job_name, "attempt": attempt}, "conditions": going()})
}

pub(super) fn told(job_name: &str) -> Value {
    json!({"observedGeneration": 1, "status": "ACTIVE", "completionTime": "x",
           "conditions": row("ImportSucceeded", ["True", "True", "False", "False"]),
           "datasetImportJobArn": arn(job_name), "submission": {"jobName": job_name, "attempt": 1}})
}

/// The name that is derived for the first job of a resource.
pub(super) fn own_name(owner: &str) -> String {
    request(&resource(owner, &Value::Null)).unwrap().job_name(1)
}

/// A job of the resource `a`.
pub(super) fn job(name: &str, status: &str, begin: i64, end: i64) -> Value {
    job_of("a", name, status, begin, end)
}

pub(super) fn job_of(owner: &str, name: &str, status: &str, begin: i64, end: i64) -> Value {
    let hash = request(&resource(owner, &Value::Null)).unwrap().hash();
    let tag = |key: &str, value: &str| json!({"tagKey": format!("personalize-operator.io/{key}"), "tagValue": value});
    json!({"name": name, "arn": arn(name), "account": "123456789012", "region": "eu-west-1", "status": status,
           "datasetArn": D, "dataLocation": "s3://bucket/i.csv", "roleArn": "role", "importMode": "FULL",
           "publishAttributionMetricsToS3": false, "createdMs": begin, "updatedMs": end,
           "tags": [tag("namespace", "shop"), tag("name", owner), tag("request-hash", &hash)]})
}

pub(super) fn job_in(dataset: &str, name: &str, status: &str, begin: i64, end: i64) -> Value {
    let mut job = job(name, status, begin, end);
    job["datasetArn"] = json!(dataset);
    job
}

#[track_caller]
pub(super) fn breaks(invariant: &str, faults: &[String]) {
    assert!(!faults.is_empty() && faults.iter().all(|f| f.starts_with(invariant)), "{invariant}: {faults:?}");
}

#[track_caller]
pub(super) fn holds(faults: &[String]) {
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn a_good_history_breaks_nothing() {
    let writes = [
        write("a", &intent("a-1", 1)),
        write("bb", &intent("b-1", 1)),
        write("a", &told("a-1")),
        write("bb", &told("b-1")),
    ];
    let ledger = [create("a-1", D), look("a-1", 0), create("b-1", D)];
    let jobs = [job("a-1", "ACTIVE", 0, 5), job_of("bb", "b-1", "ACTIVE", 5, 9)];
    let resources = [resource("a", &told("a-1")), resource("bb", &told("b-1"))];
    let books = Books { ledger: &ledger, writes: &writes, resources: &resources, jobs: &jobs, faults: &[] };
    holds(&judge_settled(&books));
}

#[test]
fn a_history_of_nothing_breaks_nothing() {
    holds(&judge_settled(&Books::default()));
}
