//! D: status tells the truth: what the service tells, one of the four states, no older generation than
//! before.

use super::{Books, condition, job, object, of_operator, text, time};
use serde_json::Value;
use std::collections::HashMap;

pub(super) fn judge(books: &Books<'_>, faults: &mut Vec<String>) {
    generations(books.writes, faults);
    states(books.writes, faults);
    ends(books, faults);
}

/// observedGeneration never goes back, and never runs ahead of the resource.
fn generations(writes: &[Value], faults: &mut Vec<String>) {
    let mut last: HashMap<&str, i64> = HashMap::new();
    for write in of_operator(writes) {
        let object = object(write);
        let uid = text(&object["metadata"], "uid");
        let observed = object["status"]["observedGeneration"].as_i64().unwrap_or(-1);
        let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
        if observed > generation {
            faults.push(format!("D: {uid} tells generation {observed} and is at {generation}"));
        }
        if let Some(before) = last.insert(uid, observed)
            && observed < before
        {
            faults.push(format!("D: {uid} went back from generation {before} to {observed}"));
        }
    }
}

/// The rows of the table of states: Ready, Succeeded, Reconciling, Stalled.
const ROWS: [[&str; 4]; 4] = [
    ["Unknown", "Unknown", "True", "False"],
    ["True", "True", "False", "False"],
    ["False", "False", "False", "True"],
    ["Unknown", "Unknown", "False", "False"],
];

fn over(status: &Value) -> bool {
    matches!(status["status"].as_str(), Some("ACTIVE" | "CREATE FAILED"))
}

/// The four conditions say one thing, and success is told of nothing but an ACTIVE job.
fn states(writes: &[Value], faults: &mut Vec<String>) {
    for write in of_operator(writes) {
        let (name, status) = (text(&object(write)["metadata"], "name"), &object(write)["status"]);
        let row =
            ["Ready", "Succeeded", "Reconciling", "Stalled"].map(|kind| condition(status, kind)?["status"].as_str());
        if !ROWS.iter().any(|allowed| row == allowed.map(Some)) {
            faults.push(format!("D: {name} is in no state that there is: {row:?}"));
        }
        let succeeded = status["status"] == "ACTIVE" && status["completionTime"].is_string();
        if (row[0] == Some("True")) != succeeded || status["completionTime"].is_string() && !over(status) {
            faults.push(format!("D: {name} tells {row:?} of a job that is {}", status["status"]));
        }
    }
}

/// The status says that the service does not know the job any more.
fn gone(status: &Value) -> bool {
    condition(status, "Ready").is_some_and(|ready| ready["reason"] == "JobNotFound")
}

/// The end of a job is told when it has come, as it has come, and is not taken back.
fn ends(books: &Books<'_>, faults: &mut Vec<String>) {
    let mut ended: HashMap<(&str, &str), &Value> = HashMap::new();
    for write in of_operator(books.writes) {
        let (metadata, status) = (&object(write)["metadata"], &object(write)["status"]);
        let Some(arn) = status["datasetImportJobArn"].as_str() else { continue };
        let (name, told) = (text(metadata, "name"), &status["status"]);
        match ended.get(&(text(metadata, "uid"), arn)) {
            // A job that is gone has no status.
            Some(before) if *before != told && !gone(status) => {
                faults.push(format!("D: {name} told {before} of its job, and then {told}"));
            }
            _ if over(status) => drop(ended.insert((text(metadata, "uid"), arn), told)),
            _ => {}
        }
        let Some(job) = job(books.jobs, arn) else { continue };
        let (Some(at), Some(updated)) = (time(&write["requestReceivedTimestamp"]), job["updatedMs"].as_i64()) else {
            continue;
        };
        let at = at.as_millisecond();
        if over(status) && (job["status"] != *told || updated > at) {
            faults.push(format!("D: {name} told {told} of its job, which was not so then"));
        }
        if job["createdMs"].as_i64().is_some_and(|created| created > at) {
            faults.push(format!("D: {name} told of its job before there was one"));
        }
    }
}

/// Each status tells of the latest generation, and what the service tells.
pub(super) fn judge_settled(books: &Books<'_>, faults: &mut Vec<String>) {
    // One that is on its way out is left alone.
    for resource in books.resources.iter().filter(|r| r["metadata"]["deletionTimestamp"].is_null()) {
        let (name, status) = (text(&resource["metadata"], "name"), &resource["status"]);
        if status["observedGeneration"] != resource["metadata"]["generation"] {
            faults.push(format!("D: {name} tells nothing of its latest generation"));
        }
        let Some(arn) = status["datasetImportJobArn"].as_str() else { continue };
        let gone = gone(status);
        match job(books.jobs, arn) {
            Some(_) if gone => faults.push(format!("D: {name} tells that {arn} is gone, which the service has")),
            Some(job) if job["status"] != status["status"] => {
                faults.push(format!("D: {name} tells {} and its job is {}", status["status"], job["status"]));
            }
            None if !gone => faults.push(format!("D: {name} tells of {arn}, which the service does not know")),
            _ => {}
        }
    }
}

mod tests {
    use crate::invariants::histories::{
        D, breaks, create, failed, going, history, holds, intent, job, resource, row, stalled, told, write,
    };
    use crate::invariants::{Books, judge, judge_books, judge_settled};
    use serde_json::{Value, json};

    #[test]
    fn d_is_broken_by_a_generation_that_goes_back_or_ahead() {
        let at = |generation: i64, n: i64| {
            write("a", &json!({"observedGeneration": generation, "attempts": n, "conditions": going()}))
        };
        breaks("D", &judge(&[], &[at(1, 0), at(0, 1)]));
        breaks("D", &judge(&[], &[at(2, 0)]));
        holds(&judge(&[], &[at(0, 0), at(1, 0)]));
    }

