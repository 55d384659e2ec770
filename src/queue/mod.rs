//! Whose turn it is: per account and region a bounded number of imports in flight, oldest resource
//! first; per dataset one at a time, in the order of the resources' age.
//!
//! The queue is an index over what the watch delivered and what this process wrote since; it makes no
//! call and has no clock. After a restart it is built anew from the resources themselves.

use crate::api::conditions::{RECONCILING, Reason, State};
use crate::api::{DatasetImportJob, DatasetImportJobStatus, held_back_by};
use crate::import::phase::{Phase, stage};
use crate::import::request::ImportRequest;
use crate::import::timing::{Timing, after};
use crate::personalize::{AccountRegion, DatasetArn};
use jiff::Timestamp;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

/// A resource by UID: a name that is used again is another resource.
pub type Uid = String;

/// A resource as people name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The queue's answer to a resource that wants to submit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Admission {
    /// Submit now; the place is reserved until it is released or the resource has ended.
    Admitted,
    /// Wait. `until` is set when time alone may end the wait.
    Pending {
        /// The reason, for people.
        why: String,
        /// When to ask again.
        until: Option<Timestamp>,
    },
    /// Never: a newer import of this dataset has landed.
    Superseded {
        /// The newer resource.
        by: Key,
    },
}

/// How a resource stands in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum QueueState {
    /// Wants nothing now: not seen to be waiting, finished without data, held back or rejected.
    Inactive,
    /// Wants to submit, not before the given moment.
    Pending(Option<Timestamp>),
    /// Has a submission or a job under way.
    InFlight,
    /// Its data is in the dataset, asked for at the given moment.
    Succeeded(Timestamp),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Entry {
    key: Key,
    dataset: DatasetArn,
    created: Timestamp,
    standing: QueueState,
    /// The job that its status tells of.
    job_name: Option<String>,
    reason: Option<Reason>,
    reserved: Reservation,
    /// When the submission under way was intended.
    intended: Option<Timestamp>,
    /// Since when its job is known of, if that runs.
    followed: Option<Timestamp>,
    /// Since when it waits, if it does.
    waiting: Timestamp,
    /// When the resource was found gone, or on its way out. What it sent may still make a job.
    gone: Option<Timestamp>,
    /// Something else keeps it from going before this moment, so its place in the quota is not kept for it until then.
    postponed: Option<Timestamp>,
    /// Its passes fail again and again: until this moment not even its dataset is kept for it.
    stuck: Option<Timestamp>,
    resource_version: u64,
}

/// What keeps a place taken, beside what the resource's status tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reservation {
    /// Nothing.
    None,
    /// A pass over it has a turn.
    Held,
    /// A write of its status may have taken effect or not; the next pass finds out.
    Unconfirmed,
}

impl Entry {
    fn occupies(&self, now: Timestamp, policy: &Timing) -> bool {
        self.reserved != Reservation::None
            || match self.gone {
                None => self.standing == QueueState::InFlight,
                Some(_) => now < self.settles(policy),
            }
    }

    /// When nothing that a resource which is gone has sent can arrive any more, nor be missing in a listing.
    fn settles(&self, policy: &Timing) -> Timestamp {
        let gone = self.gone.unwrap_or(Timestamp::MAX);
        self.intended.map_or(gone, |intended| after(intended.min(gone), policy.grace))
    }

    /// Wants to submit, and is to be waited for.
    fn waits(&self, now: Timestamp) -> bool {
        let stuck = self.stuck.is_some_and(|until| now < until);
        matches!(self.standing, QueueState::Pending(_)) && self.gone.is_none() && !stuck
    }

    /// Its place in the line: by age, then by name.
    fn place(&self) -> (Timestamp, &Key) {
        (self.created, &self.key)
    }
}

/// Why the service takes no import for now, in an account and region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CooldownCause {
    /// As many run as it allows at once.
    Quota,
    /// It was asked too often.
    Throttled,
}

/// A pause for one account and region, after the service took no import.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Cooldown {
    until: Timestamp,
    refusals: u32,
    last: CooldownCause,
}

