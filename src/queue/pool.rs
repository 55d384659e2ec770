//! One account and region: its entries, and who is admitted.

use super::entry::{Entry, Place, Reservation};
use super::stats::PoolStats;
use crate::import::{Admission, Backoff, CooldownCause, Key};
use crate::personalize::DatasetArn;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashSet};

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
}

impl Pool {
    pub(super) fn new(quota: usize) -> Self {
        Self { quota, entries: BTreeMap::new(), cooldown: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.cooldown.is_none()
    }

    /// How many imports run, or may run.
    pub(super) fn in_flight(&self) -> usize {
        self.entries.values().filter(|entry| entry.is_in_flight()).count()
    }

    /// The places of the resources that would be admitted now if there is no cooldown.
    pub(super) fn admissible(&self, now: Timestamp) -> Vec<&Place> {
        let in_flight = || self.entries.values().filter(|entry| entry.is_in_flight());
        let mut free = self.quota.saturating_sub(in_flight().count());
        let mut busy_datasets: HashSet<&DatasetArn> = in_flight().map(|entry| &entry.dataset).collect();
        let full = self.datasets_with_full_import();
        let line = self.entries.iter().filter(|(_, e)| e.is_in_line(now, &full) && !e.is_in_flight());
        let mut places = Vec::new();
        for (place, entry) in line {
            if free == 0 {
                break;
            }
            // The oldest resource of a dataset goes first, even if it is not due yet.
            if busy_datasets.insert(&entry.dataset) && entry.is_due(now) {
                places.push(place);
                free -= 1;
            }
        }
        places
    }

    /// The datasets into which a FULL import has succeeded, as far as resources show it.
    fn datasets_with_full_import(&self) -> HashSet<&DatasetArn> {
        self.entries.values().filter(|entry| entry.is_full_success()).map(|entry| &entry.dataset).collect()
    }

    /// Whether a resource may submit now.
    pub(super) fn admission(&self, place: &Place, now: Timestamp) -> Admission {
        let Some(own) = self.entries.get(place) else { return not_synced() };
        if own.is_in_flight() {
            return Admission::Admitted;
        }
        self.dataset_obstacle(place, own, now)
            .or_else(|| self.cooldown_obstacle(place, own, now))
            .or_else(|| self.quota_obstacle(place, own, now))
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
    /// line: it is admitted when it is due, unless an older resource is in line.
    fn cooldown_obstacle(&self, place: &Place, own: &Entry, now: Timestamp) -> Option<Admission> {
        let cooldown = self.cooldown.as_ref()?;
        let until = cooldown.until();
        let first = self.admissible(until.max(now)).first().copied();
        let is_first = first.is_none_or(|first| !first.is_before(place));
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

    fn quota_obstacle(&self, place: &Place, own: &Entry, now: Timestamp) -> Option<Admission> {
        let admissible = self.admissible(now);
        let older = admissible.iter().filter(|other| other.is_before(place)).count();
        let full = self.in_flight() + older >= self.quota;
        full.then(|| Admission::Pending { message: self.quota_message(own), until: None })
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
