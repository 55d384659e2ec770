//! The outside judge: the invariants A to H of docs/faults.md, from the stand-in's books (its ledger
//! and its jobs) and the API server's (its audit log and its resources), never from the operator's word.

// By path: another test binary includes this file from elsewhere.
#[path = "judge/histories.rs"]
mod histories;

use jiff::Timestamp;
use personalize_operator::identity::TAG_NAME;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;

/// An accepted CreateDatasetImportJob.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    pub job_name: String,
    pub dataset: String,
    pub account: String,
    pub region: String,
    pub time: Option<Timestamp>,
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
            time: time(&line["time"]),
        })
        .collect()
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str().and_then(|t| t.parse().ok())
}

/// Successful writes to DatasetImportJobs and their status in a namespace, in order.
pub fn writes(audit: &Path, namespace: &str) -> Vec<Value> {
    successful_writes(&fs::read_to_string(audit).unwrap_or_default(), namespace, "datasetimportjobs")
}

/// The same, of those that the audit log tells after so many bytes.
pub fn writes_after(audit: &Path, bytes: u64, namespace: &str) -> Vec<Value> {
    let log = fs::read_to_string(audit).unwrap_or_default();
    let from = usize::try_from(bytes).unwrap_or(usize::MAX);
    successful_writes(log.get(from..).unwrap_or_default(), namespace, "datasetimportjobs")
}

/// The events that were written in a namespace, in order.
pub fn events(audit: &Path, namespace: &str) -> Vec<Value> {
    successful_writes(&fs::read_to_string(audit).unwrap_or_default(), namespace, "events")
}

