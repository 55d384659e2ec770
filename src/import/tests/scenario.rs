//! A simulated service, and reconciliations of one resource against it.

use crate::api::conditions::{READY, RECONCILING, Reason, STALLED, SUCCEEDED};
use crate::api::{DatasetImportJob, DatasetImportJobSpec, DatasetImportJobStatus, ImportedData, Tag};
use crate::import::timing::{after, since};
use crate::import::{
    AfterWrite, DataCheck, Effect, ImportRequest, LocalState, MANAGER, Next, Observations, ObservedJob, Trust, plan,
};
use crate::personalize::{
    CREATE_FAILED, CREATE_PENDING, DataDeletion, Dataset, ErrorKind, Job, JobSummary, ServiceError,
};
use crate::queue::Queue;
use crate::reconciliation::{Executor, Finished, Observation, Reconciliation, Stopped, drive};
use crate::testing::{self, service_error, set_status_manager, timing};
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// One resource and one service. Only the recorded status survives a crash of the operator.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) resource: DatasetImportJob,
    pub(super) local: LocalState,
    pub(super) now: Timestamp,
    pub(super) jobs: BTreeMap<String, (Job, Vec<Tag>)>,
    pub(super) accepted: Vec<String>,
    pub(super) written: Vec<DatasetImportJobStatus>,
    pub(super) reads: usize,
    /// The answers to the next create calls; the flag says whether the call takes effect.
    pub(super) answers: Vec<(bool, Result<(), ServiceError>)>,
    pub(super) dataset: Result<Dataset, ServiceError>,
    /// The dataset's other jobs.
    pub(super) other_jobs: Vec<JobSummary>,
    /// The data deletion jobs of the dataset's group.
    pub(super) data_deletions: Result<Vec<DataDeletion>, ServiceError>,
    /// When the resource of each of them was created.
    pub(super) requested_at: BTreeMap<String, Result<Option<Timestamp>, ServiceError>>,
    /// The error of polls.
    pub(super) poll_error: Option<ServiceError>,
    /// The error of listing tags.
    pub(super) tags_error: Option<ServiceError>,
    pub(super) namespace: Result<(), String>,
    pub(super) data: Option<DataCheck>,
    /// What further lists of the data find; without any, what the check found.
    pub(super) listed: Vec<Result<ImportedData, ServiceError>>,
    /// How often the data was listed.
    pub(super) lists: usize,
    /// How old the lists of jobs are that replace polls, if other jobs are polled with this one.
    pub(super) job_list_age: Option<Duration>,
    /// The data of each of the dataset's other jobs.
    pub(super) imported: BTreeMap<String, ImportedData>,
}

impl Scenario {
    pub(super) fn new() -> Self {
        Self::with(testing::spec())
    }

    pub(super) fn with(spec: DatasetImportJobSpec) -> Self {
        Self {
            resource: testing::resource(spec),
            local: LocalState::default(),
            now: Timestamp::from_second(1_700_000_000).unwrap(),
            jobs: BTreeMap::new(),
            accepted: Vec::new(),
            written: Vec::new(),
            reads: 0,
            answers: Vec::new(),
            dataset: Ok(testing::active_dataset()),
            other_jobs: Vec::new(),
            data_deletions: Ok(Vec::new()),
            requested_at: BTreeMap::new(),
            poll_error: None,
            tags_error: None,
            namespace: Ok(()),
            data: None,
            listed: Vec::new(),
            lists: 0,
            job_list_age: None,
            imported: BTreeMap::new(),
        }
    }

    pub(super) fn request(&self) -> ImportRequest {
        ImportRequest::of(&self.resource).unwrap()
    }

    pub(super) fn status(&self) -> DatasetImportJobStatus {
        self.resource.status.clone().unwrap()
    }

    pub(super) fn annotate(&mut self, key: &str, value: &str) {
        self.resource.metadata.annotations.get_or_insert_default().insert(key.into(), value.into());
    }

    pub(super) fn add_job(&mut self, name: &str, status: &str, tags: Vec<Tag>) {
        let request = self.request();
        let job = Job {
            name: name.into(),
            dataset: request.dataset.as_str().into(),
            data_location: request.data_location.clone(),
            role_arn: request.role_arn.clone(),
            import_mode: Some(request.import_mode.as_str().into()),
            publish_attribution_metrics_to_s3: request.publish_attribution_metrics_to_s3,
            status: status.into(),
            failure_reason: (status == CREATE_FAILED).then(|| "Invalid Data location.".into()),
            created: Some(self.now),
            updated: Some(self.now),
        };
        self.jobs.insert(name.into(), (job, tags));
    }

