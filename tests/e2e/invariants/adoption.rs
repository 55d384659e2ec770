//! C: a status tells of no job but the resource's own: one that does what the resource asks for, and whose
//! tags prove whose it is, unless a person lets the resource adopt another's.

use super::{Books, accepted, annotation, job, object, of_operator, tag, text};
use personalize_operator::api::{ADOPT, DatasetImportJobSpec};
use personalize_operator::import::request::{ImportRequest, TAG_NAME, TAG_NAMESPACE, TAG_REQUEST_HASH};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

pub(super) fn judge(books: &Books<'_>, faults: &mut Vec<String>) {
    let accepted = accepted(books.ledger);
    let made: HashSet<&str> = accepted.iter().map(|a| a.job_name.as_str()).collect();
    let mut owners: HashMap<&str, &str> = HashMap::new();
    let mut adopted: HashSet<(&str, &str)> = HashSet::new();
    for write in of_operator(books.writes) {
        let object = object(write);
        let (owner, uid) = (text(&object["metadata"], "name"), text(&object["metadata"], "uid"));
        if let Some(name) = object["status"]["submission"]["jobName"].as_str() {
            owners.entry(name).or_insert(owner);
        }
        let Some(arn) = object["status"]["datasetImportJobArn"].as_str() else { continue };
        let (job, job_name) = (job(books.jobs, arn), arn.rsplit('/').next().unwrap_or_default());
        for field in job.into_iter().flat_map(|job| differences(job, object)) {
            faults.push(format!("C: {owner} tells of {job_name}, whose {field} is another"));
        }
        if annotation(object, ADOPT) == Some("true") {
            adopted.insert((uid, arn));
        }
        if adopted.contains(&(uid, arn)) {
            continue;
        }
        if job.is_some_and(|job| !tagged(job, object)) {
            faults.push(format!("C: {owner} tells of {job_name}, whose tags don't say that it is its own"));
        } else if job.is_none() && !made.contains(job_name) {
            faults.push(format!("C: {owner} tells of {job_name}, which the operator did not make"));
        } else if let Some(first) = owners.get(job_name).filter(|first| **first != owner) {
            faults.push(format!("C: {owner} tells of {job_name}, which belongs to {first}"));
        }
    }
}

/// The import that a resource asks for, if it can be read.
pub(super) fn request(resource: &Value) -> Option<ImportRequest> {
    let spec: DatasetImportJobSpec = serde_json::from_value(resource["spec"].clone()).ok()?;
    let metadata = &resource["metadata"];
    ImportRequest::new(text(metadata, "namespace"), text(metadata, "name"), &spec).ok()
}

/// In what a job differs from what the resource asks for.
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
            "metrics' publishing",
            publish(&job["publishAttributionMetricsToS3"]) == publish(&spec["publishAttributionMetricsToS3"]),
        ),
    ]
    .into_iter()
    .filter_map(|(field, same)| (!same).then_some(field))
    .collect()
}

/// Whether a job's tags tell that it is this resource's, made for this very request.
fn tagged(job: &Value, resource: &Value) -> bool {
    let metadata = &resource["metadata"];
    tag(job, TAG_NAMESPACE) == metadata["namespace"].as_str()
        && tag(job, TAG_NAME) == metadata["name"].as_str()
        && request(resource).is_some_and(|request| tag(job, TAG_REQUEST_HASH) == Some(&request.hash()))
}

/// Whether a job is this resource's beyond doubt.
pub(super) fn own(job: &Value, resource: &Value) -> bool {
    differences(job, resource).is_empty() && tagged(job, resource)
}

mod tests {
    use crate::invariants::histories::{D, breaks, create, holds, intent, job, job_of, told, write};
    use crate::invariants::{Books, judge, judge_books};
    use serde_json::{Value, json};

    fn with_jobs(writes: &[Value], jobs: &[Value]) -> Vec<String> {
        judge_books(&Books { writes, jobs, ..Books::default() })
    }

    fn adopting(mut write: Value) -> Value {
        write["responseObject"]["metadata"]["annotations"] = json!({"personalize-operator.io/adopt": "true"});
        write
    }

    #[test]
    fn c_is_broken_by_a_job_that_nobody_here_made_unless_a_person_asked_for_it() {
        let adopted = adopting(write("a", &told("foreign")));
        breaks("C", &judge(&[], &[write("a", &told("foreign"))]));
        let mut later = write("a", &told("foreign"));
        later["responseObject"]["status"]["observedGeneration"] = json!(0);
        holds(&judge(&[], &[later, adopted.clone()])[1..]);
        let mut after = write("a", &told("foreign"));
        after["responseObject"]["status"]["attempts"] = json!(1);
        holds(&judge(&[], &[adopted, after]));
    }

    #[test]
    fn c_is_broken_by_an_older_job_of_another_and_not_by_ones_own() {
        breaks("C", &with_jobs(&[write("a", &told("old"))], &[job_of("b", "old", "ACTIVE", 0, 1)]));
        holds(&with_jobs(&[write("a", &told("old"))], &[job_of("a", "old", "ACTIVE", 0, 1)]));
    }

    #[test]
    fn c_is_broken_by_a_job_of_a_namesake_in_another_namespace() {
        let mut theirs = job("old", "ACTIVE", 0, 1);
        theirs["tags"][0]["tagValue"] = json!("elsewhere");
        breaks("C", &with_jobs(&[write("a", &told("old"))], &[theirs]));
    }

    #[test]
    fn c_is_broken_by_a_job_that_was_made_for_another_request() {
        let mut other = job("old", "ACTIVE", 0, 1);
        other["tags"][2]["tagValue"] = json!("0");
        breaks("C", &with_jobs(&[write("a", &told("old"))], &[other]));
    }

    #[test]
    fn c_is_broken_by_a_job_that_differs_though_a_person_asked_for_it() {
        for (field, other) in [
            ("datasetArn", json!("another")),
            ("dataLocation", json!("s3://bucket/else.csv")),
            ("roleArn", json!("another")),
            ("importMode", json!("INCREMENTAL")),
            ("publishAttributionMetricsToS3", json!(true)),
        ] {
            let mut foreign = job("old", "ACTIVE", 0, 1);
            foreign["tags"] = json!([]);
            let writes = [adopting(write("a", &told("old")))];
            holds(&with_jobs(&writes, std::slice::from_ref(&foreign)));
            foreign[field] = other;
            breaks("C", &with_jobs(&writes, &[foreign]));
        }
    }

    #[test]
    fn c_is_broken_by_the_job_of_another_resource() {
        let writes = [write("a", &intent("shared", 1)), write("a", &told("shared")), write("bb", &told("shared"))];
        breaks("C", &judge(&[create("shared", D)], &writes));
        holds(&judge(&[create("shared", D)], &writes[..2]));
    }
}
