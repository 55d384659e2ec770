//! Each row of the table of states, and each error of the service, as a user sees it.

use crate::env::personalize_local::UNREADABLE;
use crate::env::{Bed, eventually, install_crd, text};
use crate::invariants::{accepted, judge};
use control_plane::ControlPlane;
use personalize_operator::api::DatasetImportJobStatus;
use serde_json::{Value, json};
use std::fs;

const IN_PROGRESS: [&str; 4] = ["Unknown", "Unknown", "True", "False"];
const SUCCEEDED: [&str; 4] = ["True", "True", "False", "False"];
const FAILED: [&str; 4] = ["False", "False", "False", "True"];
const SUSPENDED: [&str; 4] = ["Unknown", "Unknown", "False", "False"];

fn row(status: &DatasetImportJobStatus) -> Vec<&str> {
    let find = |type_: &str| status.conditions.iter().find(|c| c.type_ == type_).map_or("", |c| c.status.as_str());
    ["Ready", "Succeeded", "Reconciling", "Stalled"].map(find).to_vec()
}

/// The troubleshooting page has a row for what this status tells.
fn explained(status: &DatasetImportJobStatus) {
    let page = format!("{}/docs/troubleshooting.md", std::env::var("CARGO_MANIFEST_DIR").unwrap());
    let page = fs::read_to_string(page).unwrap();
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    let rows = page.lines().filter(|row| {
        row.starts_with("| `")
            && row.split(" | ").next().is_some_and(|reasons| reasons.contains(&format!("`{}`", ready.reason)))
    });
    let messages = rows.flat_map(|row| row.split(" | ").nth(1).unwrap().split('`').skip(1).step_by(2));
    let fits = |message: &str| message.split('…').all(|part| ready.message.contains(part.trim()));
    assert!(
        messages.into_iter().any(fits),
        "docs/troubleshooting.md does not tell of {}: {}",
        ready.reason,
        ready.message
    );
}

#[test]
fn a_manifest_becomes_a_finished_import() {
    let bed = Bed::new();
    bed.service.durations(1000, 1000);
    bed.import("nightly", "d0", json!({}));
    let unseen = bed.status("nightly");
    assert_eq!(unseen.observed_generation, Some(-1), "kstatus takes what nobody has seen for in progress");
    let operator = bed.operator(&[]);
    let pending = bed.until("nightly", "Pending");
    assert_eq!(row(&pending), IN_PROGRESS);
    let waited = bed.kubectl(&["wait", "--for=condition=Succeeded", "dij/nightly", "--timeout=60s"]);
    assert!(waited.status.success(), "{}", text(&waited));
    let waited = bed.kubectl(&["wait", "--for=jsonpath={.status.completionTime}", "dij/nightly", "--timeout=60s"]);
    assert!(waited.status.success(), "{}", text(&waited));
    let done = bed.status("nightly");
    assert_eq!(row(&done), SUCCEEDED);
    assert_eq!(done.status.as_deref(), Some("ACTIVE"));
    assert_eq!(done.observed_generation, Some(1));
    assert!(done.start_time.is_some() && done.attempts == Some(1));
    let events = eventually("the events tell the story", || {
        Some(bed.events("nightly")).filter(|e| e.contains(&"ImportSucceeded".to_owned()))
    });
    for event in ["Submitted", "ImportSucceeded"] {
        assert_eq!(events.iter().filter(|e| *e == event).count(), 1, "{event} once in {events:?}");
    }
    let table = text(&bed.kubectl(&["get", "dij", "-o", "wide"]));
    for column in ["STATUS", "STARTED", "FINISHED", "AGE", "REASON", "DATASET", "ImportSucceeded"] {
        assert!(table.contains(column), "{column} in\n{table}");
    }
    let all = text(&bed.kubectl(&["get", "personalize"]));
    assert!(all.contains("nightly"), "the category lists it: {all}");
    let log = operator.log();
    let about = log.lines().filter(|l| l.contains("the import has moved on"));
    assert!(about.clone().count() > 0);
    for line in about {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&line["span"]["resource"], &line["span"]["namespace"]),
            (&json!("nightly"), &json!(bed.namespace)),
            "{line}"
        );
    }
    assert!(operator.stop(), "SIGTERM ends it well");
    assert_eq!(judge(&bed.service.ledger(), &bed.writes()), Vec::<String>::new());
}

