//! One pass over one resource: observe, decide, act, record, until the decision is to rest.

use crate::api::conditions::{Reason, State};
use crate::api::{DatasetImportJob, DatasetImportJobStatus};
use crate::controller::context::Memories;
use crate::controller::events::{self, EventPublisher};
use crate::controller::kube_client::RetryAfter;
use crate::controller::leader_election::LeaseHold;
use crate::controller::namespace_policy::{self, DefaultPolicy};
use crate::http::readiness::Readiness;
use crate::import::plan::{Effect, ObservedJob, Outcome};
use crate::import::timing::{Timing, since};
use crate::personalize::AccountRegion;
use crate::personalize::{ErrorKind, Personalize, ServiceError};
use crate::queue::{Key, Queue, Uid};
use crate::reconciliation::{MANAGER, Reconciliation};
use crate::telemetry::metrics::{ErrorLabel, Metrics, Snapshot};
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::Semaphore;
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
    #[error("others change the resource faster than a pass takes")]
    Outrun,
    #[error("the decision does not come to rest")]
    Restless,
    #[error("a reconcile panicked")]
    Panicked,
}

impl Error {
    /// Whether the API server answered that it did not do it.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Kube(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 408)
    }

    /// A static name, fit for a metric label.
    pub(crate) fn label(&self) -> ErrorLabel {
        match self {
            Self::Kube(kube::Error::Api(status)) if status.is_forbidden() => ErrorLabel::KubernetesForbidden,
            Self::Kube(_) => ErrorLabel::Kubernetes,
            Self::KubeTimeout => ErrorLabel::KubernetesTimeout,
            Self::NotLeading => ErrorLabel::NotLeading,
            Self::Outrun => ErrorLabel::Conflict,
            Self::Restless => ErrorLabel::EffectLimit,
            Self::Panicked => ErrorLabel::Panicked,
        }
    }
}

/// All that a pass works with.
pub(crate) struct Context<P> {
    pub(crate) client: Client,
    pub(crate) personalize: P,
    pub(crate) policy: Timing,
    pub(crate) unlisted: DefaultPolicy,
    pub(crate) kube_timeout: Duration,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) memories: Memories,
    pub(crate) leadership: LeaseHold,
    pub(crate) stopping: AtomicBool,
    pub(crate) health: Arc<Readiness>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) recorder: EventPublisher,
    pub(crate) wake: Box<dyn Fn(&Key) + Send + Sync>,
    /// Until when the API server wants to be left alone.
    pub(crate) pause: RetryAfter,
    /// Those who may work on a resource now.
    pub(crate) workers: Semaphore,
}

/// More steps than any life of a resource takes in one pass.
const MOST_STEPS: usize = 1000;

impl<P: Personalize> Context<P> {
    /// Takes one pass; returns after how long to look again, if not only on change, and what kept the pass from its end.
    pub(crate) async fn pass(&self, job: &DatasetImportJob) -> (Option<Duration>, Result<(), Error>) {
        let Some(uid) = job.uid() else { return (None, Ok(())) };
        let left_alone = self.pause.left();
        if !left_alone.is_zero() {
            return (Some(left_alone), Ok(()));
        }
        let mut carrier = Executor {
            operator: self,
            api: Api::namespaced(self.client.clone(), &job.namespace().unwrap_or_default()),
            name: job.name_any(),
            pass: Reconciliation::new(job.clone(), self.memories.recall(&uid)),
        };
        // One resource's panic must not take the others' worker down.
        let outcome = AssertUnwindSafe(carrier.run()).catch_unwind().await.unwrap_or(Err(Error::Panicked));
        let mut pass = carrier.pass;
        let (delay, outcome) = match outcome {
            Ok(Ended::Outcome(delay)) => (delay, Ok(())),
            Ok(Ended::Gone) => {
                if self.queue().release(&uid) {
                    self.wake_next_to(&pass);
                }
                // The watch tells when it is to be forgotten. Should the answer have been wrong, it is looked at again.
                (Some(self.policy.waiting), Ok(()))
            }
            Err(error) => {
                let (delay, released) = pass.failed(Timestamp::now(), &self.policy, jitter(), &mut self.queue());
                if released {
                    self.wake_next_to(&pass);
                }
                (Some(delay), Err(error))
            }
        };
        self.memories.keep(&uid, pass.end());
        // Deleted meanwhile.
        if !self.queue().knows(&uid) {
            self.memories.forget(&uid);
        }
        (delay, outcome)
    }

