//! One reconciliation of one resource, as a state machine without I/O.
//!
//! [`Reconciliation::next`] says what to do, an executor does it, and [`Reconciliation::apply`] takes what was
//! observed. Nothing here has a client, a clock or async, so production, unit tests, the model checker and the fuzz
//! targets run the same steps. [`drive`] is the loop around them.
//!
//! ```
//! use jiff::Timestamp;
//! use personalize_operator::api::DatasetImportJob;
//! use personalize_operator::import::{Effect, LocalState, Next, Timing};
//! use personalize_operator::queue::Queue;
//! use personalize_operator::reconciliation::{Observation, Reconciliation};
//!
//! let resource: DatasetImportJob = serde_json::from_value(serde_json::json!({
//!     "apiVersion": "personalize-operator.io/v1alpha1", "kind": "DatasetImportJob",
//!     "metadata": { "namespace": "shop", "name": "nightly", "uid": "1" },
//!     "spec": {
//!         "datasetArn": "arn:aws:personalize:eu-west-1:123456789012:dataset/shop/INTERACTIONS",
//!         "dataSource": { "dataLocation": "s3://shop-data/interactions.csv" },
//!         "roleArn": "arn:aws:iam::123456789012:role/PersonalizeRead",
//!     },
//! }))?;
//! let (now, timing) = (Timestamp::now(), Timing::default());
//! let mut queue = Queue::new(5, timing.clone());
//! let mut reconciliation = Reconciliation::new(resource, LocalState::default());
//! assert_eq!(reconciliation.next(now, &timing), Next::Perform(Effect::CheckNamespace));
//! reconciliation.apply(Observation::Namespace(Ok(())), now, &mut queue).expect("it continues");
//! let lookup = Effect::DescribeJob { attempt: 1, with_tags: true };
//! assert_eq!(reconciliation.next(now, &timing), Next::Perform(lookup));
//! # Ok::<(), serde_json::Error>(())
//! ```

mod drive;
mod finish;
mod observation;
#[cfg(test)]
mod tests;

pub use drive::{Executor, Stopped, drive};
pub use finish::{Failure, Finished};
pub use observation::Observation;

use crate::api::{DatasetImportJob, DatasetImportJobStatus, conditions};
use crate::import::poll_schedule::durations;
use crate::import::request::{imported_data, newer_jobs_after, requested_at};
use crate::import::timing::after;
use crate::import::trust::{is_managed, own_part};
use crate::import::{
    AfterWrite, Effect, ImportRequest, LocalState, Next, Observations, Outcome, Phase, Requeue, Timing, UserInputs,
    plan,
};
use crate::personalize::{DataDeletion, ErrorKind, JobSummary, ServiceError};
use crate::queue::Queue;
use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

/// The most write conflicts of one reconciliation.
const MAX_CONFLICTS: u32 = 5;

/// For how many longest intervals between polls lists may replace them: a list that is wrong must not hide the end of a job.
const MAX_LISTED: u32 = 12;

/// Why a reconciliation can't continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// The resource is deleted; a re-created one may have its name.
    Deleted,
    /// Others keep changing the resource.
    TooManyConflicts,
}

/// The state of a reconciliation between two effects.
#[derive(Debug, Clone)]
pub struct Reconciliation {
    resource: DatasetImportJob,
    /// The resource is older than what this process knows.
    stale: bool,
    local: LocalState,
    observations: Observations,
    conflicts: u32,
    /// The outcome whose status is written.
    written_outcome: Option<Outcome>,
    /// The status was applied, or that failed.
    applied: bool,
}

impl Reconciliation {
    /// Starts with the resource as the cache has it.
    #[must_use]
    pub fn new(resource: DatasetImportJob, local: LocalState) -> Self {
        Self {
            stale: local.is_newer_than(&resource),
            resource,
            local,
            observations: Observations::default(),
            conflicts: 0,
            written_outcome: None,
            applied: false,
        }
    }

    /// The resource as it is known now.
    #[must_use]
    pub fn resource(&self) -> &DatasetImportJob {
        &self.resource
    }

    /// The UID of the resource; empty if it has none.
    #[must_use]
    pub fn uid(&self) -> String {
        self.resource.uid().unwrap_or_default()
    }

    /// Whether the resource is older than what this process knows.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// What was observed since the reconciliation started or restarted.
    #[must_use]
    pub fn observations(&self) -> &Observations {
        &self.observations
    }

    /// What the process remembers if the reconciliation ends now.
    #[must_use]
    pub fn local(&self) -> &LocalState {
        &self.local
    }

    /// What the process remembers after the reconciliation.
    #[must_use]
    pub fn into_local(self) -> LocalState {
        self.local
    }

    /// The import that the resource asks for; `None` if the spec is invalid.
    #[must_use]
    pub fn request(&self) -> Option<ImportRequest> {
        ImportRequest::of(&self.resource).ok()
    }