    #[test]
    fn d_is_broken_by_conditions_that_contradict_each_other_or_the_job() {
        let with = |status: &str, conditions: Value| {
            write("a", &json!({"observedGeneration": 1, "status": status, "conditions": conditions}))
        };
        breaks("D", &judge(&[], &[with("CREATE PENDING", row("Pending", ["True", "Unknown", "True", "False"]))]));
        breaks("D", &judge(&[], &[with("CREATE PENDING", json!([]))]));
        breaks("D", &judge(&[], &[with("CREATE FAILED", row("ImportFailed", ["True", "True", "False", "False"]))]));
        let mut early = with("CREATE PENDING", going());
        early["responseObject"]["status"]["completionTime"] = json!("x");
        breaks("D", &judge(&[], &[early]));
        holds(&judge(&[], &[with("CREATE PENDING", going())]));
    }

    /// A life in which the end of the job was told half a minute after midnight.
    fn books(end: &Value, job: &Value) -> Vec<String> {
        judge_books(&Books {
            ledger: &[create("a-1", D)],
            writes: &[write("a", &intent("a-1", 1)), end.clone()],
            jobs: std::slice::from_ref(job),
            ..Books::default()
        })
    }

    #[test]
    fn d_is_broken_by_an_end_that_is_told_before_it_came() {
        let (end, moment) = (write("a", &told("a-1")), history("00:00:30"));
        holds(&books(&end, &job("a-1", "ACTIVE", 0, moment)));
        breaks("D", &books(&end, &job("a-1", "ACTIVE", 0, moment + 1)));
        breaks("D", &books(&end, &job("a-1", "CREATE IN_PROGRESS", 0, 1)));
        breaks("D", &books(&end, &job("a-1", "CREATE FAILED", 0, 1)));
    }

    #[test]
    fn d_is_broken_by_a_job_that_is_told_of_before_it_is_there() {
        let running = json!({"observedGeneration": 1, "datasetImportJobArn": told("a-1")["datasetImportJobArn"],
            "status": "CREATE PENDING", "conditions": going()});
        let (running, moment) = (write("a", &running), history("00:00:30"));
        holds(&books(&running, &job("a-1", "CREATE PENDING", moment, moment)));
        breaks("D", &books(&running, &job("a-1", "CREATE PENDING", moment + 1, moment + 1)));
    }

    #[test]
    fn d_is_broken_by_an_end_that_is_taken_back() {
        let mut back = write("a", &told("a-1"));
        let status = &mut back["responseObject"]["status"];
        status["status"] = json!("CREATE IN_PROGRESS");
        status["completionTime"] = Value::Null;
        status["conditions"] = going();
        let writes = [write("a", &intent("a-1", 1)), write("a", &told("a-1")), back];
        breaks("D", &judge(&[create("a-1", D)], &writes));
        holds(&judge(&[create("a-1", D)], &writes[..2]));
    }

    /// What the judge says of one resource at rest.
    fn settled(resource: &Value, jobs: &[Value]) -> Vec<String> {
        let writes = [write("a", &intent("a-1", 1))];
        judge_settled(&Books {
            ledger: &[create("a-1", D)],
            writes: &writes,
            resources: std::slice::from_ref(resource),
            jobs,
            ..Books::default()
        })
    }

    #[test]
    fn d_is_broken_by_a_status_that_the_service_does_not_tell() {
        let told = resource("a", &told("a-1"));
        holds(&settled(&told, &[job("a-1", "ACTIVE", 0, 1)]));
        breaks("D", &settled(&told, &[job("a-1", "CREATE FAILED", 0, 1)]));
        breaks("D", &settled(&told, &[]));
    }

    #[test]
    fn d_is_broken_by_a_job_of_the_same_name_in_another_region() {
        let mut elsewhere = job("a-1", "ACTIVE", 0, 1);
        elsewhere["arn"] = json!("arn:aws:personalize:us-east-1:123456789012:dataset-import-job/a-1");
        breaks("D", &settled(&resource("a", &told("a-1")), &[elsewhere]));
    }

    #[test]
    fn d_is_broken_by_a_job_that_is_said_to_be_gone_and_is_not() {
        let mut gone = told("a-1");
        gone["completionTime"] = Value::Null;
        gone["conditions"] = stalled("JobNotFound");
        holds(&settled(&resource("a", &gone), &[]));
        breaks("D", &settled(&resource("a", &gone), &[job("a-1", "ACTIVE", 0, 1)]));
    }

    #[test]
    fn d_is_broken_by_silence_about_the_latest_generation_unless_the_resource_is_on_its_way_out() {
        let mut edited = resource("a", &told("a-1"));
        edited["metadata"]["generation"] = json!(2);
        breaks("D", &settled(&edited, &[job("a-1", "ACTIVE", 0, 1)]));
        edited["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:09:00Z");
        holds(&settled(&edited, &[job("a-1", "ACTIVE", 0, 1)]));
    }

    #[test]
    fn d_is_not_broken_by_a_failure_that_is_told_as_it_came() {
        let failure = json!({"observedGeneration": 1, "status": "CREATE FAILED", "completionTime": "x", "attempts": 1,
            "datasetImportJobArn": told("a-1")["datasetImportJobArn"], "conditions": failed()});
        holds(&books(&write("a", &failure), &job("a-1", "CREATE FAILED", 0, 1)));
        holds(&settled(&resource("a", &failure), &[job("a-1", "CREATE FAILED", 0, 1)]));
    }
}
