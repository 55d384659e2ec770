//! The queue: quota, datasets, fairness and restarts.

use crate::env::{ROLE, TestEnv, dataset_arn, eventually};
use serde_json::{Value, json};

/// How many jobs ran at once, by the times of the stand-in.
fn max_concurrent(jobs: &[Value]) -> usize {
    let span = |j: &Value| (j["createdMs"].as_i64().unwrap(), j["updatedMs"].as_i64().unwrap());
    let spans: Vec<_> = jobs.iter().map(span).collect();
    spans.iter().map(|(start, _)| spans.iter().filter(|(s, e)| s <= start && start < e).count()).max().unwrap_or(0)
}

#[test]
fn twenty_imports_run_at_most_five_at_once() {
    let env = TestEnv::new();
    env.service.set_durations(200, 400);
    for i in 0..20 {
        env.import(&format!("r{i:02}"), &format!("d{i}"), json!({}));
    }
    let operator = env.start_operator(&[]);
    let queued = env.wait_for_reason("r19", "Queued");
    assert!(queued.conditions[0].message.contains("at most 5 run at once"), "{}", queued.conditions[0].message);
    for i in 0..20 {
        env.wait_for_reason(&format!("r{i:02}"), "ImportSucceeded");
    }
    let ledger = env.service.ledger();
    assert_eq!(env.accepted_count(), 20);
    assert!(max_concurrent(&env.service.jobs()) <= 5);
    let rejected = ledger.iter().filter(|l| l["errorCode"] == "LimitExceededException").count();
    assert_eq!(rejected, 0, "no create exceeds the quota");
    env.check_invariants();
    assert!(operator.stop());
}

#[test]
fn imports_into_one_dataset_run_one_after_the_other() {
    let env = TestEnv::new();
    env.service.set_durations(100, 200);
    let _operator = env.start_operator(&[]);
    for i in 0..8 {
        env.import(&format!("r{i}"), &format!("d{}", i % 2), json!({}));
    }
    for i in 0..8 {
        env.wait_for_reason(&format!("r{i}"), "ImportSucceeded");
    }
    let jobs = env.service.jobs();
    for dataset in ["d0", "d1"] {
        let of: Vec<Value> = jobs
            .iter()
            .filter(|j| j["datasetArn"].as_str().unwrap().ends_with(&format!("/{dataset}")))
            .cloned()
            .collect();
        assert_eq!(of.len(), 4);
        assert_eq!(max_concurrent(&of), 1, "{dataset}");
    }
    env.check_invariants();
}

#[test]
fn quota_holds_after_a_restart() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let operator = env.start_operator(&[]);
    for i in 0..12 {
        env.import(&format!("r{i:02}"), &format!("d{i}"), json!({}));
    }
    eventually("five imports run", || (env.service.running_count() == 5).then_some(()));
    operator.kill();
    let _operator = env.start_operator(&[]);
    env.wait_for_reason("r11", "Queued");
    assert_eq!(env.service.running_count(), 5);
    env.service.set_durations(100, 200);
    for i in 0..12 {
        env.wait_for_reason(&format!("r{i:02}"), "ImportSucceeded");
    }
    let ledger = env.service.ledger();
    assert_eq!(env.accepted_count(), 12);
    assert_eq!(ledger.iter().filter(|l| l["errorCode"] == "LimitExceededException").count(), 0);
    env.check_invariants();
}

#[test]
fn foreign_jobs_use_the_quota_and_a_waiting_import_does_not_block_others() {
    let env = TestEnv::new();
    let foreign = |i: u32| {
        json!({"name": format!("foreign-{i}"), "datasetArn": dataset_arn(&format!("d{}", 20 + i)), "dataLocation": "s3://bucket/interactions.csv",
               "roleArn": ROLE, "status": "CREATE IN_PROGRESS", "hold": true})
    };
    (0..5).for_each(|i| env.service.put_job(&foreign(i)));
    let _operator = env.start_operator(&[]);
    env.import("a-suspended", "d0", json!({"suspend": true}));
    env.import("b-busy-dataset", "d20", json!({}));
    env.import("c-free", "d1", json!({}));
    env.wait_for_reason("b-busy-dataset", "Queued");
    let full = env.wait_for_reason("c-free", "Queued");
    eventually("the message says that the quota is used up", || {
        env.status("c-free").conditions[0].message.contains("the service runs no more at once").then_some(())
    });
    assert_eq!(full.dataset_import_job_arn, None);
    // A job in another dataset ends. The older import, which can't start, does not block the next one.
    env.service.finish_job("foreign-4");
    env.wait_for_reason("c-free", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 1);
    (0..4).for_each(|i| env.service.finish_job(&format!("foreign-{i}")));
    env.wait_for_reason("b-busy-dataset", "ImportSucceeded");
}

#[test]
fn each_region_has_its_own_quota() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let _operator = env.start_operator(&["--max-in-flight=1"]);
    env.import("here", "d0", json!({}));
    env.import("there", "d0", json!({"datasetArn": dataset_arn("d0").replace("eu-west-1", "us-east-1")}));
    env.wait_for_reason("here", "Importing");
    env.wait_for_reason("there", "Importing");
    env.service.set_durations(1, 1);
    env.wait_for_reason("there", "ImportSucceeded");
}

#[test]
fn import_with_a_busy_dataset_does_not_block_others_with_a_quota_of_one() {
    let env = TestEnv::new();
    env.service.put_job(
        &json!({"name": "foreign", "datasetArn": dataset_arn("d20"), "status": "CREATE IN_PROGRESS", "hold": true}),
    );
    let _operator = env.start_operator(&["--max-in-flight=1", "--backoff-min=5s", "--backoff-max=5s"]);
    env.import("a-busy-dataset", "d20", json!({}));
    env.wait_for_reason("a-busy-dataset", "Queued");
    env.import("b-free", "d1", json!({}));
    env.wait_for_reason("b-free", "ImportSucceeded");
    env.service.finish_job("foreign");
    env.wait_for_reason("a-busy-dataset", "ImportSucceeded");
}

#[test]
fn deleted_import_makes_room_for_the_next_when_its_job_ends() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let _operator = env.start_operator(&["--max-in-flight=1"]);
    env.import("a", "d0", json!({}));
    env.wait_for_reason("a", "Importing");
    env.import("b", "d1", json!({}));
    env.wait_for_reason("b", "Queued");
    env.delete("a");
    let name = env.service.jobs()[0]["name"].as_str().unwrap().to_owned();
    env.service.finish_job(&name);
    env.wait_for_reason("b", "Importing");
}

/// The waiting resource has asked the queue before the deletion, so no timer of its own would wake it for minutes.
#[test]
fn resource_deleted_during_its_submission_frees_the_dataset_after_the_grace_period() {
    let env = TestEnv::new();
    let lost = json!({"error": {"code": "InternalFailure", "message": "injected", "status": 500}});
    env.service
        .inject_fault(&json!({"operation": "CreateDatasetImportJob", "name": "first-", "count": 0, "action": lost}));
    let _operator = env.start_operator(&["--grace=4s", "--backoff-max=5m"]);
    env.import("first", "d0", json!({}));
    eventually("the submission has no answer", || {
        (env.status("first").submission.is_some() && env.service.call_count("CreateDatasetImportJob") > 0).then_some(())
    });
    env.import("second", "d0", json!({}));
    env.wait_for_reason("second", "Queued");
    env.delete("first");
    env.wait_for_reason("second", "ImportSucceeded");
    env.check_invariants();
}
