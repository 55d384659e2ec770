//! E: every write of the operator changes a status, and nothing else, or applies one as it is, to become its manager.

use super::{History, operator_writes, text, written_resource};
use serde_json::Value;
use std::collections::HashMap;

pub(super) fn check(history: &History<'_>, violations: &mut Vec<String>) {
    statuses_only(history.writes, violations);
    no_unchanged_statuses(history.writes, violations);
}

/// Whether a write is of a status and names the field manager.
fn is_status_write(write: &Value, verb: &str) -> bool {
    let query = text(write, "requestURI").split_once('?').map(|(_, query)| query).unwrap_or_default();
    write["verb"] == verb
        && write["objectRef"]["subresource"] == "status"
        && query.split('&').any(|parameter| parameter == "fieldManager=personalize-operator")
}

/// Whether a write replaces a status.
fn is_status_update(write: &Value) -> bool {
    is_status_write(write, "update")
}

/// Whether a write applies a status with the version that was read.
fn is_status_apply(write: &Value) -> bool {
    is_status_write(write, "patch") && write["requestObject"]["metadata"]["resourceVersion"].is_string()
}

/// The operator sets no label, annotation or finalizer, changes no spec, and deletes nothing.
fn statuses_only(writes: &[Value], violations: &mut Vec<String>) {
    for write in operator_writes(writes).filter(|write| !is_status_update(write) && !is_status_apply(write)) {
        let (verb, uri) = (text(write, "verb"), text(write, "requestURI"));
        violations.push(format!("E: the operator wrote something other than a status: {verb} {uri}"));
    }
}

/// An update changes more than the time of a transition, and an apply nothing.
fn no_unchanged_statuses(writes: &[Value], violations: &mut Vec<String>) {
    let mut last: HashMap<&str, (u64, Value)> = HashMap::new();
    for write in writes {
        let resource = written_resource(write);
        let Some(uid) = resource["metadata"]["uid"].as_str() else { continue };
        let mut status = resource["status"].clone();
        for condition in status["conditions"].as_array_mut().into_iter().flatten() {
            condition["lastTransitionTime"] = Value::Null;
        }
        let parsed =
            |resource: &Value| resource["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok());
        let version = parsed(resource).unwrap_or(u64::MAX);
        let by_operator = operator_writes(std::slice::from_ref(write)).next().is_some();
        let before = last.insert(uid, (version, status.clone()));
        // The previous status is unknown if versions go back, because then etcd was restored. It is also unknown if
        // this write is based on another version: a no-op write by another client was logged first, or a write took
        // effect although its response was an error.
        let read = parsed(&write["requestObject"]);
        let known = |before: u64| before <= version && read.is_none_or(|read| read == before);
        let unchanged =
            before.filter(|(before, _)| by_operator && known(*before)).map(|(_, written)| written == status);
        let name = &resource["metadata"]["name"];
        match unchanged {
            Some(true) if is_status_update(write) => {
                violations.push(format!("E: the status of {name} was written without a change"));
            }
            Some(false) if is_status_apply(write) => {
                violations.push(format!("E: the status of {name} was changed by an apply"))
            }
            _ => {}
        }
    }
}

mod tests {
    use crate::invariants::check_logs;
    use crate::invariants::histories::{assert_holds, assert_violates, intent, write};
    use serde_json::{Value, json};

    #[test]
    fn write_other_than_a_status_update_violates_e() {
        let status = write("a", &intent("a-1", 1));
        assert_holds(&check_logs(&[], std::slice::from_ref(&status)));
        let with = |path: &[&str], value: &str| {
            let mut write = status.clone();
            *path.iter().fold(&mut write, |at, key| &mut at[*key]) = json!(value);
            write
        };
        // Metadata, finalizers and spec are written without the subresource.
        assert_violates("E", &check_logs(&[], &[with(&["objectRef", "subresource"], "")]));
        for verb in ["patch", "create", "delete", "deletecollection"] {
            assert_violates("E", &check_logs(&[], &[with(&["verb"], verb)]));
        }
        for uri in ["/status", "/status?fieldManager=another", "/status?x=fieldManager=personalize-operator"] {
            assert_violates("E", &check_logs(&[], &[with(&["requestURI"], uri)]));
        }
        // Another client may write anything.
        let mut foreign = with(&["objectRef", "subresource"], "");
        foreign["userAgent"] = json!("kubectl/v1");
        assert_holds(&check_logs(&[], &[foreign]));
    }

    #[test]
    fn write_that_changes_only_a_transition_time_violates_e() {
        let at = |version: &str, moment: &str| {
            let mut write = write("a", &intent("a-1", 1));
            write["responseObject"]["metadata"]["resourceVersion"] = json!(version);
            write["responseObject"]["status"]["conditions"][0]["lastTransitionTime"] = json!(moment);
            write
        };
        assert_violates("E", &check_logs(&[], &[at("1", "x"), at("2", "x")]));
        assert_violates("E", &check_logs(&[], &[at("1", "x"), at("2", "y")]));
        // A restored etcd has lost the first write.
        assert_holds(&check_logs(&[], &[at("2", "x"), at("1", "y")]));
        // Only the version of an unlogged write is known.
        let mut unseen = at("3", "y");
        unseen["requestObject"]["metadata"]["resourceVersion"] = json!("2");
        assert_holds(&check_logs(&[], &[at("1", "x"), unseen.clone()]));
        assert_violates("E", &check_logs(&[], &[at("2", "x"), unseen]));
        // A status that another client cleared is written again, even if that client uses the operator's field manager.
        let mut wiped = write("a", &json!({}));
        wiped["userAgent"] = json!("kubectl/v1");
        assert_holds(&check_logs(&[], &[at("1", "x"), wiped, at("3", "x")]));
    }

    #[test]
    fn apply_that_changes_the_status_or_ignores_the_version_violates_e() {
        let version = |mut write: Value, version: &str| {
            write["responseObject"]["metadata"]["resourceVersion"] = version.into();
            write
        };
        let mut apply = write("a", &intent("a-1", 1));
        apply["verb"] = json!("patch");
        assert_violates("E", &check_logs(&[], std::slice::from_ref(&apply)));
        apply["requestObject"] = json!({"metadata": {"resourceVersion": "1"}});
        let apply = version(apply, "2");
        assert_holds(&check_logs(&[], &[version(write("a", &intent("a-1", 1)), "1"), apply.clone()]));
        let mut other = version(write("a", &intent("a-1", 1)), "1");
        other["responseObject"]["status"]["submission"]["attempt"] = json!(2);
        other["userAgent"] = json!("kubectl/v1");
        assert_violates("E", &check_logs(&[], &[other, apply]));
    }

    #[test]
    fn unchanged_status_holds_if_another_client_logged_it_first() {
        let versioned = |mut write: Value, from: &str, to: &str| {
            write["requestObject"] = json!({"metadata": {"resourceVersion": from}});
            write["responseObject"]["metadata"]["resourceVersion"] = to.into();
            write
        };
        let own = |from, to| versioned(write("a", &intent("j", 1)), from, to);
        let mut applied = versioned(write("a", &intent("j", 1)), "", "12");
        applied["userAgent"] = json!("kubectl/v1");
        assert_holds(&check_logs(&[], &[applied.clone(), own("11", "12")]));
        assert_violates("E", &check_logs(&[], &[applied, own("12", "12")]));
        assert_violates("E", &check_logs(&[], &[own("11", "12"), own("12", "13")]));
    }
}
