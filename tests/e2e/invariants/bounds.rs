//! G: calls, writes and concurrent imports are bounded.

use super::{History, accepted_creates, operator_writes, text};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};

/// Limit for calls with one operation to one job or dataset, and for writes to one resource. The tests use a hundredth
/// of the default delays; an endless loop makes hundreds of calls.
const MAX_CALLS_PER_SECOND: usize = 40;

/// The service's limit for concurrent imports per account and region.
const QUOTA: usize = 5;

pub(super) fn check(history: &History<'_>, violations: &mut Vec<String>) {
    calls_and_writes(history, violations);
    quota(history, violations);
}

/// No endless loop of calls or writes.
fn calls_and_writes(history: &History<'_>, violations: &mut Vec<String>) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for line in history.ledger {
        let target: String = ["jobName", "datasetArn", "arn"].iter().map(|field| text(line, field)).collect();
        let (operation, second) = (text(line, "operation"), text(line, "time").get(..19).unwrap_or_default());
        *counts.entry(format!("{operation} of {target} in second {second}")).or_default() += 1;
    }
    for write in operator_writes(history.writes) {
        let second = text(write, "requestReceivedTimestamp").get(..19).unwrap_or_default();
        let name = &write["responseObject"]["metadata"]["name"];
        *counts.entry(format!("write of {name} in second {second}")).or_default() += 1;
    }
    for (what, count) in counts.iter().filter(|(_, count)| **count > MAX_CALLS_PER_SECOND) {
        violations.push(format!("G: {count} times {what}"));
    }
}

/// The jobs that the operator created never exceeded the quota.
fn quota(history: &History<'_>, violations: &mut Vec<String>) {
    let accepted = accepted_creates(history.ledger);
    let created: HashSet<&str> = accepted.iter().map(|a| a.job_name.as_str()).collect();
    let mut spans: BTreeMap<(&str, &str), Vec<(i64, i64)>> = BTreeMap::new();
    for job in history.jobs.iter().filter(|job| created.contains(text(job, "name"))) {
        spans.entry((text(job, "account"), text(job, "region"))).or_default().extend(span(job));
    }
    for ((account, region), spans) in spans {
        let at = |moment: i64| spans.iter().filter(|(begin, end)| *begin <= moment && moment < *end).count();
        let max = spans.iter().map(|(begin, _)| at(*begin)).max().unwrap_or_default();
        if max > QUOTA {
            violations.push(format!("G: {max} imports ran at once for {account} in {region}"));
        }
    }
}

/// Start and end of a job in milliseconds.
pub(super) fn span(job: &Value) -> Option<(i64, i64)> {
    let finished = job["status"] == "ACTIVE" || job["status"] == "CREATE FAILED";
    let end = job["updatedMs"].as_i64().filter(|_| finished).unwrap_or(i64::MAX);
    Some((job["createdMs"].as_i64()?, end))
}

mod tests {
    use super::MAX_CALLS_PER_SECOND;
    use crate::invariants::histories::{
        accepted_create, assert_holds, assert_violates, describe_call, in_progress, intent, job_in_dataset, write,
    };
    use crate::invariants::{History, check, check_logs};
    use serde_json::{Value, json};

    #[test]
    fn endless_calls_violate_g_but_regular_polls_do_not() {
        assert_violates("G", &check_logs(&vec![describe_call("a-1", 0); MAX_CALLS_PER_SECOND + 1], &[]));
        assert_holds(&check_logs(&vec![describe_call("a-1", 0); MAX_CALLS_PER_SECOND], &[]));
        assert_holds(&check_logs(&(0..60).map(|second| describe_call("a-1", second)).collect::<Vec<_>>(), &[]));
    }

    #[test]
    fn a_listing_for_each_of_many_groups_is_no_endless_loop() {
        let of_group = |group: usize| {
            json!({"time": "2026-01-01T00:02:00.5Z", "operation": "ListDataDeletionJobs",
                   "arn": format!("arn:aws:personalize:eu-west-1:123456789012:dataset-group/g{group}")})
        };
        assert_holds(&check_logs(&(0..=MAX_CALLS_PER_SECOND).map(of_group).collect::<Vec<_>>(), &[]));
        assert_violates("G", &check_logs(&(0..=MAX_CALLS_PER_SECOND).map(|_| of_group(0)).collect::<Vec<_>>(), &[]));
    }

    #[test]
    fn endless_writes_by_the_operator_violate_g() {
        let write = |i: i64| write("a", &json!({"observedGeneration": 1, "attempts": i, "conditions": in_progress()}));
        let mut writes: Vec<Value> = (0..100).map(write).collect();
        assert_violates("G", &check_logs(&[], &writes));
        writes.iter_mut().for_each(|write| write["userAgent"] = json!("kubectl/v1"));
        assert_holds(&check_logs(&[], &writes));
    }

    #[test]
    fn more_concurrent_imports_than_the_quota_violate_g() {
        let dataset = |i: usize| format!("arn:aws:personalize:eu-west-1:123456789012:dataset/shop/d{i}");
        let of = |i: usize| {
            crate::invariants::histories::with_dataset(
                write(&format!("a{i}"), &intent(&format!("j{i}"), 1)),
                &dataset(i),
            )
        };
        let (writes, ledger): (Vec<Value>, Vec<Value>) =
            (0..6).map(|i| (of(i), accepted_create(&format!("j{i}"), &dataset(i)))).unzip();
        let check_ended_after = |ledger: &[Value], end: i64| {
            let jobs: Vec<Value> = (0..6_i64)
                .map(|i| job_in_dataset(&dataset(usize::try_from(i).unwrap()), &format!("j{i}"), "ACTIVE", i, i + end))
                .collect();
            check(&History { ledger, writes: &writes, jobs: &jobs, ..History::default() })
        };
        assert_violates("G", &check_ended_after(&ledger, 6));
        assert_holds(&check_ended_after(&ledger, 5));
        // A job that the operator did not create does not count.
        assert_holds(&check_ended_after(&ledger[1..], 6));
    }
}
