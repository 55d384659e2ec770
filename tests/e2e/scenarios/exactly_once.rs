//! Exactly once: crashes, lost responses, adoption, conflicts and two operators.

use crate::env::{OperatorProcess, ROLE, SHORT_TIMEOUTS, TestEnv, dataset_arn, eventually};
use serde_json::{Value, json};

fn assert_created_once(env: &TestEnv) {
    assert_eq!(env.accepted_count(), 1);
    env.check_invariants();
}

/// Kills the operator as soon as the condition holds, and starts another one.
fn kill_when(env: &TestEnv, operator: OperatorProcess, what: &str, condition: impl Fn() -> bool) -> OperatorProcess {
    eventually(what, || condition().then_some(()));
    operator.kill();
    env.start_operator(&[])
}

#[test]
fn operator_killed_during_create_imports_once() {
    let env = TestEnv::new();
    // The service does not respond, so that the operator is killed while it waits.
    env.service.inject_fault(
        &json!({"operation": "CreateDatasetImportJob", "count": 1, "action": {"silenceBeforeHeaders": {"effect": false}}}),
    );
    let operator = env.start_operator(&[]);
    env.import("nightly", "d0", json!({}));
    let _operator =
        kill_when(&env, operator, "the create is in flight", || env.service.call_count("CreateDatasetImportJob") > 0);
    assert!(env.status("nightly").dataset_import_job_arn.is_none() || env.accepted_count() == 1);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_created_once(&env);
}

#[test]
fn operator_killed_between_create_and_status_imports_once() {
    let env = TestEnv::new();
    env.service.inject_fault(
        &json!({"operation": "CreateDatasetImportJob", "count": 1, "action": {"silenceAfterHeaders": {"effect": true}}}),
    );
    let operator = env.start_operator(&[]);
    env.import("nightly", "d0", json!({}));
    let _operator = kill_when(&env, operator, "the service accepts the job", || env.accepted_count() == 1);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_created_once(&env);
}

#[test]
fn job_is_looked_up_after_every_kind_of_lost_response() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&SHORT_TIMEOUTS);
    let actions: [Value; 10] = [
        json!({"error": {"code": "InternalFailure", "status": 500}}),
        json!({"errorAfter": {"code": "InternalFailure", "status": 500}}),
        json!({"errorAfter": {"code": "ServiceUnavailable", "status": 503}}),
        json!("resetBefore"),
        json!("resetAfter"),
        json!({"silenceBeforeHeaders": {"effect": false}}),
        json!({"silenceAfterHeaders": {"effect": true}}),
        json!("cutBody"),
        json!("garbage"),
        json!("noArn"),
    ];
    for (i, action) in actions.iter().enumerate() {
        let name = format!("lost-{i}");
        env.service
            .inject_fault(&json!({"operation": "CreateDatasetImportJob", "name": name, "count": 1, "action": action}));
        env.import(&name, &format!("d{i}"), json!({}));
    }
    for i in 0..actions.len() {
        env.wait_for_reason(&format!("lost-{i}"), "ImportSucceeded");
    }
    assert_eq!(env.accepted_count(), actions.len());
    env.check_invariants();
}

#[test]
fn recreated_resource_adopts_its_running_or_finished_job() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let _operator = env.start_operator(&[]);
    env.import("nightly", "d0", json!({}));
    env.wait_for_reason("nightly", "Importing");
    let first = env.uid("nightly");
    env.delete("nightly");
    env.import("nightly", "d0", json!({}));
    assert_ne!(env.uid("nightly"), first);
    env.service.set_durations(1, 1);
    env.wait_for_reason("nightly", "ImportSucceeded");
    eventually("an event reports the adoption", || {
        env.event_reasons("nightly").contains(&"Adopted".to_owned()).then_some(())
    });
    env.delete("nightly");
    env.import("nightly", "d0", json!({}));
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_created_once(&env);
}

#[test]
fn foreign_job_conflicts_until_the_user_adopts_it() {
    let env = TestEnv::new();
    let mut foreign = json!({
        "name": "weekly", "datasetArn": dataset_arn("d0"), "dataLocation": "s3://bucket/interactions.csv",
        "roleArn": ROLE,
    });
    env.service.put_job(&foreign);
    let _operator = env.start_operator(&[]);
    env.import("weekly", "d0", json!({"jobName": "weekly"}));
    let status = env.wait_for_reason("weekly", "JobNameConflict");
    assert_eq!(status.dataset_import_job_arn, None);
    env.annotate("weekly", "personalize-operator.io/adopt=true");
    env.wait_for_reason("weekly", "ImportSucceeded");
    foreign["name"] = "other".into();
    foreign["dataLocation"] = "s3://bucket/else.csv".into();
    env.service.put_job(&foreign);
    env.import("other", "d0", json!({"jobName": "other"}));
    env.annotate("other", "personalize-operator.io/adopt=true");
    let status = env.wait_for_reason("other", "JobNameConflict");
    let message = &status.conditions[0].message;
    assert!(message.contains("dataSource.dataLocation") && !message.contains("else.csv"), "{message}");
    assert_eq!(env.accepted_count(), 0);
}

