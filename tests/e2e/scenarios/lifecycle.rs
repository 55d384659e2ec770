//! The lifecycle of a resource and of the operator: retries, edits, events, shutdown.

use crate::env::personalize_local::SECRET_KEY;
use crate::env::proxy::Fault;
use crate::env::{TestEnv, eventually, text};
use crate::invariants::accepted_creates;
use serde_json::{Value, json};
use std::time::Duration;

/// Reason and note of the events about a resource, in the order of `kubectl describe`.
fn events(env: &TestEnv, name: &str) -> Vec<(String, String)> {
    let events = env.events(name).into_iter();
    events.map(|event| (event.reason.unwrap_or_default(), event.message.unwrap_or_default())).collect()
}

/// The events, once there is one with this reason.
fn events_until(env: &TestEnv, name: &str, last: &str) -> Vec<(String, String)> {
    eventually(&format!("there is an event {last}"), || {
        Some(events(env, name)).filter(|events| events.iter().any(|(reason, _)| reason == last))
    })
}

#[test]
fn failed_job_is_retried_up_to_the_backoff_limit() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&["--grace=60s"]);
    env.import("nightly", "d0", json!({"backoffLimit": 2, "dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    let failed = eventually("all attempts failed", || {
        Some(env.status("nightly")).filter(|s| s.attempts == Some(3) && s.completion_time.is_some())
    });
    let names: Vec<String> = accepted_creates(&env.service.ledger()).into_iter().map(|a| a.job_name).collect();
    assert_eq!(names.len(), 3);
    assert_eq!(names[1], format!("{}-2", names[0]));
    assert_eq!(names[2], format!("{}-3", names[0]));
    assert_eq!(failed.conditions[0].reason, "ImportFailed");
    let events = events_until(&env, "nightly", "ImportFailed");
    let of_attempts =
        |(reason, _): &&(String, String)| ["Submitted", "Retrying", "ImportFailed"].contains(&reason.as_str());
    let events: Vec<&(String, String)> = events.iter().filter(of_attempts).collect();
    let expected = [
        ("Submitted", names[0].as_str()),
        ("Retrying", "attempt 1 failed"),
        ("Submitted", &names[1]),
        ("Retrying", "attempt 2 failed"),
        ("Submitted", &names[2]),
        ("ImportFailed", "1000"),
    ];
    assert_eq!(events.len(), expected.len(), "{events:?}");
    for ((reason, note), (expected, part)) in events.iter().zip(expected) {
        let matches = if expected == "Submitted" { note.ends_with(part) } else { note.contains(part) };
        assert!(reason == expected && matches, "{expected} with {part} in {events:?}");
    }
    // A recreated resource finds all three jobs and submits nothing.
    env.delete("nightly");
    env.import("nightly", "d0", json!({"backoffLimit": 2, "dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    assert_eq!(env.wait_for_reason("nightly", "ImportFailed").attempts, Some(3));
    assert_eq!(env.accepted_count(), 3);
}

#[test]
fn retry_annotation_grants_one_attempt_per_value() {
    let env = TestEnv::new();
    let operator = env.start_operator(&[]);
    env.import("nightly", "d0", json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    env.wait_for_reason("nightly", "ImportFailed");
    env.annotate("nightly", "personalize-operator.io/retry-requested-at=monday");
    eventually("the second attempt failed too", || {
        (env.status("nightly").attempts == Some(2) && env.status("nightly").completion_time.is_some()).then_some(())
    });
    assert!(operator.stop());
    let _operator = env.start_operator(&[]);
    env.import("last", "d1", json!({}));
    env.wait_for_reason("last", "ImportSucceeded");
    assert_eq!(env.status("nightly").attempts, Some(2));
    assert_eq!(env.accepted_count(), 3);
}

#[test]
fn irrelevant_edits_cause_no_call_and_no_write() {
    let env = TestEnv::new();
    env.service.set_durations(600_000, 600_000);
    let _operator = env.start_operator(&["--poll-min=10m", "--poll-max=10m"]);
    env.import("nightly", "d0", json!({}));
    env.wait_for_reason("nightly", "Pending");
    env.import("other", "d1", json!({}));
    env.wait_for_reason("other", "Pending");
    let writes = env.operator_write_count("nightly");
    let polls = |env: &TestEnv| env.service.ledger().iter().filter(|l| l.to_string().contains("nightly-")).count();
    let before = polls(&env);
    for i in 0..5 {
        env.annotate("nightly", &format!("example.org/x={i}"));
        let labelled = env.kubectl(&["label", "--overwrite", "dij", "nightly", &format!("x={i}")]);
        assert!(labelled.status.success(), "{}", text(&labelled));
    }
    env.import("after", "d2", json!({}));
    env.wait_for_reason("after", "Pending");
    assert_eq!((polls(&env), env.operator_write_count("nightly")), (before, writes));
    env.annotate("nightly", "personalize-operator.io/reconcile-requested-at=now");
    eventually("the job is polled on request", || (polls(&env) > before).then_some(()));
}

#[test]
fn cleared_or_forged_status_is_corrected() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    env.import("nightly", "d0", json!({}));
    let correct = env.wait_for_reason("nightly", "ImportSucceeded");
    for forged in [
        json!({"status": {"status": "CREATE FAILED", "failureReason": "forged"}}),
        json!({"status": null}),
        json!({"status": {"datasetImportJobArn": "arn:aws:personalize:eu-west-1:123456789012:dataset-import-job/theirs", "attempts": 9}}),
    ] {
        env.patch_status("nightly", &forged);
        let is_correct = |s: &personalize_operator::api::DatasetImportJobStatus| {
            s.status == correct.status
                && s.failure_reason.is_none()
                && s.dataset_import_job_arn == correct.dataset_import_job_arn
                && s.attempts == Some(1)
        };
        eventually("the status is correct again", || Some(env.status("nightly")).filter(is_correct));
    }
    assert_eq!(env.accepted_count(), 1);
}

#[test]
fn vanished_job_is_reported_and_not_submitted_again() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let _operator = env.start_operator(&[]);
    env.import("nightly", "d0", json!({}));
    let running = env.wait_for_reason("nightly", "Importing");
    env.service.vanish_job(&running.job_name.unwrap());
    env.wait_for_reason("nightly", "JobNotFound");
    env.annotate("nightly", "personalize-operator.io/reconcile-requested-at=now");
    env.import("other", "d1", json!({}));
    env.wait_for_reason("other", "Importing");
    assert_eq!(env.accepted_count(), 2);
}

#[test]
fn older_import_is_superseded_by_a_newer_one() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    env.import("old", "d0", json!({"suspend": true}));
    env.wait_for_reason("old", "Suspended");
    env.wait_until_others_are_newer("old");
    env.import("new", "d0", json!({"dataSource": {"dataLocation": "s3://bucket/interactions.csv"}}));
    env.wait_for_reason("new", "ImportSucceeded");
    env.patch("old", &json!({"spec": {"suspend": false}}));
    env.wait_for_reason("old", "Superseded");
    assert_eq!(env.accepted_count(), 1);
}

#[test]
fn pending_events_are_published_before_exit() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    proxy.inject(|call| match call.label.as_str() {
        "POST events" if call.body.contains("ImportSucceeded") => Fault::Delay(Duration::from_millis(700)),
        _ => Fault::None,
    });
    let operator = env.spawn_operator_behind(&proxy, &[]);
    env.import("nightly", "d0", json!({}));
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert!(operator.stop());
    let events = events(&env, "nightly");
    assert!(events.iter().any(|(reason, _)| reason == "ImportSucceeded"), "{events:?}");
}

