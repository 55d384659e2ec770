//! D: the status is true. It agrees with the service, is in one of the four states, and observedGeneration never
//! decreases.

use super::{History, condition, is_being_deleted, job, operator_writes, text, time, written_resource};
use serde_json::Value;
use std::collections::HashMap;

pub(super) fn check(history: &History<'_>, violations: &mut Vec<String>) {
    generations(history.writes, violations);
    states(history.writes, violations);
    ends(history, violations);
}

/// observedGeneration never decreases, and never exceeds the generation.
fn generations(writes: &[Value], violations: &mut Vec<String>) {
    let mut last: HashMap<&str, i64> = HashMap::new();
    for write in operator_writes(writes) {
        let resource = written_resource(write);
        let uid = text(&resource["metadata"], "uid");
        let observed = resource["status"]["observedGeneration"].as_i64().unwrap_or(-1);
        let generation = resource["metadata"]["generation"].as_i64().unwrap_or(0);
        if observed > generation {
            violations.push(format!("D: {uid} reports generation {observed} and is at {generation}"));
        }
        if let Some(before) = last.insert(uid, observed)
            && observed < before
        {
            violations.push(format!("D: {uid} went back from generation {before} to {observed}"));
        }
    }
}

/// The allowed states: Ready, Succeeded, Reconciling, Stalled.
const STATES: [[&str; 4]; 4] = [
    ["Unknown", "Unknown", "True", "False"],
    ["True", "True", "False", "False"],
    ["False", "False", "False", "True"],
    ["Unknown", "Unknown", "False", "False"],
];

fn is_finished(status: &Value) -> bool {
    matches!(status["status"].as_str(), Some("ACTIVE" | "CREATE FAILED"))
}

/// The phases of each of these states; `phase`, `reason` and `message` repeat the condition Ready.
const PHASES: [&[&str]; 4] =
    [&["Pending", "Queued", "Running"], &["Succeeded"], &["Failed", "Stalled"], &["Suspended"]];

/// The four conditions form an allowed state, the summary agrees with them, and only an ACTIVE job has succeeded.
fn states(writes: &[Value], violations: &mut Vec<String>) {
    for write in operator_writes(writes) {
        let (name, status) = (text(&written_resource(write)["metadata"], "name"), &written_resource(write)["status"]);
        let state =
            ["Ready", "Succeeded", "Reconciling", "Stalled"].map(|kind| condition(status, kind)?["status"].as_str());
        let known = STATES.iter().position(|allowed| state == allowed.map(Some));
        if known.is_none() {
            violations.push(format!("D: {name} is in an unknown state: {state:?}"));
        }
        let phase = status["phase"].as_str().unwrap_or_default();
        let repeats = |field: &str| condition(status, "Ready").is_some_and(|ready| ready[field] == status[field]);
        if known.is_some_and(|known| !PHASES[known].contains(&phase)) || !repeats("reason") || !repeats("message") {
            violations.push(format!("D: {name} summarizes {state:?} as {phase}"));
        }
        let succeeded = status["status"] == "ACTIVE" && status["completionTime"].is_string();
        if (state[0] == Some("True")) != succeeded || status["completionTime"].is_string() && !is_finished(status) {
            violations.push(format!("D: {name} reports {state:?} for a job that is {}", status["status"]));
        }
    }
}

/// The status says that the service has lost the job.
fn is_job_missing(status: &Value) -> bool {
    condition(status, "Ready").is_some_and(|ready| ready["reason"] == "JobNotFound")
}

/// The end of a job is reported after it happened, correctly, and never changes.
fn ends(history: &History<'_>, violations: &mut Vec<String>) {
    let mut ended: HashMap<(&str, &str), &Value> = HashMap::new();
    for write in operator_writes(history.writes) {
        let (metadata, status) = (&written_resource(write)["metadata"], &written_resource(write)["status"]);
        let Some(arn) = status["datasetImportJobArn"].as_str() else { continue };
        let (name, reported) = (text(metadata, "name"), &status["status"]);
        match ended.get(&(text(metadata, "uid"), arn)) {
            // A missing job has no status.
            Some(before) if *before != reported && !is_job_missing(status) => {
                violations.push(format!("D: {name} reported {before} for its job, then {reported}"));
            }
            _ if is_finished(status) => drop(ended.insert((text(metadata, "uid"), arn), reported)),
            _ => {}
        }
        let Some(job) = job(history.jobs, arn) else { continue };
        let (Some(at), Some(updated)) = (time(&write["requestReceivedTimestamp"]), job["updatedMs"].as_i64()) else {
            continue;
        };
        let at = at.as_millisecond();
        if is_finished(status) && (job["status"] != *reported || updated > at) {
            violations.push(format!("D: {name} reported {reported} before its job was in that state"));
        }
        if job["createdMs"].as_i64().is_some_and(|created| created > at) {
            violations.push(format!("D: {name} reported its job before it existed"));
        }
    }
}

