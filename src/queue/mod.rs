//! Who may submit now: a bounded number of imports in flight per account and region, oldest resource first or namespaces
//! in turn; one import at a time per dataset, in the order of the resources' age.
//!
//! The queue is an index of what the watch delivered and what this process wrote since. It makes no call and has no
//! clock. After a restart it is built from the resources themselves.
//!
//! ```
//! use jiff::Timestamp;
//! use personalize_operator::api::DatasetImportJob;
//! use personalize_operator::import::{Admission, Timing, Trust};
//! use personalize_operator::queue::Queue;
//!
//! let resource = |uid: &str, dataset: &str| -> serde_json::Result<DatasetImportJob> {
//!     serde_json::from_value(serde_json::json!({
//!         "apiVersion": "personalize-operator.io/v1alpha1", "kind": "DatasetImportJob",
//!         "metadata": { "namespace": "shop", "name": uid, "uid": uid },
//!         "spec": {
//!             "datasetArn": format!("arn:aws:personalize:eu-west-1:123456789012:dataset/shop/{dataset}"),
//!             "dataSource": { "dataLocation": "s3://shop-data/data.csv" },
//!             "roleArn": "arn:aws:iam::123456789012:role/PersonalizeRead",
//!         },
//!     }))
//! };
//! let (now, mut queue) = (Timestamp::now(), Queue::new(5, Timing::default()));
//! for resource in [resource("a", "ITEMS")?, resource("b", "ITEMS")?, resource("c", "USERS")?] {
//!     queue.observe(&resource, Trust::Trusted);
//! }
//! assert_eq!(queue.try_admit("a", now), Admission::Admitted);
//! assert!(matches!(queue.try_admit("b", now), Admission::Pending { .. }), "one import at a time per dataset");
//! assert_eq!(queue.try_admit("c", now), Admission::Admitted);
//! # Ok::<(), serde_json::Error>(())
//! ```

mod entry;
mod line;
mod pool;
mod stats;
#[cfg(test)]
mod tests;

pub use entry::Uid;
pub use line::QueueOrder;
pub use stats::{PoolStats, QueueLine, WaitingResource};

use crate::api::conditions::Reason;
use crate::api::{DatasetImportJob, created_at, resource_version};
use crate::import::timing::{after, since};
use crate::import::{Admission, CooldownCause, ImportRequest, Key, Timing, Trust};
use crate::personalize::{AccountRegion, DatasetArn};
use entry::{Entry, Place, QueueState, Reservation};
use jiff::Timestamp;
use kube::ResourceExt;
use line::Shares;
use pool::{Cooldown, Pool};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The job of a deleted resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedJob {
    /// The UID of the resource.
    pub uid: Uid,
    /// The dataset that the job imports into.
    pub dataset: DatasetArn,
    /// The job's name.
    pub name: String,
}

/// The queue over all resources that this operator watches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Queue {
    quota: usize,
    shares: Shares,
    timing: Timing,
    pools: BTreeMap<AccountRegion, Pool>,
    /// Where the entry of each resource is.
    index: BTreeMap<Uid, (AccountRegion, Place)>,
    /// Resources with an invalid spec: they belong to no pool.
    invalid: BTreeSet<Uid>,
    /// Until then create requests of an earlier leader may still arrive.
    quarantine_until: Option<Timestamp>,
}

impl Queue {
    /// A queue that admits this many imports at once per account and region.
    #[must_use]
    pub fn new(quota: usize, timing: Timing) -> Self {
        Self {
            quota: quota.max(1),
            shares: Shares::default(),
            timing,
            pools: BTreeMap::new(),
            index: BTreeMap::new(),
            invalid: BTreeSet::new(),
            quarantine_until: None,
        }
    }

    /// The queue with another order than the oldest first.
    #[must_use]
    pub fn with_order(mut self, order: QueueOrder) -> Self {
        self.shares.order = order;
        self
    }

