//! Import jobs and their status.

use serde::{Deserialize, Serialize};

use super::seed::Durations;

pub(crate) const PENDING: &str = "CREATE PENDING";
pub(crate) const IN_PROGRESS: &str = "CREATE IN_PROGRESS";
pub(crate) const ACTIVE: &str = "ACTIVE";
pub(crate) const FAILED: &str = "CREATE FAILED";

/// A tag of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tag {
    /// 1 to 128 characters.
    pub tag_key: String,
    /// 0 to 256 characters.
    pub tag_value: String,
}

/// The outcome of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// `ACTIVE`, regardless of the data.
    Active,
    /// `CREATE FAILED` with this `failureReason`.
    Failed(String),
}

/// An import job. Times are milliseconds since the epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Unique in its account and region.
    pub name: String,
    /// The ARN of the job.
    pub arn: String,
    /// The account that owns it.
    pub account: String,
    /// The region of the job.
    pub region: String,
    /// The dataset it imports into.
    pub dataset_arn: String,
    /// The S3 location of the data.
    pub data_location: String,
    /// The role that the service assumes to read the data.
    pub role_arn: Option<String>,
    /// `FULL` or `INCREMENTAL`.
    pub import_mode: String,
    /// As requested.
    pub publish_attribution_metrics_to_s3: bool,
    /// Its tags, in request order.
    pub tags: Vec<Tag>,
    /// The status, as the API returns it.
    pub status: String,
    /// Present if the status is `CREATE FAILED`.
    pub failure_reason: Option<String>,
    /// When the request was accepted.
    pub created_ms: i64,
    /// When the status last changed.
    pub updated_ms: i64,
    /// Stays in its status until released or finished.
    pub hold: bool,
    /// Its data is currently being read.
    #[serde(skip)]
    pub(crate) checking: bool,
    /// Lookups before this time return not found (fault `notFoundFor`).
    #[serde(skip)]
    pub(crate) hidden_until_ms: Option<i64>,
    /// This many lookups return not found (fault `notFoundFor`).
    #[serde(skip)]
    pub(crate) hidden_lookups: u32,
}

impl Job {
    /// Whether the job counts towards the quota.
    pub fn is_running(&self) -> bool {
        self.status == PENDING || self.status == IN_PROGRESS
    }

    /// Moves the job from `CREATE PENDING` to `CREATE IN_PROGRESS` when it is due; `true` if it changed. The next
    /// transition depends on the data, see [`Job::is_due`].
    pub(crate) fn advance(&mut self, now_ms: i64, durations: Durations) -> bool {
        let due = self.updated_ms.saturating_add_unsigned(durations.pending_ms);
        let changes = !self.hold && self.status == PENDING && now_ms >= due;
        if changes {
            self.status = IN_PROGRESS.to_owned();
            self.updated_ms = due;
        }
        changes
    }

    /// Whether the data has to be read now to finish the import.
    pub(crate) fn is_due(&self, now_ms: i64, durations: Durations) -> bool {
        !self.hold
            && !self.checking
            && self.status == IN_PROGRESS
            && now_ms >= self.updated_ms.saturating_add_unsigned(durations.in_progress_ms)
    }

    pub(crate) fn finish(&mut self, outcome: Outcome, now_ms: i64) {
        self.checking = false;
        self.hold = false;
        self.updated_ms = now_ms;
        match outcome {
            Outcome::Active => {
                self.status = ACTIVE.to_owned();
                self.failure_reason = None;
            }
            Outcome::Failed(reason) => {
                self.status = FAILED.to_owned();
                self.failure_reason = Some(reason);
            }
        }
    }
}
