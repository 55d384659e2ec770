//! Faults of the service and of the connection to it.

use super::{CREATE, DESCRIBE, assert_imported_once, error_response, import_nightly, job_not_found, leaves_no_intent};
use crate::env::personalize_local::{ACCESS_KEY, SECRET_KEY};
use crate::env::proxy::Fault;
use crate::env::{ACCOUNT, OperatorProcess, ROLE, SHORT_TIMEOUTS, TestEnv, dataset_arn, eventually, ready_condition};
use crate::invariants::operator_writes;
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

/// Status and message of the Ready condition.
pub(super) fn ready_state(status: &DatasetImportJobStatus) -> (String, String) {
    ready_condition(status).map(|ready| (ready.status.clone(), ready.message.clone())).unwrap_or_default()
}

/// Creates meet this fault until the status has this reason, and the import is still made once. Returns the status while it
/// has this reason.
fn import_despite(action: &Value, reason: &str) -> (TestEnv, OperatorProcess, DatasetImportJobStatus) {
    let env = TestEnv::new();
    env.service.inject_fault(&fault(CREATE, 0, action));
    let operator = env.start_operator(&[]);
    import_nightly(&env);
    let seen = env.wait_for_reason("nightly", reason);
    env.service.clear_faults();
    env.annotate("nightly", "personalize-operator.io/reconcile-requested-at=now");
    assert_imported_once(&env);
    (env, operator, seen)
}

/// The first create meets this fault. The import is made once, with this number of creates.
fn assert_creates_despite(action: &Value, creates: usize) {
    let env = TestEnv::new();
    env.service.inject_fault(&fault(CREATE, 1, action));
    let _operator = env.start_operator(&SHORT_TIMEOUTS);
    import_nightly(&env);
    assert_imported_once(&env);
    assert_eq!(env.service.call_count(CREATE), creates, "{action}");
}

#[test]
fn fault_37_500_or_503_before_accepting_is_retried_after_the_grace_period() {
    for status in [500, 503] {
        assert_creates_despite(&error("InternalFailure", "", status), 2);
    }
}

#[test]
fn fault_38_500_or_503_after_accepting_adopts_the_job() {
    for status in [500, 503] {
        assert_creates_despite(&json!({"errorAfter": {"code": "InternalFailure", "status": status}}), 1);
    }
}

#[test]
fn fault_39_response_that_stops_after_its_headers_adopts_the_job() {
    assert_creates_despite(&json!({"silenceAfterHeaders": {"effect": true}}), 1);
}

#[test]
fn fault_40_truncated_response_adopts_the_job() {
    assert_creates_despite(&json!("cutBody"), 1);
}

#[test]
fn fault_41_malformed_response_adopts_the_job() {
    assert_creates_despite(&json!("garbage"), 1);
}

#[test]
fn fault_42_response_without_an_arn_adopts_the_job() {
    assert_creates_despite(&json!("noArn"), 1);
}

#[test]
fn fault_44_expired_credentials_are_reported_and_retried() {
    let message = "The security token included in the request is expired";
    let (_env, _operator, seen) = import_despite(&error("ExpiredTokenException", message, 403), "CredentialsRefused");
    let (state, message) = ready_state(&seen);
    assert_eq!(state, "Unknown");
    assert!(message.contains("credentials"), "{message}");
}

#[test]
fn fault_44_refreshed_credentials_are_used_without_a_restart() {
    let env = TestEnv::new();
    let (config, file) = (env.dir().join("aws-config"), env.dir().join("credentials.json"));
    std::fs::write(&config, format!("[default]\ncredential_process = cat {}\n", file.display())).unwrap();
    let write_credentials = |id: &str, secret: &str| {
        // They expire soon, so every call reads them again.
        let soon = jiff::Timestamp::now() + Duration::from_secs(1);
        let credentials =
            json!({"Version": 1, "AccessKeyId": id, "SecretAccessKey": secret, "Expiration": soon.to_string()});
        std::fs::write(&file, credentials.to_string()).unwrap();
    };
    write_credentials("AKIAOLDOLDOLDOLDOLDO", "old");
    let config = config.display().to_string();
    let vars = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", ""), ("AWS_CONFIG_FILE", config.as_str())];
    let _operator = env.start_operator_with(&vars, &[]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "CredentialsRefused");
    write_credentials(ACCESS_KEY, SECRET_KEY);
    assert_imported_once(&env);
}

