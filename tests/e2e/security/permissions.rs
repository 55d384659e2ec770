//! The chart grants the permissions that the operator uses, and no others.

use crate::env::{TestEnv, eventually};
use crate::helm;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

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

#[test]
fn chart_grants_exactly_the_permissions_that_the_operator_uses() {
    let env = TestEnv::new();
    // The release is in the namespace of the test.
    let in_namespace = |resources: Vec<Value>| -> Vec<Value> {
        let text = serde_json::to_string(&resources).unwrap();
        serde_json::from_str(&text.replace("\"personalize\"", &format!("\"{}\"", env.namespace))).unwrap()
    };
    let resources = in_namespace(helm::resources(&json!({"watchNamespaces": [env.namespace]})));
    let roles = helm::of_kind(&resources, "Role");
    for resource in roles.iter().copied().chain(helm::of_kind(&resources, "RoleBinding")) {
        env.apply(resource);
    }
    let user = format!("system:serviceaccount:{}:shop-personalize-operator", env.namespace);
    let kubeconfig = env.dir().join("service-account.kubeconfig");
    env.control_plane.kubeconfig_for(&user, &["audited"], &kubeconfig).unwrap();
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

    let everywhere = in_namespace(helm::resources(&json!({})));
    let roles = helm::of_kind(&everywhere, "Role").into_iter();
    let cluster_roles = helm::of_kind(&everywhere, "ClusterRole").into_iter();
    let operators = cluster_roles.filter(|role| role["metadata"]["name"] == "shop-personalize-operator");
    let more = Grants::from([list, "/namespaces watch".to_owned()]);
    assert_eq!(self::granted(roles.chain(operators)), &granted | &more, "the permissions for all namespaces");
}
