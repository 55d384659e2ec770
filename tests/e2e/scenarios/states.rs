//! The states and the errors of the service, as a user sees them.

use crate::env::personalize_local::UNREADABLE;
use crate::env::{TestEnv, eventually, install_crd, ready_condition, text};
use control_plane::ControlPlane;
use personalize_operator::api::DatasetImportJobStatus;
use serde_json::{Value, json};
use std::fs;

const IN_PROGRESS: [&str; 4] = ["Unknown", "Unknown", "True", "False"];
const SUCCEEDED: [&str; 4] = ["True", "True", "False", "False"];
const FAILED: [&str; 4] = ["False", "False", "False", "True"];
const SUSPENDED: [&str; 4] = ["Unknown", "Unknown", "False", "False"];

/// The statuses of the four conditions: a row of the table of states.
fn row(status: &DatasetImportJobStatus) -> Vec<&str> {
    let find = |type_: &str| status.conditions.iter().find(|c| c.type_ == type_).map_or("", |c| c.status.as_str());
    ["Ready", "Succeeded", "Reconciling", "Stalled"].map(find).to_vec()
}

/// The troubleshooting page has a row for this status.
fn assert_explained(status: &DatasetImportJobStatus) {
    let page = format!("{}/docs/troubleshooting.md", std::env::var("CARGO_MANIFEST_DIR").unwrap());
    let page = fs::read_to_string(page).unwrap();
    let ready = ready_condition(status).unwrap();
    let rows = page.lines().filter(|row| {
        row.starts_with("| `")
            && row.split(" | ").next().is_some_and(|reasons| reasons.contains(&format!("`{}`", ready.reason)))
    });
    let messages = rows.flat_map(|row| row.split(" | ").nth(1).unwrap().split('`').skip(1).step_by(2));
    let matches = |message: &str| message.split('…').all(|part| ready.message.contains(part.trim()));
    assert!(
        messages.into_iter().any(matches),
        "docs/troubleshooting.md does not explain {}: {}",
        ready.reason,
        ready.message
    );
}

#[test]
fn applied_manifest_is_imported() {
    let env = TestEnv::new();
    env.service.set_durations(600_000, 600_000);
    env.import("nightly", "d0", json!({}));
    let unseen = env.status("nightly");
    assert_eq!(unseen.observed_generation, Some(-1), "kstatus reports a new resource as in progress");
    let operator = env.start_operator(&[]);
    let pending = env.wait_for_reason("nightly", "Pending");
    assert_eq!(row(&pending), IN_PROGRESS);
    env.service.set_durations(1, 1);
    let waited = env.kubectl(&["wait", "--for=condition=Succeeded", "dij/nightly", "--timeout=60s"]);
    assert!(waited.status.success(), "{}", text(&waited));
    let waited = env.kubectl(&["wait", "--for=jsonpath={.status.completionTime}", "dij/nightly", "--timeout=60s"]);
    assert!(waited.status.success(), "{}", text(&waited));
    let done = env.status("nightly");
    assert_eq!(row(&done), SUCCEEDED);
    assert_eq!(done.status.as_deref(), Some("ACTIVE"));
    assert_eq!(done.observed_generation, Some(1));
    assert!(done.start_time.is_some() && done.attempts == Some(1));
    let events = eventually("the last event exists", || {
        Some(env.event_reasons("nightly")).filter(|e| e.contains(&"ImportSucceeded".to_owned()))
    });
    for event in ["Submitted", "ImportSucceeded"] {
        assert_eq!(events.iter().filter(|e| *e == event).count(), 1, "{event} once in {events:?}");
    }
    let table = text(&env.kubectl(&["get", "dij", "-o", "wide"]));
    for column in ["STATUS", "STARTED", "FINISHED", "AGE", "REASON", "DATASET", "ImportSucceeded"] {
        assert!(table.contains(column), "{column} in\n{table}");
    }
    let all = text(&env.kubectl(&["get", "personalize"]));
    assert!(all.contains("nightly"), "the category contains it: {all}");
    let log = operator.log();
    let about = log.lines().filter(|l| l.contains("the import has a new reason"));
    assert!(about.clone().count() > 0);
    for line in about {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&line["span"]["resource"], &line["span"]["namespace"]),
            (&json!("nightly"), &json!(env.namespace)),
            "{line}"
        );
    }
    assert!(operator.stop(), "the exit status after SIGTERM is 0");
    env.check_invariants();
}

