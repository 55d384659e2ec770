//! B: a valid resource's import is never lost, and no job of a living resource is forgotten. A resource at
//! rest has finished, or is held back, or is stalled by something that is really there.

use super::{
    Accepted, Books, accepted, adoption, annotation, condition, intents, object, of_operator, rejections, tag, text,
    time,
};
use personalize_operator::api::{RETRY_REQUESTED_AT, SUSPEND};
use personalize_operator::import::request::TAG_REQUESTED_AT;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

pub(super) fn judge(books: &Books<'_>, faults: &mut Vec<String>) {
    // One that is on its way out is left alone.
    for resource in books.resources.iter().filter(|r| r["metadata"]["deletionTimestamp"].is_null()) {
        let status = &resource["status"];
        let why = if condition(status, "Stalled").is_some_and(|c| c["status"] == "True") {
            stalled(books, resource)
        } else if status["completionTime"].is_string() || held_back(resource) {
            None
        } else {
            Some("is neither finished nor does it say what stops it".to_owned())
        };
        faults.extend(why.map(|why| format!("B: {} {why}", text(&resource["metadata"], "name"))));
    }
    nothing_forgotten(&accepted(books.ledger), books, faults);
}

fn held_back(resource: &Value) -> bool {
    resource["spec"]["suspend"] == true || annotation(resource, SUSPEND) == Some("true")
}

/// What is wrong with the reason that a stalled resource tells.
fn stalled(books: &Books<'_>, resource: &Value) -> Option<String> {
    let reason = condition(&resource["status"], "Ready").map(|ready| text(ready, "reason")).unwrap_or_default();
    match reason {
        "ImportFailed" => retry_owed(resource).then(|| "has failed, and another attempt is owed to it".to_owned()),
        "InvalidInput" | "AccessDenied" | "TooManyTags" => rejections::groundless(books, resource, reason),
        "JobNameConflict" => (!in_the_way(books.jobs, resource))
            .then(|| "tells of a conflict with a job that is its own, or is not there".to_owned()),
        "Superseded" => {
            (!overtaken(books, resource)).then(|| "gives way to a newer import that is not in the dataset".to_owned())
        }
        "InvalidSpec" => adoption::request(resource).map(|_| "can't be read, it says, and it can".to_owned()),
        // That the job is gone is for D to judge; what a namespace may do is in neither side's books.
        "JobNotFound" | "NotPermitted" => None,
        other => Some(format!("is stalled for {other:?}, which stalls nothing")),
    }
}

/// The backoff limit allows another attempt, or a person asked for one, and the name is not fixed.
fn retry_owed(resource: &Value) -> bool {
    let (spec, status) = (&resource["spec"], &resource["status"]);
    let asked = annotation(resource, RETRY_REQUESTED_AT).map(|at| at.chars().take(256).collect::<String>());
    let handled = status["lastHandledRetryAt"].as_str();
    let allowed = status["attempts"].as_i64().unwrap_or(0) <= spec["backoffLimit"].as_i64().unwrap_or(0);
    spec["jobName"].is_null() && (allowed || asked.is_some() && asked.as_deref() != handled)
}

