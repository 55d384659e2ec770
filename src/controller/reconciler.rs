//! Reconciles one resource: performs the effects that the core asks for.

use super::context::{Context, LIST_DATA_DELETIONS};
use super::events::events_for;
use super::kube_client::MAX_RETRY_AFTER;
use super::namespaces::Permissions;
use super::{Guarded, jitter, namespace_policy};
use crate::api::conditions::{Reason, State};
use crate::api::{DatasetImportJob, DatasetImportJobStatus};
use crate::import::phase::is_intent_fresh;
use crate::import::timing::{after, since};
use crate::import::{AfterWrite, Effect, ImportRequest, MANAGER, ObservedJob};
use crate::personalize::{
    AccountRegion, Caller, CallerRole, DatasetArn, ErrorKind, Personalize, Priority, ServiceError,
};
use crate::reconciliation::{
    self, Executor as _, Failure, Finished, Interrupted, Observation, Reconciliation, Stopped, drive,
};
use crate::redact::{sanitize, sanitize_display};
use crate::telemetry::metrics::ErrorLabel;
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use std::convert::Infallible;
use std::future::ready;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::time::timeout;
use tracing::{Instrument, debug, error, error_span, info, warn};

const CREATE: &str = "CreateDatasetImportJob";

/// Why a reconciliation did not finish. It is retried.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("the Kubernetes API returned an error: {0}")]
    Kube(#[from] kube::Error),
    #[error("the Kubernetes API did not answer in time")]
    KubeTimeout,
    #[error("the status write may or may not have been applied: {0}")]
    UnconfirmedWrite(Box<Self>),
    #[error("this replica is not the leader any more, or is shutting down")]
    NotLeading,
    #[error("the create waited too long for its turn, so that its request could arrive too late")]
    IntentTooOld,
    #[error("too many write conflicts")]
    Conflicts,
    #[error("effect limit exceeded")]
    EffectLimit,
    #[error("the reconciliation panicked")]
    Panicked,
}

impl Error {
    /// Whether the API server answered that it did not apply the write. A webhook that fails, or that denies with a code
    /// of its own, does so before anything is stored.
    fn is_rejection(&self) -> bool {
        let Self::Kube(kube::Error::Api(status)) = self else { return false };
        let by_webhook =
            ["failed calling webhook", "admission webhook"].iter().any(|text| status.message.contains(text));
        by_webhook || (400..500).contains(&status.code) && status.code != 408
    }

    /// How long the API server, or a webhook that denied the request, asked to wait before it is repeated.
    fn retry_after(&self) -> Duration {
        match self {
            Self::Kube(kube::Error::Api(status)) => {
                let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                Duration::from_secs(seconds.into()).min(MAX_RETRY_AFTER)
            }
            Self::UnconfirmedWrite(error) => error.retry_after(),
            _ => Duration::ZERO,
        }
    }

    /// The value of the metric label `error`.
    pub(crate) fn label(&self) -> ErrorLabel {
        match self {
            Self::Kube(kube::Error::Api(status)) if status.is_forbidden() => ErrorLabel::KubernetesForbidden,
            Self::Kube(_) => ErrorLabel::Kubernetes,
            Self::KubeTimeout => ErrorLabel::KubernetesTimeout,
            Self::UnconfirmedWrite(error) => error.label(),
            Self::NotLeading => ErrorLabel::NotLeading,
            Self::IntentTooOld => ErrorLabel::IntentTooOld,
            Self::Conflicts => ErrorLabel::Conflict,
            Self::EffectLimit => ErrorLabel::EffectLimit,
            Self::Panicked => ErrorLabel::Panicked,
        }
    }
}

