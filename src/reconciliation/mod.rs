//! One pass over one resource as it stands between two steps: what is in hand, what was seen, what is
//! remembered, and what the outcome of each step makes of that.
//!
//! Like [`decide`], nothing here has a client, a clock or async: `reconcile` carries the steps out on the
//! real parts and tells their outcomes, and the model checker does the same on modelled ones.

use crate::api::conditions::{self, Reason, State};
use crate::api::{DatasetImportJob, DatasetImportJobStatus, Tag};
use crate::import::plan::{Effect, Memory, Observations, ObservedJob, Requeue, UserInputs, decide};
use crate::import::request::{ImportRequest, requested_at};
use crate::import::timing::{Severity, Timing, after, since};
use crate::personalize::{ACTIVE, ErrorKind, JobSummary, ServiceError};
use crate::queue::{Admission, CooldownCause, Queue, version};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// The field manager of everything the operator writes.
pub const MANAGER: &str = "personalize-operator";

/// So many passes in a row have to fail before others needn't wait for the resource any more.
const MANY_ERRORS: u32 = 6;

/// So often a pass begins anew because others write faster, before it is put off.
const MOST_OUTRUNS: u32 = 5;

/// What a process remembers of one resource between passes. All of it can be lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Remembered {
    /// For the decision.
    pub memory: Memory,
    /// How many passes in a row ended in a setback.
    pub setbacks: u32,
    /// How many passes in a row ended in an error.
    pub errors: u32,
    /// When the next look at the running job is due.
    due: Option<Timestamp>,
    /// The version that this process wrote last; an older one from the cache is stale.
    written: u64,
    /// A digest of the status that this process wrote last.
    own_status: Option<u64>,
    /// A write went wrong in a way that leaves open whether it took effect.
    unsure: bool,
}

impl Remembered {
    /// Whether the resource as the cache has it is older than what this process knows.
    fn outdates(&self, job: &DatasetImportJob) -> bool {
        self.unsure || version(job) < self.written
    }

    /// Whether the status was written by this operator alone.
    ///
    /// What this process wrote it knows again. For all else, such as what an earlier one wrote or a write whose answer was
    /// lost, the API server keeps the books: a field of the status with another manager was touched by somebody else, and a status that no
    /// manager wrote came with wiped books.
    #[must_use]
    pub fn proves(&self, job: &DatasetImportJob) -> bool {
        let own = own_part(job.status.as_ref());
        if self.own_status == Some(digest(&own)) {
            return true;
        }
        let mut writers = job.managed_fields().iter().filter(|entry| touches_ours(entry));
        let claims = own.as_ref().is_some_and(|status| *status != unseen());
        (!claims || writers.clone().next().is_some()) && writers.all(|entry| entry.manager.as_deref() == Some(MANAGER))
    }
}

/// The status that the CRD gives to a resource nobody has looked at.
fn unseen() -> DatasetImportJobStatus {
    DatasetImportJobStatus { observed_generation: Some(-1), ..DatasetImportJobStatus::default() }
}

/// The status without the conditions of others, who may keep theirs beside ours.
fn own_part(status: Option<&DatasetImportJobStatus>) -> Option<DatasetImportJobStatus> {
    let mut own = status.cloned()?;
    own.conditions.retain(conditions::is_own);
    Some(own)
}

/// Whether a manager owns any of the status but conditions that are not ours.
fn touches_ours(entry: &ManagedFieldsEntry) -> bool {
    if entry.subresource.as_deref() != Some("status") {
        return false;
    }
    let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:status"]);
    let Some(status) = fields.and_then(|status| status.as_object()) else { return true };
    status.iter().any(|(field, owned)| match (field.as_str(), owned.as_object()) {
        (".", _) => false,
        ("f:conditions", Some(owned)) => owned.keys().any(|key| key != "." && !is_key_of_others(key)),
        _ => true,
    })
}

/// Whether this names, as managed fields do, a condition that is not ours.
fn is_key_of_others(key: &str) -> bool {
    let key = key.strip_prefix("k:").and_then(|key| serde_json::from_str::<serde_json::Value>(key).ok());
    key.is_some_and(|key| key["type"].as_str().is_some_and(|kind| !conditions::OWN.contains(&kind)))
}

fn digest(status: &Option<DatasetImportJobStatus>) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(status).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

/// A pass between two steps.
#[derive(Debug, Clone)]
pub struct Reconciliation {
    job: DatasetImportJob,
    /// The resource in hand is older than what is known of it.
    stale: bool,
    remembered: Remembered,
    seen: Observations,
    /// How often it began anew because somebody else was faster.
    outruns: u32,
}

