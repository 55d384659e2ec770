//! Untrusted text stays inside its log line, field and label.

use crate::env::proxy::Fault;
use crate::env::{TestEnv, dataset_arn, eventually};
use serde_json::json;

/// All kinds of line breaks, terminal escapes, a null, quotes, and right-to-left text.
const NASTY: &str = "end\r\n2026-01-01T00:00:00.000000Z  INFO forged: line\u{2028}x\u{85}\u{1b}[2J\u{1b}]0;title\u{7}\0 \"} 1\nforged_total{a=\"\u{202e}b\"} 1\n{\"level\":\"ERROR\",\"message\":\"forged\"}";

/// Runs imports while all parties send [`NASTY`]. Returns the log, the metrics, and all messages to users.
fn run_with_nasty_text(format: &str) -> (String, String, Vec<String>) {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "InternalError", "code": 500, "message": NASTY});
    let mut left = std::collections::HashMap::new();
    // The API server, or a webhook behind it, sends it twice for each kind of call.
    proxy.inject(move |call| {
        let left: &mut usize = left.entry(call.label.clone()).or_insert(2);
        let kubernetes = call.label.contains(' ') && !call.label.starts_with("LIST");
        if kubernetes && *left > 0 {
            *left -= 1;
            return Fault::Respond(500, Vec::new(), status.to_string());
        }
        Fault::None
    });
    let error = json!({"error": {"code": NASTY, "message": NASTY, "status": 400}});
    for (operation, name) in [
        ("CreateDatasetImportJob", "nightly"),
        ("DescribeDatasetImportJob", "nightly"),
        ("DescribeDataset", "/d0"),
        ("ListDatasetImportJobs", "/d0"),
    ] {
        env.service.inject_fault(&json!({"operation": operation, "name": name, "skip": 1, "action": error}));
    }
    env.service
        .put_job(&json!({"name": NASTY, "datasetArn": dataset_arn("d1"), "status": "CREATE PENDING", "hold": true}));
    env.service.put_job(&json!({
        "name": "taken", "datasetArn": dataset_arn("d9"), "status": "ACTIVE", "dataLocation": NASTY, "roleArn": NASTY,
        "tags": [{"tagKey": "personalize-operator.io/name", "tagValue": NASTY}, {"tagKey": "personalize-operator.io/namespace", "tagValue": NASTY}],
    }));
    env.service.set_durations(600_000, 600_000);
    let operator = env.spawn_operator_behind(&proxy, &["--lease-duration=15s", &format!("--log-format={format}")]);
    env.import("nightly", "d0", json!({"tags": [{"tagKey": "a=b", "tagValue": "level:ERROR + @c d"}]}));
    env.import("waits", "d1", json!({}));
    env.wait_for_message("waits", "imports into the same dataset");
    env.import("conflict", "d9", json!({"jobName": "taken"}));
    env.import("failed", "d2", json!({}));
    let job = eventually("the job exists", || env.status("failed").job_name);
    env.service.finish_job_with(&job, &json!({"failed": NASTY}));
    env.wait_for_reason("failed", "ImportFailed");
    env.wait_for_reason("conflict", "JobNameConflict");
    env.service.set_durations(1, 1);
    env.wait_for_reason("nightly", "ImportSucceeded");
    eventually("the lease is still renewed", || (proxy.count("PUT leases") > 3).then_some(()));
    let metrics = operator.metrics();
    let mut messages = Vec::new();
    for name in ["nightly", "waits", "conflict", "failed"] {
        let status = env.status(name);
        messages.extend(status.failure_reason);
        messages.extend(status.conditions.into_iter().map(|c| c.message));
    }
    let events = crate::invariants::events(&env.control_plane.audit_log(), &env.namespace);
    messages.extend(events.iter().filter_map(|e| e["responseObject"]["note"].as_str().map(String::from)));
    (operator.log(), metrics, messages)
}

/// Whether a text is safe on a terminal, and is one line.
fn is_printable(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}'))
}

#[test]
fn untrusted_text_stays_on_its_line_in_text_logs_statuses_events_and_metrics() {
    let (log, metrics, messages) = run_with_nasty_text("text");
    let line_start = regex::Regex::new(r"^20\d\d-\d\d-\d\dT[0-9:.]+Z +(TRACE|DEBUG|INFO|WARN|ERROR) ").unwrap();
    assert!(log.contains("forged: line"), "the log contains the text");
    for line in log.split('\n').filter(|line| !line.is_empty()) {
        assert!(is_printable(line), "{line:?}");
        assert!(
            line_start.is_match(line) && !line.starts_with("2026-01-01T00:00:00.000000Z"),
            "an injected line: {line:?}"
        );
    }
    assert!(messages.len() > 10);
    for text in messages {
        assert!(is_printable(&text), "{text:?}");
    }
    let sample =
        regex::Regex::new(r#"^(# .*|[a-z_]+(\{[a-z_]+="[^"\n]*"(,[a-z_]+="[^"\n]*")*\})? [-+0-9.eInfNa]+)$"#).unwrap();
    for line in metrics.lines() {
        assert!(is_printable(line) && sample.is_match(line) && !line.contains("forged"), "{line:?}");
    }
}

#[test]
fn untrusted_text_stays_in_its_field_in_json_logs() {
    let (log, ..) = run_with_nasty_text("json");
    assert!(log.contains("forged: line"), "the log contains the text");
    for line in log.split('\n').filter(|line| !line.is_empty()) {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        assert_ne!(entry["message"], "forged");
        for (field, value) in entry.as_object().unwrap() {
            assert!(value.as_str().is_none_or(is_printable), "{field} of {line:?}");
        }
    }
}
