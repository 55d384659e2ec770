//! Accounts whose settings change while their jobs run.

use super::{
    ASSUME_ROLE, Account, annotate_namespace, calls_for, configure, env_with, external_id, settings, start, time,
};
use crate::env::proxy::Fault;
use crate::env::{TestEnv, eventually};
use crate::faults::{CREATE, DESCRIBE};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::fs;
use tokio::sync::watch;

/// After a failure only a change of the configuration can help before the test gives up.
const LONG_BACKOFFS: [&str; 5] =
    ["--backoff-min=1h", "--backoff-max=1h", "--rejected-min=1h", "--rejected-max=1h", "--grace=60s"];

/// Imports succeed soon after their accounts are configured with these settings.
fn configure_helps(env: &TestEnv, accounts: &[(Account, Value)], names: &[&str]) {
    let changed = Timestamp::now();
    configure(env, accounts.iter().cloned());
    for name in names {
        env.wait_for_reason(name, "ImportSucceeded");
    }
    for (account, _) in accounts {
        let calls = calls_for(env, *account);
        let first = calls.iter().map(time).find(|call| *call > changed).unwrap();
        assert!(first.duration_since(changed).as_secs() < 30, "changed at {changed}, first call at {first}");
    }
}

#[test]
fn fault_114_wrong_external_id_for_the_role_of_a_namespace_is_corrected_at_once() {
    let account = Account(3);
    let (_moto, env) = env_with(&[account]);
    // The account has no role of its own.
    configure(&env, [(account, json!({"externalId": "another"}))]);
    annotate_namespace(&env, &env.namespace, &format!("{ASSUME_ROLE}={}", account.role("Importer")));
    let _operator = start(&env, &LONG_BACKOFFS);
    env.apply(&account.import("nightly", "d0"));
    env.wait_for_reason("nightly", "CredentialsRefused");
    let message = env.wait_for_message("nightly", "can't be assumed");
    assert!(message.contains("external ID"), "{message}");
    configure_helps(&env, &[(account, json!({"externalId": external_id(account)}))], &["nightly"]);
    env.check_invariants_settled();
}

#[test]
fn fault_114_wrong_endpoint_is_corrected_at_once() {
    let accounts @ [closed, lost, old] = [3, 6, 9].map(Account);
    let (_moto, env) = env_with(&accounts);
    let endpoint = |dir: &str, error: &'static str| {
        let dir = env.dir().join(dir);
        fs::create_dir(&dir).unwrap();
        let proxy = env.start_proxy_in(&dir);
        proxy.inject(move |_| {
            Fault::Respond(400, Vec::new(), json!({"__type": error, "message": "injected"}).to_string())
        });
        proxy
    };
    let (not_found, invalid) =
        (endpoint("lost", "ResourceNotFoundException"), endpoint("old", "InvalidInputException"));
    let wrong = [(closed, "http://127.0.0.1:9"), (lost, &not_found.service_url), (old, &invalid.service_url)];
    configure(
        &env,
        wrong.map(|(account, url)| {
            let mut settings = settings(account);
            settings["endpoint"] = json!(url);
            (account, settings)
        }),
    );
    let _operator = start(&env, &LONG_BACKOFFS);
    let names = ["closed", "lost", "old"];
    for (name, account) in names.into_iter().zip(accounts) {
        env.apply(&account.import(name, "d0"));
    }
    for (name, reason) in names.into_iter().zip(["ServiceUnavailable", "DatasetNotReady", "InvalidInput"]) {
        env.wait_for_reason(name, reason);
    }
    configure_helps(&env, &accounts.map(|account| (account, settings(account))), &names);
    env.check_invariants_settled();
}

#[test]
fn fault_136_job_of_an_account_that_is_changed_removed_and_added_is_followed_to_its_end() {
    let account = Account(3);
    let (_moto, env) = env_with(&[account]);
    configure(&env, [(account, settings(account))]);
    env.service.set_durations(1, 6_000_000);
    let _operator = start(&env, &["--poll-min=4s", "--poll-max=4s"]);
    env.apply(&account.import("nightly", "d0"));
    env.wait_for_reason("nightly", "Importing");
    let job = env.status("nightly").job_name.unwrap();
    let polls = || -> Vec<Value> {
        let ledger = env.service.ledger();
        ledger.into_iter().filter(|call| call["operation"] == DESCRIBE && call["jobName"] == *job).collect()
    };

    // Another role, external ID and endpoint, and others again in one region.
    let near = env.start_proxy();
    let abroad_dir = env.dir().join("abroad");
    fs::create_dir(&abroad_dir).unwrap();
    let abroad = env.start_proxy_in(&abroad_dir);
    let (release, held) = watch::channel(false);
    abroad.inject(move |call| if call.label == CREATE { Fault::HoldUntil(held.clone()) } else { Fault::None });
    let to = |role: &str, endpoint: &str| {
        let id = format!("{role}-{}", external_id(account));
        json!({"roleArn": account.role(role), "externalId": id, "endpoint": endpoint})
    };
    let mut changed = to("Successor", &near.service_url);
    changed["regions"] = json!({account.other_region(): to("Abroad", &abroad.service_url)});
    configure(&env, [(account, changed.clone())]);
    let changed_at = Timestamp::now();
    let session = |role: &str| json!(account.session(role, "personalize-operator"));
    let is_of = |call: &Value, role: &str| call["caller"] == session(role);
    eventually("the job is polled under the new role", || {
        polls().iter().any(|poll| is_of(poll, "Successor")).then_some(())
    });
    let former = |poll: &&Value| time(poll) > changed_at && !is_of(poll, "Successor");
    let count = polls().iter().filter(former).count();
    assert!(count <= 1, "{count} polls under the former role after the change");

    env.apply(&account.import_into("abroad", &account.dataset_abroad("d0")));
    eventually("a create is in flight", || (abroad.count(CREATE) > 0).then_some(()));
    configure(&env, []);
    env.wait_for_message("nightly", "no role is configured");
    configure(&env, [(account, changed)]);
    eventually("the job is polled again", || is_of(polls().last()?, "Successor").then_some(()));
    release.send(true).unwrap();
    env.service.set_durations(1, 1);
    for name in ["nightly", "abroad"] {
        env.wait_for_reason(name, "ImportSucceeded");
    }
    assert_eq!(env.accepted_count(), 2);

    let ledger = env.service.ledger();
    let first = ledger.iter().position(|call| is_of(call, "Successor")).unwrap();
    let former = account.session("Importer", "session-3");
    assert!(ledger[first..].iter().all(|call| call["caller"] != former), "the former role is not used again");
    for (role, proxy, region) in [("Successor", &near, account.region()), ("Abroad", &abroad, account.other_region())] {
        let calls: Vec<&Value> = ledger.iter().filter(|call| is_of(call, role)).collect();
        assert!(calls.iter().all(|call| call["region"] == region), "{role}: {calls:?}");
        assert_eq!(calls.len(), proxy.calls().len(), "each call of {role}, and no other, goes to its endpoint");
    }
    env.check_invariants_settled();
}
