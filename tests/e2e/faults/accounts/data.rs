//! With which role data is read in S3.

use super::{ASSUME_ROLE, Account, CONFIG_MAP, annotate_namespace, configure, env_with, external_id};
use crate::env::recorder::Recorder;
use crate::env::s3::S3;
use crate::env::{eventually, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The text between two others.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    Some(text.split_once(before)?.1.split_once(after)?.0)
}

#[test]
fn fault_117_data_of_a_namespace_is_read_under_its_own_role_although_it_is_in_the_bucket_of_another() {
    let account = Account(3);
    let (_moto, mut env) = env_with(&[account]);
    let mallory = env.add_tenant("mallory");
    let role = json!({"roleArn": account.role("Importer"), "externalId": external_id(account)});
    configure(&env, [(account, role)]);
    annotate_namespace(&env, &env.namespace, &format!("{ASSUME_ROLE}={}", account.role("Victim")));
    annotate_namespace(&env, &mallory, &format!("{ASSUME_ROLE}={}", account.role("Mallory")));
    let s3 = S3::start(env.dir());
    let row = "user,item,1700000000\n";
    for key in ["own.csv", "secret.csv"] {
        s3.put(key, &format!("USER_ID,ITEM_ID,TIMESTAMP\n{}", row.repeat(1500)));
    }
    let (bucket, sts) = (Recorder::start(s3.url()), Recorder::start(env.service.url()));
    let sts_url = format!("{}/_local/sts", sts.url);
    let vars = [("AWS_ENDPOINT_URL_STS", sts_url.as_str()), ("AWS_ENDPOINT_URL_S3", bucket.url.as_str())];
    // A check that only warns does not repeat a read without an answer.
    let flags = [CONFIG_MAP, "--preflight=warn"];
    let _operator = env.start_operator_with(&vars, &flags);
    let import = |name: &str, dataset: &str, key: &str| -> Value {
        let mut import = account.import(name, dataset);
        import["spec"]["dataSource"]["dataLocation"] = json!(format!("s3://bucket/{key}"));
        import
    };
    env.apply(&import("nightly", "vault/d0", "own.csv"));
    env.wait_for_reason("nightly", "ImportSucceeded");
    let attack = import("attack", "mallory/d0", "secret.csv").to_string();
    let applied = env.control_plane.kubectl(&["-n", &mallory, "apply", "-f", "-"], Some(&attack)).unwrap();
    assert!(applied.status.success(), "{}", text(&applied));
    let reason = "jsonpath={.status.conditions[?(@.type=='Ready')].reason}";
    eventually("mallory's import ends", || {
        let read = env.control_plane.kubectl(&["-n", &mallory, "get", "dij", "attack", "-o", reason], None).unwrap();
        (text(&read) == "ImportSucceeded").then_some(())
    });

    let issued = sts.exchanges();
    let keys_of = |role: &str| -> BTreeSet<&str> {
        let of_role = issued.iter().filter(|exchange| exchange.contains(&format!("assumed-role/{role}/")));
        of_role.filter_map(|exchange| between(exchange, "<AccessKeyId>", "</AccessKeyId>")).collect()
    };
    let reads = bucket.exchanges();
    for (key, role) in [("own.csv", "Victim"), ("secret.csv", "Mallory")] {
        let of_key = reads.iter().filter(|read| read.lines().next().is_some_and(|line| line.contains(key)));
        let signed_by: BTreeSet<&str> = of_key.map(|read| between(read, "Credential=", "/").unwrap()).collect();
        assert!(!signed_by.is_empty() && signed_by.is_subset(&keys_of(role)), "{key} is read by {signed_by:?}");
        let objects = reads.iter().filter(|read| read.starts_with(&format!("GET /bucket/{key}"))).count();
        assert!(objects > 0, "{key} is read, not only listed: {reads:?}");
    }
    env.check_invariants_settled();
}