impl Reconciliation {
    /// Begins with the resource as the cache has it.
    #[must_use]
    pub fn new(job: DatasetImportJob, remembered: Remembered) -> Self {
        Self { stale: remembered.outdates(&job), job, remembered, seen: Observations::default(), outruns: 0 }
    }

    /// The resource in hand.
    #[must_use]
    pub fn job(&self) -> &DatasetImportJob {
        &self.job
    }

    /// Whether the resource in hand is older than what is known of it.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// What was seen since the pass began, or began anew.
    #[must_use]
    pub fn seen(&self) -> &Observations {
        &self.seen
    }

    /// What is to be remembered if the pass ends here.
    #[must_use]
    pub fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    /// The import that the resource asks for.
    #[must_use]
    pub fn request(&self) -> Option<ImportRequest> {
        ImportRequest::of(&self.job).ok()
    }

    /// The next step.
    #[must_use]
    pub fn next(&self, now: Timestamp, policy: &Timing) -> Effect {
        if self.stale {
            return Effect::Refresh;
        }
        let proven = self.remembered.proves(&self.job);
        decide(&self.job, proven, &self.seen, &self.remembered.memory, now, policy)
    }

    /// The API server was asked for the resource. False if it is gone, or another one bears its name.
    pub fn refreshed(&mut self, live: Option<DatasetImportJob>, queue: &mut Queue) -> bool {
        let Some(live) = live.filter(|live| live.uid() == self.job.uid()) else { return false };
        self.job = live;
        self.stale = false;
        self.remembered.unsure = false;
        self.seen.live = true;
        self.observed(queue);
        true
    }

    /// It was found out whether the namespace may make this import.
    pub fn permitted(&mut self, permission: Result<(), String>) {
        self.seen.permission = Some(permission);
    }

    /// The queue answered.
    pub fn turned(&mut self, turn: Admission) {
        self.seen.turn = Some(turn);
    }

    /// The job of this attempt was looked up.
    pub fn looked_up(&mut self, attempt: i32, found: Result<ObservedJob, ServiceError>, now: Timestamp) {
        let memory = &mut self.remembered.memory;
        match &found {
            Ok(_) => memory.described = Some(now),
            // A name that nobody bears yet says nothing of a running job.
            Err(failure) => memory.looked_up |= failure.kind == ErrorKind::NotFound && attempt == 1,
        }
        self.seen.lookups.insert(attempt, found);
    }

    /// When the look that is taken now was due; told once.
    pub fn take_due(&mut self) -> Option<Timestamp> {
        self.remembered.due.take()
    }

    /// The dataset was described.
    pub fn saw_dataset(&mut self, status: Result<String, ServiceError>) {
        self.seen.dataset = Some(status);
    }

    /// The dataset's jobs were listed.
    pub fn saw_jobs(&mut self, jobs: Result<Vec<JobSummary>, ServiceError>, queue: &Queue) {
        if let (Ok(jobs), Some(request)) = (&jobs, self.request()) {
            self.remembered.memory.typical = typical(jobs);
            // What resources here stand for needs no asking.
            let ages = queue.ages(&request.dataset);
            let known = jobs.iter().filter_map(|job| Some((job.name.clone(), Ok(Some(*ages.get(job.name.as_str())?)))));
            self.seen.ages = known.collect();
        }
        self.seen.jobs = Some(jobs);
    }

    /// The tags of a job were read for its age.
    pub fn saw_age(&mut self, job_name: String, tags: Result<Vec<Tag>, ServiceError>) {
        self.seen.ages.insert(job_name, tags.map(|tags| requested_at(&tags)));
    }

