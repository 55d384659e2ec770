//! Whose turn it is: per account and region a bounded number of imports in flight, oldest resource
//! first; per dataset one at a time, in the order of the resources' age.
//!
//! The queue is an index over what the watch delivered and what this process wrote since; it makes no
//! call and has no clock. After a restart it is built anew from the resources themselves.

use crate::api::{DatasetImportJob, DatasetImportJobStatus, held_back_by};
use crate::arn::{DatasetArn, Location};
use crate::conditions::{Reason, State};
use crate::decide::stage::{Stage, stage};
use crate::identity::Request;
use crate::schedule::{Policy, after};
use jiff::Timestamp;
use kube::ResourceExt;
use std::collections::{BTreeMap, HashMap, HashSet};
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
pub enum Turn {
    /// Submit now; the place is reserved until it is released or the resource has ended.
    Go,
    /// Wait. `until` is set when time alone may end the wait.
    Wait {
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
enum Standing {
    /// Wants nothing now: not seen to be waiting, finished without data, held back or rejected.
    Idle,
    /// Wants to submit, not before the given moment.
    Waiting(Option<Timestamp>),
    /// Has a submission or a job under way.
    InFlight,
    /// Its data is in the dataset, asked for at the given moment.
    Landed(Timestamp),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Entry {
    key: Key,
    dataset: DatasetArn,
    created: Timestamp,
    standing: Standing,
    /// The job that its status tells of.
    job_name: Option<String>,
    reason: Option<Reason>,
    /// A turn was granted and is in use.
    reserved: bool,
    /// The resource is gone, and a pass over it is not: its call may still make a job.
    gone: bool,
    /// Something else keeps it from going before this moment, so nobody waits for it until then.
    postponed: Option<Timestamp>,
    resource_version: u64,
}

impl Entry {
    fn occupies(&self) -> bool {
        self.reserved || self.standing == Standing::InFlight
    }

    /// Its place in the line: by age, then by name.
    fn place(&self) -> (Timestamp, &Key) {
        (self.created, &self.key)
    }
}

/// A pause for one account and region, after the service said that its quota is full.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Hold {
    until: Timestamp,
    refusals: u32,
}

/// The queue over all resources that this operator watches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Queue {
    quota: usize,
    policy: Policy,
    entries: BTreeMap<Uid, Entry>,
    holds: BTreeMap<Location, Hold>,
}

impl Queue {
    /// A queue that lets so many imports run at once per account and region.
    #[must_use]
    pub fn new(quota: usize, policy: Policy) -> Self {
        Self { quota: quota.max(1), policy, entries: BTreeMap::new(), holds: BTreeMap::new() }
    }

    /// Takes note of a resource as it was delivered or written. An older version than the one already
    /// known says nothing.
    pub fn observe(&mut self, job: &DatasetImportJob) {
        let (Some(uid), Some(namespace)) = (job.uid(), job.namespace()) else { return };
        let Ok(request) = Request::of(job) else {
            self.entries.remove(&uid);
            return;
        };
        let version = version(job);
        let old = self.entries.get(&uid);
        if old.is_some_and(|old| version < old.resource_version) {
            return;
        }
        let entry = Entry {
            key: Key { namespace, name: job.name_any() },
            created: created(job),
            standing: standing(job, &request, &self.policy),
            job_name: job.status.as_ref().and_then(|status| status.job_name.clone()),
            reason: job.status.as_ref().and_then(Reason::of),
            reserved: old.is_some_and(|old| old.reserved),
            gone: old.is_some_and(|old| old.gone),
            postponed: old.and_then(|old| old.postponed),
            resource_version: version,
            dataset: request.dataset,
        };
        self.entries.insert(uid, entry);
    }

    /// Forgets a resource that is gone; tells which account and region it leaves a place in. While a turn of it is in
    /// use the place stays taken: deleting a resource does not call its request back.
    pub fn forget(&mut self, uid: &str) -> Option<Location> {
        if let Some(entry) = self.entries.get_mut(uid).filter(|entry| entry.reserved) {
            entry.gone = true;
            return None;
        }
        self.entries.remove(uid).map(|entry| entry.dataset.location().clone())
    }

