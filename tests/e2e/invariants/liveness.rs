//! B: no valid import is lost, and no job of an existing resource is forgotten. A settled resource has finished, is
//! suspended, or is stalled for a real reason.

use super::{
    AcceptedCreate, History, accepted_creates, adoption, annotation, condition, intents, is_being_deleted,
    operator_writes, rejections, tag, text, time, written_resource,
};
use personalize_operator::api::{RETRY_REQUESTED_AT, SUSPEND};
use personalize_operator::import::request::TAG_REQUESTED_AT;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

pub(super) fn check(history: &History<'_>, violations: &mut Vec<String>) {
    for resource in history.resources.iter().filter(|resource| !is_being_deleted(resource)) {
        let status = &resource["status"];
        let problem = if condition(status, "Stalled").is_some_and(|c| c["status"] == "True") {
            stall_problem(history, resource)
        } else {
            let has_ended = status["completionTime"].is_string() || is_suspended(resource);
            (!has_ended && !waits_for_full_import(history, resource))
                .then(|| "has not finished and does not say what stops it".to_owned())
        };
        violations.extend(problem.map(|problem| format!("B: {} {problem}", text(&resource["metadata"], "name"))));
    }
    no_job_forgotten(&accepted_creates(history.ledger), history, violations);
}

pub(super) fn is_suspended(resource: &Value) -> bool {
    resource["spec"]["suspend"] == true || annotation(resource, SUSPEND) == Some("true")
}

/// An INCREMENTAL import into a dataset that has no FULL one.
fn waits_for_full_import(history: &History<'_>, resource: &Value) -> bool {
    let reason = condition(&resource["status"], "Ready").map(|ready| text(ready, "reason"));
    let is_base = |job: &&Value| job["importMode"] != "INCREMENTAL" && job["status"] == "ACTIVE";
    let in_dataset = |job: &&Value| job["datasetArn"] == resource["spec"]["datasetArn"];
    reason == Some("WaitingForFullImport") && !history.jobs.iter().filter(is_base).any(|job| in_dataset(&job))
}

/// The problem with the reason for which a resource is stalled.
fn stall_problem(history: &History<'_>, resource: &Value) -> Option<String> {
    let reason = condition(&resource["status"], "Ready").map(|ready| text(ready, "reason")).unwrap_or_default();
    match reason {
        "ImportFailed" => retry_due(resource).then(|| "failed, but another attempt is due".to_owned()),
        "InvalidInput" | "AccessDenied" | "TooManyTags" => rejections::problem(history, resource, reason),
        "JobNameConflict" => (!has_conflicting_job(history.jobs, resource))
            .then(|| "reports a conflict with a job that it owns or that does not exist".to_owned()),
        "Superseded" => {
            (!is_superseded(history, resource)).then(|| "reports a newer import that is not in the dataset".to_owned())
        }
        "InvalidSpec" => adoption::request(resource).map(|_| "reports an invalid spec that is valid".to_owned()),
        // D covers missing jobs. A history does not contain namespace policies, data, nor when datasets were created.
        "JobNotFound" | "NotPermitted" | "DatasetReplaced" | "DataInvalid" | "GuardTripped" => None,
        other => Some(format!("is stalled with reason {other:?}, which does not stall")),
    }
}

/// The backoff limit allows another attempt, or the user requests one, and the job name is not fixed.
fn retry_due(resource: &Value) -> bool {
    let (spec, status) = (&resource["spec"], &resource["status"]);
    let requested = annotation(resource, RETRY_REQUESTED_AT).map(|at| at.chars().take(256).collect::<String>());
    let handled = status["lastHandledRetryAt"].as_str();
    let allowed = status["attempts"].as_i64().unwrap_or(0) <= spec["backoffLimit"].as_i64().unwrap_or(0);
    spec["jobName"].is_null() && (allowed || requested.is_some() && requested.as_deref() != handled)
}

