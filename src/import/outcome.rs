//! How a reconciliation finishes: the status to write, with its conditions and messages.

use super::phase::Phase;
use super::plan::{Next, Outcome, Planner, Requeue};
use super::timing::Severity;
use crate::api::DatasetImportJobStatus;
use crate::api::conditions::{self, DataCurrent, Reason, State, whole_seconds};
use crate::personalize::{
    ACCOUNTS_NOT_READ, ACTIVE, CREATE_FAILED, CREATE_IN_PROGRESS, CREATE_PENDING, ErrorKind, HOST_NOT_FOUND, Job,
    ROLE_NOT_ASSUMED, SESSION_REFUSED, ServiceError, has_ended,
};
use crate::redact::sanitize;

/// The start of the message while a running job can't be polled.
pub const POLL_FAILED: &str = "the job can't be polled at the moment";

/// The message until the job starts.
pub(super) const JOB_ACCEPTED: &str = "the service accepted the job and has not started it yet";

/// The message while the job runs.
pub const JOB_RUNNING: &str = "the service is importing the data";

const DATA_IMPORTED: &str = "the data is in the dataset";

/// The message of DataCurrent while it is True.
pub(super) const DATA_IS_CURRENT: &str = "no newer FULL import into the dataset has succeeded";

/// The most characters of the service's text in a message.
const MAX_SERVICE_TEXT: usize = 700;

