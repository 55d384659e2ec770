//! The decision: from a resource, its status and what was seen in this pass to the next step.
//!
//! [`decide`] has no client, no clock and no async. It is called again after every step with what the
//! step brought, until it says [`Effect::Outcome`]; a crash between two steps loses only what was [`Observations`],
//! never what was recorded. The protocol of exactly-once submission is in [`submit`], the search for jobs that the
//! status does not know of in [`search`], the following of a running job in [`follow`], and what an existing job means
//! for a resource in [`ownership`].

use super::outcome as verdict;
use super::phase::{Phase, stage};
use crate::api::conditions::Reason;
use crate::api::{self, DatasetImportJob, DatasetImportJobStatus, Submission};
use crate::import::request::ImportRequest;
use crate::import::timing::{Severity, Timing, after};
use crate::personalize::{Job, JobSummary, ServiceError};
use crate::queue::{Admission, CooldownCause};
use jiff::Timestamp;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::time::Duration;

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Read the resource from the API server, not from the cache.
    Refresh,
    /// Ask whether the namespace may make this import.
    AskPermission,
    /// Ask the queue for a turn.
    TakeTurn,
    /// Describe the job of this attempt; with `prove`, list its tags too.
    DescribeJob {
        /// Which attempt, from 1.
        attempt: i32,
        /// Whether it has to be shown whose job it is.
        prove: bool,
    },
    /// Ask for the dataset's status.
    DescribeDataset,
    /// List the jobs of the dataset.
    ListJobs,
    /// Read from its tags how old the import of this job is.
    ReadAge {
        /// The job's name.
        job_name: String,
    },
    /// Write this status, which holds the intent, by compare-and-swap; then go on.
    RecordIntent(Box<DatasetImportJobStatus>),
    /// Call CreateDatasetImportJob for this attempt, once.
    Create {
        /// Which attempt, from 1.
        attempt: i32,
    },
    /// Nothing more in this pass.
    Outcome(Outcome),
}

/// How a pass ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The status to write; `None` when nothing changed.
    pub status: Option<Box<DatasetImportJobStatus>>,
    /// When to look again.
    pub again: Requeue,
    /// Why the service took no import, so that nobody should try there for a while.
    pub refusal: Option<CooldownCause>,
    /// The status, as it is written or was found, is what the service tells: from now on it is believed.
    pub verified: bool,
}

impl Outcome {
    /// Ends a pass that learned nothing to be written.
    pub(super) fn quiet(again: Requeue) -> Self {
        Self { status: None, again, refusal: None, verified: false }
    }
}

/// When to look again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Requeue {
    /// When the resource changes.
    AwaitChange,
    /// At this moment.
    At(Timestamp),
    /// After so long.
    After(Duration),
    /// After a setback: after a delay that grows with each further one.
    Backoff(Severity),
}

/// What was learned in this pass. It dies with the pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Observations {
    /// The resource was read from the API server, not from the cache.
    pub live: bool,
    /// Whether the namespace may make this import, or else why not.
    pub permission: Option<Result<(), String>>,
    /// The queue's answer.
    pub turn: Option<Admission>,
    /// The dataset's status.
    pub dataset: Option<Result<String, ServiceError>>,
    /// The jobs of the dataset.
    pub jobs: Option<Result<Vec<JobSummary>, ServiceError>>,
    /// For jobs of the dataset, by name, when the resource was created that each was made for; nothing if it was made
    /// by something else.
    pub ages: BTreeMap<String, Result<Option<Timestamp>, ServiceError>>,
    /// What stands under the name of each attempt that was looked up.
    pub lookups: BTreeMap<i32, Result<ObservedJob, ServiceError>>,
    /// The attempt whose intent this pass has recorded.
    pub intent: Option<i32>,
    /// The answer to the create call.
    pub create: Option<Result<(), ServiceError>>,
}

impl Observations {
    /// The intent for this attempt is recorded. What was looked up before proves nothing any more.
    pub fn intended(&mut self, attempt: i32) {
        self.intent = Some(attempt);
        self.lookups.remove(&attempt);
    }

    /// Create was called for this attempt. What was looked up before proves nothing any more.
    pub fn created(&mut self, attempt: i32, answer: Result<(), ServiceError>) {
        self.create = Some(answer);
        self.lookups.remove(&attempt);
    }
}

/// A job that exists.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObservedJob {
    /// What the service tells of it.
    pub job: Job,
    /// Its tags, where they were asked for.
    pub tags: Option<Result<Vec<api::Tag>, ServiceError>>,
}

/// What this process remembers of a resource between passes. A crash loses it, and nothing but a few
/// reads depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Memory {
    /// When the running job was described last.
    pub described: Option<Timestamp>,
    /// It was found that no job exists for the first attempt.
    pub looked_up: bool,
    /// A pass of this process came to rest.
    pub rested: bool,
    /// A setback made the resource wait until then, for these inputs.
    pub pause: Option<(Timestamp, UserInputs)>,
    /// How long earlier imports into the dataset took.
    pub typical: Option<Duration>,
    /// The attempt and time of an intent, and when this process saw it first: by its own clock, whoever wrote it.
    pub intent: Option<(i32, Timestamp, Timestamp)>,
}

