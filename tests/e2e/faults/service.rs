//! Faults of the service and of the way to it.

use super::{CREATE, DESCRIBE, made_once, nightly, not_found, once};
use crate::env::proxy::Fate;
use crate::env::{ACCOUNT, Bed, Operator, ROLE, dataset_arn, eventually};
use crate::invariants::of_operator;
use personalize_operator::api::DatasetImportJobStatus;
use personalize_operator::import::request::{TAG_NAME, TAG_NAMESPACE, TAG_REQUEST_HASH};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) fn fault(operation: &str, count: u32, action: &Value) -> Value {
    json!({"operation": operation, "count": count, "action": action})
}

pub(super) fn error(code: &str, message: &str, status: u16) -> Value {
    json!({"error": {"code": code, "message": message, "status": status}})
}

pub(super) fn ready(status: &DatasetImportJobStatus) -> (String, String) {
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
    ready.map(|c| (c.status.clone(), c.message.clone())).unwrap_or_default()
}

/// Create meets this fault so many times; the import is made once all the same. Tells what was seen
/// in between.
fn created_despite(count: u32, action: &Value, reason: &str) -> (Bed, Operator, DatasetImportJobStatus) {
    let bed = Bed::new();
    bed.service.fault(&fault(CREATE, count, action));
    let operator = bed.operator(&[]);
    nightly(&bed);
    let seen = bed.until("nightly", reason);
    bed.annotate("nightly", "personalize-operator.io/reconcile-requested-at=now");
    made_once(&bed);
    (bed, operator, seen)
}

#[test]
fn fault_37_500_and_503_before_accepting() {
    for status in [500, 503] {
        let (bed, _operator, _) = created_despite(1, &error("InternalFailure", "", status), "Submitting");
        assert_eq!(bed.service.calls(CREATE), 2, "sent again, once it is sure that nothing came of it");
    }
}

#[test]
fn fault_38_500_and_503_after_accepting() {
    for status in [500, 503] {
        let bed = Bed::new();
        bed.service.fault(&fault(CREATE, 1, &json!({"errorAfter": {"code": "InternalFailure", "status": status}})));
        let _operator = bed.operator(&[]);
        nightly(&bed);
        made_once(&bed);
        assert_eq!(bed.service.calls(CREATE), 1);
    }
}

/// The answer to create is lost in this way; the job is found, and create is not called again.
fn found_despite(action: &Value) {
    let bed = Bed::new();
    bed.service.fault(&fault(CREATE, 1, action));
    let _operator = bed.operator(&[]);
    nightly(&bed);
    made_once(&bed);
    assert_eq!(bed.service.calls(CREATE), 1, "{action}");
}

#[test]
fn fault_39_headers_then_silence() {
    found_despite(&json!({"silenceAfterHeaders": {"effect": true}}));
}

#[test]
fn fault_40_truncated_body() {
    found_despite(&json!("cutBody"));
}

#[test]
fn fault_41_malformed_json() {
    found_despite(&json!("garbage"));
}

#[test]
fn fault_42_200_without_an_arn() {
    found_despite(&json!("noArn"));
}

#[test]
fn fault_44_expired_credentials_then_refreshed() {
    let message = "The security token included in the request is expired";
    let (_bed, _operator, seen) =
        created_despite(2, &error("ExpiredTokenException", message, 403), "CredentialsRefused");
    let (state, message) = ready(&seen);
    assert_eq!(state, "Unknown");
    assert!(message.contains("credentials"), "{message}");
}

#[test]
fn fault_44_credentials_that_are_refreshed_are_taken_up_without_a_restart() {
    let bed = Bed::new();
    let (config, file) = (bed.dir().join("aws-config"), bed.dir().join("credentials.json"));
    std::fs::write(&config, format!("[default]\ncredential_process = cat {}\n", file.display())).unwrap();
    let give = |id: &str, secret: &str| {
        // They expire at once, so that each call asks again.
        let soon = jiff::Timestamp::now() + Duration::from_secs(1);
        let credentials =
            json!({"Version": 1, "AccessKeyId": id, "SecretAccessKey": secret, "Expiration": soon.to_string()});
        std::fs::write(&file, credentials.to_string()).unwrap();
    };
    give("AKIAOLDOLDOLDOLDOLDO", "old");
    let config = config.display().to_string();
    let env = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", ""), ("AWS_CONFIG_FILE", config.as_str())];
    let _operator = bed.operator_with(&env, &[]);
    nightly(&bed);
    bed.until("nightly", "CredentialsRefused");
    give(crate::env::personalize_local::ACCESS_KEY, crate::env::personalize_local::SECRET_KEY);
    made_once(&bed);
}

