//! A: at most one create is accepted per resource and attempt, its intent is recorded before, and another attempt
//! follows only a failed one, within the limit or when the user requests it.

use super::{AcceptedCreate, History, Intent, accepted_creates, annotation, intents, job, text, written_resource};
use jiff::Timestamp;
use personalize_operator::api::RETRY_REQUESTED_AT;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};

pub(super) fn check(history: &History<'_>, violations: &mut Vec<String>) {
    let (accepted, intents) = (accepted_creates(history.ledger), intents(history.writes));
    once_per_attempt(&accepted, &intents, violations);
    intent_recorded_first(&accepted, &intents, violations);
    for (a, intent) in accepted.iter().flat_map(|a| intents.keys().map(move |intent| (a, intent))) {
        if intent.attempt > 1 && is_for(intent, a) {
            violations.extend(unwarranted_attempt(history, a, intent));
        }
    }
}

fn is_for(intent: &Intent, accepted: &AcceptedCreate) -> bool {
    intent.job_name == accepted.job_name && intent.dataset == accepted.dataset
}

/// At most one create per job name, and one job name per resource and attempt.
fn once_per_attempt(
    accepted: &[AcceptedCreate],
    intents: &BTreeMap<Intent, Option<Timestamp>>,
    violations: &mut Vec<String>,
) {
    let mut counts: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    for a in accepted {
        *counts.entry((&a.account, &a.region, &a.job_name)).or_default() += 1;
    }
    for ((_, _, name), count) in counts.iter().filter(|(_, count)| **count > 1) {
        violations.push(format!("A: {name} was accepted {count} times"));
    }
    let created: HashSet<&str> = accepted.iter().map(|a| a.job_name.as_str()).collect();
    let mut by_attempt: BTreeMap<(&str, i64), BTreeSet<&str>> = BTreeMap::new();
    for intent in intents.keys().filter(|i| created.contains(i.job_name.as_str())) {
        by_attempt.entry((&intent.uid, intent.attempt)).or_default().insert(&intent.job_name);
    }
    for ((uid, attempt), names) in by_attempt.iter().filter(|(_, names)| names.len() > 1) {
        violations.push(format!("A: {uid} created {names:?}, all as attempt {attempt}"));
    }
}

/// A create without a recorded intent could be sent twice.
fn intent_recorded_first(
    accepted: &[AcceptedCreate],
    intents: &BTreeMap<Intent, Option<Timestamp>>,
    violations: &mut Vec<String>,
) {
    for a in accepted {
        let recorded = |(intent, at): (&Intent, &Option<Timestamp>)| {
            is_for(intent, a) && at.zip(a.time).is_none_or(|(recorded, sent)| recorded <= sent)
        };
        if !intents.iter().any(recorded) {
            violations.push(format!("A: {} was sent before its intent was recorded", a.job_name));
        }
    }
}

/// The violation if this attempt should not have been made.
fn unwarranted_attempt(
    history: &History<'_>,
    a: &AcceptedCreate,
    Intent { uid, attempt, job_name, .. }: &Intent,
) -> Option<String> {
    let before = attempt - 1;
    let base = job_name.strip_suffix(&format!("-{attempt}"))?;
    let earlier = if before == 1 { base.to_owned() } else { format!("{base}-{before}") };
    let arn = |name: &str| format!("arn:aws:personalize:{}:{}:dataset-import-job/{name}", a.region, a.account);
    let writes =
        || history.writes.iter().map(written_resource).filter(|resource| resource["metadata"]["uid"] == *uid.as_str());
    // A user asks for the import into a new dataset, although the job into the former one succeeded.
    let is_asked = writes().any(|resource| {
        let status = &resource["status"];
        status["requestedAttempt"] == *attempt && status["attempts"].is_null()
    });
    if let Some(earlier) = job(history.jobs, &arn(&earlier)).filter(|_| !is_asked) {
        let sent = a.time.map_or(i64::MAX, Timestamp::as_millisecond);
        if earlier["status"] != "CREATE FAILED" || earlier["updatedMs"].as_i64().is_some_and(|failed| failed > sent) {
            return Some(format!("A: {job_name} was created as attempt {attempt} before attempt {before} failed"));
        }
    }
    let limit = writes().filter_map(|resource| resource["spec"]["backoffLimit"].as_i64()).max().unwrap_or(0);
    let requested = writes().any(|resource: &Value| annotation(resource, RETRY_REQUESTED_AT).is_some());
    (before > limit && !requested).then(|| {
        let name = writes().next().map(|resource| text(&resource["metadata"], "name")).unwrap_or_default();
        format!(
            "A: {job_name} was created as attempt {attempt} of {name}, beyond the limit {limit} and without a request"
        )
    })
}

