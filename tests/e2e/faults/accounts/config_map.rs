//! The ConfigMap of accounts: what is refused, what is missing, and tags of all jobs.

use super::{Account, apply_document, configure, env_with, events, settings, start};
use crate::env::{OperatorProcess, TestEnv, eventually, text};
use serde_json::{Value, json};

/// The notes of the events about the ConfigMap.
fn config_map_events(env: &TestEnv) -> String {
    events(env, "involvedObject.kind=ConfigMap,involvedObject.name=accounts")
}

fn is_valid(operator: &OperatorProcess) -> bool {
    operator.metrics().contains("personalize_operator_accounts_config_valid 1")
}

#[test]
fn fault_116_invalid_configuration_is_refused_by_name_and_the_last_valid_one_stays_active() {
    let (good, bad) = (Account(3), Account(6));
    let (_moto, env) = env_with(&[good, bad]);
    configure(&env, [(good, settings(good))]);
    // A refusal and a correction act at once.
    let operator = start(&env, &["--rejected-min=1h", "--rejected-max=1h"]);
    assert!(is_valid(&operator));
    env.apply(&bad.import("bad", "d0"));
    env.wait_for_message("bad", "no role is configured");
    let named = format!("the ConfigMap {}/accounts is refused", env.namespace);
    let refused = |document: &str, expected: &str| {
        apply_document(&env, document);
        eventually(&format!("an event has {expected:?}"), || config_map_events(&env).contains(expected).then_some(()));
        assert!(!is_valid(&operator) && operator.log().contains("is refused"), "{document}");
        let message = env.wait_for_message("bad", expected);
        assert!(message.contains(&named) && message.contains("no role is configured"), "{message}");
        env.wait_for_reason("bad", "AccessDenied");
    };
    let id = bad.id();
    refused(&format!("accounts: {{'{id}': {{roleArm: x}}}}"), &format!("accounts.{id}: unknown field `roleArm`"));
    refused(&format!("accounts:\n  '{id}': {{}}\n  '{id}': {{}}\n"), &format!("{id} is given twice"));
    let malformed = format!("accounts.{id}.roleArn: \"Importer\" must be the ARN of a role of this account");
    refused(&format!("accounts: {{'{id}': {{roleArn: Importer}}}}"), &malformed);

    env.apply(&good.import("good", "d0"));
    env.wait_for_reason("good", "ImportSucceeded");

    configure(&env, [good, bad].map(|account| (account, settings(account))));
    env.wait_for_reason("bad", "ImportSucceeded");
    assert!(is_valid(&operator) && config_map_events(&env).contains("AccountsActive"));
    env.check_invariants_settled();
}

#[test]
fn fault_119_config_map_that_is_missing_at_the_start_stops_all_calls_until_it_exists() {
    let account = Account(3);
    let (_moto, env) = env_with(&[account]);
    let operator = start(&env, &["--backoff-min=280s", "--backoff-max=280s", "--grace=60s"]);
    env.apply(&account.import("nightly", "d0"));
    env.wait_for_reason("nightly", "CredentialsRefused");
    let message = env.wait_for_message("nightly", "it does not exist");
    assert!(message.contains(&format!("the ConfigMap {}/accounts", env.namespace)), "{message}");
    assert_eq!(env.service.ledger().len(), 0, "no call is made with other credentials");
    assert!(!is_valid(&operator));
    configure(&env, [(account, settings(account))]);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert!(is_valid(&operator));
    // Without it the last configuration stays active.
    let deleted = env.kubectl(&["delete", "configmap", "accounts"]);
    assert!(deleted.status.success(), "{}", text(&deleted));
    eventually("the metric says so", || (!is_valid(&operator)).then_some(()));
    env.apply(&account.import("next", "d1"));
    env.wait_for_reason("next", "ImportSucceeded");
    env.check_invariants_settled();
}

#[test]
fn default_tags_label_every_job_and_change_nothing_else() {
    let account = Account(3);
    let (_moto, env) = env_with(&[account]);
    let configure = |owner: &str| {
        let accounts = json!({account.id(): settings(account)});
        apply_document(
            &env,
            &json!({"accounts": accounts, "defaultTags": {"owner": owner, "team": "default"}}).to_string(),
        );
    };
    configure("first");
    let operator = start(&env, &[]);
    let mut import = account.import("nightly", "d0");
    import["spec"]["tags"] = json!([{"tagKey": "team", "tagValue": "shop"}]);
    env.apply(&import);
    env.wait_for_reason("nightly", "ImportSucceeded");
    let value = |key: &str| {
        let jobs = env.service.jobs();
        let tags = jobs[0]["tags"].as_array().unwrap();
        let values: Vec<Value> =
            tags.iter().filter(|tag| tag["tagKey"] == key).map(|tag| tag["tagValue"].clone()).collect();
        values
    };
    assert_eq!((value("team"), value("owner")), (vec![json!("shop")], vec![json!("first")]));
    // The job still belongs to the resource when the defaults are others.
    configure("second");
    eventually("the change is active", || {
        (operator.log().matches("the configuration of accounts is active").count() >= 2).then_some(())
    });
    env.delete("nightly");
    env.apply(&import);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!((env.accepted_count(), value("owner")), (1, vec![json!("first")]));
    env.check_invariants_settled();
}
