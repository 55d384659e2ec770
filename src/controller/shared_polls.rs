//! One list of the jobs of an account and region in place of a poll of each, while several run there.
//!
//! A list only says that a job still has its recorded status. Whatever else it says, the job is polled. A job that no list
//! shows is polled on its own, as often as without lists.

use super::context::Context;
use crate::import::timing::after;
use crate::import::{ImportRequest, Key};
use crate::personalize::{AccountRegion, Caller, Personalize, has_ended};
use crate::queue::Uid;
use crate::reconciliation::Reconciliation;
use jiff::Timestamp;
use kube::ResourceExt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::timeout;

/// How long no list is read after one that was refused, or that shows none of the jobs.
const PAUSE: Duration = Duration::from_secs(3600);

/// How long a poll waits for a list that another one reads.
const WAIT: Duration = Duration::from_secs(2);

/// Jobs that one list shows: those of an account and region whose calls are signed alike.
type Group = (AccountRegion, u64);

/// The running jobs that this leadership polls, and the last list of each group.
#[derive(Debug, Default)]
pub(crate) struct SharedPolls(Mutex<Groups>);

#[derive(Debug, Default)]
struct Groups {
    groups: HashMap<Group, Members>,
    group_of: HashMap<Uid, Group>,
}

#[derive(Debug, Default)]
struct Members {
    jobs: HashMap<Uid, PolledJob>,
    listing: Arc<AsyncMutex<Listing>>,
    paused_until: Option<Timestamp>,
}

#[derive(Debug)]
struct PolledJob {
    name: String,
    resource: Key,
    listed: Listed,
}

/// What the last list shows of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    /// None was read since the job is polled, since a pause, or since a poll that was needed all the same.
    Unknown,
    /// It runs.
    Running,
    /// It has ended, and the poll that this asks for has not begun.
    Ended,
    /// Nothing: there may be more pages.
    Absent,
}

/// The first page of the list of all jobs of an account and region.
#[derive(Debug, Default)]
struct Listing {
    at: Option<Timestamp>,
    /// Name -> status.
    jobs: HashMap<String, String>,
}

impl Listing {
    /// Whether this list is older than a poll, so that another one may say more.
    fn is_older_than(&self, polled: Timestamp) -> bool {
        self.at.is_none_or(|at| at <= polled)
    }

    /// When the job had this status, after the last poll; `None` if the list shows another one, or not this job.
    fn confirms(&self, name: &str, status: &str, polled: Timestamp) -> Option<Timestamp> {
        self.at.filter(|at| *at > polled && self.jobs.get(name).is_some_and(|listed| listed == status))
    }
}

impl Members {
    fn is_paused(&self, now: Timestamp) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    /// How many jobs a list may show.
    fn listable(&self) -> usize {
        self.jobs.values().filter(|job| job.listed != Listed::Absent).count()
    }
}

impl Groups {
    fn join(&mut self, group: &Group, uid: &str, name: &str, resource: Key, now: Timestamp) -> &mut Members {
        if self.group_of.get(uid) != Some(group) {
            self.leave(uid, now);
            self.group_of.insert(uid.into(), group.clone());
        }
        if !self.groups.contains_key(group) {
            self.groups.retain(|_, members| !members.jobs.is_empty() || members.is_paused(now));
        }
        let members = self.groups.entry(group.clone()).or_default();
        let known = members.jobs.get(uid).filter(|job| job.name == name).map(|job| job.listed);
        // The poll that a list has asked for happens now.
        let listed = known.filter(|listed| *listed != Listed::Ended).unwrap_or(Listed::Unknown);
        members.jobs.insert(uid.into(), PolledJob { name: name.into(), resource, listed });
        members
    }

    fn leave(&mut self, uid: &str, now: Timestamp) {
        let Some(group) = self.group_of.remove(uid) else { return };
        if let Some(members) = self.groups.get_mut(&group) {
            members.jobs.remove(uid);
            if members.jobs.is_empty() && !members.is_paused(now) {
                self.groups.remove(&group);
            }
        }
    }

