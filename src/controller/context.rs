//! What all reconciliations share.

use super::clock::Clock;
use super::data_check::DataChecks;
use super::events::EventPublisher;
use super::kube_client::RetryAfter;
use super::leader_election::{LeaseHold, Takeover};
use super::namespace_policy::DefaultPolicy;
use super::namespaces::Namespaces;
use super::shared_polls::SharedPolls;
use super::workers::Workers;
use crate::accounts::Accounts;
use crate::api::DatasetImportJob;
use crate::api::conditions::Reason;
use crate::http::readiness::Readiness;
use crate::import::timing::since;
use crate::import::{AccessVersion, IdleState, Key, LocalState, Timing, is_idle};
use crate::personalize::{AccountRegion, DatasetArn, ErrorKind, Personalize, Priority, ServiceError, has_ended};
use crate::queue::{DeletedJob, Queue, Uid};
use crate::telemetry::metrics::{Metrics, Snapshot};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use kube::{Client, ResourceExt};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::interval;
use tracing::{debug, info, warn};

/// The operation that may be refused: then imports continue, and an event says so once.
pub(crate) const LIST_DATA_DELETIONS: &str = "ListDataDeletionJobs";

/// What all reconciliations of one leadership share.
pub(crate) struct Context<P> {
    pub(crate) client: Client,
    pub(crate) personalize: Arc<P>,
    pub(crate) timing: Timing,
    pub(crate) clock: Clock,
    pub(crate) default_policy: DefaultPolicy,
    pub(crate) kube_timeout: Duration,
    pub(crate) queue: Arc<Mutex<Queue>>,
    pub(crate) local_states: LocalStates,
    pub(crate) lease: LeaseHold,
    /// The process was asked to stop.
    pub(crate) stopping: AtomicBool,
    /// An initial list shows that a leader has reconciled resources before.
    pub(crate) touched: AtomicBool,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: EventPublisher,
    /// Triggers the reconciliation of a resource.
    pub(crate) enqueue: Box<dyn Fn(&Key) + Send + Sync>,
    /// Reads a resource that may be idle, and triggers its reconciliation if it is not.
    pub(crate) wake: Box<dyn Fn(&Key) + Send + Sync>,
    /// Until when the API server asked the operator to send no requests.
    pub(crate) retry_after: RetryAfter,
    /// Limits the number of concurrent reconciliations.
    pub(crate) workers: Workers,
    /// What the watched namespaces permit.
    pub(crate) namespaces: Namespaces,
    /// With which role the calls for an account are signed.
    pub(crate) accounts: Accounts,
    /// Checks of the data before imports.
    pub(crate) data_checks: DataChecks,
    /// Polls that one list replaces.
    pub(crate) shared_polls: SharedPolls,
}

