//! Faults and edits during the lifecycle of a resource.

use super::{CREATE, DESCRIBE, assert_imported_once, import_nightly, reconcile_count, records_intent};
use crate::env::proxy::Fault;
use crate::env::{TestEnv, dataset_arn, eventually, text};
use personalize_operator::api::DatasetImportJobStatus;
use personalize_operator::import::ImportRequest;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::sync::watch;

#[test]
fn fault_61_resource_deleted_before_the_intent_is_not_submitted() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let _operator = env.start_operator(&[]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    env.import("waiting", "d0", json!({}));
    env.wait_for_reason("waiting", "Queued");
    env.delete("waiting");
    env.service.set_durations(1, 1);
    assert_imported_once(&env);
    env.import("last", "d0", json!({}));
    env.wait_for_reason("last", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 2, "the deleted import is not created");
    env.check_invariants_settled();
}

#[test]
fn fault_62_resource_deleted_during_create_is_adopted_when_applied_again() {
    let env = TestEnv::new();
    env.service.inject_fault(&json!({"operation": CREATE, "count": 1, "action": {"delay": {"ms": 1500}}}));
    let operator = env.start_operator(&[]);
    import_nightly(&env);
    eventually("the create is in flight", || (env.service.call_count(CREATE) == 1).then_some(()));
    env.delete("nightly");
    eventually("the service accepts the job", || (env.accepted_count() == 1).then_some(()));
    // The same manifest adopts it.
    import_nightly(&env);
    assert_imported_once(&env);
    assert!(operator.stop());
}

#[test]
fn fault_63_resource_being_deleted_is_not_submitted() {
    let env = TestEnv::new();
    let mut manifest = TestEnv::manifest("nightly", "d0", json!({"suspend": true}));
    manifest["metadata"]["finalizers"] = json!(["example.org/foreign"]);
    env.apply(&manifest);
    let _operator = env.start_operator(&[]);
    env.wait_for_reason("nightly", "Suspended");
    let deleted = env.kubectl(&["delete", "dij", "nightly", "--wait=false"]);
    assert!(deleted.status.success(), "{}", text(&deleted));
    env.patch("nightly", &json!({"spec": {"suspend": false}}));
    env.annotate("nightly", "personalize-operator.io/reconcile-requested-at=now");
    env.import("after", "d1", json!({}));
    env.wait_for_reason("after", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 1, "a resource that is being deleted is not submitted");
    let finalizers = env.get("nightly").unwrap().metadata.finalizers;
    assert_eq!(finalizers, Some(vec!["example.org/foreign".to_owned()]), "a foreign finalizer stays");
    env.patch("nightly", &json!({"metadata": {"finalizers": null}}));
    env.check_invariants_settled();
}

