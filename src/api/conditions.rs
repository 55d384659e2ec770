//! The conditions of a resource and their reasons.
//!
//! ```
//! use jiff::Timestamp;
//! use personalize_operator::api::DatasetImportJobStatus;
//! use personalize_operator::api::conditions::{Reason, ready_message, set};
//!
//! let mut status = DatasetImportJobStatus::default();
//! set(&mut status, 1, Reason::Queued, "waiting for a running import to finish", Timestamp::now());
//! assert_eq!(Reason::of(&status), Some(Reason::Queued));
//! assert_eq!(ready_message(&status), "waiting for a running import to finish");
//! ```

use crate::api::DatasetImportJobStatus;
use crate::redact::sanitize;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use strum::{EnumMessage, EnumString, IntoStaticStr, VariantArray};

/// Ready: the data is imported and can be used.
pub const READY: &str = "Ready";
/// Succeeded: the import succeeded; for `kubectl wait`.
pub const SUCCEEDED: &str = "Succeeded";
/// Reconciling: the import is in progress (kstatus).
pub const RECONCILING: &str = "Reconciling";
/// Stalled: the import needs a change by a user (kstatus).
pub const STALLED: &str = "Stalled";

/// DataCurrent: the dataset still holds the data of this import, as far as the operator knows. Only a resource whose
/// import has succeeded has it.
pub const DATA_CURRENT: &str = "DataCurrent";

/// DataChecked: what the check of the data found before the import was submitted. A resource whose data was not to be
/// checked has none.
pub const DATA_CHECKED: &str = "DataChecked";

/// The reason of DataChecked for data that was replaced while its import was submitted.
const DATA_CHANGED: &str = "DataChanged";

/// The conditions that the operator sets.
pub const OWN: [&str; 6] = [READY, SUCCEEDED, RECONCILING, STALLED, DATA_CURRENT, DATA_CHECKED];

/// Whether the operator owns this condition; other controllers may add theirs.
#[must_use]
pub(crate) fn is_own(condition: &Condition) -> bool {
    OWN.contains(&condition.type_.as_str())
}

/// The state of a resource: a row of the table in docs/states.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Queued, submitting, pending or in progress.
    InProgress,
    /// The import succeeded.
    Succeeded,
    /// Failed, rejected, in conflict or not permitted.
    Failed,
    /// Suspended before submission, by `spec.suspend` or by annotation.
    Suspended,
}

/// How far an import is, in the one word of `status.phase`. A variant's documentation is the sentence in docs/states.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumMessage, IntoStaticStr, VariantArray)]
pub enum StatusPhase {
    /// It waits for something other than its turn, or the service has not started its job yet.
    Pending,
    /// It waits for its turn.
    Queued,
    /// The service is importing the data.
    Running,
    /// The data is in the dataset.
    Succeeded,
    /// It has ended without success: nothing more is imported unless a user asks for it.
    Failed,
    /// It is rejected, and the operator tries again until a user fixes the cause.
    Stalled,
    /// It is suspended.
    Suspended,
}

impl StatusPhase {
    /// All phases, in the order of the documentation.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The word in the status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// A sentence about the phase, for the documentation.
    #[must_use]
    pub fn describe(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }
}

