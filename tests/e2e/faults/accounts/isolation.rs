//! What fails in one account delays no other.

use super::{Account, NAMESPACE_TAG, calls_for, configure, env_with, events, settings, start, time};
use crate::env::{TestEnv, eventually};
use crate::faults::service::{error, ready_state};
use crate::faults::{CREATE, DESCRIBE};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The notes of the events about an import.
fn import_events(env: &TestEnv, name: &str) -> String {
    events(env, &format!("involvedObject.kind=DatasetImportJob,involvedObject.name={name}"))
}

#[test]
fn fault_114_wrong_external_id_and_throttled_account_delay_no_other() {
    let accounts: Vec<Account> = (0..50).map(Account).collect();
    let (_moto, env) = env_with(&accounts);
    let (wrong, throttled) = (Account(0), Account(1));
    let wrong_settings = {
        let mut settings = settings(wrong);
        settings["externalId"] = json!("another");
        settings
    };
    let others = || accounts[1..].iter().map(|account| (*account, settings(*account)));
    configure(&env, others().chain([(wrong, wrong_settings)]));
    let refusal = error("ThrottlingException", "Rate exceeded", 400);
    env.service.inject_fault(&json!({"account": throttled.id(), "count": 0, "action": refusal}));
    let denied = Account(2);
    let denial = error("AccessDeniedException", "injected", 400);
    env.service.inject_fault(&json!({"account": denied.id(), "operation": CREATE, "action": denial}));
    // An account that waits for another one would wait for minutes.
    let backoff = Duration::from_secs(280);
    let _operator = start(&env, &["--backoff-min=280s", "--backoff-max=280s", "--grace=60s"]);
    let started = Instant::now();
    let imports: Vec<Value> = accounts.iter().map(|a| a.import(&format!("a{}", a.0), "d0")).collect();
    env.apply(&json!({"apiVersion": "v1", "kind": "List", "items": imports}));
    for account in &accounts[2..] {
        env.wait_for_reason(&format!("a{}", account.0), "ImportSucceeded");
    }
    assert!(started.elapsed() < backoff, "{:?}", started.elapsed());
    let denial = format!("injected (called with the role {})", denied.named("Importer"));
    eventually("an event names the denied role", || import_events(&env, "a2").contains(&denial).then_some(()));
    let (_, message) = ready_state(&env.wait_for_reason("a1", "Throttled"));
    let at = format!("for account {} in {}", throttled.id(), throttled.region());
    assert!(message.contains(&at) && message.contains(&throttled.role("Importer")), "{message}");
    assert!(calls_for(&env, throttled).len() <= 10, "{}", calls_for(&env, throttled).len());

    let message = env.wait_for_message("a0", "can't be assumed");
    assert!(
        message.contains(&format!("the role {}", wrong.named("Importer"))) && message.contains("external ID"),
        "{message}"
    );
    assert_eq!(calls_for(&env, wrong).len(), 0, "no call is made with other credentials");
    configure(&env, others().chain([(wrong, settings(wrong))]));
    let changed = Timestamp::now();
    env.wait_for_reason("a0", "ImportSucceeded");
    let first = time(&calls_for(&env, wrong)[0]);
    assert!(first.duration_since(changed).as_secs() < 30, "changed at {changed}, first call at {first}");

    for account in &accounts {
        let calls = calls_for(&env, *account);
        let mut tags = json!({"team": format!("t{}", account.0)});
        if account.0.is_multiple_of(2) {
            tags[NAMESPACE_TAG] = json!(env.namespace);
        }
        let expected = (account.session("Importer", &format!("session-{}", account.0)), tags);
        for call in &calls {
            let signed = (call["caller"].as_str().unwrap().to_owned(), call["sessionTags"].clone());
            assert_eq!((signed, call["region"].as_str().unwrap()), (expected.clone(), account.region()), "{call}");
        }
    }
    env.check_invariants();
}