/// Every status is about the latest generation, and agrees with the service.
pub(super) fn check_settled(history: &History<'_>, violations: &mut Vec<String>) {
    for resource in history.resources.iter().filter(|resource| !is_being_deleted(resource)) {
        let (name, status) = (text(&resource["metadata"], "name"), &resource["status"]);
        if status["observedGeneration"] != resource["metadata"]["generation"] {
            violations.push(format!("D: {name} has not observed its latest generation"));
        }
        let Some(arn) = status["datasetImportJobArn"].as_str() else { continue };
        let missing = is_job_missing(status);
        match job(history.jobs, arn) {
            Some(_) if missing => violations.push(format!("D: {name} reports {arn} as missing, but it exists")),
            Some(job) if job["status"] != status["status"] => {
                violations.push(format!("D: {name} reports {}, but its job is {}", status["status"], job["status"]));
            }
            None if !missing => violations.push(format!("D: {name} names {arn}, which does not exist")),
            _ => {}
        }
    }
}

mod tests {
    use crate::invariants::histories::{
        DATASET, accepted_create, assert_holds, assert_violates, conditions, failed, in_progress, intent, job,
        millis_at, resource, stalled, succeeded, write,
    };
    use crate::invariants::{History, check, check_logs, check_settled};
    use serde_json::{Value, json};

    #[test]
    fn generation_that_decreases_or_is_ahead_violates_d() {
        let at = |generation: i64, n: i64| {
            write("a", &json!({"observedGeneration": generation, "attempts": n, "conditions": in_progress()}))
        };
        assert_violates("D", &check_logs(&[], &[at(1, 0), at(0, 1)]));
        assert_violates("D", &check_logs(&[], &[at(2, 0)]));
        assert_holds(&check_logs(&[], &[at(0, 0), at(1, 0)]));
    }

    #[test]
    fn conditions_that_contradict_each_other_or_the_job_violate_d() {
        let with = |status: &str, conditions: Value| {
            write("a", &json!({"observedGeneration": 1, "status": status, "conditions": conditions}))
        };
        assert_violates(
            "D",
            &check_logs(&[], &[with("CREATE PENDING", conditions("Pending", ["True", "Unknown", "True", "False"]))]),
        );
        assert_violates("D", &check_logs(&[], &[with("CREATE PENDING", json!([]))]));
        assert_violates(
            "D",
            &check_logs(&[], &[with("CREATE FAILED", conditions("ImportFailed", ["True", "True", "False", "False"]))]),
        );
        let mut early = with("CREATE PENDING", in_progress());
        early["responseObject"]["status"]["completionTime"] = json!("x");
        assert_violates("D", &check_logs(&[], &[early]));
        assert_holds(&check_logs(&[], &[with("CREATE PENDING", in_progress())]));
    }

    #[test]
    fn phase_or_reason_that_contradicts_the_conditions_violates_d() {
        for (field, value) in [("phase", "Failed"), ("phase", "Suspended"), ("reason", "Queued"), ("message", "other")]
        {
            let mut forged = write("a", &json!({"observedGeneration": 1, "conditions": in_progress()}));
            assert_holds(&check_logs(&[], std::slice::from_ref(&forged)));
            forged["responseObject"]["status"][field] = json!(value);
            assert_violates("D", &check_logs(&[], &[forged]));
        }
    }

    /// A history in which the end of the job is reported 30 seconds after midnight.
    fn check_end(end: &Value, job: &Value) -> Vec<String> {
        check(&History {
            ledger: &[accepted_create("a-1", DATASET)],
            writes: &[write("a", &intent("a-1", 1)), end.clone()],
            jobs: std::slice::from_ref(job),
            ..History::default()
        })
    }