#[test]
fn a_failed_import_says_why_and_is_not_submitted_again() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    for (name, location, reason) in [
        ("no-column", "s3://bucket/no-item.csv", "ITEM_ID"),
        ("few", "s3://bucket/few.csv", "1000"),
        ("missing", "s3://bucket/nothing.csv", ""),
    ] {
        bed.import(name, "d1", json!({"dataSource": {"dataLocation": location}}));
        let failed = bed.until(name, "ImportFailed");
        assert_eq!(row(&failed), FAILED);
        assert_eq!(failed.status.as_deref(), Some("CREATE FAILED"));
        let told = failed.failure_reason.unwrap_or_default();
        assert!(!told.is_empty() && told.contains(reason), "{told}");
        assert!(failed.completion_time.is_some());
    }
    let wait = |for_: &str, timeout: &str| bed.kubectl(&["wait", for_, "dij/few", timeout]);
    let ended = wait("--for=jsonpath={.status.completionTime}", "--timeout=60s");
    assert!(ended.status.success(), "whoever waits for the end sees it: {}", text(&ended));
    let succeeded = wait("--for=condition=Succeeded", "--timeout=1s");
    assert!(!succeeded.status.success(), "whoever waits for success does not: {}", text(&succeeded));
    let described = eventually("describe tells the story", || {
        let told = text(&bed.kubectl(&["describe", "dij", "few"]));
        let (_, events) = told.split_once("Events:")?;
        events.contains("ImportFailed").then(|| events.to_owned())
    });
    let (submitted, failed) = (described.find("Submitted"), described.find("ImportFailed"));
    assert!(submitted.is_some() && submitted < failed && described.contains("1000"), "{described}");
    assert_eq!(accepted(&bed.service.ledger()).len(), 3);
    assert_eq!(judge(&bed.service.ledger(), &bed.writes()), Vec::<String>::new());
}

#[test]
fn suspended_before_submission_nothing_is_sent_until_it_is_lifted() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    bed.import("held", "d2", json!({"suspend": true}));
    let held = bed.until("held", "Suspended");
    assert_eq!(row(&held), SUSPENDED);
    explained(&held);
    assert_eq!(bed.service.ledger().len(), 0);
    bed.patch("held", &json!({"spec": {"suspend": false}}));
    assert_eq!(bed.until("held", "ImportSucceeded").observed_generation, Some(2));
}

/// A fault that answers create with this error, for so many calls.
fn refuse(code: &str, message: &str, count: u32) -> Value {
    json!({"operation": "CreateDatasetImportJob", "count": count,
           "action": {"error": {"code": code, "message": message, "status": 400}}})
}

#[test]
fn each_error_of_the_service_has_its_own_reason_and_the_import_is_made_once_it_is_mended() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
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
        bed.service.fault(&refuse(code, message, 1000));
        bed.import(name, &format!("d{i}"), json!({}));
        let status = bed.until(name, reason);
        assert_eq!(row(&status), conditions, "{code}");
        let message = &status.conditions[0].message;
        assert!(message.len() > 10, "{code} has a sentence: {message}");
        explained(&status);
        assert_eq!(status.dataset_import_job_arn, None, "{code}");
        eventually("an event tells of it", || bed.events(name).contains(&reason.to_owned()).then_some(()));
        bed.service.clear_faults();
        bed.annotate(name, "personalize-operator.io/reconcile-requested-at=now");
        bed.until(name, "ImportSucceeded");
    }
    assert_eq!(accepted(&bed.service.ledger()).len(), cases.len());
    assert_eq!(judge(&bed.service.ledger(), &bed.writes()), Vec::<String>::new());
}

#[test]
fn what_the_service_refuses_by_its_own_rules_is_told() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    bed.import("locked", "d0", json!({"dataSource": {"dataLocation": UNREADABLE}}));
    let failed = bed.until("locked", "ImportFailed");
    assert!(failed.failure_reason.unwrap_or_default().contains("Insufficient privileges"));
    bed.import("fixed", "d2", json!({"jobName": "fixed", "dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    explained(&bed.until("fixed", "ImportFailed"));
    bed.import("early", "d1", json!({"importMode": "INCREMENTAL"}));
    let refused = bed.until("early", "InvalidInput");
    assert_eq!(refused.submission, None, "nothing is under way");
}

#[test]
fn a_look_that_is_slowed_down_is_told_and_goes_on_by_itself() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    bed.service.fault(&json!({"operation": "DescribeDataset", "count": 1000,
        "action": {"error": {"code": "ThrottlingException", "message": "Rate exceeded", "status": 400}}}));
    bed.import("nightly", "d0", json!({}));
    let slowed = bed.until("nightly", "Throttled");
    assert_eq!(row(&slowed), IN_PROGRESS);
    explained(&slowed);
    eventually("an event tells of it", || bed.events("nightly").contains(&"Throttled".to_owned()).then_some(()));
    assert_eq!(bed.service.calls("CreateDatasetImportJob"), 0);
    bed.service.clear_faults();
    bed.until("nightly", "ImportSucceeded");
    assert_eq!(accepted(&bed.service.ledger()).len(), 1);
}

#[test]
fn a_spec_that_an_old_crd_let_in_is_told_and_nothing_is_sent_for_it() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // A bed keeps its control plane for good; it ends with the process at the latest.
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start(dir.path()).unwrap()));
    install_crd(plane);
    let mut crd: Value = serde_json::to_value(personalize_operator::api::crd()).unwrap();
    let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let arn = &mut spec["properties"]["datasetArn"];
    *arn = json!({"type": "string", "maxLength": 256});
    let loosened = plane.kubectl(&["replace", "-f", "-"], Some(&crd.to_string())).unwrap();
    assert!(loosened.status.success(), "{}", text(&loosened));
    let bed = Bed::on(plane);
    let bad = Bed::manifest("bad", "d0", json!({"datasetArn": "arn:aws:personalize:::dataset/shop/ITEMS"}));
    eventually("the loose schema is in force", || bed.try_apply(&bad).status.success().then_some(()));
    let operator = bed.operator(&[]);
    let told = bed.until("bad", "InvalidSpec");
    assert_eq!(row(&told), FAILED);
    explained(&told);
    eventually("an event tells of it", || bed.events("bad").contains(&"InvalidSpec".to_owned()).then_some(()));
    bed.import("good", "d0", json!({}));
    bed.until("good", "ImportSucceeded");
    assert_eq!(accepted(&bed.service.ledger()).len(), 1);
    assert!(operator.stop());
    plane.shutdown();
}

