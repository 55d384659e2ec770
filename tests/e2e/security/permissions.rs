//! The chart grants what is used, and nothing else.

use crate::env::Bed;
use crate::helm;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

/// `apiGroup/resource verb`, as RBAC has it.
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

/// What the API server's audit log tells of a user: what it did, and what it was denied.
fn audited(bed: &Bed, user: &str) -> (Grants, Grants) {
    let (mut done, mut denied) = (Grants::new(), Grants::new());
    for line in fs::read_to_string(bed.plane.audit_log()).unwrap().lines().filter(|line| line.contains(user)) {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        if line["user"]["username"] != user {
            continue;
        }
        let object = &line["objectRef"];
        let word = |key: &str| object[key].as_str().unwrap_or_default();
        let sub = if word("subresource").is_empty() { String::new() } else { format!("/{}", word("subresource")) };
        let verb = line["verb"].as_str().unwrap_or_default();
        let what = if object.is_null() {
            format!("{} {verb}", line["requestURI"])
        } else {
            format!("{}/{}{sub} {verb}", word("apiGroup"), word("resource"))
        };
        let allowed = line["annotations"]["authorization.k8s.io/decision"] == "allow";
        if allowed {
            done.insert(what)
        } else {
            denied.insert(what)
        };
    }
    (done, denied)
}

#[test]
fn the_chart_grants_exactly_the_verbs_that_are_used() {
    let bed = Bed::new();
    // The release's namespace is the test's.
    let own = |resources: Vec<Value>| -> Vec<Value> {
        let text = serde_json::to_string(&resources).unwrap();
        serde_json::from_str(&text.replace("\"personalize\"", &format!("\"{}\"", bed.namespace))).unwrap()
    };
    let resources = own(helm::resources(&json!({"watchNamespaces": [bed.namespace]})));
    let roles = helm::of_kind(&resources, "Role");
    for resource in roles.iter().copied().chain(helm::of_kind(&resources, "RoleBinding")) {
        bed.apply(resource);
    }
    let user = format!("system:serviceaccount:{}:shop-personalize-operator", bed.namespace);
    let kubeconfig = bed.dir().join("service-account.kubeconfig");
    bed.plane.kubeconfig_for(&user, &["audited"], &kubeconfig).unwrap();
    let start = || {
        let env = [("KUBECONFIG", kubeconfig.to_str().unwrap())];
        bed.operator_with(&env, &["--lease-name=shop-personalize-operator", "--lease-duration=15s"])
    };

    // A failure, its retry and what follows; a stop, so that the lease is given up.
    let operator = start();
    let few = json!({"backoffLimit": 2, "dataSource": {"dataLocation": "s3://bucket/few.csv"}});
    bed.import("nightly", "d0", few);
    bed.until("nightly", "ImportFailed");
    assert!(operator.stop());
    // One that begins anew finds all that is there.
    let operator = start();
    bed.import("second", "d1", json!({}));
    bed.until("second", "ImportSucceeded");
    assert!(operator.stop());
    bed.judged_settled();

    let granted = granted(roles);
    let (done, denied) = audited(&bed, &user);
    assert_eq!(denied, Grants::new(), "nothing is tried that is not granted");
    assert_eq!(granted, done, "what is granted is used, and what is used is granted");

    let everywhere = own(helm::resources(&json!({})));
    let roles = helm::of_kind(&everywhere, "Role").into_iter();
    let cluster_roles = helm::of_kind(&everywhere, "ClusterRole").into_iter();
    let operators = cluster_roles.filter(|role| role["metadata"]["name"] == "shop-personalize-operator");
    assert_eq!(self::granted(roles.chain(operators)), granted, "the same for all namespaces");
}