    /// Begins a new listing: versions may start anew (a restored etcd), and what isn't listed is gone.
    pub fn relist(&mut self, namespace: Option<&str>) -> HashSet<Uid> {
        let listed = self.entries.iter_mut().filter(|(_, e)| namespace.is_none_or(|n| n == e.key.namespace));
        listed
            .map(|(uid, entry)| {
                entry.resource_version = 0;
                uid.clone()
            })
            .collect()
    }

    /// Asks for a turn, and reserves it if it is granted.
    pub fn take_turn(&mut self, uid: &str, now: Timestamp) -> Turn {
        let turn = self.turn(uid, now);
        if turn == Turn::Go
            && let Some(entry) = self.entries.get_mut(uid)
        {
            entry.reserved = true;
        }
        turn
    }

    /// The resource can't go before this moment, whatever the queue says.
    pub fn postpone(&mut self, uid: &str, until: Option<Timestamp>) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.postponed = until;
        }
    }

    /// Gives a turn back, and tells whether there was one; what the resource's status says stays in
    /// force.
    pub fn release(&mut self, uid: &str) -> bool {
        let Some(entry) = self.entries.get_mut(uid) else { return false };
        let released = std::mem::take(&mut entry.reserved);
        if entry.gone {
            self.entries.remove(uid);
        }
        released
    }

    /// The service refused for its quota: nobody in this account and region tries before the moment
    /// that `delay` makes of the number of refusals in a row.
    pub fn hold(&mut self, location: &Location, now: Timestamp, delay: impl Fn(u32) -> Duration) -> Timestamp {
        let hold = self.holds.entry(location.clone()).or_insert(Hold { until: now, refusals: 0 });
        hold.refusals = hold.refusals.saturating_add(1);
        hold.until = after(now, delay(hold.refusals));
        hold.until
    }

    /// The service accepted an import: the way is free.
    pub fn accepted(&mut self, location: &Location) {
        self.holds.remove(location);
    }

    /// Those who wait in this account and region and would be let through now.
    #[must_use]
    pub fn ready(&self, location: &Location, now: Timestamp) -> Vec<Key> {
        let waiting = |e: &&Entry| matches!(e.standing, Standing::Waiting(_)) && !e.occupies();
        let mut free = self.quota.saturating_sub(self.in_flight(location));
        let mut keys = Vec::new();
        let mut line: Vec<&Entry> = self.lane(location).filter(waiting).collect();
        line.sort_by(|a, b| a.place().cmp(&b.place()));
        let busy: HashSet<&DatasetArn> = self.lane(location).filter(|e| e.occupies()).map(|e| &e.dataset).collect();
        let mut spoken_for = busy;
        for entry in line {
            if free == 0 {
                break;
            }
            let passed = |at: Option<Timestamp>| at.is_none_or(|at| at <= now);
            let due = passed(entry.postponed) && matches!(entry.standing, Standing::Waiting(at) if passed(at));
            if spoken_for.insert(&entry.dataset) && due {
                keys.push(entry.key.clone());
                free -= 1;
            }
        }
        keys
    }

    /// How many imports run, or may run, in an account and region.
    #[must_use]
    pub fn in_flight(&self, location: &Location) -> usize {
        self.lane(location).filter(|e| e.occupies()).count()
    }

    /// For each account and region: imports in flight, resources waiting, and the age of the oldest
    /// of these.
    #[must_use]
    pub fn tally(&self) -> HashMap<Location, Tally> {
        let mut tallies: HashMap<Location, Tally> = HashMap::new();
        for entry in self.entries.values() {
            let tally = tallies.entry(entry.dataset.location().clone()).or_default();
            if entry.occupies() {
                tally.in_flight += 1;
            } else if matches!(entry.standing, Standing::Waiting(_)) {
                tally.waiting += 1;
                tally.oldest = Some(tally.oldest.map_or(entry.created, |o| o.min(entry.created)));
            }
        }
        tallies
    }

    /// How old the import is that landed with this job, if a resource here stands for it.
    #[must_use]
    pub fn age_of(&self, dataset: &DatasetArn, job_name: &str) -> Option<Timestamp> {
        let mut standing_for = self.entries.values().filter(|e| e.job_name.as_deref() == Some(job_name));
        standing_for.find_map(|e| match e.standing {
            Standing::Landed(at) if e.dataset == *dataset => Some(at),
            _ => None,
        })
    }

    /// How many resources there are of each reason; `None` stands for those without one.
    #[must_use]
    pub fn reasons(&self) -> HashMap<Option<Reason>, usize> {
        let mut reasons = HashMap::new();
        for entry in self.entries.values() {
            *reasons.entry(entry.reason).or_default() += 1;
        }
        reasons
    }

    /// Those whose import runs, or may run.
    #[must_use]
    pub fn uids_in_flight(&self) -> Vec<Uid> {
        self.entries.iter().filter(|(_, e)| e.standing == Standing::InFlight).map(|(uid, _)| uid.clone()).collect()
    }

    fn lane(&self, location: &Location) -> impl Iterator<Item = &Entry> {
        self.entries.values().filter(move |e| e.dataset.location() == location)
    }

    fn turn(&self, uid: &str, now: Timestamp) -> Turn {
        let wait = |why: String, until| Turn::Wait { why, until };
        let Some(own) = self.entries.get(uid) else {
            return wait("waits for the operator's cache".into(), None);
        };
        if own.occupies() {
            return Turn::Go;
        }
        let location = own.dataset.location();
        let same_dataset = || self.lane(location).filter(|e| e.dataset == own.dataset && !std::ptr::eq(*e, own));
        // Neither names the other: who is next in the line changes, and may be in a namespace of somebody else's.
        let busy = || wait("waits for another import into the same dataset".into(), None);
        if same_dataset().any(Entry::occupies) {
            return busy();
        }
        let landed_later = |e: &&Entry| matches!(e.standing, Standing::Landed(at) if at > own.created);
        if let Some(newer) = same_dataset().find(landed_later) {
            return Turn::Superseded { by: newer.key.clone() };
        }
        if same_dataset().any(|e| matches!(e.standing, Standing::Waiting(_)) && e.place() < own.place()) {
            return busy();
        }
        let full = || format!("waits for one of the {} imports that may run at once for {location}", self.quota);
        if let Some(hold) = self.holds.get(location) {
            // One at a time finds out whether the quota has room again.
            if hold.until > now || self.lane(location).any(|e| e.reserved) {
                return wait(full(), Some(hold.until.max(now)).filter(|_| hold.until > now));
            }
        }
        let ready = self.ready(location, now);
        let older = |key: &&Key| self.entries.values().any(|e| e.key == **key && e.place() < own.place());
        let older_ready = ready.iter().filter(older).count();
        if self.in_flight(location) + older_ready >= self.quota {
            return wait(full(), None);
        }
        Turn::Go
    }
}

