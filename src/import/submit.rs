//! Submitting exactly once.
//!
//! There is no client token, so the protocol is: read the resource live, record the intent by
//! compare-and-swap, look under the derived name, and only if nothing is there create, once. Whatever
//! happens after that, the name leads back to the job.

use super::adopt::ExistingJob;
use super::ownership::Ownership;
use super::plan::{Effect, Observations, ObservedJob, Outcome, Planner, Requeue};
use crate::api::conditions::{self, Reason, State};
use crate::api::{DatasetImportJobStatus, Submission};
use crate::import::timing::{Severity, after};
use crate::personalize::{ACTIVE, CREATE_FAILED, ErrorKind, JobSummary, ServiceError, has_ended};
use crate::queue::{Admission, CooldownCause};
use crate::redact::sanitize;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

/// By how much the clocks of AWS and the cluster may differ.
const CLOCK_SKEW: Duration = Duration::from_secs(15 * 60);

/// The most jobs whose age is asked for, the newest first.
const MOST_AGES: usize = 100;

impl Planner<'_> {
    /// Nothing is recorded of this attempt yet.
    pub(super) fn wanted(&self, attempt: i32) -> Effect {
        if let Some(step) = self.held_back(self.recorded.clone()) {
            return step;
        }
        if let Some(until) = self.paused_until() {
            return self.leave(Requeue::At(until));
        }
        if self.was_rejected_before_a_restart() {
            return self.leave(Requeue::Backoff(Severity::NeedsUser));
        }
        if let Some(step) = self.not_permitted(self.recorded.clone()) {
            return step;
        }
        if attempt == 1 && !self.has_looked() && self.seen.intent.is_none() {
            match self.find_own() {
                ExistingJob::Effect(step) | ExistingJob::Found(step) | ExistingJob::Obstacle(step) => return step,
                ExistingJob::Foreign(attempt, why) => return self.conflict(self.recorded.clone(), attempt, &why),
                ExistingJob::Nothing => {}
            }
        }
        if self.reason() == Some(Reason::Retrying) {
            let at = crate::queue::retry_at(&self.recorded, self.policy);
            if at > self.now {
                return self.leave(Requeue::At(at));
            }
        }
        if let Some(step) = self.not_ready(&self.recorded, attempt) {
            return step;
        }
        if !self.seen.live {
            return Effect::Refresh;
        }
        self.intend(attempt)
    }

    /// Whether an earlier process got a rejection and this one has not waited yet: an operator that is restarted often
    /// asks no sooner than one that lives on, unless a person wants it to.
    fn was_rejected_before_a_restart(&self) -> bool {
        self.reason().is_some_and(|reason| reason.state() == State::Failed)
            && !self.memory.rested
            && self.seen == &Observations::default()
            && self.recorded.observed_generation == Some(self.inputs.generation)
            && !self.poked()
            && !self.inputs.adopt
    }

    /// Whether it is known that no job of this resource exists yet. A resource that waits for its turn or
    /// its dataset was looked up before it began to wait: a restart over a long queue asks nothing again.
    fn has_looked(&self) -> bool {
        self.memory.looked_up || matches!(self.reason(), Some(Reason::Queued | Reason::DatasetNotReady))
    }

    /// The intent is recorded: by this pass, or by one that didn't live to see the outcome.
    pub(super) fn submitting(&self, attempt: i32) -> Effect {
        if let Some(answer) = &self.seen.create {
            return self.answered(attempt, answer);
        }
        if self.seen.intent != Some(attempt)
            && let Some(until) = self.paused_until()
        {
            return self.leave(Requeue::At(until));
        }
        match self.seen.lookups.get(&attempt) {
            None => Effect::DescribeJob { attempt, prove: true },
            Some(Ok(found)) => self.found(found, attempt),
            Some(Err(failure)) if failure.kind != ErrorKind::NotFound => {
                self.obstacle(self.recorded.clone(), failure, "looking up what became of the submission")
            }
            Some(Err(_)) if self.seen.intent == Some(attempt) && self.is_fresh() => Effect::Create { attempt },
            Some(Err(_)) => self.left_over(attempt),
        }
    }

    /// Whether a create sent now arrives before anyone who reads the intent takes it for lost: what is sent
    /// in the first half of the grace has the second half to arrive in.
    fn is_fresh(&self) -> bool {
        let intended = self.recorded.submission.as_ref().map_or(Timestamp::UNIX_EPOCH, |s| s.time.0);
        self.now < after(intended, self.policy.grace / 2)
    }

    /// A job stands under the name that an own intent is recorded for.
    fn found(&self, found: &ObservedJob, attempt: i32) -> Effect {
        match self.claim(found) {
            // Nothing was sent yet by this pass: this one is from before, and others may have followed it.
            Ownership::Owned if self.seen.create.is_none() && self.has_failed(found) => match self.find_own() {
                ExistingJob::Effect(step) | ExistingJob::Found(step) | ExistingJob::Obstacle(step) => step,
                ExistingJob::Foreign(..) | ExistingJob::Nothing => {
                    self.report(self.recorded.clone(), &found.job, attempt)
                }
            },
            Ownership::Owned => self.report(self.recorded.clone(), &found.job, attempt),
            // A young job's tags may come later than the job.
            Ownership::Untagged(_) if self.settles().is_some_and(|settled| self.now < settled) => {
                self.in_doubt("the job's tags can't be read yet")
            }
            Ownership::Foreign(why) | Ownership::Untagged(why) => self.conflict(self.without_intent(), attempt, &why),
            Ownership::Unknown(failure) => self.unproven(failure),
        }
    }

    /// An intent of an earlier pass, or one grown old in this, and no job: once a late job would have shown, submit anew.
    fn left_over(&self, attempt: i32) -> Effect {
        if let Some(settled) = self.settles()
            && self.now < settled
        {
            let message = "what became of the submission is being looked up";
            let soon = after(self.now, self.policy.backoff_min).min(settled);
            return self.keep_or_settle(self.recorded.clone(), Reason::Submitting, message, Requeue::At(soon));
        }
        if let Some(step) = self.held_back(self.without_intent()) {
            return step;
        }
        if let Some(step) = self.not_permitted(self.without_intent()) {
            return step;
        }
        // Much may have happened to the dataset since.
        if let Some(step) = self.not_ready(&self.without_intent(), attempt) {
            return step;
        }
        if !self.seen.live {
            return Effect::Refresh;
        }
        self.intend(attempt)
    }

    /// The answer to the one create call.
    fn answered(&self, attempt: i32, answer: &Result<(), ServiceError>) -> Effect {
        let failure = match answer {
            Ok(()) => return self.accepted(attempt),
            Err(failure) => failure,
        };
        let clear = self.without_intent();
        match failure.kind {
            // A job of this name exists: an earlier call of ours came through, or it is a foreign one.
            ErrorKind::AlreadyExists => match self.seen.lookups.get(&attempt) {
                None => Effect::DescribeJob { attempt, prove: true },
                Some(Ok(found)) => self.found(found, attempt),
                Some(Err(_)) => self.in_doubt("a job of this name exists and can't be read yet"),
            },
            ErrorKind::Indeterminate => self.in_doubt("the answer to the submission was lost"),
            ErrorKind::QuotaExceeded => {
                let message = "the service runs as many imports as it allows at once; waits for one to end";
                refused(
                    self.settle(clear, Reason::Queued, message, Requeue::Backoff(Severity::Transient)),
                    CooldownCause::Quota,
                )
            }
            ErrorKind::Throttled => {
                refused(self.obstacle(clear, failure, "submitting the import"), CooldownCause::Throttled)
            }
            ErrorKind::NotFound => self.dataset_not_ready(clear, "the service does not find the dataset"),
            ErrorKind::InUse => {
                let message = format!("waits for the dataset, which is in use: {failure}");
                self.settle(clear, Reason::Queued, &message, Requeue::Backoff(Severity::Transient))
            }
            ErrorKind::InvalidInput | ErrorKind::AccessDenied | ErrorKind::TooManyTags | ErrorKind::Credentials => {
                self.obstacle(clear, failure, "the service refused the import")
            }
        }
    }

    /// The service took the job. This is recorded before anything else is asked.
    fn accepted(&self, attempt: i32) -> Effect {
        let status = DatasetImportJobStatus {
            status: None,
            failure_reason: None,
            job_name: Some(self.request.job_name(attempt)),
            dataset_import_job_arn: Some(self.request.job_arn(attempt).0),
            creation_date_time: None,
            last_updated_date_time: None,
            completion_time: None,
            attempts: Some(attempt),
            last_handled_retry_at: self.handled_retry(),
            ..self.recorded.clone()
        };
        self.settle(status, Reason::Pending, "the service has taken the job", Requeue::At(self.now))
    }

    /// A job stands under the name that an own intent is recorded for, and its tags can't be read.
    fn unproven(&self, failure: &ServiceError) -> Effect {
        match failure.kind {
            // A young job's tags may come later than the job.
            ErrorKind::NotFound | ErrorKind::InUse => self.in_doubt("the job's tags can't be read yet"),
            _ => self.obstacle(self.recorded.clone(), failure, "reading the tags of the existing job"),
        }
    }

    fn in_doubt(&self, why: &str) -> Effect {
        let message = format!("{why}: it is being looked up");
        self.settle_as(Reason::Submitting, &message, Requeue::Backoff(Severity::Transient))
    }

    /// A repeated try keeps the verdict of the one before until it has one of its own, so that a
    /// rejected import doesn't flap.
    fn keep_or_settle(&self, status: DatasetImportJobStatus, reason: Reason, message: &str, again: Requeue) -> Effect {
        if self.reason().is_some_and(|r| r.state() == State::Failed) {
            return self.leave(again);
        }
        self.settle(status, reason, message, again)
    }

    fn intend(&self, attempt: i32) -> Effect {
        let mut status = self.recorded.clone();
        let before = status.submission.take().map(|intent| intent.time);
        let time = conditions::whole_seconds(self.now);
        // One that says what stands there already would be no compare-and-swap.
        let time = if before.as_ref() == Some(&time) { Time(after(time.0, Duration::from_secs(1))) } else { time };
        status.submission = Some(Submission {
            job_name: self.request.job_name(attempt),
            attempt,
            request_hash: self.request.hash(),
            generation: self.inputs.generation,
            time,
        });
        // What was tried before keeps its verdict until there is another, so that it doesn't flap.
        let tried_before = self.reason().is_some_and(|reason| {
            use Reason::{CredentialsRefused, Queued, ServiceUnavailable, Throttled};
            reason.state() == State::Failed
                || matches!(reason, Queued | Throttled | ServiceUnavailable | CredentialsRefused)
        });
        if !tried_before || status.observed_generation != Some(self.inputs.generation) {
            conditions::set(
                &mut status,
                self.inputs.generation,
                Reason::Submitting,
                "the import is being submitted",
                self.now,
            );
        }
        Effect::RecordIntent(Box::new(status))
    }

    /// Nothing is sent for a resource that a person holds back.
    fn held_back(&self, status: DatasetImportJobStatus) -> Option<Effect> {
        let message = format!("{} holds the import back", self.held_back_by?);
        Some(self.settle(status, Reason::Suspended, &message, Requeue::AwaitChange))
    }

    /// Nothing is sent for a namespace that may not make this import.
    fn not_permitted(&self, status: DatasetImportJobStatus) -> Option<Effect> {
        match &self.seen.permission {
            None => Some(Effect::AskPermission),
            Some(Ok(())) => None,
            Some(Err(why)) => {
                Some(self.settle(status, Reason::NotPermitted, why, Requeue::Backoff(Severity::NeedsUser)))
            }
        }
    }

    /// What keeps this attempt from being submitted now; `None` if nothing does. It is told with this status.
    fn not_ready(&self, status: &DatasetImportJobStatus, attempt: i32) -> Option<Effect> {
        let obstacle = |failure, doing| Some(self.obstacle(status.clone(), failure, doing));
        match &self.seen.turn {
            None => return Some(Effect::TakeTurn),
            Some(Admission::Admitted) => {}
            Some(Admission::Pending { why, until }) => {
                let again = until.map_or(Requeue::After(self.policy.waiting), Requeue::At);
                return Some(self.keep_or_settle(status.clone(), Reason::Queued, why, again));
            }
            Some(Admission::Superseded { by }) => {
                // What it is called is nothing for those in other namespaces.
                let near = by.namespace == self.request.namespace;
                let by = if near { by.name.as_str() } else { "another import" };
                return Some(self.superseded(status.clone(), by));
            }
        }
        match &self.seen.dataset {
            None => return Some(Effect::DescribeDataset),
            Some(Ok(told)) if told == ACTIVE => {}
            Some(Ok(_)) => return Some(self.dataset_not_ready(status.clone(), "the dataset is not ACTIVE yet")),
            Some(Err(f)) if f.kind == ErrorKind::NotFound => {
                return Some(self.dataset_not_ready(status.clone(), "the dataset does not exist"));
            }
            Some(Err(failure)) => return obstacle(failure, "looking at the dataset"),
        }
        let jobs = match &self.seen.jobs {
            None => return Some(Effect::ListJobs),
            Some(Err(failure)) => return obstacle(failure, "looking for other imports into the dataset"),
            Some(Ok(jobs)) => jobs,
        };
        let own = self.request.job_name(attempt);
        if let Some(other) = jobs.iter().find(|job| !has_ended(&job.status) && job.name != own) {
            let message = format!("waits for the job {}, which imports into the same dataset", sanitize(&other.name));
            return Some(self.keep_or_settle(
                status.clone(),
                Reason::Queued,
                &message,
                Requeue::Backoff(Severity::Transient),
            ));
        }
        self.overtaken(status, jobs)
    }

    /// Whether a newer import has put its data into the dataset, though its resource may be gone by now: then the
    /// job's own tag tells how old the import is.
    fn overtaken(&self, status: &DatasetImportJobStatus, jobs: &[JobSummary]) -> Option<Effect> {
        let requested_at = self.request.requested_at?;
        // A newer resource's job can't be older than this resource, as far as the clocks of AWS and the cluster agree.
        let candidate = |job: &&JobSummary| {
            job.status == ACTIVE && job.created.is_none_or(|created| after(created, CLOCK_SKEW) > requested_at)
        };
        let mut candidates: Vec<&JobSummary> = jobs.iter().filter(candidate).collect();
        candidates.sort_by_key(|job| std::cmp::Reverse(job.created));
        candidates.into_iter().take(MOST_AGES).find_map(|job| match self.seen.ages.get(&job.name) {
            None => Some(Effect::ReadAge { job_name: job.name.clone() }),
            Some(Ok(Some(age))) if *age > requested_at => {
                Some(self.superseded(status.clone(), &format!("the job {}", sanitize(&job.name))))
            }
            Some(Ok(_)) => None,
            Some(Err(failure)) if failure.kind == ErrorKind::NotFound => None,
            Some(Err(failure)) => Some(self.obstacle(status.clone(), failure, "reading how old another import is")),
        })
    }

    fn superseded(&self, status: DatasetImportJobStatus, by: &str) -> Effect {
        let message = format!(
            "{by}, which is newer, has put its data into the dataset; this older import is not made any more: to make it after all, delete this DatasetImportJob and create it anew"
        );
        // A failed attempt was not the end as long as another might follow.
        let over = status.status.as_deref() == Some(CREATE_FAILED);
        let completion_time = status.last_updated_date_time.clone().filter(|_| over).or(status.completion_time);
        let status = DatasetImportJobStatus { completion_time, ..status };
        self.settle(status, Reason::Superseded, &message, Requeue::AwaitChange)
    }

    fn dataset_not_ready(&self, status: DatasetImportJobStatus, why: &str) -> Effect {
        let message = format!("{why}; waits for it");
        self.settle(status, Reason::DatasetNotReady, &message, Requeue::Backoff(Severity::Transient))
    }

    pub(super) fn conflict(&self, status: DatasetImportJobStatus, attempt: i32, why: &str) -> Effect {
        let other = if self.request.can_retry() { "name" } else { "jobName" };
        let message = format!(
            "a job named {} exists and is not this resource's: {why}; to import under another name, create a DatasetImportJob with another {other}",
            self.request.job_name(attempt)
        );
        self.settle(status, Reason::JobNameConflict, &message, Requeue::Backoff(Severity::NeedsUser))
    }
}

/// The step after which nobody submits there for a while.
fn refused(step: Effect, refusal: CooldownCause) -> Effect {
    match step {
        Effect::Outcome(rest) => Effect::Outcome(Outcome { refusal: Some(refusal), ..rest }),
        step => step,
    }
}