#[test]
fn fault_45_access_denied_stalls_until_retried() {
    let message = format!(
        "User: arn:aws:iam::{ACCOUNT}:user/operator is not authorized to perform: iam:PassRole on resource: {ROLE}"
    );
    let (env, _operator, seen) = import_despite(&error("AccessDeniedException", &message, 400), "AccessDenied");
    let (state, message) = ready_state(&seen);
    assert_eq!(state, "False");
    assert!(message.contains("iam:PassRole"), "{message}");
    assert!(leaves_no_intent(&env, "AccessDenied"), "the rejected call leaves no intent");
}

#[test]
fn fault_46_dataset_in_another_region_or_account_is_not_imported() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    let foreign = dataset_arn("d0").replace(ACCOUNT, "999999999999");
    env.import("account", "d0", json!({"datasetArn": foreign}));
    env.import("region", "d0", json!({"datasetArn": dataset_arn("d0").replace("eu-west-1", "ap-south-1")}));
    // A missing dataset in another region may be created later. Another account's dataset is denied.
    let (state, message) = ready_state(&env.wait_for_reason("region", "DatasetNotReady"));
    assert_eq!((state.as_str(), message.as_str()), ("Unknown", "waiting for the dataset: it does not exist"));
    let (state, message) = ready_state(&env.wait_for_reason("account", "AccessDenied"));
    assert!(state == "False" && message.contains("not authorized"), "{message}");
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    let regions: Vec<String> =
        env.service.ledger().iter().filter_map(|l| l["region"].as_str().map(String::from)).collect();
    assert!(regions.iter().any(|r| r == "ap-south-1"), "a call goes to the region of the dataset");
    assert_eq!(env.accepted_count(), 1, "only nightly is created");
    env.check_invariants();
}

#[test]
fn fault_47_already_existing_owned_job_is_adopted() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    // The lookup before the create does not find the job, so the create fails because it exists.
    let operator = env.start_operator(&[]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert!(operator.stop());
    env.delete("nightly");
    let mut created = false;
    proxy.inject(move |call| {
        created |= call.label == CREATE;
        if !created && call.label == DESCRIBE { job_not_found() } else { Fault::None }
    });
    let _operator = env.spawn_operator_behind(&proxy, &[]);
    import_nightly(&env);
    assert_imported_once(&env);
    assert_eq!(proxy.count(CREATE), 1);
}

fn foreign_job(name: &str) -> Value {
    json!({"name": name, "datasetArn": dataset_arn("d0"), "dataLocation": "s3://bucket/interactions.csv", "roleArn": ROLE})
}

/// The import conflicts with a foreign job of its name, and adopts it when the user asks for it.
fn assert_conflict_until_adopted(env: &TestEnv) {
    let status = env.wait_for_reason("weekly", "JobNameConflict");
    assert_eq!((status.dataset_import_job_arn, status.submission), (None, None), "no intent is left");
    env.check_invariants_settled();
    env.annotate("weekly", "personalize-operator.io/adopt=true");
    env.wait_for_reason("weekly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 0);
    env.check_invariants_settled();
}

#[test]
fn fault_48_already_existing_foreign_job_conflicts_until_adopted() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    env.service.put_job(&foreign_job("weekly"));
    // The lookups before the create do not find the job, so the create fails because it exists.
    let mut created = false;
    proxy.inject(move |call| {
        created |= call.label == CREATE;
        if !created && call.label == DESCRIBE { job_not_found() } else { Fault::None }
    });
    let _operator = env.spawn_operator_behind(&proxy, &[]);
    env.import("weekly", "d0", json!({"jobName": "weekly"}));
    assert_conflict_until_adopted(&env);
    assert_eq!(proxy.count(CREATE), 1, "the create is not tried again");
}

#[test]
fn fault_48_foreign_job_found_before_the_create_conflicts_until_adopted() {
    let env = TestEnv::new();
    env.service.put_job(&foreign_job("weekly"));
    let _operator = env.start_operator(&[]);
    env.import("weekly", "d0", json!({"jobName": "weekly"}));
    assert_conflict_until_adopted(&env);
    assert_eq!(env.service.call_count(CREATE), 0);
}