    /// Whether the intent of this pass is recorded, so that it should be brought to its end.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.seen.intent.is_some()
    }

    /// The resource with this status, to be written by compare-and-swap.
    #[must_use]
    pub fn with_status(&self, status: DatasetImportJobStatus) -> DatasetImportJob {
        let mut job = self.job.clone();
        job.status = Some(status);
        job.metadata.managed_fields = None;
        job
    }

    /// The status is written; for an intent, `intent` is its attempt.
    pub fn recorded(&mut self, written: DatasetImportJob, intent: Option<i32>, queue: &mut Queue) {
        self.remembered.written = version(&written);
        self.remembered.unsure = false;
        self.job = written;
        self.verified(queue);
        if let Some(attempt) = intent {
            self.seen.intended(attempt);
        }
    }

    /// The status in hand is the operator's own, or was held against what the service tells and found to be true.
    pub fn verified(&mut self, queue: &mut Queue) {
        self.remembered.own_status = Some(digest(&own_part(self.job.status.as_ref())));
        self.observed(queue);
    }

    fn observed(&self, queue: &mut Queue) -> bool {
        queue.observe(&self.job, self.remembered.proves(&self.job))
    }

    /// Somebody else has written meanwhile: the pass begins anew with what the API server has. False if that happens
    /// again and again, so that it had better begin later.
    pub fn outrun(&mut self) -> bool {
        self.stale = true;
        self.seen = Observations::default();
        self.outruns = self.outruns.saturating_add(1);
        self.outruns <= MOST_OUTRUNS
    }

    /// It can't be told whether a write took effect.
    pub fn unsure(&mut self) {
        self.remembered.unsure = true;
    }

    /// Create was called for this attempt, and answered or not.
    pub fn created(&mut self, attempt: i32, answer: Result<(), ServiceError>, queue: &mut Queue) {
        if answer.is_ok()
            && let Some(request) = self.request()
        {
            queue.accepted(request.dataset.location());
        }
        self.seen.created(attempt, answer);
    }

    /// The pass has come to rest; tells after how long to look again, if not only on change.
    pub fn rested(&mut self, again: Requeue, now: Timestamp, policy: &Timing, jitter: f64) -> Option<Duration> {
        let remembered = &mut self.remembered;
        remembered.errors = 0;
        remembered.memory.rested = true;
        remembered.memory.notice_intent(self.job.status.as_ref(), now);
        let delay = match again {
            Requeue::AwaitChange => None,
            Requeue::At(at) => Some(since(now, at)),
            Requeue::After(delay) => Some(delay),
            Requeue::Backoff(pace) => {
                remembered.setbacks = remembered.setbacks.saturating_add(1);
                Some(policy.backoff(pace, remembered.setbacks, jitter))
            }
        };
        let pause = remembered.memory.pause.as_ref().map(|(until, _)| Requeue::At(*until));
        if matches!(again, Requeue::Backoff(_)) {
            let until = after(now, delay.unwrap_or_default());
            remembered.memory.pause = Some((until, UserInputs::of(&self.job)));
        } else if pause != Some(again) {
            // A pass within a pause, such as for the echo of one's own write, ends nothing. Nor does it end a row of
            // rejections that the resource had to wait for its turn in between.
            let reason = self.job.status.as_ref().and_then(Reason::of);
            if again == Requeue::AwaitChange || reason.is_none_or(|reason| reason.state() != State::Failed) {
                remembered.setbacks = 0;
            }
            remembered.memory.pause = None;
        }
        remembered.due = if let Requeue::At(at) = again { Some(at) } else { None };
        delay
    }

    /// Gives the turn back; tells whether there was one, or the resource stands otherwise than the queue knew.
    pub fn leave_queue(
        &self,
        refusal: Option<CooldownCause>,
        now: Timestamp,
        policy: &Timing,
        jitter: f64,
        queue: &mut Queue,
    ) -> bool {
        let (Some(request), Some(uid)) = (self.request(), self.job.uid()) else { return false };
        // What the watch delivered during the pass was held against what was remembered before it.
        let moved = self.observed(queue);
        let released = queue.release(&uid);
        queue.postpone(&uid, self.remembered.memory.pause.as_ref().map(|(until, _)| *until));
        if let Some(refusal) = refusal {
            let delay = |refusals| policy.backoff(Severity::Transient, refusals, jitter);
            queue.hold(request.dataset.location(), refusal, now, delay);
        }
        released || moved
    }

    /// The pass could not be brought to its end, and is taken up again. It holds nobody up, unless its write may have
    /// taken effect. Tells after how long, and whether it gave a turn back.
    pub fn failed(&mut self, now: Timestamp, policy: &Timing, jitter: f64, queue: &mut Queue) -> (Duration, bool) {
        let remembered = &mut self.remembered;
        remembered.errors = remembered.errors.saturating_add(1);
        let delay = policy.backoff(Severity::Transient, remembered.errors, jitter);
        let often = remembered.errors >= MANY_ERRORS;
        let uid = self.job.uid().unwrap_or_default();
        (delay, queue.stumble(&uid, after(now, delay), often, remembered.unsure))
    }

    /// The pass is over: what is remembered of it.
    #[must_use]
    pub fn end(self) -> Remembered {
        self.remembered
    }
}