/// Why a resource is in its state. A variant's documentation is the sentence in docs/states.md.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, EnumMessage, EnumString, IntoStaticStr, VariantArray,
)]
pub enum Reason {
    /// Waits for another import to finish: for the quota of the account and region, or for the same dataset.
    Queued,
    /// Waits until the dataset exists and is ACTIVE.
    DatasetNotReady,
    /// An INCREMENTAL import waits for the first FULL import into its dataset.
    WaitingForFullImport,
    /// Waits until no user is being deleted from the dataset group: a data deletion job runs.
    DataDeletionRunning,
    /// The import is being submitted, or the operator checks whether a submission created the job.
    Submitting,
    /// The service accepted the job and has not started it yet.
    Pending,
    /// The service is importing the data.
    Importing,
    /// A job failed; another attempt follows.
    Retrying,
    /// The service throttles requests; the operator retries automatically.
    Throttled,
    /// The service is unreachable or gives no usable answer; the operator retries automatically.
    ServiceUnavailable,
    /// The operator's AWS credentials are missing, expired or rejected; the operator retries automatically.
    CredentialsRefused,
    /// The data is in the dataset.
    ImportSucceeded,
    /// The job ended with CREATE FAILED; status.failureReason says why.
    ImportFailed,
    /// The service rejected the request; the operator retries with growing delays.
    InvalidInput,
    /// The operator, or the role it passes, lacks a permission; the operator retries with growing delays.
    AccessDenied,
    /// The job has more tags than the service accepts; the operator retries with growing delays.
    TooManyTags,
    /// The data breaks a rule of the service, so no job is submitted; the operator checks it again with growing delays.
    DataInvalid,
    /// The data is smaller than spec.guard allows, so no job is submitted until it changes or a user releases it.
    GuardTripped,
    /// A job of this name belongs to something else; the operator retries with growing delays.
    JobNameConflict,
    /// The namespace isn't allowed to use this dataset, role or data location.
    NotPermitted,
    /// The spec is invalid; an older CRD accepted it.
    InvalidSpec,
    /// The job was submitted and the service no longer knows it; it is never submitted again.
    JobNotFound,
    /// The job is older than its dataset, so its data is gone; it is imported again only if a user retries it.
    DatasetReplaced,
    /// A newer import has replaced the data of the dataset, so this one is not submitted unless a user retries it.
    Superseded,
    /// Suspended by spec.suspend or by the annotation personalize-operator.io/suspend.
    Suspended,
}

impl Reason {
    /// All reasons, in the order of the documentation.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The CamelCase word in the conditions.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The state that a resource with this reason is in.
    #[must_use]
    pub fn state(self) -> State {
        match self {
            Self::Queued
            | Self::DatasetNotReady
            | Self::WaitingForFullImport
            | Self::DataDeletionRunning
            | Self::Submitting
            | Self::Pending
            | Self::Importing
            | Self::Retrying
            | Self::Throttled
            | Self::ServiceUnavailable
            | Self::CredentialsRefused => State::InProgress,
            Self::ImportSucceeded => State::Succeeded,
            Self::ImportFailed
            | Self::InvalidInput
            | Self::AccessDenied
            | Self::TooManyTags
            | Self::DataInvalid
            | Self::GuardTripped
            | Self::JobNameConflict
            | Self::NotPermitted
            | Self::InvalidSpec
            | Self::JobNotFound
            | Self::DatasetReplaced
            | Self::Superseded => State::Failed,
            Self::Suspended => State::Suspended,
        }
    }

    /// Whether a permission or credentials are missing or refused.
    #[must_use]
    pub fn is_denied(self) -> bool {
        matches!(self, Self::NotPermitted | Self::CredentialsRefused | Self::AccessDenied)
    }

    /// Whether only a change of the resource, or another resource, can end this reason.
    #[must_use]
    pub fn is_final(self) -> bool {
        use Reason::{DatasetReplaced, ImportFailed, ImportSucceeded, InvalidSpec, Superseded, Suspended};
        matches!(self, ImportSucceeded | ImportFailed | InvalidSpec | DatasetReplaced | Superseded | Suspended)
    }

    /// The phase of a resource with this reason.
    #[must_use]
    pub fn phase(self) -> StatusPhase {
        match self {
            Self::Queued => StatusPhase::Queued,
            Self::DatasetNotReady
            | Self::WaitingForFullImport
            | Self::DataDeletionRunning
            | Self::Submitting
            | Self::Pending
            | Self::Retrying
            | Self::Throttled
            | Self::ServiceUnavailable
            | Self::CredentialsRefused => StatusPhase::Pending,
            Self::Importing => StatusPhase::Running,
            Self::ImportSucceeded => StatusPhase::Succeeded,
            Self::ImportFailed | Self::InvalidSpec | Self::JobNotFound | Self::DatasetReplaced | Self::Superseded => {
                StatusPhase::Failed
            }
            Self::InvalidInput
            | Self::AccessDenied
            | Self::TooManyTags
            | Self::DataInvalid
            | Self::GuardTripped
            | Self::JobNameConflict
            | Self::NotPermitted => StatusPhase::Stalled,
            Self::Suspended => StatusPhase::Suspended,
        }
    }