#[test]
fn fault_64_recreated_resource_adopts_its_job() {
    let env = TestEnv::new();
    env.service.set_durations(100, 3000);
    let _operator = env.start_operator(&[]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    let first = env.uid("nightly");
    for _ in 0..3 {
        env.delete("nightly");
        import_nightly(&env);
    }
    assert_ne!(env.uid("nightly"), first);
    assert_imported_once(&env);
    env.delete("nightly");
    import_nightly(&env);
    assert_imported_once(&env);
}

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

/// Deletes the namespace of the test. The lease goes with it, so these operators run without leader election.
fn delete_namespace(env: &TestEnv) {
    let deleted = env.kubectl(&["delete", "namespace", &env.namespace, "--wait=false"]);
    assert!(deleted.status.success(), "{}", text(&deleted));
}

fn wait_until_namespace_is_gone(env: &TestEnv) {
    eventually("the namespace is gone", || {
        (!env.kubectl(&["get", "namespace", &env.namespace]).status.success()).then_some(())
    });
}

#[test]
fn fault_67_resource_in_a_terminating_namespace_is_not_submitted() {
    let env = TestEnv::new();
    // Only a foreign job keeps the import waiting.
    env.service.put_job(
        &json!({"name": "foreign", "datasetArn": dataset_arn("d0"), "status": "CREATE IN_PROGRESS", "hold": true}),
    );
    let mut manifest = TestEnv::manifest("nightly", "d0", json!({}));
    manifest["metadata"]["finalizers"] = json!(["example.org/foreign"]);
    env.apply(&manifest);
    let operator = env.start_operator(&["--leader-elect=false"]);
    env.wait_for_reason("nightly", "Queued");
    delete_namespace(&env);
    eventually("the resource is being deleted", || env.get("nightly")?.metadata.deletion_timestamp.map(drop));
    env.service.finish_job("foreign");
    for i in 0..3 {
        let before = reconcile_count(&operator);
        env.annotate("nightly", &format!("personalize-operator.io/reconcile-requested-at={i}"));
        eventually("the resource is reconciled", || (reconcile_count(&operator) > before).then_some(()));
    }
    assert_eq!(env.service.call_count(CREATE), 0, "nothing else prevents the create");
    env.patch("nightly", &json!({"metadata": {"finalizers": null}}));
    wait_until_namespace_is_gone(&env);
    assert_eq!(env.service.call_count(CREATE), 0);
    assert_eq!(operator.get("/healthz").map(|(s, _)| s), Some(200));
    env.check_invariants();
}

#[test]
fn fault_67_namespace_deleted_during_create_does_not_create_again() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    let (release, held) = watch::channel(false);
    proxy.inject(move |call| if call.label == CREATE { Fault::HoldUntil(held.clone()) } else { Fault::None });
    let flags = ["--leader-elect=false", "--aws-timeout=60s", "--aws-read-timeout=60s"];
    let operator = env.spawn_operator_behind(&proxy, &flags);
    import_nightly(&env);
    eventually("the create is in flight", || (proxy.count(CREATE) == 1).then_some(()));
    delete_namespace(&env);
    wait_until_namespace_is_gone(&env);
    release.send(true).unwrap();
    eventually("the service accepts the job", || (env.accepted_count() == 1).then_some(()));
    // There is no status left to report the job in, and the create is not repeated.
    eventually("the reconcile ends", || (reconcile_count(&operator) > 0).then_some(()));
    assert_eq!((proxy.count(CREATE), env.accepted_count()), (1, 1));
    assert_eq!(operator.get("/healthz").map(|(s, _)| s), Some(200));
    env.check_invariants();
}

#[test]
fn fault_68_resource_restored_without_status_adopts_its_job() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let _operator = env.start_operator(&[]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "Importing");
    let mut backup = serde_json::to_value(env.get("nightly").unwrap()).unwrap();
    backup["status"] = Value::Null;
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
        backup["metadata"][field] = Value::Null;
    }
    let uid = env.uid("nightly");
    env.delete("nightly");
    env.apply(&backup);
    assert_ne!(env.uid("nightly"), uid);
    env.wait_for_reason("nightly", "Importing");
    env.service.set_durations(1, 1);
    assert_imported_once(&env);
}

#[test]
fn fault_69_imports_into_one_dataset_run_one_after_the_other() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    for i in 0..4 {
        env.import(&format!("r{i}"), "d0", json!({}));
    }
    for i in 0..4 {
        env.wait_for_reason(&format!("r{i}"), "ImportSucceeded");
    }
    assert_eq!(env.accepted_count(), 4);
    env.check_invariants_settled();
}

/// Applies resources for one dataset until the API server has created all of them in the same second.
fn import_in_one_second(env: &TestEnv, names: &[&str]) {
    let manifests: Vec<Value> = names.iter().map(|name| TestEnv::manifest(name, "d0", json!({}))).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": manifests});
    eventually("all are created in the same second", || {
        env.apply(&list);
        let created = |name: &&str| env.get(name).unwrap().metadata.creation_timestamp.unwrap();
        let seconds: BTreeSet<_> = names.iter().map(created).collect();
        if seconds.len() == 1 {
            return Some(());
        }
        names.iter().for_each(|name| env.delete(name));
        None
    });
}

#[test]
fn fault_79_imports_of_the_same_second_run_in_the_order_of_the_numbers_in_their_names() {
    let env = TestEnv::new();
    import_in_one_second(&env, &["week-10", "week-2", "week-1"]);
    let _operator = env.start_operator(&[]);
    env.wait_for_reason("week-10", "ImportSucceeded");
    let jobs = env.service.jobs();
    let names: Vec<&str> = jobs.iter().map(|job| job["name"].as_str().unwrap()).collect();
    let in_order = names.iter().zip(["week-1-", "week-2-", "week-10-"]).all(|(name, prefix)| name.starts_with(prefix));
    assert!(names.len() == 3 && in_order, "{names:?}");
    env.check_invariants_settled();
}

