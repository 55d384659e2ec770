//! Planning: from a resource and what was observed to the next effect or to an outcome.
//!
//! [`plan`] has no client, no clock and no async. It runs again after every effect with what the effect observed, until
//! it returns an outcome. A crash between two effects loses the [`Observations`], never what is recorded in the status.
//! The documentation of the crate has an example.

use super::admission::{Admission, CooldownCause, Key};
use super::local_state::{LocalState, UserInputs};
use super::phase::Phase;
use super::request::ImportRequest;
use super::timing::{Severity, Timing, after};
use super::trust::Trust;
use crate::api::conditions::{self, Reason};
use crate::api::{self, DatasetImportJob, DatasetImportJobStatus, Guard, ImportedData, Tag};
use crate::personalize::{Dataset, Job, JobSummary, ServiceError};
use crate::preflight::Report;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

/// A step of planning: its value, or what has to happen before planning can continue.
pub type Plan<T> = Result<T, Next>;

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Perform this effect, then plan again.
    Perform(Effect),
    /// Ask the queue for admission, then plan again.
    TryAdmit,
    /// Ask the queue which newer import has replaced the data of this one, then plan again.
    FindNewerImport,
    /// Finish the reconciliation.
    Finish(Outcome),
}

/// A read, a write or a call that planning asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Read the resource from the API server, not from the cache.
    ReadResource,
    /// Check whether the namespace may make this import.
    CheckNamespace,
    /// Call DescribeDatasetImportJob for an attempt.
    DescribeJob {
        /// The attempt, from 1.
        attempt: i32,
        /// Also list the job's tags, which prove who owns it.
        with_tags: bool,
    },
    /// Call DescribeDataset.
    DescribeDataset,
    /// Call ListDatasetImportJobs for the dataset.
    ListJobs,
    /// Call ListDataDeletionJobs for the dataset's group.
    ListDataDeletions,
    /// Call ListTagsForResource on another job of the dataset.
    ListTags {
        /// The job's name.
        job_name: String,
    },
    /// List the data that is to be imported, and check it, if that is wanted.
    CheckData,
    /// List the objects that are to be imported, once more.
    ListData,
    /// Replace the status, with the resource version that was read: a compare-and-swap.
    WriteStatus {
        /// The status.
        status: Box<DatasetImportJobStatus>,
        /// What follows the write.
        then: AfterWrite,
    },
    /// Apply the status as it is recorded, with the resource version that was read, so that `managedFields` names the
    /// operator as the manager of its values. It may fail.
    ApplyStatus,
    /// Call CreateDatasetImportJob for an attempt, once.
    CreateJob {
        /// The attempt, from 1.
        attempt: i32,
    },
}

/// What follows a status write.
#[derive(Debug, Clone, PartialEq)]
pub enum AfterWrite {
    /// The status holds the intent for this attempt: planning continues.
    Submit {
        /// The attempt, from 1.
        attempt: i32,
    },
    /// The reconciliation finishes.
    Finish(Box<Outcome>),
}

/// How a reconciliation finishes.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The status to write; `None` if nothing changed.
    pub status: Option<Box<DatasetImportJobStatus>>,
    /// When to reconcile again.
    pub requeue: Requeue,
    /// Why the service accepted no import, so that no resource submits in this account and region for a while.
    pub cooldown: Option<CooldownCause>,
    /// The service confirmed the status, as it is written or was found: it is trusted from now on.
    pub confirmed: bool,
}

impl Outcome {
    /// An outcome that writes this status if it differs from the recorded one. A status of an older version is not
    /// written only to add its summary.
    pub(super) fn new(recorded: &DatasetImportJobStatus, mut status: DatasetImportJobStatus, requeue: Requeue) -> Self {
        conditions::summarize(&mut status);
        let is_changed = if conditions::is_without_summary(recorded) {
            DatasetImportJobStatus { phase: None, reason: None, message: None, ..status.clone() } != *recorded
        } else {
            status != *recorded
        };
        Self { status: is_changed.then(|| Box::new(status)), ..Self::unchanged(requeue) }
    }

    /// An outcome that writes nothing.
    pub(super) fn unchanged(requeue: Requeue) -> Self {
        Self { status: None, requeue, cooldown: None, confirmed: false }
    }
}

