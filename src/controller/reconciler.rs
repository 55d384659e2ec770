//! Reconciles one resource: runs it to its end, and keeps what the process remembers of it.

mod error;
mod executor;
#[cfg(test)]
mod tests;

pub(crate) use error::Error;

use super::context::Context;
use super::namespaces::Permissions;
use super::{Guarded, jitter, namespace_policy};
use crate::api::DatasetImportJob;
use crate::api::conditions::Reason;
use crate::import::AccessVersion;
use crate::import::timing::after;
use crate::personalize::{AccountRegion, Caller, CallerRole, Personalize};
use crate::reconciliation::{Failure, Finished, Interrupted, Reconciliation, Stopped, drive};
use crate::redact::{sanitize, sanitize_display};
use crate::telemetry::metrics::ErrorLabel;
use executor::Executor;
use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tracing::{Instrument, debug, error, error_span, warn};

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
        local.note_access(access);
        let (together, has_ended) = self.shared_polls.of(&uid, self.clock.now());
        local.note_shared_polls(together, has_ended);
        let mut reconciliation = Reconciliation::new(resource.clone(), local);
        let mut executor = Executor::new(self, &namespace, resource.name_any());
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
        if !reconciliation.shares_polls() {
            self.shared_polls.leave(&uid, self.clock.now());
        }
        let awaits_change = result.is_ok() && finished.requeue_after.is_none();
        if !awaits_change || !self.note_idle(reconciliation.resource(), reconciliation.local(), self.newer_import(&uid))
        {
            self.local_states.set(&uid, reconciliation.into_local());
        }
        // A change that comes from now on finds this state. An earlier change may have found none, or an older state.
        if self.has_changed_for(resource, access, reason, finished.requeue_after.is_some()) {
            finished.requeue_after = Some(Duration::ZERO);
        }
        // The watch reported its deletion in the meantime.
        if !self.queue().contains(&uid) {
            self.local_states.remove(&uid);
            self.shared_polls.leave(&uid, self.clock.now());
        }
        // kube's scheduler may lose a delay that is over when it is set.
        (finished.requeue_after.map(|delay| delay.max(Duration::from_millis(1))), result)
    }

    /// Whether a resource with this reason is to be reconciled again at once, because what its calls depend on has changed
    /// since this version. What the namespace permits may be known only now; that matters to those that wait for it.
    fn has_changed_for(
        &self,
        resource: &DatasetImportJob,
        before: AccessVersion,
        reason: Option<Reason>,
        is_unfinished: bool,
    ) -> bool {
        let is_denied = reason.is_some_and(Reason::is_denied);
        if !is_denied && !is_unfinished {
            return false;
        }
        let now = self.access_version(resource);
        is_denied && now != before || is_unfinished && now.settings != before.settings
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
            Ok(namespace) => {
                let permissions = Permissions::of(namespace.metadata);
                self.namespaces.note_read(name, &permissions);
                Ok(Ok(permissions))
            }
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
            Err(Error::Kube(kube::Error::Api(status))) if status.is_not_found() => {
                let permissions = self.namespaces.last_known(namespace).unwrap_or_default();
                namespace_policy::caller_role(&permissions.annotations, at)
            }
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