impl Planner<'_> {
    /// Finishes with this status, and conditions of this reason and message.
    pub(super) fn finish(
        &self,
        mut status: DatasetImportJobStatus,
        reason: Reason,
        message: &str,
        requeue: Requeue,
    ) -> Next {
        conditions::set(&mut status, self.inputs.generation, reason, message, self.now);
        if self.inputs.reconcile_requested_at.is_some() {
            status.last_handled_reconcile_at.clone_from(&self.inputs.reconcile_requested_at);
        }
        self.finish_with_status(status, requeue)
    }

    /// Finishes with the recorded status, and conditions of this reason and message.
    pub(super) fn finish_with_reason(&self, reason: Reason, message: &str, requeue: Requeue) -> Next {
        self.finish(self.recorded.clone(), reason, message, requeue)
    }

    /// Finishes with this status; its conditions stay.
    pub(super) fn finish_with_status(&self, status: DatasetImportJobStatus, requeue: Requeue) -> Next {
        Next::Finish(Outcome::new(&self.recorded, status, requeue))
    }

    /// Finishes and keeps the recorded status.
    pub(super) fn keep(&self, requeue: Requeue) -> Next {
        Next::Finish(Outcome::unchanged(requeue))
    }

    /// The recorded status without the intent: the service definitely did not accept the job.
    pub(super) fn without_intent(&self) -> DatasetImportJobStatus {
        DatasetImportJobStatus { submission: None, ..self.recorded.clone() }
    }

    /// Reports a failed call that keeps the import from being submitted. `doing` says what the operator was doing.
    pub(super) fn obstacle(&self, status: DatasetImportJobStatus, error: &ServiceError, doing: &str) -> Next {
        let (reason, message) = match error.kind {
            ErrorKind::Throttled | ErrorKind::QuotaExceeded => (
                Reason::Throttled,
                format!("{doing}: the service is throttling requests {}; retrying automatically", self.in_call(error)),
            ),
            ErrorKind::Indeterminate if error.code == HOST_NOT_FOUND => (
                Reason::ServiceUnavailable,
                format!(
                    "{doing}: the service is unreachable, because DNS has no address of its endpoint in region {}; check the region in spec.datasetArn, and DNS in the cluster; retrying automatically",
                    self.request.dataset.account_region().region
                ),
            ),
            ErrorKind::Indeterminate => (
                Reason::ServiceUnavailable,
                format!(
                    "{doing}: the service is unreachable or gives no usable answer {}; retrying automatically",
                    self.in_call(error)
                ),
            ),
            ErrorKind::Credentials => (Reason::CredentialsRefused, self.credentials_message(doing, error)),
            ErrorKind::AccessDenied if error.message.contains("iam:PassRole") => {
                let advice = "allow the operator's role iam:PassRole on the role of spec.roleArn";
                (Reason::AccessDenied, rejection_message(doing, error, advice))
            }
            ErrorKind::AccessDenied => {
                (Reason::AccessDenied, rejection_message(doing, error, "grant the missing permission"))
            }
            ErrorKind::TooManyTags => (Reason::TooManyTags, rejection_message(doing, error, "use fewer tags")),
            ErrorKind::InvalidInput | ErrorKind::AlreadyExists | ErrorKind::NotFound | ErrorKind::InUse => {
                let advice = "fix what the error names, in the manifest or in AWS";
                (Reason::InvalidInput, rejection_message(doing, error, advice))
            }
        };
        let severity = if reason.state() == State::Failed { Severity::NeedsUser } else { Severity::Transient };
        self.finish(status, reason, &message, Requeue::Backoff(severity))
    }

    /// For which account and region a call failed, with which code, and under which role.
    pub(super) fn in_call(&self, error: &ServiceError) -> String {
        let (at, code) = (self.request.dataset.account_region(), &error.code);
        match &error.role {
            Some(role) => format!("for {at} ({code}; called with the role {role})"),
            None => format!("for {at} ({code})"),
        }
    }

    pub(super) fn credentials_message(&self, doing: &str, error: &ServiceError) -> String {
        if [ROLE_NOT_ASSUMED, SESSION_REFUSED, ACCOUNTS_NOT_READ].contains(&error.code.as_str()) {
            return format!("{doing}: {}; retrying automatically", error.message);
        }
        // The service's message about a signature may contain parts of it.
        format!(
            "{doing}: the operator's AWS credentials are missing, expired or rejected {}; retrying automatically",
            self.in_call(error)
        )
    }

    /// The status of a resource whose job exists.
    pub(super) fn with_job(&self, base: DatasetImportJobStatus, job: &Job, attempt: i32) -> DatasetImportJobStatus {
        // Sanitise before comparing, so that this decision and the next one, which reads the stored value, agree.
        let job_status = sanitize(&job.status);
        let created = job.created.map(whole_seconds);
        let updated = job.updated.map(whole_seconds);
        let is_over = has_ended(&job_status);
        DatasetImportJobStatus {
            status: Some(job_status),
            failure_reason: job.failure_reason.as_deref().map(sanitize).filter(|r| !r.is_empty()),
            job_name: Some(self.request.job_name(attempt)),
            dataset_import_job_arn: Some(self.request.job_arn(attempt).0),
            start_time: base.start_time.clone().or_else(|| created.clone()),
            completion_time: is_over.then(|| updated.clone().unwrap_or_else(|| whole_seconds(self.now))),
            creation_date_time: created,
            last_updated_date_time: updated,
            attempts: Some(attempt),
            submission: base.submission.clone().filter(|s| s.attempt == attempt),
            // A retry request from before this result is handled by it.
            last_handled_retry_at: self.handled_retry(),
            ..base
        }
    }

    /// Reports what the service says about the job.
    pub(super) fn report(&self, base: DatasetImportJobStatus, job: &Job, attempt: i32) -> Next {
        let status = self.with_job(base, job, attempt);
        let (reason, message, requeue) = match status.status.as_deref().unwrap_or_default() {
            // The job has just ended, and a dataset has one import at a time.
            ACTIVE if Phase::of(&self.recorded, &self.request) != Phase::Succeeded => {
                return self.finish_succeeded(status, DataCurrent::True, DATA_IS_CURRENT);
            }
            ACTIVE => (Reason::ImportSucceeded, DATA_IMPORTED.into(), Requeue::AwaitChange),
            CREATE_FAILED if self.request.can_retry() && attempt <= self.backoff_limit => {
                return self.finish_retrying(status);
            }
            CREATE_FAILED => (Reason::ImportFailed, self.failed_message(&status), Requeue::AwaitChange),
            // The times of a job are not worth a write of their own: they are recorded when it starts.
            CREATE_PENDING if self.is_recorded_as_pending(attempt) => {
                return self.finish_with_reason(Reason::Pending, JOB_ACCEPTED, self.requeue_for_poll(job));
            }
            CREATE_PENDING => (Reason::Pending, JOB_ACCEPTED.into(), self.requeue_for_poll(job)),
            CREATE_IN_PROGRESS => (Reason::Importing, JOB_RUNNING.into(), self.requeue_for_poll(job)),
            other => {
                let message = format!("unknown job status {other:?}; the operator keeps polling");
                (Reason::Importing, message, self.requeue_for_poll(job))
            }
        };
        self.finish(status, reason, &message, requeue)
    }

    /// Whether the status says already that the job of this attempt is pending.
    fn is_recorded_as_pending(&self, attempt: i32) -> bool {
        self.recorded.status.as_deref() == Some(CREATE_PENDING)
            && self.recorded.dataset_import_job_arn.as_ref() == Some(&self.request.job_arn(attempt).0)
            && self.recorded.last_handled_retry_at == self.handled_retry()
    }

    /// Finishes a successful import, and says whether the dataset still holds its data.
    pub(super) fn finish_succeeded(
        &self,
        mut status: DatasetImportJobStatus,
        value: DataCurrent,
        message: &str,
    ) -> Next {
        let ready = if value == DataCurrent::False {
            "the import has succeeded, and a newer one has replaced its data"
        } else {
            DATA_IMPORTED
        };
        conditions::set_data_current(&mut status, self.inputs.generation, value, message, self.now);
        self.finish(status, Reason::ImportSucceeded, ready, Requeue::AwaitChange)
    }

    /// Finishes with the reason Retrying. Once this is recorded, another attempt will be made.
    pub(super) fn finish_retrying(&self, status: DatasetImportJobStatus) -> Next {
        let attempts = status.attempts.unwrap_or(1);
        let at = self.local.retry_at(&status, self.now, self.timing);
        let message = format!(
            "attempt {attempts} failed ({}); attempt {} follows",
            failure_reason(&status),
            attempts.saturating_add(1)
        );
        let status =
            DatasetImportJobStatus { completion_time: None, last_handled_retry_at: self.handled_retry(), ..status };
        self.finish(status, Reason::Retrying, &sanitize(&message), Requeue::At(at.max(self.now)))
    }

    pub(super) fn failed_message(&self, status: &DatasetImportJobStatus) -> String {
        let advice = if self.request.can_retry() {
            "to try again, set the annotation personalize-operator.io/retry-requested-at to a new value"
        } else {
            "it can't be retried, because the failed job keeps the name in spec.jobName: create a DatasetImportJob with another jobName or none"
        };
        format!("{} ({advice})", truncate(failure_reason(status)))
    }
}