#[test]
fn fault_70_two_resources_with_one_job_name_create_one_job() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    env.import("a", "d0", json!({"jobName": "shared"}));
    env.import("b", "d1", json!({"jobName": "shared"}));
    // The datasets differ, so both are submitted at the same time, and either may be first.
    let conflicting = |name: &str| {
        let status = env.status(name);
        status.conditions.iter().any(|c| c.reason == "JobNameConflict").then_some(status)
    };
    let (created, conflict) = eventually("one of them conflicts", || {
        conflicting("b").map(|status| ("a", status)).or_else(|| conflicting("a").map(|status| ("b", status)))
    });
    env.wait_for_reason(created, "ImportSucceeded");
    assert!(conflict.conditions[0].message.contains("shared"), "{}", conflict.conditions[0].message);
    assert_eq!(env.accepted_count(), 1);
    env.check_invariants_settled();
}

#[test]
fn fault_71_every_invalid_field_is_rejected_at_admission() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    let location = |location: &str| json!({"dataSource": {"dataLocation": location}});
    let tags = |tags: &[(&str, &str)]| {
        let tags: Vec<Value> = tags.iter().map(|(k, v)| json!({"tagKey": k, "tagValue": v})).collect();
        json!({"tags": tags})
    };
    let many: Vec<String> = (0..48).map(|i| format!("k{i}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|k| (k.as_str(), "v")).collect();
    for (edit, field) in [
        (json!({"jobName": "x".repeat(64)}), "spec.jobName"),
        (json!({"jobName": "line\r\nbreak"}), "spec.jobName"),
        (json!({"jobName": "-first"}), "spec.jobName"),
        (json!({"jobName": ""}), "spec.jobName"),
        (json!({"datasetArn": "arn:aws:s3:::bucket"}), "spec.datasetArn"),
        (json!({"datasetArn": "arn:aws:personalize:::dataset/shop/d0"}), "spec.datasetArn"),
        (json!({"datasetArn": "arn:aws:personalize:eu-west-1:1234:dataset/shop/d0"}), "spec.datasetArn"),
        (json!({"datasetArn": "arn:aws:personalize:eu-west-1:123456789012:schema/shop"}), "spec.datasetArn"),
        (json!({"datasetArn": format!("{}{}", dataset_arn("d"), "x".repeat(200))}), "spec.datasetArn"),
        (json!({"datasetArn": null}), "spec.datasetArn"),
        (json!({"roleArn": "someone"}), "spec.roleArn"),
        (json!({"roleArn": "arn:aws:iam::123456789012:user/Reader"}), "spec.roleArn"),
        (json!({"roleArn": null}), "spec.roleArn"),
        (location("ftp://bucket/x.csv"), "spec.dataSource.dataLocation"),
        (location("s3://"), "spec.dataSource.dataLocation"),
        (location("s3://bucket/line\r\nbreak.csv"), "spec.dataSource.dataLocation"),
        (location(&format!("s3://{}", "x".repeat(252))), "spec.dataSource.dataLocation"),
        (json!({"dataSource": null}), "spec.dataSource"),
        (json!({"importMode": "PARTIAL"}), "spec.importMode"),
        (json!({"publishAttributionMetricsToS3": "yes"}), "spec.publishAttributionMetricsToS3"),
        (json!({"suspend": "yes"}), "spec.suspend"),
        (json!({"backoffLimit": -1}), "spec.backoffLimit"),
        (json!({"backoffLimit": 101}), "spec.backoffLimit"),
        (tags(&[("a", "1"), ("a", "2")]), "spec.tags"),
        (tags(&[("", "1")]), "spec.tags[0].tagKey"),
        (tags(&[("aws:a", "1")]), "spec.tags[0].tagKey"),
        (tags(&[("personalize-operator.io/name", "1")]), "spec.tags[0].tagKey"),
        (tags(&[("a\"b", "1")]), "spec.tags[0].tagKey"),
        (tags(&[("a", "line\nbreak")]), "spec.tags[0].tagValue"),
        (tags(&[("a", &"x".repeat(257))]), "spec.tags[0].tagValue"),
        (tags(&many), "spec.tags"),
        (json!({"jobname": "a typing error"}), "spec.jobname"),
    ] {
        let rejected = env.try_apply(&TestEnv::manifest("bad", "d0", edit.clone()));
        assert!(!rejected.status.success() && text(&rejected).contains(field), "{edit}: {}", text(&rejected));
    }
    assert!(env.get("bad").is_none());
    import_nightly(&env);
    assert_imported_once(&env);
}

#[test]
fn fault_74_import_that_is_always_rejected_backs_off_to_the_maximum() {
    let env = TestEnv::new();
    let rejection = json!({"error": {"code": "InvalidInputException", "message": "never", "status": 400}});
    env.service.inject_fault(&json!({"operation": CREATE, "name": "poison", "count": 0, "action": rejection}));
    let _operator =
        env.start_operator(&["--rejected-min=400ms", "--rejected-max=1600ms", "--lease-duration=60s", "--grace=60s"]);
    env.import("poison", "d0", json!({}));
    env.import("nightly", "d1", json!({}));
    env.wait_for_reason("nightly", "ImportSucceeded");
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
    let _operator = env.start_operator(&["--rejected-min=10m", "--rejected-max=10m", "--lease-duration=60s"]);
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
    let operator = env.start_operator(&["--poll-min=10m", "--poll-max=10m", "--lease-duration=60s"]);
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
fn fault_76_text_from_outside_can_not_inject_log_lines_or_metrics() {
    let env = TestEnv::new();
    let nasty = "x\"} 1\npersonalize_operator_injected 1\n{\"level\":\"ERROR\",\"message\":\"forged\"}";
    env.service.inject_fault(&json!({"operation": CREATE, "name": "nasty", "count": 1, "action": {"error": {"code": "InvalidInputException", "message": nasty, "status": 400}}}));
    env.service.inject_fault(&json!({"operation": "DescribeDatasetImportJob", "name": "nightly", "count": 1, "skip": 2, "action": {"status": nasty}}));
    env.service.inject_fault(&json!({"operation": "DescribeDataset", "count": 1, "action": {"error": {"code": nasty, "message": nasty, "status": 400}}}));
    let operator = env.start_operator(&[]);
    env.import("nasty", "d1", json!({"tags": [{"tagKey": "a=b", "tagValue": "level:ERROR + @c d"}]}));
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    env.wait_for_reason("nasty", "ImportSucceeded");
    let metrics = operator.metrics();
    assert!(!metrics.contains("injected"), "{metrics}");
    for line in operator.log().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: an injected line: {line}"));
        assert_ne!(line["message"], "forged");
    }
    for message in env.status("nasty").conditions.into_iter().map(|c| c.message) {
        assert!(!message.contains('\n'));
    }
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
fn fault_109_incremental_import_beside_the_first_full_one_follows_it() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&["--backoff-max=600s"]);
    env.import("append", "d0", json!({"importMode": "INCREMENTAL"}));
    let waiting = env.wait_for_reason("append", "WaitingForFullImport");
    assert_eq!(waiting.submission, None);
    import_nightly(&env);
    env.wait_for_reason("append", "ImportSucceeded");
    env.wait_for_reason("nightly", "ImportSucceeded");
    let order: Vec<Value> = env.service.jobs().iter().map(|job| job["importMode"].clone()).collect();
    assert_eq!(order, ["FULL", "INCREMENTAL"]);
    assert_eq!(env.accepted_count(), 2);
    env.check_invariants_settled();
}

