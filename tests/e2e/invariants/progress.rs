//! J: no resource waits for an event that nothing will send.
//!
//! `waiting` says what a resource may wait for. When that has ended (its dataset or a place is free, a delay or a
//! quarantine is over, the service accepts calls again), it acts within a number of Lease renewals: it is submitted if it
//! is next, and otherwise makes a call or a write. The bound is shorter than the period in which waiting resources are
//! reconciled, so that one does not hide a missing event. A resource that its namespace does not permit is checked after
//! the annotations of the Namespace have changed; only permissions that an annotation grants count.

use super::waiting::{Kind, Wait, received, renewals};
use super::{History, condition, is_being_deleted, text};
use regex::Regex;
use serde_json::Value;

pub(super) fn check(waits: &[Wait], violations: &mut Vec<String>) {
    for Wait { name, kind, count } in waits {
        let what = match kind {
            Kind::Forgotten => "could go and was not submitted",
            Kind::Silent => "waits for a time that is over",
            Kind::HeldUp | Kind::Passed => continue,
        };
        violations.push(format!("J: {name} {what} for {count} renewals of the Lease"));
    }
}

/// No resource is still refused although its namespace has permitted it for a long time.
pub(super) fn check_settled(history: &History<'_>, violations: &mut Vec<String>) {
    let renewals = renewals(history.requests);
    for resource in history.resources.iter().filter(|resource| !is_being_deleted(resource)) {
        let metadata = &resource["metadata"];
        let refused = condition(&resource["status"], "Ready").is_some_and(|ready| ready["reason"] == "NotPermitted");
        let mut namespaces = history.namespaces.iter();
        let Some(namespace) = namespaces.find(|n| n["metadata"]["name"] == metadata["namespace"]) else { continue };
        let changed = history.requests.iter().filter(|request| {
            request["objectRef"]["resource"] == "namespaces" && request["objectRef"]["name"] == metadata["namespace"]
        });
        let changed = changed.filter_map(received).max().unwrap_or(i64::MIN);
        let since = renewals.iter().filter(|at| **at > changed).count();
        if refused && permits(namespace, resource) && since > history.limits.renewals {
            violations.push(format!(
                "J: {} is not permitted, although its namespace permits it for {since} renewals of the Lease",
                text(metadata, "name")
            ));
        }
    }
}

/// Whether an annotation of the Namespace exists, and all that exist cover the resource.
fn permits(namespace: &Value, resource: &Value) -> bool {
    let (annotations, spec) = (&namespace["metadata"]["annotations"], &resource["spec"]);
    let rules = [
        ("dataset-arns", &spec["datasetArn"]),
        ("role-arns", &spec["roleArn"]),
        ("data-locations", &spec["dataSource"]["dataLocation"]),
    ];
    let lists = rules.map(|(rule, value)| {
        let list = annotations[format!("personalize-operator.io/allowed-{rule}")].as_str()?;
        Some(list.split([',', ' ', '\n']).any(|pattern| covers(pattern, value.as_str().unwrap_or_default())))
    });
    let mut given = lists.iter().flatten().peekable();
    given.peek().is_some() && given.all(|covered| *covered)
}

/// Whether a pattern with stars covers a value.
fn covers(pattern: &str, value: &str) -> bool {
    let expression = format!("^{}$", regex::escape(pattern).replace("\\*", ".*"));
    Regex::new(&expression).is_ok_and(|expression| expression.is_match(value))
}

mod tests {
    use crate::invariants::histories::{
        DATASET, assert_holds, assert_violates, at, call, conditions, created, derived_name, job_in_dataset, renewals,
        resource, stalled, write,
    };
    use crate::invariants::{History, Limits, check, check_settled};
    use serde_json::{Value, json};

    fn limit() -> usize {
        Limits::default().renewals
    }

