//! H: per dataset, no older import finishes after a newer one, and no two run at once.

use super::bounds::span;
use super::{AcceptedCreate, History, accepted_creates, operator_writes, text, time, written_resource};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

pub(super) fn check(history: &History<'_>, violations: &mut Vec<String>) {
    let accepted = accepted_creates(history.ledger);
    in_order(&accepted, history, violations);
    one_at_a_time(&accepted, history.jobs, violations);
}

/// When the resource of an import was created, and the name of its job.
type Import<'a> = (&'a str, &'a str);

/// Per dataset, imports are accepted in the order in which their resources were created. A newer import that failed
/// does not count, and a retry counts as its resource. An attempt that a user requested may come later. So may an
/// INCREMENTAL import, which adds to the data, after INCREMENTAL ones and after the first FULL one. It may have to wait for
/// that one although there were others, into an earlier dataset of the name.
fn in_order(accepted: &[AcceptedCreate], history: &History<'_>, violations: &mut Vec<String>) {
    // A resource that is deleted and created again keeps its job name, but not its age. The last intent before the
    // create decides.
    let mut intended: HashMap<&str, Vec<(Option<Timestamp>, &Value)>> = HashMap::new();
    // When a resource last waited for a FULL import.
    let mut waited: HashMap<&str, Option<Timestamp>> = HashMap::new();
    for write in operator_writes(history.writes) {
        let resource = written_resource(write);
        if resource["status"]["reason"] == "WaitingForFullImport" {
            waited.insert(text(&resource["metadata"], "uid"), time(&write["requestReceivedTimestamp"]));
        }
        let Some(name) = resource["status"]["submission"]["jobName"].as_str() else { continue };
        intended.entry(name).or_default().push((time(&write["requestReceivedTimestamp"]), resource));
    }
    let intent = |a: &AcceptedCreate| {
        let before = |(at, _): &&(Option<Timestamp>, &Value)| at.zip(a.time).is_none_or(|(at, sent)| at <= sent);
        intended.get(a.job_name.as_str())?.iter().rev().find(before).map(|(_, resource)| *resource)
    };
    let failed = |name: &str| history.jobs.iter().any(|job| job["name"] == name && job["status"] == "CREATE FAILED");
    // The newest import of each dataset, and its FULL ones.
    let mut newest: HashMap<&str, Import<'_>> = HashMap::new();
    let mut full: HashMap<&str, Vec<(Option<Timestamp>, Import<'_>)>> = HashMap::new();
    for a in accepted {
        let Some(resource) = intent(a) else { continue };
        let created = text(&resource["metadata"], "creationTimestamp");
        let is_full = resource["spec"]["importMode"] != "INCREMENTAL";
        let status = &resource["status"];
        let is_requested = status["requestedAttempt"] == status["submission"]["attempt"];
        let dataset = a.dataset.as_str();
        let waited = waited.get(text(&resource["metadata"], "uid")).copied().flatten();
        let counts = |(at, _): &&(Option<Timestamp>, _)| waited.is_none_or(|waited| at.is_none_or(|at| at > waited));
        let later_full = || full.get(dataset)?.iter().filter(counts).skip(1).last().map(|(_, full)| full);
        let superseding = if is_full { newest.get(dataset) } else { later_full() };
        match superseding {
            Some((before, name)) if created < *before && !is_requested => {
                violations.push(format!("H: {} was accepted after {name} of a newer resource", a.job_name));
            }
            _ if failed(&a.job_name) => {}
            _ => {
                newest.insert(dataset, (created, a.job_name.as_str()));
                if is_full {
                    full.entry(dataset).or_default().push((a.time, (created, a.job_name.as_str())));
                }
            }
        }
    }
}

/// No two jobs of the operator ran at once in one dataset.
fn one_at_a_time(accepted: &[AcceptedCreate], jobs: &[Value], violations: &mut Vec<String>) {
    let created: HashSet<&str> = accepted.iter().map(|a| a.job_name.as_str()).collect();
    let mut spans: BTreeMap<&str, Vec<(i64, i64, &str)>> = BTreeMap::new();
    for job in jobs {
        let (name, dataset) = (text(job, "name"), text(job, "datasetArn"));
        if let Some((begin, end)) = span(job).filter(|_| created.contains(name)) {
            spans.entry(dataset).or_default().push((begin, end, name));
        }
    }
    for (dataset, mut spans) in spans {
        spans.sort_unstable();
        for pair in spans.windows(2).filter(|pair| pair[1].0 < pair[0].1) {
            violations.push(format!("H: {} and {} ran at once in {dataset}", pair[0].2, pair[1].2));
        }
    }
}

mod tests {
    use crate::invariants::histories::{
        DATASET, OTHER_DATASET, accepted_create, assert_holds, assert_violates, intent, job_owned_by, with_dataset,
        write,
    };
    use crate::invariants::{History, check, check_logs};
    use serde_json::{Value, json};

    fn job(name: &str, status: &str, begin: i64, end: i64) -> Value {
        job_owned_by(if name.starts_with('a') { "a" } else { "bb" }, name, status, begin, end)
    }

    #[test]
    fn older_import_after_a_newer_one_violates_h_unless_the_newer_failed() {
        let writes = [write("bb", &intent("b-1", 1)), write("a", &intent("a-1", 1))];
        let ledger = [accepted_create("b-1", DATASET), accepted_create("a-1", DATASET)];
        let with = |jobs: &[Value]| check(&History { ledger: &ledger, writes: &writes, jobs, ..History::default() });
        assert_violates("H", &check_logs(&ledger, &writes));
        assert_violates("H", &with(&[job("b-1", "ACTIVE", 0, 1), job("a-1", "ACTIVE", 1, 2)]));
        assert_holds(&with(&[job("b-1", "CREATE FAILED", 0, 1), job("a-1", "ACTIVE", 1, 2)]));
        let elsewhere = [writes[0].clone(), with_dataset(writes[1].clone(), OTHER_DATASET)];
        assert_holds(&check_logs(
            &[accepted_create("b-1", DATASET), accepted_create("a-1", OTHER_DATASET)],
            &elsewhere,
        ));
        // A resource that was created again has a new age.
        let mut recreated = write("a", &intent("a-1", 1));
        recreated["responseObject"]["metadata"]["uid"] = json!("recreated");
        recreated["responseObject"]["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:09Z");
        assert_holds(&check_logs(&ledger, &[&writes[..], &[recreated.clone()]].concat()));
        recreated["requestReceivedTimestamp"] = json!("2026-01-01T00:09:00Z");
        assert_violates("H", &check_logs(&ledger, &[&writes[..], &[recreated]].concat()));
    }

    #[test]
    fn older_incremental_import_violates_h_only_after_a_newer_full_one_that_is_not_the_first() {
        let names = ["full-1", "newer-1", "older-1"];
        let ledger = names.map(|name| accepted_create(name, DATASET));
        let check = |newer: &str, requested: bool| {
            let mut writes = ["a", "cc", "b"].iter().zip(names).map(|(uid, name)| write(uid, &intent(name, 1)));
            let mut writes: [Value; 3] = std::array::from_fn(|_| writes.next().unwrap());
            for (write, created) in writes.iter_mut().zip(["01", "03", "02"]) {
                write["responseObject"]["metadata"]["creationTimestamp"] =
                    json!(format!("2026-01-01T00:00:{created}Z"));
            }
            writes[1]["responseObject"]["spec"]["importMode"] = json!(newer);
            writes[2]["responseObject"]["spec"]["importMode"] = json!("INCREMENTAL");
            if requested {
                writes[2]["responseObject"]["status"]["requestedAttempt"] = json!(1);
            }
            (check_logs(&ledger, &writes), check_logs(&ledger[1..], &writes[1..]))
        };
        assert_violates("H", &check("FULL", false).0);
        assert_holds(&check("FULL", true).0);
        assert_holds(&check("FULL", false).1);
        assert_holds(&check("INCREMENTAL", false).0);
    }

    #[test]
    fn two_imports_at_once_violate_h_but_foreign_jobs_do_not() {
        let writes = [write("a", &intent("a-1", 1)), write("bb", &intent("b-1", 1))];
        let ledger = [accepted_create("a-1", DATASET), accepted_create("b-1", DATASET)];
        let with =
            |ledger: &[Value], jobs: &[Value]| check(&History { ledger, writes: &writes, jobs, ..History::default() });
        assert_violates("H", &with(&ledger, &[job("a-1", "ACTIVE", 0, 5), job("b-1", "ACTIVE", 4, 9)]));
        assert_violates("H", &with(&ledger, &[job("a-1", "CREATE PENDING", 0, 0), job("b-1", "ACTIVE", 4, 9)]));
        assert_holds(&with(&ledger, &[job("a-1", "ACTIVE", 0, 5), job("b-1", "ACTIVE", 5, 9)]));
        assert_holds(&with(&ledger[..1], &[job("a-1", "ACTIVE", 0, 5), job("b-1", "ACTIVE", 4, 9)]));
    }
}