#[test]
fn fault_114_wrong_external_id_expired_session_and_throttling_delay_no_poll_of_another_account() {
    let accounts: Vec<Account> = (0..50).map(Account).collect();
    let (_moto, env) = env_with(&accounts);
    let (wrong, throttled, expired) = (Account(0), Account(1), Account(2));
    configure(&env, accounts.iter().map(|account| (*account, settings(*account))));
    env.service.set_durations(1, 6_000_000);
    // The polls of jobs are regular: three intervals take as long as twelve renewals of the Lease, which are at least 1.5 s
    // apart. One interval more than a poll that is delayed by another is for a slow machine.
    let _operator = start(&env, &["--poll-min=6s", "--poll-max=6s", "--lease-duration=15s"]);
    let apply_imports = |accounts: &[Account], prefix: &str, dataset: &str| {
        let imports: Vec<Value> = accounts.iter().map(|a| a.import(&format!("{prefix}{}", a.0), dataset)).collect();
        env.apply(&json!({"apiVersion": "v1", "kind": "List", "items": imports}));
    };
    apply_imports(&accounts, "a", "d0");
    for account in &accounts {
        env.wait_for_reason(&format!("a{}", account.0), "Importing");
    }

    let begin = Timestamp::now();
    let mut wrong_settings = settings(wrong);
    wrong_settings["externalId"] = json!("another");
    configure(&env, accounts[1..].iter().map(|a| (*a, settings(*a))).chain([(wrong, wrong_settings)]));
    let refusal = error("ThrottlingException", "Rate exceeded", 400);
    env.service.inject_fault(&json!({"account": throttled.id(), "count": 0, "action": refusal}));
    env.service.expire_sessions(&expired.id());
    // In each of the three accounts one job runs, and another import is submitted.
    apply_imports(&accounts[..3], "b", "d1");
    env.wait_for_message("a0", "can't be assumed");
    let at = format!("throttling requests for account {} in {}", throttled.id(), throttled.region());
    let message = env.wait_for_message("a1", &at);
    assert!(message.contains(&throttled.role("Importer")), "{message}");
    env.wait_for_reason("b0", "CredentialsRefused");
    env.wait_for_reason("b1", "Throttled");
    env.wait_for_reason("b2", "Importing");
    let staged = Timestamp::now();
    let is_poll = |call: &Value, account: &Account| call["operation"] == DESCRIBE && call["account"] == account.id();
    let polls_of = |ledger: &[Value], account: &Account| -> Vec<Timestamp> {
        ledger.iter().filter(|call| is_poll(call, account)).map(time).collect()
    };
    eventually("each job is polled four times since then", || {
        let ledger = env.service.ledger();
        let is_polled = |account| polls_of(&ledger, account).iter().filter(|at| **at > staged).count() >= 4;
        accounts[3..].iter().all(is_polled).then_some(())
    });
    let (ledger, end, renewals) = (env.service.ledger(), Timestamp::now(), env.renewals());
    for account in &accounts[3..] {
        let mut polls = polls_of(&ledger, account);
        polls.push(end);
        let gaps = polls.windows(2).filter(|pair| pair[1] > begin);
        let renewals_in = |gap: &[Timestamp]| {
            let [from, to] = [gap[0], gap[1]].map(Timestamp::as_millisecond);
            renewals.iter().filter(|at| (from..to).contains(*at)).count()
        };
        let longest = gaps.map(renewals_in).max().unwrap();
        assert!(longest <= 12, "{longest} renewals of the Lease between two polls in {}: {polls:?}", account.id());
    }
    let is_expired = |call: &&Value| call["errorCode"] == "ExpiredTokenException";
    assert!(ledger.iter().any(|call| is_expired(&call)), "a session has expired");
    let is_throttled = |call: &&Value| call["account"] == throttled.id() && time(call) > begin;
    assert!(ledger.iter().any(|call| is_throttled(&call)), "an account is throttled");

    env.service.clear_faults();
    configure(&env, accounts.iter().map(|account| (*account, settings(*account))));
    env.service.set_durations(1, 1);
    let names = (0..50).map(|i| format!("a{i}")).chain((0..3).map(|i| format!("b{i}")));
    names.for_each(|name| drop(env.wait_for_reason(&name, "ImportSucceeded")));
    assert_eq!(env.accepted_count(), 53);
    env.check_invariants_settled();
}

#[test]
fn fault_115_session_that_expires_early_is_renewed() {
    let (expires, other) = (Account(3), Account(4));
    let (_moto, env) = env_with(&[expires, other]);
    configure(&env, [expires, other].map(|account| (account, settings(account))));
    env.service.set_durations(1, 600_000);
    let _operator = start(&env, &[]);
    env.apply(&expires.import("expires", "d0"));
    env.apply(&other.import("other", "d0"));
    env.wait_for_reason("expires", "Importing");
    env.wait_for_reason("other", "Importing");
    env.service.expire_sessions(&expires.id());
    // The service knows no account of a call with an expired session.
    let is_expired = |call: &Value| call["errorCode"] == "ExpiredTokenException";
    eventually("polls succeed again", || {
        let ledger = env.service.ledger();
        let last = ledger.iter().rposition(is_expired)?;
        (ledger[last..].iter().filter(|call| call["account"] == expires.id()).count() > 2).then_some(())
    });
    let refused = format!("the session of the role {} is refused (ExpiredTokenException)", expires.named("Importer"));
    eventually("an event names the refused session", || {
        import_events(&env, "expires").contains(&refused).then_some(())
    });
    assert!(!import_events(&env, "other").contains("is refused"), "{}", import_events(&env, "other"));
    env.service.set_durations(1, 1);
    env.wait_for_reason("expires", "ImportSucceeded");
    env.wait_for_reason("other", "ImportSucceeded");
    let expired = env.service.ledger().into_iter().filter(is_expired).collect::<Vec<_>>();
    assert!(expired.len() <= 2 && expired.iter().all(|call| call["arn"].as_str().unwrap().contains(&expires.id())));
    assert_eq!(env.accepted_count(), 2);
    env.check_invariants_settled();
}