/// The queue over all resources that this operator watches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Queue {
    quota: usize,
    policy: Timing,
    entries: BTreeMap<Uid, Entry>,
    holds: BTreeMap<AccountRegion, Cooldown>,
    /// Those whose spec can't be read, so that they have no place anywhere.
    unreadable: BTreeSet<Uid>,
}

impl Queue {
    /// A queue that lets so many imports run at once per account and region.
    #[must_use]
    pub fn new(quota: usize, policy: Timing) -> Self {
        Self {
            quota: quota.max(1),
            policy,
            entries: BTreeMap::new(),
            holds: BTreeMap::new(),
            unreadable: BTreeSet::new(),
        }
    }

    /// Takes note of a resource as it was delivered or written. An older version than the one already
    /// known says nothing, nor does the same one less surely. Of a status that is not `proven` to be the operator's own
    /// no success is believed. Tells whether the resource stands otherwise now.
    pub fn observe(&mut self, job: &DatasetImportJob, proven: bool) -> bool {
        let (Some(uid), Some(namespace)) = (job.uid(), job.namespace()) else { return false };
        let Ok(request) = ImportRequest::of(job) else {
            self.entries.remove(&uid);
            self.unreadable.insert(uid);
            return true;
        };
        self.unreadable.remove(&uid);
        let version = version(job);
        let old = self.entries.get(&uid);
        let says_nothing = |old: &Entry| version < old.resource_version || !proven && version == old.resource_version;
        if old.is_some_and(says_nothing) {
            return false;
        }
        let submission = job.status.as_ref().and_then(|status| status.submission.as_ref());
        let standing = match standing(job, &request, &self.policy) {
            QueueState::Succeeded(_) if !proven => QueueState::Pending(None),
            standing => standing,
        };
        let entry = Entry {
            key: Key { namespace, name: job.name_any() },
            created: created(job),
            standing,
            followed: followed(job, &request),
            waiting: waiting_since(job),
            intended: submission.filter(|_| standing == QueueState::InFlight).map(|submission| submission.time.0),
            job_name: job.status.as_ref().and_then(|status| status.job_name.clone()),
            reason: job.status.as_ref().and_then(Reason::of),
            reserved: old.map_or(Reservation::None, |old| old.reserved),
            // Of one that is on its way out nothing more is done, however long somebody's finalizer keeps it.
            gone: old.and_then(|old| old.gone).or(job.metadata.deletion_timestamp.as_ref().map(|at| at.0)),
            postponed: old.and_then(|old| old.postponed),
            stuck: old.and_then(|old| old.stuck),
            resource_version: version,
            dataset: request.dataset,
        };
        let moved = old.is_none_or(|old| old.standing != entry.standing);
        self.entries.insert(uid, entry);
        moved
    }

    /// Forgets a resource that is gone; tells which account and region it leaves a place in. While a turn of it is in
    /// use, and while what it sent may still arrive, the place stays taken: deleting a resource does not call its
    /// request back.
    pub fn forget(&mut self, uid: &str, now: Timestamp) -> Option<AccountRegion> {
        self.unreadable.remove(uid);
        let entry = self.entries.get_mut(uid)?;
        entry.gone = entry.gone.or(Some(now));
        if entry.reserved == Reservation::Unconfirmed {
            entry.reserved = Reservation::None;
        }
        let location = entry.dataset.location().clone();
        if entry.occupies(now, &self.policy) {
            return None;
        }
        self.entries.remove(uid);
        Some(location)
    }

    /// Whether there is such a resource.
    #[must_use]
    pub fn knows(&self, uid: &str) -> bool {
        self.entries.get(uid).is_some_and(|entry| entry.gone.is_none())
    }

    /// Begins a new listing: versions may start anew (a restored etcd), and what isn't listed is gone.
    pub fn relist(&mut self, namespace: Option<&str>) -> HashSet<Uid> {
        let listed = self.entries.iter_mut().filter(|(_, e)| namespace.is_none_or(|n| n == e.key.namespace));
        let known = listed.map(|(uid, entry)| {
            entry.resource_version = 0;
            uid.clone()
        });
        known.chain(self.unreadable.iter().cloned()).collect()
    }

