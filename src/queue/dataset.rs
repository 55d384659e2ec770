//! One dataset: one import at a time, in the order of the resources' age.

use super::entry::Entry;
use super::place::Place;
use super::pool::set;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A resource that waits to submit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    /// Before that it can't submit.
    pub(super) requeue_at: Option<Timestamp>,
    /// It is an INCREMENTAL import that waits for a FULL one whose job is newer than this one, or for any.
    pub(super) newer_than: Option<Option<Timestamp>>,
}

/// The imports into one dataset.
#[derive(Debug, Clone, Default)]
pub(super) struct DatasetQueue {
    pub(super) in_flight: BTreeSet<Arc<Place>>,
    /// The resources that wait to submit and that others wait for, with the time before which they can't.
    line: BTreeMap<Arc<Place>, Option<Timestamp>>,
    /// The INCREMENTAL imports that wait for a FULL one, by the job that it must be newer than. Nothing waits for them, and
    /// they are not in line before there is one.
    waiting_for_full: BTreeMap<Option<Timestamp>, BTreeMap<Arc<Place>, Option<Timestamp>>>,
    /// The FULL imports that have succeeded, by the age of their jobs.
    full_successes: BTreeSet<(Option<Timestamp>, Arc<Place>)>,
    /// The other imports that have succeeded, by their ends in seconds since 1970.
    increments: BTreeSet<(u32, Arc<Place>)>,
    /// The resources whose status says that the dataset holds their data.
    current: BTreeSet<Arc<Place>>,
}

impl DatasetQueue {
    /// The resource that goes first, and before when it can't. Nothing goes while an import is in flight.
    pub(super) fn head(&self) -> Option<(Arc<Place>, Option<Timestamp>)> {
        let (place, requeue_at) = self.line().next().filter(|_| self.in_flight.is_empty())?;
        Some((Arc::clone(place), requeue_at))
    }

    /// The resources in line, with the time before which they can't submit.
    pub(super) fn line(&self) -> impl Iterator<Item = (&Arc<Place>, Option<Timestamp>)> {
        self.line.iter().map(|(place, requeue_at)| (place, *requeue_at))
    }

    /// Whether a resource has to wait for another one.
    pub(super) fn is_busy_for(&self, place: &Place) -> bool {
        let is_other = |other: &&Arc<Place>| ***other != *place;
        let first = self.line().map(|(other, _)| other).find(is_other);
        self.in_flight.iter().any(|other| is_other(&other)) || first.is_some_and(|other| other.is_before(place))
    }

    pub(super) fn is_empty(&self) -> bool {
        let Self { in_flight, line, waiting_for_full, full_successes, increments, current } = self;
        let waits = !in_flight.is_empty() || !line.is_empty() || !waiting_for_full.is_empty();
        !waits && full_successes.is_empty() && increments.is_empty() && current.is_empty()
    }

    /// Adds a resource that waits to submit.
    pub(super) fn enter_line(&mut self, place: &Arc<Place>, waiting: Waiting) {
        if let Some(seen) = waiting.newer_than {
            self.waiting_for_full.entry(seen).or_default().insert(Arc::clone(place), waiting.requeue_at);
        }
        if waiting.newer_than.is_none_or(|seen| self.newest_full() > seen) {
            self.line.insert(Arc::clone(place), waiting.requeue_at);
        }
    }

    /// Removes a resource that waits to submit.
    pub(super) fn leave_line(&mut self, place: &Arc<Place>, waiting: Waiting) {
        self.line.remove(place);
        let Some(seen) = waiting.newer_than else { return };
        if let Some(others) = self.waiting_for_full.get_mut(&seen) {
            others.remove(place);
            if others.is_empty() {
                self.waiting_for_full.remove(&seen);
            }
        }
    }

    /// When the service created the newest FULL import that has succeeded.
    pub(super) fn newest_full(&self) -> Option<Timestamp> {
        self.full_successes.last().map(|(created, _)| created.unwrap_or(Timestamp::MIN))
    }

    /// Adds or removes a finished import.
    pub(super) fn set_success(&mut self, entry: &Entry, is_member: bool) {
        let place = Arc::clone(&entry.place);
        if entry.is_full_success() {
            let before = self.newest_full();
            set(&mut self.full_successes, (entry.job_created, place), is_member);
            let after = self.newest_full();
            let changed = self.waiting_for_full.range(before.min(after)..before.max(after));
            for (place, requeue_at) in changed.flat_map(|(_, places)| places) {
                if after > before {
                    self.line.insert(Arc::clone(place), *requeue_at);
                } else {
                    self.line.remove(place);
                }
            }
        } else {
            set(&mut self.increments, (entry.ended, place), is_member);
        }
    }

    pub(super) fn set_current(&mut self, place: &Arc<Place>, is_current: bool) {
        set(&mut self.current, Arc::clone(place), is_current);
    }

    /// The FULL imports whose jobs are newer than that, the newest first.
    pub(super) fn newer_than(&self, created: Timestamp) -> impl Iterator<Item = &Arc<Place>> {
        let newer = self.full_successes.iter().rev().take_while(move |(other, _)| *other > Some(created));
        newer.map(|(_, place)| place)
    }

    /// The successful FULL imports, the newest first.
    pub(super) fn full_successes(&self) -> impl Iterator<Item = &Arc<Place>> {
        self.full_successes.iter().rev().map(|(_, place)| place)
    }

    /// The other successful imports, the last one first.
    pub(super) fn increments(&self) -> impl Iterator<Item = &Arc<Place>> {
        self.increments.iter().rev().map(|(_, place)| place)
    }

    /// The successful imports whose jobs are newer than that, and INCREMENTAL ones that ended since.
    pub(super) fn successes_since(&self, created: Timestamp) -> impl Iterator<Item = &Arc<Place>> {
        let ended_since = move |ended: u32| i64::from(ended) >= created.as_second();
        let increments = self.increments.iter().rev().take_while(move |(ended, _)| ended_since(*ended));
        self.newer_than(created).chain(increments.map(|(_, place)| place))
    }

    /// The resources whose status says that the dataset holds their data.
    pub(super) fn current(&self) -> impl Iterator<Item = &Arc<Place>> {
        self.current.iter()
    }
}