    /// Sets how much of the quota a namespace gets when namespaces take turns, in proportion to the others. Without a
    /// weight it is 1. Returns whether this is a change.
    pub fn set_weight(&mut self, namespace: &str, weight: u32) -> bool {
        let weights = &mut self.shares.weights;
        let before = if weight == 1 { weights.remove(namespace) } else { weights.insert(namespace.into(), weight) };
        before.unwrap_or(1) != weight
    }

    /// Starts a grace period in which no submission begins: an earlier leader may have sent create requests for
    /// resources that are deleted since or not listed yet. When it is over, the service lists all jobs that it has
    /// accepted.
    pub fn quarantine(&mut self, now: Timestamp) {
        self.quarantine_until = Some(after(now, self.timing.grace));
    }

    /// Ends the quarantine early: no such request exists.
    pub fn end_quarantine(&mut self) {
        self.quarantine_until = None;
    }

    /// Whether no resource of a namespace, or of all if it is empty, shows that a leader has ever reconciled it.
    #[must_use]
    pub fn is_untouched(&self, namespace: &str) -> bool {
        let mut existing = self.existing().filter(|(place, _)| [&place.key.namespace, ""].contains(&namespace));
        existing.all(|(_, entry)| entry.is_untouched())
    }

    /// The accounts and regions of all resources.
    #[must_use]
    pub fn account_regions(&self) -> Vec<AccountRegion> {
        self.pools.keys().cloned().collect()
    }

    /// Whether no create request of this leader or an earlier one may still arrive.
    #[must_use]
    pub fn is_drained(&self, now: Timestamp) -> bool {
        let mut entries = self.pools.values().flat_map(|pool| pool.entries.values());
        self.quarantine_until.is_none_or(|until| until <= now) && entries.all(|e| e.is_drained(now, &self.timing))
    }

    /// Locks the queue. A panic under the lock does no harm: the queue is an index of what was observed, and each entry
    /// is replaced as a whole.
    pub fn lock(queue: &Mutex<Self>) -> MutexGuard<'_, Self> {
        queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds or updates a resource as the watch delivers it. Ignores older resource versions, and an untrusted copy of a
    /// known version. An untrusted success does not count. Returns true if the resource's state has changed.
    pub fn observe(&mut self, resource: &DatasetImportJob, trust: Trust) -> bool {
        let (Some(uid), Some(namespace)) = (resource.uid(), resource.namespace()) else { return false };
        let Ok(request) = ImportRequest::of(resource) else {
            self.remove(&uid);
            self.invalid.insert(uid);
            return true;
        };
        self.invalid.remove(&uid);
        let version = resource_version(resource);
        let previous = self.entry(&uid);
        if previous.is_some_and(|previous| {
            version < previous.resource_version || !trust.is_trusted() && version == previous.resource_version
        }) {
            return false;
        }
        let account_region = request.dataset.account_region().clone();
        let entry = Entry::new(resource, request, trust, previous);
        let changed = previous.is_none_or(|previous| previous.state != entry.state);
        let adopted = entry.in_flight_job.clone();
        let key = Key { namespace, name: resource.name_any() };
        let place = Place { created: created_at(resource), key, uid: uid.clone() };
        // A pool without entries would be removed, with its turns.
        if self.index.get(&uid).is_some_and(|(known, at)| *known != account_region || *at != place) {
            self.remove(&uid);
        }
        let pool = self.pool_mut(&account_region);
        // A resource that was created again has adopted the job of the deleted one.
        for entry in pool.entries.values_mut().filter(|e| e.has_deleted_job() && e.in_flight_job == adopted) {
            entry.job_is_over = true;
        }
        pool.entries.insert(place.clone(), entry);
        self.index.insert(uid, (account_region, place));
        changed
    }

    /// Updates a resource that a reconciliation has read or written. A resource that was deleted in between stays
    /// deleted: no later event would remove it again. Returns true if the resource's state has changed.
    pub fn update(&mut self, resource: &DatasetImportJob, trust: Trust) -> bool {
        let is_known = resource.uid().is_some_and(|uid| self.index.contains_key(&uid) || self.invalid.contains(&uid));
        is_known && self.observe(resource, trust)
    }

