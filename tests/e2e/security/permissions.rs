//! The chart grants the permissions that the operator uses, and no others.

use crate::env::personalize_local::OTHER_ACCOUNT;
use crate::env::{OperatorProcess, TestEnv, eventually, text};
use crate::helm;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// Entries `apiGroup/resource verb`, as in RBAC.
type Grants = BTreeSet<String>;

fn granted<'a>(roles: impl IntoIterator<Item = &'a Value>) -> Grants {
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(String::from)).collect()
    };
    let mut grants = Grants::new();
    for rule in roles.into_iter().flat_map(|role| role["rules"].as_array().cloned().unwrap_or_default()) {
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                grants.extend(strings(&rule["verbs"]).iter().map(|verb| format!("{group}/{resource} {verb}")));
            }
        }
    }
    grants
}

/// What a user did, and what it was denied, according to the audit log.
fn audited(env: &TestEnv, user: &str) -> (Grants, Grants) {
    let (mut done, mut denied) = (Grants::new(), Grants::new());
    for line in fs::read_to_string(env.control_plane.audit_log()).unwrap().lines().filter(|line| line.contains(user)) {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        if line["user"]["username"] != user {
            continue;
        }
        let object = &line["objectRef"];
        let word = |key: &str| object[key].as_str().unwrap_or_default();
        let sub = if word("subresource").is_empty() { String::new() } else { format!("/{}", word("subresource")) };
        let verb = line["verb"].as_str().unwrap_or_default();
        let grant = if object.is_null() {
            format!("{} {verb}", line["requestURI"])
        } else {
            format!("{}/{}{sub} {verb}", word("apiGroup"), word("resource"))
        };
        let allowed = line["annotations"]["authorization.k8s.io/decision"] == "allow";
        if allowed {
            done.insert(grant)
        } else {
            denied.insert(grant)
        };
    }
    (done, denied)
}

/// The resources of a release in the namespace of the test.
fn release(env: &TestEnv, values: &Value) -> Vec<Value> {
    let text = serde_json::to_string(&helm::resources(values)).unwrap();
    serde_json::from_str(&text.replace("\"personalize\"", &format!("\"{}\"", env.namespace))).unwrap()
}

/// Applies what these resources grant. Returns the operator's user and its kubeconfig.
fn apply_grants(env: &TestEnv, resources: &[Value]) -> (String, PathBuf) {
    for kind in ["Role", "RoleBinding"] {
        for resource in helm::of_kind(resources, kind) {
            let applied = env.control_plane.kubectl(&["apply", "-f", "-"], Some(&resource.to_string())).unwrap();
            assert!(applied.status.success(), "{}", text(&applied));
        }
    }
    let user = format!("system:serviceaccount:{}:shop-personalize-operator", env.namespace);
    let as_user = format!("--as={user}");
    for role in helm::of_kind(resources, "Role") {
        let word = |field: &str| role["rules"][0][field][0].as_str().unwrap_or_default();
        let kind = format!("{}.{}", word("resources"), word("apiGroups"));
        let resource = format!("{}/{}", kind.trim_end_matches('.'), word("resourceNames"));
        let args = ["-n", role["metadata"]["namespace"].as_str().unwrap(), "auth", "can-i", word("verbs")];
        let args = [&args, &[resource.trim_end_matches('/'), &as_user][..]].concat();
        eventually("the grants apply", || {
            env.control_plane.kubectl(&args, None).unwrap().status.success().then_some(())
        });
    }
    let kubeconfig = env.dir().join("service-account.kubeconfig");
    env.control_plane.kubeconfig_for(&user, &["audited"], &kubeconfig).unwrap();
    (user, kubeconfig)
}