#[test]
fn fault_49_job_with_another_request_is_never_adopted() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    let mut other = foreign_job("other");
    other["dataLocation"] = "s3://bucket/else.csv".into();
    // The ownership tags are correct.
    other["tags"] = json!([
        {"tagKey": TAG_NAMESPACE, "tagValue": env.namespace}, {"tagKey": TAG_NAME, "tagValue": "other"},
        {"tagKey": TAG_REQUEST_HASH, "tagValue": "0"},
    ]);
    env.service.put_job(&other);
    env.import("other", "d0", json!({"jobName": "other"}));
    env.annotate("other", "personalize-operator.io/adopt=true");
    let (_, message) = ready_state(&env.wait_for_reason("other", "JobNameConflict"));
    assert!(message.contains("another dataSource.dataLocation"), "the message says what differs: {message}");
    assert_eq!(env.accepted_count(), 0);
    env.check_invariants_settled();
}

#[test]
fn fault_50_job_without_readable_tags_is_not_adopted() {
    let env = TestEnv::new();
    let operator = env.start_operator(&[]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert!(operator.stop());
    env.delete("nightly");
    let denied = error("AccessDeniedException", "not authorized to perform: personalize:ListTagsForResource", 400);
    env.service.inject_fault(&fault("ListTagsForResource", 1000, &denied));
    let _operator = env.start_operator(&[]);
    import_nightly(&env);
    let status = env.wait_for_reason("nightly", "AccessDenied");
    assert_eq!(status.dataset_import_job_arn, None, "ownership is not proven");
    assert!(ready_state(&status).1.contains("ListTagsForResource"));
    env.service.clear_faults();
    assert_imported_once(&env);
}

/// The service did not show the job for a while, and no status reported it as missing.
fn assert_never_reported_missing(env: &TestEnv) {
    let not_found = |l: &Value| l["operation"] == DESCRIBE && l["errorCode"] == "ResourceNotFoundException";
    let ledger = env.service.ledger();
    let create = ledger.iter().position(|l| l["operation"] == CREATE).unwrap();
    assert!(ledger[create..].iter().any(not_found), "the job was looked up while it did not show");
    let missing = |w: &&Value| w["responseObject"]["status"].to_string().contains("JobNotFound");
    assert_eq!(operator_writes(&env.audited_writes()).find(missing), None);
}

#[test]
fn fault_51_job_not_visible_after_the_create_is_waited_for() {
    let env = TestEnv::new();
    env.service.inject_fault(&fault(CREATE, 1, &json!({"notFoundFor": {"lookups": 2}})));
    let _operator = env.start_operator(&["--grace=60s"]);
    import_nightly(&env);
    assert_imported_once(&env);
    assert_eq!(env.service.call_count(CREATE), 1);
    assert_never_reported_missing(&env);
}

#[test]
fn fault_51_job_not_visible_after_a_lost_response_is_waited_for() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    env.service.inject_fault(&fault(CREATE, 1, &json!({"notFoundFor": {"lookups": 2}})));
    proxy.inject_once(Fault::DropResponse, |c| c.label == CREATE);
    let _operator = env.spawn_operator_behind(&proxy, &["--grace=60s"]);
    import_nightly(&env);
    assert_imported_once(&env);
    assert_eq!(env.service.call_count(CREATE), 1, "no second create within the grace period");
    assert_never_reported_missing(&env);
}

#[test]
fn fault_52_vanished_job_is_reported_and_never_created_again() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let _operator = env.start_operator(&[]);
    import_nightly(&env);
    let running = env.wait_for_reason("nightly", "Importing");
    env.service.vanish_job(&running.job_name.unwrap());
    let (_, message) = ready_state(&env.wait_for_reason("nightly", "JobNotFound"));
    assert!(message.contains("not submitted again"), "{message}");
    env.annotate("nightly", "personalize-operator.io/reconcile-requested-at=now");
    env.import("other", "d1", json!({}));
    env.wait_for_reason("other", "Importing");
    assert_eq!(env.accepted_count(), 2);
    env.check_invariants();
}