    /// Removes a deleted resource. Returns the account and region in which it frees quota. It keeps the quota and its
    /// dataset while its reconciliation is admitted, its create request may still arrive or its job runs: a deletion
    /// cancels neither.
    pub fn forget(&mut self, uid: &str, now: Timestamp) -> Option<AccountRegion> {
        self.invalid.remove(uid);
        let entry = self.entry_mut(uid)?;
        entry.deleted_at = entry.deleted_at.or(Some(now));
        if entry.reservation == Reservation::Unconfirmed {
            entry.reservation = Reservation::None;
        }
        if entry.is_in_flight() {
            return None;
        }
        self.remove(uid)
    }

    /// Whether this resource exists.
    #[must_use]
    pub fn contains(&self, uid: &str) -> bool {
        self.entry(uid).is_some_and(|entry| entry.deleted_at.is_none())
    }

    /// Starts a new listing, in which resource versions may be lower (a restored etcd). Returns the known resources, of
    /// which those that are not listed are deleted.
    pub fn relist(&mut self, namespace: Option<&str>) -> HashSet<Uid> {
        let mut known: HashSet<Uid> = self.invalid.iter().cloned().collect();
        for (place, entry) in self.pools.values_mut().flat_map(|pool| &mut pool.entries) {
            if namespace.is_none_or(|namespace| namespace == place.key.namespace) {
                entry.resource_version = 0;
                known.insert(place.uid.clone());
            }
        }
        known
    }

    /// Asks for admission, and reserves the quota and the dataset if it is granted.
    pub fn try_admit(&mut self, uid: &str, now: Timestamp) -> Admission {
        let Some((account_region, place)) = self.index.get(uid) else { return pool::not_synced() };
        let Some(pool) = self.pools.get_mut(account_region) else { return pool::not_synced() };
        let admission = pool.admission(place, &self.shares, now);
        if admission == Admission::Admitted
            && let Some(entry) = pool.entries.get_mut(place)
        {
            if let Some(until) = self.quarantine_until.filter(|until| now < *until)
                && !entry.is_in_flight()
            {
                let message = "waiting for the grace period: an earlier leader may have submitted imports that the service does not list yet";
                return Admission::Pending { message: message.into(), until: Some(until) };
            }
            if !entry.is_in_flight() {
                pool.turns.take(&place.key.namespace, &self.shares);
            }
            entry.reservation = Reservation::Held;
        }
        admission
    }

    /// The resource can't submit before this moment. No quota is kept free for it, but newer resources of the same
    /// dataset still wait for it.
    pub fn set_requeue_at(&mut self, uid: &str, until: Option<Timestamp>) {
        if let Some(entry) = self.entry_mut(uid) {
            entry.requeue_at = until;
            entry.skipped_until = None;
        }
    }

    /// A reconciliation has failed and is repeated at this moment. With `skip`, resources of the same dataset no longer
    /// wait for it. With `write_unconfirmed` its status write may have been applied, so its reservation stays. Returns
    /// whether a reservation was released.
    pub(crate) fn requeue_failed(&mut self, uid: &str, until: Timestamp, skip: bool, write_unconfirmed: bool) -> bool {
        let Some(entry) = self.entry_mut(uid) else { return false };
        entry.requeue_at = Some(until);
        entry.skipped_until = skip.then_some(until);
        if write_unconfirmed && entry.deleted_at.is_none() && entry.reservation != Reservation::None {
            entry.reservation = Reservation::Unconfirmed;
            return false;
        }
        self.release(uid)
    }

    /// Releases the reservation of a resource; what its status records stays reserved. Returns whether there was one.
    pub fn release(&mut self, uid: &str) -> bool {
        let Some(entry) = self.entry_mut(uid) else { return false };
        std::mem::replace(&mut entry.reservation, Reservation::None) != Reservation::None
    }