/// Reconciles a resource that the watch delivered or that was requeued.
pub(super) async fn reconcile<P: Personalize>(
    guarded: Arc<Guarded>,
    store: Store<Guarded>,
    context: Arc<Context<P>>,
) -> Result<Action, Infallible> {
    // JSON logs would hide a field called `name` behind the name of the span. The level `error` keeps the span at every
    // log level.
    let span = error_span!("reconcile", namespace = guarded.namespace(), resource = guarded.name_any());
    async {
        let resource = match &guarded.0 {
            Ok(resource) => resource,
            Err(invalid) => {
                context.metrics.error(ErrorLabel::Unreadable);
                let error = sanitize(&invalid.error);
                error!(%error, "the resource can't be read; it is skipped until it changes");
                return Ok(Action::await_change());
            }
        };
        if !context.readiness.is_listed(&guarded.namespace().unwrap_or_default()) {
            debug!("initial list not complete; skipping");
            return Ok(Action::await_change());
        }
        // Of thousands that wait after a start, those that can submit now, or have a job, are not held up by the others.
        let goes_first = resource.uid().is_some_and(|uid| context.queue().is_next(&uid));
        let worker = context.workers.acquire(resource, goes_first).await;
        let Some(_worker) = worker else { return Ok(Action::await_change()) };
        // It may have changed in the meantime, or be deleted.
        let current = store.get(&ObjectRef::from_obj(guarded.as_ref()));
        let Some(Ok(resource)) = current.as_deref().map(|guarded| &guarded.0) else {
            return Ok(Action::await_change());
        };
        let start = Instant::now();
        context.metrics.worker_started();
        // Any number of reconciles wait for a worker. On the heap, only those in progress need their space.
        let (requeue_after, outcome) = Box::pin(context.reconcile_once(resource)).await;
        let result = match (&outcome, requeue_after) {
            (Err(_), _) => "error",
            (Ok(()), None) => "success",
            (Ok(()), Some(_)) => "requeue_after",
        };
        context.metrics.worker_ended(result, start.elapsed());
        if let Err(error) = &outcome {
            context.metrics.error(error.label());
            warn!(error = sanitize_display(error), "reconcile failed; will retry");
        }
        Ok(requeue_after.map_or_else(Action::await_change, Action::requeue))
    }
    .instrument(span)
    .await
}

/// Never called: a failed reconciliation is requeued like any other.
pub(super) fn error_policy<P: Personalize>(_: Arc<Guarded>, error: &Infallible, _: Arc<Context<P>>) -> Action {
    match *error {}
}

impl<P: Personalize> Context<P> {
    /// Reconciles a resource once. Returns when to reconcile it again, if not only on change, and why it did not
    /// finish.
    pub(crate) async fn reconcile_once(&self, resource: &DatasetImportJob) -> (Option<Duration>, Result<(), Error>) {
        let Some(uid) = resource.uid() else { return (None, Ok(())) };
        let pause = self.retry_after.remaining();
        if !pause.is_zero() {
            return (Some(pause), Ok(()));
        }
        let namespace = resource.namespace().unwrap_or_default();
        let (access, mut local) = (self.access_version(resource), self.local_states.get(&uid));
        local.note_permissions(access);
        let (together, has_ended) = self.shared_polls.of(&uid, self.clock.now());
        local.note_shared_polls(together, has_ended);
        let mut reconciliation = Reconciliation::new(resource.clone(), local);
        let mut executor = Executor {
            context: self,
            api: Api::namespaced(self.client.clone(), &namespace),
            name: resource.name_any(),
            caller: None,
        };
        // A panic in one reconciliation must not stop the others.
        let run = async {
            let result = drive(&mut reconciliation, &mut executor, &self.queue, &self.timing).await;
            executor.confirm_write(&mut reconciliation, result).await
        };
        let (mut finished, result) = match AssertUnwindSafe(run).catch_unwind().await {
            Ok(Ok(finished)) => (finished, Ok(())),
            Ok(Err(Stopped::Interrupted(Interrupted::Deleted))) => {
                // The watch will report the deletion. Requeue in case the answer was wrong. Until then the queue offers the
                // freed slot to others: it would trigger this resource again at once, and again.
                let waiting = self.timing.waiting;
                let until = after(self.clock.now(), waiting);
                let frees_others = self.queue().requeue_failed(&uid, until, true, false);
                (Finished { requeue_after: Some(waiting), frees_others }, Ok(()))
            }
            Ok(Err(Stopped::Interrupted(Interrupted::TooManyConflicts))) => {
                self.fail(&mut reconciliation, Error::Conflicts)
            }
            Ok(Err(Stopped::EffectLimit)) => self.fail(&mut reconciliation, Error::EffectLimit),
            Ok(Err(Stopped::Executor(error))) => self.fail(&mut reconciliation, error),
            Err(_) => self.fail(&mut reconciliation, Error::Panicked),
        };
        if finished.frees_others
            && let Some(request) = reconciliation.request()
        {
            self.enqueue_admissible(request.dataset.account_region());
            self.wake_replaced_by(&uid);
        }
        let reason = reconciliation.resource().status.as_ref().and_then(Reason::of);
        let is_denied =
            matches!(reason, Some(Reason::NotPermitted | Reason::CredentialsRefused | Reason::AccessDenied));
        if is_denied && self.access_version(resource) != access {
            // The change came before the queue knew that the resource waits for it.
            finished.requeue_after = Some(Duration::ZERO);
        }
        if !reconciliation.shares_polls() {
            self.shared_polls.leave(&uid, self.clock.now());
        }
        let awaits_change = result.is_ok() && finished.requeue_after.is_none();
        if !awaits_change || !self.note_idle(reconciliation.resource(), reconciliation.local(), self.newer_import(&uid))
        {
            self.local_states.set(&uid, reconciliation.into_local());
        }
        // The watch reported its deletion in the meantime.
        if !self.queue().contains(&uid) {
            self.local_states.remove(&uid);
            self.shared_polls.leave(&uid, self.clock.now());
        }
        // kube's scheduler may lose a delay that is over when it is set.
        (finished.requeue_after.map(|delay| delay.max(Duration::from_millis(1))), result)
    }

