//! What others say stays inside the line, the field and the label in which it is told.

use crate::env::proxy::Fate;
use crate::env::{Bed, dataset_arn, eventually};
use serde_json::json;

/// Line breaks of each kind, terminal escapes, a null, quotes, and text that runs backwards.
const NASTY: &str = "end\r\n2026-01-01T00:00:00.000000Z  INFO forged: line\u{2028}x\u{85}\u{1b}[2J\u{1b}]0;title\u{7}\0 \"} 1\nforged_total{a=\"\u{202e}b\"} 1\n{\"level\":\"ERROR\",\"message\":\"forged\"}";

fn nasty_life(format: &str) -> (String, String, Vec<String>) {
    let bed = Bed::new();
    let proxy = bed.proxy();
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "InternalError", "code": 500, "message": NASTY});
    let mut left = std::collections::HashMap::new();
    // The API server, and a webhook through it, answer each kind of call with it once or twice.
    proxy.rule(move |call| {
        let left: &mut usize = left.entry(call.label.clone()).or_insert(2);
        let kubernetes = call.label.contains(' ') && !call.label.starts_with("LIST");
        if kubernetes && *left > 0 {
            *left -= 1;
            return Fate::Answer(500, Vec::new(), status.to_string());
        }
        Fate::Pass
    });
    let error = json!({"error": {"code": NASTY, "message": NASTY, "status": 400}});
    for (operation, name) in [
        ("CreateDatasetImportJob", "nightly"),
        ("DescribeDatasetImportJob", "nightly"),
        ("DescribeDataset", "/d0"),
        ("ListDatasetImportJobs", "/d0"),
    ] {
        bed.service.fault(&json!({"operation": operation, "name": name, "skip": 1, "action": error}));
    }
    bed.service
        .put_job(&json!({"name": NASTY, "datasetArn": dataset_arn("d1"), "status": "CREATE PENDING", "hold": true}));
    bed.service.put_job(&json!({
        "name": "taken", "datasetArn": dataset_arn("d9"), "status": "ACTIVE", "dataLocation": NASTY, "roleArn": NASTY,
        "tags": [{"tagKey": "personalize-operator.io/name", "tagValue": NASTY}, {"tagKey": "personalize-operator.io/namespace", "tagValue": NASTY}],
    }));
    bed.service.durations(600_000, 600_000);
    let operator = bed.operator_behind(&proxy, &[&format!("--log-format={format}")]);
    bed.import("nightly", "d0", json!({"tags": [{"tagKey": "a=b", "tagValue": "level:ERROR + @c d"}]}));
    bed.import("waits", "d1", json!({}));
    bed.until_told("waits", "imports into the same dataset");
    bed.import("conflict", "d9", json!({"jobName": "taken"}));
    bed.import("failed", "d2", json!({}));
    let job = eventually("the job exists", || bed.status("failed").job_name);
    bed.service.finish_as(&job, &json!({"failed": NASTY}));
    bed.until("failed", "ImportFailed");
    bed.until("conflict", "JobNameConflict");
    bed.service.durations(1, 1);
    bed.until("nightly", "ImportSucceeded");
    eventually("the lease was renewed in spite of it", || (proxy.count("PUT leases") > 3).then_some(()));
    let metrics = operator.get("/metrics").unwrap().1;
    let mut told = Vec::new();
    for name in ["nightly", "waits", "conflict", "failed"] {
        let status = bed.status(name);
        told.extend(status.failure_reason);
        told.extend(status.conditions.into_iter().map(|c| c.message));
    }
    let events = crate::invariants::events(&bed.plane.audit_log(), &bed.namespace);
    told.extend(events.iter().filter_map(|e| e["responseObject"]["note"].as_str().map(String::from)));
    (operator.log(), metrics, told)
}

/// Fit for a terminal, and for one line.
fn printable(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}'))
}

#[test]
fn nothing_that_is_told_in_text_or_status_breaks_out_of_its_line() {
    let (log, metrics, told) = nasty_life("text");
    let begins = regex::Regex::new(r"^20\d\d-\d\d-\d\dT[0-9:.]+Z +(TRACE|DEBUG|INFO|WARN|ERROR) ").unwrap();
    assert!(log.contains("forged: line"), "what was said is told");
    for line in log.split('\n').filter(|line| !line.is_empty()) {
        assert!(printable(line), "{line:?}");
        assert!(
            begins.is_match(line) && !line.starts_with("2026-01-01T00:00:00.000000Z"),
            "a line of its own: {line:?}"
        );
    }
    assert!(told.len() > 10);
    for text in told {
        assert!(printable(&text), "{text:?}");
    }
    let sample =
        regex::Regex::new(r#"^(# .*|[a-z_]+(\{[a-z_]+="[^"\n]*"(,[a-z_]+="[^"\n]*")*\})? [-+0-9.eInfNa]+)$"#).unwrap();
    for line in metrics.lines() {
        assert!(printable(line) && sample.is_match(line) && !line.contains("forged"), "{line:?}");
    }
}

#[test]
fn nothing_that_is_told_in_json_breaks_out_of_its_field() {
    let (log, ..) = nasty_life("json");
    assert!(log.contains("forged: line"), "what was said is told");
    for line in log.split('\n').filter(|line| !line.is_empty()) {
        let told: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        assert_ne!(told["message"], "forged");
        for (field, value) in told.as_object().unwrap() {
            assert!(value.as_str().is_none_or(printable), "{field} of {line:?}");
        }
    }
}
