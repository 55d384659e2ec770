//! Who may submit now: a bounded number of imports in flight per account and region, oldest resource first or namespaces
//! in turn; one import at a time per dataset, in the order of the resources' age.
//!
//! The queue is an index of what the watch delivered and what this process wrote since. It makes no call and has no
//! clock. After a restart it is built from the resources themselves. An event costs the logarithm of their number.
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

mod dataset;
mod deleted;
mod entry;
mod line;
mod place;
mod pool;
mod stats;
mod successes;
#[cfg(test)]
mod tests;

pub use deleted::DeletedJob;
pub use line::QueueOrder;
pub use stats::{LastSuccess, PoolStats, QueueLine, WaitingResource};

use crate::api::conditions::Reason;
use crate::api::{DatasetImportJob, resource_version};
use crate::import::timing::after;
use crate::import::{Admission, CooldownCause, ImportRequest, Key, Timing, Trust};
use crate::personalize::{AccountRegion, DatasetArn};
use dataset::DatasetQueue;
use entry::{Activity, Entry, Reservation};
use jiff::Timestamp;
use kube::ResourceExt;
use line::Shares;
use place::Place;
use pool::{Cooldown, Pool};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The UID of a resource. A re-created resource of the same name has another UID.
pub type Uid = Arc<str>;

/// The queue over all resources that this operator watches.
#[derive(Debug, Clone)]
pub struct Queue {
    quota: usize,
    shares: Shares,
    timing: Timing,
    entries: BTreeMap<Uid, Entry>,
    /// What follows from the entries, for each account and region.
    pools: BTreeMap<AccountRegion, Pool>,
    /// Resources with an invalid spec, with their namespaces: they belong to no pool.
    invalid: BTreeMap<Uid, String>,
    /// Until then create requests of an earlier leader may still arrive.
    quarantine_until: Option<Timestamp>,
}

impl PartialEq for Queue {
    fn eq(&self, other: &Self) -> bool {
        self.state() == other.state()
    }
}

impl Hash for Queue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.state().hash(state);
    }
}

impl Queue {
    /// A queue that admits this many imports at once per account and region.
    #[must_use]
    pub fn new(quota: usize, timing: Timing) -> Self {
        Self {
            quota: quota.max(1),
            shares: Shares::default(),
            timing,
            entries: BTreeMap::new(),
            pools: BTreeMap::new(),
            invalid: BTreeMap::new(),
            quarantine_until: None,
        }
    }

    /// What the answers depend on. The rest of the pools follows from it.
    fn state(&self) -> impl PartialEq + Hash {
        let Self { quota, shares, timing, entries, pools, invalid, quarantine_until } = self;
        let pools: Vec<_> = pools.iter().map(|(of, pool)| (of, &pool.cooldown, pool.turns())).collect();
        (quota, shares, timing, entries, pools, invalid, quarantine_until)
    }

