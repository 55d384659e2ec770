//! What the queue knows of one resource.

use super::Uid;
use super::dataset::Waiting;
use super::place::Place;
use crate::api::conditions::{self, RECONCILING, Reason, STALLED, State};
use crate::api::{
    DatasetImportJob, DatasetImportJobStatus, ImportMode, created_at, max_data_age, resource_version, suspended_by,
};
use crate::import::phase::attempts;
use crate::import::timing::after;
use crate::import::{ImportRequest, Key, Phase, Timing, Trust};
use crate::personalize::DatasetArn;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use std::sync::Arc;

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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) enum Reservation {
    /// Nothing.
    #[default]
    None,
    /// A reconciliation was admitted.
    Held,
    /// A status write may or may not have been applied; the next reconciliation finds out.
    Unconfirmed,
}

/// An entry of the queue. Those of finished imports stay for years, so it is small.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) place: Arc<Place>,
    pub(super) state: QueueState,
    pub(super) reason: Option<Reason>,
    import_mode: ImportMode,
    /// The status says that the dataset holds the data of this import.
    pub(super) is_data_current: bool,
    pub(super) resource_version: u64,
    /// When the service created the job.
    pub(super) job_created: Option<Timestamp>,
    /// When a successful import ended, in seconds since 1970.
    pub(super) ended: u32,
    /// How many seconds the data may be old; 0 without a limit.
    pub(super) max_data_age: u32,
    /// The job of a successful import.
    pub(super) succeeded_job: Option<Box<str>>,
    /// What only a resource has that waits, runs or is deleted.
    activity: Option<Box<Activity>>,
}

/// What the queue knows of a resource that waits, runs or is deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Activity {
    pub(super) reservation: Reservation,
    /// When the intent of the submission in flight was recorded.
    intent_at: Option<Timestamp>,
    /// Since when the running job is known.
    pub(super) running_since: Option<Timestamp>,
    /// Since when a pending resource waits, or since when another one is rejected.
    pub(super) pending_since: Option<Timestamp>,
    /// When the resource was deleted or marked for deletion. Its create request may still arrive.
    pub(super) deleted_at: Option<Timestamp>,
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
    /// It was rejected before, and now it waits for the queue. Its status keeps the rejection until it is submitted.
    pub(super) asks: bool,
    /// When the service created the newest FULL import that the queue knew of when an INCREMENTAL one found none that
    /// counts: those before it are of an earlier dataset of this name.
    pub(super) full_seen: Option<Timestamp>,
}

const NO_ACTIVITY: &Activity = &Activity {
    reservation: Reservation::None,
    intent_at: None,
    running_since: None,
    pending_since: None,
    deleted_at: None,
    in_flight_job: None,
    job_is_over: false,
    next_poll: None,
    requeue_at: None,
    skipped_until: None,
    asks: false,
    full_seen: None,
};

impl Entry {
    /// The entry of a resource. What the status does not record is taken over from the previous entry.
    pub(super) fn new(
        resource: &DatasetImportJob,
        uid: Uid,
        request: &ImportRequest,
        trust: Trust,
        previous: Option<&Self>,
    ) -> Self {
        let none = DatasetImportJobStatus::default();
        let status = resource.status.as_ref().unwrap_or(&none);
        let phase = Phase::of(status, request);
        let state = match queue_state(resource, status, phase) {
            QueueState::Succeeded(_) if !trust.is_trusted() => QueueState::Pending,
            state => state,
        };
        let place = Place {
            created: created_at(resource),
            key: Key { namespace: resource.namespace().unwrap_or_default(), name: resource.name_any() },
            uid,
            dataset: request.dataset.clone(),
        };
        let known_place = previous.map(|previous| &previous.place).filter(|known| ***known == place);
        let succeeded_job = status.job_name.as_deref().filter(|_| matches!(state, QueueState::Succeeded(_)));
        let mut entry = Self {
            place: known_place.map_or_else(|| Arc::new(place), Arc::clone),
            state,
            reason: Reason::of(status),
            import_mode: request.import_mode,
            is_data_current: conditions::is_data_current(status),
            resource_version: resource_version(resource),
            job_created: status.creation_date_time.as_ref().map(|at| at.0),
            ended: status.completion_time.as_ref().map_or(0, |at| u32::try_from(at.0.as_second()).unwrap_or(0)),
            max_data_age: max_data_age(resource).map_or(0, |age| u32::try_from(age.as_secs()).unwrap_or(u32::MAX)),
            succeeded_job: succeeded_job.map(Into::into),
            activity: previous.and_then(|previous| previous.activity.clone()),
        };
        // Nothing more is submitted for a resource that is marked for deletion, however long a finalizer keeps it.
        let marked = resource.metadata.deletion_timestamp.as_ref().map(|at| at.0);
        let attempt = match phase {
            Phase::Submitting(attempt) => Some(attempt),
            Phase::Running => Some(attempts(status)),
            _ => None,
        };
        let in_flight = state == QueueState::InFlight;
        let unsubmitted = matches!(phase, Phase::Unsubmitted(_)) && suspended_by(resource).is_none();
        let is_rejected = unsubmitted && state == QueueState::Inactive;
        entry.modify(|activity| {
            activity.intent_at = status.submission.as_ref().filter(|_| in_flight).map(|intent| intent.time.0);
            activity.running_since = running_since(resource, status, phase);
            let waits = state == QueueState::Pending || is_rejected;
            activity.pending_since = waits.then(|| pending_since(resource, status));
            activity.asks &= is_rejected;
            activity.deleted_at = activity.deleted_at.or(marked);
            activity.in_flight_job = attempt.filter(|_| in_flight).map(|attempt| request.job_name(attempt));
        });
        entry
    }

