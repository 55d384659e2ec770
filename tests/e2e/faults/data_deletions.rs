//! Data deletion jobs in the dataset group of an import.

use super::{CREATE, import_nightly};
use crate::env::{SHORT_LEASE, TestEnv, eventually};
use crate::rng::{Rng, seed};
use serde_json::json;

const LIST: &str = "ListDataDeletionJobs";

#[test]
fn fault_128_import_waits_until_a_data_deletion_has_ended() {
    let env = TestEnv::new();
    env.service.start_data_deletion("erasure", "shop");
    env.service.start_data_deletion("elsewhere", "another");
    let operator = env.start_operator(&[SHORT_LEASE]);
    import_nightly(&env);
    let waits = env.wait_for_reason("nightly", "DataDeletionRunning");
    assert_eq!(waits.phase.as_deref(), Some("Pending"));
    assert!(waits.conditions[0].message.contains("waiting for the data deletion job erasure to finish"));
    // A successor waits as well.
    operator.kill();
    let _operator = env.start_operator(&["--identity=two", SHORT_LEASE]);
    let listed = env.service.call_count(LIST);
    eventually("the successor lists them again", || (env.service.call_count(LIST) > listed + 1).then_some(()));
    assert_eq!(env.service.call_count(CREATE), 0);
    env.service.finish_data_deletion("erasure");
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 1);
    env.check_invariants_settled();
}

#[test]
fn fault_128_no_import_is_accepted_within_a_data_deletion_in_random_lives() {
    let env = TestEnv::new();
    env.service.set_durations(1, 1);
    let seed = seed("LIVES_SEED");
    println!("LIVES_SEED={seed}");
    let mut rng = Rng::new(seed);
    let lives = std::env::var("LIVES").ok().and_then(|lives| lives.parse().ok()).unwrap_or(12);
    for life in 0..lives {
        let operator = env.start_operator(&[]);
        let (import, deletion) = (format!("life-{life}"), format!("erasure-{life}"));
        let deletion_first = rng.one_in(2);
        if deletion_first {
            env.service.start_data_deletion(&deletion, "shop");
        }
        env.import(&import, "d0", json!({}));
        std::thread::sleep(rng.millis(0, 300));
        if !deletion_first {
            env.service.start_data_deletion(&deletion, "shop");
        }
        std::thread::sleep(rng.millis(0, 500));
        operator.kill();
        let _operator = env.start_operator(&[]);
        std::thread::sleep(rng.millis(0, 700));
        env.service.finish_data_deletion(&deletion);
        env.wait_for_reason(&import, "ImportSucceeded");
    }
    assert_eq!(env.accepted_count(), lives);
    env.check_invariants_settled();
}

#[test]
fn fault_129_imports_continue_without_the_permission_to_list_data_deletions() {
    let env = TestEnv::new();
    let denied = json!({"error": {"code": "AccessDeniedException", "message": "injected", "status": 400}});
    env.service.inject_fault(&json!({"operation": LIST, "count": 0, "action": denied}));
    env.service.start_data_deletion("erasure", "shop");
    let operator = env.start_operator(&[]);
    for (name, dataset) in [("one", "d0"), ("two", "d1"), ("three", "d2")] {
        env.import(name, dataset, json!({}));
        env.wait_for_reason(name, "ImportSucceeded");
    }
    let said = |name: &str| {
        let reasons = env.event_reasons(name);
        reasons.iter().filter(|reason| *reason == "DataDeletionsUnchecked").count()
    };
    eventually("an event says it", || (said("one") == 1).then_some(()));
    assert_eq!((said("two"), said("three")), (0, 0), "once for the account and region");
    let log = operator.log();
    assert_eq!(log.lines().filter(|line| line.contains("data deletion jobs of account")).count(), 1, "{log}");
    env.check_invariants_settled();
}
