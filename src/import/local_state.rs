//! What a process remembers of a resource between two reconciliations.
//!
//! ```
//! use personalize_operator::import::LocalState;
//!
//! // A new process remembers nothing, and works without it.
//! let local = LocalState::default();
//! assert!(local.last_polled.is_none() && local.confirmed_status.is_none());
//! ```

use super::phase::attempts;
use super::plan::Observations;
use super::timing::{Backoff, Timing, after};
use super::trust::{self, Trust};
use crate::api::conditions::Reason;
use crate::api::{self, DatasetImportJob, DatasetImportJobStatus, ImportedData, Submission};
use jiff::Timestamp;
use kube::ResourceExt;
use std::time::Duration;

/// What this process remembers of a resource. A crash loses it; that costs a few reads and delays, never correctness.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct LocalState {
    /// When the running job was last polled.
    pub last_polled: Option<Timestamp>,
    /// When the next poll of the running job is due.
    pub next_poll: Option<Timestamp>,
    /// How long earlier imports into the dataset took.
    pub durations: Vec<Duration>,
    /// When the service last described the running job; `None` if it has not, or if that failed.
    pub last_described: Option<Timestamp>,
    /// How many jobs one list polls together; 0 and 1 mean that this one is polled on its own.
    pub polled_together: u32,
    /// A list showed that the running job has ended, so a poll is due.
    pub listed_as_ended: bool,
    /// The service has no job for the first attempt.
    pub no_job_found: bool,
    /// How often in a row the service refused a job name as taken.
    pub name_taken: u32,
    /// A reconciliation of this process has finished.
    pub finished_before: bool,
    /// The intent in the status, and when this process first saw it.
    pub intent: Option<KnownIntent>,
    /// The failed attempt that another one follows, and when that is due.
    pub retry: Option<(i32, Timestamp)>,
    /// The delay after failures that the service reported.
    pub backoff: Backoff,
    /// The user inputs when the backoff began: a change of them ends the delay.
    pub backoff_inputs: Option<UserInputs>,
    /// The delay after reconciliations that could not finish.
    pub errors: Backoff,
    /// The resource version that this process last wrote. The cache is stale if it has an older one.
    pub written_version: u64,
    /// The digest of the status that this process last wrote or confirmed with the service.
    pub confirmed_status: Option<u64>,
    /// The digest of the status that this process tried to write since. The answer may be lost.
    pub attempted_status: Option<u64>,
    /// The data that was not submitted because of what it is.
    pub refused_data: Option<RefusedData>,
    /// A status write got no usable answer, so it may or may not have been applied.
    pub write_unconfirmed: bool,
    /// What the calls depended on when the last reconciliation began.
    pub access: AccessVersion,
}

/// The versions of what the calls of a resource depend on, besides the resource. Each is a number that changes with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct AccessVersion {
    /// What the namespace permits, and the role that it names.
    pub namespace: u64,
    /// The settings of the account in this region.
    pub settings: u64,
    /// Why a newer configuration of the accounts is not active. Only the messages depend on it.
    pub refusal: u64,
}

/// Data that was not submitted because of what it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RefusedData {
    /// The data.
    pub data: ImportedData,
    /// When it was last listed.
    pub listed_at: Timestamp,
}

/// What a process remembers of an idle resource: enough to recognise its own status, and a copy from before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleState {
    confirmed_status: u64,
    written_version: u64,
}

impl IdleState {
    /// What is left to remember of a resource.
    #[must_use]
    pub fn new(resource: &DatasetImportJob, local: &LocalState) -> Self {
        let confirmed_status = trust::digest(resource.status.as_ref());
        Self { confirmed_status, written_version: local.written_version }
    }
}

impl From<IdleState> for LocalState {
    fn from(idle: IdleState) -> Self {
        let IdleState { confirmed_status, written_version } = idle;
        let confirmed_status = Some(confirmed_status);
        Self { confirmed_status, written_version, finished_before: true, ..Self::default() }
    }
}

/// An intent, and when this process first saw it, by its own clock: the clocks of replicas differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KnownIntent {
    /// The attempt.
    pub attempt: i32,
    /// The recorded time, by the clock of the replica that wrote it.
    pub time: Timestamp,
    /// When this process first saw it.
    pub seen: Timestamp,
}

impl LocalState {
    /// The trust in the status of a resource.
    #[must_use]
    pub fn trust(&self, resource: &DatasetImportJob) -> Trust {
        Trust::of(resource, self.confirmed_status, self.attempted_status)
    }

    /// When the next poll is due, unless it has happened: a reconciliation that failed after its poll is repeated.
    #[must_use]
    pub fn unmet_poll(&self) -> Option<Timestamp> {
        self.next_poll.filter(|due| self.last_polled.is_none_or(|polled| polled < *due))
    }

    /// Remembers that the status of a resource holds what the service reports, or that this process wrote it.
    pub(crate) fn confirm(&mut self, resource: &DatasetImportJob) {
        self.confirmed_status = Some(trust::digest(resource.status.as_ref()));
        self.attempted_status = None;
    }

    /// Remembers a status that this process is about to write.
    pub(crate) fn note_attempt(&mut self, status: &DatasetImportJobStatus) {
        self.attempted_status = Some(trust::digest(Some(status)));
    }

    /// Whether a copy of the resource is older than what this process knows.
    pub(crate) fn is_newer_than(&self, resource: &DatasetImportJob) -> bool {
        self.write_unconfirmed || api::resource_version(resource) < self.written_version
    }