fn successful_writes(log: &str, namespace: &str, resource: &str) -> Vec<Value> {
    let marks = [format!("\"resource\":\"{resource}\""), format!("\"namespace\":\"{namespace}\"")];
    log.lines()
        // Most lines are of other tests: what needn't be parsed is not.
        .filter(|line| marks.iter().all(|mark| line.contains(mark)))
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["objectRef"]["namespace"] == namespace && line["objectRef"]["resource"] == resource)
        .filter(|line| {
            matches!(line["verb"].as_str(), Some("create" | "update" | "patch" | "delete" | "deletecollection"))
        })
        .filter(|line| line["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300))
        .collect()
}

/// The operator's own writes among these: it writes nothing but statuses, and names its field manager.
pub fn of_operator(writes: &[Value]) -> impl Iterator<Item = &Value> {
    writes.iter().filter(|w| {
        w["objectRef"]["subresource"] == "status"
            && w["requestURI"].as_str().is_some_and(|uri| uri.ends_with("fieldManager=personalize-operator"))
    })
}

/// What breaks an invariant at any moment, in words; empty when all hold.
pub fn judge(ledger: &[Value], writes: &[Value]) -> Vec<String> {
    judge_with_jobs(ledger, writes, &[])
}

/// The same, with the service's own jobs: they tell which imports landed, and when.
pub fn judge_with_jobs(ledger: &[Value], writes: &[Value], jobs: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    let accepted = accepted(ledger);
    at_most_once(&accepted, writes, &mut faults);
    intended_first(&accepted, writes, &mut faults);
    nothing_foreign(&accepted, writes, jobs, &mut faults);
    truthful_generations(writes, &mut faults);
    truthful_states(writes, &mut faults);
    no_idle_writes(writes, &mut faults);
    if of_operator(writes).any(|w| leaks(&w.to_string())) {
        faults.push("F: a status holds the secret key".into());
    }
    bounded(ledger, writes, &mut faults);
    in_order(&accepted, writes, jobs, &mut faults);
    one_at_a_time(&accepted, jobs, &mut faults);
    faults
}

/// What breaks an invariant once everything had its time: beside the others, that nothing is lost (B)
/// and that each status tells what the service tells (D). `resources` are those that exist, `jobs` the
/// service's own.
pub fn judge_settled(ledger: &[Value], writes: &[Value], resources: &[Value], jobs: &[Value]) -> Vec<String> {
    let mut faults = judge_with_jobs(ledger, writes, jobs);
    for resource in resources {
        let (name, status) = (&resource["metadata"]["name"], &resource["status"]);
        let stalled = condition(status, "Stalled") == Some("True");
        if !stalled && !status["completionTime"].is_string() && resource["spec"]["suspend"] != true {
            faults.push(format!("B: {name} is neither finished nor does it say what stops it"));
        }
        if status["observedGeneration"] != resource["metadata"]["generation"] {
            faults.push(format!("D: {name} tells nothing of its latest generation"));
        }
        let Some(arn) = status["datasetImportJobArn"].as_str() else { continue };
        match jobs.iter().find(|job| arn.ends_with(&format!("/{}", job["name"].as_str().unwrap_or_default()))) {
            Some(job) if job["status"] != status["status"] => {
                faults.push(format!("D: {name} tells {} and its job is {}", status["status"], job["status"]));
            }
            Some(_) => {}
            None if status["conditions"][0]["reason"] == "JobNotFound" => {}
            None => faults.push(format!("D: {name} tells of {arn}, which the service does not know")),
        }
    }
    nothing_forgotten(&accepted(ledger), writes, resources, &mut faults);
    faults
}

/// Whether a text holds the secret key that the tests plant.
pub fn leaks(text: &str) -> bool {
    text.contains(crate::service::SECRET_KEY)
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a str> {
    status["conditions"].as_array()?.iter().find(|c| c["type"] == kind)?["status"].as_str()
}

/// An intent that was recorded.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Intent {
    uid: String,
    attempt: i64,
    job_name: String,
}

/// Every intent that was recorded, and when the first write of it was asked for.
fn intents(writes: &[Value]) -> BTreeMap<Intent, Option<Timestamp>> {
    let mut intents = BTreeMap::new();
    for write in of_operator(writes) {
        let object = &write["responseObject"];
        let submission = &object["status"]["submission"];
        let (Some(uid), Some(attempt), Some(job_name)) =
            (object["metadata"]["uid"].as_str(), submission["attempt"].as_i64(), submission["jobName"].as_str())
        else {
            continue;
        };
        let intent = Intent { uid: uid.to_owned(), attempt, job_name: job_name.to_owned() };
        intents.entry(intent).or_insert_with(|| time(&write["requestReceivedTimestamp"]));
    }
    intents
}

/// A: at most one accepted create per name, and per resource and attempt.
fn at_most_once(accepted: &[Accepted], writes: &[Value], faults: &mut Vec<String>) {
    let mut counts: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    for a in accepted {
        *counts.entry((&a.account, &a.region, &a.job_name)).or_default() += 1;
    }
    for ((_, _, name), count) in counts.iter().filter(|(_, count)| **count > 1) {
        faults.push(format!("A: {name} was accepted {count} times"));
    }
    let made: HashSet<&str> = accepted.iter().map(|a| a.job_name.as_str()).collect();
    let mut of_attempt: BTreeMap<(String, i64), BTreeSet<String>> = BTreeMap::new();
    for (intent, _) in intents(writes).into_iter().filter(|(i, _)| made.contains(i.job_name.as_str())) {
        of_attempt.entry((intent.uid, intent.attempt)).or_default().insert(intent.job_name);
    }
    for ((uid, attempt), names) in of_attempt.iter().filter(|(_, names)| names.len() > 1) {
        faults.push(format!("A: {uid} made {names:?}, all as attempt {attempt}"));
    }
}

/// A: nothing is sent whose intent was not recorded before, for such a create could be made twice.
fn intended_first(accepted: &[Accepted], writes: &[Value], faults: &mut Vec<String>) {
    let intents = intents(writes);
    for a in accepted {
        let recorded = |(intent, at): (&Intent, &Option<Timestamp>)| {
            intent.job_name == a.job_name && at.zip(a.time).is_none_or(|(intended, sent)| intended <= sent)
        };
        if !intents.iter().any(recorded) {
            faults.push(format!("A: {} was sent before its intent was recorded", a.job_name));
        }
    }
}

/// B: a job that the operator made for a resource that still exists is in that resource's status.
fn nothing_forgotten(accepted: &[Accepted], writes: &[Value], resources: &[Value], faults: &mut Vec<String>) {
    let told: HashSet<&str> =
        resources.iter().filter_map(|r| r["status"]["datasetImportJobArn"].as_str()?.rsplit('/').next()).collect();
    let live: HashMap<&str, i64> = resources
        .iter()
        .filter_map(|r| Some((r["metadata"]["uid"].as_str()?, r["status"]["attempts"].as_i64().unwrap_or(0))))
        .collect();
    let made: HashSet<&str> = accepted.iter().map(|a| a.job_name.as_str()).collect();
    for Intent { uid, attempt, job_name } in intents(writes).into_keys() {
        let superseded = live.get(uid.as_str()).is_none_or(|attempts| *attempts > attempt);
        if made.contains(job_name.as_str()) && !superseded && !told.contains(job_name.as_str()) {
            faults.push(format!("B: the job {job_name} runs for {uid}, whose status does not tell of it"));
        }
    }
}

/// Whether a job's tags tell that it is this resource's.
fn tagged(job: &Value, owner: &Value) -> bool {
    job["tags"].as_array().into_iter().flatten().any(|t| t["tagKey"] == TAG_NAME && t["tagValue"] == *owner)
}

/// C: a status tells only of jobs that were made for the same resource's name, unless its annotation
/// lets it adopt others.
fn nothing_foreign(accepted: &[Accepted], writes: &[Value], jobs: &[Value], faults: &mut Vec<String>) {
    let made: HashSet<&str> = accepted.iter().map(|a| a.job_name.as_str()).collect();
    let mut owners: HashMap<&str, &Value> = HashMap::new();
    let mut adopted: HashSet<(&str, &str)> = HashSet::new();
    for write in of_operator(writes) {
        let object = &write["responseObject"];
        let (owner, uid) = (&object["metadata"]["name"], object["metadata"]["uid"].as_str().unwrap_or_default());
        if let Some(name) = object["status"]["submission"]["jobName"].as_str() {
            owners.entry(name).or_insert(owner);
        }
        let Some(arn) = object["status"]["datasetImportJobArn"].as_str() else { continue };
        if object["metadata"]["annotations"]["personalize-operator.io/adopt"] == "true" {
            adopted.insert((uid, arn));
        }
        if adopted.contains(&(uid, arn)) {
            continue;
        }
        let job_name = arn.rsplit('/').next().unwrap_or_default();
        let before_our_time = jobs.iter().any(|job| job["name"] == job_name && tagged(job, owner));
        if !made.contains(job_name) && !before_our_time {
            faults.push(format!("C: {owner} tells of {job_name}, which the operator did not make"));
        } else if owners.get(job_name).is_some_and(|first| *first != owner) {
            faults.push(format!("C: {owner} tells of {job_name}, which belongs to {}", owners[job_name]));
        }
    }
}

/// D: observedGeneration never goes back, and never runs ahead of the resource.
fn truthful_generations(writes: &[Value], faults: &mut Vec<String>) {
    let mut last: HashMap<&str, i64> = HashMap::new();
    for write in of_operator(writes) {
        let object = &write["responseObject"];
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        let observed = object["status"]["observedGeneration"].as_i64().unwrap_or(-1);
        let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
        if observed > generation {
            faults.push(format!("D: {uid} tells generation {observed} and is at {generation}"));
        }
        if let Some(before) = last.insert(uid, observed)
            && observed < before
        {
            faults.push(format!("D: {uid} went back from generation {before} to {observed}"));
        }
    }
}

/// The rows of the table of states: Ready, Succeeded, Reconciling, Stalled.
const ROWS: [[&str; 4]; 4] = [
    ["Unknown", "Unknown", "True", "False"],
    ["True", "True", "False", "False"],
    ["False", "False", "False", "True"],
    ["Unknown", "Unknown", "False", "False"],
];

/// D: the four conditions say one thing, and success is told of nothing but an ACTIVE job.
fn truthful_states(writes: &[Value], faults: &mut Vec<String>) {
    for write in of_operator(writes) {
        let (name, status) = (&write["responseObject"]["metadata"]["name"], &write["responseObject"]["status"]);
        let row = ["Ready", "Succeeded", "Reconciling", "Stalled"].map(|kind| condition(status, kind));
        if !ROWS.iter().any(|allowed| row == allowed.map(Some)) {
            faults.push(format!("D: {name} is in no state that there is: {row:?}"));
        }
        let over = matches!(status["status"].as_str(), Some("ACTIVE" | "CREATE FAILED"));
        let succeeded = status["status"] == "ACTIVE" && status["completionTime"].is_string();
        if (row[0] == Some("True")) != succeeded || status["completionTime"].is_string() && !over {
            faults.push(format!("D: {name} tells {row:?} of a job that is {}", status["status"]));
        }
    }
}

/// E: a write changes something, and not merely the time of a transition.
fn no_idle_writes(writes: &[Value], faults: &mut Vec<String>) {
    let mut last: HashMap<&str, (u64, Value)> = HashMap::new();
    for write in writes {
        let object = &write["responseObject"];
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

/// The most calls of one kind about one job or dataset within a second, and the most writes to one
/// resource. The delays of the tests are a hundredth of the real ones; an endless loop makes hundreds.
const MOST_CALLS: usize = 40;

/// G: no call and no write is repeated without end.
fn bounded(ledger: &[Value], writes: &[Value], faults: &mut Vec<String>) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for line in ledger {
        let text = |key: &str| line[key].as_str().unwrap_or_default();
        let (operation, job, dataset) = (text("operation"), text("jobName"), text("datasetArn"));
        let second = text("time").get(..19).unwrap_or_default();
        *counts.entry(format!("{operation} about {job}{dataset} was called in the second {second}")).or_default() += 1;
    }
    for write in of_operator(writes) {
        let second = write["requestReceivedTimestamp"].as_str().and_then(|t| t.get(..19)).unwrap_or_default();
        let name = &write["responseObject"]["metadata"]["name"];
        *counts.entry(format!("{name} was written in the second {second}")).or_default() += 1;
    }
    for (what, count) in counts.iter().filter(|(_, count)| **count > MOST_CALLS) {
        faults.push(format!("G: {count} times: {what}"));
    }
}

/// H: per dataset, imports are accepted in the order in which their resources were created, unless the
/// newer one failed; a retry counts as its resource.
fn in_order(accepted: &[Accepted], writes: &[Value], jobs: &[Value], faults: &mut Vec<String>) {
    // A resource may be deleted and made anew: then the name stays and the order is another. What
    // counts is which of them meant the job last before it was accepted.
    let mut meant: HashMap<&str, Vec<(Option<Timestamp>, &str)>> = HashMap::new();
    for write in of_operator(writes) {
        let object = &write["responseObject"];
        let Some(name) = object["status"]["submission"]["jobName"].as_str() else { continue };
        let created = object["metadata"]["creationTimestamp"].as_str().unwrap_or_default();
        meant.entry(name).or_default().push((time(&write["requestReceivedTimestamp"]), created));
    }
    let created = |a: &Accepted| {
        let before = |(at, _): &&(Option<Timestamp>, &str)| at.zip(a.time).is_none_or(|(at, accepted)| at <= accepted);
        meant.get(a.job_name.as_str())?.iter().rev().find(before).map(|(_, created)| *created)
    };
    let failed = |name: &str| jobs.iter().any(|job| job["name"] == name && job["status"] == "CREATE FAILED");
    let mut newest: HashMap<&str, (&str, &str)> = HashMap::new();
    for a in accepted {
        let Some(created) = created(a) else { continue };
        match newest.get(a.dataset.as_str()) {
            Some((before, name)) if created < *before => {
                faults.push(format!("H: {} was accepted after {name}, whose resource is newer", a.job_name));
            }
            _ if failed(&a.job_name) => {}
            _ => drop(newest.insert(&a.dataset, (created, &a.job_name))),
        }
    }
}

/// H: of the jobs that the operator made, no two ran at once in one dataset.
fn one_at_a_time(accepted: &[Accepted], jobs: &[Value], faults: &mut Vec<String>) {
    let made: HashSet<&str> = accepted.iter().map(|a| a.job_name.as_str()).collect();
    let mut spans: BTreeMap<&str, Vec<(i64, i64, &str)>> = BTreeMap::new();
    for job in jobs {
        let (name, dataset) =
            (job["name"].as_str().unwrap_or_default(), job["datasetArn"].as_str().unwrap_or_default());
        let over = job["status"] == "ACTIVE" || job["status"] == "CREATE FAILED";
        let end = job["updatedMs"].as_i64().filter(|_| over).unwrap_or(i64::MAX);
        if let Some(begin) = job["createdMs"].as_i64().filter(|_| made.contains(name)) {
            spans.entry(dataset).or_default().push((begin, end, name));
        }
    }
    for (dataset, mut of) in spans {
        of.sort_unstable();
        for pair in of.windows(2).filter(|pair| pair[1].0 < pair[0].1) {
            faults.push(format!("H: {} and {} ran at once in {dataset}", pair[0].2, pair[1].2));
        }
    }
}
