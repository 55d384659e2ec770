//! What is big, without end or wrong takes a bounded amount of memory, and life goes on.

use crate::env::proxy::Fate;
use crate::env::{Bed, Operator, eventually, text};
use serde_json::{Value, json};
use std::fs;

const MEGABYTE: usize = 1 << 20;

/// The most memory that the process has had so far, in bytes.
fn most_memory(operator: &Operator) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", operator.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Creates it as it is: `kubectl apply` would write it twice, the second time into an annotation.
fn create(bed: &Bed, manifest: &Value) {
    let args = ["-n", &bed.namespace, "create", "-f", "-"];
    let created = bed.plane.kubectl(&args, Some(&manifest.to_string())).unwrap();
    assert!(created.status.success(), "{}", text(&created));
}

#[test]
fn answers_of_10_mb_are_survived_in_bounded_memory() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    let big = "x".repeat(10 * MEGABYTE);
    let error = json!({"__type": "InvalidInputException", "message": big}).to_string();
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "InternalError", "code": 500, "message": big});
    let (status, unreadable) = (status.to_string(), format!("{{\"datasetImportJobs\":[{big}"));
    let mut left = std::collections::HashMap::new();
    // Each kind of call is answered so: a long error, then a long text that can't be read.
    proxy.rule(move |call| {
        let left: &mut usize = left.entry(call.label.clone()).or_insert(4);
        *left = left.saturating_sub(1);
        match (*left, call.label.contains(' ')) {
            (3, true) => Fate::Answer(500, Vec::new(), status.clone()),
            (3, false) => Fate::Answer(400, Vec::new(), error.clone()),
            (2, _) => Fate::Answer(200, Vec::new(), unreadable.clone()),
            _ => Fate::Pass,
        }
    });
    let operator = bed.operator_behind(&proxy, &[]);
    for i in 0..4 {
        bed.import(&format!("import-{i}"), &format!("d{i}"), json!({}));
    }
    for i in 0..4 {
        bed.until(&format!("import-{i}"), "ImportSucceeded");
    }
    let most = most_memory(&operator);
    println!("{} MB", most / MEGABYTE);
    assert!(most < 300 * MEGABYTE, "{} MB", most / MEGABYTE);
    assert!(operator.log().len() < 2 * MEGABYTE, "a long text is not logged in full");
    bed.judged_settled();
}

#[test]
fn resources_as_big_as_the_api_server_takes_are_worked_on_in_bounded_memory() {
    let bed = Bed::new();
    // The API server takes its time for such.
    let operator = bed.operator(&["--kube-timeout=30s", "--lease-duration=60s"]);
    bed.import("first", "d0", json!({}));
    bed.until("first", "ImportSucceeded");
    let before = most_memory(&operator);
    // 256 KiB are the most that all annotations of an object may take.
    let annotations = json!({"example.org/big": "x".repeat(250 * 1024)});
    const COUNT: usize = 3;
    for i in 0..COUNT {
        let mut manifest = Bed::manifest(&format!("big-{i}"), &format!("d{i}"), json!({}));
        manifest["metadata"]["annotations"] = annotations.clone();
        create(&bed, &manifest);
    }
    // Labels, finalizers and managed fields of others make one object of a megabyte.
    let domain = format!("{0}.{0}.{0}.example.org", "x".repeat(60));
    let finalizers: Vec<Value> = (0..2_000).map(|i| json!(format!("{domain}/of-somebody-{i:020}"))).collect();
    let mut manifest = Bed::manifest("giant", "d29", json!({}));
    manifest["metadata"]["annotations"] = annotations;
    manifest["metadata"]["finalizers"] = json!(finalizers);
    create(&bed, &manifest);
    let stored = serde_json::to_string(&bed.get("giant").unwrap()).unwrap().len();
    println!("{} kB", stored / 1024);
    assert!(stored >= MEGABYTE, "{stored} bytes");
    for i in 0..COUNT {
        bed.until(&format!("big-{i}"), "ImportSucceeded");
    }
    bed.until("giant", "ImportSucceeded");
    let most = most_memory(&operator);
    println!("{} MB before, {} MB after", before / MEGABYTE, most / MEGABYTE);
    assert!(most - before < 150 * MEGABYTE, "{} MB before, {} MB after", before / MEGABYTE, most / MEGABYTE);
    bed.patch("giant", &json!({"metadata": {"finalizers": null}}));
    bed.judged_settled();
}

#[test]
fn a_listing_without_end_takes_bounded_memory_and_holds_up_nobody_else() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    let page: Vec<Value> = (0..100)
        .map(|i| json!({"jobName": format!("job-{i}"), "status": "ACTIVE", "failureReason": "y".repeat(100)}))
        .collect();
    let mut token = 0;
    proxy.rule(move |call| {
        if call.label == "ListDatasetImportJobs" && call.body.contains("/d0\"") {
            token += 1;
            let body = json!({"datasetImportJobs": page, "nextToken": format!("token-{token}")});
            return Fate::Answer(200, Vec::new(), body.to_string());
        }
        Fate::Pass
    });
    let operator = bed.operator_behind(&proxy, &[]);
    bed.import("endless", "d0", json!({}));
    bed.until("endless", "ServiceUnavailable");
    bed.import("nightly", "d1", json!({}));
    bed.until("nightly", "ImportSucceeded");
    let most = most_memory(&operator);
    println!("{} MB", most / MEGABYTE);
    assert!(most < 200 * MEGABYTE, "{} MB", most / MEGABYTE);
    proxy.pass();
    bed.until("endless", "ImportSucceeded");
    eventually("all is told", || bed.faults_settled().is_empty().then_some(()));
}