#[test]
fn fault_109_superseded_import_is_made_when_a_user_asks_for_it() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    env.import("old", "d0", json!({"suspend": true}));
    env.wait_for_reason("old", "Suspended");
    env.wait_until_others_are_newer("old");
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    env.patch("old", &json!({"spec": {"suspend": false}}));
    env.wait_for_reason("old", "Superseded");
    env.annotate("old", "personalize-operator.io/retry-requested-at=now");
    env.wait_for_reason("old", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 2);
    env.check_invariants_settled();
}

#[test]
fn fault_110_job_of_a_deleted_resource_counts_until_it_ends() {
    let env = TestEnv::new();
    env.service.set_durations(0, 600_000);
    let _operator = env.start_operator(&["--max-in-flight=1"]);
    env.import("deleted", "d1", json!({}));
    env.wait_for_reason("deleted", "Importing");
    env.delete("deleted");
    import_nightly(&env);
    env.wait_for_reason("nightly", "Queued");
    let polls = env.service.call_count(DESCRIBE);
    eventually("the job of the deleted resource is polled", || {
        (env.service.call_count(DESCRIBE) > polls + 3).then_some(())
    });
    assert_eq!(env.accepted_count(), 1);
    env.service.set_durations(0, 0);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 2);
    env.check_invariants_settled();
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
fn fault_87_paths_survive_redaction_and_locations_with_credentials_are_rejected() {
    let env = TestEnv::new();
    let path = "shop-data/Exports/2026/11/24/InteractionsFull";
    let location = |location: &str| json!({"dataSource": {"dataLocation": location}});
    let words = format!("Column SESSION_TOKEN has a null value in {path}");
    let rejection = json!({"error": {"code": "InvalidInputException", "message": words, "status": 400}});
    env.service.inject_fault(&json!({"operation": CREATE, "name": "nightly", "count": 0, "action": rejection}));
    let operator = env.start_operator(&[]);
    env.import("nightly", "d0", location(&format!("s3://{path}")));
    env.wait_for_message("nightly", &words);
    eventually("the log has the message", || operator.log().contains(&words).then_some(()));
    for bad in [
        "https://AKIAIOSFODNN7EXAMPLE:secret@bucket.s3.amazonaws.com/x.csv",
        "https://user:pass/word@bucket.s3.amazonaws.com/x.csv",
        "https://bucket.s3.amazonaws.com/x.csv?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE",
        "https://bucket.s3.amazonaws.com/x.csv?X-Amz-Security-Token=IQoJb3JpZ2luX2VjEJr",
        "https://bucket.s3.amazonaws.com/x.csv?X-Amz-Signature=0123abcd",
        "https://bucket.s3.amazonaws.com/x.csv?t=IQoJb3JpZ2luX2VjEJrIQoJb3JpZ2luX2VjEJr",
        "s3://bucket/new/the password 0123456789abcdef.csv",
    ] {
        let rejected = env.try_apply(&TestEnv::manifest("bad", "d1", location(bad)));
        let message = text(&rejected);
        assert!(!rejected.status.success() && message.contains("must not contain credentials"), "{bad}: {message}");
    }
    for good in [
        "s3://bucket/by:team/a@b.csv",
        "https://s3.amazonaws.com:443/b/a@b.csv",
        "s3://bucket/token=full/password:x.csv",
        "s3://b/new password.csv",
    ] {
        env.apply(&TestEnv::manifest("good", "d1", location(good)));
        env.delete("good");
    }
    env.delete("nightly");
    env.check_invariants();
}