    fn fail(&self, reconciliation: &mut Reconciliation, error: Error) -> (Finished, Result<(), Error>) {
        let failure = Failure {
            write_unconfirmed: matches!(error, Error::UnconfirmedWrite(_)),
            retry_after: error.retry_after(),
        };
        let finished = reconciliation.fail(failure, self.clock.now(), &self.timing, jitter(), &mut self.queue());
        (finished, Err(error))
    }

    /// What a namespace permits, as the watch delivered it, or read if the watch does not work. An error says why it can't
    /// be known.
    async fn permissions(&self, name: &str) -> Result<Result<Permissions, String>, Error> {
        match timeout(self.kube_timeout, self.namespaces.get(name)).await {
            Ok(Some(permissions)) => Ok(Ok(permissions)),
            Ok(None) | Err(_) => self.read_permissions(name).await,
        }
    }

    /// What a namespace permits now.
    async fn read_permissions(&self, name: &str) -> Result<Result<Permissions, String>, Error> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        match self.kube(namespaces.get_metadata(name)).await {
            Ok(namespace) => Ok(Ok(Permissions::of(namespace.metadata))),
            Err(Error::Kube(kube::Error::Api(status))) if status.is_forbidden() => Ok(Err(format!(
                "the operator's RBAC does not allow it to get the Namespace {name}, so it can't check what this namespace may import"
            ))),
            Err(error) => Err(error),
        }
    }

    /// On whose behalf calls for a resource of this namespace are made.
    pub(crate) async fn caller(&self, namespace: &str, at: &AccountRegion) -> Result<Caller, Error> {
        let role = match self.permissions(namespace).await {
            Ok(Ok(permissions)) => namespace_policy::caller_role(&permissions.annotations, at),
            Ok(Err(why)) => CallerRole::Denied(why),
            // The job of a deleted resource outlives its Namespace.
            Err(Error::Kube(kube::Error::Api(status))) if status.is_not_found() => CallerRole::OfAccount,
            Err(error) => return Err(error),
        };
        Ok(Caller { namespace: namespace.into(), role })
    }

    pub(super) fn kube<T>(
        &self,
        call: impl Future<Output = kube::Result<T>>,
    ) -> impl Future<Output = Result<T, Error>> {
        let bounded = timeout(self.kube_timeout, call);
        async { Ok(bounded.await.map_err(|_| Error::KubeTimeout)??) }
    }
}

/// Performs the effects of one reconciliation: the only I/O.
struct Executor<'a, P> {
    context: &'a Context<P>,
    api: Api<DatasetImportJob>,
    name: String,
    /// On whose behalf calls are made, as the Namespace was when it was last read or watched.
    caller: Option<Caller>,
}