    /// The queue. A panic that held it harms nobody: it is an index over what was delivered, and each of its entries is
    /// replaced whole.
    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a resource as the watch delivers it.
    pub(crate) fn observe(&self, job: &DatasetImportJob) {
        let proven = self.memories.recall(&job.uid().unwrap_or_default()).proves(job);
        self.queue().observe(job, proven);
    }

    /// Nothing is kept of a resource that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.memories.forget(uid);
        let left = self.queue().forget(uid, Timestamp::now());
        if let Some(location) = left {
            self.wake_next(&location);
        }
    }

    /// Tells the metrics what there is, and how overdue a look at a running job is. This leadership
    /// `began` then; before that nobody looked on its behalf.
    pub(crate) fn survey(&self, began: Timestamp) {
        let now = Timestamp::now();
        let queue = self.queue();
        let (pools, reasons, followed) = (queue.tally(now), queue.reasons(), queue.followed());
        drop(queue);
        let unseen = |(uid, known): &(Uid, Timestamp)| {
            let seen = self.memories.recall(uid).memory.described.unwrap_or(began.max(*known));
            since(seen, now).saturating_sub(self.policy.poll_max)
        };
        let overdue = followed.iter().map(unseen).max().unwrap_or_default();
        self.metrics.record_snapshot(&Snapshot { pools, reasons, overdue }, now);
    }

    fn kube<T>(&self, call: impl Future<Output = kube::Result<T>>) -> impl Future<Output = Result<T, Error>> {
        let bounded = timeout(self.kube_timeout, call);
        async { Ok(bounded.await.map_err(|_| Error::KubeTimeout)??) }
    }

    /// Wakes those whose turn it is now beside this one.
    fn wake_next_to(&self, pass: &Reconciliation) {
        if let Some(request) = pass.request() {
            self.wake_next(request.dataset.location());
        }
    }

    /// Wakes those whose turn it is now.
    fn wake_next(&self, location: &AccountRegion) {
        let ready = self.queue().ready(location, Timestamp::now());
        ready.iter().for_each(|key| (self.wake)(key));
    }
}

/// How a pass ended.
enum Ended {
    /// The resource is no more.
    Gone,
    /// Look again after so long, or on change.
    Outcome(Option<Duration>),
}

/// Carries out the steps of a pass.
struct Executor<'a, P> {
    operator: &'a Context<P>,
    api: Api<DatasetImportJob>,
    name: String,
    pass: Reconciliation,
}

