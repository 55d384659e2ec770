//! Performs the effects that the core asks for: calls to the API server and to the service.

use super::Error;
use crate::api::conditions::{Reason, State};
use crate::api::{DatasetImportJob, DatasetImportJobStatus};
use crate::controller::context::{Context, LIST_DATA_DELETIONS};
use crate::controller::events::events_for;
use crate::controller::namespaces::Permissions;
use crate::controller::{jitter, namespace_policy};
use crate::import::phase::is_intent_fresh;
use crate::import::timing::since;
use crate::import::{AfterWrite, Effect, ImportRequest, MANAGER, ObservedJob};
use crate::personalize::{Caller, CallerRole, DatasetArn, ErrorKind, Personalize, Priority, ServiceError};
use crate::reconciliation::{self, Executor as _, Finished, Observation, Reconciliation, Stopped};
use crate::redact::sanitize_display;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use std::future::ready;
use std::sync::atomic::Ordering;
use tokio::time::timeout;
use tracing::{debug, info, warn};

pub(super) const CREATE: &str = "CreateDatasetImportJob";

/// Performs the effects of one reconciliation: the only I/O.
pub(super) struct Executor<'a, P> {
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

impl<'a, P: Personalize> Executor<'a, P> {
    /// For the resource of this name.
    pub(super) fn new(context: &'a Context<P>, namespace: &str, name: String) -> Self {
        Self { context, api: Api::namespaced(context.client.clone(), namespace), name, caller: None }
    }

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
    pub(super) async fn confirm_write(
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