    /// A sentence about the reason, for the documentation.
    #[must_use]
    pub fn describe(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }

    /// The reason in the conditions of a status, if it is one of the operator's.
    #[must_use]
    pub fn of(status: &DatasetImportJobStatus) -> Option<Self> {
        status.conditions.iter().find(|c| c.type_ == READY)?.reason.parse().ok()
    }
}

/// Sets the four conditions of every resource; the message is sanitised. A condition whose status does not change keeps
/// its transition time. DataCurrent stays only while the import is reported as succeeded.
pub fn set(status: &mut DatasetImportJobStatus, generation: i64, reason: Reason, message: &str, now: Timestamp) {
    let values = match reason.state() {
        State::InProgress => ["Unknown", "Unknown", "True", "False"],
        State::Succeeded => ["True", "True", "False", "False"],
        State::Failed => ["False", "False", "False", "True"],
        State::Suspended => ["Unknown", "Unknown", "False", "False"],
    };
    let message = sanitize(message);
    let old = std::mem::take(&mut status.conditions);
    status.conditions = OWN
        .into_iter()
        .zip(values)
        .map(|(type_, value)| {
            let unchanged = old.iter().find(|c| c.type_ == type_ && c.status == value);
            Condition {
                type_: type_.into(),
                status: value.into(),
                reason: reason.as_str().into(),
                message: message.clone(),
                observed_generation: Some(generation),
                last_transition_time: unchanged.map_or_else(|| whole_seconds(now), |c| c.last_transition_time.clone()),
            }
        })
        .collect();
    // Conditions of other controllers stay.
    let is_succeeded = reason.state() == State::Succeeded;
    let stays = |c: &Condition| !is_own(c) || c.type_ == DATA_CHECKED || c.type_ == DATA_CURRENT && is_succeeded;
    status.conditions.extend(old.into_iter().filter(stays));
    status.observed_generation = Some(generation);
}

/// Whether a dataset holds the data of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataCurrent {
    /// It does: no newer FULL import has succeeded.
    True,
    /// A newer FULL import has replaced it.
    False,
    /// The operator could not find out.
    Unknown,
}

/// Sets the condition DataCurrent of a resource whose import has succeeded; the message is sanitised.
pub fn set_data_current(
    status: &mut DatasetImportJobStatus,
    generation: i64,
    value: DataCurrent,
    message: &str,
    now: Timestamp,
) {
    let (value, reason) = match value {
        DataCurrent::True => ("True", "NewestImport"),
        DataCurrent::False => ("False", "SupersededBy"),
        DataCurrent::Unknown => ("Unknown", "NotChecked"),
    };
    set_extra(status, generation, DATA_CURRENT, (value, reason), message, now);
}

/// Sets the condition DataChecked: whether the data keeps the rules, `None` if that is unknown. The message is sanitised.
pub fn set_data_checked(
    status: &mut DatasetImportJobStatus,
    generation: i64,
    is_valid: Option<bool>,
    message: &str,
    now: Timestamp,
) {
    let value = match is_valid {
        Some(true) => ("True", "DataValid"),
        Some(false) => ("False", "DataInvalid"),
        None => ("Unknown", "NotChecked"),
    };
    set_extra(status, generation, DATA_CHECKED, value, message, now);
}

/// Says that the data has changed since it was listed.
pub fn set_data_changed(status: &mut DatasetImportJobStatus, generation: i64, message: &str, now: Timestamp) {
    set_extra(status, generation, DATA_CHECKED, ("Unknown", DATA_CHANGED), message, now);
}