#[test]
fn chart_grants_exactly_the_permissions_that_the_operator_uses() {
    let env = TestEnv::new();
    let resources = release(&env, &json!({"watchNamespaces": [env.namespace]}));
    let roles = helm::of_kind(&resources, "Role");
    let (user, kubeconfig) = apply_grants(&env, &resources);
    let start = || {
        let vars = [("KUBECONFIG", kubeconfig.to_str().unwrap())];
        env.start_operator_with(&vars, &["--lease-name=shop-personalize-operator", "--lease-duration=15s"])
    };

    // A failed import, its retries, and a stop that releases the lease.
    let operator = start();
    let few = json!({"backoffLimit": 2, "dataSource": {"dataLocation": "s3://bucket/few.csv"}});
    env.import("nightly", "d0", few);
    env.wait_for_reason("nightly", "ImportFailed");
    assert!(operator.stop());
    // A second start, with everything in place and a status that an editor has touched.
    env.patch("nightly", &json!({"metadata": {"managedFields": [{}]}}));
    let operator = start();
    eventually("the operator manages it again", || {
        (!env.get("nightly")?.metadata.managed_fields.unwrap_or_default().is_empty()).then_some(())
    });
    env.import("second", "d1", json!({}));
    env.wait_for_reason("second", "ImportSucceeded");
    assert!(operator.stop());
    env.check_invariants_settled();

    let granted = granted(roles);
    let (done, denied) = audited(&env, &user);
    let list = "/namespaces list".to_owned();
    assert_eq!(denied, Grants::from([list.clone()]), "a Role can't grant this, so the operator reads its Namespace");
    assert_eq!(granted, done, "the granted and the used permissions");

    let everywhere = release(&env, &json!({}));
    let roles = helm::of_kind(&everywhere, "Role").into_iter();
    let cluster_roles = helm::of_kind(&everywhere, "ClusterRole").into_iter();
    let operators = cluster_roles.filter(|role| role["metadata"]["name"] == "shop-personalize-operator");
    let more = Grants::from([list, "/namespaces watch".to_owned()]);
    assert_eq!(self::granted(roles.chain(operators)), &granted | &more, "the permissions for all namespaces");
}

#[test]
fn chart_grants_exactly_the_permissions_that_the_configuration_of_accounts_needs() {
    let mut env = TestEnv::new();
    let watched = env.add_tenant("watched");
    // The release is in a namespace that is not watched, so nothing else grants events there.
    let accounts = json!({OTHER_ACCOUNT: {"roleArn": format!("arn:aws:iam::{OTHER_ACCOUNT}:role/Importer")}});
    let values = json!({"watchNamespaces": [watched], "aws": {"accountsConfig": {"accounts": accounts}}});
    let resources = release(&env, &values);
    let (user, kubeconfig) = apply_grants(&env, &resources);
    helm::of_kind(&resources, "ConfigMap").into_iter().for_each(|config_map| env.apply(config_map));
    let name = "shop-personalize-operator-accounts";
    let config_map = format!("--accounts-config-map={name}");
    let watch = format!("--watch-namespaces={watched}");
    let vars = [("KUBECONFIG", kubeconfig.to_str().unwrap())];
    let flags = ["--lease-name=shop-personalize-operator", "--lease-duration=15s", &config_map, &watch];
    let operator = env.start_operator_with(&vars, &flags);
    let is_valid = |operator: &OperatorProcess, valid: u8| {
        operator.metrics().contains(&format!("personalize_operator_accounts_config_valid {valid}")).then_some(())
    };
    eventually("the ConfigMap is read", || is_valid(&operator, 1));
    let refused = json!({"data": {"accounts.yaml": "account: {}"}}).to_string();
    let patched = env.kubectl(&["patch", "configmap", name, "--type=merge", "-p", &refused]);
    assert!(patched.status.success(), "{}", text(&patched));
    eventually("the ConfigMap is watched", || is_valid(&operator, 0));
    eventually("an event says why", || env.event_reasons(name).contains(&"AccountsRefused".to_owned()).then_some(()));
    assert!(operator.stop());

    let configured =
        granted(helm::of_kind(&resources, "Role").into_iter().filter(|role| role["metadata"]["name"] == name));
    let (done, denied) = audited(&env, &user);
    assert_eq!(denied, Grants::from(["/namespaces list".to_owned()]), "as without accounts");
    let used: Grants =
        done.into_iter().filter(|grant| grant.contains("configmaps") || grant.contains("/events ")).collect();
    assert_eq!(configured, used, "the granted and the used permissions");
}
