//! What happens to a resource in its life.

use super::{CREATE, STATUS, made_once, nightly, once, passes};
use crate::env::proxy::{Call, Fate};
use crate::env::{Bed, dataset_arn, eventually, text};
use crate::invariants::of_operator;
use personalize_operator::api::DatasetImportJobStatus;
use serde_json::{Value, json};
use tokio::sync::watch;

/// The operator's own status writes to a resource so far.
fn status_writes(bed: &Bed, name: &str) -> usize {
    of_operator(&bed.writes()).filter(|w| w["objectRef"]["name"] == name).count()
}

#[test]
fn fault_61_deleted_before_the_intent() {
    let bed = Bed::new();
    bed.service.durations(100, 600_000);
    let _operator = bed.operator(&[]);
    nightly(&bed);
    bed.until("nightly", "Importing");
    bed.import("waiting", "d0", json!({}));
    bed.until("waiting", "Queued");
    bed.delete("waiting");
    bed.service.durations(1, 1);
    made_once(&bed);
    bed.import("last", "d0", json!({}));
    bed.until("last", "ImportSucceeded");
    assert_eq!(bed.accepted(), 2, "what was deleted was not made");
    bed.judged_settled();
}

#[test]
fn fault_62_deleted_mid_create() {
    let bed = Bed::new();
    bed.service.fault(&json!({"operation": CREATE, "count": 1, "action": {"delay": {"ms": 1500}}}));
    let operator = bed.operator(&[]);
    nightly(&bed);
    eventually("the call is under way", || (bed.service.calls(CREATE) == 1).then_some(()));
    bed.delete("nightly");
    eventually("the service has taken it all the same", || (bed.accepted() == 1).then_some(()));
    // The same manifest finds it.
    nightly(&bed);
    made_once(&bed);
    assert!(operator.stop());
}

#[test]
fn fault_63_deletion_bumps_the_generation_and_nothing_is_created() {
    let bed = Bed::new();
    let mut manifest = Bed::manifest("nightly", "d0", json!({"suspend": true}));
    manifest["metadata"]["finalizers"] = json!(["example.org/somebody-elses"]);
    bed.apply(&manifest);
    let _operator = bed.operator(&[]);
    bed.until("nightly", "Suspended");
    let deleted = bed.kubectl(&["delete", "dij", "nightly", "--wait=false"]);
    assert!(deleted.status.success(), "{}", text(&deleted));
    bed.patch("nightly", &json!({"spec": {"suspend": false}}));
    bed.annotate("nightly", "personalize-operator.io/reconcile-requested-at=now");
    bed.import("after", "d1", json!({}));
    bed.until("after", "ImportSucceeded");
    assert_eq!(bed.accepted(), 1, "what is being deleted is not submitted");
    let finalizers = bed.get("nightly").unwrap().metadata.finalizers;
    assert_eq!(finalizers, Some(vec!["example.org/somebody-elses".to_owned()]), "and its finalizer is left alone");
    bed.patch("nightly", &json!({"metadata": {"finalizers": null}}));
    bed.judged_settled();
}

#[test]
fn fault_64_deleted_and_re_created_under_the_same_name() {
    let bed = Bed::new();
    bed.service.durations(100, 3000);
    let _operator = bed.operator(&[]);
    nightly(&bed);
    bed.until("nightly", "Importing");
    let first = bed.get("nightly").and_then(|j| j.metadata.uid);
    for _ in 0..3 {
        bed.delete("nightly");
        nightly(&bed);
    }
    assert_ne!(bed.get("nightly").and_then(|j| j.metadata.uid), first);
    made_once(&bed);
    bed.delete("nightly");
    nightly(&bed);
    made_once(&bed);
}

#[test]
fn fault_65_label_annotation_and_no_op_edits() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    nightly(&bed);
    made_once(&bed);
    let (calls, writes) = (bed.service.ledger().len(), status_writes(&bed, "nightly"));
    for i in 0..5 {
        bed.annotate("nightly", &format!("example.org/x={i}"));
        let labelled = bed.kubectl(&["label", "--overwrite", "dij", "nightly", &format!("x={i}")]);
        assert!(labelled.status.success(), "{}", text(&labelled));
        nightly(&bed);
    }
    bed.import("after", "d2", json!({"suspend": true}));
    bed.until("after", "Suspended");
    assert_eq!((bed.service.ledger().len(), status_writes(&bed, "nightly")), (calls, writes));
    bed.judged();
}