#[test]
fn fault_45_access_denied_pass_role() {
    let message = format!(
        "User: arn:aws:iam::{ACCOUNT}:user/operator is not authorized to perform: iam:PassRole on resource: {ROLE}"
    );
    let (_bed, _operator, seen) = created_despite(1, &error("AccessDeniedException", &message, 400), "AccessDenied");
    let (state, told) = ready(&seen);
    assert_eq!(state, "False");
    assert!(told.contains("iam:PassRole"), "{told}");
    assert!(seen.submission.is_none(), "nothing is under way");
}

#[test]
fn fault_46_wrong_region_or_account() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    let theirs = dataset_arn("d0").replace(ACCOUNT, "999999999999");
    bed.import("account", "d0", json!({"datasetArn": theirs}));
    bed.import("region", "d0", json!({"datasetArn": dataset_arn("d0").replace("eu-west-1", "ap-south-1")}));
    // In a region without the dataset it may be made yet; another account's is not ours to use.
    let (state, message) = ready(&bed.until("region", "DatasetNotReady"));
    assert_eq!((state.as_str(), message.as_str()), ("Unknown", "the dataset does not exist; waits for it"));
    let (state, message) = ready(&bed.until("account", "AccessDenied"));
    assert!(state == "False" && message.contains("not authorized"), "{message}");
    nightly(&bed);
    bed.until("nightly", "ImportSucceeded");
    let regions: Vec<String> =
        bed.service.ledger().iter().filter_map(|l| l["region"].as_str().map(String::from)).collect();
    assert!(regions.iter().any(|r| r == "ap-south-1"), "each call goes to the region of the dataset's ARN");
    assert_eq!(bed.accepted(), 1, "the others are as they were, and nothing of theirs was made");
    bed.judged();
}

#[test]
fn fault_47_already_exists_ours() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    // The look before create finds nothing, though the job is there: create then says so.
    let operator = bed.operator(&["--identity=one"]);
    nightly(&bed);
    bed.until("nightly", "ImportSucceeded");
    assert!(operator.stop());
    bed.delete("nightly");
    let mut sent = false;
    proxy.rule(move |call| {
        sent |= call.label == CREATE;
        if !sent && call.label == DESCRIBE { not_found() } else { Fate::Pass }
    });
    let _operator = bed.operator_behind(&proxy, &[]);
    nightly(&bed);
    made_once(&bed);
    assert_eq!(proxy.count(CREATE), 1, "it was refused, and the job adopted");
}

fn foreign(name: &str) -> Value {
    json!({"name": name, "datasetArn": dataset_arn("d0"), "dataLocation": "s3://bucket/interactions.csv", "roleArn": ROLE})
}

/// The import is refused for somebody else's job of its name, and adopts it when it is asked to.
fn refused_until_asked(bed: &Bed) {
    let status = bed.until("weekly", "JobNameConflict");
    assert_eq!((status.dataset_import_job_arn, status.submission), (None, None), "nothing is under way");
    bed.judged_settled();
    bed.annotate("weekly", "personalize-operator.io/adopt=true");
    bed.until("weekly", "ImportSucceeded");
    assert_eq!(bed.accepted(), 0);
    bed.judged_settled();
}

#[test]
fn fault_48_already_exists_foreign() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    bed.service.put_job(&foreign("weekly"));
    // The looks before create find nothing: it is create that says so.
    let mut sent = false;
    proxy.rule(move |call| {
        sent |= call.label == CREATE;
        if !sent && call.label == DESCRIBE { not_found() } else { Fate::Pass }
    });
    let _operator = bed.operator_behind(&proxy, &[]);
    bed.import("weekly", "d0", json!({"jobName": "weekly"}));
    refused_until_asked(&bed);
    assert_eq!(proxy.count(CREATE), 1, "it was refused, and not tried again");
}