#[test]
fn fault_53_unknown_job_status_is_shown_and_polling_continues() {
    let env = TestEnv::new();
    env.service
        .inject_fault(&json!({"operation": DESCRIBE, "skip": 2, "count": 0, "action": {"status": "REINDEXING \u{7}"}}));
    let _operator = env.start_operator(&[]);
    env.service.set_durations(100, 3000);
    import_nightly(&env);
    let seen = eventually("the unknown status is shown", || {
        Some(env.status("nightly")).filter(|s| s.status.as_deref().is_some_and(|s| s.starts_with("REINDEXING")))
    });
    env.service.clear_faults();
    assert_eq!(ready_state(&seen).0, "Unknown");
    assert!(!seen.status.unwrap().contains('\u{7}'));
    assert_imported_once(&env);
}

#[test]
fn fault_54_finished_import_is_never_polled_again() {
    let env = TestEnv::new();
    let operator = env.start_operator(&[]);
    import_nightly(&env);
    let ended = env.wait_for_reason("nightly", "ImportSucceeded");
    env.service.inject_fault(&fault(DESCRIBE, 0, &json!("statusGoesBack")));
    env.annotate("nightly", "personalize-operator.io/reconcile-requested-at=now");
    operator.kill();
    let polls = env.service.call_count(DESCRIBE);
    let _operator = env.start_operator(&[]);
    env.import("after", "d1", json!({"suspend": true}));
    env.wait_for_reason("after", "Suspended");
    assert_eq!((env.service.call_count(DESCRIBE), env.status("nightly")), (polls, ended));
    assert_imported_once(&env);
}

#[test]
fn fault_55_huge_failure_reason_is_truncated_sanitized_and_redacted() {
    let env = TestEnv::new();
    let secret = format!("aws_secret_access_key={}", SECRET_KEY);
    let reason = format!("first line\r\n\u{1b}[31m {secret} ");
    env.service.inject_fault(&fault(DESCRIBE, 0, &json!({"failureReason": {"text": reason, "length": 10 << 20}})));
    let operator = env.start_operator(&[]);
    env.import("nightly", "d0", json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    let failed = env.wait_for_reason("nightly", "ImportFailed");
    let reason = failed.failure_reason.unwrap();
    assert_eq!(reason.chars().count(), 1024);
    assert!(reason.starts_with("first line"), "{reason}");
    assert!(!reason.contains(SECRET_KEY) && !reason.chars().any(char::is_control), "{reason}");
    assert!(!operator.log().contains(SECRET_KEY));
    env.service.clear_faults();
    env.check_invariants();
}

#[test]
fn fault_56_failed_job_is_retried_up_to_the_backoff_limit() {
    let env = TestEnv::new();
    let operator = env.start_operator(&[]);
    env.import("nightly", "d0", json!({"backoffLimit": 2, "dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    let failed = env.wait_for_reason("nightly", "ImportFailed");
    assert_eq!((failed.attempts, env.accepted_count()), (Some(3), 3));
    assert!(operator.stop());
    let _operator = env.start_operator(&[]);
    env.annotate("nightly", "personalize-operator.io/reconcile-requested-at=now");
    env.import("after", "d1", json!({}));
    env.wait_for_reason("after", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 4);
    env.check_invariants_settled();
}

#[test]
fn fault_57_dataset_in_use_queues_the_import() {
    let message = "The dataset is being updated.";
    let (_env, _operator, seen) = import_despite(&error("ResourceInUseException", message, 400), "Queued");
    assert!(ready_state(&seen).1.contains(message), "{seen:?}");
}

#[test]
fn fault_58_missing_dataset_is_waited_for() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    env.import("nightly", "later", json!({}));
    assert_eq!(ready_state(&env.wait_for_reason("nightly", "DatasetNotReady")).0, "Unknown");
    assert_eq!(env.service.call_count(CREATE), 0);
    env.service.put_dataset("later", "ACTIVE");
    assert_imported_once(&env);
}

#[test]
fn fault_106_job_that_exists_and_is_never_described_stalls_the_import() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    env.service.put_job(&foreign_job("weekly"));
    proxy.inject(move |call| if call.label == DESCRIBE { job_not_found() } else { Fault::None });
    let flags = ["--grace=20s", "--rejected-min=30s", "--rejected-max=60s"];
    let _operator = env.spawn_operator_behind(&proxy, &flags);
    env.import("weekly", "d0", json!({"jobName": "weekly"}));
    let message = env.wait_for_message("weekly", "neither describes it nor accepts its name");
    assert_eq!(proxy.count(CREATE), 2, "the second refusal is final: {message}");
    proxy.clear();
    assert_conflict_until_adopted(&env);
}

#[test]
fn fault_106_job_that_exists_and_may_not_be_described_stalls_the_import() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    env.service.put_job(&foreign_job("weekly"));
    let mut created = false;
    proxy.inject(move |call| {
        created |= call.label == CREATE;
        match (call.label == DESCRIBE, created) {
            (true, false) => job_not_found(),
            (true, true) => error_response("AccessDeniedException"),
            _ => Fault::None,
        }
    });
    let _operator = env.spawn_operator_behind(&proxy, &["--grace=2s"]);
    env.import("weekly", "d0", json!({"jobName": "weekly"}));
    env.wait_for_reason("weekly", "AccessDenied");
    eventually("it is looked up again", || (proxy.count(DESCRIBE) >= 6).then_some(()));
    assert_eq!(proxy.count(CREATE), 1, "nothing is submitted while the job can't be described");
    proxy.clear();
    assert_conflict_until_adopted(&env);
}

#[test]
fn fault_90_state_of_a_dataset_that_takes_no_import_is_named_with_the_way_out() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    for (i, (state, expected)) in [
        ("CREATE PENDING", "it is not ACTIVE yet (CREATE PENDING)"),
        ("CREATE FAILED", "it could not be created (CREATE FAILED); delete it in AWS and create it again"),
        ("DELETE PENDING", "it is being deleted (DELETE PENDING); create it again, or delete this DatasetImportJob"),
        ("DELETE IN_PROGRESS", "it is being deleted (DELETE IN_PROGRESS)"),
        ("ARCHIVED", "its status is \"ARCHIVED\" and not ACTIVE; check it in AWS"),
    ]
    .into_iter()
    .enumerate()
    {
        let (name, dataset) = (format!("import-{i}"), format!("d{i}"));
        env.service.put_dataset(&dataset, state);
        env.import(&name, &dataset, json!({}));
        let status = env.wait_for_reason(&name, "DatasetNotReady");
        let (ready, message) = ready_state(&status);
        assert_eq!((ready.as_str(), message.contains(expected)), ("Unknown", true), "{message}");
        env.service.put_dataset(&dataset, "ACTIVE");
        env.wait_for_reason(&name, "ImportSucceeded");
    }
    env.check_invariants_settled();
}

