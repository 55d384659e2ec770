//! Who waits, and for what: the waits of all resources, reconstructed from the records. I and J are checked against them.
//!
//! Time is counted in *renewals*: seconds in which a leader renewed its Lease. This clock stands still while no operator
//! leads, while the leader is paused, and while the API server is away. So it measures what the operator could have
//! done, on a fast machine and on a slow one.
//!
//! At each renewal a resource *can go* if
//! - it exists, is valid, is not suspended, and has neither finished nor stalled,
//! - its reason is none, `Queued` or `Submitting`: for the others it waits for more than its turn,
//! - no job runs in its dataset, and no other resource of the dataset is in flight or older,
//! - its account and region has a free place: jobs that run and intents without a result count, also those of resources
//!   that were deleted less than a grace period ago.
//!
//! The oldest resource of an account and region that can go is *next*. Any order of submission that is fair takes it
//! soon, be it by age or by turns. The count of its renewals starts over whenever something of its own disturbs it:
//! - in its account and region: an answer about throttling, the quota or credentials; failing calls for two namespaces
//!   at once, which may occupy all workers; an accepted create of a resource that is not younger,
//! - in its account and region and its own namespace: any failing call,
//! - in its namespace: a request to the API server that fails, and a list of its resources, with which a quarantine
//!   may begin,
//! - on the network: what the proxy does to calls for its namespace, for its account and region, or for neither.
//!
//! Not seen: datasets that are not `ACTIVE` before the status says so, calls that never reach the service without a
//! proxy, and operators without a Lease. The bound is generous, so what is noticed late does not matter.

mod events;
mod items;

use super::History;
pub use events::Disturbance;
use events::{Concerns, Event, Work, events, has_failed, pool_of};
pub(in crate::invariants) use items::received;
use items::{Item, Moment, Pool, is_waiting, items, millis, reason};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The reasons of a resource that tries again after some time.
const TIMED: [&str; 7] = [
    "Submitting",
    "Retrying",
    "DatasetNotReady",
    "DataDeletionRunning",
    "Throttled",
    "ServiceUnavailable",
    "CredentialsRefused",
];
/// How many younger resources may go before the one that is next and has no delay any more: more than turns of all
/// namespaces take.
const MAX_PASSED: usize = 20;
/// What bounds a wait: the flags of the operators in a test.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// `--max-in-flight`.
    pub quota: usize,
    /// `--grace` in milliseconds.
    pub grace: i64,
    /// How many renewals a resource that can go, or whose delay is over, may wait.
    pub renewals: usize,
}