/// A job stands under a name of this resource, and is not its own.
fn in_the_way(jobs: &[Value], resource: &Value) -> bool {
    let Some(request) = adoption::request(resource) else { return false };
    let first = request.job_arn(1).0;
    let named =
        |arn: &str| arn.strip_prefix(first.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    jobs.iter().any(|job| named(text(job, "arn")) && !adoption::own(job, resource))
}

/// A job that was made for a newer resource has put its data into the same dataset.
fn overtaken(books: &Books<'_>, resource: &Value) -> bool {
    let created = time(&resource["metadata"]["creationTimestamp"]);
    let newer = |at: &Value| time(at).zip(created).is_some_and(|(at, created)| at > created);
    let meant = |job: &Value| {
        of_operator(books.writes).map(object).any(|object| {
            let status = &object["status"];
            (status["submission"]["jobName"] == job["name"] || status["datasetImportJobArn"] == job["arn"])
                && newer(&object["metadata"]["creationTimestamp"])
        })
    };
    let landed = |job: &&Value| job["status"] == "ACTIVE" && job["datasetArn"] == resource["spec"]["datasetArn"];
    let asked_later = |job: &Value| tag(job, TAG_REQUESTED_AT).is_some_and(|at| newer(&at.into()));
    books.jobs.iter().filter(landed).any(|job| asked_later(job) || meant(job))
}

/// A job that the operator made for a resource that still exists is in that resource's status.
fn nothing_forgotten(accepted: &[Accepted], books: &Books<'_>, faults: &mut Vec<String>) {
    let resources = books.resources;
    let told: HashSet<&str> =
        resources.iter().filter_map(|r| r["status"]["datasetImportJobArn"].as_str()?.rsplit('/').next()).collect();
    let live: HashMap<&str, i64> = resources
        .iter()
        .filter(|r| r["metadata"]["deletionTimestamp"].is_null())
        .filter_map(|r| Some((r["metadata"]["uid"].as_str()?, r["status"]["attempts"].as_i64().unwrap_or(0))))
        .collect();
    let made: HashSet<&str> = accepted.iter().map(|a| a.job_name.as_str()).collect();
    for intent in intents(books.writes).into_keys() {
        let superseded = live.get(intent.uid.as_str()).is_none_or(|attempts| *attempts > intent.attempt);
        let job_name = intent.job_name.as_str();
        if made.contains(job_name) && !superseded && !told.contains(job_name) {
            faults.push(format!("B: the job {job_name} runs for {}, whose status does not tell of it", intent.uid));
        }
    }
}

mod tests {
    use crate::invariants::histories::{
        D, breaks, create, failed, going, holds, intent, job, job_of, resource, stalled, told, write,
    };
    use crate::invariants::{Books, judge_settled};
    use serde_json::{Value, json};

    fn settled(resource: &Value, jobs: &[Value]) -> Vec<String> {
        judge_settled(&Books { resources: std::slice::from_ref(resource), jobs, ..Books::default() })
    }

    fn stalled_for(reason: &str) -> Value {
        resource("a", &json!({"observedGeneration": 1, "conditions": stalled(reason)}))
    }

    #[test]
    fn b_is_broken_by_a_resource_that_is_forgotten_and_not_by_one_held_back() {
        let mut forgotten = resource("a", &json!({"observedGeneration": 1}));
        breaks("B", &settled(&forgotten, &[]));
        forgotten["metadata"]["annotations"] = json!({"personalize-operator.io/suspend": "true"});
        holds(&settled(&forgotten, &[]));
        forgotten["metadata"]["annotations"] = Value::Null;
        forgotten["spec"]["suspend"] = json!(true);
        holds(&settled(&forgotten, &[]));
    }

    #[test]
    fn b_is_broken_by_a_resource_that_still_waits_unless_it_is_on_its_way_out() {
        let mut waiting = resource("a", &json!({"observedGeneration": 1, "conditions": going()}));
        breaks("B", &settled(&waiting, &[]));
        waiting["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:09:00Z");
        holds(&settled(&waiting, &[]));
    }

    #[test]
    fn b_is_broken_by_a_job_that_no_status_tells_of_and_not_if_its_resource_is_gone() {
        let (ledger, writes) = ([create("a-1", D)], [write("a", &intent("a-1", 1))]);
        let books = Books { ledger: &ledger, writes: &writes, ..Books::default() };
        let denied = [stalled_for("NotPermitted")];
        breaks("B", &judge_settled(&Books { resources: &denied, ..books }));
        holds(&judge_settled(&books));
        let mut other = stalled_for("NotPermitted");
        other["metadata"]["uid"] = json!("another");
        holds(&judge_settled(&Books { resources: &[other], ..books }));
    }

    #[test]
    fn b_is_broken_by_a_state_that_stalls_nothing() {
        for reason in ["Queued", "", "Suspended"] {
            breaks("B", &settled(&stalled_for(reason), &[]));
        }
        holds(&settled(&stalled_for("NotPermitted"), &[]));
    }

    #[test]
    fn b_is_broken_by_a_failure_that_another_attempt_should_follow() {
        let mut failure = resource(
            "a",
            &json!({"observedGeneration": 1, "status": "CREATE FAILED", "completionTime": "x", "attempts": 1,
                "datasetImportJobArn": told("a-1")["datasetImportJobArn"], "conditions": failed()}),
        );
        let jobs = [job("a-1", "CREATE FAILED", 0, 1)];
        holds(&settled(&failure, &jobs));
        failure["metadata"]["annotations"] = json!({"personalize-operator.io/retry-requested-at": "now"});
        breaks("B", &settled(&failure, &jobs));
        failure["status"]["lastHandledRetryAt"] = json!("now");
        holds(&settled(&failure, &jobs));
        failure["spec"]["backoffLimit"] = json!(1);
        breaks("B", &settled(&failure, &jobs));
        failure["spec"]["jobName"] = json!("a-1");
        holds(&settled(&failure, &jobs));
    }

    #[test]
    fn b_is_broken_by_a_conflict_with_nothing_or_with_ones_own_job() {
        let mut conflict = stalled_for("JobNameConflict");
        conflict["spec"]["jobName"] = json!("chosen");
        breaks("B", &settled(&conflict, &[]));
        breaks("B", &settled(&conflict, &[job_of("b", "other", "ACTIVE", 0, 1)]));
        holds(&settled(&conflict, &[job_of("b", "chosen", "ACTIVE", 0, 1)]));
        let mut own = job("chosen", "ACTIVE", 0, 1);
        let request = crate::invariants::adoption::request(&conflict).unwrap();
        own["tags"][2]["tagValue"] = json!(request.hash());
        breaks("B", &settled(&conflict, std::slice::from_ref(&own)));
        own["dataLocation"] = json!("s3://bucket/else.csv");
        holds(&settled(&conflict, &[own]));
    }

    #[test]
    fn b_is_broken_by_giving_way_to_nothing_or_to_an_older_import() {
        let superseded = stalled_for("Superseded");
        breaks("B", &settled(&superseded, &[]));
        let landed = |status: &str, asked: &str| {
            let mut job = job_of("b", "newer", status, 0, 1);
            let tag = json!({"tagKey": "personalize-operator.io/requested-at", "tagValue": asked});
            job["tags"].as_array_mut().unwrap().push(tag);
            job
        };
        holds(&settled(&superseded, &[landed("ACTIVE", "2026-01-01T00:00:02Z")]));
        breaks("B", &settled(&superseded, &[landed("CREATE FAILED", "2026-01-01T00:00:02Z")]));
        breaks("B", &settled(&superseded, &[landed("ACTIVE", "2026-01-01T00:00:01Z")]));
        let mut elsewhere = landed("ACTIVE", "2026-01-01T00:00:02Z");
        elsewhere["datasetArn"] = json!("another");
        breaks("B", &settled(&superseded, &[elsewhere]));
    }

    #[test]
    fn b_is_not_broken_by_giving_way_to_a_job_that_a_newer_resource_meant() {
        let (ledger, writes) = ([create("b-1", D)], [write("bb", &intent("b-1", 1))]);
        let jobs = [job_of("bb", "b-1", "ACTIVE", 0, 1)];
        let superseded = [stalled_for("Superseded")];
        let books = Books { ledger: &ledger, writes: &writes, jobs: &jobs, resources: &superseded, ..Books::default() };
        holds(&judge_settled(&books));
        let older = [write("b", &intent("b-1", 1))];
        breaks("B", &judge_settled(&Books { writes: &older, ..books }));
    }

    #[test]
    fn b_is_broken_by_a_spec_that_is_called_unreadable_and_is_not() {
        let mut invalid = stalled_for("InvalidSpec");
        breaks("B", &settled(&invalid, &[]));
        invalid["spec"]["datasetArn"] = json!("nonsense");
        holds(&settled(&invalid, &[]));
    }
}