    fn members_with(&mut self, uid: &str) -> Option<&mut Members> {
        self.group_of.get(uid).and_then(|group| self.groups.get_mut(group))
    }
}

impl SharedPolls {
    fn lock(&self) -> MutexGuard<'_, Groups> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many jobs one list polls together with that of this resource, and whether it showed that this one has ended.
    pub(super) fn of(&self, uid: &str, now: Timestamp) -> (usize, bool) {
        let mut groups = self.lock();
        let Some(members) = groups.members_with(uid) else { return (1, false) };
        let running = members.jobs.values().filter(|job| job.listed == Listed::Running).count();
        match members.jobs.get(uid).map(|job| job.listed) {
            Some(Listed::Ended) => (1, true),
            Some(Listed::Running) if !members.is_paused(now) => (running, false),
            _ => (1, false),
        }
    }

    /// The job of this resource is polled now. Returns the list of its group, if one list may show several jobs.
    fn join(
        &self,
        group: &Group,
        uid: &str,
        name: &str,
        resource: Key,
        now: Timestamp,
    ) -> Option<Arc<AsyncMutex<Listing>>> {
        let mut groups = self.lock();
        let members = groups.join(group, uid, name, resource, now);
        let is_listable = members.jobs.get(uid).is_some_and(|job| job.listed != Listed::Absent);
        let is_shared = is_listable && members.listable() > 1 && !members.is_paused(now);
        is_shared.then(|| Arc::clone(&members.listing))
    }

    /// The job of this resource is not polled any more, or its last poll failed.
    pub(super) fn leave(&self, uid: &str, now: Timestamp) {
        self.lock().leave(uid, now);
    }

    fn is_paused(&self, group: &Group, now: Timestamp) -> bool {
        self.lock().groups.get(group).is_some_and(|members| members.is_paused(now))
    }

    /// Reads no list of this group until then.
    fn pause(&self, group: &Group, until: Timestamp) {
        if let Some(members) = self.lock().groups.get_mut(group) {
            members.paused_until = Some(until);
            let listed = members.jobs.values_mut().map(|job| &mut job.listed);
            listed.filter(|listed| **listed != Listed::Ended).for_each(|listed| *listed = Listed::Unknown);
        }
    }

    /// The poll of this resource's job did not wait for a list that takes long.
    fn not_waited(&self, uid: &str) {
        let mut groups = self.lock();
        let job = groups.members_with(uid).and_then(|members| members.jobs.get_mut(uid));
        job.into_iter().for_each(|job| job.listed = Listed::Unknown);
    }

    /// Takes what a list shows, which was read for the job of `uid`. Returns the resources of the other jobs that it newly
    /// shows to have ended.
    fn listed(&self, group: &Group, uid: &str, listing: &Listing, now: Timestamp) -> Vec<Key> {
        let (mut groups, mut ended) = (self.lock(), Vec::new());
        let Some(members) = groups.groups.get_mut(group) else { return ended };
        for (other, job) in &mut members.jobs {
            let listed = match listing.jobs.get(&job.name) {
                None => Listed::Absent,
                // That of `uid` is polled right now.
                Some(status) if has_ended(status) && **other == *uid => Listed::Unknown,
                Some(status) if has_ended(status) => Listed::Ended,
                Some(_) => Listed::Running,
            };
            if listed == Listed::Ended && job.listed != Listed::Ended {
                ended.push(job.resource.clone());
            }
            job.listed = listed;
        }
        let shows_none = members.listable() == 0;
        drop(groups);
        if shows_none {
            self.pause(group, after(now, PAUSE));
        }
        ended
    }
}

