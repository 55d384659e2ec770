//! Submits an import exactly once.
//!
//! CreateDatasetImportJob has no client token. The protocol is: read the resource live, record the intent by
//! compare-and-swap, look up the derived name, and call create, once, only if no job has it. Whatever happens after
//! that, the name finds the job.

use super::admission::{Admission, CooldownCause};
use super::adopt::ExistingJob;
use super::outcome::{JOB_ACCEPTED, dataset_state};
use super::ownership::Ownership;
use super::phase::is_intent_fresh;
use super::plan::{AfterWrite, Effect, Next, Observations, ObservedJob, Plan, Planner, Requeue};
use super::request::newer_jobs_after;
use super::timing::{Severity, after};
use crate::api::conditions::{self, Reason, State};
use crate::api::{DatasetImportJobStatus, ImportMode, Submission};
use crate::personalize::{
    ACTIVE, CREATE_FAILED, CREATE_PENDING, Dataset, ErrorKind, JobSummary, ServiceError, has_ended,
};
use crate::redact::sanitize;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::convert::Infallible;
use std::time::Duration;

/// The most jobs whose tags are read to find a newer import, newest first.
const MAX_TAG_READS: usize = 100;

impl Planner<'_> {
    /// Submits an attempt that nothing is recorded about yet.
    pub(super) fn plan_submission(&self, attempt: i32) -> Plan<Infallible> {
        self.check_not_suspended(&self.recorded)?;
        self.check_backoff()?;
        self.check_not_rejected_before_restart()?;
        self.check_namespace(&self.recorded)?;
        self.adopt_existing_job(attempt)?;
        self.check_retry_delay()?;
        self.check_ready(&self.recorded, attempt)?;
        self.require_live_read()?;
        self.record_intent(attempt)
    }

    /// Continues an attempt whose intent is recorded, by this reconciliation or by one that did not finish.
    pub(super) fn resume_submission(&self, attempt: i32) -> Plan<Infallible> {
        if let Some(answer) = &self.observations.create {
            return self.handle_answer(attempt, answer);
        }
        let recorded_now = self.observations.intent == Some(attempt);
        if !recorded_now {
            self.check_backoff()?;
        }
        match self.lookup(attempt, true)? {
            Ok(found) => self.handle_job(found, attempt),
            Err(error) if error.kind != ErrorKind::NotFound => {
                Err(self.obstacle(self.recorded.clone(), error, "checking the submitted job"))
            }
            Err(_) if recorded_now && is_intent_fresh(&self.recorded, self.now, self.timing) => {
                Err(Next::Perform(Effect::CreateJob { attempt }))
            }
            Err(_) => self.resubmit(attempt),
        }
    }

    /// Submits again: the recorded intent led to no job, and is old or from an earlier reconciliation.
    fn resubmit(&self, attempt: i32) -> Plan<Infallible> {
        if let Some(deadline) = self.grace_deadline().filter(|deadline| self.now < *deadline) {
            let message = "checking whether an earlier CreateDatasetImportJob call created the job";
            let soon = after(self.now, self.timing.backoff_min).min(deadline);
            let status = self.recorded.clone();
            return Err(self.finish_or_keep_failure(status, Reason::Submitting, message, Requeue::At(soon)));
        }
        // Repeat the checks: the intent may be old.
        let status = self.without_intent();
        self.check_not_suspended(&status)?;
        self.check_namespace(&status)?;
        self.check_ready(&status, attempt)?;
        self.require_live_read()?;
        self.record_intent(attempt)
    }

    /// A job exists under the name of a recorded intent.
    fn handle_job(&self, found: &ObservedJob, attempt: i32) -> Plan<Infallible> {
        let report = || Err(self.report(self.recorded.clone(), &found.job, attempt));
        match self.ownership(found) {
            // This reconciliation has not called create, so the job is an earlier one, and later attempts may exist.
            Ownership::Owned if self.observations.create.is_none() && self.may_have_successor(found) => {
                match self.find_existing_job()? {
                    ExistingJob::Found(attempt, job) => self.adopt(job, attempt),
                    ExistingJob::Obstacle(next) => Err(next),
                    ExistingJob::Foreign(..) | ExistingJob::None => report(),
                }
            }
            Ownership::Owned if found.job.status == ACTIVE => {
                self.report_new_success(self.recorded.clone(), &found.job, attempt)
            }
            Ownership::Owned => report(),
            // The tags of a new job may become visible later than the job.
            Ownership::Untagged(_) if self.is_in_grace() => Err(self.indeterminate("the job's tags can't be read yet")),
            Ownership::Foreign(why) | Ownership::Untagged(why) => {
                Err(self.conflict(self.without_intent(), attempt, &why))
            }
            Ownership::Unknown(error) => Err(match error.kind {
                ErrorKind::NotFound | ErrorKind::InUse => self.indeterminate("the job's tags can't be read yet"),
                _ => self.obstacle(self.recorded.clone(), error, "reading the tags of the existing job"),
            }),
        }
    }

    /// Handles the answer of the one create call.
    fn handle_answer(&self, attempt: i32, answer: &Result<(), ServiceError>) -> Plan<Infallible> {
        let Err(error) = answer else { return Err(self.accepted(attempt)) };
        let status = self.without_intent();
        Err(match error.kind {
            // An earlier call of this resource created the job, or somebody else did.
            ErrorKind::AlreadyExists => match self.lookup(attempt, true)? {
                Ok(found) => return self.handle_job(found, attempt),
                Err(error) if error.kind != ErrorKind::NotFound => {
                    self.obstacle(self.recorded.clone(), error, "checking the submitted job")
                }
                // A new job may not be visible yet. After a grace period it would be.
                Err(_) if self.local.name_taken < 2 => {
                    self.indeterminate("a job of this name exists and is not visible yet")
                }
                Err(_) => self.conflict(status, attempt, "the service neither describes it nor accepts its name"),
            },
            ErrorKind::Indeterminate => self.indeterminate("CreateDatasetImportJob got no usable answer"),
            ErrorKind::QuotaExceeded => {
                let message = "waiting for a running import to finish: the service runs no more at once in this account and region";
                let next = self.finish(status, Reason::Queued, message, Requeue::Backoff(Severity::Transient));
                with_cooldown(next, CooldownCause::Quota)
            }
            ErrorKind::Throttled => {
                with_cooldown(self.obstacle(status, error, "submitting the import"), CooldownCause::Throttled)
            }
            ErrorKind::NotFound => self.dataset_not_ready(status, "the service does not find it"),
            ErrorKind::InUse => {
                let message = format!("waiting for the dataset, which is in use: {error}");
                self.finish(status, Reason::Queued, &message, Requeue::Backoff(Severity::Transient))
            }
            ErrorKind::InvalidInput | ErrorKind::AccessDenied | ErrorKind::TooManyTags | ErrorKind::Credentials => {
                self.obstacle(status, error, "the service rejected the import")
            }
        })
    }

    /// The service accepted the job. This is recorded before anything else happens.
    fn accepted(&self, attempt: i32) -> Next {
        let status = DatasetImportJobStatus {
            // The first state of every job.
            status: Some(CREATE_PENDING.into()),
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
        self.finish(status, Reason::Pending, JOB_ACCEPTED, Requeue::At(self.poll_after(self.now, Some(self.now))))
    }

    /// It is unknown whether a job was created: look it up again.
    fn indeterminate(&self, why: &str) -> Next {
        let message = format!("{why}; checking whether the job exists");
        self.finish_with_reason(Reason::Submitting, &message, Requeue::Backoff(Severity::Transient))
    }

    /// Records the intent. The write is the compare-and-swap that fences other replicas.
    fn record_intent(&self, attempt: i32) -> Plan<Infallible> {
        let mut status = self.recorded.clone();
        let previous = status.submission.take().map(|intent| intent.time);
        let time = conditions::whole_seconds(self.now);
        // Writing an identical status is a no-op that keeps the resourceVersion, so it would not fence other writers.
        let time = if previous.as_ref() == Some(&time) { Time(after(time.0, Duration::from_secs(1))) } else { time };
        status.submission = Some(Submission {
            job_name: self.request.job_name(attempt),
            attempt,
            request_hash: self.request.hash(),
            generation: self.inputs.generation,
            time,
        });
        if !self.keeps_reason_while_submitting() || status.observed_generation != Some(self.inputs.generation) {
            let (generation, message) = (self.inputs.generation, "submitting the import");
            conditions::set(&mut status, generation, Reason::Submitting, message, self.now);
        }
        self.set_data_checked(&mut status);
        status.data = self.observed_data().cloned();
        conditions::summarize(&mut status);
        let then = AfterWrite::Submit { attempt };
        Err(Next::Perform(Effect::WriteStatus { status: Box::new(status), then }))
    }

    /// Whether the recorded reason stays until this attempt has a result, so that the conditions don't flap.
    fn keeps_reason_while_submitting(&self) -> bool {
        self.reason().is_some_and(|reason| {
            use Reason::{CredentialsRefused, Queued, ServiceUnavailable, Throttled};
            reason.state() == State::Failed
                || matches!(reason, Queued | Throttled | ServiceUnavailable | CredentialsRefused)
        })
    }

    /// Finishes with this reason, or keeps the status if it already says that the import failed, so that the conditions
    /// of a rejected import don't flap.
    fn finish_or_keep_failure(
        &self,
        status: DatasetImportJobStatus,
        reason: Reason,
        message: &str,
        requeue: Requeue,
    ) -> Next {
        if self.reason().is_some_and(|r| r.state() == State::Failed) {
            return self.keep(requeue);
        }
        self.finish(status, reason, message, requeue)
    }

    fn check_not_suspended(&self, status: &DatasetImportJobStatus) -> Plan<()> {
        let Some(by) = self.suspended_by else { return Ok(()) };
        let message = format!("suspended by {by}; unset it to submit the import");
        Err(self.finish(status.clone(), Reason::Suspended, &message, Requeue::AwaitChange))
    }

    /// Waits after a restart if the service rejected the import before: an operator that restarts often submits no
    /// sooner than one that keeps running, unless a user asks for it. What the namespace permits costs no call.
    fn check_not_rejected_before_restart(&self) -> Plan<()> {
        let rejected = self.reason().is_some_and(|r| r.state() == State::Failed && r != Reason::NotPermitted)
            && !self.local.finished_before
            && self.observations == &Observations::default()
            && self.recorded.observed_generation == Some(self.inputs.generation)
            && !self.reconcile_requested()
            && !self.inputs.adopt;
        if rejected { Err(self.keep(Requeue::Backoff(Severity::NeedsUser))) } else { Ok(()) }
    }

    pub(super) fn check_namespace(&self, status: &DatasetImportJobStatus) -> Plan<()> {
        match &self.observations.namespace {
            None => Err(Next::Perform(Effect::CheckNamespace)),
            Some(Ok(())) => Ok(()),
            Some(Err(why)) => {
                let requeue = Requeue::Backoff(Severity::NeedsUser);
                Err(self.finish(status.clone(), Reason::NotPermitted, why, requeue))
            }
        }
    }

    /// Adopts the job that an earlier resource of this name and request has submitted.
    fn adopt_existing_job(&self, attempt: i32) -> Plan<()> {
        if attempt > 1 || self.is_known_to_be_new() || self.observations.intent.is_some() {
            return Ok(());
        }
        match self.find_existing_job()? {
            ExistingJob::Found(attempt, job) => match self.adopt(job, attempt)? {},
            ExistingJob::Obstacle(next) => Err(next),
            ExistingJob::Foreign(attempt, why) => Err(self.conflict(self.recorded.clone(), attempt, &why)),
            ExistingJob::None => Ok(()),
        }
    }

    /// Whether it is known that no job of this resource exists. A resource that waits for the queue or its dataset was
    /// looked up before: a restart over a long queue repeats no lookup.
    fn is_known_to_be_new(&self) -> bool {
        self.local.no_job_found
            || matches!(self.reason(), Some(Reason::Queued | Reason::DatasetNotReady | Reason::DataDeletionRunning))
    }

    fn check_retry_delay(&self) -> Plan<()> {
        let at = self.local.retry_at(&self.recorded, self.now, self.timing);
        let waits = self.reason() == Some(Reason::Retrying) && at > self.now;
        if waits { Err(self.keep(Requeue::At(at))) } else { Ok(()) }
    }

    /// Checks everything that an attempt has to wait for. A failed check finishes with this status.
    fn check_ready(&self, status: &DatasetImportJobStatus, attempt: i32) -> Plan<()> {
        self.check_admission(status)?;
        let dataset = self.check_dataset(status)?;
        let jobs = self.check_no_other_job_running(status, attempt)?;
        // The jobs of an earlier dataset of this name do not count.
        let since =
            |job: &&JobSummary| job.created.is_none_or(|created| dataset.created.is_none_or(|at| at <= created));
        let jobs: Vec<&JobSummary> = jobs.iter().filter(since).collect();
        self.check_has_full_import(status, &jobs)?;
        self.check_not_superseded(status, attempt, &jobs)?;
        self.check_data(status)?;
        self.check_guard(status, &jobs)?;
        self.check_no_data_deletion(status)
    }

    fn check_admission(&self, status: &DatasetImportJobStatus) -> Plan<()> {
        match &self.observations.admission {
            None => Err(Next::TryAdmit),
            Some(Admission::Admitted) => Ok(()),
            Some(Admission::Pending { message, until }) => {
                let requeue = until.map_or(Requeue::After(self.timing.waiting), Requeue::At);
                Err(self.finish_or_keep_failure(status.clone(), Reason::Queued, message, requeue))
            }
        }
    }

    fn check_dataset(&self, status: &DatasetImportJobStatus) -> Plan<&Dataset> {
        match &self.observations.dataset {
            None => Err(Next::Perform(Effect::DescribeDataset)),
            Some(Ok(dataset)) if dataset.status == ACTIVE => Ok(dataset),
            Some(Ok(dataset)) => Err(self.dataset_not_ready(status.clone(), &dataset_state(&dataset.status))),
            Some(Err(error)) if error.kind == ErrorKind::NotFound => {
                Err(self.dataset_not_ready(status.clone(), "it does not exist"))
            }
            Some(Err(error)) => Err(self.obstacle(status.clone(), error, "describing the dataset")),
        }
    }

    /// Waits while another job imports into the dataset; returns the dataset's jobs.
    fn check_no_other_job_running(&self, status: &DatasetImportJobStatus, attempt: i32) -> Plan<&[JobSummary]> {
        let jobs = match &self.observations.jobs {
            None => return Err(Next::Perform(Effect::ListJobs)),
            Some(Err(error)) => {
                return Err(self.obstacle(status.clone(), error, "listing other imports into the dataset"));
            }
            Some(Ok(jobs)) => jobs,
        };
        let own_name = self.request.job_name(attempt);
        let Some(other) = jobs.iter().find(|job| !has_ended(&job.status) && job.name != own_name) else {
            return Ok(jobs);
        };
        let message =
            format!("waiting for the job {} to finish: it imports into the same dataset", sanitize(&other.name));
        let requeue = Requeue::Backoff(Severity::Transient);
        Err(self.finish_or_keep_failure(status.clone(), Reason::Queued, &message, requeue))
    }

    /// An INCREMENTAL import needs data that it adds to. Other imports do not wait for it meanwhile, and the queue wakes it
    /// after a FULL one that this operator submits.
    fn check_has_full_import(&self, status: &DatasetImportJobStatus, jobs: &[&JobSummary]) -> Plan<()> {
        if self.request.import_mode == ImportMode::Full || jobs.iter().any(|job| job.is_full_success()) {
            return Ok(());
        }
        let message = "waiting for the first FULL import into the dataset: an INCREMENTAL one adds to its data";
        let requeue = Requeue::After(self.timing.backoff_max);
        Err(self.finish_or_keep_failure(status.clone(), Reason::WaitingForFullImport, message, requeue))
    }

    /// Checks that no newer import into the dataset has succeeded, unless a user asked for this attempt. If the newer
    /// resource is deleted, the tag of its job says how old the import is.
    ///
    /// An INCREMENTAL import adds to the data, so only a FULL one supersedes it, and not the first one: that is the one
    /// it has waited for.
    fn check_not_superseded(&self, status: &DatasetImportJobStatus, attempt: i32, jobs: &[&JobSummary]) -> Plan<()> {
        let Some(requested_at) = self.request.requested_at else { return Ok(()) };
        if self.recorded.requested_attempt == Some(attempt) {
            return Ok(());
        }
        let is_full = self.request.import_mode == ImportMode::Full;
        let first_full = jobs.iter().filter(|job| job.is_full_success()).min_by_key(|job| job.created);
        let supersedes = |job: &JobSummary| {
            if is_full {
                job.status == ACTIVE
            } else {
                job.is_full_success() && first_full.is_none_or(|first| job.name != first.name)
            }
        };
        let is_newer = |job: &JobSummary| job.created.is_none_or(|created| created > newer_jobs_after(requested_at));
        let mut candidates: Vec<_> = jobs.iter().filter(|job| supersedes(job) && is_newer(job)).collect();
        candidates.sort_by_key(|job| std::cmp::Reverse(job.created));
        for job in candidates.into_iter().take(MAX_TAG_READS) {
            match self.observations.requested_at.get(&job.name) {
                None => return Err(Next::Perform(Effect::ListTags { job_name: job.name.clone() })),
                Some(Ok(Some(newer))) if *newer > requested_at => {
                    return Err(self.superseded(status.clone(), &format!("job {}", sanitize(&job.name))));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) if error.kind == ErrorKind::NotFound => {}
                Some(Err(error)) => {
                    return Err(self.obstacle(status.clone(), error, "reading the tags of another import"));
                }
            }
        }
        Ok(())
    }

    /// Waits while users are deleted from the dataset group: the service does not guarantee that a deletion covers what is
    /// imported meanwhile. This is the last check, so that a deletion has little time to start between it and the create.
    /// Without the permission to list deletions, nothing is guaranteed and the import continues.
    fn check_no_data_deletion(&self, status: &DatasetImportJobStatus) -> Plan<()> {
        let name = match &self.observations.data_deletion {
            None => return Err(Next::Perform(Effect::ListDataDeletions)),
            Some(Ok(Some(name))) => sanitize(name),
            Some(Ok(None)) => return Ok(()),
            Some(Err(error)) if error.is_refusal() => return Ok(()),
            Some(Err(error)) => {
                return Err(self.obstacle(
                    status.clone(),
                    error,
                    "listing the data deletion jobs of the dataset group",
                ));
            }
        };
        let message = format!(
            "waiting for the data deletion job {name} to finish: it may miss what is imported into the dataset group meanwhile"
        );
        let requeue = Requeue::Backoff(Severity::Transient);
        Err(self.finish_or_keep_failure(status.clone(), Reason::DataDeletionRunning, &message, requeue))
    }

    fn require_live_read(&self) -> Plan<()> {
        if self.observations.live { Ok(()) } else { Err(Next::Perform(Effect::ReadResource)) }
    }

    fn superseded(&self, status: DatasetImportJobStatus, by: &str) -> Next {
        let message = format!(
            "not submitted, because a newer import into this dataset ({by}) has succeeded; to import this older data anyway, set the annotation personalize-operator.io/retry-requested-at to a new value"
        );
        // A failed attempt gets its completion time only now, because no other attempt follows.
        let has_failed = status.status.as_deref() == Some(CREATE_FAILED);
        let completion_time = status.last_updated_date_time.clone().filter(|_| has_failed).or(status.completion_time);
        let status = DatasetImportJobStatus { completion_time, last_handled_retry_at: self.handled_retry(), ..status };
        self.finish(status, Reason::Superseded, &message, Requeue::AwaitChange)
    }

    pub(super) fn dataset_not_ready(&self, status: DatasetImportJobStatus, why: &str) -> Next {
        let message = format!("waiting for the dataset: {why}");
        self.finish(status, Reason::DatasetNotReady, &message, Requeue::Backoff(Severity::Transient))
    }

    pub(super) fn conflict(&self, status: DatasetImportJobStatus, attempt: i32, why: &str) -> Next {
        let field = if self.request.can_retry() { "name" } else { "jobName" };
        let message = format!(
            "a job named {} already exists and does not belong to this resource: {why}; to import under another name, create a DatasetImportJob with another {field}",
            self.request.job_name(attempt)
        );
        self.finish(status, Reason::JobNameConflict, &message, Requeue::Backoff(Severity::NeedsUser))
    }
}

/// Pauses submissions in the whole account and region.
fn with_cooldown(next: Next, cause: CooldownCause) -> Next {
    match next {
        Next::Finish(mut outcome) => {
            outcome.cooldown = Some(cause);
            Next::Finish(outcome)
        }
        next => next,
    }
}
