//! The resources over time, and what is the case at one moment.

use super::super::bounds::span;
use super::super::liveness::is_suspended;
use super::super::{History, adoption, condition, is_being_deleted, text, time, written_resource};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// The reasons of a resource that waits for its turn only.
const IN_LINE: [&str; 3] = ["", "Queued", "Submitting"];

/// Account and region.
pub(super) type Pool<'a> = (&'a str, &'a str);

/// A resource over time.
pub(super) struct Item<'a> {
    pub(super) uid: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) dataset: &'a str,
    pub(super) pool: Pool<'a>,
    pub(super) created: &'a str,
    pub(super) valid: bool,
    /// Each recorded version, and when.
    pub(super) versions: Vec<(i64, &'a Value)>,
    pub(super) deleted: i64,
}

impl<'a> Item<'a> {
    pub(super) fn at(&self, moment: i64) -> Option<&'a Value> {
        let count = self.versions.partition_point(|(at, _)| *at <= moment);
        Some(self.versions.get(count.checked_sub(1)?)?.1)
    }
}

pub(super) fn reason(resource: &Value) -> &str {
    condition(&resource["status"], "Ready").map(|ready| text(ready, "reason")).unwrap_or_default()
}

pub(super) fn is_over(resource: &Value) -> bool {
    let status = &resource["status"];
    status["completionTime"].is_string() || condition(status, "Stalled").is_some_and(|c| c["status"] == "True")
}

/// Whether it has an intent or a job, and no result.
pub(super) fn is_in_flight(resource: &Value) -> bool {
    let status = &resource["status"];
    !is_over(resource)
        && reason(resource) != "Retrying"
        && (status["submission"].is_object() || status["datasetImportJobArn"].is_string())
}

/// Whether it still has to be submitted.
pub(super) fn is_waiting(resource: &Value) -> bool {
    let submitted = resource["status"]["datasetImportJobArn"].is_string() && reason(resource) != "Retrying";
    !(is_over(resource) || is_suspended(resource) || is_being_deleted(resource) || submitted)
}

/// Account and region of an ARN.
pub(super) fn pool(arn: &str) -> Pool<'_> {
    let mut parts = arn.split(':').skip(3);
    let region = parts.next().unwrap_or_default();
    (parts.next().unwrap_or_default(), region)
}

pub(super) fn millis(value: &Value) -> Option<i64> {
    time(value).map(jiff::Timestamp::as_millisecond)
}

pub(in crate::invariants) fn received(request: &Value) -> Option<i64> {
    millis(&request["requestReceivedTimestamp"])
}

pub(super) fn items<'a>(history: &History<'a>) -> Vec<Item<'a>> {
    let (mut items, mut index): (Vec<Item<'a>>, HashMap<&str, usize>) = (Vec::new(), HashMap::new());
    for write in history.writes {
        let (Some(at), resource) = (received(write), written_resource(write)) else { continue };
        let (verb, object) = (text(write, "verb"), &write["objectRef"]);
        if verb.starts_with("delete") && resource["metadata"]["deletionTimestamp"].is_null() {
            let (namespace, name) = (text(object, "namespace"), text(object, "name"));
            let gone = |item: &&mut Item<'_>| item.namespace == namespace && (item.name == name || name.is_empty());
            items.iter_mut().filter(gone).for_each(|item| item.deleted = item.deleted.min(at));
            continue;
        }
        let Some(uid) = resource["metadata"]["uid"].as_str() else { continue };
        let slot = *index.entry(uid).or_insert_with(|| {
            let (metadata, dataset) = (&resource["metadata"], text(&resource["spec"], "datasetArn"));
            items.push(Item {
                uid,
                namespace: text(metadata, "namespace"),
                name: text(metadata, "name"),
                dataset,
                pool: pool(dataset),
                created: text(metadata, "creationTimestamp"),
                valid: adoption::request(resource).is_some(),
                versions: Vec::new(),
                deleted: i64::MAX,
            });
            items.len() - 1
        });
        items[slot].versions.push((at, resource));
    }
    items.iter_mut().for_each(|item| item.versions.sort_by_key(|(at, _)| *at));
    items
}

/// What is the case at one renewal.
pub(super) struct Moment<'a, 'b> {
    quota: usize,
    /// The resources that exist, by index.
    pub(super) live: Vec<(usize, &'b Item<'a>, &'a Value)>,
    /// The names of jobs that run or may run, by account and region.
    in_flight: HashMap<Pool<'a>, HashSet<&'a str>>,
    /// The datasets in which jobs run.
    busy: HashSet<&'a str>,
    /// Who is in flight or waits for a dataset: index and creation time.
    claims: HashMap<&'a str, Vec<(usize, &'a str, bool)>>,
}

impl<'a, 'b> Moment<'a, 'b> {
    pub(super) fn new(history: &History<'a>, items: &'b [Item<'a>], at: i64) -> Self {
        let live = |(i, item): (usize, &'b Item<'a>)| {
            let resource = item.at(at).filter(|_| at < item.deleted)?;
            Some((i, item, resource))
        };
        let live: Vec<_> = items.iter().enumerate().filter_map(live).collect();
        let mut moment = Self {
            quota: history.limits.quota,
            live,
            in_flight: HashMap::new(),
            busy: HashSet::new(),
            claims: HashMap::new(),
        };
        for job in history.jobs.iter().filter(|job| span(job).is_some_and(|(begin, end)| begin <= at && at < end)) {
            let pool = (text(job, "account"), text(job, "region"));
            moment.in_flight.entry(pool).or_default().insert(text(job, "name"));
            moment.busy.insert(text(job, "datasetArn"));
        }
        for (i, item, resource) in moment.live.clone() {
            let flying = is_in_flight(resource);
            if flying {
                moment.note_intent(item, resource);
            }
            if flying || is_waiting(resource) {
                moment.claims.entry(item.dataset).or_default().push((i, item.created, flying));
            }
        }
        for item in
            items.iter().filter(|item| item.deleted <= at && at < item.deleted.saturating_add(history.limits.grace))
        {
            if let Some(resource) = item.at(at).filter(|resource| is_in_flight(resource)) {
                moment.note_intent(item, resource);
                moment.busy.insert(item.dataset);
            }
        }
        moment
    }

    fn note_intent(&mut self, item: &Item<'a>, resource: &'a Value) {
        let name = text(&resource["status"]["submission"], "jobName");
        self.in_flight.entry(item.pool).or_default().insert(name);
    }

    pub(super) fn can_go(&self, i: usize, item: &Item<'a>, resource: &'a Value) -> bool {
        let own = text(&resource["status"]["submission"], "jobName");
        let claims = self.claims.get(item.dataset).map_or(&[][..], Vec::as_slice);
        item.valid
            && is_waiting(resource)
            && IN_LINE.contains(&reason(resource))
            && !self.busy.contains(item.dataset)
            && !claims.iter().any(|(other, created, flying)| *other != i && (*flying || *created <= item.created))
            && self.in_flight.get(&item.pool).map_or(0, |names| names.iter().filter(|name| **name != own).count())
                < self.quota
    }
}
