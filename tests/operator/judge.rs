//! The outside judge: the invariants, from the stand-in's ledger and the API server's audit log, never
//! from the operator's word.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

/// An accepted CreateDatasetImportJob.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    pub job_name: String,
    pub dataset: String,
    pub account: String,
    pub region: String,
}

/// The accepted creates of a ledger, in order.
pub fn accepted(ledger: &[Value]) -> Vec<Accepted> {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    ledger
        .iter()
        .filter(|line| line["operation"] == "CreateDatasetImportJob" && line["datasetImportJobArn"].is_string())
        .map(|line| Accepted {
            job_name: text(line, "jobName"),
            dataset: text(line, "datasetArn"),
            account: text(line, "account"),
            region: text(line, "region"),
        })
        .collect()
}

/// Successful writes to DatasetImportJobs and their status in a namespace, in order.
pub fn writes(audit: &Path, namespace: &str) -> Vec<Value> {
    let log = fs::read_to_string(audit).unwrap_or_default();
    log.lines()
        .filter(|line| line.contains(namespace) && line.contains("datasetimportjobs"))
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| {
            line["objectRef"]["namespace"] == namespace && line["objectRef"]["resource"] == "datasetimportjobs"
        })
        .filter(|line| {
            matches!(line["verb"].as_str(), Some("create" | "update" | "patch" | "delete" | "deletecollection"))
        })
        .filter(|line| line["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300))
        .collect()
}

/// The operator's own writes among these.
pub fn of_operator(writes: &[Value]) -> impl Iterator<Item = &Value> {
    writes.iter().filter(|w| {
        w["objectRef"]["subresource"] == "status" && w["userAgent"].as_str().is_some_and(|a| !a.starts_with("kubectl"))
    })
}

/// What breaks an invariant, in words; empty when all hold.
pub fn judge(ledger: &[Value], writes: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    at_most_once(ledger, &mut faults);
    truthful_generations(writes, &mut faults);
    no_idle_writes(writes, &mut faults);
    no_secrets(writes, &mut faults);
    in_order(ledger, writes, &mut faults);
    faults
}

/// A: at most one accepted create per name, and so per resource and attempt.
fn at_most_once(ledger: &[Value], faults: &mut Vec<String>) {
    let mut counts: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    for a in accepted(ledger) {
        *counts.entry((a.account, a.region, a.job_name)).or_default() += 1;
    }
    for ((_, _, name), count) in counts.iter().filter(|(_, count)| **count > 1) {
        faults.push(format!("A: {name} was accepted {count} times"));
    }
}

/// D: observedGeneration never goes back, and never runs ahead of the resource.
fn truthful_generations(writes: &[Value], faults: &mut Vec<String>) {
    let mut last: HashMap<String, i64> = HashMap::new();
    for write in of_operator(writes) {
        let object = &write["responseObject"];
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let observed = object["status"]["observedGeneration"].as_i64().unwrap_or(-1);
        let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
        if observed > generation {
            faults.push(format!("D: {uid} tells generation {observed} and is at {generation}"));
        }
        if let Some(before) = last.insert(uid.clone(), observed)
            && observed < before
        {
            faults.push(format!("D: {uid} went back from generation {before} to {observed}"));
        }
    }
}

/// E: a write changes something.
fn no_idle_writes(writes: &[Value], faults: &mut Vec<String>) {
    let mut last: HashMap<String, Value> = HashMap::new();
    for write in writes {
        let object = &write["responseObject"];
        let Some(uid) = object["metadata"]["uid"].as_str() else { continue };
        let status = object["status"].clone();
        let own = of_operator(std::slice::from_ref(write)).next().is_some();
        if last.insert(uid.to_owned(), status.clone()).is_some_and(|before| own && before == status) {
            faults.push(format!("E: {} was written and says nothing new", object["metadata"]["name"]));
        }
    }
}

/// F: no planted secret reaches the API server.
fn no_secrets(writes: &[Value], faults: &mut Vec<String>) {
    if of_operator(writes).any(|w| w.to_string().contains(crate::service::SECRET_KEY)) {
        faults.push("F: a status holds the secret key".into());
    }
}

/// H: per dataset, imports are accepted in the order in which their resources were created; a retry
/// counts as its resource.
fn in_order(ledger: &[Value], writes: &[Value], faults: &mut Vec<String>) {
    let mut made: HashMap<String, (String, BTreeSet<String>)> = HashMap::new();
    for write in of_operator(writes) {
        let object = &write["responseObject"];
        let Some(name) = object["status"]["submission"]["jobName"].as_str() else { continue };
        let created = object["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
        made.entry(name.to_owned()).or_insert((created, BTreeSet::new()));
    }
    let mut last: HashMap<String, (String, String)> = HashMap::new();
    for a in accepted(ledger) {
        let Some((created, _)) = made.get(&a.job_name) else { continue };
        if let Some((before, name)) = last.insert(a.dataset.clone(), (created.clone(), a.job_name.clone()))
            && *created < before
        {
            faults.push(format!("H: {} was accepted after {name}, whose resource is newer", a.job_name));
        }
    }
}
