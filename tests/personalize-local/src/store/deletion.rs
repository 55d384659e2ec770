//! Data deletion jobs and their status.

use serde::{Deserialize, Serialize};

use super::{
    job::{Outcome, Tag},
    seed::Durations,
};

pub(crate) const DELETION_PENDING: &str = "PENDING";
pub(crate) const DELETION_IN_PROGRESS: &str = "IN_PROGRESS";
pub(crate) const DELETION_COMPLETED: &str = "COMPLETED";
pub(crate) const DELETION_FAILED: &str = "FAILED";

/// A data deletion job. Times are milliseconds since the epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletionJob {
    /// Unique in its account and region.
    pub name: String,
    /// The ARN of the job; it has the account and the region.
    pub arn: String,
    /// The dataset group that users are deleted from.
    pub group_arn: String,
    /// The S3 location of the users to delete.
    pub data_location: String,
    /// The role that the service assumes to read them.
    pub role_arn: String,
    /// Its tags, in request order.
    pub tags: Vec<Tag>,
    /// The status, as the API returns it.
    pub status: String,
    /// Present if the status is `FAILED`.
    pub failure_reason: Option<String>,
    /// Present if the status is `COMPLETED`.
    pub num_deleted: Option<u64>,
    /// When the request was accepted.
    pub created_ms: i64,
    /// When the status last changed.
    pub updated_ms: i64,
    /// Stays in its status until released or finished.
    pub hold: bool,
}

impl DeletionJob {
    /// Whether the deletion is under way.
    pub fn is_running(&self) -> bool {
        self.status == DELETION_PENDING || self.status == DELETION_IN_PROGRESS
    }

    /// Moves the job to its next status when it is due; `true` if it changed. The users are not read, so it completes.
    pub(crate) fn advance(&mut self, now_ms: i64, durations: Durations) -> bool {
        let (next, duration) = match self.status.as_str() {
            DELETION_PENDING => (DELETION_IN_PROGRESS, durations.pending_ms),
            DELETION_IN_PROGRESS => (DELETION_COMPLETED, durations.in_progress_ms),
            _ => return false,
        };
        let due = self.updated_ms.saturating_add_unsigned(duration);
        if self.hold || now_ms < due {
            return false;
        }
        if next == DELETION_COMPLETED {
            self.finish(Outcome::Active, due);
        } else {
            next.clone_into(&mut self.status);
            self.updated_ms = due;
        }
        true
    }

    /// Completes the job, or fails it.
    pub(crate) fn finish(&mut self, outcome: Outcome, now_ms: i64) {
        self.hold = false;
        self.updated_ms = now_ms;
        match outcome {
            Outcome::Active => {
                DELETION_COMPLETED.clone_into(&mut self.status);
                self.num_deleted = Some(0);
            }
            Outcome::Failed(reason) => {
                DELETION_FAILED.clone_into(&mut self.status);
                self.failure_reason = Some(reason);
            }
        }
    }
}