#[test]
fn fault_48_a_foreign_job_that_is_found_before_create() {
    let bed = Bed::new();
    bed.service.put_job(&foreign("weekly"));
    let _operator = bed.operator(&[]);
    bed.import("weekly", "d0", json!({"jobName": "weekly"}));
    refused_until_asked(&bed);
    assert_eq!(bed.service.calls(CREATE), 0);
}

#[test]
fn fault_49_same_name_different_request() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    let mut other = foreign("other");
    other["dataLocation"] = "s3://bucket/else.csv".into();
    // Even with all the right tags.
    other["tags"] = json!([
        {"tagKey": TAG_NAMESPACE, "tagValue": bed.namespace}, {"tagKey": TAG_NAME, "tagValue": "other"},
        {"tagKey": TAG_REQUEST_HASH, "tagValue": "0"},
    ]);
    bed.service.put_job(&other);
    bed.import("other", "d0", json!({"jobName": "other"}));
    bed.annotate("other", "personalize-operator.io/adopt=true");
    let (_, message) = ready(&bed.until("other", "JobNameConflict"));
    assert!(message.contains("s3://bucket/else.csv"), "it says what differs: {message}");
    assert_eq!(bed.accepted(), 0);
    bed.judged_settled();
}

#[test]
fn fault_50_list_tags_denied() {
    let bed = Bed::new();
    let operator = bed.operator(&["--identity=one"]);
    nightly(&bed);
    bed.until("nightly", "ImportSucceeded");
    assert!(operator.stop());
    bed.delete("nightly");
    let denied = error("AccessDeniedException", "not authorized to perform: personalize:ListTagsForResource", 400);
    bed.service.fault(&fault("ListTagsForResource", 1000, &denied));
    let _operator = bed.operator(&["--identity=one"]);
    nightly(&bed);
    let status = bed.until("nightly", "AccessDenied");
    assert_eq!(status.dataset_import_job_arn, None, "what can't be proven ours is not adopted");
    assert!(ready(&status).1.contains("ListTagsForResource"));
    bed.service.clear_faults();
    made_once(&bed);
}

/// The service did not know the job for a while, and no status ever told that it is lost.
fn never_told_lost(bed: &Bed) {
    let unknown = |l: &Value| l["operation"] == DESCRIBE && l["errorCode"] == "ResourceNotFoundException";
    let ledger = bed.service.ledger();
    let sent = ledger.iter().position(|l| l["operation"] == CREATE).unwrap();
    assert!(ledger[sent..].iter().any(unknown), "it was looked for while it did not show");
    let lost = |w: &&Value| w["responseObject"]["status"].to_string().contains("JobNotFound");
    assert_eq!(of_operator(&bed.writes()).find(lost), None);
}

#[test]
fn fault_51_not_found_right_after_create() {
    let bed = Bed::new();
    bed.service.fault(&fault(CREATE, 1, &json!({"notFoundFor": {"ms": 700}})));
    let _operator = bed.operator(&[]);
    nightly(&bed);
    made_once(&bed);
    assert_eq!(bed.service.calls(CREATE), 1);
    never_told_lost(&bed);
}

#[test]
fn fault_51_not_found_right_after_a_create_whose_answer_was_lost() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    bed.service.fault(&fault(CREATE, 1, &json!({"notFoundFor": {"ms": 700}})));
    once(&proxy, Fate::Lose, |c| c.label == CREATE);
    let _operator = bed.operator_behind(&proxy, &["--grace=5s"]);
    nightly(&bed);
    made_once(&bed);
    assert_eq!(bed.service.calls(CREATE), 1, "within the grace period nothing is sent again");
    never_told_lost(&bed);
}

#[test]
fn fault_52_a_job_that_vanishes_is_reported_never_made_again() {
    let bed = Bed::new();
    bed.service.durations(100, 600_000);
    let _operator = bed.operator(&[]);
    nightly(&bed);
    let running = bed.until("nightly", "Importing");
    bed.service.vanish(&running.job_name.unwrap());
    let (_, message) = ready(&bed.until("nightly", "JobNotFound"));
    assert!(message.contains("not submitted again"), "{message}");
    bed.annotate("nightly", "personalize-operator.io/reconcile-requested-at=now");
    bed.import("other", "d1", json!({}));
    bed.until("other", "Importing");
    assert_eq!(bed.accepted(), 2);
    bed.judged();
}

