//! Edits of resources and of their statuses.

use super::{CREATE, DESCRIBE, assert_imported_once, import_nightly, reconcile_count, records_intent};
use crate::env::proxy::Fault;
use crate::env::{TestEnv, eventually, text};
use personalize_operator::api::DatasetImportJobStatus;
use serde_json::{Value, json};

#[test]
fn fault_65_irrelevant_edits_cause_no_call_and_no_write() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    import_nightly(&env);
    assert_imported_once(&env);
    let (calls, writes) = (env.service.ledger().len(), env.operator_write_count("nightly"));
    for i in 0..5 {
        env.annotate("nightly", &format!("example.org/x={i}"));
        let labelled = env.kubectl(&["label", "--overwrite", "dij", "nightly", &format!("x={i}")]);
        assert!(labelled.status.success(), "{}", text(&labelled));
        import_nightly(&env);
    }
    env.import("after", "d2", json!({"suspend": true}));
    env.wait_for_reason("after", "Suspended");
    assert_eq!((env.service.ledger().len(), env.operator_write_count("nightly")), (calls, writes));
    env.check_invariants();
}

#[test]
fn fault_66_cleared_or_forged_status_is_corrected() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    import_nightly(&env);
    let correct = env.wait_for_reason("nightly", "ImportSucceeded");
    let foreign = "arn:aws:personalize:eu-west-1:123456789012:dataset-import-job/foreign";
    for forged in [
        json!({"status": {"status": "CREATE FAILED", "failureReason": "forged"}}),
        json!({"status": null}),
        json!({"status": {"datasetImportJobArn": foreign, "attempts": 9}}),
        json!({"status": {"submission": null, "datasetImportJobArn": null, "status": null, "completionTime": null}}),
    ] {
        env.patch_status("nightly", &forged);
        let is_correct = |s: &DatasetImportJobStatus| {
            s.status == correct.status
                && s.failure_reason.is_none()
                && s.dataset_import_job_arn == correct.dataset_import_job_arn
                && s.attempts == Some(1)
        };
        eventually("the status is correct again", || Some(env.status("nightly")).filter(is_correct));
    }
    assert_imported_once(&env);
}

#[test]
fn fault_74_import_that_is_always_rejected_backs_off_to_the_maximum() {
    let env = TestEnv::new();
    let rejection = json!({"error": {"code": "InvalidInputException", "message": "never", "status": 400}});
    env.service.inject_fault(&json!({"operation": CREATE, "name": "poison", "count": 0, "action": rejection}));
    let _operator = env.start_operator(&["--rejected-min=400ms", "--rejected-max=1600ms", "--grace=60s"]);
    // The operator has read the namespaces by the end of this import. What it reads first may end a backoff.
    env.import("nightly", "d1", json!({}));
    env.wait_for_reason("nightly", "ImportSucceeded");
    env.import("poison", "d0", json!({}));
    let rejections = || {
        let ledger = env.service.ledger();
        let of = |l: &&Value| l["operation"] == CREATE && l["errorCode"] == "InvalidInputException";
        ledger.iter().filter(of).map(|l| l["time"].as_str().unwrap().parse().unwrap()).collect::<Vec<jiff::Timestamp>>()
    };
    eventually("the maximum delay is reached", || (rejections().len() >= 6).then_some(()));
    let gaps: Vec<f64> = rejections().windows(2).map(|w| w[1].duration_since(w[0]).as_secs_f64()).collect();
    // Jitter shortens each delay by at most half. A slow machine only makes it longer.
    for (gap, least) in gaps.iter().zip([0.2, 0.4, 0.8, 0.8, 0.8]) {
        assert!(*gap >= least, "the delays grow to the maximum: {gaps:?}");
    }
    assert_eq!(env.status("poison").conditions[0].reason, "InvalidInput");
    env.check_invariants_settled();
}