#[test]
fn fault_91_region_whose_endpoint_does_not_resolve_is_named() {
    let env = TestEnv::new();
    let nowhere = "http://personalize.eu-nowhere-1.invalid";
    let operator = env.start_operator_with(&[("AWS_ENDPOINT_URL_PERSONALIZE", nowhere)], &[]);
    import_nightly(&env);
    env.wait_for_message("nightly", "DNS has no address of its endpoint in region eu-west-1");
    operator.kill();
    let _operator = env.start_operator(&[]);
    assert_imported_once(&env);
}

#[test]
fn fault_93_denied_call_hints_at_a_role_for_the_account_only_if_that_may_be_the_cause() {
    let env = TestEnv::new();
    let denied = |account: &str, action: &str| {
        let user =
            format!("User: arn:aws:sts::{account}:assumed-role/operator/x is not authorized to perform: {action}");
        json!({"error": {"code": "AccessDeniedException", "message": user, "status": 400}})
    };
    for (name, operation, account, action) in [
        ("pass-role", CREATE, ACCOUNT, "iam:PassRole"),
        ("describe", "DescribeDatasetImportJob", ACCOUNT, "personalize:DescribeDatasetImportJob"),
        ("account", "DescribeDatasetImportJob", "999999999999", "personalize:DescribeDatasetImportJob"),
    ] {
        let fault = json!({"operation": operation, "name": name, "count": 0, "action": denied(account, action)});
        env.service.inject_fault(&fault);
    }
    let _operator = env.start_operator(&[]);
    for (i, (name, hints)) in [("pass-role", false), ("describe", false), ("account", true)].into_iter().enumerate() {
        env.import(name, &format!("d{i}"), json!({}));
        let (_, message) = ready_state(&env.wait_for_reason(name, "AccessDenied"));
        assert_eq!(message.contains("--account-roles"), hints, "{message}");
    }
    env.service.clear_faults();
    for name in ["pass-role", "describe", "account"] {
        env.annotate(name, "personalize-operator.io/reconcile-requested-at=now");
        env.wait_for_reason(name, "ImportSucceeded");
    }
    env.check_invariants_settled();
}
