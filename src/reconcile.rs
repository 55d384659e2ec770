//! One pass over one resource: observe, decide, act, record, until the decision is to rest.

use crate::api::{DatasetImportJob, DatasetImportJobStatus};
use crate::arn::Location;
use crate::conditions::{Reason, State};
use crate::decide::{Again, Found, Inputs, Rest, Seen, Step, decide};
use crate::events;
use crate::health::Health;
use crate::identity::Request;
use crate::leader::Leadership;
use crate::memories::{MANAGER, Memories, Remembered};
use crate::metrics::Metrics;
use crate::personalize::{ACTIVE, Failure, JobSummary, Personalize};
use crate::queue::{Key, Queue};
use crate::schedule::{Pace, Policy, after, since};
use crate::tenancy::{self, Unlisted};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PostParams};
use kube::runtime::events::Recorder;
use kube::{Client, ResourceExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use thiserror::Error;
use tokio::time::timeout;
use tracing::{debug, info, warn};

/// A pass that could not be brought to its end; it is taken up again.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("the Kubernetes API refused: {0}")]
    Kube(#[from] kube::Error),
    #[error("the Kubernetes API did not answer in time")]
    KubeTimeout,
    #[error("this replica does not lead any more, or is stopping")]
    NotLeading,
    #[error("the cache is not complete yet")]
    ColdCache,
    #[error("the decision does not come to rest")]
    Restless,
    #[error("a reconcile panicked")]
    Panicked,
}

impl Error {
    /// A static name, fit for a metric label.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Kube(kube::Error::Api(status)) if status.is_forbidden() => "KubernetesForbidden",
            Self::Kube(_) => "Kubernetes",
            Self::KubeTimeout => "KubernetesTimeout",
            Self::NotLeading => "NotLeading",
            Self::ColdCache => "ColdCache",
            Self::Restless => "Restless",
            Self::Panicked => "Panicked",
        }
    }
}

/// All that a pass works with.
pub(crate) struct Operator<P> {
    pub(crate) client: Client,
    pub(crate) personalize: P,
    pub(crate) policy: Policy,
    pub(crate) unlisted: Unlisted,
    pub(crate) kube_timeout: Duration,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) memories: Memories,
    pub(crate) leadership: Leadership,
    pub(crate) stopping: AtomicBool,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) recorder: Recorder,
    pub(crate) wake: Box<dyn Fn(&Key) + Send + Sync>,
}

/// More steps than any life of a resource takes in one pass.
const MOST_STEPS: usize = 1000;

impl<P: Personalize> Operator<P> {
    /// Takes one pass; returns after how long to look again, if not only on change.
    pub(crate) async fn pass(&self, job: &DatasetImportJob) -> Result<Option<Duration>, Error> {
        let Some(uid) = job.uid() else { return Ok(None) };
        if !self.health.is_warm() {
            return Err(Error::ColdCache);
        }
        let remembered = self.memories.recall(&uid);
        let mut pass = Pass {
            operator: self,
            api: Api::namespaced(self.client.clone(), &job.namespace().unwrap_or_default()),
            name: job.name_any(),
            stale: remembered.outdates(job),
            job: job.clone(),
            uid,
            remembered,
            seen: Seen::default(),
        };
        let outcome = pass.run().await;
        match &outcome {
            Ok(_) => pass.remembered.errors = 0,
            Err(_) => pass.remembered.errors = pass.remembered.errors.saturating_add(1),
        }
        match outcome {
            Ok(Ended::Gone) => {
                self.forget(&pass.uid);
                Ok(None)
            }
            Ok(Ended::Rest(delay)) => {
                self.memories.keep(&pass.uid, pass.remembered);
                Ok(delay)
            }
            Err(error) => {
                self.memories.keep(&pass.uid, pass.remembered);
                Err(error)
            }
        }
    }

