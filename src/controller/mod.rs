//! Watches, workers and their life: from a Kubernetes client to a running operator.

pub(crate) mod context;
mod events;
pub mod kube_client;
pub mod leader_election;
pub mod namespace_policy;
mod reconciler;

use crate::api::DatasetImportJob;
use crate::controller::context::Memories;
use crate::controller::events::EventPublisher;
use crate::controller::kube_client::KubeClient;
use crate::controller::leader_election::{LeaderElection, LeaderElectionOptions, LeaseHold};
use crate::controller::namespace_policy::DefaultPolicy;
use crate::controller::reconciler::Context;
use crate::http::readiness::Readiness;
use crate::import::timing::Timing;
use crate::personalize::Personalize;
use crate::queue::{Key, Queue, Uid};
use crate::reconciliation::MANAGER;
use crate::redact::sanitize_display;
use crate::telemetry::metrics::{ErrorLabel, Metrics};
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::future::join_all;
use futures::{Stream, StreamExt};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::Reporter;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use std::collections::{BTreeSet, HashSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::{Instrument, debug, error, error_span, info, warn};

/// A resource that may be unreadable: one bad object must not blind the watch to the others.
type Guarded = DeserializeGuard<DatasetImportJob>;

/// How the operator runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The namespaces it watches; none means all.
    pub namespaces: BTreeSet<String>,
    /// The most reconciles at once, at least 1.
    pub concurrency: u16,
    /// The most imports at once per account and region.
    pub quota: usize,
    /// The delays that it keeps.
    pub policy: Timing,
    /// What namespaces without allow-lists may do.
    pub unlisted: DefaultPolicy,
    /// The bound on each call to the Kubernetes API.
    pub kube_timeout: Duration,
    /// How long a watch lives before it is renewed.
    pub watch_timeout: Duration,
    /// How long a pass under way may take to end after the order to stop.
    pub drain: Duration,
    /// Leader election, unless this is the only replica.
    pub election: Option<LeaderElectionOptions>,
    /// The name under which events are reported.
    pub instance: String,
}

/// Runs until `stop` turns true, through as many leaderships as there are.
pub async fn run<P: Personalize + Clone>(
    connection: KubeClient,
    personalize: P,
    options: Options,
    health: Arc<Readiness>,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<bool>,
) {
    metrics.set_max_workers(options.concurrency);
    let restored = Notify::new();
    let probe = probe_crd(connection.client.clone(), options.clone(), Arc::clone(&health), &restored);
    let work = async {
        let Some(election) = options.election.clone() else {
            while !*stop.borrow() {
                tokio::select! {
                    () = lead(&connection, &personalize, &options, &health, &metrics, LeaseHold::forever(), stop.clone()) => return,
                    () = restored.notified() => {}
                }
            }
            return;
        };
        let candidate = LeaderElection::new(connection.client.clone(), election, Arc::clone(&metrics));
        while !*stop.borrow() {
            tokio::select! {
                () = candidate.campaign() => {}
                () = stopped(stop.clone()) => break,
            }
            tokio::select! {
                // What a lost lease cuts short is as if the process had died there: the protocol of
                // submission is made for that.
                () = candidate.hold() => {}
                () = lead(&connection, &personalize, &options, &health, &metrics, candidate.leadership(), stop.clone()) => {}
                // What is known, and from where the watches go on, is of a history that never was.
                () = restored.notified() => {}
            }
            health.set_standby();
            metrics.clear_snapshot();
        }
        candidate.release().await;
    };
    tokio::select! {
        () = work => {}
        () = probe => {}
    }
}