    /// Asks for a turn, and reserves it if it is granted.
    pub fn try_admit(&mut self, uid: &str, now: Timestamp) -> Admission {
        let policy = &self.policy;
        self.entries.retain(|_, entry| entry.gone.is_none() || entry.occupies(now, policy));
        let turn = self.turn(uid, now);
        if turn == Admission::Admitted
            && let Some(entry) = self.entries.get_mut(uid)
        {
            entry.reserved = Reservation::Held;
        }
        turn
    }

    /// The resource can't go before this moment, whatever the queue says. Nobody waits for its place in the quota, but
    /// who wants into the same dataset keeps to the order.
    pub fn postpone(&mut self, uid: &str, until: Option<Timestamp>) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.postponed = until;
            entry.stuck = None;
        }
    }

    /// A pass over the resource has failed, and the next begins at this moment. `often`: for so long that the others
    /// who want into its dataset go ahead. `unsure`: its write may have taken effect. Tells whether it gave a turn back.
    pub fn stumble(&mut self, uid: &str, until: Timestamp, often: bool, unsure: bool) -> bool {
        let Some(entry) = self.entries.get_mut(uid) else { return false };
        entry.postponed = Some(until);
        entry.stuck = often.then_some(until);
        if unsure && entry.gone.is_none() && entry.reserved != Reservation::None {
            entry.reserved = Reservation::Unconfirmed;
            return false;
        }
        self.release(uid)
    }

    /// Gives a turn back, and tells whether there was one; what the resource's status says stays in
    /// force.
    pub fn release(&mut self, uid: &str) -> bool {
        let Some(entry) = self.entries.get_mut(uid) else { return false };
        std::mem::replace(&mut entry.reserved, Reservation::None) != Reservation::None
    }

    /// The service took no import: nobody in this account and region tries before the moment that `delay` makes of the
    /// number of refusals in a row.
    pub fn hold(
        &mut self,
        location: &AccountRegion,
        refusal: CooldownCause,
        now: Timestamp,
        delay: impl Fn(u32) -> Duration,
    ) -> Timestamp {
        let hold = self.holds.entry(location.clone()).or_insert(Cooldown { until: now, refusals: 0, last: refusal });
        hold.last = refusal;
        hold.refusals = hold.refusals.saturating_add(1);
        hold.until = after(now, delay(hold.refusals));
        hold.until
    }

    /// The service accepted an import: the way is free.
    pub fn accepted(&mut self, location: &AccountRegion) {
        self.holds.remove(location);
    }

    /// Those who wait in this account and region and would be let through now.
    #[must_use]
    pub fn ready(&self, location: &AccountRegion, now: Timestamp) -> Vec<Key> {
        let waiting = |e: &&Entry| e.waits(now) && !e.occupies(now, &self.policy);
        let mut free = self.quota.saturating_sub(self.in_flight(location, now));
        let mut keys = Vec::new();
        let mut line: Vec<&Entry> = self.lane(location).filter(waiting).collect();
        line.sort_by(|a, b| a.place().cmp(&b.place()));
        let busy = self.lane(location).filter(|e| e.occupies(now, &self.policy));
        let mut spoken_for: HashSet<&DatasetArn> = busy.map(|e| &e.dataset).collect();
        for entry in line {
            if free == 0 {
                break;
            }
            let passed = |at: Option<Timestamp>| at.is_none_or(|at| at <= now);
            let due = passed(entry.postponed) && matches!(entry.standing, QueueState::Pending(at) if passed(at));
            if spoken_for.insert(&entry.dataset) && due {
                keys.push(entry.key.clone());
                free -= 1;
            }
        }
        keys
    }

    /// How many imports run, or may run, in an account and region.
    #[must_use]
    pub fn in_flight(&self, location: &AccountRegion, now: Timestamp) -> usize {
        self.lane(location).filter(|e| e.occupies(now, &self.policy)).count()
    }

    /// For each account and region: imports in flight, resources waiting, and since when the first of these does.
    #[must_use]
    pub fn tally(&self, now: Timestamp) -> HashMap<AccountRegion, PoolStats> {
        let mut tallies: HashMap<AccountRegion, PoolStats> = HashMap::new();
        for entry in self.entries.values() {
            let tally = tallies.entry(entry.dataset.location().clone()).or_default();
            if entry.occupies(now, &self.policy) {
                tally.in_flight += 1;
            } else if matches!(entry.standing, QueueState::Pending(_)) && entry.gone.is_none() {
                tally.waiting += 1;
                tally.since = Some(tally.since.map_or(entry.waiting, |since| since.min(entry.waiting)));
            }
        }
        tallies
    }

    /// How old the imports into this dataset are that have landed and that resources here stand for, by job.
    #[must_use]
    pub fn ages(&self, dataset: &DatasetArn) -> HashMap<&str, Timestamp> {
        let of_dataset = self.entries.values().filter(|e| e.dataset == *dataset);
        of_dataset
            .filter_map(|e| match e.standing {
                QueueState::Succeeded(at) => Some((e.job_name.as_deref()?, at)),
                _ => None,
            })
            .collect()
    }

    /// How many resources there are of each reason; `None` stands for those without one.
    #[must_use]
    pub fn reasons(&self) -> HashMap<Option<Reason>, usize> {
        let mut reasons = HashMap::from([(Some(Reason::InvalidSpec), self.unreadable.len())]);
        for entry in self.entries.values().filter(|e| e.gone.is_none()) {
            *reasons.entry(entry.reason).or_default() += 1;
        }
        reasons
    }

    /// Those whose job runs, and since when it is known of.
    #[must_use]
    pub fn followed(&self) -> Vec<(Uid, Timestamp)> {
        let present = self.entries.iter().filter(|(_, e)| e.gone.is_none());
        present.filter_map(|(uid, e)| Some((uid.clone(), e.followed?))).collect()
    }

    fn lane(&self, location: &AccountRegion) -> impl Iterator<Item = &Entry> {
        self.entries.values().filter(move |e| e.dataset.location() == location)
    }

    fn turn(&self, uid: &str, now: Timestamp) -> Admission {
        let wait = |why: String, until| Admission::Pending { why, until };
        let Some(own) = self.entries.get(uid) else {
            return wait("waits for the operator's cache".into(), None);
        };
        if own.occupies(now, &self.policy) {
            return Admission::Admitted;
        }
        let location = own.dataset.location();
        let same_dataset = || self.lane(location).filter(|e| e.dataset == own.dataset && !std::ptr::eq(*e, own));
        // Neither names the other: who is next in the line changes, and may be in a namespace of somebody else's.
        let busy = |until| wait("waits for another import into the same dataset".into(), until);
        let occupants: Vec<&Entry> = same_dataset().filter(|e| e.occupies(now, &self.policy)).collect();
        if !occupants.is_empty() {
            // Time alone frees a place that only a resource which is gone still takes.
            let freed = occupants.iter().map(|e| e.gone.map(|_| e.settles(&self.policy).max(now)));
            return busy(freed.collect::<Option<Vec<_>>>().and_then(|times| times.into_iter().max()));
        }
        let landed_later =
            |e: &&Entry| matches!(e.standing, QueueState::Succeeded(at) if at > own.created) && e.gone.is_none();
        if let Some(newer) = same_dataset().find(landed_later) {
            return Admission::Superseded { by: newer.key.clone() };
        }
        if same_dataset().any(|e| e.waits(now) && e.place() < own.place()) {
            return busy(None);
        }
        let full = || format!("waits for one of the {} imports that may run at once for {location}", self.quota);
        let is_older = |key: &Key| self.entries.values().any(|e| e.key == *key && e.place() < own.place());
        if let Some(hold) = self.holds.get(location) {
            // The first in the line finds out whether there is room again, and the others are woken once there is. One
            // that was rejected is in no line, and asks when its time has come unless an older one waits.
            let ready = self.ready(location, hold.until.max(now));
            let first = !ready.first().is_some_and(is_older);
            if hold.until > now || !first || self.lane(location).any(|e| e.reserved != Reservation::None) {
                let why = match hold.last {
                    CooldownCause::Quota => full(),
                    CooldownCause::Throttled => format!("waits: the service slows submissions down for {location}"),
                };
                return wait(why, Some(hold.until).filter(|until| first && *until > now));
            }
        }
        let ready = self.ready(location, now);
        let older_ready = ready.iter().filter(|key| is_older(key)).count();
        if self.in_flight(location, now) + older_ready >= self.quota {
            return wait(full(), None);
        }
        Admission::Admitted
    }
}