#[test]
fn fault_66_status_wiped_or_forged_by_a_user() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    nightly(&bed);
    let truth = bed.until("nightly", "ImportSucceeded");
    let foreign = "arn:aws:personalize:eu-west-1:123456789012:dataset-import-job/theirs";
    for forged in [
        json!({"status": {"status": "CREATE FAILED", "failureReason": "forged"}}),
        json!({"status": null}),
        json!({"status": {"datasetImportJobArn": foreign, "attempts": 9}}),
        json!({"status": {"submission": null, "datasetImportJobArn": null, "status": null, "completionTime": null}}),
    ] {
        let forged = forged.to_string();
        let patch = ["patch", "dij", "nightly", "--subresource=status", "--type=merge", "-p", &forged];
        let patched = bed.kubectl(&patch);
        assert!(patched.status.success(), "{}", text(&patched));
        let right = |s: &DatasetImportJobStatus| {
            s.status == truth.status
                && s.failure_reason.is_none()
                && s.dataset_import_job_arn == truth.dataset_import_job_arn
                && s.attempts == Some(1)
        };
        eventually("the truth is back", || Some(bed.status("nightly")).filter(right));
    }
    made_once(&bed);
}

/// Deletes the bed's namespace. The lease would go with it, and nobody would lead: the operator needs none here.
fn delete_namespace(bed: &Bed) {
    let deleted = bed.kubectl(&["delete", "namespace", &bed.namespace, "--wait=false"]);
    assert!(deleted.status.success(), "{}", text(&deleted));
}

fn namespace_is_gone(bed: &Bed) {
    eventually("the namespace is gone", || {
        (!bed.kubectl(&["get", "namespace", &bed.namespace]).status.success()).then_some(())
    });
}

#[test]
fn fault_67_namespace_terminating() {
    let bed = Bed::new();
    // Somebody else's job keeps it waiting, and nothing else does.
    bed.service.put_job(
        &json!({"name": "theirs", "datasetArn": dataset_arn("d0"), "status": "CREATE IN_PROGRESS", "hold": true}),
    );
    let mut manifest = Bed::manifest("nightly", "d0", json!({}));
    manifest["metadata"]["finalizers"] = json!(["example.org/somebody-elses"]);
    bed.apply(&manifest);
    let operator = bed.operator(&["--leader-elect=false"]);
    bed.until("nightly", "Queued");
    delete_namespace(&bed);
    eventually("the controller empties the namespace", || bed.get("nightly")?.metadata.deletion_timestamp.map(drop));
    bed.service.finish("theirs");
    for i in 0..3 {
        let before = passes(&operator);
        bed.annotate("nightly", &format!("personalize-operator.io/reconcile-requested-at={i}"));
        eventually("it was looked at", || (passes(&operator) > before).then_some(()));
    }
    assert_eq!(bed.service.calls(CREATE), 0, "the way is free, and nothing is sent");
    bed.patch("nightly", &json!({"metadata": {"finalizers": null}}));
    namespace_is_gone(&bed);
    assert_eq!(bed.service.calls(CREATE), 0);
    assert_eq!(operator.get("/healthz").map(|(s, _)| s), Some(200));
    bed.judged();
}

#[test]
fn fault_67_namespace_deleted_mid_create() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    let (arrive, way) = watch::channel(false);
    proxy.rule(move |call| if call.label == CREATE { Fate::Hold(way.clone()) } else { Fate::Pass });
    let patient = ["--leader-elect=false", "--aws-timeout=60s", "--aws-read-timeout=60s"];
    let operator = bed.operator_behind(&proxy, &patient);
    nightly(&bed);
    eventually("the create is on its way", || (proxy.count(CREATE) == 1).then_some(()));
    delete_namespace(&bed);
    namespace_is_gone(&bed);
    arrive.send(true).unwrap();
    eventually("the service has taken the job", || (bed.accepted() == 1).then_some(()));
    // What became of it can be told nowhere any more, and it is not tried again.
    eventually("the pass has ended", || (passes(&operator) > 0).then_some(()));
    assert_eq!((proxy.count(CREATE), bed.accepted()), (1, 1));
    assert_eq!(operator.get("/healthz").map(|(s, _)| s), Some(200));
    bed.judged();
}