impl<P: Personalize> reconciliation::Executor for Executor<'_, P> {
    type Error = Error;

    fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    fn jitter(&self) -> f64 {
        jitter()
    }

    async fn perform(&mut self, reconciliation: &Reconciliation, effect: Effect) -> Result<Observation, Error> {
        Ok(match effect {
            Effect::ReadResource => {
                let resource = self.context.kube(self.api.get_opt(&self.name)).await?;
                Observation::Resource(resource.map(Box::new))
            }
            Effect::CheckNamespace => {
                let resource = reconciliation.resource();
                let name = resource.namespace().unwrap_or_default();
                Observation::Namespace(match self.context.permissions(&name).await? {
                    Ok(permissions) => self.check_permissions(&permissions, resource),
                    Err(denial) => Err(denial),
                })
            }
            Effect::DescribeJob { attempt, with_tags } => {
                let intent = reconciliation.resource().status.as_ref().and_then(|status| status.submission.as_ref());
                let priority = if with_tags && intent.is_some() { Priority::High } else { Priority::Normal };
                let (request, caller) = self.request(reconciliation).await?;
                if !with_tags {
                    self.record_poll_lag(reconciliation);
                    let listed = self.context.listed_as_recorded(reconciliation, &caller, &request, attempt).await;
                    if let Some(at) = listed {
                        return Ok(Observation::JobListed { at });
                    }
                }
                let job = self.describe_job(&caller, &request, attempt, with_tags, priority).await;
                Observation::Job { attempt, job }
            }
            Effect::DescribeDataset => {
                let (request, caller) = self.request(reconciliation).await?;
                let call = self.context.personalize.describe_dataset(&caller, &request.dataset);
                Observation::Dataset(self.context.counted("DescribeDataset", call).await)
            }
            Effect::ListJobs => {
                let (request, caller) = self.request(reconciliation).await?;
                let call = self.context.personalize.list_dataset_import_jobs(&caller, &request.dataset);
                Observation::Jobs(self.context.counted("ListDatasetImportJobs", call).await)
            }
            Effect::ListDataDeletions => {
                let (request, caller) = self.request(reconciliation).await?;
                let call = self.context.personalize.list_data_deletion_jobs(&caller, &request.dataset);
                let deletions = self.context.counted(LIST_DATA_DELETIONS, call).await;
                if let Some(refusal) = deletions.as_ref().err().filter(|error| error.is_refusal()) {
                    self.context.events.deletions_unchecked(reconciliation.resource(), &request.dataset, refusal);
                }
                Observation::DataDeletions(deletions)
            }
            Effect::ListTags { job_name } => {
                let (request, caller) = self.request(reconciliation).await?;
                let arn = request.dataset.job(&job_name);
                let service = &self.context.personalize;
                let call = service.list_tags_for_resource(&caller, &request.dataset, &arn, Priority::Normal);
                Observation::Tags { job_name, tags: self.context.counted("ListTagsForResource", call).await }
            }
            Effect::CheckData => {
                let dataset = reconciliation.observations().dataset.as_ref().and_then(|dataset| dataset.as_ref().ok());
                let (request, caller) = self.request(reconciliation).await?;
                let spec = &reconciliation.resource().spec;
                Observation::Data(self.context.check_data(&caller, &request, spec, dataset).await?)
            }
            Effect::ListData => {
                let (request, caller) = self.request(reconciliation).await?;
                Observation::DataListed(self.context.list_data(&caller, &request).await)
            }
            Effect::WriteStatus { status, then } => self.write_status(reconciliation, *status, then).await?,
            Effect::ApplyStatus => Observation::StatusApplied(self.apply_status(reconciliation).await.map(Box::new)),
            Effect::CreateJob { attempt } => {
                let answer = self.create_job(reconciliation, attempt).await?;
                Observation::Created { attempt, answer }
            }
        })
    }
}

