//! What happened to resources: disturbances, and the calls and writes of the operator.

use super::super::{History, adoption, operator_writes, text, written_resource};
use super::items::{Item, Pool, millis, received};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Two namespaces whose calls fail within this time suffer at once.
const AT_ONCE_MS: i64 = 10_000;
/// The longest delay that the API server can ask for, in seconds.
const MAX_RETRY_AFTER: i64 = 120;

/// Something that happened to calls of the operator on the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Disturbance {
    /// When it began and ended, in milliseconds.
    pub begin: i64,
    pub end: i64,
    /// The namespace in the path of the call, if any.
    pub namespace: Option<String>,
    /// Account and region in the call, if any.
    pub pool: Option<(String, String)>,
}

/// What an event concerns; `None` is any.
#[derive(Clone, Copy)]
pub(super) struct Event<'a> {
    pub(super) begin: i64,
    pub(super) end: i64,
    namespace: Option<&'a str>,
    pool: Option<Pool<'a>>,
}

impl Event<'_> {
    pub(super) fn concerns(&self, item: &Item<'_>) -> bool {
        self.namespace.is_none_or(|namespace| namespace == item.namespace) && self.pool.is_none_or(|p| p == item.pool)
    }
}

/// The resources that a call to the service is about, by job name and dataset.
pub(super) struct Concerns<'a> {
    by_job: HashMap<String, Vec<usize>>,
    by_dataset: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Concerns<'a> {
    pub(super) fn new(history: &History<'a>, items: &[Item<'a>]) -> Self {
        let (mut by_job, mut by_dataset) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for (i, item) in items.iter().enumerate() {
            by_dataset.entry(item.dataset).or_default().push(i);
            if let Some(request) = item.versions.first().and_then(|(_, resource)| adoption::request(resource)) {
                by_job.entry(request.job_name(1)).or_default().push(i);
            }
        }
        // The tags of another job are read for the resources of its dataset.
        for job in history.jobs {
            if let Some(items) = by_dataset.get(text(job, "datasetArn")) {
                by_job.entry(text(job, "name").to_owned()).or_insert_with(|| items.clone());
            }
        }
        Self { by_job, by_dataset }
    }

    pub(super) fn of(&self, line: &Value) -> &[usize] {
        let job = text(line, "jobName");
        if job.is_empty() {
            return self.by_dataset.get(text(line, "datasetArn")).map_or(&[], Vec::as_slice);
        }
        let base = job.rsplit_once('-').filter(|(_, attempt)| attempt.parse::<u32>().is_ok()).map(|(base, _)| base);
        self.by_job.get(job).or_else(|| self.by_job.get(base?)).map_or(&[], Vec::as_slice)
    }
}

/// The account and region of a call to the service.
pub(super) fn pool_of(line: &Value) -> Option<Pool<'_>> {
    Some((line["account"].as_str()?, line["region"].as_str()?))
}

pub(super) fn has_failed(line: &Value) -> bool {
    let (status, code) = (line["httpStatus"].as_u64().unwrap_or(200), text(line, "errorCode"));
    line["fault"].is_string() || status == 0 || status >= 400 && !code.contains("NotFound")
}

/// Whether an error says something about the whole account and region.
pub(super) fn is_of_the_pool(code: &str) -> bool {
    ["Throttl", "LimitExceeded", "Token", "Signature", "UnrecognizedClient"].iter().any(|part| code.contains(part))
}

pub(super) fn events<'a>(history: &History<'a>, items: &[Item<'a>], concerns: &Concerns<'a>) -> Vec<Event<'a>> {
    let mut events = Vec::new();
    let mut failing: HashMap<Pool<'a>, BTreeMap<&'a str, i64>> = HashMap::new();
    for line in history.ledger.iter().filter(|line| has_failed(line)) {
        let Some(at) = millis(&line["time"]) else { continue };
        let event = Event { begin: at, end: at, namespace: None, pool: pool_of(line) };
        let namespaces: HashSet<&str> = concerns.of(line).iter().map(|i| items[*i].namespace).collect();
        events.extend(namespaces.iter().map(|namespace| Event { namespace: Some(namespace), ..event }));
        let known = event.pool.map(|pool| failing.entry(pool).or_default());
        let several = known.is_some_and(|known| {
            known.extend(namespaces.iter().map(|namespace| (*namespace, at)));
            known.retain(|_, last| at - *last <= AT_ONCE_MS);
            known.len() > 1
        });
        if namespaces.is_empty() || several || is_of_the_pool(text(line, "errorCode")) {
            events.push(event);
        }
    }
    for request in history.requests.iter().filter(|request| request["objectRef"]["resource"] == "datasetimportjobs") {
        let (Some(at), namespace) = (received(request), request["objectRef"]["namespace"].as_str()) else { continue };
        let code = request["responseStatus"]["code"].as_u64().unwrap_or(500);
        // A list of one item is the check of readiness.
        let lists = request["verb"] == "list" && !text(request, "requestURI").ends_with("limit=1");
        let gone = request["objectRef"]["name"].is_string() && (code == 404 || code == 409);
        if lists || code >= 400 && !gone {
            let delay = request["responseStatus"]["details"]["retryAfterSeconds"].as_i64().unwrap_or(0);
            events.push(Event { begin: at, end: at + delay.min(MAX_RETRY_AFTER) * 1000, namespace, pool: None });
        }
    }
    events.extend(history.disturbances.iter().map(|disturbance| Event {
        begin: disturbance.begin,
        end: disturbance.end,
        namespace: disturbance.namespace.as_deref(),
        pool: disturbance.pool.as_ref().map(|(account, region)| (account.as_str(), region.as_str())),
    }));
    events.sort_by_key(|event| event.begin);
    events
}

/// The calls and writes of the operator for each resource.
pub(super) struct Work {
    /// When it did anything for a resource.
    pub(super) acts: Vec<(i64, usize)>,
    /// When the service accepted an import.
    pub(super) creates: Vec<(i64, usize)>,
}

impl Work {
    pub(super) fn new(history: &History<'_>, items: &[Item<'_>], concerns: &Concerns<'_>) -> Self {
        let by_uid: HashMap<&str, usize> = items.iter().enumerate().map(|(i, item)| (item.uid, i)).collect();
        let written = |write: &Value| {
            Some((received(write)?, *by_uid.get(written_resource(write)["metadata"]["uid"].as_str()?)?))
        };
        let mut work =
            Self { acts: operator_writes(history.writes).filter_map(written).collect(), creates: Vec::new() };
        for line in history.ledger {
            let Some(at) = millis(&line["time"]) else { continue };
            let existing = |i: &&usize| items[**i].versions[0].0 <= at;
            let of: Vec<usize> = concerns.of(line).iter().filter(existing).copied().collect();
            if line["operation"] == "CreateDatasetImportJob" && line["datasetImportJobArn"].is_string() {
                work.creates.extend(of.last().map(|i| (at, *i)));
            }
            work.acts.extend(of.into_iter().map(|i| (at, i)));
        }
        work.acts.sort_unstable();
        work.creates.sort_unstable();
        work
    }
}