    /// Nothing is kept of a resource that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.memories.forget(uid);
        let left = self.queue.lock().ok().and_then(|mut queue| queue.forget(uid));
        if let Some(location) = left {
            self.wake_next(&location);
        }
    }

    /// After how long to take a failed pass up again.
    pub(crate) fn error_delay(&self, uid: &str, error: &Error) -> Duration {
        if matches!(error, Error::ColdCache) {
            return Duration::from_millis(200);
        }
        self.policy.backoff(Pace::Brief, self.memories.recall(uid).errors.max(1), jitter())
    }

    fn kube<T>(&self, call: impl Future<Output = kube::Result<T>>) -> impl Future<Output = Result<T, Error>> {
        let bounded = timeout(self.kube_timeout, call);
        async { Ok(bounded.await.map_err(|_| Error::KubeTimeout)??) }
    }

    /// Wakes those whose turn it is now.
    fn wake_next(&self, location: &Location) {
        let ready = match self.queue.lock() {
            Ok(queue) => queue.ready(location, Timestamp::now()),
            Err(_) => return,
        };
        ready.iter().for_each(|key| (self.wake)(key));
    }
}

/// How a pass ended.
enum Ended {
    /// The resource is no more.
    Gone,
    /// Look again after so long, or on change.
    Rest(Option<Duration>),
}

struct Pass<'a, P> {
    operator: &'a Operator<P>,
    api: Api<DatasetImportJob>,
    name: String,
    uid: String,
    job: DatasetImportJob,
    /// The resource in hand is older than what is known of it.
    stale: bool,
    remembered: Remembered,
    seen: Seen,
}