    /// A change of what the namespace permits, or of the settings of the account, ends the delay after failures.
    pub fn note_access(&mut self, version: AccessVersion) {
        if std::mem::replace(&mut self.access, version) != version {
            self.backoff.end_delay();
        }
    }

    /// Whether the configuration of accounts has changed so that an unfinished resource with this reason may succeed, or has
    /// to say something else. A wrong endpoint can be the cause of any reason.
    #[must_use]
    pub fn is_concerned_by(&self, version: &AccessVersion, reason: Option<Reason>) -> bool {
        let says_why = match reason {
            // The last poll failed.
            Some(Reason::Pending | Reason::Importing) => self.backoff.until().is_some(),
            _ => reason.is_some_and(Reason::is_denied),
        };
        self.access.settings != version.settings || says_why && self.access.refusal != version.refusal
    }

    /// Remembers how many jobs one list polls together. If it showed that this one has ended, a poll is due at once.
    pub fn note_shared_polls(&mut self, together: usize, has_ended: bool) {
        self.polled_together = u32::try_from(together).unwrap_or(u32::MAX);
        self.listed_as_ended = has_ended;
    }

    /// Remembers when the intent in this status was first seen.
    pub(crate) fn note_intent(&mut self, status: Option<&DatasetImportJobStatus>, now: Timestamp) {
        let intent = status.and_then(|status| status.submission.as_ref());
        self.intent = intent.map(|intent| KnownIntent {
            attempt: intent.attempt,
            time: intent.time.0,
            seen: self.intent_seen(intent).unwrap_or(now),
        });
    }

    /// Remembers when the next attempt is due.
    pub(crate) fn note_retry(&mut self, status: Option<&DatasetImportJobStatus>, now: Timestamp, timing: &Timing) {
        let retrying = status.filter(|status| Reason::of(status) == Some(Reason::Retrying));
        self.retry = retrying.map(|status| (attempts(status), self.retry_at(status, now, timing)));
    }

    /// When the attempt after a failed job is due: after a delay that starts when the job failed, by the clock of the
    /// service, or when this process first saw that, whichever is earlier.
    pub(crate) fn retry_at(&self, status: &DatasetImportJobStatus, now: Timestamp, timing: &Timing) -> Timestamp {
        let failed = status.last_updated_date_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
        let known = self.retry.filter(|(attempt, _)| *attempt == attempts(status));
        known.map_or_else(|| after(failed.min(now), timing.retry(attempts(status))), |(_, at)| at)
    }

    /// Remembers the data of a resource that is not submitted because of its data, and when it was listed.
    pub(crate) fn note_data(&mut self, status: Option<&DatasetImportJobStatus>, seen: &Observations, now: Timestamp) {
        let is_refused = |reason| matches!(reason, Reason::DataInvalid | Reason::GuardTripped);
        if !status.and_then(Reason::of).is_some_and(is_refused) {
            self.refused_data = None;
        } else if let Some(Ok(data)) = seen.data_check().map(|check| &check.data) {
            self.refused_data = Some(RefusedData { data: data.clone(), listed_at: now });
        } else if let Some(refused) = self.refused_data.as_mut().filter(|_| seen.listed.is_some()) {
            refused.listed_at = now;
        }
    }

    /// When data that was not submitted is listed again.
    pub(crate) fn next_list(&self, timing: &Timing) -> Option<Timestamp> {
        self.refused_data.as_ref().map(|refused| after(refused.listed_at, timing.list_interval()))
    }

    /// When this process first saw this intent.
    pub(crate) fn intent_seen(&self, intent: &Submission) -> Option<Timestamp> {
        let known = self.intent.as_ref()?;
        ((known.attempt, known.time) == (intent.attempt, intent.time.0)).then_some(known.seen)
    }
}

/// What users can change to make the operator act at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct UserInputs {
    pub(super) generation: i64,
    pub(super) adopt: bool,
    pub(super) suspend: bool,
    pub(super) reconcile_requested_at: Option<String>,
    pub(super) retry_requested_at: Option<String>,
    pub(super) released_data: Option<String>,
}

impl UserInputs {
    /// The inputs that a resource holds. Values of annotations are truncated to 256 characters.
    #[must_use]
    pub fn of(resource: &DatasetImportJob) -> Self {
        let annotation = |key: &str| resource.annotations().get(key).map(|value| api::truncate(value));
        Self {
            generation: resource.metadata.generation.unwrap_or(0),
            adopt: annotation(api::ADOPT).as_deref() == Some("true"),
            suspend: annotation(api::SUSPEND).as_deref() == Some("true"),
            reconcile_requested_at: annotation(api::RECONCILE_REQUESTED_AT),
            retry_requested_at: annotation(api::RETRY_REQUESTED_AT),
            released_data: annotation(api::RELEASE_GUARD),
        }
    }

    /// Whether a user asked for a reconcile that this status does not record.
    pub(crate) fn has_new_reconcile_request(&self, status: &DatasetImportJobStatus) -> bool {
        let requested = &self.reconcile_requested_at;
        requested.is_some() && *requested != status.last_handled_reconcile_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poll_is_unmet_until_it_has_happened_once() {
        let earlier = Timestamp::UNIX_EPOCH;
        let due = after(earlier, Duration::from_secs(15));
        let mut local = LocalState { next_poll: Some(due), ..LocalState::default() };
        assert_eq!(local.unmet_poll(), Some(due), "after a restart no poll is known");
        local.last_polled = Some(earlier);
        assert_eq!(local.unmet_poll(), Some(due));
        local.last_polled = Some(after(due, Duration::from_secs(1)));
        assert_eq!(local.unmet_poll(), None);
    }
}
