//! How a pass ends: a status that differs from the recorded one only where there is something to say.

use super::plan::{Effect, Outcome, Planner, Requeue, UserInputs};
use crate::api::DatasetImportJobStatus;
use crate::api::conditions::{self, Reason, whole_seconds};
use crate::import::timing::Severity;
use crate::personalize::{
    ACTIVE, CREATE_FAILED, CREATE_PENDING, ErrorKind, Job, ROLE_NOT_ASSUMED, ServiceError, has_ended,
};
use crate::redact::sanitize;
use jiff::Timestamp;

/// The spec can't be read.
pub(super) fn invalid_spec(
    recorded: &DatasetImportJobStatus,
    inputs: &UserInputs,
    error: &str,
    now: Timestamp,
) -> Effect {
    let mut status = recorded.clone();
    conditions::set(&mut status, inputs.generation, Reason::InvalidSpec, &format!("spec.datasetArn: {error}"), now);
    rest(recorded, status, Requeue::AwaitChange)
}

fn rest(recorded: &DatasetImportJobStatus, status: DatasetImportJobStatus, again: Requeue) -> Effect {
    let status = (status != *recorded).then(|| Box::new(status));
    Effect::Outcome(Outcome { status, ..Outcome::quiet(again) })
}

impl Planner<'_> {
    /// Ends the pass with this status, reason and message.
    pub(super) fn settle(
        &self,
        mut status: DatasetImportJobStatus,
        reason: Reason,
        message: &str,
        again: Requeue,
    ) -> Effect {
        conditions::set(&mut status, self.inputs.generation, reason, message, self.now);
        if self.inputs.reconcile_requested_at.is_some() {
            status.last_handled_reconcile_at.clone_from(&self.inputs.reconcile_requested_at);
        }
        rest(&self.recorded, status, again)
    }

    /// Ends the pass with the recorded status under another reason.
    pub(super) fn settle_as(&self, reason: Reason, message: &str, again: Requeue) -> Effect {
        self.settle(self.recorded.clone(), reason, message, again)
    }

    /// Ends the pass and leaves the status as it is.
    pub(super) fn leave(&self, again: Requeue) -> Effect {
        self.record(self.recorded.clone(), again)
    }

    /// Ends the pass with this status, whose conditions say what they said.
    pub(super) fn record(&self, status: DatasetImportJobStatus, again: Requeue) -> Effect {
        rest(&self.recorded, status, again)
    }

    /// The recorded status without the intent: the submission was definitely not taken.
    pub(super) fn without_intent(&self) -> DatasetImportJobStatus {
        DatasetImportJobStatus { submission: None, ..self.recorded.clone() }
    }

    /// Something stands in the way of a submission that is not under way.
    pub(super) fn obstacle(&self, status: DatasetImportJobStatus, failure: &ServiceError, doing: &str) -> Effect {
        let (reason, message) = match failure.kind {
            ErrorKind::Throttled | ErrorKind::QuotaExceeded => (
                Reason::Throttled,
                format!("{doing}: the service slows the operator down ({}); it goes on by itself", failure.code),
            ),
            ErrorKind::Indeterminate => (
                Reason::ServiceUnavailable,
                format!(
                    "{doing}: the service can't be reached or gives no usable answer ({}); it goes on by itself",
                    failure.code
                ),
            ),
            ErrorKind::Credentials => (Reason::CredentialsRefused, credentials(doing, failure)),
            ErrorKind::AccessDenied if failure.message.contains("iam:PassRole") => {
                (Reason::AccessDenied, rejected(doing, failure, "let the operator pass the role of spec.roleArn"))
            }
            ErrorKind::AccessDenied => (Reason::AccessDenied, rejected(doing, failure, "grant what is missing")),
            ErrorKind::TooManyTags => (Reason::TooManyTags, rejected(doing, failure, "import with fewer tags")),
            ErrorKind::InvalidInput | ErrorKind::AlreadyExists | ErrorKind::NotFound | ErrorKind::InUse => {
                (Reason::InvalidInput, rejected(doing, failure, "mend what it names, here or in AWS"))
            }
        };
        let pace = if reason.state() == conditions::State::Failed { Severity::NeedsUser } else { Severity::Transient };
        self.settle(status, reason, &message, Requeue::Backoff(pace))
    }

    /// The job is there: the status that tells so.
    fn with_job(&self, from: DatasetImportJobStatus, job: &Job, attempt: i32) -> DatasetImportJobStatus {
        // What is recorded is what is decided by, now and when it is read again: a status in an odd
        // spelling must not mean one thing here and another there.
        let told = sanitize(&job.status);
        let created = job.created.map(whole_seconds);
        let updated = job.updated.map(whole_seconds);
        let over = has_ended(&told);
        DatasetImportJobStatus {
            status: Some(told),
            failure_reason: job.failure_reason.as_deref().map(sanitize).filter(|r| !r.is_empty()),
            job_name: Some(self.request.job_name(attempt)),
            dataset_import_job_arn: Some(self.request.job_arn(attempt).0),
            start_time: from.start_time.clone().or_else(|| created.clone()),
            completion_time: over.then(|| updated.clone().unwrap_or_else(|| whole_seconds(self.now))),
            creation_date_time: created,
            last_updated_date_time: updated,
            attempts: Some(attempt),
            submission: from.submission.clone().filter(|s| s.attempt == attempt),
            // A request from before this outcome was known never fires after it.
            last_handled_retry_at: self.handled_retry(),
            ..from
        }
    }

    /// Records what the service tells of the job, whatever its status.
    pub(super) fn report(&self, from: DatasetImportJobStatus, job: &Job, attempt: i32) -> Effect {
        let status = self.with_job(from, job, attempt);
        match status.status.clone().unwrap_or_default().as_str() {
            ACTIVE => self.settle(status, Reason::ImportSucceeded, "the data is in the dataset", Requeue::AwaitChange),
            CREATE_FAILED if self.request.can_retry() && attempt <= self.backoff_limit => self.retry(status),
            CREATE_FAILED => {
                let message = self.failed_message(&status);
                self.settle(status, Reason::ImportFailed, &message, Requeue::AwaitChange)
            }
            CREATE_PENDING => self.settle(
                status,
                Reason::Pending,
                "the service has taken the job and not begun yet",
                self.next_look(job),
            ),
            "CREATE IN_PROGRESS" => {
                self.settle(status, Reason::Importing, "the service is importing the data", self.next_look(job))
            }
            other => {
                let message = format!(
                    "the service tells the status {:?}, which this operator does not know; it goes on following",
                    other
                );
                self.settle(status, Reason::Importing, &message, self.next_look(job))
            }
        }
    }

    /// Decides on another attempt after a failed one; from then on it is owed.
    pub(super) fn retry(&self, status: DatasetImportJobStatus) -> Effect {
        let attempts = status.attempts.unwrap_or(1);
        let at = crate::queue::retry_at(&status, self.policy);
        let message = format!(
            "attempt {attempts} failed ({}); attempt {} follows",
            status.failure_reason.as_deref().unwrap_or("the service gave no reason"),
            attempts.saturating_add(1)
        );
        let status =
            DatasetImportJobStatus { completion_time: None, last_handled_retry_at: self.handled_retry(), ..status };
        self.settle(status, Reason::Retrying, &sanitize(&message), Requeue::At(at.max(self.now)))
    }

    pub(super) fn failed_message(&self, status: &DatasetImportJobStatus) -> String {
        let why = status.failure_reason.as_deref().unwrap_or("the service gave no reason");
        let way_out = if self.request.can_retry() {
            "for another attempt set the annotation personalize-operator.io/retry-requested-at to a new value"
        } else {
            "it can't be retried, because spec.jobName fixes the name and the failed job keeps it: create a DatasetImportJob with another jobName or none"
        };
        format!("{} ({way_out})", cut(why))
    }
}

/// As much of a foreign text as leaves room for a sentence of ours.
fn cut(text: &str) -> &str {
    text.char_indices().nth(700).map_or(text, |(end, _)| &text[..end])
}

fn rejected(doing: &str, failure: &ServiceError, way_out: &str) -> String {
    let told = failure.to_string();
    format!(
        "{doing}: {} ({way_out}; it is tried again slowly, and at once when the annotation personalize-operator.io/reconcile-requested-at gets a new value)",
        cut(&told)
    )
}

pub(super) fn credentials(doing: &str, failure: &ServiceError) -> String {
    if failure.code == ROLE_NOT_ASSUMED {
        return format!("{doing}: {}; it goes on once that is mended", failure.message);
    }
    // What a service says about a signature may hold parts of it.
    format!(
        "{doing}: the operator's AWS credentials are missing, expired or refused ({}); it goes on once they are mended",
        failure.code
    )
}
