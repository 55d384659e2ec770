//! Lists of all jobs of an account and region, which replace polls.

use super::{DESCRIBE, error_response};
use crate::env::proxy::Fault;
use crate::env::{SHORT_TIMEOUTS, TestEnv, dataset_arn, eventually};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// How many lists of all jobs the service has answered.
fn shared_lists(env: &TestEnv) -> usize {
    let is_list = |call: &&Value| call["operation"] == "ListDatasetImportJobs" && call["datasetArn"].is_null();
    env.service.ledger().iter().filter(is_list).count()
}

/// Imports into three datasets at once, and waits until the jobs run.
fn run_three(env: &TestEnv) {
    env.service.set_durations(100, 600_000);
    NAMES.iter().zip(["d0", "d1", "d2"]).for_each(|(name, dataset)| env.import(name, dataset, json!({})));
    NAMES.iter().for_each(|name| drop(env.wait_for_reason(name, "Importing")));
}

/// Ends three imports, and waits until that is recorded.
fn finish_three(env: &TestEnv) {
    for name in NAMES {
        env.service.finish_job(&env.status(name).job_name.unwrap());
        env.wait_for_reason(name, "ImportSucceeded");
    }
    env.check_invariants_settled();
}

#[test]
fn one_list_replaces_the_polls_of_jobs_that_run_at_once() {
    let env = TestEnv::new();
    // Each job is described at times, too, after a multiple of the longest interval.
    let _operator = env.start_operator(&["--poll-max=2s"]);
    run_three(&env);
    let (lists, polls) = (shared_lists(&env), env.service.call_count(DESCRIBE));
    eventually("lists are read", || (shared_lists(&env) >= lists + 10).then_some(()));
    let (lists, polls) = (shared_lists(&env) - lists, env.service.call_count(DESCRIBE) - polls);
    assert!(polls < lists, "{polls} polls and {lists} lists");
    finish_three(&env);
}

#[test]
fn fault_133_refused_list_is_not_repeated_and_each_job_is_polled() {
    let env = TestEnv::new();
    let _operator = env.start_operator(&[]);
    run_three(&env);
    let refusal = json!({"error": {"code": "AccessDeniedException", "message": "not authorized"}});
    env.service.inject_fault(&json!({"operation": "ListDatasetImportJobs", "count": 0, "action": refusal}));
    let is_refused = |call: &Value| call["datasetArn"].is_null() && call["errorCode"] == "AccessDeniedException";
    eventually("a list is refused", || env.service.ledger().iter().any(is_refused).then_some(()));
    let (lists, polls) = (shared_lists(&env), env.service.call_count(DESCRIBE));
    eventually("each job is polled", || (env.service.call_count(DESCRIBE) >= polls + 9).then_some(()));
    finish_three(&env);
    assert_eq!(shared_lists(&env), lists, "a refused list is not repeated");
}

#[test]
fn fault_134_jobs_that_the_list_does_not_show_are_polled() {
    let env = TestEnv::new();
    for i in 0..100 {
        env.service.put_job(&json!({"name": format!("old-{i}"), "datasetArn": dataset_arn("d9")}));
    }
    let _operator = env.start_operator(&[]);
    run_three(&env);
    eventually("a list is read", || (shared_lists(&env) > 0).then_some(()));
    let polls = env.service.call_count(DESCRIBE);
    eventually("each job is polled", || (env.service.call_count(DESCRIBE) >= polls + 9).then_some(()));
    finish_three(&env);
    assert_eq!(shared_lists(&env), 1, "a list that shows none of the jobs is not repeated");
}

#[test]
fn fault_135_list_without_an_answer_holds_up_no_job() {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    let _operator = env.spawn_operator_behind(&proxy, &SHORT_TIMEOUTS);
    run_three(&env);
    let hangs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hangs);
    proxy.inject(move |call| {
        if call.label != "ListDatasetImportJobs" {
            return Fault::None;
        }
        match count.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => Fault::HangResponse,
            _ => error_response("ThrottlingException"),
        }
    });
    eventually("a list hangs", || (hangs.load(Ordering::Relaxed) > 0).then_some(()));
    finish_three(&env);
}