/// Why it is unknown what was imported: the data has changed since it was listed.
#[must_use]
pub fn data_changed(status: &DatasetImportJobStatus) -> Option<&str> {
    let changed = |c: &&Condition| c.type_ == DATA_CHECKED && c.reason == DATA_CHANGED;
    status.conditions.iter().find(changed).map(|c| c.message.as_str())
}

/// Removes the condition DataChecked.
pub fn remove_data_checked(status: &mut DatasetImportJobStatus) {
    status.conditions.retain(|c| c.type_ != DATA_CHECKED);
}

/// Why the data is invalid, by the condition DataChecked; `None` if it is not.
#[must_use]
pub fn data_invalid(status: &DatasetImportJobStatus) -> Option<&str> {
    let is_false = |c: &&Condition| c.type_ == DATA_CHECKED && c.status == "False";
    status.conditions.iter().find(is_false).map(|c| c.message.as_str())
}

fn set_extra(
    status: &mut DatasetImportJobStatus,
    generation: i64,
    type_: &str,
    (value, reason): (&str, &str),
    message: &str,
    now: Timestamp,
) {
    let old = status.conditions.iter().position(|c| c.type_ == type_).map(|at| status.conditions.remove(at));
    let unchanged = old.filter(|old| old.status == value).map(|old| old.last_transition_time);
    status.conditions.push(Condition {
        type_: type_.into(),
        status: value.into(),
        reason: reason.into(),
        message: sanitize(message),
        observed_generation: Some(generation),
        last_transition_time: unchanged.unwrap_or_else(|| whole_seconds(now)),
    });
}

/// Whether the condition DataCurrent is True.
#[must_use]
pub(crate) fn is_data_current(status: &DatasetImportJobStatus) -> bool {
    status.conditions.iter().any(|c| c.type_ == DATA_CURRENT && c.status == "True")
}

/// Repeats the condition Ready in phase, reason and message. Old values are replaced.
pub fn summarize(status: &mut DatasetImportJobStatus) {
    let ready = status.conditions.iter().find(|c| c.type_ == READY);
    let (reason, message) = (ready.map(|c| c.reason.clone()), ready.map(|c| c.message.clone()));
    status.phase = Reason::of(status).map(|reason| reason.phase().as_str().to_owned());
    (status.reason, status.message) = (reason, message);
}

/// Whether the status has none of phase, reason and message, as an older version wrote it.
#[must_use]
pub(crate) fn is_without_summary(status: &DatasetImportJobStatus) -> bool {
    status.phase.is_none() && status.reason.is_none() && status.message.is_none()
}

/// The message of the Ready condition; empty if there is none.
#[must_use]
pub fn ready_message(status: &DatasetImportJobStatus) -> &str {
    status.conditions.iter().find(|c| c.type_ == READY).map_or("", |c| &c.message)
}

/// The time in whole seconds, as Kubernetes stores it, so that a status equals what is read back.
#[must_use]
pub fn whole_seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_repeats_ready_behind_a_condition_of_another_controller() {
        for reason in Reason::ALL {
            let mut status = DatasetImportJobStatus::default();
            set(&mut status, 1, *reason, "a message", Timestamp::UNIX_EPOCH);
            let foreign = Condition { type_: "example.org/Billed".into(), ..status.conditions[0].clone() };
            status.conditions.insert(0, Condition { reason: "Billed".into(), message: String::new(), ..foreign });
            summarize(&mut status);
            let summary = [&status.phase, &status.reason, &status.message].map(Option::as_deref);
            assert_eq!(summary, [Some(reason.phase().as_str()), Some(reason.as_str()), Some("a message")]);
        }
    }

    #[test]
    fn phase_agrees_with_the_state() {
        for reason in Reason::ALL {
            let state = match reason.phase() {
                StatusPhase::Pending | StatusPhase::Queued | StatusPhase::Running => State::InProgress,
                StatusPhase::Succeeded => State::Succeeded,
                StatusPhase::Failed | StatusPhase::Stalled => State::Failed,
                StatusPhase::Suspended => State::Suspended,
            };
            assert_eq!(reason.state(), state, "{reason:?}");
        }
    }
}