impl<P: Personalize> Context<P> {
    /// When a list showed that the job of this attempt still has its recorded status, so that it need not be polled. Reads
    /// a list if the last one is older than the last poll, and other jobs are polled with it.
    pub(super) async fn listed_as_recorded(
        &self,
        reconciliation: &Reconciliation,
        caller: &Caller,
        request: &ImportRequest,
        attempt: i32,
    ) -> Option<Timestamp> {
        let (uid, name, now) = (reconciliation.uid(), request.job_name(attempt), self.clock.now());
        let region = request.dataset.account_region();
        let group = (region.clone(), self.accounts.version(region, caller));
        let resource = Key { namespace: request.namespace.clone(), name: reconciliation.resource().name_any() };
        let listing = self.shared_polls.join(&group, &uid, &name, resource, now)?;
        let (polled, recorded) = reconciliation.confirmed_poll(now, &self.timing)?;
        let Ok(mut listing) = timeout(WAIT, listing.lock()).await else {
            // Otherwise slow lists would come on top of denser polls.
            self.shared_polls.not_waited(&uid);
            return None;
        };
        // The one that was waited for may have been refused.
        if listing.is_older_than(polled) && !self.shared_polls.is_paused(&group, self.clock.now()) {
            self.list(&mut listing, &group, &uid, caller, request).await;
        }
        listing.confirms(&name, recorded, polled)
    }

