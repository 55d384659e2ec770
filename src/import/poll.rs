//! Polls a running job until it ends, and plans another attempt if it failed.

use super::outcome::POLL_FAILED;
use super::ownership::Ownership;
use super::phase::attempts;
use super::plan::{Next, Plan, Planner, Requeue};
use super::poll_schedule::PollSchedule;
use super::timing::{Severity, after, since};
use crate::api::DatasetImportJobStatus;
use crate::api::conditions::{self, DataCurrent, Reason};
use crate::personalize::{ErrorKind, Job, ServiceError};
use jiff::Timestamp;
use std::convert::Infallible;

impl Planner<'_> {
    /// Polls the running job when a poll is due.
    pub(super) fn poll(&self) -> Plan<Infallible> {
        let attempt = attempts(&self.recorded);
        let is_polled = self.observations.lookups.contains_key(&attempt);
        if self.observations.job_listed && !is_polled {
            return Err(self.keep_until(self.next_poll().unwrap_or(self.now)));
        }
        if let Some(at) = self.next_poll().filter(|_| !is_polled && !self.reconcile_requested()) {
            return Err(self.keep_until(at));
        }
        Err(match self.lookup(attempt, self.is_missing())? {
            // A job that reappears under a missing job's name is adopted only if its tags prove ownership.
            Ok(found) if self.is_missing() && !matches!(self.ownership(found), Ownership::Owned) => {
                self.keep(Requeue::Backoff(Severity::NeedsUser))
            }
            Ok(found) => self.report(self.recorded.clone(), &found.job, attempt),
            Err(error) => self.poll_failed(error, attempt),
        })
    }

    fn is_missing(&self) -> bool {
        self.reason() == Some(Reason::JobNotFound)
    }

    /// A finished import is neither polled nor written, except to record that the current generation was seen, or that a
    /// newer import has replaced its data.
    pub(super) fn stay_finished(&self) -> Plan<Infallible> {
        let mut status = self.recorded.clone();
        if conditions::is_data_current(&status) {
            match &self.observations.newer_import {
                None => return Err(Next::FindNewerImport),
                Some(None) => {}
                Some(Some(newer)) => {
                    // Names in other namespaces stay private.
                    let is_near = newer.namespace == self.request.namespace;
                    let by = if is_near { newer.name.as_str() } else { "in another namespace" };
                    let message = format!("the newer import of the DatasetImportJob {by} has replaced the data");
                    return Err(self.finish_succeeded(status, DataCurrent::False, &message));
                }
            }
        }
        if let Some(reason) = self.reason()
            && status.observed_generation != Some(self.inputs.generation)
        {
            let message = conditions::ready_message(&status).to_owned();
            conditions::set(&mut status, self.inputs.generation, reason, &message, self.now);
            return Err(self.finish_with_status(status, Requeue::AwaitChange));
        }
        Err(self.keep(Requeue::AwaitChange))
    }

    /// Plans another attempt after a failed job, if the limit allows it or a user asks for it.
    pub(super) fn plan_retry(&self) -> Plan<Infallible> {
        let allowed = attempts(&self.recorded) <= self.backoff_limit;
        if self.request.can_retry() && (self.retry_requested() || allowed) {
            return Err(self.finish_retrying(self.with_requested_attempt()));
        }
        self.stay_finished()
    }

    /// Plans the next attempt although a newer import has succeeded, if a user asks for it.
    pub(super) fn plan_despite_newer_import(&self) -> Plan<Infallible> {
        if !self.retry_requested() {
            return self.stay_finished();
        }
        if attempts(&self.recorded) == 0 {
            let status = self.with_requested_attempt();
            let message = "a user asked for this import although a newer one has succeeded";
            return Err(self.finish(status, Reason::Queued, message, Requeue::At(self.now)));
        }
        self.plan_retry()
    }

    /// Whether a user asked for another attempt, and the request is not handled yet.
    pub(super) fn retry_requested(&self) -> bool {
        let requested = &self.inputs.retry_requested_at;
        requested.is_some() && *requested != self.recorded.last_handled_retry_at
    }

    /// The recorded status with the attempt that a user asked for, if any.
    fn with_requested_attempt(&self) -> DatasetImportJobStatus {
        let next = attempts(&self.recorded).saturating_add(1);
        DatasetImportJobStatus {
            requested_attempt: self.retry_requested().then_some(next),
            last_handled_retry_at: self.handled_retry(),
            ..self.recorded.clone()
        }
    }

    /// When to poll this job again.
    pub(super) fn requeue_for_poll(&self, job: &Job) -> Requeue {
        Requeue::At(self.poll_after(self.now, job.created))
    }

    /// When the next poll is due, after a poll at `polled` of a job created at `created`.
    pub(super) fn poll_after(&self, polled: Timestamp, created: Option<Timestamp>) -> Timestamp {
        let age = created.map_or_else(Default::default, |created| since(created, polled));
        let schedule = PollSchedule::new(self.timing, &self.local.durations);
        after(polled, schedule.shared_by(self.local.polled_together).interval(age))
    }

    /// When the next poll is due; `None` if it is due now.
    fn next_poll(&self) -> Option<Timestamp> {
        if let Some(until) = self.backoff_until() {
            return Some(until);
        }
        let polled = self.local.last_polled.filter(|_| !self.local.listed_as_ended)?;
        let submitted = self.recorded.submission.as_ref().map(|intent| &intent.time);
        let created = self.recorded.creation_date_time.as_ref().or(submitted).map(|time| time.0);
        let due = self.poll_after(polled, created);
        (due > self.now).then_some(due)
    }

    /// No poll is due; records only that an edit of the spec was seen.
    fn keep_until(&self, at: Timestamp) -> Next {
        let Some(reason) = self.reason() else {
            return self.keep(Requeue::At(at));
        };
        let message = conditions::ready_message(&self.recorded);
        self.finish_with_reason(reason, message, Requeue::At(at))
    }

    /// A failed poll changes only the message: the job keeps running in AWS.
    fn poll_failed(&self, error: &ServiceError, attempt: i32) -> Next {
        let reason = self.reason().filter(|r| *r != Reason::JobNotFound).unwrap_or(Reason::Submitting);
        let message = match error.kind {
            ErrorKind::NotFound => return self.job_missing(attempt),
            ErrorKind::Credentials => self.credentials_message(POLL_FAILED, error),
            ErrorKind::AccessDenied | ErrorKind::InvalidInput => format!("{POLL_FAILED}: {error}"),
            _ => {
                let call = self.in_call(error);
                format!("{POLL_FAILED}: the service is unreachable or is throttling requests {call}")
            }
        };
        self.finish_with_reason(reason, &message, Requeue::Backoff(Severity::Transient))
    }

    /// The service does not know the job. Within the grace period the job may not be visible yet; later it is reported
    /// as missing. It is never submitted again.
    fn job_missing(&self, attempt: i32) -> Next {
        if self.is_in_grace() {
            return self.keep(Requeue::Backoff(Severity::Transient));
        }
        let message = self.job_missing_message(attempt);
        self.finish_with_reason(Reason::JobNotFound, &message, Requeue::Backoff(Severity::NeedsUser))
    }

    pub(super) fn job_missing_message(&self, attempt: i32) -> String {
        format!(
            "the status names the job {}, which the service does not know; it is not submitted again, so that nothing is imported twice: to import again, delete this DatasetImportJob and create one with another name",
            self.request.job_name(attempt)
        )
    }
}