/// Completes when the order to stop is given.
pub async fn stopped(mut stop: watch::Receiver<bool>) {
    // A sender that is gone can't give the order any more; then nothing runs that could obey it.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Finds out again and again whether the resource is served, for readiness.
///
/// The version of the listing tells, too, when the API server's data was put back to an earlier state: it never falls
/// otherwise. A watch would not tell: it waits in silence for versions later than the ones it has seen.
async fn probe_crd(client: Client, options: Options, health: Arc<Readiness>, restored: &Notify) {
    let api: Api<Guarded> = match options.namespaces.first() {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let mut was = None;
    let mut newest = 0;
    loop {
        let answer = timeout(options.kube_timeout, api.list_metadata(&ListParams::default().limit(1))).await;
        let (served, why) = match answer {
            Ok(Ok(list)) => {
                let version = list.metadata.resource_version.and_then(|v| v.parse().ok()).unwrap_or(newest);
                if version < newest {
                    warn!(version, newest, "the API server's data was put back to an earlier state; beginning anew");
                    restored.notify_waiters();
                }
                newest = version;
                (true, String::new())
            }
            Ok(Err(error)) => (false, sanitize_display(&error)),
            Err(_) => (false, "no answer in time".into()),
        };
        if was != Some(served) {
            was = Some(served);
            if served {
                info!("the API server serves DatasetImportJobs");
            } else {
                warn!(error = %why, "DatasetImportJobs can't be listed: is the CRD installed, and may the operator list them?");
            }
        }
        health.set_crd_served(served);
        sleep(if served { Duration::from_secs(5) } else { Duration::from_secs(1) }).await;
    }
}

/// Works as the leader, from empty caches, until the order to stop.
async fn lead<P: Personalize + Clone>(
    connection: &KubeClient,
    personalize: &P,
    options: &Options,
    health: &Arc<Readiness>,
    metrics: &Arc<Metrics>,
    leadership: LeaseHold,
    stop: watch::Receiver<bool>,
) {
    let client = &connection.client;
    let scopes: Vec<Option<String>> =
        if options.namespaces.is_empty() { vec![None] } else { options.namespaces.iter().cloned().map(Some).collect() };
    health.set_leading(scopes.iter().map(|scope| scope.clone().unwrap_or_default()));
    let (senders, receivers): (Vec<_>, Vec<_>) = scopes.iter().map(|_| unbounded::<ObjectRef<Guarded>>()).unzip();
    let (warm, warmed) = watch::channel(());
    let reporter = Reporter { controller: MANAGER.into(), instance: Some(options.instance.clone()) };
    let operator = Arc::new(Context {
        client: client.clone(),
        personalize: personalize.clone(),
        policy: options.policy.clone(),
        unlisted: options.unlisted,
        kube_timeout: options.kube_timeout,
        queue: Mutex::new(Queue::new(options.quota, options.policy.clone())),
        memories: Memories::default(),
        leadership,
        stopping: AtomicBool::new(false),
        health: Arc::clone(health),
        metrics: Arc::clone(metrics),
        recorder: EventPublisher::new(client.clone(), reporter),
        wake: waker(scopes.clone(), senders),
        pause: connection.pause.clone(),
        workers: Semaphore::new(options.concurrency.max(1).into()),
    });
    let controllers = scopes.into_iter().zip(receivers).map(|(scope, wakes)| {
        let api: Api<Guarded> = match &scope {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let (reader, writer) = reflector::store();
        let config = watcher::Config::default()
            .timeout(u32::try_from(options.watch_timeout.as_secs()).unwrap_or(290).clamp(1, 290));
        let events = watcher(api, config).default_backoff();
        let stream = indexed(events, Arc::clone(&operator), scope, warm.clone()).reflect(writer).applied_objects();
        Controller::for_stream(stream, reader)
            .with_config(Config::default().concurrency(options.concurrency.max(1)))
            .reconcile_on(wakes)
            .reconcile_all_on(changes(warmed.clone()))
            .graceful_shutdown_on(stopped(stop.clone()))
            .run(reconcile, error_policy, Arc::clone(&operator))
            .for_each(|_| std::future::ready(()))
    });
    let began = jiff::Timestamp::now();
    let survey = async {
        loop {
            operator.survey(began);
            sleep(Duration::from_secs(1)).await;
        }
    };
    let drained = async {
        stopped(stop.clone()).await;
        operator.stopping.store(true, Ordering::Relaxed);
        sleep(options.drain).await;
        warn!("passes under way did not end in time; their intents are recorded");
    };
    tokio::select! {
        _ = join_all(controllers) => {}
        () = drained => {}
        () = survey => {}
    }
    operator.recorder.finish().await;
}

fn waker(
    scopes: Vec<Option<String>>,
    senders: Vec<UnboundedSender<ObjectRef<Guarded>>>,
) -> Box<dyn Fn(&Key) + Send + Sync> {
    let channels: Vec<_> = scopes.into_iter().zip(senders).collect();
    Box::new(move |key| {
        let covers = |scope: &Option<String>| scope.as_ref().is_none_or(|namespace| *namespace == key.namespace);
        if let Some((_, sender)) = channels.iter().find(|(scope, _)| covers(scope)) {
            // A closed channel belongs to a controller that has ended.
            let _ = sender.unbounded_send(ObjectRef::new(&key.name).within(&key.namespace));
        }
    })
}

/// Keeps the queue and the memories in step with what the watch delivers.
fn indexed<P: Personalize>(
    events: impl Stream<Item = watcher::Result<Event<Guarded>>>,
    operator: Arc<Context<P>>,
    scope: Option<String>,
    warm: watch::Sender<()>,
) -> impl Stream<Item = watcher::Result<Event<Guarded>>> {
    let mut unlisted: HashSet<Uid> = HashSet::new();
    events.map(move |event| {
        match &event {
            Ok(Event::Init) => {
                unlisted = operator.queue().relist(scope.as_deref());
            }
            Ok(Event::Apply(guarded) | Event::InitApply(guarded)) => {
                if let Some(uid) = guarded.meta().uid.as_ref() {
                    unlisted.remove(uid);
                }
                match &guarded.0 {
                    Ok(job) => operator.observe(job),
                    // What can't be read has no place in the queue.
                    Err(_) => guarded.meta().uid.iter().for_each(|uid| operator.forget(uid)),
                }
            }
            Ok(Event::Delete(guarded)) => {
                if let Some(uid) = guarded.meta().uid.as_ref() {
                    operator.forget(uid);
                }
            }
            Ok(Event::InitDone) => {
                unlisted.drain().for_each(|uid| operator.forget(&uid));
                let was_warm = operator.health.is_synced();
                operator.health.mark_synced(scope.as_deref().unwrap_or_default());
                if !was_warm && operator.health.is_synced() {
                    // What came before all was known was left alone.
                    let _ = warm.send(());
                }
            }
            Err(error) => {
                operator.metrics.error(ErrorLabel::Watch);
                warn!(error = sanitize_display(error), "the watch was interrupted");
            }
        }
        event
    })
}

async fn reconcile<P: Personalize>(guarded: Arc<Guarded>, operator: Arc<Context<P>>) -> Result<Action, Infallible> {
    // A field called `name` would be hidden by the span's own in JSON.
    // It is there at each level that is logged at all.
    let span = error_span!("reconcile", namespace = guarded.namespace(), resource = guarded.name_any());
    async {
        let job = match &guarded.0 {
            Ok(job) => job,
            Err(invalid) => {
                operator.metrics.error(ErrorLabel::Unreadable);
                error!(error = %crate::redact::sanitize(&invalid.error), "the resource can't be read; it is left alone until it changes");
                return Ok(Action::await_change());
            }
        };
        if !operator.health.is_synced() {
            debug!("not everything is known yet; it is looked at once that is so");
            return Ok(Action::await_change());
        }
        // Each namespace that is watched by itself has a controller; the bound is over all of them.
        let _permit = operator.workers.acquire().await;
        let began = Instant::now();
        operator.metrics.worker_started();
        let (delay, outcome) = operator.pass(job).await;
        let result = match (&outcome, delay) {
            (Err(_), _) => "error",
            (Ok(()), None) => "success",
            (Ok(()), Some(_)) => "requeue_after",
        };
        operator.metrics.worker_ended(result, began.elapsed());
        if let Err(error) = &outcome {
            operator.metrics.error(error.label());
            warn!(error = sanitize_display(error), "the pass could not be ended; it is taken up again");
        }
        Ok(delay.map_or_else(Action::await_change, Action::requeue))
    }
    .instrument(span)
    .await
}

/// Each pass says for itself when the next one begins, also one that failed.
fn error_policy<P: Personalize>(_: Arc<Guarded>, error: &Infallible, _: Arc<Context<P>>) -> Action {
    match *error {}
}

/// A stream that brings each change.
fn changes(of: watch::Receiver<()>) -> impl Stream<Item = ()> {
    futures::stream::unfold(of, |mut of| async { of.changed().await.is_ok().then_some(((), of)) })
}