/// When to reconcile again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Requeue {
    /// When the resource changes.
    AwaitChange,
    /// At this moment.
    At(Timestamp),
    /// After this long.
    After(Duration),
    /// After a failure: after a delay that grows with each further one.
    Backoff(Severity),
}

/// What this reconciliation has observed. It is dropped when the reconciliation ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Observations {
    /// The resource was read from the API server, not from the cache.
    pub live: bool,
    /// Whether the namespace may make this import, or why not.
    pub namespace: Option<Result<(), String>>,
    /// The queue's answer.
    pub admission: Option<Admission>,
    /// The dataset.
    pub dataset: Option<Result<Dataset, ServiceError>>,
    /// The resource whose newer import has replaced the data of this one.
    pub newer_import: Option<Option<Key>>,
    /// The jobs of the dataset.
    pub jobs: Option<Result<Vec<JobSummary>, ServiceError>>,
    /// A data deletion job that runs in the dataset's group, by its name.
    pub data_deletion: Option<Result<Option<String>, ServiceError>>,
    /// Job name -> creation time of the DatasetImportJob that submitted it (tag `requested-at`); `None` if the job has
    /// no such tag.
    pub requested_at: BTreeMap<String, Result<Option<Timestamp>, ServiceError>>,
    /// What the check of the data found; `None` within if it is not wanted.
    pub data: Option<Option<DataCheck>>,
    /// The data as it was listed once more, before the check or after the create call.
    pub listed: Option<Result<ImportedData, ServiceError>>,
    /// Job name -> the data that it imported (tag `data`); `None` if the job has no such tag.
    pub imported: BTreeMap<String, Result<Option<ImportedData>, ServiceError>>,
    /// Attempt -> the job under its name.
    pub lookups: BTreeMap<i32, Result<ObservedJob, ServiceError>>,
    /// A list showed that the running job still has its recorded status.
    pub job_listed: bool,
    /// The attempt whose intent this reconciliation has recorded.
    pub intent: Option<i32>,
    /// The answer of CreateDatasetImportJob.
    pub create: Option<Result<(), ServiceError>>,
}

impl Observations {
    /// What is known of the data; `None` if it was not checked.
    pub(super) fn data_check(&self) -> Option<&DataCheck> {
        self.data.as_ref()?.as_ref()
    }

    /// The intent for this attempt is recorded. An earlier lookup is out of date, and another intent needs another list
    /// of data deletions.
    pub(crate) fn intent_recorded(&mut self, attempt: i32) {
        self.intent = Some(attempt);
        self.data_deletion = None;
        self.lookups.remove(&attempt);
    }

    /// Create was called for this attempt. An earlier lookup is out of date.
    pub(crate) fn created(&mut self, attempt: i32, answer: Result<(), ServiceError>) {
        self.create = Some(answer);
        self.listed = None;
        self.lookups.remove(&attempt);
    }
}

/// What is known of the data before its import.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DataCheck {
    /// The import is not submitted while the data breaks a rule.
    pub enforced: bool,
    /// What is there, or why it can't be listed.
    pub data: Result<ImportedData, ServiceError>,
    /// The report, or why the data can't be read; `None` if only its size matters.
    pub report: Option<Result<Report, ServiceError>>,
}

/// A job that exists.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObservedJob {
    /// What DescribeDatasetImportJob returned.
    pub job: Job,
    /// Its tags, if they were listed.
    pub tags: Option<Result<Vec<Tag>, ServiceError>>,
}

/// Everything that a plan is made from.
pub(super) struct Planner<'a> {
    pub(super) inputs: UserInputs,
    pub(super) suspended_by: Option<&'static str>,
    pub(super) backoff_limit: i32,
    pub(super) guard: Option<Guard>,
    pub(super) request: ImportRequest,
    pub(super) trust: Trust,
    /// The status as it is recorded.
    pub(super) recorded: DatasetImportJobStatus,
    pub(super) observations: &'a Observations,
    pub(super) local: &'a LocalState,
    pub(super) now: Timestamp,
    pub(super) timing: &'a Timing,
}