    /// The service accepted no import: no resource submits in this account and region for some time. `delay` maps the
    /// number of such answers in a row to a delay.
    pub(crate) fn start_cooldown(
        &mut self,
        account_region: &AccountRegion,
        cause: CooldownCause,
        now: Timestamp,
        delay: impl Fn(u32) -> Duration,
    ) {
        let pool = self.pool_mut(account_region);
        let mut backoff = pool.cooldown.take().map(|cooldown| cooldown.backoff).unwrap_or_default();
        backoff.fail(now, delay);
        pool.cooldown = Some(Cooldown { backoff, cause });
    }

    /// The service accepted an import: the cooldown ends.
    pub fn accepted(&mut self, account_region: &AccountRegion) {
        if let Some(pool) = self.pools.get_mut(account_region) {
            pool.cooldown = None;
            self.remove_if_empty(account_region);
        }
    }

    /// The resources of this account and region that would be admitted now.
    #[must_use]
    pub fn admissible(&self, account_region: &AccountRegion, now: Timestamp) -> Vec<Key> {
        self.pools.get(account_region).map_or_else(Vec::new, |pool| Pool::keys(&pool.admissible(&self.shares, now)))
    }

    /// The line of each account and region, with at most `limit` resources each.
    #[must_use]
    pub fn lines(&self, now: Timestamp, limit: usize) -> Vec<QueueLine> {
        self.pools.iter().map(|(of, pool)| pool.view(of, &self.shares, now, limit)).collect()
    }

    /// The imports of each account and region.
    #[must_use]
    pub fn stats(&self) -> HashMap<AccountRegion, PoolStats> {
        self.pools.iter().map(|(account_region, pool)| (account_region.clone(), pool.stats())).collect()
    }

    /// Job name -> when the import was requested, for the successful imports into this dataset whose resources are in
    /// the queue.
    #[must_use]
    pub fn requested_at(&self, dataset: &DatasetArn) -> HashMap<&str, Timestamp> {
        let pool = self.pools.get(dataset.account_region());
        let entries = pool.into_iter().flat_map(|pool| pool.entries.values());
        entries
            .filter(|entry| entry.dataset == *dataset)
            .filter_map(|entry| match entry.state {
                QueueState::Succeeded(at) => Some((entry.job_name.as_deref()?, at)),
                _ => None,
            })
            .collect()
    }

    /// The resource of the newest import that has replaced the data of this one.
    #[must_use]
    pub fn newer_import(&self, uid: &str) -> Option<Key> {
        let (account_region, place) = self.index.get(uid)?;
        let entries = &self.pools.get(account_region)?.entries;
        let own = entries.get(place)?;
        let newer = entries.iter().filter(|(_, entry)| entry.replaces(own));
        newer.max_by_key(|(_, entry)| entry.job_created).map(|(place, _)| place.key.clone())
    }

    /// The resources whose status still says that the dataset holds their data, which this import has replaced.
    #[must_use]
    pub fn replaced_by(&self, uid: &str) -> Vec<Key> {
        let Some(own) = self.entry(uid).filter(|entry| entry.is_full_success()) else { return Vec::new() };
        let pool = self.pools.get(own.dataset.account_region());
        let entries = pool.into_iter().flat_map(|pool| &pool.entries);
        let replaced = entries.filter(|(_, entry)| entry.is_data_current && own.replaces(entry));
        replaced.map(|(place, _)| place.key.clone()).collect()
    }

    /// The number of resources with each reason; `None` counts those without one.
    #[must_use]
    pub fn reasons(&self) -> HashMap<Option<Reason>, usize> {
        let mut reasons = HashMap::from([(Some(Reason::InvalidSpec), self.invalid.len())]);
        for (_, entry) in self.existing() {
            *reasons.entry(entry.reason).or_default() += 1;
        }
        reasons
    }

    /// The resources with this reason.
    #[must_use]
    pub fn with_reason(&self, reason: Reason) -> Vec<Key> {
        self.existing().filter(|(_, entry)| entry.reason == Some(reason)).map(|(place, _)| place.key.clone()).collect()
    }