    #[test]
    fn end_reported_before_it_happened_violates_d() {
        let (end, moment) = (write("a", &succeeded("a-1")), millis_at("00:00:30"));
        assert_holds(&check_end(&end, &job("a-1", "ACTIVE", 0, moment)));
        assert_violates("D", &check_end(&end, &job("a-1", "ACTIVE", 0, moment + 1)));
        assert_violates("D", &check_end(&end, &job("a-1", "CREATE IN_PROGRESS", 0, 1)));
        assert_violates("D", &check_end(&end, &job("a-1", "CREATE FAILED", 0, 1)));
    }

    #[test]
    fn job_reported_before_it_exists_violates_d() {
        let running = json!({"observedGeneration": 1, "datasetImportJobArn": succeeded("a-1")["datasetImportJobArn"],
            "status": "CREATE PENDING", "conditions": in_progress()});
        let (running, moment) = (write("a", &running), millis_at("00:00:30"));
        assert_holds(&check_end(&running, &job("a-1", "CREATE PENDING", moment, moment)));
        assert_violates("D", &check_end(&running, &job("a-1", "CREATE PENDING", moment + 1, moment + 1)));
    }

    #[test]
    fn job_reported_as_running_after_its_end_violates_d() {
        let mut back = write("a", &succeeded("a-1"));
        let status = &mut back["responseObject"]["status"];
        status["status"] = json!("CREATE IN_PROGRESS");
        status["completionTime"] = Value::Null;
        status["conditions"] = in_progress();
        let writes = [write("a", &intent("a-1", 1)), write("a", &succeeded("a-1")), back];
        assert_violates("D", &check_logs(&[accepted_create("a-1", DATASET)], &writes));
        assert_holds(&check_logs(&[accepted_create("a-1", DATASET)], &writes[..2]));
    }

    /// The violations for one settled resource.
    fn settled(resource: &Value, jobs: &[Value]) -> Vec<String> {
        let writes = [write("a", &intent("a-1", 1))];
        check_settled(&History {
            ledger: &[accepted_create("a-1", DATASET)],
            writes: &writes,
            resources: std::slice::from_ref(resource),
            jobs,
            ..History::default()
        })
    }

    #[test]
    fn status_that_disagrees_with_the_service_violates_d() {
        let resource = resource("a", &succeeded("a-1"));
        assert_holds(&settled(&resource, &[job("a-1", "ACTIVE", 0, 1)]));
        assert_violates("D", &settled(&resource, &[job("a-1", "CREATE FAILED", 0, 1)]));
        assert_violates("D", &settled(&resource, &[]));
    }

    #[test]
    fn job_in_another_region_violates_d() {
        let mut elsewhere = job("a-1", "ACTIVE", 0, 1);
        elsewhere["arn"] = json!("arn:aws:personalize:us-east-1:123456789012:dataset-import-job/a-1");
        assert_violates("D", &settled(&resource("a", &succeeded("a-1")), &[elsewhere]));
    }

    #[test]
    fn existing_job_reported_as_missing_violates_d() {
        let mut gone = succeeded("a-1");
        gone["completionTime"] = Value::Null;
        gone["conditions"] = stalled("JobNotFound");
        assert_holds(&settled(&resource("a", &gone), &[]));
        assert_violates("D", &settled(&resource("a", &gone), &[job("a-1", "ACTIVE", 0, 1)]));
    }

    #[test]
    fn unobserved_generation_violates_d_unless_the_resource_is_being_deleted() {
        let mut edited = resource("a", &succeeded("a-1"));
        edited["metadata"]["generation"] = json!(2);
        assert_violates("D", &settled(&edited, &[job("a-1", "ACTIVE", 0, 1)]));
        edited["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:09:00Z");
        assert_holds(&settled(&edited, &[job("a-1", "ACTIVE", 0, 1)]));
    }

    #[test]
    fn failure_reported_after_it_happened_holds() {
        let failure = json!({"observedGeneration": 1, "status": "CREATE FAILED", "completionTime": "x", "attempts": 1,
            "datasetImportJobArn": succeeded("a-1")["datasetImportJobArn"], "conditions": failed()});
        assert_holds(&check_end(&write("a", &failure), &job("a-1", "CREATE FAILED", 0, 1)));
        assert_holds(&settled(&resource("a", &failure), &[job("a-1", "CREATE FAILED", 0, 1)]));
    }
}