/// Plans what comes next for a resource.
#[must_use]
pub fn plan(
    resource: &DatasetImportJob,
    trust: Trust,
    observations: &Observations,
    local: &LocalState,
    now: Timestamp,
    timing: &Timing,
) -> Next {
    if resource.metadata.deletion_timestamp.is_some() {
        return Next::Finish(Outcome::unchanged(Requeue::AwaitChange));
    }
    let recorded = resource.status.clone().unwrap_or_default();
    let inputs = UserInputs::of(resource);
    let request = match ImportRequest::of(resource) {
        Ok(request) => request,
        Err(error) => {
            let (mut status, message) = (recorded.clone(), format!("spec.datasetArn: {error}"));
            conditions::set(&mut status, inputs.generation, Reason::InvalidSpec, &message, now);
            return Next::Finish(Outcome::new(&recorded, status, Requeue::AwaitChange));
        }
    };
    let planner = Planner {
        inputs,
        suspended_by: api::suspended_by(resource),
        backoff_limit: resource.spec.backoff_limit,
        guard: resource.spec.guard,
        request,
        trust,
        recorded,
        observations,
        local,
        now,
        timing,
    };
    let Err(next) = planner.plan();
    match next {
        Next::Finish(outcome) if trust.is_trusted() || outcome.confirmed => {
            Next::Finish(planner.correct_summary(outcome))
        }
        next => next,
    }
}

impl Planner<'_> {
    /// Corrects a summary that contradicts its conditions: somebody else wrote it.
    fn correct_summary(&self, outcome: Outcome) -> Outcome {
        if outcome.status.is_some() || conditions::is_without_summary(&self.recorded) {
            return outcome;
        }
        Outcome { status: Outcome::new(&self.recorded, self.recorded.clone(), outcome.requeue).status, ..outcome }
    }

    fn plan(&self) -> Plan<Infallible> {
        if !self.trust.is_trusted() {
            return self.verify_status();
        }
        match Phase::of(&self.recorded, &self.request) {
            Phase::Succeeded => self.stay_finished(),
            Phase::Superseded => self.plan_despite_newer_import(),
            Phase::Failed => self.plan_retry(),
            Phase::Running => self.poll(),
            Phase::Submitting(attempt) => self.resume_submission(attempt),
            Phase::Unsubmitted(attempt) => self.plan_submission(attempt),
        }
    }

    /// The end of the backoff, unless a user has changed an input since it began.
    pub(super) fn backoff_until(&self) -> Option<Timestamp> {
        let until = self.local.backoff.until()?;
        let same_inputs = self.local.backoff_inputs.as_ref() == Some(&self.inputs);
        (until > self.now && same_inputs).then_some(until)
    }

    /// Waits until the backoff ends, or data that was not submitted has changed.
    pub(super) fn check_backoff(&self) -> Plan<()> {
        let Some(until) = self.backoff_until() else { return Ok(()) };
        if self.sees_other_data()? { Ok(()) } else { Err(self.keep(Requeue::At(until))) }
    }

    /// Whether a user asked for a reconciliation that has not happened yet.
    pub(super) fn reconcile_requested(&self) -> bool {
        self.inputs.has_new_reconcile_request(&self.recorded)
    }

    pub(super) fn reason(&self) -> Option<Reason> {
        Reason::of(&self.recorded)
    }

    /// The end of the grace period: until then a create request may be in flight, or its job not visible yet. Counted
    /// from when this process first saw the intent, because clocks differ.
    pub(super) fn grace_deadline(&self) -> Option<Timestamp> {
        let seen = self.local.intent_seen(self.recorded.submission.as_ref()?).unwrap_or(self.now);
        // The time of an intent has whole seconds, and the next intent must differ, or its write would be no
        // compare-and-swap.
        Some(after(seen, self.timing.grace.max(Duration::from_secs(1))))
    }

    /// Whether the grace period of the recorded intent still runs.
    pub(super) fn is_in_grace(&self) -> bool {
        self.grace_deadline().is_some_and(|deadline| self.now < deadline)
    }

    /// The retry request that this reconciliation handles. A request that was withdrawn stays handled.
    pub(super) fn handled_retry(&self) -> Option<String> {
        self.inputs.retry_requested_at.clone().or_else(|| self.recorded.last_handled_retry_at.clone())
    }

    /// The job of an attempt, with its tags if `with_tags`.
    pub(super) fn lookup(&self, attempt: i32, with_tags: bool) -> Plan<&Result<ObservedJob, ServiceError>> {
        let missing = Next::Perform(Effect::DescribeJob { attempt, with_tags });
        self.observations.lookups.get(&attempt).ok_or(missing)
    }
}
