//! A simulated service, and passes over one resource against it.

use crate::api::conditions::{READY, RECONCILING, Reason, STALLED, SUCCEEDED};
use crate::api::{DatasetImportJob, DatasetImportJobSpec, DatasetImportJobStatus, Tag};
use crate::import::plan::{Effect, Memory, Observations, ObservedJob, Outcome, Requeue, decide};
use crate::import::request::ImportRequest;
use crate::import::request::tests::spec;
use crate::import::timing::tests::policy;
use crate::import::timing::{after, since};
use crate::personalize::{ACTIVE, CREATE_FAILED, CREATE_PENDING, ErrorKind, Job, JobSummary, ServiceError};
use crate::queue::Admission;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;

/// A world of one resource and one service, in which only the recorded status survives a crash.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) job: DatasetImportJob,
    pub(super) memory: Memory,
    pub(super) now: Timestamp,
    pub(super) jobs: BTreeMap<String, (Job, Vec<Tag>)>,
    pub(super) accepted: Vec<String>,
    pub(super) writes: usize,
    pub(super) written: Vec<DatasetImportJobStatus>,
    pub(super) reads: usize,
    /// The answer to the next create call, after its effect if the flag says so.
    pub(super) answers: Vec<(bool, Result<(), ServiceError>)>,
    pub(super) dataset: Result<String, ServiceError>,
    /// The dataset's jobs beside its own.
    pub(super) running: Vec<JobSummary>,
    /// When the resource was created that each of them was made for.
    pub(super) ages: BTreeMap<String, Result<Option<Timestamp>, ServiceError>>,
    pub(super) tags: Option<ServiceError>,
    pub(super) permission: Result<(), String>,
}