/// How long imports into a dataset take: the median of those that succeeded.
fn typical(jobs: &[JobSummary]) -> Option<Duration> {
    let mut took: Vec<Duration> = jobs
        .iter()
        .filter(|job| job.status == ACTIVE)
        .filter_map(|job| Some(since(job.created?, job.updated?)))
        .collect();
    took.sort_unstable();
    took.get(took.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::request::tests::spec;
    use crate::import::timing::tests::policy;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, FieldsV1, Time};

    fn written_by(manager: Option<&str>) -> DatasetImportJob {
        let mut job = DatasetImportJob::new("nightly", spec());
        job.metadata.namespace = Some("shop".into());
        job.metadata.uid = Some("uid".into());
        job.status = Some(DatasetImportJobStatus { status: Some(ACTIVE.into()), attempts: Some(1), ..unseen() });
        job.metadata.managed_fields = manager.map(|manager| {
            vec![ManagedFieldsEntry {
                manager: Some(manager.into()),
                subresource: Some("status".into()),
                ..ManagedFieldsEntry::default()
            }]
        });
        job
    }

    #[test]
    fn a_status_is_believed_only_if_the_api_servers_books_say_who_wrote_it() {
        let nobody = Remembered::default();
        assert!(nobody.proves(&written_by(Some(MANAGER))));
        assert!(!nobody.proves(&written_by(Some("kubectl-edit"))));
        assert!(!nobody.proves(&written_by(None)), "somebody has wiped them");
        let mut new = written_by(None);
        new.status = Some(unseen());
        assert!(nobody.proves(&new), "there is nothing to believe yet");
        new.status = None;
        assert!(nobody.proves(&new));
    }

    fn condition(kind: &str) -> Condition {
        Condition {
            type_: kind.into(),
            status: "True".into(),
            reason: "Because".into(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn a_condition_that_somebody_else_keeps_beside_ours_unproves_nothing() {
        let mut shared = written_by(Some(MANAGER));
        let mut pass = Reconciliation::new(shared.clone(), Remembered::default());
        let mut queue = Queue::new(5, policy());
        pass.recorded(shared.clone(), None, &mut queue);
        let knows = pass.end();
        shared.status.as_mut().unwrap().conditions.push(condition("example.org/Billed"));
        assert!(knows.proves(&shared), "by what this process wrote");
        let keys = |keys: serde_json::Value| {
            let mut entry = shared.managed_fields()[0].clone();
            entry.manager = Some("billing".into());
            entry.fields_v1 = Some(FieldsV1(serde_json::json!({"f:status": keys})));
            entry
        };
        let theirs =
            keys(serde_json::json!({"f:conditions": {".": {}, "k:{\"type\":\"example.org/Billed\"}": {".": {}}}}));
        let mut books = shared.clone();
        books.managed_fields_mut().push(theirs);
        assert!(Remembered::default().proves(&books), "by the API server's books");
        for touched in [
            serde_json::json!({"f:conditions": {"k:{\"type\":\"Ready\"}": {"f:status": {}}}}),
            serde_json::json!({"f:conditions": {"k:nonsense": {}}}),
            serde_json::json!({"f:attempts": {}}),
            serde_json::Value::Null,
        ] {
            let mut books = shared.clone();
            books.managed_fields_mut().push(keys(touched.clone()));
            assert!(!Remembered::default().proves(&books), "{touched}");
        }
        let mut forged = written_by(Some("kubectl-edit"));
        forged.status.as_mut().unwrap().conditions.push(condition("Ready"));
        assert!(!knows.proves(&forged));
    }

    #[test]
    fn what_was_held_against_the_service_is_believed_without_a_write() {
        let restored = written_by(Some("velero-server"));
        let mut pass = Reconciliation::new(restored.clone(), Remembered::default());
        assert!(!pass.remembered().proves(&restored));
        pass.verified(&mut Queue::new(5, policy()));
        assert!(pass.end().proves(&restored));
    }

    #[test]
    fn a_pass_that_is_outrun_again_and_again_is_put_off() {
        let mut pass = Reconciliation::new(written_by(Some(MANAGER)), Remembered::default());
        let outrun = (0..MOST_OUTRUNS).all(|_| pass.outrun());
        assert!(outrun && !pass.outrun());
    }

    #[test]
    fn a_rejected_import_that_waits_for_its_turn_in_between_is_not_tried_more_often_for_it() {
        let mut job = written_by(Some(MANAGER));
        conditions::set(job.status.as_mut().unwrap(), 1, Reason::AccessDenied, "", Timestamp::UNIX_EPOCH);
        let mut pass = Reconciliation::new(job, Remembered::default());
        let mut rest = |again, hour: i64| {
            let now = Timestamp::from_second(hour * 3600).unwrap();
            pass.rested(again, now, &policy(), 1.0).unwrap_or_default()
        };
        let first = rest(Requeue::Backoff(Severity::NeedsUser), 1);
        rest(Requeue::After(Duration::from_secs(1)), 2);
        assert_eq!(rest(Requeue::Backoff(Severity::NeedsUser), 3), first * 2);
        rest(Requeue::AwaitChange, 4);
        assert_eq!(rest(Requeue::Backoff(Severity::NeedsUser), 5), first);
    }
}
