//! E: nothing is written when nothing changed, and nothing but statuses ever.

use super::{Books, object, of_operator, text};
use serde_json::Value;
use std::collections::HashMap;

pub(super) fn judge(books: &Books<'_>, faults: &mut Vec<String>) {
    statuses_only(books.writes, faults);
    no_idle_writes(books.writes, faults);
}

/// Whether a write replaces a status and says who manages it.
fn is_status(write: &Value) -> bool {
    let query = text(write, "requestURI").split_once('?').map(|(_, query)| query).unwrap_or_default();
    write["verb"] == "update"
        && write["objectRef"]["subresource"] == "status"
        && query.split('&').any(|parameter| parameter == "fieldManager=personalize-operator")
}

/// The operator sets no label, annotation or finalizer, changes no spec, and deletes nothing.
fn statuses_only(writes: &[Value], faults: &mut Vec<String>) {
    for write in of_operator(writes).filter(|write| !is_status(write)) {
        let (verb, uri) = (text(write, "verb"), text(write, "requestURI"));
        faults.push(format!("E: the operator wrote more than a status: {verb} {uri}"));
    }
}

/// A write changes something, and not merely the time of a transition.
fn no_idle_writes(writes: &[Value], faults: &mut Vec<String>) {
    let mut last: HashMap<&str, (u64, Value)> = HashMap::new();
    for write in writes {
        let object = object(write);
        let Some(uid) = object["metadata"]["uid"].as_str() else { continue };
        let mut status = object["status"].clone();
        for condition in status["conditions"].as_array_mut().into_iter().flatten() {
            condition["lastTransitionTime"] = Value::Null;
        }
        let parsed =
            |object: &Value| object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok());
        let version = parsed(object).unwrap_or(u64::MAX);
        let own = of_operator(std::slice::from_ref(write)).next().is_some();
        let before = last.insert(uid, (version, status.clone()));
        // What stood there before is not known where versions go back, for then an etcd was restored; nor
        // where this write read another version: somebody whose own write changed nothing was told this
        // one and logged first, or a write took effect although it was answered with an error.
        let read = parsed(&write["requestObject"]);
        let known = |before: u64| before <= version && read.is_none_or(|read| read == before);
        if before.is_some_and(|(before, told)| own && known(before) && told == status) {
            faults.push(format!("E: {} was written and says nothing new", object["metadata"]["name"]));
        }
    }
}

mod tests {
    use crate::invariants::histories::{breaks, holds, intent, write};
    use crate::invariants::judge;
    use serde_json::{Value, json};

    #[test]
    fn e_is_broken_by_whatever_the_operator_writes_but_a_status() {
        let status = write("a", &intent("a-1", 1));
        holds(&judge(&[], std::slice::from_ref(&status)));
        let with = |path: &[&str], value: &str| {
            let mut write = status.clone();
            *path.iter().fold(&mut write, |at, key| &mut at[*key]) = json!(value);
            write
        };
        // Metadata, finalizers and spec are written past the subresource.
        breaks("E", &judge(&[], &[with(&["objectRef", "subresource"], "")]));
        for verb in ["patch", "create", "delete", "deletecollection"] {
            breaks("E", &judge(&[], &[with(&["verb"], verb)]));
        }
        for uri in ["/status", "/status?fieldManager=another", "/status?x=fieldManager=personalize-operator"] {
            breaks("E", &judge(&[], &[with(&["requestURI"], uri)]));
        }
        // The same by somebody else is none of its doing.
        let mut theirs = with(&["objectRef", "subresource"], "");
        theirs["userAgent"] = json!("kubectl/v1");
        holds(&judge(&[], &[theirs]));
    }

    #[test]
    fn e_is_broken_by_a_write_that_says_nothing_new_but_another_time() {
        let at = |version: &str, moment: &str| {
            let mut write = write("a", &intent("a-1", 1));
            write["responseObject"]["metadata"]["resourceVersion"] = json!(version);
            write["responseObject"]["status"]["conditions"][0]["lastTransitionTime"] = json!(moment);
            write
        };
        breaks("E", &judge(&[], &[at("1", "x"), at("2", "x")]));
        breaks("E", &judge(&[], &[at("1", "x"), at("2", "y")]));
        // An etcd that was restored has forgotten the first.
        holds(&judge(&[], &[at("2", "x"), at("1", "y")]));
        // Of what the API server wrote and told nobody of, only the version is known.
        let mut unseen = at("3", "y");
        unseen["requestObject"]["metadata"]["resourceVersion"] = json!("2");
        holds(&judge(&[], &[at("1", "x"), unseen.clone()]));
        breaks("E", &judge(&[], &[at("2", "x"), unseen]));
        // What somebody else has wiped is written again, though they call themselves as the operator does.
        let mut wiped = write("a", &json!({}));
        wiped["userAgent"] = json!("kubectl/v1");
        holds(&judge(&[], &[at("1", "x"), wiped, at("3", "x")]));
    }

    #[test]
    fn who_applied_nothing_new_and_was_logged_first_makes_no_write_idle() {
        let versioned = |mut write: Value, from: &str, to: &str| {
            write["requestObject"] = json!({"metadata": {"resourceVersion": from}});
            write["responseObject"]["metadata"]["resourceVersion"] = to.into();
            write
        };
        let own = |from, to| versioned(write("a", &intent("j", 1)), from, to);
        let mut applied = versioned(write("a", &intent("j", 1)), "", "12");
        applied["userAgent"] = json!("kubectl/v1");
        holds(&judge(&[], &[applied.clone(), own("11", "12")]));
        breaks("E", &judge(&[], &[applied, own("12", "12")]));
        breaks("E", &judge(&[], &[own("11", "12"), own("12", "13")]));
    }
}