pub(super) fn failure(kind: ErrorKind) -> ServiceError {
    ServiceError::unanswered(kind, kind.label(), "as told by the test")
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(spec())
    }

    pub(super) fn with(spec: DatasetImportJobSpec) -> Self {
        let mut job = DatasetImportJob::new("nightly", spec);
        job.metadata.namespace = Some("shop".into());
        job.metadata.uid = Some("uid".into());
        job.metadata.generation = Some(1);
        job.metadata.creation_timestamp = Some(Time(Timestamp::from_second(1_699_999_000).unwrap()));
        job.status = Some(DatasetImportJobStatus { observed_generation: Some(-1), ..Default::default() });
        Self {
            job,
            memory: Memory::default(),
            now: Timestamp::from_second(1_700_000_000).unwrap(),
            jobs: BTreeMap::new(),
            accepted: Vec::new(),
            writes: 0,
            written: Vec::new(),
            reads: 0,
            answers: Vec::new(),
            dataset: Ok(ACTIVE.into()),
            running: Vec::new(),
            ages: BTreeMap::new(),
            tags: None,
            permission: Ok(()),
        }
    }

    pub(super) fn request(&self) -> ImportRequest {
        ImportRequest::new("shop", "nightly", &self.job.spec).unwrap()
    }

    pub(super) fn status(&self) -> DatasetImportJobStatus {
        self.job.status.clone().unwrap()
    }

    pub(super) fn annotate(&mut self, key: &str, value: &str) {
        self.job.metadata.annotations.get_or_insert_default().insert(key.into(), value.into());
    }

    pub(super) fn make_job(&mut self, name: &str, status: &str, tags: Vec<Tag>) {
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

    pub(super) fn end(&mut self, name: &str, status: &str) {
        let now = self.now;
        let (job, _) = self.jobs.get_mut(name).unwrap();
        job.status = status.into();
        job.updated = Some(now);
        job.failure_reason = (status == CREATE_FAILED).then(|| "Invalid Data location.".into());
    }

    pub(super) fn create(&mut self, name: &str) -> Result<(), ServiceError> {
        let (effect, answer) = if self.answers.is_empty() { (true, Ok(())) } else { self.answers.remove(0) };
        if effect {
            if self.jobs.contains_key(name) {
                return Err(failure(ErrorKind::AlreadyExists));
            }
            self.accepted.push(name.into());
            let tags = self.request().own_tags();
            self.make_job(name, CREATE_PENDING, tags);
        }
        answer
    }

    /// One pass, which dies after so many steps. Tells how it ended, if it lived.
    pub(super) fn pass(&mut self, proven: bool, steps: usize) -> Option<Outcome> {
        let mut seen = Observations::default();
        let mut looked_since_intent = false;
        for _ in 0..steps {
            let step = decide(&self.job, proven, &seen, &self.memory, self.now, &policy());
            match step {
                Effect::Refresh => seen.live = true,
                Effect::AskPermission => seen.permission = Some(self.permission.clone()),
                Effect::TakeTurn => seen.turn = Some(Admission::Admitted),
                Effect::DescribeDataset => seen.dataset = Some(self.dataset.clone()),
                Effect::ListJobs => seen.jobs = Some(Ok(self.running.clone())),
                Effect::ReadAge { job_name } => {
                    self.reads += 1;
                    let age = self.ages.get(&job_name).cloned().unwrap_or_else(|| Err(failure(ErrorKind::NotFound)));
                    seen.ages.insert(job_name, age);
                }
                Effect::DescribeJob { attempt, prove } => {
                    self.reads += 1;
                    looked_since_intent = true;
                    let found = self.jobs.get(&self.request().job_name(attempt));
                    let denied = self.tags.clone();
                    let found = found.map(|(job, tags)| ObservedJob {
                        job: job.clone(),
                        tags: prove.then(|| denied.map_or_else(|| Ok(tags.clone()), Err)),
                    });
                    if found.is_some() {
                        self.memory.described = Some(self.now);
                    }
                    seen.lookups.insert(attempt, found.ok_or_else(|| failure(ErrorKind::NotFound)));
                }
                Effect::RecordIntent(status) => {
                    assert!(seen.live, "an intent is written only over a live read");
                    let attempt = status.submission.as_ref().unwrap().attempt;
                    self.write(*status);
                    seen.intended(attempt);
                    looked_since_intent = false;
                }
                Effect::Create { attempt } => {
                    assert_eq!(seen.intent, Some(attempt), "nothing is created without an intent of this pass");
                    assert!(looked_since_intent, "nothing is created on the word of a look before the intent");
                    let name = self.request().job_name(attempt);
                    let answer = self.create(&name);
                    seen.created(attempt, answer);
                }
                Effect::Outcome(rest) => {
                    if let Some(status) = &rest.status {
                        assert_ne!(
                            Some(&**status),
                            self.job.status.as_ref(),
                            "nothing is written that says nothing new"
                        );
                        self.write((**status).clone());
                    }
                    self.memory.rested = true;
                    self.memory.notice_intent(self.job.status.as_ref(), self.now);
                    return Some(rest);
                }
            }
        }
        None
    }

    fn write(&mut self, status: DatasetImportJobStatus) {
        self.writes += 1;
        self.written.push(status.clone());
        self.job.status = Some(status);
    }

    /// Passes, with the clock going on, until nothing is left to do but to wait for the service.
    pub(super) fn settle(&mut self) -> Outcome {
        for _ in 0..50 {
            let Some(rest) = self.pass(true, 100) else { panic!("a pass does not come to rest") };
            match rest.again {
                Requeue::At(at) if since(self.now, at) < policy().poll_min => self.now = at.max(self.now),
                _ => return rest,
            }
        }
        panic!("the resource does not settle: {:?}", self.status());
    }

    pub(super) fn later(&mut self) {
        self.now = after(self.now, policy().rejected_max);
    }

    pub(super) fn crash(&mut self) {
        self.memory = Memory::default();
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

pub(super) const IN_PROGRESS: [&str; 4] = ["Unknown", "Unknown", "True", "False"];
pub(super) const SUCCESS: [&str; 4] = ["True", "True", "False", "False"];
pub(super) const FAILURE: [&str; 4] = ["False", "False", "False", "True"];
pub(super) const HELD: [&str; 4] = ["Unknown", "Unknown", "False", "False"];
