//! C: a status names only a job of its resource. The job does what the resource asks for, and its tags prove the
//! ownership, unless a user lets the resource adopt it.

use super::{History, accepted_creates, annotation, job, operator_writes, tag, text, written_resource};
use personalize_operator::api::{ADOPT, DatasetImportJobSpec};
use personalize_operator::import::request::{ImportRequest, TAG_NAME, TAG_NAMESPACE, TAG_REQUEST_HASH};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

pub(super) fn check(history: &History<'_>, violations: &mut Vec<String>) {
    let accepted = accepted_creates(history.ledger);
    let created: HashSet<&str> = accepted.iter().map(|a| a.job_name.as_str()).collect();
    let mut owners: HashMap<&str, &str> = HashMap::new();
    let mut adopted: HashSet<(&str, &str)> = HashSet::new();
    for write in operator_writes(history.writes) {
        let resource = written_resource(write);
        let (owner, uid) = (text(&resource["metadata"], "name"), text(&resource["metadata"], "uid"));
        // Without the tags of a job, the first intent says whose it is. With them, a later intent may have led to it.
        if let Some(name) = resource["status"]["submission"]["jobName"].as_str() {
            owners.entry(name).or_insert(owner);
        }
        let Some(arn) = resource["status"]["datasetImportJobArn"].as_str() else { continue };
        let (job, job_name) = (job(history.jobs, arn), arn.rsplit('/').next().unwrap_or_default());
        for field in job.into_iter().flat_map(|job| differences(job, resource)) {
            violations.push(format!("C: {owner} names {job_name}, which has another {field}"));
        }
        if annotation(resource, ADOPT) == Some("true") {
            adopted.insert((uid, arn));
        }
        if adopted.contains(&(uid, arn)) {
            continue;
        }
        if job.is_some_and(|job| !has_ownership_tags(job, resource)) {
            violations.push(format!("C: {owner} names {job_name}, whose tags do not prove ownership"));
        } else if job.is_none() && !created.contains(job_name) {
            violations.push(format!("C: {owner} names {job_name}, which the operator did not create"));
        } else if let Some(first) = owners.get(job_name).filter(|first| job.is_none() && **first != owner) {
            violations.push(format!("C: {owner} names {job_name}, which belongs to {first}"));
        }
    }
}

/// The import that a resource requests; `None` if its spec is invalid.
pub(super) fn request(resource: &Value) -> Option<ImportRequest> {
    let spec: DatasetImportJobSpec = serde_json::from_value(resource["spec"].clone()).ok()?;
    let metadata = &resource["metadata"];
    ImportRequest::new(text(metadata, "namespace"), text(metadata, "name"), &spec).ok()
}

/// The fields in which a job differs from the request of a resource.
fn differences(job: &Value, resource: &Value) -> Vec<&'static str> {
    let spec = &resource["spec"];
    let publish = |value: &Value| value.as_bool().unwrap_or(false);
    let mode = if spec["importMode"].is_string() { spec["importMode"].clone() } else { json!("FULL") };
    [
        ("dataset", job["datasetArn"] == spec["datasetArn"]),
        ("data", job["dataLocation"] == spec["dataSource"]["dataLocation"]),
        ("role", job["roleArn"] == spec["roleArn"]),
        ("mode", job["importMode"] == mode),
        (
            "publishAttributionMetricsToS3",
            publish(&job["publishAttributionMetricsToS3"]) == publish(&spec["publishAttributionMetricsToS3"]),
        ),
    ]
    .into_iter()
    .filter_map(|(field, same)| (!same).then_some(field))
    .collect()
}

/// Whether the tags of a job name this resource and this request.
fn has_ownership_tags(job: &Value, resource: &Value) -> bool {
    let metadata = &resource["metadata"];
    tag(job, TAG_NAMESPACE) == metadata["namespace"].as_str()
        && tag(job, TAG_NAME) == metadata["name"].as_str()
        && request(resource).is_some_and(|request| tag(job, TAG_REQUEST_HASH) == Some(&request.hash()))
}

/// Whether a job certainly belongs to this resource.
pub(super) fn is_owned(job: &Value, resource: &Value) -> bool {
    differences(job, resource).is_empty() && has_ownership_tags(job, resource)
}

mod tests {
    use crate::invariants::histories::{
        DATASET, accepted_create, assert_holds, assert_violates, intent, job, job_owned_by, succeeded, write,
    };
    use crate::invariants::{History, check, check_logs};
    use serde_json::{Value, json};

    fn with_jobs(writes: &[Value], jobs: &[Value]) -> Vec<String> {
        check(&History { writes, jobs, ..History::default() })
    }

    fn adopting(mut write: Value) -> Value {
        write["responseObject"]["metadata"]["annotations"] = json!({"personalize-operator.io/adopt": "true"});
        write
    }

    #[test]
    fn unknown_job_violates_c_until_the_resource_asks_to_adopt_it() {
        let adopted = adopting(write("a", &succeeded("foreign")));
        assert_violates("C", &check_logs(&[], &[write("a", &succeeded("foreign"))]));
        let mut later = write("a", &succeeded("foreign"));
        later["responseObject"]["status"]["observedGeneration"] = json!(0);
        assert_holds(&check_logs(&[], &[later, adopted.clone()])[1..]);
        let mut after = write("a", &succeeded("foreign"));
        after["responseObject"]["status"]["attempts"] = json!(1);
        assert_holds(&check_logs(&[], &[adopted, after]));
    }

    #[test]
    fn job_tagged_for_another_resource_violates_c() {
        assert_violates("C", &with_jobs(&[write("a", &succeeded("old"))], &[job_owned_by("b", "old", "ACTIVE", 0, 1)]));
        assert_holds(&with_jobs(&[write("a", &succeeded("old"))], &[job_owned_by("a", "old", "ACTIVE", 0, 1)]));
    }

    #[test]
    fn job_tagged_for_another_namespace_violates_c() {
        let mut foreign = job("old", "ACTIVE", 0, 1);
        foreign["tags"][0]["tagValue"] = json!("elsewhere");
        assert_violates("C", &with_jobs(&[write("a", &succeeded("old"))], &[foreign]));
    }

    #[test]
    fn job_tagged_for_another_request_violates_c() {
        let mut other = job("old", "ACTIVE", 0, 1);
        other["tags"][2]["tagValue"] = json!("0");
        assert_violates("C", &with_jobs(&[write("a", &succeeded("old"))], &[other]));
    }

    #[test]
    fn adopted_job_that_differs_from_the_spec_violates_c() {
        for (field, other) in [
            ("datasetArn", json!("another")),
            ("dataLocation", json!("s3://bucket/else.csv")),
            ("roleArn", json!("another")),
            ("importMode", json!("INCREMENTAL")),
            ("publishAttributionMetricsToS3", json!(true)),
        ] {
            let mut foreign = job("old", "ACTIVE", 0, 1);
            foreign["tags"] = json!([]);
            let writes = [adopting(write("a", &succeeded("old")))];
            assert_holds(&with_jobs(&writes, std::slice::from_ref(&foreign)));
            foreign[field] = other;
            assert_violates("C", &with_jobs(&writes, &[foreign]));
        }
    }

    #[test]
    fn job_intended_by_another_resource_violates_c() {
        let writes =
            [write("a", &intent("shared", 1)), write("a", &succeeded("shared")), write("bb", &succeeded("shared"))];
        assert_violates("C", &check_logs(&[accepted_create("shared", DATASET)], &writes));
        assert_holds(&check_logs(&[accepted_create("shared", DATASET)], &writes[..2]));
    }
}