    /// Whether the recorded job runs, and its last poll worked.
    #[must_use]
    pub fn shares_polls(&self) -> bool {
        // Most resources were not described, and need no request.
        let runs = |status: &DatasetImportJobStatus| Some(Phase::of(status, &self.request()?) == Phase::Running);
        self.local.last_described.is_some() && self.resource.status.as_ref().and_then(runs) == Some(true)
    }

    /// When the running job was last polled, and its recorded status, if a list may confirm that. `None` if the job
    /// must be described: the last describe failed or is too old, a user asked for it, or a list showed that the job has
    /// ended.
    #[must_use]
    pub fn confirmed_poll(&self, now: Timestamp, timing: &Timing) -> Option<(Timestamp, &str)> {
        let status = self.resource.status.as_ref()?;
        // The next poll may be that much later.
        let is_due = now >= after(self.local.last_described?, timing.poll_max * (MAX_LISTED - 1));
        if is_due || self.local.listed_as_ended || UserInputs::of(&self.resource).has_new_reconcile_request(status) {
            return None;
        }
        Some((self.local.last_polled?, status.status.as_deref()?))
    }

    /// Whether this reconciliation has recorded its intent, so that it should finish even during a shutdown.
    #[must_use]
    pub fn has_recorded_intent(&self) -> bool {
        self.observations.intent.is_some()
    }

    /// The resource with another status, for a replace. `managedFields` is left out: the API server keeps it.
    #[must_use]
    pub fn with_status(&self, status: DatasetImportJobStatus) -> DatasetImportJob {
        let mut resource = self.resource.clone();
        resource.status = Some(status);
        resource.metadata.managed_fields = None;
        resource
    }

    /// The operator's part of the recorded status, to apply to this version of the resource.
    #[must_use]
    pub fn status_to_apply(&self) -> Value {
        json!({
            "apiVersion": DatasetImportJob::api_version(&()),
            "kind": DatasetImportJob::kind(&()),
            "metadata": { "name": self.resource.name_any(), "resourceVersion": self.resource.resource_version() },
            "status": own_part(self.resource.status.as_ref()),
        })
    }

    /// What comes next. An outcome with a status first becomes an effect that writes it, so an outcome that is returned
    /// here is ready for [`Self::finish`].
    #[must_use]
    pub fn next(&self, now: Timestamp, timing: &Timing) -> Next {
        if self.stale {
            return Next::Perform(Effect::ReadResource);
        }
        if let Some(outcome) = &self.written_outcome {
            return self.list_again(outcome, now).unwrap_or_else(|| self.finish_applied(outcome.clone()));
        }
        let trust = self.local.trust(&self.resource);
        match plan(&self.resource, trust, &self.observations, &self.local, now, timing) {
            Next::Finish(mut outcome) => match outcome.status.take() {
                Some(status) => {
                    Next::Perform(Effect::WriteStatus { status, then: AfterWrite::Finish(Box::new(outcome)) })
                }
                None => self.finish_applied(outcome),
            },
            next => next,
        }
    }

    /// Lists the data of a job that was accepted right now once more, and records if it has changed: it is unknown
    /// then what the job imports.
    fn list_again(&self, outcome: &Outcome, now: Timestamp) -> Option<Next> {
        let status = self.resource.status.as_ref()?;
        let submitted = status.data.as_ref().filter(|_| matches!(self.observations.create, Some(Ok(()))))?;
        let Some(listed) = &self.observations.listed else { return Some(Next::Perform(Effect::ListData)) };
        let listed = listed.as_ref().ok().filter(|listed| *listed != submitted)?;
        if conditions::data_changed(status).is_some() {
            return None;
        }
        let message = format!(
            "the data has changed while its import was submitted, from {submitted} to {listed}: it is unknown which of them the job imports"
        );
        let mut status = Box::new(status.clone());
        conditions::set_data_changed(&mut status, self.resource.metadata.generation.unwrap_or(0), &message, now);
        Some(Next::Perform(Effect::WriteStatus { status, then: AfterWrite::Finish(Box::new(outcome.clone())) }))
    }

    /// Finishes, and before that applies a final status that the service has confirmed and that the operator does not
    /// manage: otherwise each later process would verify it again.
    fn finish_applied(&self, outcome: Outcome) -> Next {
        let is_final = outcome.confirmed && outcome.requeue == Requeue::AwaitChange;
        if is_final && !self.applied && !is_managed(&self.resource) {
            return Next::Perform(Effect::ApplyStatus);
        }
        Next::Finish(outcome)
    }

    /// Remembers what an effect is about to change. Call it before the effect is performed.
    pub fn note(&mut self, effect: &Effect) {
        if let Effect::WriteStatus { status, .. } = effect {
            self.local.note_attempt(status);
        }
    }

