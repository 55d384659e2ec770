//! What may happen to a resource and to the operator in between.

use crate::env::proxy::Fate;
use crate::env::{Bed, eventually, text};
use crate::invariants::{accepted, judge};
use serde_json::{Value, json};
use std::time::Duration;

/// The events about a resource in the order in which `kubectl describe` shows them: reason and note.
fn story(bed: &Bed, name: &str) -> Vec<(String, String)> {
    let about = format!("involvedObject.name={name}");
    let listed = bed.kubectl(&["get", "events", "-o", "json", "--field-selector", &about]);
    let list: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let word = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    list["items"].as_array().unwrap().iter().map(|e| (word(e, "reason"), word(e, "message"))).collect()
}

/// The whole story, once it has come to this reason.
fn story_until(bed: &Bed, name: &str, last: &str) -> Vec<(String, String)> {
    eventually(&format!("the events come to {last}"), || {
        Some(story(bed, name)).filter(|story| story.iter().any(|(reason, _)| reason == last))
    })
}

#[test]
fn a_failed_job_is_retried_within_the_limit() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    bed.import("nightly", "d0", json!({"backoffLimit": 2, "dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    let failed = eventually("all attempts failed", || {
        Some(bed.status("nightly")).filter(|s| s.attempts == Some(3) && s.completion_time.is_some())
    });
    let names: Vec<String> = accepted(&bed.service.ledger()).into_iter().map(|a| a.job_name).collect();
    assert_eq!(names.len(), 3);
    assert_eq!(names[1], format!("{}-2", names[0]));
    assert_eq!(names[2], format!("{}-3", names[0]));
    assert_eq!(failed.conditions[0].reason, "ImportFailed");
    let told = story_until(&bed, "nightly", "ImportFailed");
    let of_attempts =
        |(reason, _): &&(String, String)| ["Submitted", "Retrying", "ImportFailed"].contains(&reason.as_str());
    let told: Vec<&(String, String)> = told.iter().filter(of_attempts).collect();
    let expected = [
        ("Submitted", names[0].as_str()),
        ("Retrying", "attempt 1 failed"),
        ("Submitted", &names[1]),
        ("Retrying", "attempt 2 failed"),
        ("Submitted", &names[2]),
        ("ImportFailed", "1000"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for ((reason, note), (expected, words)) in told.iter().zip(expected) {
        let fits = if expected == "Submitted" { note.ends_with(words) } else { note.contains(words) };
        assert!(reason == expected && fits, "{expected} of {words} in {told:?}");
    }
    // A resource made anew finds all three and submits nothing.
    bed.delete("nightly");
    bed.import("nightly", "d0", json!({"backoffLimit": 2, "dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    assert_eq!(bed.until("nightly", "ImportFailed").attempts, Some(3));
    assert_eq!(accepted(&bed.service.ledger()).len(), 3);
}

#[test]
fn the_retry_annotation_grants_one_attempt_and_an_old_value_none() {
    let bed = Bed::new();
    let operator = bed.operator(&[]);
    bed.import("nightly", "d0", json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    bed.until("nightly", "ImportFailed");
    bed.annotate("nightly", "personalize-operator.io/retry-requested-at=monday");
    eventually("the second attempt failed too", || {
        (bed.status("nightly").attempts == Some(2) && bed.status("nightly").completion_time.is_some()).then_some(())
    });
    assert!(operator.stop());
    let _operator = bed.operator(&[]);
    bed.import("last", "d1", json!({}));
    bed.until("last", "ImportSucceeded");
    assert_eq!(bed.status("nightly").attempts, Some(2));
    assert_eq!(accepted(&bed.service.ledger()).len(), 3);
}

#[test]
fn edits_that_mean_nothing_ask_and_write_nothing() {
    let bed = Bed::new();
    bed.service.durations(600_000, 600_000);
    let _operator = bed.operator(&["--poll-min=10m", "--poll-max=10m"]);
    bed.import("nightly", "d0", json!({}));
    bed.until("nightly", "Pending");
    eventually("it was looked at", || (bed.service.calls("DescribeDatasetImportJob") >= 3).then_some(()));
    bed.import("probe", "d1", json!({}));
    bed.until("probe", "Pending");
    let writes = bed
        .writes()
        .iter()
        .filter(|w| w["objectRef"]["subresource"] == "status" && w["objectRef"]["name"] == "nightly")
        .count();
    let looks = |bed: &Bed| bed.service.ledger().iter().filter(|l| l.to_string().contains("nightly-")).count();
    let before = looks(&bed);
    for i in 0..5 {
        bed.annotate("nightly", &format!("example.org/x={i}"));
        let labelled = bed.kubectl(&["label", "--overwrite", "dij", "nightly", &format!("x={i}")]);
        assert!(labelled.status.success(), "{}", text(&labelled));
    }
    bed.import("after", "d2", json!({}));
    bed.until("after", "Pending");
    let now = bed
        .writes()
        .iter()
        .filter(|w| w["objectRef"]["subresource"] == "status" && w["objectRef"]["name"] == "nightly")
        .count();
    assert_eq!((looks(&bed), now), (before, writes));
    bed.annotate("nightly", "personalize-operator.io/reconcile-requested-at=now");
    eventually("it looks at once when a person asks", || (looks(&bed) > before).then_some(()));
}

#[test]
fn a_wiped_or_forged_status_is_put_right() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    bed.import("nightly", "d0", json!({}));
    let truth = bed.until("nightly", "ImportSucceeded");
    for forged in [
        json!({"status": {"status": "CREATE FAILED", "failureReason": "forged"}}),
        json!({"status": null}),
        json!({"status": {"datasetImportJobArn": "arn:aws:personalize:eu-west-1:123456789012:dataset-import-job/theirs", "attempts": 9}}),
    ] {
        let patched = bed.kubectl(&[
            "patch",
            "dij",
            "nightly",
            "--subresource=status",
            "--type=merge",
            "-p",
            &forged.to_string(),
        ]);
        assert!(patched.status.success(), "{}", text(&patched));
        let right = |s: &personalize_operator::api::DatasetImportJobStatus| {
            s.status == truth.status
                && s.failure_reason.is_none()
                && s.dataset_import_job_arn == truth.dataset_import_job_arn
                && s.attempts == Some(1)
        };
        eventually("the truth is back", || Some(bed.status("nightly")).filter(right));
    }
    assert_eq!(accepted(&bed.service.ledger()).len(), 1);
}

#[test]
fn a_job_that_vanishes_is_reported_and_not_submitted_again() {
    let bed = Bed::new();
    bed.service.durations(100, 600_000);
    let _operator = bed.operator(&[]);
    bed.import("nightly", "d0", json!({}));
    let running = bed.until("nightly", "Importing");
    bed.service.vanish(&running.job_name.unwrap());
    bed.until("nightly", "JobNotFound");
    bed.annotate("nightly", "personalize-operator.io/reconcile-requested-at=now");
    bed.import("other", "d1", json!({}));
    bed.until("other", "Importing");
    assert_eq!(accepted(&bed.service.ledger()).len(), 2);
}

#[test]
fn an_older_import_never_lands_after_a_newer_one() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    bed.import("old", "d0", json!({"suspend": true}));
    bed.until("old", "Suspended");
    // Creation times are whole seconds.
    let created = bed.get("old").unwrap().metadata.creation_timestamp.unwrap().0;
    eventually("another second begins", || {
        (jiff::Timestamp::now().as_second() > created.as_second() + 1).then_some(())
    });
    bed.import("new", "d0", json!({"dataSource": {"dataLocation": "s3://bucket/interactions.csv"}}));
    bed.until("new", "ImportSucceeded");
    bed.patch("old", &json!({"spec": {"suspend": false}}));
    bed.until("old", "Superseded");
    assert_eq!(accepted(&bed.service.ledger()).len(), 1);
}

#[test]
fn sigterm_in_mid_create_leaves_nothing_undone_or_done_twice() {
    let bed = Bed::new();
    bed.service.fault(&json!({"operation": "CreateDatasetImportJob", "count": 1, "action": {"delay": {"ms": 1500}}}));
    let operator = bed.operator(&[]);
    bed.import("nightly", "d0", json!({}));
    eventually("the call is under way", || (bed.service.calls("CreateDatasetImportJob") == 1).then_some(()));
    assert!(operator.stop());
    assert!(bed.status("nightly").dataset_import_job_arn.is_some(), "it was brought to a safe point");
    let _operator = bed.operator(&[]);
    bed.until("nightly", "ImportSucceeded");
    assert_eq!(accepted(&bed.service.ledger()).len(), 1);
    assert_eq!(judge(&bed.service.ledger(), &bed.writes()), Vec::<String>::new());
}

#[test]
fn events_that_wait_when_the_operator_is_told_to_stop_are_still_told() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    proxy.rule(|call| match call.label.as_str() {
        "POST events" if call.body.contains("ImportSucceeded") => Fate::Delay(Duration::from_millis(700)),
        _ => Fate::Pass,
    });
    let operator = bed.operator_behind(&proxy, &[]);
    bed.import("nightly", "d0", json!({}));
    bed.until("nightly", "ImportSucceeded");
    assert!(operator.stop());
    let told = story(&bed, "nightly");
    assert!(told.iter().any(|(reason, _)| reason == "ImportSucceeded"), "{told:?}");
}

#[test]
fn an_event_that_can_not_be_told_holds_nothing_up_and_the_log_names_its_resource() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    let refusal = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden",
        "message": "events are not for you"});
    proxy.rule(move |call| match call.label.as_str() {
        "POST events" => Fate::Answer(403, Vec::new(), refusal.to_string()),
        _ => Fate::Pass,
    });
    let operator = bed.operator_behind(&proxy, &[]);
    bed.import("nightly", "d0", json!({}));
    bed.until("nightly", "ImportSucceeded");
    let line = eventually("the log tells", || {
        operator.log().lines().find(|l| l.contains("an event could not be published")).map(String::from)
    });
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["span"]["resource"], "nightly", "{line}");
    assert!(line["level"] == "WARN" && line.to_string().contains("events are not for you"), "{line}");
}

