//! Several imports into one dataset.

use super::import_nightly;
use crate::env::{TestEnv, eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;

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

/// Waits until what is created next is newer than the first job: times in responses have whole seconds.
fn wait_until_jobs_are_older(env: &TestEnv) {
    let created = env.service.jobs()[0]["createdMs"].as_i64().unwrap() / 1000;
    eventually("the next second begins", || (jiff::Timestamp::now().as_second() > created).then_some(()));
}

#[test]
fn fault_113_incremental_import_into_a_dataset_created_again_holds_up_no_full_one() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&["--backoff-max=600s", "--grace=60s"]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    wait_until_jobs_are_older(&env);
    env.service.put_dataset("d0", "ACTIVE");
    let before = env.service.call_count("ListDatasetImportJobs");
    env.import("append", "d0", json!({"importMode": "INCREMENTAL"}));
    env.wait_for_reason("append", "WaitingForFullImport");
    env.wait_until_others_are_newer("append");
    env.import("elsewhere", "d1", json!({}));
    env.wait_for_reason("elsewhere", "ImportSucceeded");
    let lists = env.service.call_count("ListDatasetImportJobs") - before;
    assert!(lists <= 8, "the jobs were listed {lists} times for two imports");
    env.import("full", "d0", json!({}));
    env.wait_for_reason("full", "ImportSucceeded");
    env.wait_for_reason("append", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 4);
    env.check_invariants_settled();
}

#[test]
fn fault_113_job_older_than_its_dataset_is_imported_again_only_on_request() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    env.delete("nightly");
    wait_until_jobs_are_older(&env);
    let missing = json!({"code": "ResourceNotFoundException", "message": "no such dataset", "status": 400});
    env.service.inject_fault(&json!({"operation": "DescribeDataset", "count": 1000, "action": {"error": missing}}));
    import_nightly(&env);
    env.wait_for_reason("nightly", "DatasetNotReady");
    env.service.put_dataset("d0", "ACTIVE");
    env.service.clear_faults();
    let replaced = env.wait_for_reason("nightly", "DatasetReplaced");
    assert_eq!((replaced.attempts, env.accepted_count()), (None, 1));
    env.annotate("nightly", "personalize-operator.io/retry-requested-at=now");
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 2);
    env.delete("nightly");
    import_nightly(&env);
    let found = env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!((found.attempts, env.accepted_count()), (Some(2), 2), "the later attempt is found behind the first one");
    env.check_invariants_settled();
}
