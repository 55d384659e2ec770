//! What the queue knows of one resource.

use crate::api::conditions::{self, RECONCILING, Reason, State};
use crate::api::{DatasetImportJob, DatasetImportJobStatus, ImportMode, created_at, resource_version, suspended_by};
use crate::import::phase::attempts;
use crate::import::timing::after;
use crate::import::{ImportRequest, Key, Phase, Timing, Trust};
use crate::personalize::DatasetArn;
use jiff::Timestamp;
use std::cmp::Ordering;
use std::collections::HashSet;

/// The UID of a resource. A re-created resource of the same name has another UID.
pub type Uid = String;

/// The place of a resource in the line: by age, then by name. The API server records the age in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) created: Timestamp,
    pub(super) key: Key,
    pub(super) uid: Uid,
}

impl Place {
    /// Whether this resource goes before another one. Resources of the same name and second are equal.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        self.order(other).is_lt()
    }

    fn order(&self, other: &Self) -> Ordering {
        let by_namespace = || natural_order(&self.key.namespace, &other.key.namespace);
        let by_name = || natural_order(&self.key.name, &other.key.name);
        self.created.cmp(&other.created).then_with(by_namespace).then_with(by_name)
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order(other).then_with(|| self.uid.cmp(&other.uid))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Orders names by the numbers in them: `week-2` is before `week-10`.
fn natural_order(a: &str, b: &str) -> Ordering {
    fn parts(name: &str) -> impl Iterator<Item = (usize, &[u8])> {
        name.as_bytes().chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit()).map(|part| {
            let zeros = part.iter().take_while(|byte| **byte == b'0').count();
            let number = part.get(zeros..).unwrap_or_default();
            if part.first().is_some_and(u8::is_ascii_digit) { (number.len() + 1, number) } else { (0, part) }
        })
    }
    parts(a).cmp(parts(b)).then_with(|| a.cmp(b))
}

/// What a resource wants from the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum QueueState {
    /// Nothing: it is suspended, rejected, or finished without success, or its job is missing.
    Inactive,
    /// To submit.
    Pending,
    /// It has a submission or a running job.
    InFlight,
    /// Its import, requested at the given moment, has succeeded.
    Succeeded(Timestamp),
}

/// What reserves the quota and the dataset in addition to the recorded status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reservation {
    /// Nothing.
    None,
    /// A reconciliation was admitted.
    Held,
    /// A status write may or may not have been applied; the next reconciliation finds out.
    Unconfirmed,
}

/// An entry of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) dataset: DatasetArn,
    import_mode: ImportMode,
    pub(super) state: QueueState,
    /// The job that the status names.
    pub(super) job_name: Option<String>,
    pub(super) reason: Option<Reason>,
    pub(super) reservation: Reservation,
    /// When the intent of the submission in flight was recorded.
    intent_at: Option<Timestamp>,
    /// Since when the running job is known.
    pub(super) running_since: Option<Timestamp>,
    /// Since when a pending resource waits.
    pub(super) pending_since: Timestamp,
    /// When the resource was deleted or marked for deletion. Its create request may still arrive.
    pub(super) deleted_at: Option<Timestamp>,
    /// When the service created the job.
    pub(super) job_created: Option<Timestamp>,
    /// The status says that the dataset holds the data of this import.
    pub(super) is_data_current: bool,
    /// The job that is in flight, or will be if the create request arrives.
    pub(super) in_flight_job: Option<String>,
    /// The job of a deleted resource has ended, or there is none.
    pub(super) job_is_over: bool,
    /// When the job of a deleted resource is polled next.
    pub(super) next_poll: Option<Timestamp>,
    /// Until then it can't submit for a reason outside the queue. No quota is kept free for it, but newer resources of
    /// the same dataset still wait for it.
    pub(super) requeue_at: Option<Timestamp>,
    /// Its reconciliations keep failing: until then no other resource waits for it.
    pub(super) skipped_until: Option<Timestamp>,
    pub(super) resource_version: u64,
}