/// What runs and waits in one account and region.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Tally {
    /// Imports in flight.
    pub in_flight: usize,
    /// Resources that wait for their turn.
    pub waiting: usize,
    /// When the oldest waiting resource was created.
    pub oldest: Option<Timestamp>,
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

fn standing(job: &DatasetImportJob, request: &Request, policy: &Policy) -> Standing {
    let status = job.status.clone().unwrap_or_default();
    // Of one that is on its way out nothing more is done, however long somebody's finalizer keeps it. What runs in
    // AWS is found by listing, as if the resource were gone.
    let leaves = job.metadata.deletion_timestamp.is_some();
    match stage(&status, request) {
        Stage::Succeeded => {
            // An adopted job is as old as the job, however new its resource.
            let started = status.start_time.as_ref().map(|t| t.0);
            Standing::Landed(started.map_or(created(job), |s| s.min(created(job))))
        }
        _ if leaves => Standing::Idle,
        Stage::Following if Reason::of(&status) == Some(Reason::JobNotFound) => Standing::Idle,
        Stage::Following | Stage::Submitting(_) => Standing::InFlight,
        Stage::Failed | Stage::Superseded => Standing::Idle,
        Stage::Wanted(_) if held_back_by(job).is_some() => Standing::Idle,
        Stage::Wanted(_) => match Reason::of(&status) {
            Some(Reason::Retrying) => Standing::Waiting(Some(retry_at(&status, policy))),
            Some(reason) if reason.state() == State::Failed => Standing::Idle,
            _ => Standing::Waiting(None),
        },
    }
}

