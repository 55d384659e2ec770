//! G: calls, writes, imports at once and memory are bounded.

use super::{Books, accepted, of_operator, text};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};

/// The most calls of one kind about one job or dataset within a second, and the most writes to one
/// resource. The delays of the tests are a hundredth of the real ones; an endless loop makes hundreds.
const MOST_CALLS: usize = 40;

/// The most imports at once per account and region that the service takes.
const QUOTA: usize = 5;

/// The most memory that an operator may ever have taken, in kB: with 10,000 resources, or answers of
/// 10 MB, it takes less.
const MOST_MEMORY: u64 = 400_000;

pub(super) fn judge(books: &Books<'_>, faults: &mut Vec<String>) {
    calls_and_writes(books, faults);
    quota(books, faults);
}

/// No call and no write is repeated without end.
fn calls_and_writes(books: &Books<'_>, faults: &mut Vec<String>) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for line in books.ledger {
        let (operation, job, dataset) = (text(line, "operation"), text(line, "jobName"), text(line, "datasetArn"));
        let second = text(line, "time").get(..19).unwrap_or_default();
        *counts.entry(format!("{operation} about {job}{dataset} was called in the second {second}")).or_default() += 1;
    }
    for write in of_operator(books.writes) {
        let second = text(write, "requestReceivedTimestamp").get(..19).unwrap_or_default();
        let name = &write["responseObject"]["metadata"]["name"];
        *counts.entry(format!("{name} was written in the second {second}")).or_default() += 1;
    }
    for (what, count) in counts.iter().filter(|(_, count)| **count > MOST_CALLS) {
        faults.push(format!("G: {count} times: {what}"));
    }
}

/// Of the jobs that the operator made, no more ran at once than the service takes.
fn quota(books: &Books<'_>, faults: &mut Vec<String>) {
    let accepted = accepted(books.ledger);
    let made: HashSet<&str> = accepted.iter().map(|a| a.job_name.as_str()).collect();
    let mut spans: BTreeMap<(&str, &str), Vec<(i64, i64)>> = BTreeMap::new();
    for job in books.jobs.iter().filter(|job| made.contains(text(job, "name"))) {
        spans.entry((text(job, "account"), text(job, "region"))).or_default().extend(span(job));
    }
    for ((account, region), spans) in spans {
        let at = |moment: i64| spans.iter().filter(|(begin, end)| *begin <= moment && moment < *end).count();
        let most = spans.iter().map(|(begin, _)| at(*begin)).max().unwrap_or_default();
        if most > QUOTA {
            faults.push(format!("G: {most} imports ran at once for {account} in {region}"));
        }
    }
}

/// From when to when a job ran, in milliseconds.
pub(super) fn span(job: &Value) -> Option<(i64, i64)> {
    let over = job["status"] == "ACTIVE" || job["status"] == "CREATE FAILED";
    let end = job["updatedMs"].as_i64().filter(|_| over).unwrap_or(i64::MAX);
    Some((job["createdMs"].as_i64()?, end))
}

/// No operator ever took more memory; `peaks` are the most that each did, in kB.
pub fn bounded_memory(peaks: &[u64]) -> Vec<String> {
    let heavy = peaks.iter().filter(|peak| **peak > MOST_MEMORY);
    heavy.map(|peak| format!("G: an operator took {peak} kB of memory")).collect()
}

mod tests {
    use super::{MOST_CALLS, MOST_MEMORY, bounded_memory};
    use crate::invariants::histories::{breaks, create, going, holds, intent, job_in, look, write};
    use crate::invariants::{Books, judge, judge_books};
    use serde_json::{Value, json};

    #[test]
    fn g_is_broken_by_calls_without_end_and_not_by_looks_now_and_then() {
        breaks("G", &judge(&vec![look("a-1", 0); MOST_CALLS + 1], &[]));
        holds(&judge(&vec![look("a-1", 0); MOST_CALLS], &[]));
        holds(&judge(&(0..60).map(|second| look("a-1", second)).collect::<Vec<_>>(), &[]));
    }

    #[test]
    fn g_is_broken_by_writes_without_end_of_its_own() {
        let write = |i: i64| write("a", &json!({"observedGeneration": 1, "attempts": i, "conditions": going()}));
        let mut writes: Vec<Value> = (0..100).map(write).collect();
        breaks("G", &judge(&[], &writes));
        writes.iter_mut().for_each(|write| write["userAgent"] = json!("kubectl/v1"));
        holds(&judge(&[], &writes));
    }

    #[test]
    fn g_is_broken_by_more_imports_at_once_than_the_service_takes() {
        let dataset = |i: usize| format!("arn:aws:personalize:eu-west-1:123456789012:dataset/shop/d{i}");
        let of = |i: usize| {
            crate::invariants::histories::into(write(&format!("a{i}"), &intent(&format!("j{i}"), 1)), &dataset(i))
        };
        let (writes, ledger): (Vec<Value>, Vec<Value>) =
            (0..6).map(|i| (of(i), create(&format!("j{i}"), &dataset(i)))).unzip();
        let judged = |ledger: &[Value], end: i64| {
            let jobs: Vec<Value> = (0..6_i64)
                .map(|i| job_in(&dataset(usize::try_from(i).unwrap()), &format!("j{i}"), "ACTIVE", i, i + end))
                .collect();
            judge_books(&Books { ledger, writes: &writes, jobs: &jobs, ..Books::default() })
        };
        breaks("G", &judged(&ledger, 6));
        holds(&judged(&ledger, 5));
        // Somebody else's are none of its doing.
        holds(&judged(&ledger[1..], 6));
    }

    #[test]
    fn g_is_broken_by_an_operator_that_takes_too_much_memory() {
        breaks("G", &bounded_memory(&[1, MOST_MEMORY + 1]));
        holds(&bounded_memory(&[1, MOST_MEMORY]));
    }
}
