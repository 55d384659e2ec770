//! H: for one dataset an older import never lands after a newer one, and no two run at once.

use super::bounds::span;
use super::{Accepted, Books, accepted, object, of_operator, text, time};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

pub(super) fn judge(books: &Books<'_>, faults: &mut Vec<String>) {
    let accepted = accepted(books.ledger);
    in_order(&accepted, books, faults);
    one_at_a_time(&accepted, books.jobs, faults);
}

/// Per dataset, imports are accepted in the order in which their resources were created, unless the
/// newer one failed; a retry counts as its resource.
fn in_order(accepted: &[Accepted], books: &Books<'_>, faults: &mut Vec<String>) {
    // A resource may be deleted and made anew: then the name stays and the order is another. What
    // counts is which of them meant the job last before it was accepted.
    let mut meant: HashMap<&str, Vec<(Option<Timestamp>, &str)>> = HashMap::new();
    for write in of_operator(books.writes) {
        let object = object(write);
        let Some(name) = object["status"]["submission"]["jobName"].as_str() else { continue };
        let created = text(&object["metadata"], "creationTimestamp");
        meant.entry(name).or_default().push((time(&write["requestReceivedTimestamp"]), created));
    }
    let created = |a: &Accepted| {
        let before = |(at, _): &&(Option<Timestamp>, &str)| at.zip(a.time).is_none_or(|(at, accepted)| at <= accepted);
        meant.get(a.job_name.as_str())?.iter().rev().find(before).map(|(_, created)| *created)
    };
    let failed = |name: &str| books.jobs.iter().any(|job| job["name"] == name && job["status"] == "CREATE FAILED");
    let mut newest: HashMap<&str, (&str, &str)> = HashMap::new();
    for a in accepted {
        let Some(created) = created(a) else { continue };
        match newest.get(a.dataset.as_str()) {
            Some((before, name)) if created < *before => {
                faults.push(format!("H: {} was accepted after {name}, whose resource is newer", a.job_name));
            }
            _ if failed(&a.job_name) => {}
            _ => drop(newest.insert(&a.dataset, (created, &a.job_name))),
        }
    }
}

/// Of the jobs that the operator made, no two ran at once in one dataset.
fn one_at_a_time(accepted: &[Accepted], jobs: &[Value], faults: &mut Vec<String>) {
    let made: HashSet<&str> = accepted.iter().map(|a| a.job_name.as_str()).collect();
    let mut spans: BTreeMap<&str, Vec<(i64, i64, &str)>> = BTreeMap::new();
    for job in jobs {
        let (name, dataset) = (text(job, "name"), text(job, "datasetArn"));
        if let Some((begin, end)) = span(job).filter(|_| made.contains(name)) {
            spans.entry(dataset).or_default().push((begin, end, name));
        }
    }
    for (dataset, mut of) in spans {
        of.sort_unstable();
        for pair in of.windows(2).filter(|pair| pair[1].0 < pair[0].1) {
            faults.push(format!("H: {} and {} ran at once in {dataset}", pair[0].2, pair[1].2));
        }
    }
}

mod tests {
    use crate::invariants::histories::{ANOTHER, D, breaks, create, holds, intent, into, job_of, write};
    use crate::invariants::{Books, judge, judge_books};
    use serde_json::{Value, json};

    fn job(name: &str, status: &str, begin: i64, end: i64) -> Value {
        job_of(if name.starts_with('a') { "a" } else { "bb" }, name, status, begin, end)
    }

    #[test]
    fn h_is_broken_by_an_older_import_after_a_newer_one_unless_that_failed() {
        let writes = [write("bb", &intent("b-1", 1)), write("a", &intent("a-1", 1))];
        let ledger = [create("b-1", D), create("a-1", D)];
        let with = |jobs: &[Value]| judge_books(&Books { ledger: &ledger, writes: &writes, jobs, ..Books::default() });
        breaks("H", &judge(&ledger, &writes));
        breaks("H", &with(&[job("b-1", "ACTIVE", 0, 1), job("a-1", "ACTIVE", 1, 2)]));
        holds(&with(&[job("b-1", "CREATE FAILED", 0, 1), job("a-1", "ACTIVE", 1, 2)]));
        let elsewhere = [writes[0].clone(), into(writes[1].clone(), ANOTHER)];
        holds(&judge(&[create("b-1", D), create("a-1", ANOTHER)], &elsewhere));
        // One that was deleted and made anew is as old as it is now.
        let mut anew = write("a", &intent("a-1", 1));
        anew["responseObject"]["metadata"]["uid"] = json!("anew");
        anew["responseObject"]["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:09Z");
        holds(&judge(&ledger, &[&writes[..], &[anew.clone()]].concat()));
        anew["requestReceivedTimestamp"] = json!("2026-01-01T00:09:00Z");
        breaks("H", &judge(&ledger, &[&writes[..], &[anew]].concat()));
    }

    #[test]
    fn h_is_broken_by_two_imports_at_once_and_not_by_somebody_elses() {
        let writes = [write("a", &intent("a-1", 1)), write("bb", &intent("b-1", 1))];
        let ledger = [create("a-1", D), create("b-1", D)];
        let with = |ledger: &[Value], jobs: &[Value]| {
            judge_books(&Books { ledger, writes: &writes, jobs, ..Books::default() })
        };
        breaks("H", &with(&ledger, &[job("a-1", "ACTIVE", 0, 5), job("b-1", "ACTIVE", 4, 9)]));
        breaks("H", &with(&ledger, &[job("a-1", "CREATE PENDING", 0, 0), job("b-1", "ACTIVE", 4, 9)]));
        holds(&with(&ledger, &[job("a-1", "ACTIVE", 0, 5), job("b-1", "ACTIVE", 5, 9)]));
        holds(&with(&ledger[..1], &[job("a-1", "ACTIVE", 0, 5), job("b-1", "ACTIVE", 4, 9)]));
    }
}