    /// What is known of it while it waits, runs or is deleted; the default if it is finished.
    pub(super) fn activity(&self) -> &Activity {
        #[cfg(test)]
        crate::testing::work::count();
        self.activity.as_deref().unwrap_or(NO_ACTIVITY)
    }

    /// Changes what it does.
    pub(super) fn modify<T>(&mut self, change: impl FnOnce(&mut Activity) -> T) -> T {
        let mut activity = self.activity.take().unwrap_or_default();
        let result = change(&mut activity);
        self.activity = Some(activity).filter(|activity| **activity != *NO_ACTIVITY);
        result
    }

    pub(super) fn dataset(&self) -> &DatasetArn {
        &self.place.dataset
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.activity().deleted_at.is_some()
    }

    /// Whether it uses the quota and its dataset.
    pub(super) fn is_in_flight(&self) -> bool {
        let activity = self.activity();
        activity.reservation != Reservation::None || self.state == QueueState::InFlight && !activity.job_is_over
    }

    /// Whether the resource is deleted and its job may still run.
    pub(super) fn has_deleted_job(&self) -> bool {
        self.is_deleted() && self.state == QueueState::InFlight && !self.activity().job_is_over
    }

    /// From when on the create request of a deleted resource can't arrive any more, and its job is found.
    pub(super) fn request_arrived_at(&self, timing: &Timing) -> Timestamp {
        let deleted = self.activity().deleted_at.unwrap_or(Timestamp::MAX);
        self.activity().intent_at.map_or(deleted, |intent| after(intent.min(deleted), timing.grace))
    }

    /// Whether no create request for it may still arrive.
    pub(super) fn is_drained(&self, now: Timestamp, timing: &Timing) -> bool {
        let arrived = self.activity().intent_at.is_none_or(|intent| after(intent, timing.grace) <= now);
        self.activity().reservation == Reservation::None && arrived
    }

    /// Whether its status is as the API server creates it.
    pub(super) fn is_untouched(&self) -> bool {
        self.reason.is_none() && matches!(self.state, QueueState::Pending | QueueState::Inactive)
    }

    /// Whether its FULL import has succeeded.
    pub(super) fn is_full_success(&self) -> bool {
        self.import_mode == ImportMode::Full && matches!(self.state, QueueState::Succeeded(_))
    }

    /// Whether the service, the namespace or a check has rejected it, so that it has submitted nothing.
    pub(super) fn is_rejected(&self) -> bool {
        self.state == QueueState::Inactive && self.activity().pending_since.is_some()
    }

    /// Whether it waits to submit, and nothing of it is in flight.
    pub(super) fn is_pending(&self) -> bool {
        let waits = self.state == QueueState::Pending || self.activity().asks;
        waits && !self.is_deleted() && !self.is_in_flight()
    }

    /// How it waits in the line of its dataset.
    pub(super) fn waiting(&self) -> Waiting {
        let activity = self.activity();
        let waits_for_full = self.reason == Some(Reason::WaitingForFullImport);
        Waiting { requeue_at: activity.requeue_at, newer_than: waits_for_full.then_some(activity.full_seen) }
    }
}

/// Since when the job of a resource is known, if it runs.
fn running_since(resource: &DatasetImportJob, status: &DatasetImportJobStatus, phase: Phase) -> Option<Timestamp> {
    let missing = Reason::of(status) == Some(Reason::JobNotFound);
    let intent = status.submission.as_ref().map(|intent| intent.time.0);
    let started = || status.start_time.as_ref().map(|at| at.0);
    (phase == Phase::Running && !missing).then(|| intent.or_else(started).unwrap_or(created_at(resource)))
}

/// Since when a pending resource waits, or another one is rejected: later than its creation if it was suspended, rejected or
/// tried before.
fn pending_since(resource: &DatasetImportJob, status: &DatasetImportJobStatus) -> Timestamp {
    let failed = status.last_updated_date_time.as_ref().filter(|_| Reason::of(status) == Some(Reason::Retrying));
    let is_since = |c: &&Condition| [RECONCILING, STALLED].contains(&&*c.type_) && c.status == "True";
    let since = || status.conditions.iter().find(is_since);
    failed.or_else(|| since().map(|c| &c.last_transition_time)).map_or(created_at(resource), |at| at.0)
}

fn queue_state(resource: &DatasetImportJob, status: &DatasetImportJobStatus, phase: Phase) -> QueueState {
    match phase {
        Phase::Succeeded => QueueState::Succeeded(requested_at(resource, status)),
        Phase::Running if Reason::of(status) == Some(Reason::JobNotFound) => QueueState::Inactive,
        Phase::Running | Phase::Submitting(_) => QueueState::InFlight,
        Phase::Failed | Phase::Superseded => QueueState::Inactive,
        Phase::Unsubmitted(_) if suspended_by(resource).is_some() => QueueState::Inactive,
        Phase::Unsubmitted(_) => match Reason::of(status) {
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