/// When the next attempt after a failed one is due.
#[must_use]
pub fn retry_at(status: &DatasetImportJobStatus, policy: &Policy) -> Timestamp {
    let failed = status.last_updated_date_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    after(failed, policy.retry(status.attempts.unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{DatasetImportJobStatus, Submission};
    use crate::identity::tests::spec;
    use crate::personalize::ACTIVE;
    use crate::schedule::tests::policy;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    /// A resource made in that second, for that dataset; its name is its UID.
    fn resource(second: i64, dataset: &str) -> DatasetImportJob {
        let mut job = DatasetImportJob::new(&format!("r{second:03}"), spec());
        job.spec.dataset_arn = format!("arn:aws:personalize:eu-west-1:123456789012:dataset/shop/{dataset}");
        job.metadata.namespace = Some("shop".into());
        job.metadata.uid = job.metadata.name.clone();
        job.metadata.creation_timestamp = Some(Time(at(second)));
        job.metadata.resource_version = Some("1".into());
        job
    }

    fn request(job: &DatasetImportJob) -> Request {
        Request::new("shop", &job.name_any(), &job.spec).unwrap()
    }

    /// The resource after it was submitted, in a later version.
    fn submitted(mut job: DatasetImportJob, status: Option<&str>) -> DatasetImportJob {
        let request = request(&job);
        job.status = Some(DatasetImportJobStatus {
            dataset_import_job_arn: Some(request.job_arn(1).0),
            attempts: Some(1),
            status: status.map(Into::into),
            completion_time: status.map(|_| Time(at(900))),
            start_time: Some(Time(at(800))),
            ..Default::default()
        });
        job.metadata.resource_version = Some("2".into());
        job
    }

    fn intended(mut job: DatasetImportJob) -> DatasetImportJob {
        let request = request(&job);
        job.status = Some(DatasetImportJobStatus {
            submission: Some(Submission {
                job_name: request.job_name(1),
                attempt: 1,
                request_hash: request.hash(),
                generation: 1,
                time: Time(at(0)),
            }),
            ..Default::default()
        });
        job.metadata.resource_version = Some("2".into());
        job
    }

    fn queue(jobs: &[DatasetImportJob]) -> Queue {
        let mut queue = Queue::new(2, policy());
        jobs.iter().for_each(|job| queue.observe(job));
        queue
    }

    fn go(queue: &mut Queue, uid: &str) -> bool {
        queue.take_turn(uid, at(1000)) == Turn::Go
    }

    #[test]
    fn no_more_run_at_once_than_the_quota_and_the_oldest_go_first() {
        let mut queue = queue(&[resource(3, "c"), resource(2, "b"), resource(1, "a")]);
        assert!(!go(&mut queue, "r003"), "the newest waits for the older two");
        assert!(go(&mut queue, "r002") && go(&mut queue, "r001"));
        assert!(!go(&mut queue, "r003"));
        queue.observe(&submitted(resource(1, "a"), Some(ACTIVE)));
        queue.release("r001");
        assert!(go(&mut queue, "r003"));
    }

    #[test]
    fn one_dataset_takes_one_import_at_a_time_in_the_order_of_age() {
        let mut queue = queue(&[resource(1, "a"), resource(2, "a"), resource(3, "b")]);
        assert!(!go(&mut queue, "r002"));
        assert!(go(&mut queue, "r003"), "another dataset needn't wait");
        assert!(go(&mut queue, "r001"));
        assert!(!go(&mut queue, "r002"));
    }

    #[test]
    fn nothing_waits_behind_a_head_that_can_not_go() {
        let mut suspended = resource(1, "a");
        suspended.annotations_mut().insert(crate::api::SUSPEND.into(), "true".into());
        let mut rejected = resource(2, "b");
        let mut status = DatasetImportJobStatus::default();
        crate::conditions::set(&mut status, 1, Reason::AccessDenied, "", at(0));
        rejected.status = Some(status);
        let mut queue = queue(&[suspended, rejected, resource(3, "a"), resource(4, "b")]);
        assert!(go(&mut queue, "r003") && go(&mut queue, "r004"));
    }

    #[test]
    fn a_dataset_that_is_not_ready_keeps_the_order_of_those_who_wait_for_it_and_holds_up_nobody_else() {
        let mut waits = resource(1, "a");
        let mut status = DatasetImportJobStatus::default();
        crate::conditions::set(&mut status, 1, Reason::DatasetNotReady, "", at(0));
        waits.status = Some(status);
        let mut queue = Queue::new(1, policy());
        [waits, resource(2, "a"), resource(3, "b")].iter().for_each(|job| queue.observe(job));
        queue.postpone("r001", Some(at(2000)));
        assert!(!go(&mut queue, "r002"), "it would overtake the older one");
        assert!(go(&mut queue, "r003"), "another dataset needn't wait");
    }

    #[test]
    fn one_that_somebodys_finalizer_keeps_on_its_way_out_holds_up_nobody() {
        for status in [None, Some("CREATE IN_PROGRESS")] {
            let mut leaving = submitted(resource(1, "a"), status);
            leaving.metadata.deletion_timestamp = Some(Time(at(5)));
            let mut queue = queue(&[leaving, resource(2, "a")]);
            assert!(go(&mut queue, "r002"));
        }
    }

    #[test]
    fn a_deleted_one_keeps_its_place_while_its_request_is_under_way() {
        let mut queue = queue(&[resource(1, "a"), resource(2, "a")]);
        assert!(go(&mut queue, "r001"));
        assert_eq!(queue.forget("r001"), None);
        assert!(!go(&mut queue, "r002"));
        assert!(queue.release("r001"));
        assert!(go(&mut queue, "r002"));
        // One that was made anew under the same name is another resource.
        let mut queue = self::queue(&[resource(1, "a")]);
        assert!(go(&mut queue, "r001"));
        assert_eq!(queue.forget("r001"), None);
        let mut anew = resource(1, "a");
        anew.metadata.uid = Some("anew".into());
        queue.observe(&anew);
        assert!(!go(&mut queue, "anew"));
    }

    #[test]
    fn what_has_landed_is_as_old_as_its_resource() {
        let mut landed = submitted(resource(10, "a"), Some(ACTIVE));
        let name = request(&landed).job_name(1);
        if let Some(status) = &mut landed.status {
            status.job_name = Some(name.clone());
        }
        let queue = queue(std::slice::from_ref(&landed));
        let dataset = request(&landed).dataset;
        assert_eq!(queue.age_of(&dataset, &name), Some(at(10)));
        assert_eq!(queue.age_of(&dataset, "another"), None);
        assert_eq!(queue.age_of(&request(&resource(1, "b")).dataset, &name), None);
    }

    #[test]
    fn nobody_waits_for_one_that_something_else_holds_up() {
        let mut queue = Queue::new(1, policy());
        [resource(1, "a"), resource(2, "b")].iter().for_each(|job| queue.observe(job));
        assert!(!go(&mut queue, "r002"));
        queue.postpone("r001", Some(at(2000)));
        assert!(go(&mut queue, "r002"));
        queue.release("r002");
        assert!(matches!(queue.take_turn("r002", at(2000)), Turn::Wait { .. }));
    }

    #[test]
    fn an_older_import_never_lands_after_a_newer_one() {
        let newer = submitted(resource(10, "a"), Some(ACTIVE));
        let mut queue = queue(&[resource(1, "a"), newer.clone()]);
        assert!(matches!(queue.take_turn("r001", at(1000)), Turn::Superseded { by } if by.name == "r010"));
        // A job that was only adopted by a newer resource is as old as the job.
        let mut adopted = newer;
        if let Some(status) = &mut adopted.status {
            status.start_time = Some(Time(at(0)));
        }
        let mut queue = self::queue(&[resource(1, "a"), adopted]);
        assert!(go(&mut queue, "r001"));
    }

    #[test]
    fn a_failed_newer_import_does_not_keep_an_older_one_from_going() {
        let mut queue = queue(&[resource(1, "a"), submitted(resource(10, "a"), Some("CREATE FAILED"))]);
        assert!(go(&mut queue, "r001"));
    }

    #[test]
    fn what_was_submitted_before_a_restart_counts() {
        let intent = intended(resource(1, "a"));
        let running = submitted(resource(2, "b"), None);
        let mut queue = queue(&[intent, running, resource(3, "c")]);
        assert!(!go(&mut queue, "r003"));
        assert!(go(&mut queue, "r001"), "who has recorded an intent goes on with it");
    }

    #[test]
    fn a_stale_delivery_frees_nothing() {
        let mut queue = queue(&[resource(1, "a"), resource(2, "a")]);
        assert!(go(&mut queue, "r001"));
        queue.observe(&intended(resource(1, "a")));
        queue.release("r001");
        queue.observe(&resource(1, "a"));
        assert!(!go(&mut queue, "r002"));
        // A new listing may bring older versions: a restored etcd.
        queue.relist(None);
        queue.observe(&resource(1, "a"));
        queue.forget("r001");
        assert!(go(&mut queue, "r002"));
    }

    #[test]
    fn after_a_refusal_one_at_a_time_finds_out_whether_there_is_room() {
        let mut queue = queue(&[resource(1, "a"), resource(2, "b")]);
        let location = request(&resource(1, "a")).dataset.location().clone();
        assert!(go(&mut queue, "r001"));
        queue.release("r001");
        queue.hold(&location, at(1000), |_| Duration::from_secs(60));
        assert!(matches!(queue.take_turn("r001", at(1000)), Turn::Wait { until: Some(_), .. }));
        assert_eq!(queue.take_turn("r001", at(1060)), Turn::Go);
        assert!(matches!(queue.take_turn("r002", at(1060)), Turn::Wait { .. }));
        queue.accepted(&location);
        assert_eq!(queue.take_turn("r002", at(1060)), Turn::Go);
    }

    #[test]
    fn other_accounts_and_regions_are_lanes_of_their_own() {
        let mut elsewhere = resource(3, "a");
        elsewhere.spec.dataset_arn = elsewhere.spec.dataset_arn.replace("eu-west-1", "us-east-1");
        let mut queue = queue(&[resource(1, "a"), resource(2, "b"), elsewhere]);
        assert!(go(&mut queue, "r001") && go(&mut queue, "r002") && go(&mut queue, "r003"));
    }

    proptest! {
        #[test]
        fn whatever_happens_the_quota_and_the_datasets_are_kept(
            datasets in proptest::collection::vec(0..4_u8, 1..20),
            acts in proptest::collection::vec((any::<prop::sample::Index>(), 0..4_u8), 0..200),
        ) {
            let jobs: Vec<_> = datasets.iter().enumerate().map(|(i, d)| resource(i64::try_from(i).unwrap(), &format!("d{d}"))).collect();
            let mut queue = queue(&jobs);
            let mut running: HashMap<String, u8> = HashMap::new();
            let mut done = HashSet::new();
            for (index, act) in acts {
                let i = index.index(jobs.len());
                let uid = jobs[i].uid().unwrap();
                match act {
                    0 | 1 if !done.contains(&uid) => {
                        if queue.take_turn(&uid, at(1000)) == Turn::Go {
                            running.insert(uid, datasets[i]);
                        }
                    }
                    2 if running.contains_key(&uid) => queue.observe(&submitted(jobs[i].clone(), None)),
                    3 if running.remove(&uid).is_some() => {
                        let mut ended = submitted(jobs[i].clone(), Some(ACTIVE));
                        ended.metadata.resource_version = Some("3".into());
                        queue.observe(&ended);
                        queue.release(&uid);
                        done.insert(uid);
                    }
                    _ => queue.observe(&jobs[i]),
                }
                prop_assert!(running.len() <= 2);
                prop_assert_eq!(running.values().collect::<HashSet<_>>().len(), running.len());
            }
        }

        #[test]
        fn everybody_gets_a_turn(datasets in proptest::collection::vec(0..4_u8, 1..30)) {
            let jobs: Vec<_> = datasets.iter().enumerate().map(|(i, d)| resource(i64::try_from(i).unwrap(), &format!("d{d}"))).collect();
            let mut queue = queue(&jobs);
            let location = request(&jobs[0]).dataset.location().clone();
            let mut order: Vec<String> = Vec::new();
            while let Some(key) = queue.ready(&location, at(1000)).first().cloned() {
                prop_assert_eq!(queue.take_turn(&key.name, at(1000)), Turn::Go);
                let job = jobs.iter().find(|j| j.name_any() == key.name).unwrap();
                queue.observe(&submitted(job.clone(), Some(ACTIVE)));
                queue.release(&key.name);
                order.push(key.name);
            }
            let all: Vec<String> = jobs.iter().map(ResourceExt::name_any).collect();
            prop_assert_eq!(order, all);
        }
    }
}