impl<P: Personalize> Context<P> {
    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        Queue::lock(&self.queue)
    }

    /// Updates the queue with a resource of a list. Returns whether it is idle. Which imports have replaced the data of
    /// others is known when the list is complete.
    pub(crate) fn observe_listed(&self, resource: &DatasetImportJob) -> bool {
        let local = self.local_states.get(&resource.uid().unwrap_or_default());
        self.queue().observe(resource, local.trust(resource));
        self.note_idle(resource, &local, None)
    }

    /// Updates the queue with a resource that the watch delivered. Returns whether it is idle.
    pub(crate) fn observe(&self, resource: &DatasetImportJob) -> bool {
        let uid = resource.uid().unwrap_or_default();
        let local = self.local_states.get(&uid);
        if self.queue().observe(resource, local.trust(resource)) {
            self.wake_replaced_by(&uid);
        }
        self.note_idle(resource, &local, self.newer_import(&uid))
    }

    /// Whether a resource is idle. Little is remembered of it then.
    pub(crate) fn note_idle(&self, resource: &DatasetImportJob, local: &LocalState, newer_import: Option<Key>) -> bool {
        let now = self.clock.now();
        let idle = is_idle(resource, local.trust(resource), newer_import, local, now, &self.timing);
        if idle && let Some(uid) = resource.uid() {
            self.local_states.set_idle(&uid, IdleState::new(resource, local));
        }
        idle
    }

    pub(crate) fn newer_import(&self, uid: &str) -> Option<Key> {
        self.queue().newer_import(uid)
    }

    /// Triggers the resources whose data this import has replaced. They may be idle.
    pub(crate) fn wake_replaced_by(&self, uid: &str) {
        let replaced = self.queue().replaced_by(uid);
        replaced.iter().for_each(|key| (self.wake)(key));
    }

    /// Triggers the resources whose data was replaced, as the list shows that is now complete.
    pub(crate) fn wake_replaced(&self) {
        let replaced = self.queue().replaced();
        replaced.iter().for_each(|key| (self.wake)(key));
    }

    /// Removes a resource that is deleted or can't be decoded.
    pub(crate) fn forget(&self, uid: &str) {
        self.local_states.remove(uid);
        self.shared_polls.leave(uid, self.clock.now());
        let freed = self.queue().forget(uid, self.clock.now());
        if let Some(account_region) = freed {
            self.enqueue_admissible(&account_region);
        }
    }

    /// The initial list of a watched namespace is complete, and none of its resources was reconciled by this leader. With
    /// the last list submissions begin, unless create requests of the former leader may still arrive.
    pub(crate) fn initial_list_complete(&self, namespace: &str, takeover: Takeover) {
        let mut queue = self.queue();
        let untouched = queue.is_untouched(namespace) && !self.touched.load(Ordering::Relaxed);
        self.touched.store(!untouched, Ordering::Relaxed);
        if !self.readiness.is_last_unsynced(namespace) {
            return;
        }
        if takeover == Takeover::Unclean || takeover == Takeover::First && !untouched {
            info!("submissions begin after the grace period: a former leader may have sent create requests");
            return;
        }
        queue.end_quarantine();
        let regions = queue.account_regions();
        drop(queue);
        regions.iter().for_each(|region| self.enqueue_admissible(region));
    }

    /// Triggers the resources that wait for the dataset of a deleted resource, once that is free.
    pub(crate) fn enqueue_freed(&self) {
        let freed = self.queue().take_freed();
        freed.iter().for_each(|region| self.enqueue_admissible(region));
    }

    /// Polls the jobs of deleted resources when they are due, for as long as this process leads.
    pub(crate) async fn follow_deleted_jobs(&self) {
        let (mut polls, mut seconds) = (FuturesUnordered::new(), interval(Duration::from_secs(1)));
        loop {
            tokio::select! {
                Some(()) = polls.next() => {}
                _ = seconds.tick() => {
                    let due = self.queue().deleted_jobs(self.clock.now());
                    polls.extend(due.into_iter().map(|job| self.poll_deleted_job(job)));
                    self.forget_namespaces();
                }
            }
        }
    }

    /// Drops what deleted Namespaces permitted once no import of them may run. The lock keeps what is read after an
    /// admission.
    pub(super) fn forget_namespaces(&self) {
        let queue = self.queue();
        self.namespaces.retain_last_known(&queue.namespaces_in_flight());
    }

    /// Polls the job of a deleted resource. A job that the operator may not see any more counts like one that does not
    /// exist: its permission may never come back, and it would keep its slot until a restart. That lets no two imports run
    /// into one dataset: if the job runs, the list of jobs before each create shows it to the next import. What exceeds
    /// the quota, the service refuses.
    pub(super) async fn poll_deleted_job(&self, job: DeletedJob) {
        let arn = job.dataset.job(&job.name);
        let Ok(caller) = self.caller(&job.namespace, job.dataset.account_region()).await else { return };
        let call = self.personalize.describe_dataset_import_job(&caller, &job.dataset, &arn, Priority::Normal);
        let runs = match self.counted("DescribeDatasetImportJob", call).await {
            Ok(found) => Some(!has_ended(&found.status)),
            Err(error) if error.is_refusal() || error.kind == ErrorKind::Credentials => None,
            Err(_) => return,
        };
        self.queue().deleted_job_polled(&job.uid, runs, self.clock.now());
    }

    /// Triggers the resources in these namespaces that wait for a permission or for credentials. Polls of a job may wait,
    /// too.
    pub(crate) fn enqueue_denied(&self, namespaces: &HashSet<String>) {
        use Reason::{AccessDenied, CredentialsRefused, Importing, NotPermitted, Pending};
        let reasons = [NotPermitted, CredentialsRefused, AccessDenied, Pending, Importing];
        let waiting: Vec<Key> = reasons.into_iter().flat_map(|reason| self.queue().with_reason(reason)).collect();
        let concerned = |key: &&Key| namespaces.contains(&key.namespace);
        waiting.iter().filter(concerned).for_each(|key| (self.enqueue)(key));
    }

    /// Triggers the unfinished resources that a change of the configuration of accounts concerns, whatever they wait for.
    pub(crate) fn enqueue_concerned(&self) {
        let concerned = self.queue().unfinished(|at| {
            let version = self.access_version_of_account(at);
            move |reason, uid: &str| self.local_states.is_active(uid, |local| local.is_concerned_by(&version, reason))
        });
        concerned.iter().for_each(|key| (self.enqueue)(key));
    }

    /// Triggers the resources that each change of the configuration of accounts concerns.
    pub(crate) async fn follow_accounts(&self) {
        let mut changes = self.accounts.subscribe();
        while changes.changed().await.is_ok() {
            self.enqueue_concerned();
        }
        std::future::pending().await
    }

    /// What the calls of a resource depend on now.
    pub(crate) fn access_version(&self, resource: &DatasetImportJob) -> AccessVersion {
        let dataset = DatasetArn::parse(&resource.spec.dataset_arn).ok();
        let of_account = dataset.map(|dataset| self.access_version_of_account(dataset.account_region()));
        let namespace = self.namespaces.version(&resource.namespace().unwrap_or_default());
        AccessVersion { namespace, ..of_account.unwrap_or_default() }
    }

    /// The same without what the namespace permits.
    fn access_version_of_account(&self, at: &AccountRegion) -> AccessVersion {
        let (settings, refusal) = (self.accounts.settings_version(at), self.accounts.refusal_version(&at.account));
        AccessVersion { namespace: 0, settings, refusal }
    }

    /// Counts and logs a call to the service.
    pub(crate) async fn counted<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, ServiceError>>,
    ) -> Result<T, ServiceError> {
        let answer = call.await;
        let code = answer.as_ref().err().map_or("OK", |error| error.kind.label());
        if let Some(error) = answer.as_ref().err().filter(|error| error.unsent) {
            self.metrics.service_request_unsent(operation, code);
            debug!(operation, kind = code, %error, "a call to the service was not sent");
            return answer;
        }
        self.metrics.service_request(operation, code);
        match &answer {
            Err(error) if error.kind == ErrorKind::NotFound => debug!(operation, kind = code, %error, "not found"),
            Err(error) if operation == LIST_DATA_DELETIONS && error.is_refusal() => {
                debug!(operation, kind = code, %error, "refused");
            }
            Err(error) => warn!(operation, kind = code, %error, "a call to the service failed"),
            Ok(_) => {}
        }
        answer
    }

    /// Sets the weights of namespaces in the queue. Other resources may be next then.
    pub(crate) fn set_weights(&self, weights: impl IntoIterator<Item = (String, u32)>) {
        let mut queue = self.queue();
        let changes = weights.into_iter().filter(|(namespace, weight)| queue.set_weight(namespace, *weight)).count();
        let regions = if changes == 0 { Vec::new() } else { queue.account_regions() };
        drop(queue);
        regions.iter().for_each(|region| self.enqueue_admissible(region));
    }

    /// Triggers the reconciliation of the resources that may submit now.
    pub(crate) fn enqueue_admissible(&self, account_region: &AccountRegion) {
        let admissible = self.queue().admissible(account_region, self.clock.now());
        for key in &admissible {
            // Otherwise one that waits for a worker already would keep its place behind those that can't submit.
            self.workers.prefer(account_region, key);
            (self.enqueue)(key);
        }
    }

    /// Updates the metrics of the last successful import into each dataset.
    pub(crate) fn record_last_successes(&self) {
        let successes = self.queue().last_successes();
        self.metrics.record_last_successes(successes);
    }

    /// Updates the metrics over all resources. `leading_since` is when this leadership began: this replica has polled
    /// no job before it.
    pub(crate) fn record_snapshot(&self, leading_since: Timestamp) {
        let now = self.clock.now();
        let queue = self.queue();
        let (pools, reasons, running) = (queue.stats(), queue.reasons(), queue.running());
        drop(queue);
        let overdue = |(uid, running_since): &(Uid, Timestamp)| {
            let polled = self.local_states.get(uid).last_polled.unwrap_or(leading_since.max(*running_since));
            since(polled, now).saturating_sub(self.timing.poll_max)
        };
        let overdue = running.iter().map(overdue).max().unwrap_or_default();
        self.metrics.record_snapshot(&Snapshot { pools, reasons, overdue }, now);
    }
}