impl Limits {
    /// What both allow.
    pub fn widest(self, other: Self) -> Self {
        Self {
            quota: self.quota.min(other.quota),
            grace: self.grace.max(other.grace),
            renewals: self.renewals.max(other.renewals),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { quota: 5, grace: 5000, renewals: 60 }
    }
}

/// A resource that waited too long.
#[derive(Debug, PartialEq)]
pub(super) struct Wait {
    /// Namespace and name.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// For how many renewals, or behind how many younger resources.
    pub(super) count: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// It was next, while something else suffered.
    HeldUp,
    /// It was next, and nothing else suffered.
    Forgotten,
    /// It was next, and younger resources of its account and region went first.
    Passed,
    /// Its delay was over, and nothing happened.
    Silent,
}

/// The seconds in which a leader renewed its Lease, in order: the first renewal in each, in milliseconds since 1970.
pub fn renewals(requests: &[Value]) -> Vec<i64> {
    let writes = requests.iter().filter(|request| {
        request["objectRef"]["resource"] == "leases"
            && matches!(request["verb"].as_str(), Some("create" | "update" | "patch"))
            && request["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300)
    });
    let mut times: Vec<i64> = writes.filter_map(received).collect();
    times.sort_unstable();
    times.dedup_by_key(|at| *at / 1000);
    times
}

/// The part of what is sorted by time that is later than `after`, and not later than `until`.
fn between<T>(sorted: &[T], time: impl Fn(&T) -> i64, after: i64, until: i64) -> &[T] {
    let (begin, end) = (sorted.partition_point(|t| time(t) <= after), sorted.partition_point(|t| time(t) <= until));
    &sorted[begin.min(end)..end]
}

/// The resource that is next in its account and region.
struct Next {
    item: usize,
    since: i64,
    renewals: usize,
    passed: usize,
}

/// The waits that were too long.
pub(super) fn too_long(history: &History<'_>) -> Vec<Wait> {
    let (renewals, items) = (renewals(history.requests), items(history));
    let concerns = Concerns::new(history, &items);
    let (events, work) = (events(history, &items, &concerns), Work::new(history, &items, &concerns));
    let mut waits: BTreeMap<(usize, Kind), usize> = BTreeMap::new();
    let mut next: HashMap<Pool<'_>, Next> = HashMap::new();
    let mut silent: HashMap<usize, usize> = HashMap::new();
    // Whether the last call in each account and region succeeded.
    let mut answers: HashMap<Pool<'_>, bool> = HashMap::new();
    let mut before = i64::MIN;
    for at in renewals {
        let moment = Moment::new(history, &items, at);
        let recent: Vec<&Event<'_>> = events.iter().filter(|event| event.begin <= at && event.end > before).collect();
        let disturbed = |item: &Item<'_>| recent.iter().any(|event| event.concerns(item));
        let acts: HashSet<usize> = between(&work.acts, |(t, _)| *t, before, at).iter().map(|(_, i)| *i).collect();
        let creates = between(&work.creates, |(t, _)| *t, before, at);
        let calls = between(history.ledger, |line| millis(&line["time"]).unwrap_or(i64::MIN), before, at);
        answers.extend(calls.iter().filter_map(|line| Some((pool_of(line)?, !has_failed(line)))));

        let mut oldest: HashMap<Pool<'_>, usize> = HashMap::new();
        for (i, item, _) in moment.live.iter().filter(|(i, item, resource)| moment.can_go(*i, item, resource)) {
            let first = oldest.entry(item.pool).or_insert(*i);
            if item.created < items[*first].created {
                *first = *i;
            }
        }
        next.retain(|pool, next| oldest.get(pool) == Some(&next.item) && !disturbed(&items[next.item]));
        for (pool, i) in oldest {
            let item = &items[i];
            let of_pool = || creates.iter().map(|(_, other)| &items[*other]).filter(|other| other.pool == pool);
            let next = next.entry(pool).or_insert(Next { item: i, since: at, renewals: 0, passed: 0 });
            if of_pool().any(|other| other.created <= item.created && other.uid != item.uid) {
                *next = Next { item: i, since: at, renewals: 0, passed: 0 };
            }
            next.renewals += 1;
            // After a disturbance a delay of its own may last for some time, in which nothing waits for it.
            if next.renewals > history.limits.renewals / 4 {
                next.passed += of_pool().filter(|other| other.created > item.created).count();
            }
            if next.renewals > history.limits.renewals {
                let suffers = |event: &Event<'_>| next.since <= event.end && event.begin <= at && !event.concerns(item);
                let kind = if events.iter().any(suffers) { Kind::HeldUp } else { Kind::Forgotten };
                waits.insert((i, kind), next.renewals);
            }
            if next.passed > MAX_PASSED {
                waits.insert((i, Kind::Passed), next.passed);
            }
        }

        for (i, item, resource) in &moment.live {
            let visible = match (answers.get(&item.pool), reason(resource)) {
                (None, _) => false,
                (Some(succeeded), "ServiceUnavailable" | "CredentialsRefused") => *succeeded,
                _ => true,
            };
            let waits_for_time = item.valid && is_waiting(resource) && TIMED.contains(&reason(resource));
            if !waits_for_time || !visible || acts.contains(i) || disturbed(item) {
                silent.remove(i);
                continue;
            }
            let count = silent.entry(*i).or_default();
            *count += 1;
            if *count > history.limits.renewals {
                waits.insert((*i, Kind::Silent), *count);
            }
        }
        before = at;
    }
    let named = |((i, kind), count)| {
        let Item { namespace, name, .. } = &items[i];
        Wait { name: format!("{namespace}/{name}"), kind, count }
    };
    waits.into_iter().map(named).collect()
}
