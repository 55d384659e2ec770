//! One account and region: its entries, and who is admitted.

use super::entry::{Entry, Place, Reservation};
use super::line::{Line, Shares, Turns};
use super::stats::{PoolStats, QueueLine, WaitingResource};
use crate::import::{Admission, Backoff, CooldownCause, Key};
use crate::personalize::{AccountRegion, DatasetArn};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// A pause of submissions after the service accepted none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Cooldown {
    pub(super) backoff: Backoff,
    pub(super) cause: CooldownCause,
}

impl Cooldown {
    fn until(&self) -> Timestamp {
        self.backoff.until().unwrap_or(Timestamp::MIN)
    }
}

/// The entries of one account and region, in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pool {
    quota: usize,
    pub(super) entries: BTreeMap<Place, Entry>,
    pub(super) cooldown: Option<Cooldown>,
    pub(super) turns: Turns,
}

impl Pool {
    pub(super) fn new(quota: usize) -> Self {
        Self { quota, entries: BTreeMap::new(), cooldown: None, turns: Turns::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.cooldown.is_none()
    }

    /// How many imports run, or may run.
    pub(super) fn in_flight(&self) -> usize {
        self.entries.values().filter(|entry| entry.is_in_flight()).count()
    }

    /// The places of the resources that would be admitted now if there is no cooldown, in this order.
    pub(super) fn admissible<'a>(&'a self, shares: &'a Shares, now: Timestamp) -> Vec<&'a Place> {
        self.next(shares, now, None)
    }

    /// As [`Self::admissible`], if the resource that asks could go.
    fn next<'a>(&'a self, shares: &'a Shares, now: Timestamp, asking: Option<&'a Place>) -> Vec<&'a Place> {
        let free = self.quota.saturating_sub(self.in_flight());
        let mut line = self.line(shares, now);
        asking.into_iter().for_each(|place| line.push(place));
        std::iter::from_fn(|| line.admit_next()).take(free).collect()
    }

    /// The resources that could go now if there were room.
    fn line<'a>(&'a self, shares: &'a Shares, now: Timestamp) -> Line<'a> {
        let mut line = Line::new(shares, &self.turns, self.quota);
        let mut busy_datasets = HashSet::new();
        for (place, entry) in self.running() {
            busy_datasets.insert(&entry.dataset);
            line.begin(place);
        }
        for (place, entry) in self.in_line(now) {
            // The oldest resource of a dataset goes first, even if it is not due yet.
            if busy_datasets.insert(&entry.dataset) && entry.is_due(now) {
                line.push(place);
            }
        }
        line
    }

    fn running(&self) -> impl Iterator<Item = (&Place, &Entry)> {
        self.entries.iter().filter(|(_, entry)| entry.is_in_flight())
    }

    /// The resources that wait to submit, and others wait for them.
    fn in_line(&self, now: Timestamp) -> impl Iterator<Item = (&Place, &Entry)> {
        let full = self.datasets_with_full_import();
        self.entries.iter().filter(move |(_, e)| e.is_in_line(now, &full) && !e.is_in_flight())
    }

    /// The waiting resources, in the order in which they would be admitted if all imports took equally long. Those that
    /// wait for something else come last.
    pub(super) fn waiting<'a>(&'a self, shares: &'a Shares, now: Timestamp, limit: usize) -> Vec<&'a Place> {
        let mut line = self.line(shares, now);
        let mut running: VecDeque<_> = self.running().map(|(place, entry)| (place, &entry.dataset)).collect();
        let mut by_dataset: HashMap<&DatasetArn, VecDeque<_>> = HashMap::new();
        for (place, entry) in self.in_line(now) {
            by_dataset.entry(&entry.dataset).or_default().push_back((place, entry));
        }
        let mut places = Vec::new();
        while places.len() < limit {
            let next = if running.len() < self.quota { line.admit_next() } else { None };
            if let Some((place, entry)) = next.and_then(|place| self.entries.get_key_value(place)) {
                by_dataset.entry(&entry.dataset).or_default().pop_front();
                running.push_back((place, &entry.dataset));
                places.push(place);
            } else if let Some((ended, dataset)) = running.pop_front() {
                line.end(ended);
                let next = by_dataset.get(dataset).and_then(VecDeque::front);
                next.into_iter().filter(|(_, entry)| entry.is_due(now)).for_each(|(place, _)| line.push(place));
            } else {
                break;
            }
        }
        let known: HashSet<&Place> = places.iter().copied().collect();
        let pending = self.entries.iter().filter(|(_, entry)| entry.is_pending() && !entry.is_in_flight());
        let others = pending.map(|(place, _)| place).filter(|place| !known.contains(place));
        let room = limit.saturating_sub(places.len());
        places.extend(others.take(room));
        places
    }

    /// What `/queue` shows of this account and region: at most `limit` of the resources that wait.
    pub(super) fn view(&self, of: &AccountRegion, shares: &Shares, now: Timestamp, limit: usize) -> QueueLine {
        let PoolStats { in_flight, pending, .. } = self.stats();
        let waiting = self.waiting(shares, now, limit).into_iter().zip(1..);
        let waiting = waiting.filter_map(|(place, position)| {
            let entry = self.entries.get(place)?;
            Some(WaitingResource {
                position,
                namespace: place.key.namespace.clone(),
                name: place.key.name.clone(),
                dataset: entry.dataset.name().to_owned(),
                since: Time(entry.pending_since),
            })
        });
        let (account, region) = (of.account.clone(), of.region.clone());
        QueueLine { account, region, in_flight, quota: self.quota, pending, waiting: waiting.collect() }
    }

    /// The datasets into which a FULL import has succeeded, as far as resources show it.
    fn datasets_with_full_import(&self) -> HashSet<&DatasetArn> {
        self.entries.values().filter(|entry| entry.is_full_success()).map(|entry| &entry.dataset).collect()
    }

    /// Whether a resource may submit now.
    pub(super) fn admission(&self, place: &Place, shares: &Shares, now: Timestamp) -> Admission {
        let Some(own) = self.entries.get(place) else { return not_synced() };
        if own.is_in_flight() {
            return Admission::Admitted;
        }
        self.dataset_obstacle(place, own, now)
            .or_else(|| self.cooldown_obstacle(place, own, shares, now))
            .or_else(|| self.quota_obstacle(place, own, shares, now))
            .unwrap_or(Admission::Admitted)
    }

    /// What keeps a resource from importing into its dataset.
    fn dataset_obstacle(&self, place: &Place, own: &Entry, now: Timestamp) -> Option<Admission> {
        let same_dataset = || self.entries.iter().filter(|(other, e)| e.dataset == own.dataset && *other != place);
        // The message names no other resource: the next one changes, and may be in another team's namespace.
        let message = format!("waiting for another import into the same dataset ({}) to finish", own.dataset.name());
        let full = self.datasets_with_full_import();
        let is_ahead = |other: &Place, e: &Entry| e.is_in_line(now, &full) && other.is_before(place);
        let is_busy = same_dataset().any(|(other, e)| e.is_in_flight() || is_ahead(other, e));
        is_busy.then_some(Admission::Pending { message, until: None })
    }

    /// During a cooldown no resource submits. When it is over, only the first in line is admitted, to find out whether
    /// the service accepts imports again; if it does, the cooldown ends for the others. A rejected resource is not in
    /// line: it is admitted when it is due, unless a resource that is in line goes first.
    fn cooldown_obstacle(&self, place: &Place, own: &Entry, shares: &Shares, now: Timestamp) -> Option<Admission> {
        let cooldown = self.cooldown.as_ref()?;
        let until = cooldown.until();
        let next = self.next(shares, until.max(now), Some(place));
        let is_first = next.first().is_none_or(|first| *first == place);
        let has_admitted = self.entries.values().any(|entry| entry.reservation != Reservation::None);
        if until <= now && is_first && !has_admitted {
            return None;
        }
        let message = match cooldown.cause {
            CooldownCause::Quota => self.quota_message(own),
            CooldownCause::Throttled => {
                format!("waiting: the service is throttling requests for {}", own.dataset.account_region())
            }
        };
        Some(Admission::Pending { message, until: Some(until).filter(|until| is_first && *until > now) })
    }

    fn quota_obstacle(&self, place: &Place, own: &Entry, shares: &Shares, now: Timestamp) -> Option<Admission> {
        let is_next = self.next(shares, now, Some(place)).contains(&place);
        (!is_next).then(|| Admission::Pending { message: self.quota_message(own), until: None })
    }

    fn quota_message(&self, own: &Entry) -> String {
        let (quota, account_region) = (self.quota, own.dataset.account_region());
        format!("waiting for a running import to finish: at most {quota} run at once in {account_region}")
    }

    pub(super) fn stats(&self) -> PoolStats {
        let mut stats = PoolStats::default();
        for entry in self.entries.values() {
            if entry.is_in_flight() {
                stats.in_flight += 1;
            } else if entry.is_pending() {
                stats.pending += 1;
                let since = stats.pending_since.map_or(entry.pending_since, |since| since.min(entry.pending_since));
                stats.pending_since = Some(since);
            }
        }
        stats
    }

    pub(super) fn keys(places: &[&Place]) -> Vec<Key> {
        places.iter().map(|place| place.key.clone()).collect()
    }
}

pub(super) fn not_synced() -> Admission {
    Admission::Pending { message: "waiting for the operator's cache to sync".into(), until: None }
}