fn failure_reason(status: &DatasetImportJobStatus) -> &str {
    status.failure_reason.as_deref().unwrap_or("the service gave no reason")
}

/// A text of the service, truncated to leave room for the operator's advice.
fn truncate(text: &str) -> &str {
    text.char_indices().nth(MAX_SERVICE_TEXT).map_or(text, |(end, _)| &text[..end])
}

/// Why a dataset in this state takes no import, and what to do about it.
pub(super) fn dataset_state(state: &str) -> String {
    match state {
        "CREATE PENDING" | "CREATE IN_PROGRESS" => format!("it is not ACTIVE yet ({state})"),
        CREATE_FAILED => format!("it could not be created ({state}); delete it in AWS and create it again"),
        "DELETE PENDING" | "DELETE IN_PROGRESS" => {
            format!("it is being deleted ({state}); create it again, or delete this DatasetImportJob")
        }
        other => format!("its status is {:?} and not ACTIVE; check it in AWS", sanitize(other)),
    }
}

fn rejection_message(doing: &str, error: &ServiceError, advice: &str) -> String {
    format!(
        "{doing}: {} ({advice}; the operator retries with growing delays, and at once when the annotation personalize-operator.io/reconcile-requested-at gets a new value)",
        truncate(&error.to_string())
    )
}