    /// The resources whose job runs, and since when the job is known.
    #[must_use]
    pub fn running(&self) -> Vec<(Uid, Timestamp)> {
        self.existing().filter_map(|(place, entry)| Some((place.uid.clone(), entry.running_since?))).collect()
    }

    fn existing(&self) -> impl Iterator<Item = (&Place, &Entry)> {
        let entries = self.pools.values().flat_map(|pool| &pool.entries);
        entries.filter(|(_, entry)| entry.deleted_at.is_none())
    }

    fn entry(&self, uid: &str) -> Option<&Entry> {
        let (account_region, place) = self.index.get(uid)?;
        self.pools.get(account_region)?.entries.get(place)
    }

    fn entry_mut(&mut self, uid: &str) -> Option<&mut Entry> {
        let (account_region, place) = self.index.get(uid)?;
        self.pools.get_mut(account_region)?.entries.get_mut(place)
    }

    fn pool_mut(&mut self, account_region: &AccountRegion) -> &mut Pool {
        self.pools.entry(account_region.clone()).or_insert_with(|| Pool::new(self.quota))
    }

    fn remove(&mut self, uid: &str) -> Option<AccountRegion> {
        let (account_region, place) = self.index.remove(uid)?;
        if let Some(pool) = self.pools.get_mut(&account_region) {
            pool.entries.remove(&place);
            self.remove_if_empty(&account_region);
        }
        Some(account_region)
    }

    fn remove_if_empty(&mut self, account_region: &AccountRegion) {
        if self.pools.get(account_region).is_some_and(Pool::is_empty) {
            self.pools.remove(account_region);
        }
    }

    /// The jobs of deleted resources that are due for a poll: they use the quota until they end. The caller polls them and
    /// calls [`Self::deleted_job_polled`].
    pub fn deleted_jobs(&mut self, now: Timestamp) -> Vec<DeletedJob> {
        let timing = &self.timing;
        let entries = self.pools.values_mut().flat_map(|pool| &mut pool.entries);
        let due = entries.filter(|(_, e)| e.has_deleted_job() && e.next_poll.is_none_or(|at| at <= now));
        due.map(|(place, entry)| {
            let age = entry.running_since.map_or(Duration::ZERO, |since_when| since(since_when, now));
            let arrived = Some(entry.request_arrived_at(timing)).filter(|at| now < *at);
            let next = after(now, timing.poll(age, None));
            entry.next_poll = Some(arrived.map_or(next, |at| at.min(next)));
            let name = entry.in_flight_job.clone().unwrap_or_default();
            DeletedJob { uid: place.uid.clone(), dataset: entry.dataset.clone(), name }
        })
        .collect()
    }

    /// Takes the answer to a poll of the job of a deleted resource: whether the job runs, or `None` if the service does
    /// not know it. A job may become visible within the grace period.
    pub fn deleted_job_polled(&mut self, uid: &str, runs: Option<bool>, now: Timestamp) {
        let timing = self.timing.clone();
        if let Some(entry) = self.entry_mut(uid).filter(|entry| entry.deleted_at.is_some()) {
            entry.job_is_over |= runs.map_or_else(|| entry.request_arrived_at(&timing) <= now, |runs| !runs);
        }
    }

    /// Removes the deleted resources that no longer keep their dataset, and returns where they kept one. No event
    /// announces that moment, so the caller asks again and again, and wakes the resources that wait there.
    pub fn take_freed(&mut self) -> BTreeSet<AccountRegion> {
        let freed = |entry: &Entry| entry.deleted_at.is_some() && !entry.is_in_flight();
        let entries = self.pools.values().flat_map(|pool| &pool.entries);
        let freed: Vec<Uid> = entries.filter(|(_, e)| freed(e)).map(|(place, _)| place.uid.clone()).collect();
        freed.iter().filter_map(|uid| self.remove(uid)).collect()
    }
}