/// The local state of each resource, by UID. All of it can be lost.
#[derive(Debug, Default)]
pub(crate) struct LocalStates(Mutex<HashMap<Uid, Stored>>);

#[derive(Debug, Clone)]
enum Stored {
    Active(Box<LocalState>),
    Idle(IdleState),
}

impl LocalStates {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uid, Stored>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of a resource; a default one if there is none.
    pub(crate) fn get(&self, uid: &str) -> LocalState {
        match self.lock().get(uid) {
            Some(Stored::Active(state)) => LocalState::clone(state),
            Some(Stored::Idle(idle)) => (*idle).into(),
            None => LocalState::default(),
        }
    }

    /// Whether a resource was reconciled and is not idle, and its state is such.
    pub(crate) fn is_active(&self, uid: &str, such: impl Fn(&LocalState) -> bool) -> bool {
        matches!(self.lock().get(uid), Some(Stored::Active(state)) if such(state))
    }

    pub(crate) fn set(&self, uid: &str, state: LocalState) {
        self.lock().insert(uid.into(), Stored::Active(Box::new(state)));
    }

    /// Sets the state of an idle resource.
    pub(crate) fn set_idle(&self, uid: &str, idle: IdleState) {
        self.lock().insert(uid.into(), Stored::Idle(idle));
    }

    pub(crate) fn remove(&self, uid: &str) {
        self.lock().remove(uid);
    }
}