#[test]
fn rejected_event_is_logged_and_delays_no_import() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    let rejection = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden",
        "message": "events are not for you"});
    proxy.inject(move |call| match call.label.as_str() {
        "POST events" => Fault::Respond(403, Vec::new(), rejection.to_string()),
        _ => Fault::None,
    });
    let operator = env.spawn_operator_behind(&proxy, &[]);
    env.import("nightly", "d0", json!({}));
    env.wait_for_reason("nightly", "ImportSucceeded");
    let line = eventually("the log reports it", || {
        operator.log().lines().find(|l| l.contains("an event could not be published")).map(String::from)
    });
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["span"]["resource"], "nightly", "{line}");
    assert!(line["level"] == "WARN" && line.to_string().contains("events are not for you"), "{line}");
}

#[test]
fn resource_with_the_longest_name_is_imported_and_has_events() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    let name = format!("{}.{}", "a".repeat(229), "b".repeat(23));
    env.import(&name, "d0", json!({}));
    env.wait_for_reason(&name, "ImportSucceeded");
    events_until(&env, &name, "ImportSucceeded");
}

#[test]
fn health_and_metrics_reflect_the_import() {
    let env = TestEnv::new();
    let operator = env.start_operator(&["--grace=60s"]);
    env.import("nightly", "d0", json!({}));
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(operator.get("/healthz").map(|(s, _)| s), Some(200));
    let expected = [
        "controller_runtime_reconcile_total{",
        "controller_runtime_reconcile_time_seconds_bucket{",
        "controller_runtime_active_workers{",
        "rest_client_requests_total{",
        "leader_election_master_status{name=\"personalize-operator\"} 1",
        "personalize_operator_imports_total{outcome=\"succeeded\"} 1",
        "personalize_operator_api_requests_total{operation=\"CreateDatasetImportJob\",code=\"OK\"} 1",
    ];
    // The operator counts an import right after it has written the status.
    let metrics = eventually("all series are there", || {
        let metrics = operator.metrics();
        expected.iter().all(|series| metrics.contains(series)).then_some(metrics)
    });
    assert!(!metrics.contains("nightly"), "no label contains text from outside");
    assert!(!operator.log().contains(SECRET_KEY));
}
