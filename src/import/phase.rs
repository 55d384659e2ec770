//! How far an import has come, by its recorded status alone.
//!
//! ```
//! use personalize_operator::api::{DatasetImportJobSpec, DatasetImportJobStatus};
//! use personalize_operator::import::{ImportRequest, Phase};
//!
//! let spec: DatasetImportJobSpec = serde_json::from_value(serde_json::json!({
//!     "datasetArn": "arn:aws:personalize:eu-west-1:123456789012:dataset/shop/INTERACTIONS",
//!     "dataSource": { "dataLocation": "s3://shop-data/interactions.csv" },
//!     "roleArn": "arn:aws:iam::123456789012:role/PersonalizeRead",
//! }))?;
//! let request = ImportRequest::new("shop", "nightly", &spec)?;
//! let mut status = DatasetImportJobStatus::default();
//! assert_eq!(Phase::of(&status, &request), Phase::Unsubmitted(1));
//! status.dataset_import_job_arn = Some(request.job_arn(1).0);
//! status.attempts = Some(1);
//! assert_eq!(Phase::of(&status, &request), Phase::Running);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::request::ImportRequest;
use super::timing::{Timing, after};
use crate::api::DatasetImportJobStatus;
use crate::api::conditions::Reason;
use crate::personalize::{ACTIVE, CREATE_FAILED};
use jiff::Timestamp;

/// How far an import has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The job of this attempt (from 1) is to be submitted; nothing is recorded about it yet.
    Unsubmitted(i32),
    /// The intent to submit this attempt is recorded, its result is not.
    Submitting(i32),
    /// The service accepted the job, and it has not ended.
    Running,
    /// The job ended with ACTIVE.
    Succeeded,
    /// The job ended with CREATE FAILED, and no further attempt is decided on.
    Failed,
    /// A newer import has succeeded, so this one is never submitted.
    Superseded,
}

impl Phase {
    /// The phase that a status records.
    ///
    /// A part that contradicts the request, such as the ARN of another job or an intent under another name, is ignored:
    /// it belongs to another request, or somebody else wrote it.
    #[must_use]
    pub fn of(status: &DatasetImportJobStatus, request: &ImportRequest) -> Self {
        if Reason::of(status) == Some(Reason::Superseded) {
            return Self::Superseded;
        }
        let attempts = attempts(status);
        let intent = status.submission.as_ref().filter(|s| {
            s.attempt >= 1 && s.job_name == request.job_name(s.attempt) && s.request_hash == request.hash()
        });
        let has_job =
            attempts >= 1 && status.dataset_import_job_arn.as_deref() == Some(request.job_arn(attempts).0.as_str());
        if !has_job {
            // A user may ask for an attempt after jobs that the status does not name.
            let next = status.requested_attempt.unwrap_or(1).max(1);
            return intent.map_or(Self::Unsubmitted(next), |s| Self::Submitting(s.attempt));
        }
        if let Some(intent) = intent
            && intent.attempt == attempts.saturating_add(1)
        {
            return Self::Submitting(intent.attempt);
        }
        match status.status.as_deref() {
            Some(ACTIVE) => Self::Succeeded,
            Some(CREATE_FAILED) if status.completion_time.is_some() => Self::Failed,
            Some(CREATE_FAILED) => Self::Unsubmitted(attempts.saturating_add(1)),
            _ => Self::Running,
        }
    }
}

/// Whether the recorded intent is recent enough to create: only in the first half of the grace period, so that a slow
/// request still arrives before another replica may resubmit.
#[must_use]
pub fn is_intent_fresh(status: &DatasetImportJobStatus, now: Timestamp, timing: &Timing) -> bool {
    let recorded = status.submission.as_ref().map_or(Timestamp::UNIX_EPOCH, |intent| intent.time.0);
    now < after(recorded, timing.grace / 2)
}

/// How many jobs the service has accepted for this resource, by its status.
#[must_use]
pub fn attempts(status: &DatasetImportJobStatus) -> i32 {
    status.attempts.unwrap_or(0).max(0)
}