#[test]
fn failed_import_reports_the_reason_and_is_not_submitted_again() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    for (name, location, reason) in [
        ("no-column", "s3://bucket/no-item.csv", "ITEM_ID"),
        ("few", "s3://bucket/few.csv", "1000"),
        ("missing", "s3://bucket/nothing.csv", ""),
    ] {
        env.import(name, "d1", json!({"dataSource": {"dataLocation": location}}));
        let failed = env.wait_for_reason(name, "ImportFailed");
        assert_eq!(row(&failed), FAILED);
        assert_eq!(failed.status.as_deref(), Some("CREATE FAILED"));
        let failure_reason = failed.failure_reason.unwrap_or_default();
        assert!(!failure_reason.is_empty() && failure_reason.contains(reason), "{failure_reason}");
        assert!(failed.completion_time.is_some());
    }
    let wait = |for_: &str, timeout: &str| env.kubectl(&["wait", for_, "dij/few", timeout]);
    let ended = wait("--for=jsonpath={.status.completionTime}", "--timeout=60s");
    assert!(ended.status.success(), "kubectl wait for the end: {}", text(&ended));
    let succeeded = wait("--for=condition=Succeeded", "--timeout=1s");
    assert!(!succeeded.status.success(), "kubectl wait for success: {}", text(&succeeded));
    let described = eventually("kubectl describe shows the events", || {
        let output = text(&env.kubectl(&["describe", "dij", "few"]));
        let (_, events) = output.split_once("Events:")?;
        events.contains("ImportFailed").then(|| events.to_owned())
    });
    let (submitted, failed) = (described.find("Submitted"), described.find("ImportFailed"));
    assert!(submitted.is_some() && submitted < failed && described.contains("1000"), "{described}");
    assert_eq!(env.accepted_count(), 3);
    env.check_invariants();
}

#[test]
fn suspended_import_is_not_submitted_until_resumed() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    env.import("suspended", "d2", json!({"suspend": true}));
    let suspended = env.wait_for_reason("suspended", "Suspended");
    assert_eq!(row(&suspended), SUSPENDED);
    assert_explained(&suspended);
    assert_eq!(env.service.ledger().len(), 0);
    env.patch("suspended", &json!({"spec": {"suspend": false}}));
    assert_eq!(env.wait_for_reason("suspended", "ImportSucceeded").observed_generation, Some(2));
}

/// A fault that rejects the first `count` creates with this error.
fn rejection(code: &str, message: &str, count: u32) -> Value {
    json!({"operation": "CreateDatasetImportJob", "count": count,
           "action": {"error": {"code": code, "message": message, "status": 400}}})
}

#[test]
fn each_service_error_has_a_reason_and_the_import_succeeds_once_it_is_fixed() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    let cases = [
        ("invalid", "InvalidInputException", "Invalid S3 path.", "InvalidInput", FAILED),
        ("validation", "ValidationException", "1 validation error detected", "InvalidInput", FAILED),
        (
            "denied",
            "AccessDeniedException",
            "User: x is not authorized to perform: iam:PassRole on resource: y",
            "AccessDenied",
            FAILED,
        ),
        ("tags", "TooManyTagsException", "too many", "TooManyTags", FAILED),
        (
            "quota",
            "LimitExceededException",
            "More than 5 resources with PENDING or IN_PROGRESS status.",
            "Queued",
            IN_PROGRESS,
        ),
        ("rate", "ThrottlingException", "Rate exceeded", "Queued", IN_PROGRESS),
        ("in-use", "ResourceInUseException", "in use", "Queued", IN_PROGRESS),
        ("not-found", "ResourceNotFoundException", "no such dataset", "DatasetNotReady", IN_PROGRESS),
        ("rate-as-limit", "LimitExceededException", "Rate exceeded", "Queued", IN_PROGRESS),
        (
            "expired",
            "ExpiredTokenException",
            "The security token included in the request is expired",
            "CredentialsRefused",
            IN_PROGRESS,
        ),
    ];
    for (i, (name, code, message, reason, conditions)) in cases.into_iter().enumerate() {
        env.service.inject_fault(&rejection(code, message, 1000));
        env.import(name, &format!("d{i}"), json!({}));
        let status = env.wait_for_reason(name, reason);
        assert_eq!(row(&status), conditions, "{code}");
        let message = &status.conditions[0].message;
        assert!(message.len() > 10, "{code} has a sentence: {message}");
        assert_explained(&status);
        assert_eq!(status.dataset_import_job_arn, None, "{code}");
        eventually("an event reports it", || env.event_reasons(name).contains(&reason.to_owned()).then_some(()));
        env.service.clear_faults();
        env.annotate(name, "personalize-operator.io/reconcile-requested-at=now");
        env.wait_for_reason(name, "ImportSucceeded");
    }
    assert_eq!(env.accepted_count(), cases.len());
    env.check_invariants();
}

#[test]
fn rejections_by_the_service_itself_are_reported() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    env.import("locked", "d0", json!({"dataSource": {"dataLocation": UNREADABLE}}));
    let failed = env.wait_for_reason("locked", "ImportFailed");
    assert!(failed.failure_reason.unwrap_or_default().contains("Insufficient privileges"));
    env.import("fixed", "d2", json!({"jobName": "fixed", "dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    assert_explained(&env.wait_for_reason("fixed", "ImportFailed"));
    env.service.reject_imports_into("d1");
    env.import("early", "d1", json!({}));
    let rejected = env.wait_for_reason("early", "InvalidInput");
    assert_eq!(rejected.submission, None, "no intent is left");
}

#[test]
fn throttled_read_is_reported_and_retried_automatically() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    env.service.inject_fault(&json!({"operation": "DescribeDataset", "count": 1000,
        "action": {"error": {"code": "ThrottlingException", "message": "Rate exceeded", "status": 400}}}));
    env.import("nightly", "d0", json!({}));
    let throttled = env.wait_for_reason("nightly", "Throttled");
    assert_eq!(row(&throttled), IN_PROGRESS);
    assert_explained(&throttled);
    eventually("an event reports it", || env.event_reasons("nightly").contains(&"Throttled".to_owned()).then_some(()));
    assert_eq!(env.service.call_count("CreateDatasetImportJob"), 0);
    env.service.clear_faults();
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 1);
}