#[test]
fn two_resources_with_one_job_name_create_one_job() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    env.import("a", "d0", json!({"jobName": "shared"}));
    env.wait_for_reason("a", "ImportSucceeded");
    env.import("b", "d0", json!({"jobName": "shared"}));
    let conflict = env.wait_for_reason("b", "JobNameConflict");
    let message = &conflict.conditions[0].message;
    assert!(message.contains("its tags name the DatasetImportJob a as its owner"), "{message}");
    assert_created_once(&env);
}

#[test]
fn two_operators_without_leader_election_create_one_job_per_resource() {
    let env = TestEnv::new();
    // Both work on all resources, so only the protocol prevents duplicates.
    let _both = ["--identity=first", "--identity=second"]
        .map(|identity| env.start_operator(&[identity, "--leader-elect=false"]));
    for i in 0..8 {
        env.import(&format!("r{i}"), &format!("d{i}"), json!({}));
    }
    for i in 0..8 {
        env.wait_for_reason(&format!("r{i}"), "ImportSucceeded");
    }
    assert_eq!(env.accepted_count(), 8);
    env.check_invariants();
}

#[test]
fn second_replica_takes_over_when_the_leader_crashes() {
    let env = TestEnv::new();
    let first = env.start_operator(&["--identity=first", "--lease-duration=15s"]);
    eventually("the first replica leads", || first.log().contains("\"leading\"").then_some(()));
    let second = env.start_operator(&["--identity=second", "--lease-duration=15s"]);
    env.import("a", "d0", json!({}));
    env.wait_for_reason("a", "ImportSucceeded");
    assert!(second.is_ready(), "a standby replica is ready");
    assert!(!second.log().contains("submitting the import"));
    first.kill();
    env.import("b", "d1", json!({}));
    env.wait_for_reason("b", "ImportSucceeded");
    assert!(second.log().contains("submitting the import"));
    env.check_invariants();
}

#[test]
fn resource_deleted_while_its_job_runs_is_gone_at_once() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let operator = env.start_operator(&[]);
    env.import("nightly", "d0", json!({}));
    env.wait_for_reason("nightly", "Importing");
    env.delete("nightly");
    assert!(env.get("nightly").is_none());
    assert_eq!(env.service.running_count(), 1);
    // The job still runs, so its dataset is busy.
    env.import("other", "d0", json!({}));
    let queued = env.wait_for_reason("other", "Queued");
    assert!(queued.conditions[0].message.contains("same dataset"), "{}", queued.conditions[0].message);
    env.service.set_durations(1, 1);
    env.wait_for_reason("other", "ImportSucceeded");
    assert!(operator.stop());
    assert_eq!(env.accepted_count(), 2);
}

#[test]
fn restart_with_finished_resources_makes_no_call_and_no_write() {
    let env = TestEnv::new();
    let operator = env.start_operator(&[]);
    for i in 0..5 {
        env.import(&format!("good-{i}"), &format!("d{i}"), json!({}));
        env.import(
            &format!("bad-{i}"),
            &format!("d{}", i + 10),
            json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}}),
        );
    }
    for i in 0..5 {
        env.wait_for_reason(&format!("good-{i}"), "ImportSucceeded");
        env.wait_for_reason(&format!("bad-{i}"), "ImportFailed");
    }
    assert!(operator.stop());
    let (calls, writes) = (env.service.ledger().len(), env.audited_writes().len());
    let operator = env.start_operator(&["--grace=60s"]);
    // The last resource is reconciled after all others.
    env.import("last", "d20", json!({}));
    env.wait_for_reason("last", "ImportSucceeded");
    let ledger = env.service.ledger();
    // One call before its submission is about the dataset group.
    let about_last =
        |line: &&Value| ["last-", "/d20", ":dataset-group/"].iter().any(|part| line.to_string().contains(part));
    let about_others = ledger[calls..].iter().filter(|line| !about_last(line)).count();
    assert_eq!(about_others, 0, "{:?}", &ledger[calls..]);
    let about_groups = ledger[calls..].iter().filter(|line| line["operation"] == "ListDataDeletionJobs").count();
    assert_eq!(about_groups, 1);
    let other_writes = env.audited_writes()[writes..].iter().filter(|w| w["objectRef"]["name"] != "last").count();
    assert_eq!(other_writes, 0);
    assert!(operator.stop());
}
