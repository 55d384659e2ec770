//! How far an import has come, by its recorded status alone.

use crate::api::DatasetImportJobStatus;
use crate::api::conditions::Reason;
use crate::import::request::ImportRequest;
use crate::personalize::{ACTIVE, CREATE_FAILED};

/// How far an import has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The job of this attempt (from 1) is to be submitted; nothing was recorded of it yet.
    Unsubmitted(i32),
    /// The intent to submit this attempt is recorded, its outcome isn't.
    Submitting(i32),
    /// The service took the job; it has not ended.
    Running,
    /// The job ended with ACTIVE.
    Succeeded,
    /// The job ended with CREATE FAILED, and no other attempt was decided on.
    Failed,
    /// A newer import has landed, so this one is not made any more.
    Superseded,
}

/// The stage that a status tells.
///
/// What contradicts the request (another job's ARN, an intent under another name) counts as not
/// there: it was written for another request, or by somebody else.
#[must_use]
pub fn stage(status: &DatasetImportJobStatus, request: &ImportRequest) -> Phase {
    if Reason::of(status) == Some(Reason::Superseded) {
        return Phase::Superseded;
    }
    let attempts = attempts(status);
    let intent = status
        .submission
        .as_ref()
        .filter(|s| s.attempt >= 1 && s.job_name == request.job_name(s.attempt) && s.request_hash == request.hash());
    let recorded =
        attempts >= 1 && status.dataset_import_job_arn.as_deref() == Some(request.job_arn(attempts).0.as_str());
    if !recorded {
        return intent.map_or(Phase::Unsubmitted(1), |s| Phase::Submitting(s.attempt));
    }
    if let Some(intent) = intent
        && intent.attempt == attempts.saturating_add(1)
    {
        return Phase::Submitting(intent.attempt);
    }
    match status.status.as_deref() {
        Some(ACTIVE) => Phase::Succeeded,
        Some(CREATE_FAILED) if status.completion_time.is_some() => Phase::Failed,
        Some(CREATE_FAILED) => Phase::Unsubmitted(attempts.saturating_add(1)),
        _ => Phase::Running,
    }
}

/// How many jobs the service took, by this status.
#[must_use]
pub fn attempts(status: &DatasetImportJobStatus) -> i32 {
    status.attempts.unwrap_or(0).max(0)
}
