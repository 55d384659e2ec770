//! Finds jobs that a resource submitted and that its status does not name: the resource was re-created or restored, or
//! somebody else wrote its status.

use super::outcome::DATA_IS_CURRENT;
use super::ownership::Ownership;
use super::phase::{Phase, attempts};
use super::plan::{Effect, Next, ObservedJob, Plan, Planner, Requeue};
use super::timing::Severity;
use crate::api::DatasetImportJobStatus;
use crate::api::conditions::{self, DataCurrent, Reason};
use crate::personalize::{ACTIVE, CREATE_FAILED, Dataset, ErrorKind, Job, JobSummary, ServiceError};
use crate::redact::sanitize;
use std::convert::Infallible;

/// The most attempts that are looked up.
const MAX_LOOKUPS: i32 = 200;

/// The job that a resource already has.
pub(super) enum ExistingJob<'a> {
    /// It has one, the last of its attempts.
    Found(i32, &'a Job),
    /// A failed call hides whether it has one: the outcome that says so.
    Obstacle(Next),
    /// The job under the name of this attempt does not belong to the resource; the text says why.
    Foreign(i32, String),
    /// It has none.
    None,
}

impl Planner<'_> {
    /// Checks an untrusted status against the service: what the service reports counts, not what the status says.
    pub(super) fn verify_status(&self) -> Plan<Infallible> {
        self.check_backoff()?;
        // If the namespace may not import, look nothing up, unless the import was already submitted.
        if !self.claims_submission() {
            self.check_namespace(&self.untrusted_base_status()).map_err(confirmed)?;
        } else if self.observations.namespace.is_none() {
            self.check_namespace(&self.recorded)?;
        }
        Err(match self.find_existing_job()? {
            ExistingJob::Found(attempt, job) if self.awaits_attempt_after(attempt, job) => {
                confirmed(self.keep(Requeue::At(self.now)))
            }
            ExistingJob::Found(attempt, job) => {
                self.check_dataset_known(job, attempt)?;
                match self.adopt(job, attempt).map_err(confirmed)? {}
            }
            // Nothing is written: a write would make the untrusted status a trusted one.
            ExistingJob::Obstacle(_) => self.keep(Requeue::Backoff(Severity::Transient)),
            ExistingJob::Foreign(attempt, why) => confirmed(self.conflict(self.untrusted_base_status(), attempt, &why)),
            ExistingJob::None => return self.verify_claimed_job(),
        })
    }

    /// Whether the status says, truly or not, that this resource's import was submitted.
    fn claims_submission(&self) -> bool {
        self.claimed_attempt().is_some() || matches!(Phase::of(&self.recorded, &self.request), Phase::Submitting(_))
    }

    /// The attempt whose job the status names.
    fn claimed_attempt(&self) -> Option<i32> {
        let claimed = self.recorded.dataset_import_job_arn.as_deref()?;
        [attempts(&self.recorded).max(1), 1].into_iter().find(|attempt| self.request.job_arn(*attempt).0 == claimed)
    }

    /// Checks the job that the status names, after no job was found for the first attempt.
    fn verify_claimed_job(&self) -> Plan<Infallible> {
        let base = self.untrusted_base_status();
        let Some(attempt) = self.claimed_attempt() else {
            // Nothing was ever submitted: start from the beginning.
            let requeue = Requeue::At(self.now);
            return Err(confirmed(self.finish(base, Reason::Queued, "waiting to be submitted", requeue)));
        };
        let check_later = self.keep(Requeue::Backoff(Severity::Transient));
        Err(match self.lookup(attempt, true)? {
            Ok(found) => match self.ownership(found) {
                Ownership::Owned => {
                    self.check_dataset_known(&found.job, attempt)?;
                    let is_missing = |error: &ServiceError| error.kind == ErrorKind::NotFound;
                    if matches!(&self.observations.dataset, Some(Err(error)) if is_missing(error)) {
                        // No lookup would find this job again without the status.
                        return Err(check_later);
                    }
                    match self.adopt(&found.job, attempt).map_err(confirmed)? {}
                }
                Ownership::Foreign(why) | Ownership::Untagged(why) => confirmed(self.conflict(base, attempt, &why)),
                Ownership::Unknown(_) => check_later,
            },
            Err(error) if error.kind != ErrorKind::NotFound => check_later,
            Err(_) => {
                // Keep only the job's name and ARN; all other fields are untrusted.
                let status = DatasetImportJobStatus {
                    job_name: Some(self.request.job_name(attempt)),
                    dataset_import_job_arn: self.recorded.dataset_import_job_arn.clone(),
                    attempts: Some(attempt),
                    ..base
                };
                let message = self.job_missing_message(attempt);
                let requeue = Requeue::Backoff(Severity::NeedsUser);
                confirmed(self.finish(status, Reason::JobNotFound, &message, requeue))
            }
        })
    }

    /// Looks up the jobs of this resource, attempt by attempt; finds the last one.
    pub(super) fn find_existing_job(&self) -> Plan<ExistingJob<'_>> {
        let obstacle = |error, doing| Ok(ExistingJob::Obstacle(self.obstacle(self.recorded.clone(), error, doing)));
        let mut earlier = None;
        for attempt in 1..=MAX_LOOKUPS {
            let found = match self.lookup(attempt, true)? {
                Ok(found) => found,
                Err(error) if error.kind == ErrorKind::NotFound => break,
                Err(error) => return obstacle(error, "looking for an existing job"),
            };
            match self.ownership(found) {
                Ownership::Owned if self.may_have_successor(found) || self.may_be_replaced(found, attempt)? => {
                    earlier = Some((attempt, found));
                }
                Ownership::Owned => return Ok(ExistingJob::Found(attempt, &found.job)),
                Ownership::Foreign(_) | Ownership::Untagged(_) if earlier.is_some() => break,
                Ownership::Foreign(why) | Ownership::Untagged(why) => return Ok(ExistingJob::Foreign(attempt, why)),
                Ownership::Unknown(error) => return obstacle(error, "reading the tags of the existing job"),
            }
        }
        Ok(earlier.map_or(ExistingJob::None, |(attempt, found)| ExistingJob::Found(attempt, &found.job)))
    }

    /// Whether this job has failed, the status says that another attempt follows, and the limit allows it. Whatever the
    /// attempt waits for, planning finds out again.
    fn awaits_attempt_after(&self, attempt: i32, job: &Job) -> bool {
        let next = attempt.saturating_add(1);
        let phase = Phase::of(&self.recorded, &self.request);
        job.status == CREATE_FAILED
            && attempt <= self.backoff_limit
            && [Phase::Unsubmitted(next), Phase::Submitting(next)].contains(&phase)
    }

    /// Whether this job has failed and another attempt may have followed it.
    pub(super) fn may_have_successor(&self, found: &ObservedJob) -> bool {
        found.job.status == CREATE_FAILED && self.request.can_retry()
    }

    /// Whether this job has succeeded and is older than its dataset, so that a user may have asked for another attempt.
    fn may_be_replaced(&self, found: &ObservedJob, attempt: i32) -> Plan<bool> {
        if !self.is_new_success(&found.job, attempt) || !self.request.can_retry() {
            return Ok(false);
        }
        let dataset = self.observations.dataset.as_ref().ok_or(Next::Perform(Effect::DescribeDataset))?;
        Ok(dataset.as_ref().is_ok_and(|dataset| is_older(&found.job, dataset)))
    }

    /// Whether this job has succeeded, and the status does not say so.
    fn is_new_success(&self, job: &Job, attempt: i32) -> bool {
        let is_recorded =
            Phase::of(&self.recorded, &self.request) == Phase::Succeeded && attempts(&self.recorded) == attempt;
        job.status == ACTIVE && !is_recorded
    }

    /// What is kept of an untrusted status: an intent under this resource's name, which is safe to check, and the
    /// conditions of other controllers.
    fn untrusted_base_status(&self) -> DatasetImportJobStatus {
        let has_intent = matches!(Phase::of(&self.recorded, &self.request), Phase::Submitting(_));
        DatasetImportJobStatus {
            submission: self.recorded.submission.clone().filter(|_| has_intent),
            last_handled_retry_at: self.inputs.retry_requested_at.clone(),
            conditions: self.recorded.conditions.iter().filter(|c| !conditions::is_own(c)).cloned().collect(),
            ..Default::default()
        }
    }

    /// Takes over a job that the status does not name.
    pub(super) fn adopt(&self, job: &Job, attempt: i32) -> Plan<Infallible> {
        if !self.is_new_success(job, attempt) {
            return Err(self.report(self.adoption_base(), job, attempt));
        }
        self.report_new_success(self.adoption_base(), job, attempt)
    }

    /// Reports the success of a job that was not followed to its end, if its dataset may hold the data.
    pub(super) fn report_new_success(&self, base: DatasetImportJobStatus, job: &Job, attempt: i32) -> Plan<Infallible> {
        let (value, message) = self.check_data_current(job, attempt)?;
        Err(self.finish_succeeded(self.with_job(base, job, attempt), value, &message))
    }

    /// Before the success of a job is reported that was not followed to its end, the dataset shows whether it holds the
    /// data: it may be missing or younger than the job, or a newer import may have replaced the data.
    fn check_data_current(&self, job: &Job, attempt: i32) -> Plan<(DataCurrent, String)> {
        self.check_dataset_known(job, attempt)?;
        let dataset = self.observations.dataset.as_ref().ok_or(Next::Perform(Effect::DescribeDataset))?;
        match dataset {
            Ok(dataset) if is_older(job, dataset) => return Err(self.dataset_replaced(attempt)),
            // It may be created again later.
            Err(error) if error.kind == ErrorKind::NotFound => {
                return Err(self.dataset_not_ready(self.base_without_job(attempt), "it does not exist"));
            }
            _ => {}
        }
        let jobs = self.observations.jobs.as_ref().ok_or(Next::Perform(Effect::ListJobs))?;
        let newer = |other: &&JobSummary| {
            other.is_full_success() && other.created.zip(job.created).is_some_and(|(other, own)| other > own)
        };
        Ok(match (dataset, jobs) {
            (Ok(_), Ok(jobs)) => match jobs.iter().find(newer) {
                Some(newer) => {
                    (DataCurrent::False, format!("the newer job {} has replaced the data", sanitize(&newer.name)))
                }
                None => (DataCurrent::True, DATA_IS_CURRENT.to_owned()),
            },
            (Err(error), _) | (_, Err(error)) => {
                (DataCurrent::Unknown, format!("the dataset can't be checked ({})", error.code))
            }
        })
    }

    /// Waits if a call fails for a time that shows whether the dataset holds the data of a successful job.
    fn check_dataset_known(&self, job: &Job, attempt: i32) -> Plan<()> {
        if !self.is_new_success(job, attempt) {
            return Ok(());
        }
        let hidden = |error: &ServiceError, doing| {
            if self.trust.is_trusted() {
                return self.obstacle(self.recorded.clone(), error, doing);
            }
            // Nothing is written: a write would make the untrusted status a trusted one.
            self.keep(Requeue::Backoff(Severity::Transient))
        };
        match self.observations.dataset.as_ref().ok_or(Next::Perform(Effect::DescribeDataset))? {
            Ok(dataset) if is_older(job, dataset) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.is_refusal() => return Ok(()),
            Err(error) => return Err(hidden(error, "describing the dataset")),
        }
        match self.observations.jobs.as_ref().ok_or(Next::Perform(Effect::ListJobs))? {
            Err(error) if !error.is_refusal() => Err(hidden(error, "listing other imports into the dataset")),
            _ => Ok(()),
        }
    }

    /// The status of a resource that has a job and does not say so yet. An intent that has led to this job is done with.
    fn base_without_job(&self, attempt: i32) -> DatasetImportJobStatus {
        let mut base = if self.trust.is_trusted() { self.recorded.clone() } else { self.untrusted_base_status() };
        base.submission = base.submission.filter(|intent| intent.attempt > attempt && self.request.can_retry());
        base
    }

    /// The dataset was deleted and created again since the job ended, so the data is gone. Importing it again is billed
    /// and may not be meant, so a user has to ask for it.
    fn dataset_replaced(&self, attempt: i32) -> Next {
        let untrusted = self.untrusted_base_status();
        let submission = self.base_without_job(attempt).submission;
        let mut base = DatasetImportJobStatus { submission, ..untrusted };
        if self.reason() == Some(Reason::DatasetReplaced) {
            // They keep the times of their transitions, so that nothing is written again.
            base.conditions = self.recorded.conditions.clone();
            if self.retry_requested() && self.request.can_retry() {
                let status = DatasetImportJobStatus { requested_attempt: Some(attempt.saturating_add(1)), ..base };
                let message = "a user asked to import the data again";
                return self.finish(status, Reason::Queued, message, Requeue::At(self.now));
            }
        }
        let name = self.request.job_name(attempt);
        let advice = if self.request.can_retry() {
            "set the annotation personalize-operator.io/retry-requested-at to a new value"
        } else {
            "create a DatasetImportJob with another jobName or none, because the job keeps the name in spec.jobName"
        };
        let message = format!(
            "the job {name} is older than its dataset, which was created again since, so its data is not there; to import it again, {advice}"
        );
        self.finish(base, Reason::DatasetReplaced, &message, Requeue::AwaitChange)
    }

    fn adoption_base(&self) -> DatasetImportJobStatus {
        let first = self.observations.lookups.get(&1).and_then(|l| l.as_ref().ok()).and_then(|f| f.job.created);
        DatasetImportJobStatus {
            conditions: self.recorded.conditions.clone(),
            start_time: first.map(conditions::whole_seconds),
            submission: self.recorded.submission.clone(),
            observed_generation: self.recorded.observed_generation,
            last_handled_retry_at: self.recorded.last_handled_retry_at.clone(),
            last_handled_reconcile_at: self.recorded.last_handled_reconcile_at.clone(),
            ..Default::default()
        }
    }
}

/// Whether the dataset was created again since this job was.
fn is_older(job: &Job, dataset: &Dataset) -> bool {
    job.created.zip(dataset.created).is_some_and(|(job, dataset)| job < dataset)
}

/// Marks the status of this outcome, written or unchanged, as confirmed by the service.
fn confirmed(next: Next) -> Next {
    match next {
        Next::Finish(mut outcome) => {
            outcome.confirmed = true;
            Next::Finish(outcome)
        }
        next => next,
    }
}