#[test]
fn a_dataset_that_is_made_later_is_waited_for() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    bed.import("early", "later", json!({}));
    assert_eq!(row(&bed.until("early", "DatasetNotReady")), IN_PROGRESS);
    bed.service.put_dataset("later", "CREATE PENDING");
    bed.annotate("early", "personalize-operator.io/reconcile-requested-at=1");
    eventually("it says that the dataset is not ACTIVE", || {
        bed.status("early").conditions[0].message.contains("not ACTIVE").then_some(())
    });
    assert_eq!(bed.service.calls("CreateDatasetImportJob"), 0);
    bed.service.put_dataset("later", "ACTIVE");
    bed.until("early", "ImportSucceeded");
}

#[test]
fn an_unreachable_or_refusing_service_never_makes_a_running_import_look_failed() {
    let bed = Bed::new();
    bed.service.durations(100, 600_000);
    let _operator = bed.operator(&[]);
    bed.import("running", "d0", json!({}));
    bed.until("running", "Importing");
    for (code, status) in [
        ("ThrottlingException", 400),
        ("InternalFailure", 500),
        ("ExpiredTokenException", 403),
        ("AccessDeniedException", 400),
    ] {
        bed.service.fault(&json!({"operation": "DescribeDatasetImportJob", "count": 1000,
            "action": {"error": {"code": code, "message": "as ordered", "status": status}}}));
        let hindered = eventually("the message tells", || {
            Some(bed.status("running")).filter(|s| s.conditions[0].message.contains(code))
        });
        assert_eq!(row(&hindered), IN_PROGRESS, "{code}");
        explained(&hindered);
        assert_eq!(hindered.status.as_deref(), Some("CREATE IN_PROGRESS"), "{code}");
        bed.service.clear_faults();
        eventually("it recovers", || (!bed.status("running").conditions[0].message.contains("can't")).then_some(()));
    }
    bed.service.durations(1, 1);
    bed.until("running", "ImportSucceeded");
}

#[test]
fn missing_credentials_and_an_unreachable_service_are_waited_out() {
    let bed = Bed::new();
    // An identity that has no credentials at all, then one that has; a port where nobody listens.
    let operator = bed.operator_with(&[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")], &[]);
    bed.import("nightly", "d0", json!({}));
    let refused = bed.until("nightly", "CredentialsRefused");
    assert_eq!(row(&refused), IN_PROGRESS);
    explained(&refused);
    operator.kill();
    let operator = bed.operator_with(&[("AWS_ENDPOINT_URL_PERSONALIZE", "http://127.0.0.1:1")], &[]);
    let unreachable = bed.until("nightly", "ServiceUnavailable");
    assert_eq!(row(&unreachable), IN_PROGRESS);
    explained(&unreachable);
    operator.kill();
    let _operator = bed.operator(&[]);
    bed.until("nightly", "ImportSucceeded");
    assert_eq!(accepted(&bed.service.ledger()).len(), 1);
}

#[test]
fn the_metadata_of_a_machine_is_not_asked_where_there_is_a_key() {
    let metadata = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    metadata.set_nonblocking(true).unwrap();
    let url = format!("http://{}", metadata.local_addr().unwrap());
    let env = [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str())];
    let bed = Bed::new();
    let _operator = bed.operator_with(&env, &[]);
    bed.import("nightly", "d0", json!({}));
    bed.until("nightly", "ImportSucceeded");
    assert!(metadata.accept().is_err(), "nobody has called");
}