/// What runs and waits in one account and region.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct PoolStats {
    /// Imports in flight.
    pub in_flight: usize,
    /// Resources that wait for their turn.
    pub waiting: usize,
    /// Since when the one waits that has waited longest.
    pub since: Option<Timestamp>,
}

/// Resource versions of one resource are numbers that grow.
#[must_use]
pub fn version(job: &DatasetImportJob) -> u64 {
    job.resource_version().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// When the resource was created.
#[must_use]
pub fn created(job: &DatasetImportJob) -> Timestamp {
    job.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |t| t.0)
}

/// Since when the job of a resource is known of, if that runs.
fn followed(job: &DatasetImportJob, request: &ImportRequest) -> Option<Timestamp> {
    let status = job.status.as_ref()?;
    let lost = Reason::of(status) == Some(Reason::JobNotFound);
    let intended = status.submission.as_ref().map(|submission| submission.time.0);
    let started = || status.start_time.as_ref().map(|at| at.0);
    (stage(status, request) == Phase::Running && !lost).then(|| intended.or_else(started).unwrap_or(created(job)))
}

/// Since when a resource that waits does so: not since it was made, if it was held back, rejected or tried before.
fn waiting_since(job: &DatasetImportJob) -> Timestamp {
    let Some(status) = &job.status else { return created(job) };
    let failed = status.last_updated_date_time.as_ref().filter(|_| Reason::of(status) == Some(Reason::Retrying));
    let at_work = || status.conditions.iter().find(|c| c.type_ == RECONCILING && c.status == "True");
    failed.or_else(|| at_work().map(|c| &c.last_transition_time)).map_or(created(job), |at| at.0)
}

