//! Deleted resources whose jobs still run: a deletion cancels no job.

use super::entry::{Entry, Reservation};
use super::pool::Pool;
use super::{Queue, Uid};
use crate::import::timing::{after, since};
use crate::personalize::{AccountRegion, DatasetArn};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The job of a deleted resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedJob {
    /// The UID of the resource.
    pub uid: Uid,
    /// The namespace of the resource.
    pub namespace: String,
    /// The dataset that the job imports into.
    pub dataset: DatasetArn,
    /// The job's name.
    pub name: String,
}

impl Queue {
    /// Removes a deleted resource. Returns the account and region in which it frees quota. It keeps the quota and its
    /// dataset while its reconciliation is admitted, its create request may still arrive or its job runs: a deletion
    /// cancels neither.
    pub fn forget(&mut self, uid: &str, now: Timestamp) -> Option<AccountRegion> {
        self.invalid.remove(uid);
        self.modify(uid, |activity| {
            activity.deleted_at = activity.deleted_at.or(Some(now));
            if activity.reservation == Reservation::Unconfirmed {
                activity.reservation = Reservation::None;
            }
        });
        self.entries.get(uid).filter(|entry| !entry.is_in_flight())?;
        self.remove(uid)
    }

    /// A resource that was created again has adopted the job of the deleted one.
    pub(super) fn end_adopted(&mut self, adopter: &Entry) {
        let deleted = self.pools.get(adopter.dataset().account_region()).into_iter().flat_map(Pool::deleted);
        let job = &adopter.activity().in_flight_job;
        let is_adopted = |entry: &&Entry| entry.has_deleted_job() && entry.activity().in_flight_job == *job;
        let adopted = deleted.filter_map(|place| self.entries.get(&place.uid)).filter(is_adopted);
        let adopted: Vec<Uid> = adopted.map(|entry| Arc::clone(&entry.place.uid)).collect();
        for uid in adopted {
            self.modify(&uid, |activity| activity.job_is_over = true);
        }
    }

    /// The jobs of deleted resources that are due for a poll: they use the quota until they end. The caller polls them and
    /// calls [`Self::deleted_job_polled`].
    pub fn deleted_jobs(&mut self, now: Timestamp) -> Vec<DeletedJob> {
        let is_due = |entry: &&Entry| entry.has_deleted_job() && entry.activity().next_poll.is_none_or(|at| at <= now);
        let due = self.entries_at(self.pools.values().flat_map(Pool::deleted)).filter(is_due);
        let job = |entry: &Entry| {
            let activity = entry.activity();
            let age = activity.running_since.map_or(Duration::ZERO, |since_when| since(since_when, now));
            let arrived = Some(entry.request_arrived_at(&self.timing)).filter(|at| now < *at);
            let next = after(now, self.timing.poll(age, &[]));
            let name = activity.in_flight_job.clone().unwrap_or_default();
            let (uid, namespace) = (Arc::clone(&entry.place.uid), entry.place.key.namespace.clone());
            let job = DeletedJob { uid, namespace, dataset: entry.dataset().clone(), name };
            (job, arrived.map_or(next, |at| at.min(next)))
        };
        let due: Vec<(DeletedJob, Timestamp)> = due.map(job).collect();
        for (job, next_poll) in &due {
            self.modify(&job.uid, |activity| activity.next_poll = Some(*next_poll));
        }
        due.into_iter().map(|(job, _)| job).collect()
    }

    /// Takes the answer to a poll of the job of a deleted resource: whether the job runs, or `None` if the service does
    /// not know it. A job may become visible within the grace period.
    pub fn deleted_job_polled(&mut self, uid: &str, runs: Option<bool>, now: Timestamp) {
        let Some(entry) = self.entries.get(uid).filter(|entry| entry.is_deleted()) else { return };
        let is_over = runs.map_or_else(|| entry.request_arrived_at(&self.timing) <= now, |runs| !runs);
        self.modify(uid, |activity| activity.job_is_over |= is_over);
    }

    /// Removes the deleted resources that no longer keep their dataset, and returns where they kept one. No event
    /// announces that moment, so the caller asks again and again, and wakes the resources that wait there.
    pub fn take_freed(&mut self) -> BTreeSet<AccountRegion> {
        let deleted = self.entries_at(self.pools.values().flat_map(Pool::deleted));
        let freed: Vec<Uid> = deleted.filter(|e| !e.is_in_flight()).map(|e| Arc::clone(&e.place.uid)).collect();
        freed.iter().filter_map(|uid| self.remove(uid)).collect()
    }
}
