//! An import job and its states.

use serde::{Deserialize, Serialize};

use crate::seed::Durations;

/// `CREATE PENDING`
pub(crate) const PENDING: &str = "CREATE PENDING";
/// `CREATE IN_PROGRESS`
pub(crate) const IN_PROGRESS: &str = "CREATE IN_PROGRESS";
/// `ACTIVE`
pub(crate) const ACTIVE: &str = "ACTIVE";
/// `CREATE FAILED`
pub(crate) const FAILED: &str = "CREATE FAILED";

/// A tag, as the service spells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tag {
    /// 1 to 128 characters.
    pub tag_key: String,
    /// At most 256 characters.
    pub tag_value: String,
}

/// How an import ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// `ACTIVE`, whatever the data looks like.
    Active,
    /// `CREATE FAILED` with this failureReason.
    Failed(String),
}

/// An import job as the service keeps it. Times are milliseconds since the epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Unique in its account and region.
    pub name: String,
    /// The job's ARN.
    pub arn: String,
    /// The account that owns it.
    pub account: String,
    /// The region it lives in.
    pub region: String,
    /// The dataset it imports into.
    pub dataset_arn: String,
    /// Where the data lies.
    pub data_location: String,
    /// The role that the service reads with.
    pub role_arn: Option<String>,
    /// `FULL` or `INCREMENTAL`.
    pub import_mode: String,
    /// As asked for.
    pub publish_attribution_metrics_to_s3: bool,
    /// Its tags, in the order given.
    pub tags: Vec<Tag>,
    /// The service's string.
    pub status: String,
    /// Present after `CREATE FAILED`.
    pub failure_reason: Option<String>,
    /// When it was accepted.
    pub created_ms: i64,
    /// When its status last changed.
    pub updated_ms: i64,
    /// Stays where it is until told.
    pub hold: bool,
    /// Its data is being read right now.
    #[serde(skip)]
    pub(crate) checking: bool,
    /// Not to be found before this time (a fault).
    #[serde(skip)]
    pub(crate) hidden_until_ms: Option<i64>,
    /// Not to be found for this many lookups (a fault).
    #[serde(skip)]
    pub(crate) hidden_lookups: u32,
}

impl Job {
    /// Counts towards the quota.
    pub fn is_running(&self) -> bool {
        self.status == PENDING || self.status == IN_PROGRESS
    }

    /// What the passage of time does to the job by itself; `true` if it changed. Leaving `CREATE IN_PROGRESS` needs
    /// the data.
    pub(crate) fn advance(&mut self, now_ms: i64, durations: Durations) -> bool {
        let due = self.updated_ms.saturating_add_unsigned(durations.pending_ms);
        let changes = !self.hold && self.status == PENDING && now_ms >= due;
        if changes {
            self.status = IN_PROGRESS.to_owned();
            self.updated_ms = due;
        }
        changes
    }

    /// Whether the import is over but for the reading of the data.
    pub(crate) fn is_due(&self, now_ms: i64, durations: Durations) -> bool {
        !self.hold
            && !self.checking
            && self.status == IN_PROGRESS
            && now_ms >= self.updated_ms.saturating_add_unsigned(durations.in_progress_ms)
    }

    pub(crate) fn end(&mut self, outcome: Outcome, now_ms: i64) {
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