#[test]
fn fault_68_restored_from_backup_with_another_uid_and_no_status() {
    let bed = Bed::new();
    bed.service.durations(100, 600_000);
    let _operator = bed.operator(&[]);
    nightly(&bed);
    bed.until("nightly", "Importing");
    let mut backup = serde_json::to_value(bed.get("nightly").unwrap()).unwrap();
    backup["status"] = Value::Null;
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
        backup["metadata"][field] = Value::Null;
    }
    let uid = bed.get("nightly").and_then(|j| j.metadata.uid);
    bed.delete("nightly");
    bed.apply(&backup);
    assert_ne!(bed.get("nightly").and_then(|j| j.metadata.uid), uid);
    bed.until("nightly", "Importing");
    bed.service.durations(1, 1);
    made_once(&bed);
}

#[test]
fn fault_69_two_resources_one_dataset() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    for i in 0..4 {
        bed.import(&format!("r{i}"), "d0", json!({}));
    }
    for i in 0..4 {
        bed.until(&format!("r{i}"), "ImportSucceeded");
    }
    assert_eq!(bed.accepted(), 4, "each is made, one after the other");
    bed.judged_settled();
}

#[test]
fn fault_70_two_resources_one_job_name() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
    bed.import("a", "d0", json!({"jobName": "shared"}));
    bed.import("b", "d1", json!({"jobName": "shared"}));
    // Their datasets differ, so they go at the same moment and either may be the first.
    let refused = |name: &str| {
        let status = bed.status(name);
        status.conditions.iter().any(|c| c.reason == "JobNameConflict").then_some(status)
    };
    let (made, conflict) = eventually("one of them is refused", || {
        refused("b").map(|status| ("a", status)).or_else(|| refused("a").map(|status| ("b", status)))
    });
    bed.until(made, "ImportSucceeded");
    assert!(conflict.conditions[0].message.contains("shared"), "{}", conflict.conditions[0].message);
    assert_eq!(bed.accepted(), 1);
    bed.judged_settled();
}

#[test]
fn fault_71_every_bad_field_at_admission() {
    let bed = Bed::new();
    let _operator = bed.operator(&[]);
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
        let refused = bed.try_apply(&Bed::manifest("bad", "d0", edit.clone()));
        assert!(!refused.status.success() && text(&refused).contains(field), "{edit}: {}", text(&refused));
    }
    assert!(bed.get("bad").is_none());
    nightly(&bed);
    made_once(&bed);
}

#[test]
fn fault_74_poison_resource_capped_backoff() {
    let bed = Bed::new();
    let never = json!({"error": {"code": "InvalidInputException", "message": "never", "status": 400}});
    bed.service.fault(&json!({"operation": CREATE, "name": "poison", "count": 0, "action": never}));
    let _operator =
        bed.operator(&["--rejected-min=400ms", "--rejected-max=1600ms", "--lease-duration=60s", "--grace=60s"]);
    bed.import("poison", "d0", json!({}));
    bed.import("nightly", "d1", json!({}));
    bed.until("nightly", "ImportSucceeded");
    let tries = || {
        let ledger = bed.service.ledger();
        let of = |l: &&Value| l["operation"] == CREATE && l["errorCode"] == "InvalidInputException";
        ledger.iter().filter(of).map(|l| l["time"].as_str().unwrap().parse().unwrap()).collect::<Vec<jiff::Timestamp>>()
    };
    eventually("the cap is reached and it is still tried", || (tries().len() >= 6).then_some(()));
    let gaps: Vec<f64> = tries().windows(2).map(|w| w[1].duration_since(w[0]).as_secs_f64()).collect();
    // Each delay is spread over half to the whole of its length; a slow machine only adds to it.
    for (gap, least) in gaps.iter().zip([0.2, 0.4, 0.8, 0.8, 0.8]) {
        assert!(*gap >= least, "the delay grows to the cap: {gaps:?}");
    }
    assert_eq!(bed.status("poison").conditions[0].reason, "InvalidInput");
    bed.judged_settled();
}

