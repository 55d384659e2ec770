//! L: no import is accepted within a data deletion of its dataset group that had started when the operator looked.

use super::{History, accepted_creates, text, time};
use jiff::Timestamp;
use serde_json::Value;

pub(super) fn check(history: &History<'_>, violations: &mut Vec<String>) {
    if history.data_deletions.is_empty() {
        return;
    }
    for create in accepted_creates(history.ledger) {
        let Some(accepted) = create.time else { continue };
        let group = group_of(&create.dataset);
        let before = |line: &&Value| time(&line["time"]).is_some_and(|time| time <= accepted);
        // The reconciliation lists the jobs of its dataset, then the deletions of the group. So the first listing of
        // deletions after the last one of jobs is not later than its own.
        let lists_jobs =
            |line: &Value| line["operation"] == "ListDatasetImportJobs" && text(line, "datasetArn") == create.dataset;
        let calls: Vec<&Value> = history.ledger.iter().take_while(before).collect();
        let began = calls.iter().rposition(|line| lists_jobs(line)).unwrap_or_default();
        let lists_deletions =
            |line: &&&Value| line["operation"] == "ListDataDeletionJobs" && line["arn"] == group.as_str();
        let listings: Vec<&&Value> = calls[began..].iter().filter(lists_deletions).collect();
        if listings.iter().any(|line| text(line, "errorCode").contains("AccessDenied")) {
            continue;
        }
        let looked = listings.first().and_then(|line| time(&line["time"]));
        for deletion in history.data_deletions.iter().filter(|deletion| deletion["groupArn"] == group.as_str()) {
            let (start, end) = span(deletion);
            let within = start < millis(accepted) && millis(accepted) < end;
            if within && looked.is_none_or(|looked| start < millis(looked)) {
                violations.push(format!("L: {} was accepted within {}", create.job_name, text(deletion, "name")));
            }
        }
    }
}

fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

fn group_of(dataset: &str) -> String {
    let (prefix, name) = dataset.split_once(":dataset/").unwrap_or((dataset, ""));
    format!("{prefix}:dataset-group/{}", name.split('/').next().unwrap_or_default())
}

/// Start and end of a data deletion in milliseconds.
fn span(deletion: &Value) -> (i64, i64) {
    let runs = matches!(text(deletion, "status"), "PENDING" | "IN_PROGRESS");
    let end = deletion["updatedMs"].as_i64().filter(|_| !runs).unwrap_or(i64::MAX);
    (deletion["createdMs"].as_i64().unwrap_or(i64::MAX), end)
}

mod tests {
    use crate::invariants::histories::{
        DATASET, accepted_create, assert_holds, assert_violates, intent, millis_at, write,
    };
    use crate::invariants::{History, check};
    use serde_json::{Value, json};

    const GROUP: &str = "arn:aws:personalize:eu-west-1:123456789012:dataset-group/shop";

    /// The violations if these calls precede the create at 00:01:00.5, and a deletion starts at this time and ends at
    /// another.
    fn violations(calls: &[(&str, &str, &str)], start: &str, end: Option<&str>) -> Vec<String> {
        let call = |(time, operation, error): &(&str, &str, &str)| {
            let mut call = json!({"time": format!("2026-01-01T{time}Z"), "operation": operation, "httpStatus": 200});
            match *operation {
                "ListDataDeletionJobs" => call["arn"] = json!(GROUP),
                _ => call["datasetArn"] = json!(DATASET),
            }
            if !error.is_empty() {
                call["errorCode"] = json!(error);
            }
            call
        };
        let mut ledger: Vec<Value> = calls.iter().map(call).collect();
        ledger.push(accepted_create("a-1", DATASET));
        let status = if end.is_some() { "COMPLETED" } else { "IN_PROGRESS" };
        let updated = millis_at(end.unwrap_or(start));
        let deletion = json!({"name": "erasure", "groupArn": GROUP, "status": status, "createdMs": millis_at(start), "updatedMs": updated});
        check(&History {
            ledger: &ledger,
            writes: &[write("a", &intent("a-1", 1))],
            data_deletions: &[deletion],
            ..History::default()
        })
    }

    const JOBS: (&str, &str, &str) = ("00:00:50", "ListDatasetImportJobs", "");
    const DELETIONS: (&str, &str, &str) = ("00:00:51", "ListDataDeletionJobs", "");

    #[test]
    fn import_within_a_deletion_violates_l_if_it_had_started_before_the_last_listing() {
        assert_violates("L", &violations(&[JOBS, DELETIONS], "00:00:10", None));
        assert_violates("L", &violations(&[JOBS, DELETIONS], "00:00:10", Some("00:02:00")));
        assert_violates("L", &violations(&[DELETIONS], "00:00:10", None));
        assert_violates("L", &violations(&[JOBS], "00:00:10", None));
        assert_violates("L", &violations(&[], "00:00:10", None));
    }

    #[test]
    fn import_beside_a_deletion_holds_if_none_was_seen_or_none_could_be_listed() {
        assert_holds(&violations(&[JOBS, DELETIONS], "00:00:10", Some("00:00:30")));
        assert_holds(&violations(&[JOBS, DELETIONS], "00:00:55", None));
        assert_holds(&violations(&[JOBS, DELETIONS], "00:03:00", None));
        let refused = ("00:00:51", "ListDataDeletionJobs", "AccessDeniedException");
        assert_holds(&violations(&[JOBS, refused], "00:00:10", None));
    }
}