fn standing(job: &DatasetImportJob, request: &ImportRequest, policy: &Timing) -> QueueState {
    let status = job.status.clone().unwrap_or_default();
    match stage(&status, request) {
        Phase::Succeeded => {
            // An adopted job is as old as the job, however new its resource. Of its own the resource's age counts, which
            // is by the same clock as the others'.
            let adopted = status.submission.is_none();
            let started = status.start_time.as_ref().map(|t| t.0).filter(|_| adopted);
            QueueState::Succeeded(started.map_or(created(job), |s| s.min(created(job))))
        }
        Phase::Running if Reason::of(&status) == Some(Reason::JobNotFound) => QueueState::Inactive,
        Phase::Running | Phase::Submitting(_) => QueueState::InFlight,
        Phase::Failed | Phase::Superseded => QueueState::Inactive,
        Phase::Unsubmitted(_) if held_back_by(job).is_some() => QueueState::Inactive,
        Phase::Unsubmitted(_) => match Reason::of(&status) {
            Some(Reason::Retrying) => QueueState::Pending(Some(retry_at(&status, policy))),
            Some(reason) if reason.state() == State::Failed => QueueState::Inactive,
            _ => QueueState::Pending(None),
        },
    }
}

/// When the next attempt after a failed one is due.
#[must_use]
pub fn retry_at(status: &DatasetImportJobStatus, policy: &Timing) -> Timestamp {
    let failed = status.last_updated_date_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    after(failed, policy.retry(status.attempts.unwrap_or(1)))
}

#[cfg(test)]
mod tests;