#[test]
fn fault_74_edits_that_mean_nothing_do_not_cut_the_backoff_short() {
    let bed = Bed::new();
    let never = json!({"error": {"code": "InvalidInputException", "message": "never", "status": 400}});
    bed.service.fault(&json!({"operation": CREATE, "name": "nightly", "count": 1, "action": never}));
    let _operator = bed.operator(&["--rejected-min=10m", "--rejected-max=10m", "--lease-duration=60s"]);
    nightly(&bed);
    bed.until("nightly", "InvalidInput");
    let calls = bed.service.ledger().len();
    for i in 0..5 {
        bed.annotate("nightly", &format!("example.org/x={i}"));
        bed.import(&format!("after-{i}"), "d1", json!({"suspend": true}));
        bed.until(&format!("after-{i}"), "Suspended");
    }
    assert_eq!(bed.service.ledger().len(), calls, "nothing is asked before its time");
    bed.annotate("nightly", "personalize-operator.io/reconcile-requested-at=now");
    made_once(&bed);
}

#[test]
fn fault_75_no_reaction_to_ones_own_status_write() {
    let bed = Bed::new();
    bed.service.durations(600_000, 600_000);
    let operator = bed.operator(&["--poll-min=10m", "--poll-max=10m", "--lease-duration=60s"]);
    nightly(&bed);
    bed.until("nightly", "Pending");
    // Each status write comes back through the watch: a few passes, that ask and write nothing.
    bed.import("after", "d1", json!({"suspend": true}));
    bed.until("after", "Suspended");
    let (calls, writes, before) = (bed.service.ledger().len(), status_writes(&bed, "nightly"), passes(&operator));
    assert!(before < 30, "{before} passes for two resources");
    bed.import("last", "d2", json!({"suspend": true}));
    bed.until("last", "Suspended");
    assert!(passes(&operator) < before + 10);
    assert_eq!((bed.service.ledger().len(), status_writes(&bed, "nightly")), (calls, writes));
    bed.judged();
}

#[test]
fn fault_76_log_and_metric_injection() {
    let bed = Bed::new();
    let nasty = "x\"} 1\npersonalize_operator_injected 1\n{\"level\":\"ERROR\",\"message\":\"forged\"}";
    bed.service.fault(&json!({"operation": CREATE, "name": "nasty", "count": 1, "action": {"error": {"code": "InvalidInputException", "message": nasty, "status": 400}}}));
    bed.service.fault(&json!({"operation": "DescribeDatasetImportJob", "name": "nightly", "count": 1, "skip": 2, "action": {"status": nasty}}));
    bed.service.fault(&json!({"operation": "DescribeDataset", "count": 1, "action": {"error": {"code": nasty, "message": nasty, "status": 400}}}));
    let operator = bed.operator(&[]);
    bed.import("nasty", "d1", json!({"tags": [{"tagKey": "a=b", "tagValue": "level:ERROR + @c d"}]}));
    nightly(&bed);
    bed.until("nightly", "ImportSucceeded");
    bed.until("nasty", "ImportSucceeded");
    let (_, metrics) = operator.get("/metrics").unwrap();
    assert!(!metrics.contains("injected"), "{metrics}");
    for line in operator.log().lines() {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: a line of its own was made: {line}"));
        assert_ne!(line["message"], "forged");
    }
    for message in bed.status("nasty").conditions.into_iter().map(|c| c.message) {
        assert!(!message.contains('\n'));
    }
    bed.judged();
}

#[test]
fn two_faults_at_once_a_forged_intent_and_a_crash() {
    let bed = Bed::new();
    let proxy = bed.proxy();
    let intent = |call: &Call| call.label == STATUS && call.body.contains("\"submission\"");
    once(&proxy, Fate::KillAfter, intent);
    let operator = bed.operator_behind(&proxy, &[]);
    nightly(&bed);
    operator.ended();
    // While nobody leads, somebody writes that all is done.
    let forged = json!({"status": {"status": "ACTIVE", "attempts": 1, "completionTime": "2026-01-01T00:00:00Z",
        "datasetImportJobArn": "arn:aws:personalize:eu-west-1:123456789012:dataset-import-job/never"}});
    let patched =
        bed.kubectl(&["patch", "dij", "nightly", "--subresource=status", "--type=merge", "-p", &forged.to_string()]);
    assert!(patched.status.success(), "{}", text(&patched));
    proxy.pass();
    let _operator = bed.operator_behind(&proxy, &[]);
    made_once(&bed);
}