impl Entry {
    /// The entry of a resource. What the status does not record is taken over from the previous entry.
    pub(super) fn new(
        resource: &DatasetImportJob,
        request: ImportRequest,
        trust: Trust,
        previous: Option<&Self>,
    ) -> Self {
        let state = match queue_state(resource, &request) {
            QueueState::Succeeded(_) if !trust.is_trusted() => QueueState::Pending,
            state => state,
        };
        let status = resource.status.as_ref();
        let intent = status.and_then(|status| status.submission.as_ref());
        // Nothing more is submitted for a resource that is marked for deletion, however long a finalizer keeps it.
        let marked = resource.metadata.deletion_timestamp.as_ref().map(|at| at.0);
        let attempt = match status.map(|status| Phase::of(status, &request)) {
            Some(Phase::Submitting(attempt)) => Some(attempt),
            Some(Phase::Running) => status.map(attempts),
            _ => None,
        };
        Self {
            job_created: status.and_then(|status| status.creation_date_time.as_ref()).map(|at| at.0),
            is_data_current: status.is_some_and(conditions::is_data_current),
            in_flight_job: attempt.filter(|_| state == QueueState::InFlight).map(|attempt| request.job_name(attempt)),
            job_is_over: previous.is_some_and(|previous| previous.job_is_over),
            next_poll: previous.and_then(|previous| previous.next_poll),
            state,
            running_since: running_since(resource, &request),
            pending_since: pending_since(resource),
            intent_at: intent.filter(|_| state == QueueState::InFlight).map(|intent| intent.time.0),
            job_name: status.and_then(|status| status.job_name.clone()),
            reason: status.and_then(Reason::of),
            reservation: previous.map_or(Reservation::None, |previous| previous.reservation),
            deleted_at: previous.and_then(|previous| previous.deleted_at).or(marked),
            requeue_at: previous.and_then(|previous| previous.requeue_at),
            skipped_until: previous.and_then(|previous| previous.skipped_until),
            resource_version: resource_version(resource),
            import_mode: request.import_mode,
            dataset: request.dataset,
        }
    }

    /// Whether it uses the quota and its dataset.
    pub(super) fn is_in_flight(&self) -> bool {
        self.reservation != Reservation::None || self.state == QueueState::InFlight && !self.job_is_over
    }

    /// Whether the resource is deleted and its job may still run.
    pub(super) fn has_deleted_job(&self) -> bool {
        self.deleted_at.is_some() && self.state == QueueState::InFlight && !self.job_is_over
    }

    /// From when on the create request of a deleted resource can't arrive any more, and its job is found.
    pub(super) fn request_arrived_at(&self, timing: &Timing) -> Timestamp {
        let deleted = self.deleted_at.unwrap_or(Timestamp::MAX);
        self.intent_at.map_or(deleted, |intent| after(intent.min(deleted), timing.grace))
    }

    /// Whether no create request for it may still arrive.
    pub(super) fn is_drained(&self, now: Timestamp, timing: &Timing) -> bool {
        let arrived = self.intent_at.is_none_or(|intent| after(intent, timing.grace) <= now);
        self.reservation == Reservation::None && arrived
    }

    /// Whether its status is as the API server creates it.
    pub(super) fn is_untouched(&self) -> bool {
        self.reason.is_none() && matches!(self.state, QueueState::Pending | QueueState::Inactive)
    }

    /// Whether it waits to submit, and others wait for it. Nothing waits for an INCREMENTAL import that itself waits for
    /// the first FULL one. `full` holds the datasets that have one.
    pub(super) fn is_in_line(&self, now: Timestamp, full: &HashSet<&DatasetArn>) -> bool {
        let skipped = self.skipped_until.is_some_and(|until| now < until);
        let waits_for_full = self.reason == Some(Reason::WaitingForFullImport) && !full.contains(&self.dataset);
        self.is_pending() && !skipped && !waits_for_full
    }