#[test]
fn a_resource_with_the_longest_name_is_imported_and_has_its_events() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    let name = format!("{}.{}", "a".repeat(229), "b".repeat(23));
    bed.import(&name, "d0", json!({}));
    bed.until(&name, "ImportSucceeded");
    story_until(&bed, &name, "ImportSucceeded");
}

#[test]
fn health_and_metrics_tell_the_truth() {
    let bed = Bed::new();
    let operator = bed.operator(&[]);
    bed.import("nightly", "d0", json!({}));
    bed.until("nightly", "ImportSucceeded");
    assert_eq!(operator.get("/healthz").map(|(s, _)| s), Some(200));
    let (status, metrics) = operator.get("/metrics").unwrap();
    assert_eq!(status, 200);
    for series in [
        "controller_runtime_reconcile_total{",
        "controller_runtime_reconcile_time_seconds_bucket{",
        "controller_runtime_active_workers{",
        "workqueue_depth{",
        "rest_client_requests_total{",
        "leader_election_master_status{name=\"personalize-operator\"} 1",
        "personalize_operator_imports_total{outcome=\"succeeded\"} 1",
        "personalize_operator_api_requests_total{operation=\"CreateDatasetImportJob\",code=\"OK\"} 1",
    ] {
        assert!(metrics.contains(series), "{series} in\n{metrics}");
    }
    assert!(!metrics.contains("nightly"), "no label holds text from outside");
    assert!(!operator.log().contains(crate::env::personalize_local::SECRET_KEY));
}