    /// The service gives a job this status.
    pub(super) fn set_job_status(&mut self, name: &str, status: &str) {
        let now = self.now;
        let (job, _) = self.jobs.get_mut(name).unwrap();
        job.status = status.into();
        job.updated = Some(now);
        job.failure_reason = (status == CREATE_FAILED).then(|| "Invalid Data location.".into());
    }

    fn create_job(&mut self, name: &str) -> Result<(), ServiceError> {
        let (takes_effect, answer) = if self.answers.is_empty() { (true, Ok(())) } else { self.answers.remove(0) };
        if takes_effect {
            if self.jobs.contains_key(name) {
                return Err(service_error(ErrorKind::AlreadyExists));
            }
            self.accepted.push(name.into());
            let tags = self.request().own_tags();
            self.add_job(name, CREATE_PENDING, tags);
        }
        answer
    }

    /// When a list showed that a job still has its recorded status.
    fn listed_as_recorded(&self, reconciliation: &Reconciliation, attempt: i32) -> Option<Timestamp> {
        let at = self.now - self.job_list_age?;
        let (polled, recorded) = reconciliation.confirmed_poll(self.now, &timing())?;
        let (job, _) = self.jobs.get(&self.request().job_name(attempt))?;
        (at > polled && job.status == recorded).then_some(at)
    }

    /// One reconciliation of a status that the operator wrote, with a crash after this many effects. `None` if it
    /// crashed.
    pub(super) fn reconcile_within(&mut self, effects: usize) -> Option<Finished> {
        set_status_manager(&mut self.resource, MANAGER);
        self.drive(effects)
    }

    /// One reconciliation of a status that the operator wrote.
    pub(super) fn reconcile(&mut self) -> Finished {
        self.reconcile_within(usize::MAX).expect("it finishes")
    }

    /// One reconciliation of a status that somebody else wrote.
    pub(super) fn reconcile_untrusted(&mut self) -> Finished {
        set_status_manager(&mut self.resource, "kubectl-edit");
        self.local.confirmed_status = None;
        self.drive(usize::MAX).expect("it finishes")
    }

    fn drive(&mut self, effects: usize) -> Option<Finished> {
        let (timing, queue) = (timing(), Mutex::new(Queue::new(5, timing())));
        queue.lock().unwrap().observe(&self.resource, self.local.trust(&self.resource));
        let mut reconciliation = Reconciliation::new(self.resource.clone(), self.local.clone());
        let mut executor = ScenarioExecutor { scenario: self, effects_left: effects, looked_up_since_intent: false };
        let driven = drive(&mut reconciliation, &mut executor, &queue, &timing).now_or_never();
        match driven.expect("no effect waits") {
            Ok(finished) => {
                self.local = reconciliation.into_local();
                Some(finished)
            }
            Err(Stopped::Executor(Crash)) => None,
            Err(stopped) => panic!("the reconciliation does not finish: {stopped:?}"),
        }
    }

    /// What comes next for the resource after these observations.
    pub(super) fn plan(&self, observations: &Observations) -> Next {
        plan(&self.resource, Trust::Trusted, observations, &self.local, self.now, &timing())
    }

    /// Reconciles, and lets time pass, until the next reconciliation waits for a poll, a backoff or a change.
    pub(super) fn reconcile_until_idle(&mut self) -> Finished {
        for _ in 0..50 {
            let finished = self.reconcile();
            match self.local.next_poll {
                Some(at) if since(self.now, at) < timing().poll_min && self.local.backoff.until() != Some(at) => {
                    self.now = at.max(self.now);
                }
                _ => return finished,
            }
        }
        panic!("the resource does not become idle: {:?}", self.status());
    }

    /// Lets the longest delay pass.
    pub(super) fn wait(&mut self) {
        self.now = after(self.now, timing().rejected_max);
    }

    /// The operator loses what it remembers.
    pub(super) fn crash(&mut self) {
        self.local = LocalState::default();
    }

    pub(super) fn conditions(&self) -> [String; 4] {
        let status = self.status();
        [READY, SUCCEEDED, RECONCILING, STALLED].map(|type_| {
            status.conditions.iter().find(|c| c.type_ == type_).map(|c| c.status.clone()).unwrap_or_default()
        })
    }

    pub(super) fn reason(&self) -> Reason {
        Reason::of(&self.status()).unwrap()
    }
}

/// A status without the times of its transitions.
fn without_times(status: &DatasetImportJobStatus) -> DatasetImportJobStatus {
    let mut status = status.clone();
    for condition in &mut status.conditions {
        condition.last_transition_time = Time(Timestamp::UNIX_EPOCH);
    }
    status
}

/// The operator crashes.
#[derive(Debug, PartialEq)]
struct Crash;