impl<P: Personalize> Executor<'_, P> {
    /// Checks whether the namespace may make this import. If it may, the calls that follow are made under its role.
    fn check_permissions(&mut self, permissions: &Permissions, resource: &DatasetImportJob) -> Result<(), String> {
        let namespace = resource.namespace().unwrap_or_default();
        if permissions.is_terminating {
            return Err(format!("the Namespace {namespace} is being deleted"));
        }
        let denial = namespace_policy::denial(&permissions.annotations, self.context.default_policy, &resource.spec);
        denial.map_or(Ok(()), Err)?;
        // An invalid ARN is rejected before anything else.
        let Ok(dataset) = DatasetArn::parse(&resource.spec.dataset_arn) else { return Ok(()) };
        let role = namespace_policy::caller_role(&permissions.annotations, dataset.account_region());
        let caller = self.caller.insert(Caller { namespace, role });
        if let CallerRole::Denied(why) = &caller.role { Err(why.clone()) } else { Ok(()) }
    }

    /// The request of the resource, and on whose behalf the calls for it are made.
    async fn request(&mut self, reconciliation: &Reconciliation) -> Result<(ImportRequest, Caller), Error> {
        // Planning asks for no effect that needs it if the spec is invalid.
        let request = reconciliation.request().ok_or(Error::Conflicts)?;
        if let Some(caller) = &self.caller {
            return Ok((request, caller.clone()));
        }
        let caller = self.context.caller(&request.namespace, request.dataset.account_region()).await?;
        Ok((request, self.caller.insert(caller).clone()))
    }

    fn record_poll_lag(&self, reconciliation: &Reconciliation) {
        if let Some(due) = reconciliation.local().unmet_poll() {
            self.context.metrics.poll_lag(since(due, self.context.clock.now()));
        }
    }

    async fn describe_job(
        &self,
        caller: &Caller,
        request: &ImportRequest,
        attempt: i32,
        with_tags: bool,
        priority: Priority,
    ) -> Result<ObservedJob, ServiceError> {
        let (arn, service) = (request.job_arn(attempt), &self.context.personalize);
        let call = service.describe_dataset_import_job(caller, &request.dataset, &arn, priority);
        let job = self.context.counted("DescribeDatasetImportJob", call).await?;
        if !with_tags {
            return Ok(ObservedJob { job, tags: None });
        }
        let call = service.list_tags_for_resource(caller, &request.dataset, &arn, priority);
        Ok(ObservedJob { job, tags: Some(self.context.counted("ListTagsForResource", call).await) })
    }

    /// Calls CreateDatasetImportJob once, within half the grace period: a later request could arrive after another
    /// replica resubmits. The checks follow the wait for the permit, which may be long.
    async fn create_job(
        &mut self,
        reconciliation: &Reconciliation,
        attempt: i32,
    ) -> Result<Result<(), ServiceError>, Error> {
        // The role that the read of the Namespace said right before the intent.
        let (request, caller) = self.request(reconciliation).await?;
        let permit = match self.context.personalize.permit_create(&caller, &request.dataset).await {
            Ok(permit) => permit,
            Err(error) => return Ok(self.context.counted(CREATE, ready(Err(error))).await),
        };
        self.check_may_submit(reconciliation)?;
        self.check_intent_fresh(reconciliation)?;
        let status = reconciliation.resource().status.as_ref();
        let input = request.create_input(attempt, status.and_then(|status| status.data.as_ref()));
        info!(job_name = %input.job_name, dataset = request.dataset.as_str(), "submitting the import");
        let call = self.context.personalize.create_dataset_import_job(permit, &input);
        let bounded = timeout(self.context.timing.grace / 2, call);
        let late = |_| {
            let message = "no answer within half the grace period";
            Err(ServiceError::unanswered(ErrorKind::Indeterminate, "Timeout", message))
        };
        let call = async { bounded.await.unwrap_or_else(late) };
        let derived = request.job_arn(attempt);
        Ok(self.context.counted(CREATE, call).await.map(|returned| {
            if returned != derived {
                warn!(%returned, %derived, "the service returned another ARN than the one the job is looked up by");
            }
        }))
    }

    /// A create is sent in the first half of the grace period only.
    fn check_intent_fresh(&self, reconciliation: &Reconciliation) -> Result<(), Error> {
        let status = reconciliation.resource().status.as_ref();
        let (now, timing) = (self.context.clock.now(), &self.context.timing);
        if status.is_some_and(|status| is_intent_fresh(status, now, timing)) {
            Ok(())
        } else {
            Err(Error::IntentTooOld)
        }
    }

    /// Only the leader submits, and nothing new starts during a shutdown.
    fn check_may_submit(&self, reconciliation: &Reconciliation) -> Result<(), Error> {
        let stopping = self.context.stopping.load(Ordering::Relaxed) && !reconciliation.has_recorded_intent();
        if stopping || !self.context.lease.is_held() {
            return Err(Error::NotLeading);
        }
        Ok(())
    }

    /// Replaces the status with the resource version that was read: a compare-and-swap.
    async fn write_status(
        &mut self,
        reconciliation: &Reconciliation,
        status: DatasetImportJobStatus,
        then: AfterWrite,
    ) -> Result<Observation, Error> {
        if matches!(then, AfterWrite::Submit { .. }) {
            // What the watch of the Namespace delivered may be old.
            let resource = reconciliation.resource();
            let read = self.context.read_permissions(&resource.namespace().unwrap_or_default()).await?;
            if let Err(denial) = read.and_then(|permissions| self.check_permissions(&permissions, resource)) {
                return Ok(Observation::Namespace(Err(denial)));
            }
            self.check_may_submit(reconciliation)?;
        }
        let resource = reconciliation.with_status(status);
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        match self.context.kube(self.api.replace_status(&self.name, &params, &resource)).await {
            Ok(written) => {
                self.record_transition(reconciliation, &written);
                Ok(Observation::StatusWritten { resource: Box::new(written), then })
            }
            Err(Error::Kube(kube::Error::Api(status))) if status.is_conflict() || status.is_not_found() => {
                debug!("the resource has changed; starting over");
                Ok(Observation::Conflict)
            }
            Err(error) if error.is_rejection() => Err(error),
            Err(error) => Err(Error::UnconfirmedWrite(Box::new(error))),
        }
    }

    /// Applies the status as it is. Only later processes need that, so a failure ends nothing.
    async fn apply_status(&self, reconciliation: &Reconciliation) -> Option<DatasetImportJob> {
        let (params, patch) = (PatchParams::apply(MANAGER).force(), Patch::Apply(reconciliation.status_to_apply()));
        match self.context.kube(self.api.patch_status(&self.name, &params, &patch)).await {
            Ok(applied) => Some(applied),
            Err(error) => {
                self.context.metrics.error(error.label());
                warn!(error = sanitize_display(&error), "the status can't be applied; a restart verifies it again");
                None
            }
        }
    }

    /// Finds out whether a status write without an answer was applied. Its resource keeps quota and dataset only if this
    /// read gets no answer, too. A write that arrives even later can record an intent; the watch delivers it, and no
    /// create follows a write that is not confirmed.
    async fn confirm_write(
        &mut self,
        reconciliation: &mut Reconciliation,
        result: Result<Finished, Stopped<Error>>,
    ) -> Result<Finished, Stopped<Error>> {
        let Err(Stopped::Executor(Error::UnconfirmedWrite(cause))) = result else { return result };
        let Ok(read) = self.perform(reconciliation, Effect::ReadResource).await else {
            return Err(Stopped::Executor(Error::UnconfirmedWrite(cause)));
        };
        reconciliation.apply(read, self.now(), &mut self.context.queue()).map_err(Stopped::Interrupted)?;
        Err(Stopped::Executor(*cause))
    }

    /// Logs, counts and publishes what a status write changed.
    fn record_transition(&self, reconciliation: &Reconciliation, written: &DatasetImportJob) {
        let before = reconciliation.resource().status.clone().unwrap_or_default();
        let after = written.status.clone().unwrap_or_default();
        let events = events_for(&before, &after, reconciliation.observations().create.as_ref());
        self.context.events.publish(written, events);
        let Some(reason) = Reason::of(&after) else { return };
        if Reason::of(&before) == Some(reason) {
            debug!(reason = reason.as_str(), "status written");
            return;
        }
        info!(
            reason = reason.as_str(),
            job_name = after.job_name.as_deref(),
            status = after.status.as_deref(),
            failure_reason = after.failure_reason.as_deref(),
            "the import has a new reason"
        );
        let outcome = match reason {
            Reason::ImportSucceeded => "succeeded",
            Reason::ImportFailed => "failed",
            Reason::Retrying => "retried",
            _ if reason.state() == State::Failed => "rejected",
            _ => return,
        };
        let times = (&after.creation_date_time, &after.completion_time);
        let duration = if let (Some(start), Some(end)) = times { Some(since(start.0, end.0)) } else { None };
        self.context.metrics.import_ended(outcome, duration.filter(|_| reason == Reason::ImportSucceeded));
    }
}

#[cfg(test)]
mod tests;