    #[test]
    fn import_that_nothing_holds_up_and_that_does_not_go_violates_j() {
        let writes = [created("a", &json!({}))];
        let with = |seconds: usize, jobs: &[Value]| {
            check(&History { writes: &writes, requests: &renewals(seconds), jobs, ..History::default() })
        };
        assert_holds(&with(limit() + 1, &[]));
        assert_violates("J", &with(limit() + 2, &[]));
        // The job in its dataset ends, and nothing wakes it up.
        let ended = |second: i64| {
            job_in_dataset(
                DATASET,
                "foreign",
                "ACTIVE",
                0,
                second * 1000 + crate::invariants::histories::millis_at("00:00:00"),
            )
        };
        assert_holds(&with(limit() + 30, &[ended(30)]));
        assert_violates("J", &with(limit() + 31, &[ended(30)]));
    }

    /// The resource waits with this reason from the second 30 on.
    fn waiting(reason: &str, ledger: &[Value], seconds: usize) -> Vec<String> {
        let status =
            json!({"observedGeneration": 1, "conditions": conditions(reason, ["Unknown", "Unknown", "True", "False"])});
        let writes = [created("a", &json!({"conditions": stalled("AccessDenied")})), write("a", &status)];
        check(&History { writes: &writes, requests: &renewals(seconds), ledger, ..History::default() })
    }

    #[test]
    fn import_whose_delay_is_over_and_that_does_nothing_violates_j() {
        let seconds = limit() + 40;
        let (own, other) =
            (|second| call(&derived_name("a"), "eu-west-1", second), |second| call("b-1", "eu-west-1", second));
        for reason in ["DatasetNotReady", "Throttled", "Retrying"] {
            assert_violates("J", &waiting(reason, &[own(20)], seconds));
            assert_violates("J", &waiting(reason, &[own(20), other(60)], seconds));
            assert_holds(&waiting(reason, &[own(20), own(60)], seconds));
            assert_holds(&waiting(reason, &[own(20)], limit() + 30));
            // While the account and region is throttled, one resource tries for all.
            let mut throttled = other(60);
            throttled["errorCode"] = json!("ThrottlingException");
            throttled["httpStatus"] = json!(400);
            assert_holds(&waiting(reason, &[own(20), throttled], seconds));
            // A call that never reaches the service leaves no record.
            assert_holds(&waiting(reason, &[], seconds));
        }
        for reason in ["Importing", "ImportPaused"] {
            assert_holds(&waiting(reason, &[own(20)], seconds));
        }
    }

    #[test]
    fn import_without_credentials_violates_j_only_if_others_have_them_again() {
        let seconds = limit() + 60;
        let mut refused = call(&derived_name("a"), "eu-west-1", 20);
        refused["errorCode"] = json!("ExpiredTokenException");
        refused["httpStatus"] = json!(403);
        let other = call("b-1", "eu-west-1", 40);
        for reason in ["CredentialsRefused", "ServiceUnavailable"] {
            assert_holds(&waiting(reason, std::slice::from_ref(&refused), seconds));
            assert_violates("J", &waiting(reason, &[refused.clone(), other.clone()], seconds));
        }
    }

    #[test]
    fn import_that_its_namespace_permits_again_violates_j() {
        let resources = [resource("a", &json!({"observedGeneration": 1, "conditions": stalled("NotPermitted")}))];
        let with = |annotations: Value, seconds: usize| {
            let mut requests = renewals(seconds);
            requests.push(json!({"userAgent": "kubectl/v1", "verb": "patch", "requestReceivedTimestamp": at(30),
                "objectRef": {"resource": "namespaces", "namespace": "shop", "name": "shop"}, "responseStatus": {"code": 200}}));
            let namespaces = [json!({"metadata": {"name": "shop", "annotations": annotations}})];
            check_settled(&History {
                resources: &resources,
                requests: &requests,
                namespaces: &namespaces,
                ..History::default()
            })
        };
        let list = |pattern: &str| json!({"personalize-operator.io/allowed-dataset-arns": format!("x, {pattern}")});
        assert_violates("J", &with(list(DATASET), limit() + 32));
        assert_violates("J", &with(list("arn:*/shop/*"), limit() + 32));
        assert_holds(&with(list(DATASET), limit() + 31));
        assert_holds(&with(list("arn:*/else/*"), limit() + 32));
        assert_holds(&with(json!({}), limit() + 32));
        let mut two = list(DATASET);
        two["personalize-operator.io/allowed-role-arns"] = json!("another");
        assert_holds(&with(two, limit() + 32));
    }
}