#[test]
fn fault_53_unknown_status_string() {
    let bed = Bed::new();
    bed.service.fault(&json!({"operation": DESCRIBE, "skip": 2, "count": 3, "action": {"status": "REINDEXING \u{7}"}}));
    let _operator = bed.operator(&[]);
    bed.service.durations(100, 3000);
    nightly(&bed);
    let seen = eventually("the unknown status is shown", || {
        Some(bed.status("nightly")).filter(|s| s.status.as_deref().is_some_and(|s| s.starts_with("REINDEXING")))
    });
    assert_eq!(ready(&seen).0, "Unknown");
    assert!(!seen.status.unwrap().contains('\u{7}'));
    made_once(&bed);
}

#[test]
fn fault_54_a_status_that_goes_back_after_active_is_not_seen() {
    let bed = Bed::new();
    let operator = bed.operator(&["--identity=one"]);
    nightly(&bed);
    let ended = bed.until("nightly", "ImportSucceeded");
    bed.service.fault(&fault(DESCRIBE, 0, &json!("statusGoesBack")));
    bed.annotate("nightly", "personalize-operator.io/reconcile-requested-at=now");
    operator.kill();
    let looks = bed.service.calls(DESCRIBE);
    let _operator = bed.operator(&["--identity=one"]);
    bed.import("after", "d1", json!({"suspend": true}));
    bed.until("after", "Suspended");
    assert_eq!((bed.service.calls(DESCRIBE), bed.status("nightly")), (looks, ended), "what has ended is frozen");
    made_once(&bed);
}

#[test]
fn fault_55_a_failure_reason_of_10_mb_with_control_characters_and_secrets() {
    let bed = Bed::new();
    let secret = format!("aws_secret_access_key={}", crate::env::personalize_local::SECRET_KEY);
    let reason = format!("first line\r\n\u{1b}[31m {secret} ");
    bed.service.fault(&fault(DESCRIBE, 0, &json!({"failureReason": {"text": reason, "length": 10 << 20}})));
    let operator = bed.operator(&["--aws-read-timeout=20s", "--aws-timeout=20s"]);
    bed.import("nightly", "d0", json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    let failed = bed.until("nightly", "ImportFailed");
    let told = failed.failure_reason.unwrap();
    assert_eq!(told.chars().count(), 1024);
    assert!(told.starts_with("first line"), "{told}");
    assert!(!told.contains(crate::env::personalize_local::SECRET_KEY) && !told.chars().any(char::is_control), "{told}");
    assert!(!operator.log().contains(crate::env::personalize_local::SECRET_KEY));
    bed.service.clear_faults();
    bed.judged();
}

#[test]
fn fault_56_create_failed_is_not_resubmitted_beyond_the_backoff_limit() {
    let bed = Bed::new();
    let operator = bed.operator(&[]);
    bed.import("nightly", "d0", json!({"backoffLimit": 2, "dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    let failed = bed.until("nightly", "ImportFailed");
    assert_eq!((failed.attempts, bed.accepted()), (Some(3), 3));
    assert!(operator.stop());
    let _operator = bed.operator(&[]);
    bed.annotate("nightly", "personalize-operator.io/reconcile-requested-at=now");
    bed.import("after", "d1", json!({}));
    bed.until("after", "ImportSucceeded");
    assert_eq!(bed.accepted(), 4);
    bed.judged_settled();
}

#[test]
fn fault_57_resource_in_use() {
    let message = "The dataset is being updated.";
    let (_bed, _operator, seen) = created_despite(2, &error("ResourceInUseException", message, 400), "Queued");
    assert!(ready(&seen).1.contains(message), "{seen:?}");
}

#[test]
fn fault_58_dataset_not_found() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    bed.import("nightly", "later", json!({}));
    assert_eq!(ready(&bed.until("nightly", "DatasetNotReady")).0, "Unknown");
    assert_eq!(bed.service.calls(CREATE), 0);
    bed.service.put_dataset("later", "ACTIVE");
    made_once(&bed);
}