impl Memory {
    /// Takes note of the intent in this status.
    pub(crate) fn notice_intent(&mut self, status: Option<&DatasetImportJobStatus>, now: Timestamp) {
        let intent = status.and_then(|status| status.submission.as_ref());
        self.intent = intent.map(|intent| (intent.attempt, intent.time.0, self.intent_seen(intent).unwrap_or(now)));
    }

    /// When this process saw this intent first.
    fn intent_seen(&self, intent: &Submission) -> Option<Timestamp> {
        let (attempt, time, seen) = self.intent?;
        ((attempt, time) == (intent.attempt, intent.time.0)).then_some(seen)
    }
}

/// What a person can change to make the operator look at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct UserInputs {
    pub(super) generation: i64,
    pub(super) adopt: bool,
    pub(super) suspend: bool,
    pub(super) reconcile_requested_at: Option<String>,
    pub(super) retry_requested_at: Option<String>,
}

impl UserInputs {
    /// The inputs of a resource as it is.
    #[must_use]
    pub fn of(job: &DatasetImportJob) -> Self {
        let annotation = |key: &str| job.annotations().get(key).map(|v| v.chars().take(256).collect::<String>());
        Self {
            generation: job.metadata.generation.unwrap_or(0),
            adopt: annotation(api::ADOPT).as_deref() == Some("true"),
            suspend: annotation(api::SUSPEND).as_deref() == Some("true"),
            reconcile_requested_at: annotation(api::RECONCILE_REQUESTED_AT),
            retry_requested_at: annotation(api::RETRY_REQUESTED_AT),
        }
    }
}

/// All that a decision is made from.
pub(super) struct Planner<'a> {
    pub(super) inputs: UserInputs,
    pub(super) held_back_by: Option<&'static str>,
    pub(super) backoff_limit: i32,
    pub(super) request: ImportRequest,
    /// The status as it is recorded.
    pub(super) recorded: DatasetImportJobStatus,
    pub(super) seen: &'a Observations,
    pub(super) memory: &'a Memory,
    pub(super) now: Timestamp,
    pub(super) policy: &'a Timing,
}

/// Decides the next step for a resource.
///
/// `proven` tells whether the status was written by this operator; one that somebody else touched is
/// checked against the service before anything in it is believed.
#[must_use]
pub fn decide(
    job: &DatasetImportJob,
    proven: bool,
    seen: &Observations,
    memory: &Memory,
    now: Timestamp,
    policy: &Timing,
) -> Effect {
    if job.metadata.deletion_timestamp.is_some() {
        return Effect::Outcome(Outcome::quiet(Requeue::AwaitChange));
    }
    let recorded = job.status.clone().unwrap_or_default();
    let inputs = UserInputs::of(job);
    let request = match ImportRequest::of(job) {
        Ok(request) => request,
        Err(error) => return verdict::invalid_spec(&recorded, &inputs, &error.to_string(), now),
    };
    let case = Planner {
        inputs,
        held_back_by: api::held_back_by(job),
        backoff_limit: job.spec.backoff_limit,
        request,
        recorded,
        seen,
        memory,
        now,
        policy,
    };
    let stage = if proven { stage(&case.recorded, &case.request) } else { Phase::Unsubmitted(1) };
    match stage {
        _ if !proven => case.verify(),
        Phase::Succeeded | Phase::Superseded => case.ended(),
        Phase::Failed => case.failed(),
        Phase::Running => case.follow(),
        Phase::Submitting(attempt) => case.submitting(attempt),
        Phase::Unsubmitted(attempt) => case.wanted(attempt),
    }
}

impl Planner<'_> {
    /// Whether a setback still makes the resource wait, and nobody asked to look before. A wait for longer than any
    /// setback's was begun by a clock that has been turned back since; it is over.
    pub(super) fn paused_until(&self) -> Option<Timestamp> {
        let (until, inputs) = self.memory.pause.as_ref()?;
        let latest = after(self.now, self.policy.backoff_max.max(self.policy.rejected_max));
        (*until > self.now && *until <= latest && *inputs == self.inputs).then_some(*until)
    }

    /// Whether a person asked to look now, and that was not handled yet.
    pub(super) fn poked(&self) -> bool {
        self.inputs.reconcile_requested_at.is_some()
            && self.inputs.reconcile_requested_at != self.recorded.last_handled_reconcile_at
    }

    pub(super) fn reason(&self) -> Option<Reason> {
        Reason::of(&self.recorded)
    }

    /// Until when what was sent for the recorded intent may still arrive, or a job made of it not show yet. By this
    /// process's own clock, for another's may differ.
    pub(super) fn settles(&self) -> Option<Timestamp> {
        let seen = self.memory.intent_seen(self.recorded.submission.as_ref()?).unwrap_or(self.now);
        // An intent's time is kept in whole seconds: a fresh one must differ, or its write would be no
        // compare-and-swap.
        Some(after(seen, self.policy.grace.max(Duration::from_secs(1))))
    }

    /// The request to retry that is handled once this pass has ended. One that was withdrawn stays handled.
    pub(super) fn handled_retry(&self) -> Option<String> {
        self.inputs.retry_requested_at.clone().or_else(|| self.recorded.last_handled_retry_at.clone())
    }
}