    async fn list(&self, listing: &mut Listing, group: &Group, uid: &str, caller: &Caller, request: &ImportRequest) {
        let call = self.personalize.list_jobs_of_account(caller, &request.dataset);
        let jobs = self.counted("ListDatasetImportJobs", call).await;
        let now = self.clock.now();
        match jobs {
            Ok(jobs) => {
                listing.jobs = jobs.into_iter().map(|job| (job.name, job.status)).collect();
                listing.at = Some(now);
                let ended = self.shared_polls.listed(group, uid, listing, now);
                ended.iter().for_each(|resource| (self.enqueue)(resource));
            }
            Err(error) => {
                let pause = if error.is_refusal() { PAUSE } else { self.timing.poll_max };
                self.shared_polls.pause(group, after(now, pause));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::personalize::{ACTIVE, CREATE_IN_PROGRESS, CREATE_PENDING};

    fn at(seconds: u64) -> Timestamp {
        after(Timestamp::UNIX_EPOCH, Duration::from_secs(seconds))
    }

    fn listing(jobs: &[(&str, &str)]) -> Listing {
        let jobs = jobs.iter().map(|(name, status)| ((*name).to_owned(), (*status).to_owned())).collect();
        Listing { at: Some(at(20)), jobs }
    }

    fn group(account: &str, session: u64) -> Group {
        (AccountRegion { partition: "aws".into(), region: "eu-west-1".into(), account: account.into() }, session)
    }

    /// Polls the job of a resource. Returns whether a list may replace that.
    fn poll(polls: &SharedPolls, uid: &str, group: &Group, now: Timestamp) -> bool {
        let resource = Key { namespace: "shop".into(), name: uid.into() };
        polls.join(group, uid, &format!("job-{uid}"), resource, now).is_some()
    }

    fn polled(uids: &[&str], group: &Group) -> SharedPolls {
        let polls = SharedPolls::default();
        for uid in uids {
            poll(&polls, uid, group, at(0));
        }
        polls
    }

    fn names(keys: Vec<Key>) -> Vec<String> {
        let mut names: Vec<String> = keys.into_iter().map(|key| key.name).collect();
        names.sort();
        names
    }

    #[test]
    fn list_confirms_only_the_recorded_status_and_only_after_the_last_poll() {
        let list = listing(&[("a", CREATE_IN_PROGRESS)]);
        assert_eq!(list.confirms("a", CREATE_IN_PROGRESS, at(19)), Some(at(20)));
        assert_eq!(list.confirms("a", CREATE_IN_PROGRESS, at(20)), None, "it says nothing new");
        assert_eq!(list.confirms("a", CREATE_PENDING, at(19)), None, "the job has started since");
        assert_eq!(list.confirms("b", CREATE_IN_PROGRESS, at(19)), None);
        assert!(list.is_older_than(at(20)) && !list.is_older_than(at(19)));
    }

    #[test]
    fn jobs_are_polled_together_in_one_account_and_region_under_one_session() {
        let (one, other, tenant) = (group("1", 0), group("2", 0), group("1", 1));
        let polls = polled(&["a", "b"], &one);
        assert!(!poll(&polls, "c", &other, at(0)) && !poll(&polls, "d", &tenant, at(0)));
        assert!(poll(&polls, "a", &one, at(0)) && poll(&polls, "b", &one, at(0)));
        assert!(poll(&polls, "b", &tenant, at(0)), "its calls are signed otherwise now");
        assert!(!poll(&polls, "a", &one, at(0)));
        ["a", "b", "c", "d"].iter().for_each(|uid| polls.leave(uid, at(0)));
        let groups = polls.lock();
        assert!(groups.groups.is_empty() && groups.group_of.is_empty());
    }

    #[test]
    fn only_jobs_that_the_list_shows_are_polled_more_often() {
        let one = group("1", 0);
        let polls = polled(&["a", "b", "c"], &one);
        assert_eq!(polls.of("a", at(0)), (1, false), "no list was read");
        polls.listed(&one, "a", &listing(&[("job-a", CREATE_PENDING), ("job-b", CREATE_IN_PROGRESS)]), at(0));
        assert_eq!(["a", "b", "c", "d"].map(|uid| polls.of(uid, at(0)).0), [2, 2, 1, 1]);
        assert!(poll(&polls, "a", &one, at(0)) && !poll(&polls, "c", &one, at(0)), "c is polled on its own");
        polls.not_waited("b");
        assert_eq!(["a", "b"].map(|uid| polls.of(uid, at(0)).0), [1, 1], "a slow list makes no poll denser");
        polls.leave("b", at(0));
        assert!(!poll(&polls, "a", &one, at(0)), "a is alone");
        assert_eq!(polls.of("a", at(0)).0, 1);
        poll(&polls, "d", &one, at(0));
        assert!(poll(&polls, "a", &one, at(0)), "a list may show the new one");
    }

    #[test]
    fn jobs_that_a_list_shows_to_have_ended_are_polled_once() {
        let one = group("1", 0);
        let polls = polled(&["a", "b", "c"], &one);
        let list = listing(&[("job-a", ACTIVE), ("job-b", ACTIVE), ("job-c", CREATE_IN_PROGRESS)]);
        assert_eq!(names(polls.listed(&one, "a", &list, at(0))), ["b"], "a is polled right now");
        assert_eq!(["a", "b", "c"].map(|uid| polls.of(uid, at(0)).1), [false, true, false]);
        polls.pause(&one, at(10));
        assert_eq!(polls.of("b", at(0)), (1, true), "a pause does not hide it");
        assert_eq!(
            names(polls.listed(&one, "c", &list, at(0))),
            ["a"],
            "b is enqueued already, and a was not seen to end"
        );
        poll(&polls, "b", &one, at(0));
        assert_eq!(polls.of("b", at(0)), (1, false), "its poll happens");
    }

    #[test]
    fn no_list_is_read_for_a_while_after_one_that_was_refused_or_shows_none_of_the_jobs() {
        let one = group("1", 0);
        let polls = polled(&["a", "b"], &one);
        polls.listed(&one, "a", &listing(&[("old", ACTIVE)]), at(0));
        assert!(!poll(&polls, "a", &one, at(1)) && !poll(&polls, "b", &one, at(3599)));
        ["a", "b"].iter().for_each(|uid| polls.leave(uid, at(2)));
        poll(&polls, "c", &one, at(3));
        assert!(!poll(&polls, "d", &one, at(3)), "the pause outlasts the jobs");
        assert_eq!(polls.of("c", at(3)).0, 1);
        assert!(poll(&polls, "c", &one, at(3600)), "the list is tried again");
        polls.pause(&one, at(9000));
        ["c", "d"].iter().for_each(|uid| polls.leave(uid, at(4000)));
        poll(&polls, "e", &group("2", 0), at(9000));
        assert_eq!(polls.lock().groups.len(), 1, "a pause that is over is forgotten");
    }
}