#[test]
fn fault_74_irrelevant_edits_do_not_shorten_the_backoff() {
    let env = TestEnv::new();
    let rejection = json!({"error": {"code": "InvalidInputException", "message": "never", "status": 400}});
    env.service.inject_fault(&json!({"operation": CREATE, "name": "nightly", "count": 1, "action": rejection}));
    let _operator = env.start_operator(&["--rejected-min=10m", "--rejected-max=10m", "--grace=60s"]);
    // The operator has read the namespaces by then. What it reads first may end a backoff.
    env.import("before", "d1", json!({"suspend": true}));
    env.wait_for_reason("before", "Suspended");
    import_nightly(&env);
    env.wait_for_reason("nightly", "InvalidInput");
    let calls = env.service.ledger().len();
    for i in 0..5 {
        env.annotate("nightly", &format!("example.org/x={i}"));
        env.import(&format!("after-{i}"), "d1", json!({"suspend": true}));
        env.wait_for_reason(&format!("after-{i}"), "Suspended");
    }
    assert_eq!(env.service.ledger().len(), calls, "no call before the backoff ends");
    env.annotate("nightly", "personalize-operator.io/reconcile-requested-at=now");
    assert_imported_once(&env);
}

#[test]
fn fault_75_own_status_writes_cause_no_call_and_no_write() {
    let env = TestEnv::new();
    env.service.set_durations(600_000, 600_000);
    let operator = env.start_operator(&["--poll-min=10m", "--poll-max=10m"]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Pending");
    // Each status write returns through the watch and causes a reconcile that does nothing.
    env.import("after", "d1", json!({"suspend": true}));
    env.wait_for_reason("after", "Suspended");
    let (calls, writes, before) =
        (env.service.ledger().len(), env.operator_write_count("nightly"), reconcile_count(&operator));
    assert!(before < 30, "{before} reconciles for two resources");
    env.import("last", "d2", json!({"suspend": true}));
    env.wait_for_reason("last", "Suspended");
    assert!(reconcile_count(&operator) < before + 10);
    assert_eq!((env.service.ledger().len(), env.operator_write_count("nightly")), (calls, writes));
    env.check_invariants();
}

#[test]
fn status_forged_after_a_crash_is_corrected() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    proxy.inject_once(Fault::KillAfter, records_intent);
    let operator = env.spawn_operator_behind(&proxy, &[]);
    import_nightly(&env);
    operator.wait_for_exit();
    // While no operator leads, another client writes that the import has succeeded.
    let forged = json!({"status": {"status": "ACTIVE", "attempts": 1, "completionTime": "2026-01-01T00:00:00Z",
        "datasetImportJobArn": "arn:aws:personalize:eu-west-1:123456789012:dataset-import-job/never"}});
    env.patch_status("nightly", &forged);
    proxy.clear();
    let _operator = env.spawn_operator_behind(&proxy, &[]);
    assert_imported_once(&env);
}

#[test]
fn fault_107_status_forged_under_the_operators_field_manager_is_verified() {
    let env = TestEnv::new();
    env.service.set_durations(0, 600_000);
    let _operator = env.start_operator(&[]);
    import_nightly(&env);
    let forge = |status: &str| {
        let patch = json!({"status": {"status": status, "completionTime": "2026-01-01T00:00:00Z"}}).to_string();
        let forged = env.kubectl(&[
            "patch",
            "dij",
            "nightly",
            "--subresource=status",
            "--field-manager=personalize-operator",
            "--type=merge",
            "-p",
            &patch,
        ]);
        assert!(forged.status.success(), "{}", text(&forged));
    };
    for claim in ["ACTIVE", "CREATE FAILED"] {
        env.wait_for_reason("nightly", "Importing");
        forge(claim);
        eventually("the status says again what the service says", || {
            (env.status("nightly").status.as_deref() == Some("CREATE IN_PROGRESS")).then_some(())
        });
    }
    env.service.set_durations(0, 0);
    assert_imported_once(&env);
}