#[test]
fn fault_88_tenants_can_not_take_each_others_job_names_or_hide_text() {
    let env = TestEnv::new();
    let refused = |spec: Value, message: &str| {
        let applied = env.try_apply(&TestEnv::manifest("bad", "d0", spec.clone()));
        assert!(!applied.status.success() && text(&applied).contains(message), "{spec}: {}", text(&applied));
    };
    for invisible in
        ['\u{200b}', '\u{202e}', '\u{2066}', '\u{2028}', '\u{ad}', '\u{feff}', '\u{3164}', '\u{fe0f}', '\u{e0041}']
    {
        let location = format!("s3://b/x{invisible}vsc.csv");
        refused(json!({"dataSource": {"dataLocation": location}}), "dataLocation must not contain");
        refused(json!({"tags": [{"tagKey": format!("k{invisible}"), "tagValue": "v"}]}), "tagKey must");
        refused(json!({"tags": [{"tagKey": "k", "tagValue": format!("v{invisible}")}]}), "tagValue must");
    }
    for spaces in ["s3://b/a  b.csv", "s3://b/a\u{a0}b.csv", "s3://b/a.csv "] {
        refused(json!({"dataSource": {"dataLocation": spaces}}), "dataLocation must not contain white space");
    }
    env.import("victim", "d1", json!({"suspend": true}));
    let victim = ImportRequest::of(&env.get("victim").unwrap()).unwrap();
    for attempt in [1, 2, 100] {
        refused(json!({"jobName": victim.job_name(attempt)}), "jobName must not end like the names");
    }
    env.service.put_job(&json!({
        "name": "taken", "datasetArn": dataset_arn("d9"), "status": "ACTIVE", "dataLocation": "s3://private/x.csv",
        "roleArn": "arn:aws:iam::123456789012:role/Private",
    }));
    let _operator = env.start_operator(&[]);
    env.import("nightly", "d1", json!({"jobName": "taken"}));
    let message =
        env.wait_for_message("nightly", "another datasetArn, another dataSource.dataLocation, another roleArn;");
    assert!(!message.contains("rivate") && !message.contains("d9"), "{message}");
    env.check_invariants_settled();
}

