//! Accounts: with which role each call is signed. The STS is that of moto, and the stand-in checks trust policies,
//! signatures and sessions.

mod changes;
mod config_map;
mod data;
mod isolation;
mod tenants;

use crate::env::moto::Moto;
use crate::env::personalize_local::{ACCESS_KEY, SCHEMA, SECRET_KEY};
use crate::env::{ACCOUNT, OperatorProcess, TestEnv, shared_control_plane, text};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const CONFIG_MAP: &str = "--accounts-config-map=accounts";
const ASSUME_ROLE: &str = "personalize-operator.io/assume-role-arn";
const NAMESPACE_TAG: &str = "personalize-operator.io/namespace";

/// One of many accounts: every third one is in the same partition.
#[derive(Clone, Copy)]
struct Account(usize);

impl Account {
    fn id(self) -> String {
        format!("{}", 100_000_000_000 + self.0)
    }

    fn partition(self) -> &'static str {
        ["aws", "aws-cn", "aws-us-gov"][self.0 % 3]
    }

    fn region(self) -> &'static str {
        ["eu-west-1", "cn-north-1", "us-gov-west-1"][self.0 % 3]
    }

    fn other_region(self) -> &'static str {
        ["us-east-1", "cn-northwest-1", "us-gov-east-1"][self.0 % 3]
    }

    fn role(self, name: &str) -> String {
        format!("arn:{}:iam::{}:role/{name}", self.partition(), self.id())
    }

    /// How messages name a role.
    fn named(self, role: &str) -> String {
        format!("{} for account {} in {}", self.role(role), self.id(), self.region())
    }

    /// The ARN of a session of a role.
    fn session(self, role: &str, session: &str) -> String {
        format!("arn:{}:sts::{}:assumed-role/{role}/{session}", self.partition(), self.id())
    }

    /// A dataset `GROUP/NAME`, or of the group `shop`.
    fn dataset(self, name: &str) -> String {
        let path = if name.contains('/') { name.to_owned() } else { format!("shop/{name}") };
        format!("arn:{}:personalize:{}:{}:dataset/{path}", self.partition(), self.region(), self.id())
    }

    /// The same dataset in another region.
    fn dataset_abroad(self, name: &str) -> String {
        self.dataset(name).replace(self.region(), self.other_region())
    }

    fn import(self, name: &str, dataset: &str) -> Value {
        self.import_into(name, &self.dataset(dataset))
    }

    fn import_into(self, name: &str, dataset_arn: &str) -> Value {
        TestEnv::manifest(name, "", json!({"datasetArn": dataset_arn, "roleArn": self.role("Reader")}))
    }
}

/// An environment with these accounts behind an STS. The roles `Importer`, `Successor` and `Abroad` of each demand an
/// external ID.
fn env_with(accounts: &[Account]) -> (Moto, TestEnv) {
    let moto = Moto::start();
    let dataset = |account: &Account| {
        let own = ["d0", "d1", "vault/d0", "mallory/d0"].map(|name| account.dataset(name));
        own.into_iter()
            .chain([account.dataset_abroad("d0")])
            .map(|arn| json!({"arn": arn, "type": "Interactions", "schema": SCHEMA}))
    };
    let external_ids = |account: &Account| {
        let (account, id) = (*account, external_id(*account));
        let others = ["Successor", "Abroad"].map(|role| (account.role(role), format!("{role}-{id}")));
        others.into_iter().chain([(account.role("Importer"), id)])
    };
    let external_ids: BTreeMap<String, String> = accounts.iter().flat_map(external_ids).collect();
    let own = json!({"id": ACCOUNT, "accessKeys": [{"id": ACCESS_KEY, "secret": SECRET_KEY}]});
    let seeded = accounts.iter().map(|account| json!({"id": account.id()})).chain([own]);
    let settings = json!({
        "accounts": seeded.collect::<Vec<_>>(),
        "datasets": accounts.iter().flat_map(dataset).collect::<Vec<Value>>(),
        "refusals": {"externalIds": external_ids},
    });
    let env = TestEnv::with_sts(shared_control_plane(), &settings, Some(&moto.url));
    (moto, env)
}

fn external_id(account: Account) -> String {
    format!("id-{}", account.0)
}

fn settings(account: Account) -> Value {
    json!({
        "roleArn": account.role("Importer"), "externalId": external_id(account),
        "sessionName": format!("session-{}", account.0), "sessionTags": {"team": format!("t{}", account.0)},
        "tagNamespace": account.0.is_multiple_of(2),
    })
}

/// Applies the ConfigMap with these settings of accounts.
fn configure(env: &TestEnv, accounts: impl IntoIterator<Item = (Account, Value)>) {
    let accounts: BTreeMap<String, Value> = accounts.into_iter().map(|(a, settings)| (a.id(), settings)).collect();
    apply_document(env, &json!({"accounts": accounts}).to_string());
}

fn apply_document(env: &TestEnv, document: &str) {
    env.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "accounts"}, "data": {"accounts.yaml": document},
    }));
}

fn start(env: &TestEnv, flags: &[&str]) -> OperatorProcess {
    let flags = [&[CONFIG_MAP], flags].concat();
    env.start_operator_with(&[("AWS_ENDPOINT_URL_STS", &sts(env))], &flags)
}

fn sts(env: &TestEnv) -> String {
    format!("{}/_local/sts", env.service.url())
}

fn annotate_namespace(env: &TestEnv, namespace: &str, annotation: &str) {
    let annotated = env.kubectl(&["annotate", "--overwrite", "namespace", namespace, annotation]);
    assert!(annotated.status.success(), "{}", text(&annotated));
}

fn calls_for(env: &TestEnv, account: Account) -> Vec<Value> {
    env.service.ledger().into_iter().filter(|call| call["account"] == account.id()).collect()
}

fn events(env: &TestEnv, selector: &str) -> String {
    let args = [
        "get",
        "events",
        "--field-selector",
        selector,
        "-o",
        "jsonpath={range .items[*]}{.reason}: {.message}{\"\\n\"}{end}",
    ];
    text(&env.kubectl(&args))
}

/// When the service got a call.
fn time(call: &Value) -> Timestamp {
    call["time"].as_str().unwrap().parse().unwrap()
}