#[test]
fn fault_86_rejected_and_waiting_imports_show_their_reason_in_the_default_columns() {
    let env = TestEnv::new();
    let rejection = json!({"error": {"code": "InvalidInputException", "message": "Invalid S3 path.", "status": 400}});
    env.service.inject_fault(&json!({"operation": CREATE, "name": "rejected", "count": 0, "action": rejection}));
    let _operator = env.start_operator(&[]);
    env.import("rejected", "d0", json!({}));
    env.import("suspended", "d1", json!({"suspend": true}));
    let status = env.wait_for_reason("rejected", "InvalidInput");
    env.wait_for_reason("suspended", "Suspended");
    let table = text(&env.kubectl(&["get", "dij"]));
    let shows = |name: &str, reason: &str| table.lines().any(|line| line.starts_with(name) && line.contains(reason));
    assert!(shows("NAME", "REASON") && shows("rejected", "InvalidInput") && shows("suspended", "Suspended"), "{table}");
    assert_eq!((status.status, status.failure_reason, status.completion_time), (None, None, None));
    assert!(status.conditions.iter().any(|c| c.type_ == "Stalled" && c.message.contains("Invalid S3 path.")));
    for field in ["failureReason", "completionTime"] {
        let explained = text(&env.kubectl(&["explain", &format!("dij.status.{field}")]));
        assert!(explained.contains("CreateDatasetImportJob"), "{explained}");
    }
    env.delete("rejected");
    env.check_invariants();
}

#[test]
fn fault_94_default_that_is_written_later_is_no_change() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    env.import("nightly", "d0", json!({}));
    let before = env.wait_for_reason("nightly", "ImportSucceeded");
    let publish = |value: bool| TestEnv::manifest("nightly", "d0", json!({"publishAttributionMetricsToS3": value}));
    env.apply(&publish(false));
    let rejected = env.try_apply(&publish(true));
    assert!(text(&rejected).contains("publishAttributionMetricsToS3 is immutable"), "{}", text(&rejected));
    env.apply(&TestEnv::manifest("nightly", "d0", json!({})));
    let generation = env.get("nightly").unwrap().metadata.generation;
    let after = eventually("the operator has seen the last edit", || {
        Some(env.status("nightly")).filter(|status| status.observed_generation == generation)
    });
    assert_eq!((after.job_name, after.status), (before.job_name, before.status));
    assert_imported_once(&env);
}

#[test]
fn fault_127_forged_phase_is_corrected_and_a_missing_one_causes_no_write() {
    let env = TestEnv::new();
    env.service.set_durations(0, 600_000);
    let operator = env.start_operator(&[]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    let forge = |summary: &Value| {
        let patch = json!({"status": summary}).to_string();
        let manager = "--field-manager=personalize-operator";
        let args = ["patch", "dij", "nightly", "--subresource=status", manager, "--type=merge", "-p", &patch];
        let forged = env.kubectl(&args);
        assert!(forged.status.success(), "{}", text(&forged));
    };
    let wait_for_phase = |phase: &str| {
        eventually(&format!("the phase is {phase}"), || {
            (env.status("nightly").phase.as_deref() == Some(phase)).then_some(())
        });
    };
    wait_for_phase("Running");
    forge(&json!({"phase": "Succeeded", "reason": "ImportSucceeded"}));
    wait_for_phase("Running");
    env.service.set_durations(0, 0);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert!(operator.stop());
    forge(&json!({"phase": "Failed"}));
    let operator = env.start_operator(&[]);
    wait_for_phase("Succeeded");
    assert!(operator.stop());
    // As an older version wrote it.
    forge(&json!({"phase": null, "reason": null, "message": null}));
    let (writes, calls) = (env.operator_write_count("nightly"), env.service.call_count(DESCRIBE));
    assert!(env.start_operator(&[]).stop());
    assert_eq!((env.operator_write_count("nightly"), env.service.call_count(DESCRIBE)), (writes, calls));
    assert_imported_once(&env);
}