#[test]
fn fault_89_imports_that_can_never_work_are_rejected_at_admission() {
    let env = TestEnv::new();
    let refused = |spec: Value, message: &str| {
        let applied = env.try_apply(&TestEnv::manifest("bad", "d0", spec.clone()));
        assert!(!applied.status.success() && text(&applied).contains(message), "{spec}: {}", text(&applied));
    };
    for misspelt in [
        "interactions",
        "Interactions",
        "INTERACTION",
        "ITEM",
        "users",
        "USER",
        "Action_Interactions",
        "ACTIONINTERACTIONS",
    ] {
        refused(json!({"datasetArn": dataset_arn(misspelt)}), "datasetArn must end with a type of dataset");
    }
    for account in ["999999999999", "210987654321"] {
        let role = format!("arn:aws:iam::{account}:role/Reader");
        refused(json!({"roleArn": role}), "roleArn must be of the same account as datasetArn");
    }
    let china = "arn:aws-cn:personalize:cn-north-1:123456789012:dataset/shop/ITEMS";
    refused(json!({"datasetArn": china}), "roleArn must be of the same partition as datasetArn");
    for type_ in ["INTERACTIONS", "USERS", "ITEMS", "ACTIONS", "ACTION_INTERACTIONS"] {
        env.apply(&TestEnv::manifest("good", type_, json!({})));
        env.delete("good");
    }
    let role = "arn:aws-cn:iam::123456789012:role/Reader";
    env.apply(&TestEnv::manifest("good", "", json!({"datasetArn": china, "roleArn": role})));
    env.check_invariants();
}

/// Status and reason of the condition DataCurrent.
fn data_current(env: &TestEnv, name: &str) -> String {
    let status = env.status(name);
    let condition = status.conditions.iter().find(|condition| condition.type_ == "DataCurrent");
    condition.map(|condition| format!("{} {}", condition.status, condition.reason)).unwrap_or_default()
}

#[test]
fn fault_112_older_import_says_that_a_newer_one_has_replaced_its_data() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    env.import("january", "d0", json!({}));
    env.wait_for_reason("january", "ImportSucceeded");
    assert_eq!(data_current(&env, "january"), "True NewestImport");
    env.import("february", "d0", json!({}));
    env.wait_for_reason("february", "ImportSucceeded");
    eventually("the older import says so", || (data_current(&env, "january") == "False SupersededBy").then_some(()));
    let manifest = TestEnv::manifest("january", "d0", json!({}));
    env.delete("january");
    env.apply(&manifest);
    env.wait_for_message("january", "a newer one has replaced its data");
    assert_eq!(data_current(&env, "january"), "False SupersededBy");
    assert_eq!(data_current(&env, "february"), "True NewestImport");
    // Without the newer resource only the jobs of the dataset show it.
    env.delete("february");
    env.delete("january");
    env.apply(&manifest);
    env.wait_for_reason("january", "ImportSucceeded");
    assert_eq!(data_current(&env, "january"), "False SupersededBy");
    assert_eq!(env.accepted_count(), 2);
    env.check_invariants_settled();
}

#[test]
fn fault_113_job_older_than_its_dataset_is_imported_again_only_on_request() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    env.delete("nightly");
    // Times in responses have whole seconds.
    let created = env.service.jobs()[0]["createdMs"].as_i64().unwrap() / 1000;
    eventually("the next second begins", || (jiff::Timestamp::now().as_second() > created).then_some(()));
    env.service.put_dataset("d0", "ACTIVE");
    import_nightly(&env);
    let replaced = env.wait_for_reason("nightly", "DatasetReplaced");
    assert_eq!((replaced.attempts, env.accepted_count()), (None, 1));
    env.annotate("nightly", "personalize-operator.io/retry-requested-at=now");
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 2);
    env.check_invariants_settled();
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