mod tests {
    use crate::invariants::histories::{
        DATASET, OTHER_DATASET, accepted_create, assert_holds, assert_violates, intent, job, millis_at, write,
        write_with_backoff_limit, write_with_retry_requested,
    };
    use crate::invariants::{History, check, check_logs};
    use serde_json::json;

    #[test]
    fn job_name_accepted_twice_violates_a() {
        assert_violates(
            "A",
            &check_logs(
                &[accepted_create("a-1", DATASET), accepted_create("a-1", DATASET)],
                &[write("a", &intent("a-1", 1))],
            ),
        );
    }

    #[test]
    fn two_job_names_for_one_attempt_violate_a_but_a_retry_does_not() {
        let ledger = [accepted_create("a-1", DATASET), accepted_create("a-1-2", DATASET)];
        assert_violates("A", &check_logs(&ledger, &[write("a", &intent("a-1", 1)), write("a", &intent("a-1-2", 1))]));
        assert_holds(&check_logs(
            &ledger,
            &[
                write_with_backoff_limit("a", 1, &intent("a-1", 1)),
                write_with_backoff_limit("a", 1, &intent("a-1-2", 2)),
            ],
        ));
    }

    #[test]
    fn create_without_or_before_its_intent_violates_a() {
        assert_violates("A", &check_logs(&[accepted_create("a-1", DATASET)], &[]));
        let mut late = write("a", &intent("a-1", 1));
        late["requestReceivedTimestamp"] = json!("2026-01-01T00:01:00.500001Z");
        assert_violates("A", &check_logs(&[accepted_create("a-1", DATASET)], &[late]));
    }

    #[test]
    fn create_into_another_dataset_than_intended_violates_a() {
        assert_violates("A", &check_logs(&[accepted_create("a-1", OTHER_DATASET)], &[write("a", &intent("a-1", 1))]));
    }

    #[test]
    fn create_after_an_intent_by_another_client_violates_a() {
        let mut forged = write("a", &intent("a-1", 1));
        forged["userAgent"] = json!("kubectl/v1");
        assert_violates("A", &check_logs(&[accepted_create("a-1", DATASET)], &[forged]));
    }

    #[test]
    fn retry_before_the_failure_violates_a() {
        let ledger = [accepted_create("a-1", DATASET), accepted_create("a-1-2", DATASET)];
        let writes = [
            write_with_backoff_limit("a", 1, &intent("a-1", 1)),
            write_with_backoff_limit("a", 1, &intent("a-1-2", 2)),
        ];
        let with = |status: &str, ended: i64| {
            let jobs = [job("a-1", status, 0, ended), job("a-1-2", "ACTIVE", ended, ended + 1)];
            check(&History { ledger: &ledger, writes: &writes, jobs: &jobs, ..History::default() })
        };
        assert_holds(&with("CREATE FAILED", 1));
        assert_violates("A", &with("CREATE FAILED", millis_at("00:01:00.501")));
        assert_violates("A", &with("ACTIVE", 1));
    }

    #[test]
    fn retry_beyond_the_limit_violates_a_unless_requested() {
        let ledger = [accepted_create("a-1", DATASET), accepted_create("a-1-2", DATASET)];
        let first = write("a", &intent("a-1", 1));
        assert_violates("A", &check_logs(&ledger, &[first.clone(), write("a", &intent("a-1-2", 2))]));
        assert_holds(&check_logs(&ledger, &[first, write_with_retry_requested("a", &intent("a-1-2", 2))]));
    }
}