/// Performs effects on a scenario, until the operator crashes.
struct ScenarioExecutor<'a> {
    scenario: &'a mut Scenario,
    effects_left: usize,
    looked_up_since_intent: bool,
}

impl ScenarioExecutor<'_> {
    fn answer(&mut self, reconciliation: &Reconciliation, effect: Effect) -> Observation {
        let scenario = &mut *self.scenario;
        match effect {
            Effect::ReadResource => Observation::Resource(Some(Box::new(reconciliation.resource().clone()))),
            Effect::CheckNamespace => Observation::Namespace(scenario.namespace.clone()),
            Effect::DescribeDataset => Observation::Dataset(scenario.dataset.clone()),
            Effect::CheckData => Observation::Data(scenario.data.clone()),
            Effect::ListData => {
                scenario.lists += 1;
                let found = scenario.data.as_ref().map(|check| check.data.clone());
                Observation::DataListed(scenario.listed.pop().or(found).unwrap())
            }
            Effect::ListJobs => Observation::Jobs(Ok(scenario.other_jobs.clone())),
            Effect::ListDataDeletions => Observation::DataDeletions(scenario.data_deletions.clone()),
            Effect::ListTags { job_name } => {
                scenario.reads += 1;
                let missing = || Err(service_error(ErrorKind::NotFound));
                let requested_at = scenario.requested_at.get(&job_name).cloned().unwrap_or_else(missing);
                let request = |at| ImportRequest { requested_at: at, ..scenario.request() };
                let tags = |at| request(at).create_input(1, scenario.imported.get(&job_name)).tags;
                Observation::Tags { tags: requested_at.map(tags), job_name }
            }
            Effect::DescribeJob { attempt, with_tags } => {
                if !with_tags && let Some(at) = scenario.listed_as_recorded(reconciliation, attempt) {
                    return Observation::JobListed { at };
                }
                scenario.reads += 1;
                if let Some(error) = scenario.poll_error.clone().filter(|_| !with_tags) {
                    return Observation::Job { attempt, job: Err(error) };
                }
                self.looked_up_since_intent = true;
                let tags_error = scenario.tags_error.clone();
                let found = scenario.jobs.get(&scenario.request().job_name(attempt)).map(|(job, tags)| ObservedJob {
                    job: job.clone(),
                    tags: with_tags.then(|| tags_error.map_or_else(|| Ok(tags.clone()), Err)),
                });
                Observation::Job { attempt, job: found.ok_or_else(|| service_error(ErrorKind::NotFound)) }
            }
            Effect::WriteStatus { status, then } => {
                if matches!(then, AfterWrite::Submit { .. }) {
                    assert!(reconciliation.observations().live, "an intent is written only after a live read");
                    self.looked_up_since_intent = false;
                }
                let recorded = scenario.resource.status.as_ref().map(without_times);
                assert_ne!(Some(without_times(&status)), recorded, "a write changes more than times of transitions");
                scenario.written.push((*status).clone());
                let written = testing::status_written(reconciliation, *status, then);
                if let Observation::StatusWritten { resource, .. } = &written {
                    scenario.resource = (**resource).clone();
                }
                written
            }
            Effect::ApplyStatus => {
                let applied = testing::status_applied(reconciliation);
                if let Observation::StatusApplied(Some(resource)) = &applied {
                    scenario.resource = (**resource).clone();
                }
                applied
            }
            Effect::CreateJob { attempt } => {
                let intent = reconciliation.observations().intent;
                assert_eq!(intent, Some(attempt), "no create without an intent of this reconciliation");
                assert!(self.looked_up_since_intent, "no create after a lookup from before the intent");
                let name = scenario.request().job_name(attempt);
                Observation::Created { attempt, answer: scenario.create_job(&name) }
            }
        }
    }
}

impl Executor for ScenarioExecutor<'_> {
    type Error = Crash;

    fn now(&self) -> Timestamp {
        self.scenario.now
    }

    fn jitter(&self) -> f64 {
        0.0
    }

    async fn perform(&mut self, reconciliation: &Reconciliation, effect: Effect) -> Result<Observation, Crash> {
        self.effects_left = self.effects_left.checked_sub(1).ok_or(Crash)?;
        Ok(self.answer(reconciliation, effect))
    }
}

pub(super) const IN_PROGRESS: [&str; 4] = ["Unknown", "Unknown", "True", "False"];
pub(super) const SUCCESS: [&str; 4] = ["True", "True", "False", "False"];
pub(super) const FAILURE: [&str; 4] = ["False", "False", "False", "True"];
pub(super) const SUSPENDED: [&str; 4] = ["Unknown", "Unknown", "False", "False"];