#[test]
fn invalid_spec_from_an_older_crd_is_reported_and_not_submitted() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // An environment needs a static reference. The control plane stops with this process at the latest.
    let control_plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start(dir.path()).unwrap()));
    install_crd(control_plane);
    let mut crd: Value = serde_json::to_value(personalize_operator::api::crd()).unwrap();
    let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let arn = &mut spec["properties"]["datasetArn"];
    *arn = json!({"type": "string", "maxLength": 256});
    spec["x-kubernetes-validations"] = json!([]);
    let replaced = control_plane.kubectl(&["replace", "-f", "-"], Some(&crd.to_string())).unwrap();
    assert!(replaced.status.success(), "{}", text(&replaced));
    let env = TestEnv::on(control_plane);
    let bad = TestEnv::manifest("bad", "d0", json!({"datasetArn": "arn:aws:personalize:::dataset/shop/ITEMS"}));
    eventually("the permissive schema applies", || env.try_apply(&bad).status.success().then_some(()));
    let operator = env.start_operator(&[]);
    let invalid = env.wait_for_reason("bad", "InvalidSpec");
    assert_eq!(row(&invalid), FAILED);
    assert_explained(&invalid);
    eventually("an event reports it", || env.event_reasons("bad").contains(&"InvalidSpec".to_owned()).then_some(()));
    env.import("good", "d0", json!({}));
    env.wait_for_reason("good", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 1);
    assert!(operator.stop());
    control_plane.shutdown();
}

#[test]
fn dataset_created_later_is_waited_for() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    env.import("early", "later", json!({}));
    assert_eq!(row(&env.wait_for_reason("early", "DatasetNotReady")), IN_PROGRESS);
    env.service.put_dataset("later", "CREATE PENDING");
    env.annotate("early", "personalize-operator.io/reconcile-requested-at=1");
    eventually("the message says that the dataset is not ACTIVE", || {
        env.status("early").conditions[0].message.contains("not ACTIVE").then_some(())
    });
    assert_eq!(env.service.call_count("CreateDatasetImportJob"), 0);
    env.service.put_dataset("later", "ACTIVE");
    env.wait_for_reason("early", "ImportSucceeded");
}

#[test]
fn failed_polls_never_make_a_running_import_look_failed() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let _operator = env.start_operator(&[]);
    env.import("running", "d0", json!({}));
    env.wait_for_reason("running", "Importing");
    for (code, status) in [
        ("ThrottlingException", 400),
        ("InternalFailure", 500),
        ("ExpiredTokenException", 403),
        ("AccessDeniedException", 400),
    ] {
        env.service.inject_fault(&json!({"operation": "DescribeDatasetImportJob", "count": 1000,
            "action": {"error": {"code": code, "message": "injected", "status": status}}}));
        let status = eventually("the message names the error", || {
            Some(env.status("running")).filter(|s| s.conditions[0].message.contains(code))
        });
        assert_eq!(row(&status), IN_PROGRESS, "{code}");
        assert_explained(&status);
        assert_eq!(status.status.as_deref(), Some("CREATE IN_PROGRESS"), "{code}");
        env.service.clear_faults();
        eventually("the message is gone", || {
            (!env.status("running").conditions[0].message.contains("can't")).then_some(())
        });
    }
    env.service.set_durations(1, 1);
    env.wait_for_reason("running", "ImportSucceeded");
}

#[test]
fn missing_credentials_and_an_unreachable_service_are_retried() {
    let env = TestEnv::new();
    // First an identity without credentials, then a closed port.
    let operator = env.start_operator_with(&[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")], &[]);
    env.import("nightly", "d0", json!({}));
    let refused = env.wait_for_reason("nightly", "CredentialsRefused");
    assert_eq!(row(&refused), IN_PROGRESS);
    assert_explained(&refused);
    operator.kill();
    let operator = env.start_operator_with(&[("AWS_ENDPOINT_URL_PERSONALIZE", "http://127.0.0.1:1")], &[]);
    let unreachable = env.wait_for_reason("nightly", "ServiceUnavailable");
    assert_eq!(row(&unreachable), IN_PROGRESS);
    assert_explained(&unreachable);
    operator.kill();
    let _operator = env.start_operator(&[]);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 1);
}

#[test]
fn instance_metadata_is_not_used_when_there_is_a_key() {
    let metadata = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    metadata.set_nonblocking(true).unwrap();
    let url = format!("http://{}", metadata.local_addr().unwrap());
    let vars = [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str())];
    let env = TestEnv::new();
    let _operator = env.start_operator_with(&vars, &[]);
    env.import("nightly", "d0", json!({}));
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert!(metadata.accept().is_err(), "the operator made no connection");
}