    /// Takes what an effect observed.
    ///
    /// # Errors
    /// When the reconciliation can't continue.
    pub fn apply(&mut self, observation: Observation, now: Timestamp, queue: &mut Queue) -> Result<(), Interrupted> {
        let observed = &mut self.observations;
        match observation {
            Observation::Resource(resource) => self.resource_read(resource.map(|r| *r), queue)?,
            Observation::Namespace(allowed) => observed.namespace = Some(allowed),
            Observation::Admission(admission) => observed.admission = Some(admission),
            Observation::NewerImport(key) => observed.newer_import = Some(key),
            Observation::Job { attempt, job } => {
                match &job {
                    Ok(_) => (self.local.last_polled, self.local.no_job_found) = (Some(now), false),
                    Err(error) => self.local.no_job_found |= error.kind == ErrorKind::NotFound && attempt == 1,
                }
                self.local.last_described = job.is_ok().then_some(now);
                observed.lookups.insert(attempt, job);
            }
            Observation::JobListed { at } => {
                // The job is as good as polled.
                self.local.last_polled = Some(at);
                observed.job_listed = true;
            }
            Observation::Dataset(dataset) => observed.dataset = Some(dataset),
            Observation::Data(data) => observed.data = Some(data),
            Observation::DataListed(data) => observed.listed = Some(data),
            Observation::Jobs(jobs) => self.jobs_listed(jobs, queue),
            Observation::DataDeletions(deletions) => {
                let running = |all: Vec<DataDeletion>| all.into_iter().find(DataDeletion::is_running);
                observed.data_deletion = Some(deletions.map(|all| running(all).map(|running| running.name)));
            }
            Observation::Tags { job_name, tags } => {
                observed
                    .imported
                    .insert(job_name.clone(), tags.as_ref().map(|t| imported_data(t)).map_err(Clone::clone));
                observed.requested_at.insert(job_name, tags.map(|tags| requested_at(&tags)));
            }
            Observation::StatusWritten { resource, then } => self.status_written(*resource, then, queue),
            Observation::StatusApplied(resource) => {
                self.applied = true;
                if let Some(resource) = resource {
                    self.local.written_version = crate::api::resource_version(&resource);
                    self.resource = *resource;
                }
            }
            Observation::Conflict => self.restart()?,
            Observation::Created { attempt, answer } => {
                if answer.is_ok()
                    && let Some(request) = self.request()
                {
                    queue.accepted(request.dataset.account_region());
                    // The job is as good as polled.
                    self.local.last_polled = Some(now);
                    self.local.last_described = Some(now);
                }
                let name_taken = matches!(&answer, Err(error) if error.kind == ErrorKind::AlreadyExists);
                self.local.name_taken = if name_taken { self.local.name_taken.saturating_add(1) } else { 0 };
                self.observations.created(attempt, answer);
            }
        }
        Ok(())
    }

    fn resource_read(&mut self, resource: Option<DatasetImportJob>, queue: &mut Queue) -> Result<(), Interrupted> {
        let Some(resource) = resource.filter(|resource| resource.uid() == self.resource.uid()) else {
            return Err(Interrupted::Deleted);
        };
        self.resource = resource;
        self.stale = false;
        self.local.write_unconfirmed = false;
        self.observations.live = true;
        self.update_queue(queue);
        Ok(())
    }

    fn jobs_listed(&mut self, jobs: Result<Vec<JobSummary>, ServiceError>, queue: &Queue) {
        if let (Ok(jobs), Some(request)) = (&jobs, self.request()) {
            self.local.durations = durations(jobs);
            // The queue knows the age of imports whose resources exist: no need to read the tags of their jobs.
            let since = request.requested_at.map_or(Timestamp::MAX, newer_jobs_after);
            let known = queue.requested_at(&request.dataset, since);
            let known =
                jobs.iter().filter_map(|job| Some((job.name.clone(), Ok(Some(*known.get(job.name.as_str())?)))));
            self.observations.requested_at = known.collect();
        }
        self.observations.jobs = Some(jobs);
    }

    fn status_written(&mut self, resource: DatasetImportJob, then: AfterWrite, queue: &mut Queue) {
        self.local.written_version = crate::api::resource_version(&resource);
        self.local.write_unconfirmed = false;
        self.resource = resource;
        self.confirm_status(queue);
        match then {
            AfterWrite::Submit { attempt } => self.observations.intent_recorded(attempt),
            AfterWrite::Finish(outcome) => self.written_outcome = Some(*outcome),
        }
    }

    /// Restarts with a live read after a conflict.
    fn restart(&mut self) -> Result<(), Interrupted> {
        self.stale = true;
        self.observations = Observations::default();
        self.conflicts = self.conflicts.saturating_add(1);
        if self.conflicts <= MAX_CONFLICTS { Ok(()) } else { Err(Interrupted::TooManyConflicts) }
    }

    fn confirm_status(&mut self, queue: &mut Queue) {
        self.local.confirm(&self.resource);
        self.update_queue(queue);
    }

    fn update_queue(&self, queue: &mut Queue) -> bool {
        queue.update(&self.resource, self.local.trust(&self.resource))
    }
}
