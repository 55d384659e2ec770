//! A: at most one accepted create per resource and attempt, none whose intent was not recorded before, and
//! no further attempt but after a failed one that may be followed by another.

use super::{Accepted, Books, Intent, accepted, annotation, intents, job, object, text};
use jiff::Timestamp;
use personalize_operator::api::RETRY_REQUESTED_AT;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};

pub(super) fn judge(books: &Books<'_>, faults: &mut Vec<String>) {
    let (accepted, intents) = (accepted(books.ledger), intents(books.writes));
    at_most_once(&accepted, &intents, faults);
    intended_first(&accepted, &intents, faults);
    for (a, intent) in accepted.iter().flat_map(|a| intents.keys().map(move |intent| (a, intent))) {
        if intent.attempt > 1 && meant(intent, a) {
            faults.extend(unwarranted(books, a, intent));
        }
    }
}

fn meant(intent: &Intent, accepted: &Accepted) -> bool {
    intent.job_name == accepted.job_name && intent.dataset == accepted.dataset
}

/// Per name, and per resource and attempt.
fn at_most_once(accepted: &[Accepted], intents: &BTreeMap<Intent, Option<Timestamp>>, faults: &mut Vec<String>) {
    let mut counts: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    for a in accepted {
        *counts.entry((&a.account, &a.region, &a.job_name)).or_default() += 1;
    }
    for ((_, _, name), count) in counts.iter().filter(|(_, count)| **count > 1) {
        faults.push(format!("A: {name} was accepted {count} times"));
    }
    let made: HashSet<&str> = accepted.iter().map(|a| a.job_name.as_str()).collect();
    let mut of_attempt: BTreeMap<(&str, i64), BTreeSet<&str>> = BTreeMap::new();
    for intent in intents.keys().filter(|i| made.contains(i.job_name.as_str())) {
        of_attempt.entry((&intent.uid, intent.attempt)).or_default().insert(&intent.job_name);
    }
    for ((uid, attempt), names) in of_attempt.iter().filter(|(_, names)| names.len() > 1) {
        faults.push(format!("A: {uid} made {names:?}, all as attempt {attempt}"));
    }
}

/// What is sent without a recorded intent could be made twice.
fn intended_first(accepted: &[Accepted], intents: &BTreeMap<Intent, Option<Timestamp>>, faults: &mut Vec<String>) {
    for a in accepted {
        let recorded = |(intent, at): (&Intent, &Option<Timestamp>)| {
            meant(intent, a) && at.zip(a.time).is_none_or(|(intended, sent)| intended <= sent)
        };
        if !intents.iter().any(recorded) {
            faults.push(format!("A: {} was sent before its intent was recorded", a.job_name));
        }
    }
}

/// Why there should have been no such further attempt.
fn unwarranted(books: &Books<'_>, a: &Accepted, Intent { uid, attempt, job_name, .. }: &Intent) -> Option<String> {
    let before = attempt - 1;
    let base = job_name.strip_suffix(&format!("-{attempt}"))?;
    let earlier = if before == 1 { base.to_owned() } else { format!("{base}-{before}") };
    let arn = |name: &str| format!("arn:aws:personalize:{}:{}:dataset-import-job/{name}", a.region, a.account);
    if let Some(earlier) = job(books.jobs, &arn(&earlier)) {
        let sent = a.time.map_or(i64::MAX, Timestamp::as_millisecond);
        if earlier["status"] != "CREATE FAILED" || earlier["updatedMs"].as_i64().is_some_and(|failed| failed > sent) {
            return Some(format!("A: {job_name} was made as attempt {attempt} before attempt {before} had failed"));
        }
    }
    let own = || books.writes.iter().map(object).filter(|object| object["metadata"]["uid"] == *uid.as_str());
    let limit = own().filter_map(|object| object["spec"]["backoffLimit"].as_i64()).max().unwrap_or(0);
    let asked = own().any(|object: &Value| annotation(object, RETRY_REQUESTED_AT).is_some());
    (before > limit && !asked).then(|| {
        let name = own().next().map(|object| text(&object["metadata"], "name")).unwrap_or_default();
        format!(
            "A: {job_name} was made as attempt {attempt} of {name}, whose limit is {limit}, and nobody asked for it"
        )
    })
}

mod tests {
    use crate::invariants::histories::{
        ANOTHER, D, breaks, create, history, holds, intent, job, limited, retried, write,
    };
    use crate::invariants::{Books, judge, judge_books};
    use serde_json::json;

    #[test]
    fn a_is_broken_by_a_name_accepted_twice() {
        breaks("A", &judge(&[create("a-1", D), create("a-1", D)], &[write("a", &intent("a-1", 1))]));
    }

    #[test]
    fn a_is_broken_by_two_names_for_one_attempt_and_not_by_a_retry() {
        let ledger = [create("a-1", D), create("a-1-2", D)];
        breaks("A", &judge(&ledger, &[write("a", &intent("a-1", 1)), write("a", &intent("a-1-2", 1))]));
        holds(&judge(&ledger, &[limited("a", 1, &intent("a-1", 1)), limited("a", 1, &intent("a-1-2", 2))]));
    }

    #[test]
    fn a_is_broken_by_a_create_without_an_intent_or_before_it() {
        breaks("A", &judge(&[create("a-1", D)], &[]));
        let mut late = write("a", &intent("a-1", 1));
        late["requestReceivedTimestamp"] = json!("2026-01-01T00:01:00.500001Z");
        breaks("A", &judge(&[create("a-1", D)], &[late]));
    }

    #[test]
    fn a_is_broken_by_a_create_into_another_dataset_than_was_meant() {
        breaks("A", &judge(&[create("a-1", ANOTHER)], &[write("a", &intent("a-1", 1))]));
    }

    #[test]
    fn a_is_broken_by_an_intent_that_somebody_else_recorded() {
        let mut forged = write("a", &intent("a-1", 1));
        forged["userAgent"] = json!("kubectl/v1");
        breaks("A", &judge(&[create("a-1", D)], &[forged]));
    }

    #[test]
    fn a_is_broken_by_a_retry_of_what_has_not_failed() {
        let ledger = [create("a-1", D), create("a-1-2", D)];
        let writes = [limited("a", 1, &intent("a-1", 1)), limited("a", 1, &intent("a-1-2", 2))];
        let with = |status: &str, ended: i64| {
            let jobs = [job("a-1", status, 0, ended), job("a-1-2", "ACTIVE", ended, ended + 1)];
            judge_books(&Books { ledger: &ledger, writes: &writes, jobs: &jobs, ..Books::default() })
        };
        holds(&with("CREATE FAILED", 1));
        breaks("A", &with("CREATE FAILED", history("00:01:00.501")));
        breaks("A", &with("ACTIVE", 1));
    }

    #[test]
    fn a_is_broken_by_a_retry_beyond_the_limit_unless_a_person_asked_for_it() {
        let ledger = [create("a-1", D), create("a-1-2", D)];
        let first = write("a", &intent("a-1", 1));
        breaks("A", &judge(&ledger, &[first.clone(), write("a", &intent("a-1-2", 2))]));
        holds(&judge(&ledger, &[first, retried("a", &intent("a-1-2", 2))]));
    }
}