/// A job with a name of this resource exists, and belongs to something else.
fn has_conflicting_job(jobs: &[Value], resource: &Value) -> bool {
    let Some(request) = adoption::request(resource) else { return false };
    let first = request.job_arn(1).0;
    let named =
        |arn: &str| arn.strip_prefix(first.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    jobs.iter().any(|job| named(text(job, "arn")) && !adoption::is_owned(job, resource))
}

/// A job of a newer resource has succeeded in the same dataset.
fn is_superseded(history: &History<'_>, resource: &Value) -> bool {
    let created = time(&resource["metadata"]["creationTimestamp"]);
    let newer = |at: &Value| time(at).zip(created).is_some_and(|(at, created)| at > created);
    let intended = |job: &Value| {
        operator_writes(history.writes).map(written_resource).any(|resource| {
            let status = &resource["status"];
            (status["submission"]["jobName"] == job["name"] || status["datasetImportJobArn"] == job["arn"])
                && newer(&resource["metadata"]["creationTimestamp"])
        })
    };
    let succeeded = |job: &&Value| job["status"] == "ACTIVE" && job["datasetArn"] == resource["spec"]["datasetArn"];
    let requested_later = |job: &Value| tag(job, TAG_REQUESTED_AT).is_some_and(|at| newer(&at.into()));
    history.jobs.iter().filter(succeeded).any(|job| requested_later(job) || intended(job))
}

/// The status of every existing resource names the job that the operator created for it.
fn no_job_forgotten(accepted: &[AcceptedCreate], history: &History<'_>, violations: &mut Vec<String>) {
    let resources = history.resources;
    let named: HashSet<&str> =
        resources.iter().filter_map(|r| r["status"]["datasetImportJobArn"].as_str()?.rsplit('/').next()).collect();
    let live: HashMap<&str, i64> = resources
        .iter()
        .filter(|resource| !is_being_deleted(resource))
        .filter_map(|r| Some((r["metadata"]["uid"].as_str()?, r["status"]["attempts"].as_i64().unwrap_or(0))))
        .collect();
    let created: HashSet<&str> = accepted.iter().map(|a| a.job_name.as_str()).collect();
    for intent in intents(history.writes).into_keys() {
        let is_outdated = live.get(intent.uid.as_str()).is_none_or(|attempts| *attempts > intent.attempt);
        let job_name = intent.job_name.as_str();
        if created.contains(job_name) && !is_outdated && !named.contains(job_name) {
            violations.push(format!("B: the status of {} does not name its job {job_name}", intent.uid));
        }
    }
}

mod tests {
    use crate::invariants::histories::{
        DATASET, accepted_create, assert_holds, assert_violates, failed, in_progress, intent, job, job_owned_by,
        resource, stalled, succeeded, write,
    };
    use crate::invariants::{History, check_settled};
    use serde_json::{Value, json};

    fn settled(resource: &Value, jobs: &[Value]) -> Vec<String> {
        check_settled(&History { resources: std::slice::from_ref(resource), jobs, ..History::default() })
    }

    fn stalled_for(reason: &str) -> Value {
        resource("a", &json!({"observedGeneration": 1, "conditions": stalled(reason)}))
    }

    #[test]
    fn resource_without_conditions_violates_b_unless_suspended() {
        let mut forgotten = resource("a", &json!({"observedGeneration": 1}));
        assert_violates("B", &settled(&forgotten, &[]));
        forgotten["metadata"]["annotations"] = json!({"personalize-operator.io/suspend": "true"});
        assert_holds(&settled(&forgotten, &[]));
        forgotten["metadata"]["annotations"] = Value::Null;
        forgotten["spec"]["suspend"] = json!(true);
        assert_holds(&settled(&forgotten, &[]));
    }

    #[test]
    fn resource_that_still_waits_violates_b_unless_it_is_being_deleted() {
        let mut waiting = resource("a", &json!({"observedGeneration": 1, "conditions": in_progress()}));
        assert_violates("B", &settled(&waiting, &[]));
        waiting["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:09:00Z");
        assert_holds(&settled(&waiting, &[]));
    }

    #[test]
    fn waiting_for_a_first_full_import_violates_b_once_there_is_one() {
        let mut waiting = resource("a", &json!({"observedGeneration": 1, "conditions": in_progress()}));
        waiting["status"]["conditions"][0]["reason"] = json!("WaitingForFullImport");
        assert_holds(&settled(&waiting, &[job_owned_by("b", "failed", "CREATE FAILED", 0, 1)]));
        assert_violates("B", &settled(&waiting, &[job_owned_by("b", "full", "ACTIVE", 0, 1)]));
        let mut appended = job_owned_by("b", "appended", "ACTIVE", 0, 1);
        appended["importMode"] = json!("INCREMENTAL");
        assert_holds(&settled(&waiting, &[appended]));
    }

    #[test]
    fn job_that_no_status_names_violates_b_unless_its_resource_is_gone() {
        let (ledger, writes) = ([accepted_create("a-1", DATASET)], [write("a", &intent("a-1", 1))]);
        let history = History { ledger: &ledger, writes: &writes, ..History::default() };
        let denied = [stalled_for("NotPermitted")];
        assert_violates("B", &check_settled(&History { resources: &denied, ..history }));
        assert_holds(&check_settled(&history));
        let mut other = stalled_for("NotPermitted");
        other["metadata"]["uid"] = json!("another");
        assert_holds(&check_settled(&History { resources: &[other], ..history }));
    }

    #[test]
    fn stalled_for_a_reason_that_does_not_stall_violates_b() {
        for reason in ["Queued", "", "Suspended"] {
            assert_violates("B", &settled(&stalled_for(reason), &[]));
        }
        assert_holds(&settled(&stalled_for("NotPermitted"), &[]));
    }

    #[test]
    fn failure_with_a_due_retry_violates_b() {
        let mut failure = resource(
            "a",
            &json!({"observedGeneration": 1, "status": "CREATE FAILED", "completionTime": "x", "attempts": 1,
                "datasetImportJobArn": succeeded("a-1")["datasetImportJobArn"], "conditions": failed()}),
        );
        let jobs = [job("a-1", "CREATE FAILED", 0, 1)];
        assert_holds(&settled(&failure, &jobs));
        failure["metadata"]["annotations"] = json!({"personalize-operator.io/retry-requested-at": "now"});
        assert_violates("B", &settled(&failure, &jobs));
        failure["status"]["lastHandledRetryAt"] = json!("now");
        assert_holds(&settled(&failure, &jobs));
        failure["spec"]["backoffLimit"] = json!(1);
        assert_violates("B", &settled(&failure, &jobs));
        failure["spec"]["jobName"] = json!("a-1");
        assert_holds(&settled(&failure, &jobs));
    }

    #[test]
    fn conflict_without_a_foreign_job_violates_b() {
        let mut conflict = stalled_for("JobNameConflict");
        conflict["spec"]["jobName"] = json!("chosen");
        assert_violates("B", &settled(&conflict, &[]));
        assert_violates("B", &settled(&conflict, &[job_owned_by("b", "other", "ACTIVE", 0, 1)]));
        assert_holds(&settled(&conflict, &[job_owned_by("b", "chosen", "ACTIVE", 0, 1)]));
        let mut own = job("chosen", "ACTIVE", 0, 1);
        let request = crate::invariants::adoption::request(&conflict).unwrap();
        own["tags"][2]["tagValue"] = json!(request.hash());
        assert_violates("B", &settled(&conflict, std::slice::from_ref(&own)));
        own["dataLocation"] = json!("s3://bucket/else.csv");
        assert_holds(&settled(&conflict, &[own]));
    }

    #[test]
    fn superseded_without_a_newer_success_violates_b() {
        let superseded = stalled_for("Superseded");
        assert_violates("B", &settled(&superseded, &[]));
        let newer_job = |status: &str, requested: &str| {
            let mut job = job_owned_by("b", "newer", status, 0, 1);
            let tag = json!({"tagKey": "personalize-operator.io/requested-at", "tagValue": requested});
            job["tags"].as_array_mut().unwrap().push(tag);
            job
        };
        assert_holds(&settled(&superseded, &[newer_job("ACTIVE", "2026-01-01T00:00:02Z")]));
        assert_violates("B", &settled(&superseded, &[newer_job("CREATE FAILED", "2026-01-01T00:00:02Z")]));
        assert_violates("B", &settled(&superseded, &[newer_job("ACTIVE", "2026-01-01T00:00:01Z")]));
        let mut elsewhere = newer_job("ACTIVE", "2026-01-01T00:00:02Z");
        elsewhere["datasetArn"] = json!("another");
        assert_violates("B", &settled(&superseded, &[elsewhere]));
    }

    #[test]
    fn superseded_by_the_intent_of_a_newer_resource_holds() {
        let (ledger, writes) = ([accepted_create("b-1", DATASET)], [write("bb", &intent("b-1", 1))]);
        let jobs = [job_owned_by("bb", "b-1", "ACTIVE", 0, 1)];
        let superseded = [stalled_for("Superseded")];
        let history =
            History { ledger: &ledger, writes: &writes, jobs: &jobs, resources: &superseded, ..History::default() };
        assert_holds(&check_settled(&history));
        let older = [write("b", &intent("b-1", 1))];
        assert_violates("B", &check_settled(&History { writes: &older, ..history }));
    }

    #[test]
    fn invalid_spec_reported_for_a_valid_spec_violates_b() {
        let mut invalid = stalled_for("InvalidSpec");
        assert_violates("B", &settled(&invalid, &[]));
        invalid["spec"]["datasetArn"] = json!("nonsense");
        assert_holds(&settled(&invalid, &[]));
    }
}
