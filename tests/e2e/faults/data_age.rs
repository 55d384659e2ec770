//! The age of the data in each dataset, as the metrics show it.

use crate::env::{OperatorProcess, SHORT_LEASE, TestEnv, eventually};
use serde_json::json;

/// The sample of a metric for the dataset `shop/d0`.
fn sample(operator: &OperatorProcess, metric: &str) -> Option<f64> {
    let labels = "{account=\"123456789012\",region=\"eu-west-1\",group=\"shop\",type=\"d0\"} ";
    let series = format!("personalize_operator_{metric}{labels}");
    operator.metrics().lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
}

#[test]
fn fault_130_age_of_the_data_is_known_after_a_kill_and_a_change_of_leader_without_a_call() {
    let env = TestEnv::new();
    let mut manifest = TestEnv::manifest("nightly", "d0", json!({}));
    manifest["metadata"]["annotations"] = json!({"personalize-operator.io/max-data-age": "26h"});
    env.apply(&manifest);
    let leader = env.start_operator(&[SHORT_LEASE]);
    let ended = env.wait_for_reason("nightly", "ImportSucceeded").completion_time.unwrap().0.as_second() as f64;
    let age = |operator: &OperatorProcess| {
        let found = (sample(operator, "last_success_timestamp_seconds"), sample(operator, "max_data_age_seconds"));
        (found == (Some(ended), Some(93_600.0))).then_some(())
    };
    eventually("the leader shows the age", || age(&leader));
    // A failed import does not change it.
    env.import("failing", "d0", json!({"dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    env.wait_for_reason("failing", "ImportFailed");
    let (calls, writes) = (env.service.ledger().len(), env.operator_write_count("nightly"));
    let standby = env.start_operator(&["--identity=two", SHORT_LEASE]);
    let shown = sample(&standby, "last_success_timestamp_seconds");
    // On a busy machine the leader may lose its lease.
    assert!(shown.is_none() || standby.log().contains("\"leading\""), "only the leader shows it: {shown:?}");
    leader.kill();
    eventually("the next leader shows the age", || age(&standby));
    standby.kill();
    let restarted = env.start_operator(&["--identity=two", SHORT_LEASE]);
    eventually("the restarted leader shows the age", || age(&restarted));
    assert_eq!((env.service.ledger().len(), env.operator_write_count("nightly")), (calls, writes));
    env.check_invariants_settled();
}
