//! The search for jobs that a resource made and its status does not tell of: it was re-created, restored, or somebody
//! else touched its status.

use super::ownership::Ownership;
use super::phase::{Phase, attempts, stage};
use super::plan::{Effect, ObservedJob, Outcome, Planner, Requeue};
use crate::api::DatasetImportJobStatus;
use crate::api::conditions::{self, Reason};
use crate::import::timing::Severity;
use crate::personalize::{CREATE_FAILED, ErrorKind, Job};

/// The most attempts that are looked for when a resource finds its jobs again.
const MOST_ATTEMPTS: i32 = 200;

/// The outcome of looking for own jobs.
pub(super) enum ExistingJob {
    /// More is to be asked.
    Effect(Effect),
    /// There is one, and this tells of it.
    Found(Effect),
    /// It can't be told for now.
    Obstacle(Effect),
    /// The name of this attempt is taken by another's job.
    Foreign(i32, String),
    /// No job of this resource exists.
    Nothing,
}

impl Planner<'_> {
    /// Somebody else touched the status: what the service tells decides, not what is written there.
    pub(super) fn verify(&self) -> Effect {
        if let Some(until) = self.paused_until() {
            return self.leave(Requeue::At(until));
        }
        match &self.seen.permission {
            None => return Effect::AskPermission,
            // What a namespace may not import is not even looked at for it, unless it was submitted before.
            Some(Err(why)) if !self.claims_submission() => {
                let status = self.blank();
                return verified(self.settle(status, Reason::NotPermitted, why, Requeue::Backoff(Severity::NeedsUser)));
            }
            Some(_) => {}
        }
        match self.find_own() {
            ExistingJob::Effect(step) => step,
            ExistingJob::Found(step) => verified(step),
            // Nothing is written: that would make the unproven status ours.
            ExistingJob::Obstacle(_) => self.leave(Requeue::Backoff(Severity::Transient)),
            ExistingJob::Foreign(attempt, why) => verified(self.conflict(self.blank(), attempt, &why)),
            ExistingJob::Nothing => self.verify_claim(),
        }
    }

    /// Whether the status tells, truly or not, that this resource's own import was submitted.
    fn claims_submission(&self) -> bool {
        self.claimed_attempt().is_some() || matches!(stage(&self.recorded, &self.request), Phase::Submitting(_))
    }

    /// The attempt whose job the status names.
    fn claimed_attempt(&self) -> Option<i32> {
        let claimed = self.recorded.dataset_import_job_arn.as_deref()?;
        [attempts(&self.recorded).max(1), 1].into_iter().find(|attempt| self.request.job_arn(*attempt).0 == claimed)
    }

    /// There is no first job. Is there the one that the status names?
    fn verify_claim(&self) -> Effect {
        let Some(attempt) = self.claimed_attempt() else {
            // Nothing was ever submitted: begin from the beginning.
            return verified(self.settle(self.blank(), Reason::Queued, "waits to be submitted", Requeue::At(self.now)));
        };
        match self.seen.lookups.get(&attempt) {
            None => Effect::DescribeJob { attempt, prove: true },
            Some(Ok(found)) => match self.claim(found) {
                Ownership::Owned => verified(self.adopt(&found.job, attempt)),
                Ownership::Foreign(why) | Ownership::Untagged(why) => {
                    verified(self.conflict(self.blank(), attempt, &why))
                }
                Ownership::Unknown(_) => self.leave(Requeue::Backoff(Severity::Transient)),
            },
            Some(Err(failure)) if failure.kind != ErrorKind::NotFound => {
                self.leave(Requeue::Backoff(Severity::Transient))
            }
            Some(Err(_)) => {
                let message = "the status names a job that the service does not know; it is not submitted again: to import anew, delete this DatasetImportJob and create one with another name";
                // Of what stands there nothing but the name is kept: nobody vouches for the rest.
                let status = DatasetImportJobStatus {
                    job_name: Some(self.request.job_name(attempt)),
                    dataset_import_job_arn: self.recorded.dataset_import_job_arn.clone(),
                    attempts: Some(attempt),
                    ..self.blank()
                };
                verified(self.settle(status, Reason::JobNotFound, message, Requeue::Backoff(Severity::NeedsUser)))
            }
        }
    }

    /// Looks for jobs that this resource made before its status knew of them: the last attempt that
    /// exists is the one that counts.
    pub(super) fn find_own(&self) -> ExistingJob {
        let obstacle = |failure, doing| ExistingJob::Obstacle(self.obstacle(self.recorded.clone(), failure, doing));
        let mut failed = None;
        for attempt in 1..=MOST_ATTEMPTS {
            let found = match self.seen.lookups.get(&attempt) {
                None => return ExistingJob::Effect(Effect::DescribeJob { attempt, prove: true }),
                Some(Err(failure)) if failure.kind == ErrorKind::NotFound => break,
                Some(Err(failure)) => return obstacle(failure, "looking for an existing job"),
                Some(Ok(found)) => found,
            };
            match self.claim(found) {
                Ownership::Owned if self.has_failed(found) => failed = Some((attempt, found)),
                Ownership::Owned => return ExistingJob::Found(self.adopt(&found.job, attempt)),
                Ownership::Foreign(_) | Ownership::Untagged(_) if failed.is_some() => break,
                Ownership::Foreign(why) | Ownership::Untagged(why) => return ExistingJob::Foreign(attempt, why),
                Ownership::Unknown(failure) => return obstacle(failure, "reading the tags of the existing job"),
            }
        }
        failed.map_or(ExistingJob::Nothing, |(attempt, found)| ExistingJob::Found(self.adopt(&found.job, attempt)))
    }

    /// Whether this job is over and another attempt may have followed it.
    pub(super) fn has_failed(&self, found: &ObservedJob) -> bool {
        found.job.status == CREATE_FAILED && self.request.can_retry()
    }

    /// A status that claims nothing but an intent under this resource's own name. Others' conditions are theirs.
    fn blank(&self) -> DatasetImportJobStatus {
        let intended = matches!(stage(&self.recorded, &self.request), Phase::Submitting(_));
        DatasetImportJobStatus {
            submission: self.recorded.submission.clone().filter(|_| intended),
            last_handled_retry_at: self.inputs.retry_requested_at.clone(),
            conditions: self.recorded.conditions.iter().filter(|c| !conditions::is_own(c)).cloned().collect(),
            ..Default::default()
        }
    }

    fn adopt(&self, job: &Job, attempt: i32) -> Effect {
        let first = self.seen.lookups.get(&1).and_then(|l| l.as_ref().ok()).and_then(|f| f.job.created);
        let from = DatasetImportJobStatus {
            conditions: self.recorded.conditions.clone(),
            start_time: first.map(conditions::whole_seconds),
            submission: self.recorded.submission.clone(),
            observed_generation: self.recorded.observed_generation,
            last_handled_retry_at: self.recorded.last_handled_retry_at.clone(),
            last_handled_reconcile_at: self.recorded.last_handled_reconcile_at.clone(),
            ..Default::default()
        };
        self.report(from, job, attempt)
    }
}

/// The status that this step leaves, written or found, holds what the service tells.
fn verified(step: Effect) -> Effect {
    match step {
        Effect::Outcome(rest) => Effect::Outcome(Outcome { verified: true, ..rest }),
        step => step,
    }
}