    /// The queue, while it is empty, with another order than the oldest first.
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
        self.pools.values_mut().for_each(|pool| pool.weight_changed(&self.shares, namespace));
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
        let mut existing = self.existing().filter(|entry| [&entry.place.key.namespace, ""].contains(&namespace));
        existing.all(Entry::is_untouched)
    }

    /// The accounts and regions of all resources.
    #[must_use]
    pub fn account_regions(&self) -> Vec<AccountRegion> {
        self.pools.keys().cloned().collect()
    }

    /// Whether no create request of this leader or an earlier one may still arrive.
    #[must_use]
    pub fn is_drained(&self, now: Timestamp) -> bool {
        let mut entries = self.entries.values();
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
        let Ok(mut request) = ImportRequest::of(resource) else {
            self.remove(&uid);
            self.invalid.insert(uid.into(), namespace);
            return true;
        };
        self.invalid.remove(uid.as_str());
        let version = resource_version(resource);
        let known = self.entries.get_key_value(uid.as_str());
        let (shared_uid, previous) = known.map_or((uid.into(), None), |(uid, entry)| (Arc::clone(uid), Some(entry)));
        if previous.is_some_and(|previous| {
            version < previous.resource_version || !trust.is_trusted() && version == previous.resource_version
        }) {
            return false;
        }
        let pool = self.pools.get(request.dataset.account_region());
        if let Some(shared) = pool.and_then(|pool| pool.shared(&request.dataset)) {
            request.dataset = shared;
        }
        let entry = Entry::new(resource, shared_uid, &request, trust, previous);
        let changed = previous.is_none_or(|previous| previous.state != entry.state);
        self.end_adopted(&entry);
        self.set_entry(entry);
        changed
    }

    /// Updates a resource that a reconciliation has read or written. A resource that was deleted in between stays
    /// deleted: no later event would remove it again. Returns true if the resource's state has changed.
    pub fn update(&mut self, resource: &DatasetImportJob, trust: Trust) -> bool {
        let uid = resource.uid().unwrap_or_default();
        let is_known = self.entries.contains_key(uid.as_str()) || self.invalid.contains_key(uid.as_str());
        is_known && self.observe(resource, trust)
    }

    /// Whether this resource exists.
    #[must_use]
    pub fn contains(&self, uid: &str) -> bool {
        self.entries.get(uid).is_some_and(|entry| !entry.is_deleted())
    }

    /// Whether this resource exists, and the queue knows no newer version of it.
    #[must_use]
    pub fn is_current(&self, resource: &DatasetImportJob) -> bool {
        let known = self.entries.get(resource.uid().unwrap_or_default().as_str()).filter(|known| !known.is_deleted());
        known.is_some_and(|known| known.resource_version <= resource_version(resource))
    }

    /// Starts a new listing, in which resource versions may be lower (a restored etcd). Returns the known resources, of
    /// which those that are not listed are deleted.
    pub fn relist(&mut self, namespace: Option<&str>) -> HashSet<Uid> {
        let is_listed = |of: &str| namespace.is_none_or(|namespace| namespace == of);
        let invalid = self.invalid.iter().filter(|(_, namespace)| is_listed(namespace));
        let mut known: HashSet<Uid> = invalid.map(|(uid, _)| Arc::clone(uid)).collect();
        for (uid, entry) in &mut self.entries {
            if is_listed(&entry.place.key.namespace) {
                entry.resource_version = 0;
                known.insert(Arc::clone(uid));
            }
        }
        known
    }

    /// Asks for admission, and reserves the quota and the dataset if it is granted.
    pub fn try_admit(&mut self, uid: &str, now: Timestamp) -> Admission {
        let Some(own) = self.entries.get(uid) else { return pool::not_synced() };
        let Some(pool) = self.pools.get_mut(own.dataset().account_region()) else { return pool::not_synced() };
        pool.advance(&self.shares, now);
        let admission = pool.admission(own, &self.shares);
        if admission != Admission::Admitted {
            return admission;
        }
        if !own.is_in_flight() {
            if let Some(until) = self.quarantine_until.filter(|until| now < *until) {
                let message = "waiting for the grace period: an earlier leader may have submitted imports that the service does not list yet";
                return Admission::Pending { message: message.into(), until: Some(until) };
            }
            pool.admit(&self.shares, &own.place);
        }
        self.modify(uid, |activity| activity.reservation = Reservation::Held);
        admission
    }

    /// Whether a resource has an import in flight, or would be admitted now.
    #[must_use]
    pub fn is_next(&self, uid: &str) -> bool {
        let Some(own) = self.entries.get(uid) else { return false };
        self.pools.get(own.dataset().account_region()).is_some_and(|pool| pool.is_next(own, &self.shares))
    }

    /// The resource can't submit before this moment. No quota is kept free for it, but newer resources of the same
    /// dataset still wait for it.
    pub fn set_requeue_at(&mut self, uid: &str, until: Option<Timestamp>) {
        self.modify(uid, |activity| (activity.requeue_at, activity.skipped_until) = (until, None));
    }

    /// A reconciliation has failed and is repeated at this moment. With `skip`, resources of the same dataset no longer
    /// wait for it. With `write_unconfirmed` its status write may have been applied, so its reservation stays. Returns
    /// whether others may be admissible now: a reservation was released, or they no longer wait for it.
    pub(crate) fn requeue_failed(&mut self, uid: &str, until: Timestamp, skip: bool, write_unconfirmed: bool) -> bool {
        let frees_others = self.modify(uid, |activity| {
            let is_skipped_now = skip && activity.skipped_until.is_none_or(|before| before < until);
            (activity.requeue_at, activity.skipped_until) = (Some(until), skip.then_some(until));
            let stays = write_unconfirmed && activity.deleted_at.is_none();
            let before = activity.reservation;
            let kept = if stays { Reservation::Unconfirmed } else { Reservation::None };
            activity.reservation = if before == Reservation::None { before } else { kept };
            is_skipped_now || before != Reservation::None && !stays
        });
        frees_others.unwrap_or_default()
    }

    /// A reconciliation has ended. `asks` says that it waits for the queue: then a rejected resource is in line, too.
    /// Returns whether it has left the line, so that others may be admissible now.
    pub(crate) fn set_asks(&mut self, uid: &str, asks: bool) -> bool {
        let Some(entry) = self.entries.get(uid) else { return false };
        let (before, asks) = (entry.activity().asks, asks && entry.is_rejected());
        if before != asks {
            self.modify(uid, |activity| activity.asks = asks);
        }
        before && !asks
    }

    /// An INCREMENTAL import has found no FULL one among the dataset's jobs. It waits for one that is newer than those that
    /// the queue knows of.
    pub(crate) fn found_no_full_import(&mut self, uid: &str) {
        let Some(entry) = self.entries.get(uid) else { return };
        let seen = self.dataset(entry.dataset()).and_then(DatasetQueue::newest_full);
        self.modify(uid, |activity| activity.full_seen = seen);
    }

    /// Releases the reservation of a resource; what its status records stays reserved. Returns whether there was one.
    pub fn release(&mut self, uid: &str) -> bool {
        self.modify(uid, |activity| std::mem::take(&mut activity.reservation)).is_some_and(|r| r != Reservation::None)
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
        let pool = self.pools.entry(account_region.clone()).or_insert_with(|| Pool::new(self.quota));
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
    pub fn admissible(&mut self, account_region: &AccountRegion, now: Timestamp) -> Vec<Key> {
        let Some(pool) = self.pools.get_mut(account_region) else { return Vec::new() };
        pool.advance(&self.shares, now);
        pool.admissible(&self.shares)
    }

    /// The line of each account and region, with at most `limit` resources each.
    #[must_use]
    pub fn lines(&mut self, now: Timestamp, limit: usize) -> Vec<QueueLine> {
        self.pools.values_mut().for_each(|pool| pool.advance(&self.shares, now));
        self.pools.iter().map(|(of, pool)| pool.view(of, &self.shares, limit)).collect()
    }

    /// The imports of each account and region.
    #[must_use]
    pub fn stats(&self) -> HashMap<AccountRegion, PoolStats> {
        self.pools.iter().map(|(account_region, pool)| (account_region.clone(), pool.stats())).collect()
    }

    /// The number of resources with each reason; `None` counts those without one.
    #[must_use]
    pub fn reasons(&self) -> HashMap<Option<Reason>, usize> {
        let mut reasons = HashMap::from([(Some(Reason::InvalidSpec), self.invalid.len())]);
        for (reason, places) in self.pools.values().flat_map(Pool::by_reason) {
            *reasons.entry(reason).or_default() += places.len();
        }
        reasons
    }

    /// The resources with this reason.
    #[must_use]
    pub fn with_reason(&self, reason: Reason) -> Vec<Key> {
        let with_reason = self.pools.values().flat_map(Pool::by_reason).filter(|(of, _)| *of == Some(reason));
        with_reason.flat_map(|(_, places)| places).map(|place| place.key.clone()).collect()
    }

    /// The unfinished resources that are selected by their account and region, and then by their reason and UID.
    #[must_use]
    pub fn unfinished<S: Fn(Option<Reason>, &str) -> bool>(&self, of: impl Fn(&AccountRegion) -> S) -> Vec<Key> {
        let mut keys = Vec::new();
        for (account_region, pool) in &self.pools {
            let is_selected = of(account_region);
            let unfinished = pool.by_reason().filter(|(reason, _)| !reason.is_some_and(Reason::is_final));
            let places = unfinished.flat_map(|(reason, places)| places.iter().map(move |place| (reason, place)));
            let selected = places.filter(|(reason, place)| is_selected(*reason, &place.uid));
            keys.extend(selected.map(|(_, place)| place.key.clone()));
        }
        keys
    }

    /// The resources whose job runs, and since when the job is known.
    #[must_use]
    pub fn running(&self) -> Vec<(Uid, Timestamp)> {
        let existing =
            self.entries_at(self.pools.values().flat_map(Pool::in_flight)).filter(|entry| !entry.is_deleted());
        existing.filter_map(|entry| Some((Arc::clone(&entry.place.uid), entry.activity().running_since?))).collect()
    }

    /// The namespaces of the imports that run, or may run. Their resources may be deleted.
    #[must_use]
    pub fn namespaces_in_flight(&self) -> HashSet<&str> {
        self.pools.values().flat_map(Pool::in_flight).map(|place| place.key.namespace.as_str()).collect()
    }

    fn existing(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().filter(|entry| !entry.is_deleted())
    }

    fn dataset(&self, dataset: &DatasetArn) -> Option<&DatasetQueue> {
        self.pools.get(dataset.account_region())?.dataset(dataset)
    }

    fn entries_at<'a>(&'a self, places: impl Iterator<Item = &'a Arc<Place>>) -> impl Iterator<Item = &'a Entry> {
        #[cfg(test)]
        let places = places.inspect(|_| crate::testing::work::count());
        places.filter_map(|place| self.entries.get(&place.uid))
    }

    /// Changes what a resource does, and the pool with it.
    fn modify<T>(&mut self, uid: &str, change: impl FnOnce(&mut Activity) -> T) -> Option<T> {
        let mut entry = self.entries.get(uid)?.clone();
        let result = entry.modify(change);
        self.set_entry(entry);
        Some(result)
    }

    /// Adds or replaces an entry, and updates its pool.
    fn set_entry(&mut self, entry: Entry) {
        let account_region = entry.dataset().account_region().clone();
        let before = self.entries.get(&entry.place.uid);
        if before.is_some_and(|before| *before.dataset().account_region() != account_region) {
            self.remove(&Arc::clone(&entry.place.uid));
        }
        let before = self.entries.get(&entry.place.uid);
        let pool = self.pools.entry(account_region).or_insert_with(|| Pool::new(self.quota));
        pool.replace(&self.shares, before, Some(&entry));
        self.entries.insert(Arc::clone(&entry.place.uid), entry);
    }

    fn remove(&mut self, uid: &str) -> Option<AccountRegion> {
        let entry = self.entries.remove(uid)?;
        let account_region = entry.dataset().account_region().clone();
        if let Some(pool) = self.pools.get_mut(&account_region) {
            pool.replace(&self.shares, Some(&entry), None);
            self.remove_if_empty(&account_region);
        }
        Some(account_region)
    }

    fn remove_if_empty(&mut self, account_region: &AccountRegion) {
        if self.pools.get(account_region).is_some_and(Pool::is_empty) {
            self.pools.remove(account_region);
        }
    }
}