    /// Whether its FULL import has replaced the data of another one, whose job is older.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        let is_newer = self.job_created.zip(other.job_created).is_some_and(|(own, other)| own > other);
        self.is_full_success() && self.dataset == other.dataset && is_newer && self.deleted_at.is_none()
    }

    /// Whether its FULL import has succeeded.
    pub(super) fn is_full_success(&self) -> bool {
        self.import_mode == ImportMode::Full && matches!(self.state, QueueState::Succeeded(_))
    }

    /// Whether it waits to submit.
    pub(super) fn is_pending(&self) -> bool {
        self.state == QueueState::Pending && self.deleted_at.is_none()
    }

    /// Whether it could submit now if there were room.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.state == QueueState::Pending && self.requeue_at.is_none_or(|at| at <= now)
    }
}

/// Since when the job of a resource is known, if it runs.
fn running_since(resource: &DatasetImportJob, request: &ImportRequest) -> Option<Timestamp> {
    let status = resource.status.as_ref()?;
    let missing = Reason::of(status) == Some(Reason::JobNotFound);
    let intent = status.submission.as_ref().map(|intent| intent.time.0);
    let started = || status.start_time.as_ref().map(|at| at.0);
    (Phase::of(status, request) == Phase::Running && !missing)
        .then(|| intent.or_else(started).unwrap_or(created_at(resource)))
}

/// Since when a pending resource waits: later than its creation if it was suspended, rejected or tried before.
fn pending_since(resource: &DatasetImportJob) -> Timestamp {
    let Some(status) = &resource.status else { return created_at(resource) };
    let failed = status.last_updated_date_time.as_ref().filter(|_| Reason::of(status) == Some(Reason::Retrying));
    let reconciling = || status.conditions.iter().find(|c| c.type_ == RECONCILING && c.status == "True");
    failed.or_else(|| reconciling().map(|c| &c.last_transition_time)).map_or(created_at(resource), |at| at.0)
}

fn queue_state(resource: &DatasetImportJob, request: &ImportRequest) -> QueueState {
    let status = resource.status.clone().unwrap_or_default();
    match Phase::of(&status, request) {
        Phase::Succeeded => QueueState::Succeeded(requested_at(resource, &status)),
        Phase::Running if Reason::of(&status) == Some(Reason::JobNotFound) => QueueState::Inactive,
        Phase::Running | Phase::Submitting(_) => QueueState::InFlight,
        Phase::Failed | Phase::Superseded => QueueState::Inactive,
        Phase::Unsubmitted(_) if suspended_by(resource).is_some() => QueueState::Inactive,
        Phase::Unsubmitted(_) => match Reason::of(&status) {
            Some(reason) if reason.state() == State::Failed => QueueState::Inactive,
            _ => QueueState::Pending,
        },
    }
}

/// When a successful import was requested: when the resource was created, by the API server's clock, like the age of
/// any other resource. An adopted job may be older than its resource; then the age of the job counts.
fn requested_at(resource: &DatasetImportJob, status: &DatasetImportJobStatus) -> Timestamp {
    let is_adopted = status.submission.is_none();
    let started = status.start_time.as_ref().map(|at| at.0).filter(|_| is_adopted);
    started.map_or(created_at(resource), |started| started.min(created_at(resource)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_ordered_by_their_numbers() {
        let pairs =
            [("week-2", "week-10"), ("week-09", "week-10"), ("a2b", "a10"), ("a", "b"), ("a", "a-1"), ("a-01", "a-1")];
        for (earlier, later) in pairs {
            assert!(natural_order(earlier, later).is_lt(), "{earlier} {later}");
        }
    }

    proptest! {
        #[test]
        fn order_of_names_is_total(a in "[a-b0-2.-]{0,6}", b in "[a-b0-2.-]{0,6}", c in "[a-b0-2.-]{0,6}") {
            prop_assert_eq!(natural_order(&a, &b), natural_order(&b, &a).reverse());
            prop_assert_eq!(natural_order(&a, &b).is_eq(), a == b);
            if natural_order(&a, &b).is_le() && natural_order(&b, &c).is_le() {
                prop_assert!(natural_order(&a, &c).is_le());
            }
        }
    }
}