impl<P: Personalize> Executor<'_, P> {
    async fn run(&mut self) -> Result<Ended, Error> {
        for _ in 0..MOST_STEPS {
            let now = Timestamp::now();
            match self.pass.next(now, &self.operator.policy) {
                Effect::Refresh => {
                    if !self.refresh().await? {
                        return Ok(Ended::Gone);
                    }
                }
                Effect::AskPermission => {
                    let permission = self.permission().await?;
                    self.pass.permitted(permission);
                }
                Effect::TakeTurn => self.try_admit(now),
                Effect::DescribeJob { attempt, prove } => self.describe_job(attempt, prove).await,
                Effect::DescribeDataset => self.describe_dataset().await,
                Effect::ListJobs => self.list_jobs().await,
                Effect::ReadAge { job_name } => self.read_age(job_name).await,
                Effect::RecordIntent(status) => {
                    self.may_submit()?;
                    let attempt = status.submission.as_ref().map_or(1, |s| s.attempt);
                    self.record(*status, Some(attempt)).await?;
                }
                Effect::Create { attempt } => self.create(attempt).await?,
                Effect::Outcome(rest) => {
                    if let Some(ended) = self.rest(rest).await? {
                        return Ok(ended);
                    }
                }
            }
        }
        Err(Error::Restless)
    }

    /// Reads the resource live; false if it is gone, or another one bears its name.
    async fn refresh(&mut self) -> Result<bool, Error> {
        let live = self.operator.kube(self.api.get_opt(&self.name)).await?;
        let mut queue = self.operator.queue();
        Ok(self.pass.refreshed(live, &mut queue))
    }

    /// Whether the namespace may make this import, by its annotations as they are now.
    async fn permission(&self) -> Result<Result<(), String>, Error> {
        let namespaces: Api<Namespace> = Api::all(self.operator.client.clone());
        let job = self.pass.job();
        let name = job.namespace().unwrap_or_default();
        match self.operator.kube(namespaces.get_metadata(&name)).await {
            Ok(namespace) if namespace.metadata.deletion_timestamp.is_some() => {
                Ok(Err(format!("the Namespace {name} is being deleted")))
            }
            Ok(namespace) => {
                let barred = namespace_policy::barred(namespace.annotations(), self.operator.unlisted, &job.spec);
                Ok(barred.map_or(Ok(()), Err))
            }
            Err(Error::Kube(kube::Error::Api(status))) if status.is_forbidden() => Ok(Err(format!(
                "the operator's RBAC does not let it get the Namespace {name}, so it can't tell what is permitted there"
            ))),
            Err(error) => Err(error),
        }
    }

    fn try_admit(&mut self, now: Timestamp) {
        let uid = self.pass.job().uid().unwrap_or_default();
        let turn = self.operator.queue().try_admit(&uid, now);
        self.pass.turned(turn);
    }

    async fn describe_job(&mut self, attempt: i32, prove: bool) {
        let Some(request) = self.pass.request() else { return };
        let (arn, service) = (request.job_arn(attempt), &self.operator.personalize);
        if let (false, Some(due)) = (prove, self.pass.take_due()) {
            self.operator.metrics.poll_lag(since(due, Timestamp::now()));
        }
        let job =
            self.counted("DescribeDatasetImportJob", service.describe_dataset_import_job(&request.dataset, &arn)).await;
        let found = match job {
            Ok(job) if prove => {
                let tags =
                    self.counted("ListTagsForResource", service.list_tags_for_resource(&request.dataset, &arn)).await;
                Ok(ObservedJob { job, tags: Some(tags) })
            }
            Ok(job) => Ok(ObservedJob { job, tags: None }),
            Err(failure) => Err(failure),
        };
        self.pass.looked_up(attempt, found, Timestamp::now());
    }

    async fn describe_dataset(&mut self) {
        let Some(request) = self.pass.request() else { return };
        let status = self.operator.personalize.describe_dataset(&request.dataset);
        let status = self.counted("DescribeDataset", status).await;
        self.pass.saw_dataset(status);
    }

    async fn list_jobs(&mut self) {
        let Some(request) = self.pass.request() else { return };
        let jobs = self
            .counted("ListDatasetImportJobs", self.operator.personalize.list_dataset_import_jobs(&request.dataset))
            .await;
        let queue = self.operator.queue();
        self.pass.saw_jobs(jobs, &queue);
    }

    async fn read_age(&mut self, job_name: String) {
        let Some(request) = self.pass.request() else { return };
        let arn = request.dataset.job(&job_name);
        let tags = self.operator.personalize.list_tags_for_resource(&request.dataset, &arn);
        let tags = self.counted("ListTagsForResource", tags).await;
        self.pass.saw_age(job_name, tags);
    }

    async fn create(&mut self, attempt: i32) -> Result<(), Error> {
        self.may_submit()?;
        let Some(request) = self.pass.request() else { return Ok(()) };
        let name = request.job_name(attempt);
        info!(job_name = %name, dataset = request.dataset.as_str(), "submitting the import");
        // What is not sent by then would arrive when others take it for lost.
        let call = timeout(
            self.operator.policy.grace / 2,
            self.operator.personalize.create_dataset_import_job(&request, &name),
        );
        let late = |_| {
            Err(ServiceError::unanswered(ErrorKind::Indeterminate, "Timeout", "no answer within half the grace period"))
        };
        let call = async { call.await.unwrap_or_else(late) };
        let answer = self.counted("CreateDatasetImportJob", call).await;
        let derived = request.job_arn(attempt);
        if let Ok(told) = &answer
            && *told != derived
        {
            warn!(%told, %derived, "the service names the job unlike the ARN it is looked for by");
        }
        let mut queue = self.operator.queue();
        self.pass.created(attempt, answer.map(drop), &mut queue);
        Ok(())
    }

    /// Nothing is submitted by a replica that does not lead, nor by one that was told to stop.
    fn may_submit(&self) -> Result<(), Error> {
        let stopping = self.operator.stopping.load(Ordering::Relaxed) && !self.pass.has_begun();
        if stopping || !self.operator.leadership.holds() {
            return Err(Error::NotLeading);
        }
        Ok(())
    }

    async fn counted<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, ServiceError>>,
    ) -> Result<T, ServiceError> {
        let answer = call.await;
        match &answer {
            Ok(_) => self.operator.metrics.service_request(operation, "OK"),
            Err(failure) => {
                self.operator.metrics.service_request(operation, failure.kind.label());
                let class = failure.kind.label();
                if failure.kind == ErrorKind::NotFound {
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
    async fn record(&mut self, status: DatasetImportJobStatus, intent: Option<i32>) -> Result<bool, Error> {
        let before = self.pass.job().status.clone().unwrap_or_default();
        let job = self.pass.with_status(status);
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        match self.operator.kube(self.api.replace_status(&self.name, &params, &job)).await {
            Ok(written) => {
                let mut queue = self.operator.queue();
                self.pass.recorded(written, intent, &mut queue);
                drop(queue);
                self.tell(&before);
                Ok(true)
            }
            Err(Error::Kube(kube::Error::Api(status))) if status.is_conflict() || status.is_not_found() => {
                debug!("the resource has changed; beginning anew");
                if self.pass.outrun() { Ok(false) } else { Err(Error::Outrun) }
            }
            // Whoever refuses by a 4xx has not written.
            Err(error) if error.is_refusal() => Err(error),
            Err(error) => {
                self.pass.unsure();
                Err(error)
            }
        }
    }

    /// Ends the pass; `None` if it has to begin anew.
    async fn rest(&mut self, rest: Outcome) -> Result<Option<Ended>, Error> {
        let Outcome { status, again, refusal, verified } = rest;
        let changed = status.is_some();
        if let Some(status) = status
            && !self.record(*status, None).await?
        {
            return Ok(None);
        }
        if verified {
            self.pass.verified(&mut self.operator.queue());
        }
        let (now, policy) = (Timestamp::now(), &self.operator.policy);
        let delay = self.pass.rested(again, now, policy, jitter());
        let released = self.pass.leave_queue(refusal, now, policy, jitter(), &mut self.operator.queue());
        // Nor does one on its way out hold anybody up.
        let leaves = self.pass.job().metadata.deletion_timestamp.is_some();
        if changed || released || leaves {
            self.operator.wake_next_to(&self.pass);
        }
        // A delay that is over by the time it is set would be lost by some schedulers.
        Ok(Some(Ended::Outcome(delay.map(|d| d.max(Duration::from_millis(1))))))
    }

    /// Logs, counts and publishes what the new status tells.
    fn tell(&self, before: &DatasetImportJobStatus) {
        let job = self.pass.job();
        let after = job.status.clone().unwrap_or_default();
        let events_for = events::events_for(before, &after, self.pass.seen().create.as_ref());
        events::publish(&self.operator.recorder, job, events_for);
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

/// A number in 0..1, to spread delays; it needs no quality.
fn jitter() -> f64 {
    f64::from(Timestamp::now().subsec_nanosecond().unsigned_abs() % 10_007) / 10_007.0
}

#[cfg(test)]
pub(crate) mod tests;
