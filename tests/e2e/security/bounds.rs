//! Huge, endless or invalid input uses a bounded amount of memory, and the operator keeps working.

use crate::env::proxy::Fault;
use crate::env::{OperatorProcess, TestEnv, eventually, text};
use serde_json::{Value, json};

const MEGABYTE: usize = 1 << 20;

/// Prints the operator's peak memory, and fails if it is over the limit.
fn assert_peak_memory_below(operator: &OperatorProcess, limit_mb: u64) {
    let peak_mb = operator.peak_memory_kb() / 1024;
    println!("{peak_mb} MB");
    assert!(peak_mb < limit_mb, "{peak_mb} MB");
}

/// Creates a resource without the second copy that `kubectl apply` keeps in an annotation.
fn create(env: &TestEnv, manifest: &Value) {
    let args = ["-n", &env.namespace, "create", "-f", "-"];
    let created = env.control_plane.kubectl(&args, Some(&manifest.to_string())).unwrap();
    assert!(created.status.success(), "{}", text(&created));
}

#[test]
fn responses_of_10_mb_use_bounded_memory() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    let big = "x".repeat(10 * MEGABYTE);
    let error = json!({"__type": "InvalidInputException", "message": big}).to_string();
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "InternalError", "code": 500, "message": big});
    let (status, malformed) = (status.to_string(), format!("{{\"datasetImportJobs\":[{big}"));
    let mut left = std::collections::HashMap::new();
    // Each kind of call is answered by a long error, then by a long text that is not valid JSON.
    proxy.inject(move |call| {
        let left: &mut usize = left.entry(call.label.clone()).or_insert(4);
        *left = left.saturating_sub(1);
        match (*left, call.label.contains(' ')) {
            (3, true) => Fault::Respond(500, Vec::new(), status.clone()),
            (3, false) => Fault::Respond(400, Vec::new(), error.clone()),
            (2, _) => Fault::Respond(200, Vec::new(), malformed.clone()),
            _ => Fault::None,
        }
    });
    let operator = env.spawn_operator_behind(&proxy, &[]);
    for i in 0..4 {
        env.import(&format!("import-{i}"), &format!("d{i}"), json!({}));
    }
    for i in 0..4 {
        env.wait_for_reason(&format!("import-{i}"), "ImportSucceeded");
    }
    assert_peak_memory_below(&operator, 300);
    assert!(operator.log().len() < 2 * MEGABYTE, "long texts are truncated in the log");
    env.check_invariants_settled();
}

#[test]
fn resources_of_the_maximum_size_use_bounded_memory() {
    let env = TestEnv::new();
    let operator = env.start_operator(&[]);
    env.import("first", "d0", json!({}));
    env.wait_for_reason("first", "ImportSucceeded");
    let before_mb = operator.peak_memory_kb() / 1024;
    // The limit for all annotations of an object is 256 KiB.
    let annotations = json!({"example.org/big": "x".repeat(250 * 1024)});
    const COUNT: usize = 3;
    for i in 0..COUNT {
        let mut manifest = TestEnv::manifest(&format!("big-{i}"), &format!("d{i}"), json!({}));
        manifest["metadata"]["annotations"] = annotations.clone();
        create(&env, &manifest);
    }
    // Annotations and finalizers make one object of more than a megabyte.
    let domain = format!("{0}.{0}.{0}.example.org", "x".repeat(60));
    let finalizers: Vec<Value> = (0..2_000).map(|i| json!(format!("{domain}/foreign-{i:020}"))).collect();
    let mut manifest = TestEnv::manifest("giant", "d29", json!({}));
    manifest["metadata"]["annotations"] = annotations;
    manifest["metadata"]["finalizers"] = json!(finalizers);
    create(&env, &manifest);
    let stored = serde_json::to_string(&env.get("giant").unwrap()).unwrap().len();
    println!("{} kB", stored / 1024);
    assert!(stored >= MEGABYTE, "{stored} bytes");
    for i in 0..COUNT {
        env.wait_for_reason(&format!("big-{i}"), "ImportSucceeded");
    }
    env.wait_for_reason("giant", "ImportSucceeded");
    assert_peak_memory_below(&operator, before_mb + 150);
    env.patch("giant", &json!({"metadata": {"finalizers": null}}));
    env.check_invariants_settled();
}

#[test]
fn endless_list_uses_bounded_memory_and_delays_no_other_import() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    let page: Vec<Value> = (0..100)
        .map(|i| json!({"jobName": format!("job-{i}"), "status": "ACTIVE", "failureReason": "y".repeat(100)}))
        .collect();
    let mut token = 0;
    proxy.inject(move |call| {
        if call.label == "ListDatasetImportJobs" && call.body.contains("/d0\"") {
            token += 1;
            let body = json!({"datasetImportJobs": page, "nextToken": format!("token-{token}")});
            return Fault::Respond(200, Vec::new(), body.to_string());
        }
        Fault::None
    });
    let operator = env.spawn_operator_behind(&proxy, &[]);
    env.import("endless", "d0", json!({}));
    env.wait_for_reason("endless", "ServiceUnavailable");
    env.import("nightly", "d1", json!({}));
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_peak_memory_below(&operator, 200);
    proxy.clear();
    env.wait_for_reason("endless", "ImportSucceeded");
    eventually("all invariants hold", || env.settled_violations().is_empty().then_some(()));
}