impl<P: Personalize> Pass<'_, P> {
    async fn run(&mut self) -> Result<Ended, Error> {
        for _ in 0..MOST_STEPS {
            if self.stale && !self.refresh().await? {
                return Ok(Ended::Gone);
            }
            let now = Timestamp::now();
            let proven = self.remembered.proves(&self.job);
            let step = decide(&self.job, proven, &self.seen, &self.remembered.memory, now, &self.operator.policy);
            match step {
                Step::Refresh => {
                    if !self.refresh().await? {
                        return Ok(Ended::Gone);
                    }
                }
                Step::AskPermission => self.seen.permission = Some(self.permission().await?),
                Step::TakeTurn => self.take_turn(now),
                Step::DescribeJob { attempt, prove } => self.describe_job(attempt, prove).await,
                Step::DescribeDataset => self.describe_dataset().await,
                Step::ListJobs => self.list_jobs().await,
                Step::RecordIntent(status) => {
                    self.may_submit()?;
                    let attempt = status.submission.as_ref().map_or(1, |s| s.attempt);
                    if self.record(*status).await? {
                        self.seen.intended(attempt);
                    }
                }
                Step::Create { attempt } => self.create(attempt).await?,
                Step::Rest(rest) => {
                    if let Some(ended) = self.rest(rest).await? {
                        return Ok(ended);
                    }
                }
            }
        }
        Err(Error::Restless)
    }

    fn request(&self) -> Option<Request> {
        Request::new(&self.job.namespace().unwrap_or_default(), &self.name, &self.job.spec).ok()
    }

    /// Reads the resource live; false if it is gone, or another one bears its name.
    async fn refresh(&mut self) -> Result<bool, Error> {
        let live = self.operator.kube(self.api.get_opt(&self.name)).await?;
        let Some(live) = live.filter(|live| live.uid().as_ref() == Some(&self.uid)) else {
            return Ok(false);
        };
        self.job = live;
        self.stale = false;
        self.remembered.unsure = false;
        self.seen.live = true;
        self.observe();
        Ok(true)
    }

    /// Whether the namespace may make this import, by its annotations as they are now.
    async fn permission(&self) -> Result<Result<(), String>, Error> {
        let namespaces: Api<Namespace> = Api::all(self.operator.client.clone());
        let name = self.job.namespace().unwrap_or_default();
        match self.operator.kube(namespaces.get_metadata(&name)).await {
            Ok(namespace) => {
                let barred = tenancy::barred(namespace.annotations(), self.operator.unlisted, &self.job.spec);
                Ok(barred.map_or(Ok(()), Err))
            }
            Err(Error::Kube(kube::Error::Api(status))) if status.is_forbidden() => Ok(Err(format!(
                "the operator's RBAC does not let it get the Namespace {name}, so it can't tell what is permitted there"
            ))),
            Err(error) => Err(error),
        }
    }

    fn observe(&self) {
        if let Ok(mut queue) = self.operator.queue.lock() {
            queue.observe(&self.job);
        }
    }

    fn take_turn(&mut self, now: Timestamp) {
        if let Ok(mut queue) = self.operator.queue.lock() {
            self.seen.turn = Some(queue.take_turn(&self.uid, now));
        }
    }

    async fn describe_job(&mut self, attempt: i32, prove: bool) {
        let Some(request) = self.request() else { return };
        let (arn, service) = (request.job_arn(attempt), &self.operator.personalize);
        if let (false, Some(due)) = (prove, self.remembered.due.take()) {
            self.operator.metrics.poll_lag(since(due, Timestamp::now()));
        }
        let job = self.counted("DescribeDatasetImportJob", service.job(&request.dataset, &arn)).await;
        let found = match job {
            Ok(job) if prove => {
                let tags = self.counted("ListTagsForResource", service.tags(&request.dataset, &arn)).await;
                Ok(Found { job, tags: Some(tags) })
            }
            Ok(job) => Ok(Found { job, tags: None }),
            Err(failure) => Err(failure),
        };
        let memory = &mut self.remembered.memory;
        if let Err(failure) = &found
            && failure.class == crate::personalize::Class::NotFound
            && attempt == 1
        {
            memory.looked_up = true;
        }
        // A name that nobody bears yet says nothing of a running job.
        if found.is_ok() {
            memory.described = Some(Timestamp::now());
        }
        self.seen.lookups.insert(attempt, found);
    }

    async fn describe_dataset(&mut self) {
        let Some(request) = self.request() else { return };
        let status = self.operator.personalize.dataset_status(&request.dataset);
        self.seen.dataset = Some(self.counted("DescribeDataset", status).await);
    }

    async fn list_jobs(&mut self) {
        let Some(request) = self.request() else { return };
        let jobs = self.counted("ListDatasetImportJobs", self.operator.personalize.jobs(&request.dataset)).await;
        if let Ok(jobs) = &jobs {
            self.remembered.memory.typical = typical(jobs);
        }
        self.seen.jobs = Some(jobs);
    }

    async fn create(&mut self, attempt: i32) -> Result<(), Error> {
        self.may_submit()?;
        let Some(request) = self.request() else { return Ok(()) };
        let name = request.job_name(attempt);
        info!(job_name = %name, dataset = request.dataset.as_str(), "submitting the import");
        let answer = self.counted("CreateDatasetImportJob", self.operator.personalize.create(&request, &name)).await;
        if answer.is_ok()
            && let Ok(mut queue) = self.operator.queue.lock()
        {
            queue.accepted(request.dataset.location());
        }
        self.seen.created(attempt, answer.map(drop));
        Ok(())
    }

    /// Nothing is submitted by a replica that does not lead, nor by one that was told to stop.
    fn may_submit(&self) -> Result<(), Error> {
        let begun = self.seen.intent.is_some();
        let stopping = self.operator.stopping.load(Ordering::Relaxed) && !begun;
        if stopping || !self.operator.leadership.holds() {
            return Err(Error::NotLeading);
        }
        Ok(())
    }

    async fn counted<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let answer = call.await;
        match &answer {
            Ok(_) => self.operator.metrics.service_call(operation, "OK"),
            Err(failure) => {
                self.operator.metrics.service_call(operation, failure.class.label());
                let class = failure.class.label();
                if failure.class == crate::personalize::Class::NotFound {
                    debug!(operation, class, %failure, "the service does not know it");
                } else {
                    warn!(operation, class, %failure, "a call to the service failed");
                }
            }
        }
        answer
    }

    /// Writes the status by compare-and-swap. False if somebody else was faster: then the pass begins
    /// anew with what the API server has.
    async fn record(&mut self, status: DatasetImportJobStatus) -> Result<bool, Error> {
        let mut job = self.job.clone();
        let before = job.status.replace(status).unwrap_or_default();
        job.metadata.managed_fields = None;
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        match self.operator.kube(self.api.replace_status(&self.name, &params, &job)).await {
            Ok(written) => {
                self.remembered.wrote(&written);
                self.job = written;
                self.observe();
                self.tell(&before);
                Ok(true)
            }
            Err(Error::Kube(kube::Error::Api(status))) if status.is_conflict() || status.is_not_found() => {
                debug!("the resource has changed; beginning anew");
                self.stale = true;
                self.seen = Seen::default();
                Ok(false)
            }
            Err(error) => {
                self.remembered.unsure = true;
                Err(error)
            }
        }
    }

    /// Ends the pass; `None` if it has to begin anew.
    async fn rest(&mut self, rest: Rest) -> Result<Option<Ended>, Error> {
        let Rest { status, again, quota_exceeded } = rest;
        let changed = status.is_some();
        if let Some(status) = status
            && !self.record(*status).await?
        {
            return Ok(None);
        }
        let now = Timestamp::now();
        let delay = match again {
            Again::OnChange => None,
            Again::At(at) => Some(since(now, at)),
            Again::After(delay) => Some(delay),
            Again::Setback(pace) => {
                self.remembered.setbacks = self.remembered.setbacks.saturating_add(1);
                Some(self.operator.policy.backoff(pace, self.remembered.setbacks, jitter()))
            }
        };
        if matches!(again, Again::Setback(_)) {
            let until = after(now, delay.unwrap_or_default());
            self.remembered.memory.pause = Some((until, Inputs::of(&self.job)));
        } else {
            self.remembered.setbacks = 0;
            self.remembered.memory.pause = None;
        }
        self.remembered.due = if let Again::At(at) = again { Some(at) } else { None };
        self.leave_queue(changed, quota_exceeded, now);
        // A delay that is over by the time it is set would be lost by some schedulers.
        Ok(Some(Ended::Rest(delay.map(|d| d.max(Duration::from_millis(1))))))
    }

    /// Gives the turn back, and wakes the next if that or a new status may have made room.
    fn leave_queue(&self, changed: bool, quota_exceeded: bool, now: Timestamp) {
        let Some(request) = self.request() else { return };
        let location = request.dataset.location();
        let Ok(mut queue) = self.operator.queue.lock() else { return };
        let released = queue.release(&self.uid);
        queue.postpone(&self.uid, self.remembered.memory.pause.as_ref().map(|(until, _)| *until));
        if quota_exceeded {
            let delay = |refusals| self.operator.policy.backoff(Pace::Brief, refusals, jitter());
            queue.hold(location, now, delay);
        }
        drop(queue);
        if changed || released {
            self.operator.wake_next(location);
        }
    }

    /// Logs, counts and publishes what the new status tells.
    fn tell(&self, before: &DatasetImportJobStatus) {
        let after = self.job.status.clone().unwrap_or_default();
        let created = matches!(self.seen.create, Some(Ok(())));
        events::publish(&self.operator.recorder, &self.job, events::tales(before, &after, created));
        let (was, is) = (Reason::of(before), Reason::of(&after));
        let Some(reason) = is else { return };
        if was == is {
            debug!(reason = reason.as_str(), "status written");
            return;
        }
        info!(
            reason = reason.as_str(),
            job_name = after.job_name.as_deref(),
            status = after.status.as_deref(),
            failure_reason = after.failure_reason.as_deref(),
            "the import has moved on"
        );
        let outcome = match reason {
            Reason::ImportSucceeded => "succeeded",
            Reason::ImportFailed => "failed",
            Reason::Retrying => "retried",
            _ if reason.state() == State::Failed => "rejected",
            _ => return,
        };
        let times = (&after.creation_date_time, &after.completion_time);
        let took = if let (Some(began), Some(ended)) = times { Some(since(began.0, ended.0)) } else { None };
        self.operator.metrics.import_ended(outcome, took.filter(|_| reason == Reason::ImportSucceeded));
    }
}

/// How long imports into a dataset take: the median of those that succeeded.
fn typical(jobs: &[JobSummary]) -> Option<Duration> {
    let mut took: Vec<Duration> = jobs
        .iter()
        .filter(|job| job.status == ACTIVE)
        .filter_map(|job| Some(since(job.created?, job.updated?)))
        .collect();
    took.sort_unstable();
    took.get(took.len() / 2).copied()
}

/// A number in 0..1, to spread delays; it needs no quality.
fn jitter() -> f64 {
    f64::from(Timestamp::now().subsec_nanosecond().unsigned_abs() % 10_007) / 10_007.0
}
