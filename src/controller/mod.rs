//! The controller: leader election, watches, workers and shutdown.

pub mod accounts;
mod clock;
pub(crate) mod context;
mod data_check;
mod events;
#[cfg(test)]
mod fake_api_server;
pub mod kube_client;
pub mod leader_election;
pub mod namespace_policy;
mod namespaces;
mod reconciler;
mod shared_polls;
mod watch;
mod workers;

use crate::accounts::Accounts;
use crate::api::{DatasetImportJob, Preflight};
use crate::controller::clock::Clock;
use crate::controller::context::{Context, LocalStates};
use crate::controller::data_check::DataChecks;
use crate::controller::events::EventPublisher;
use crate::controller::kube_client::KubeClient;
use crate::controller::leader_election::{LeaderElection, LeaderElectionOptions, Leadership};
use crate::controller::namespace_policy::DefaultPolicy;
use crate::controller::namespaces::Namespaces;
use crate::controller::reconciler::{error_policy, reconcile};
use crate::controller::shared_polls::SharedPolls;
use crate::controller::workers::Workers;
use crate::http::readiness::Readiness;
use crate::import::{MANAGER, Timing};
use crate::personalize::Personalize;
use crate::queue::{Queue, QueueOrder};
use crate::telemetry::metrics::Metrics;
use futures::StreamExt;
use futures::future::join_all;
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::controller::Controller;
use kube::runtime::events::Reporter;
use kube::runtime::reflector;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::watch::{Receiver, channel};
use tokio::time::sleep;
use tracing::warn;

/// How many seconds pass between two reads of the last successful import into each dataset: there may be many imports.
const DATA_AGE_INTERVAL: u64 = 5;

/// A resource that may not deserialize: one bad object must not stop the watch for the others.
type Guarded = DeserializeGuard<DatasetImportJob>;

/// How the operator runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The namespaces to watch; empty means all.
    pub namespaces: BTreeSet<String>,
    /// The maximum number of concurrent reconciles per account and region, at least 1.
    pub concurrency: u16,
    /// The maximum number of imports in flight per account and region.
    pub quota: usize,
    /// In which order waiting imports are submitted.
    pub queue_order: QueueOrder,
    /// Poll intervals, retry delays and the grace period.
    pub timing: Timing,
    /// What a namespace without allow-lists may import.
    pub default_policy: DefaultPolicy,
    /// The timeout of each call to the Kubernetes API.
    pub kube_timeout: Duration,
    /// How long a watch lives before it is renewed.
    pub watch_timeout: Duration,
    /// How long a running reconcile may take to finish after the stop signal.
    pub drain_timeout: Duration,
    /// Whether data is checked before its import, unless a resource says otherwise.
    pub preflight: Preflight,
    /// Leader election; `None` if this is the only replica.
    pub election: Option<LeaderElectionOptions>,
    /// The reporting instance in events.
    pub instance: String,
    /// With which role the calls for an account are signed.
    pub accounts: Accounts,
}

/// Runs until `stop` turns true; leads whenever this replica holds the lease.
pub async fn run<P: Personalize>(
    kube: KubeClient,
    personalize: Arc<P>,
    options: Options,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    stop: Receiver<bool>,
) {
    metrics.set_max_workers(options.concurrency);
    let history_rewound = Notify::new();
    let events = EventPublisher::new(kube.client.clone(), reporter(&options));
    let config = watch::config(options.watch_timeout);
    let follow_accounts = accounts::watch(&kube.client, &options.accounts, config, &metrics, &events);
    let monitor = watch::monitor_api_server(kube.client.clone(), &options, &readiness, &history_rewound);
    let lead = |leadership| lead(&kube, &personalize, &options, &readiness, &metrics, leadership, stop.clone());
    let work = async {
        let Some(election) = options.election.clone() else {
            while !*stop.borrow() {
                tokio::select! {
                    _ = lead(Leadership::forever()) => {}
                    () = history_rewound.notified() => {}
                }
            }
            return;
        };
        let election = LeaderElection::new(kube.client.clone(), election, Arc::clone(&metrics));
        let mut drained = false;
        while !*stop.borrow() {
            let leadership = tokio::select! {
                leadership = election.acquire() => leadership,
                () = stopped(stop.clone()) => break,
            };
            drained = tokio::select! {
                // A lost lease cancels running reconciles like a crash does; the submission protocol handles both.
                () = election.renew_until_lost() => false,
                drained = lead(leadership) => drained,
                // etcd was restored from a backup: caches and watch positions refer to revisions that no longer
                // exist. Start over.
                () = history_rewound.notified() => false,
            };
            readiness.set_standby();
            metrics.clear_snapshot();
        }
        election.release(drained).await;
    };
    tokio::select! {
        () = work => {}
        () = monitor => {}
        () = follow_accounts => {}
    }
}

fn reporter(options: &Options) -> Reporter {
    Reporter { controller: MANAGER.into(), instance: Some(options.instance.clone()) }
}

/// Completes when `stop` turns true.
pub async fn stopped(mut stop: Receiver<bool>) {
    // A closed channel means that the process is exiting.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Runs the controllers as the leader, from empty caches, until `stop` turns true. Returns whether none of its create
/// requests may still arrive.
async fn lead<P: Personalize>(
    kube: &KubeClient,
    personalize: &Arc<P>,
    options: &Options,
    readiness: &Arc<Readiness>,
    metrics: &Arc<Metrics>,
    leadership: Leadership,
    stop: Receiver<bool>,
) -> bool {
    let scopes = watch::scopes(options);
    readiness.set_leading(scopes.iter().map(|scope| scope.clone().unwrap_or_default()));
    let (enqueue, enqueued) = watch::enqueue_channels(&scopes);
    let (wake, woken) = watch::enqueue_channels(&scopes);
    let clock = Clock::start();
    let mut queue = Queue::new(options.quota, options.timing.clone()).with_order(options.queue_order);
    queue.quarantine(clock.now());
    let queue = Arc::new(Mutex::new(queue));
    readiness.set_queue(&queue);
    let context = Arc::new(Context {
        client: kube.client.clone(),
        personalize: Arc::clone(personalize),
        timing: options.timing.clone(),
        clock,
        default_policy: options.default_policy,
        kube_timeout: options.kube_timeout,
        queue,
        local_states: LocalStates::default(),
        lease: leadership.lease,
        stopping: AtomicBool::new(false),
        touched: AtomicBool::new(false),
        readiness: Arc::clone(readiness),
        metrics: Arc::clone(metrics),
        events: EventPublisher::new(kube.client.clone(), reporter(options)),
        enqueue,
        wake,
        retry_after: kube.retry_after.clone(),
        workers: Workers::new(options.concurrency),
        namespaces: Namespaces::new(&scopes),
        accounts: options.accounts.clone(),
        data_checks: DataChecks::new(options.preflight),
        shared_polls: SharedPolls::default(),
    });
    let config = watch::config(options.watch_timeout);
    let controllers = scopes.into_iter().zip(enqueued.into_iter().zip(woken)).map(|(scope, (enqueued, woken))| {
        let (reader, writer) = reflector::store();
        let store = reader.clone();
        let (synced, on_synced) = channel(());
        let watched = watch::watch_or_relist(kube.client.clone(), scope.as_deref(), config.clone());
        let sources = watch::merge(watched, watch::reads(Arc::clone(&context), woken));
        let events = watch::events(Arc::clone(&context), scope, leadership.takeover, sources, synced);
        Controller::for_stream(events.reflect(writer).applied_objects(), reader)
            .reconcile_on(enqueued)
            .reconcile_all_on(watch::changes(on_synced))
            .graceful_shutdown_on(stopped(stop.clone()))
            .run(move |guarded, context| reconcile(guarded, store.clone(), context), error_policy, Arc::clone(&context))
            .for_each(|_| std::future::ready(()))
    });
    let leading_since = clock.now();
    // Ends when the wall clock was set: the times in statuses would be wrong.
    let every_second = async {
        for second in 0_u64.. {
            if clock.is_off() {
                break;
            }
            context.enqueue_freed();
            context.record_snapshot(leading_since);
            if second.is_multiple_of(DATA_AGE_INTERVAL) {
                context.record_last_successes();
            }
            sleep(Duration::from_secs(1)).await;
        }
        warn!("the wall clock was set; starting over");
    };
    let drain_timed_out = async {
        stopped(stop.clone()).await;
        context.stopping.store(true, Ordering::Relaxed);
        context.workers.close();
        context.data_checks.close();
        sleep(options.drain_timeout).await;
        warn!("drain timeout: cancelling running reconciles; their intents are recorded");
    };
    tokio::select! {
        _ = join_all(controllers) => {}
        () = drain_timed_out => {}
        () = every_second => {}
        () = context.follow_deleted_jobs() => {}
        () = context.follow_accounts() => {}
        () = namespaces::watch(&context, &config) => {}
    }
    context.events.flush().await;
    let queue = context.queue();
    queue.is_drained(clock.now())
}

/// A number in 0..1 that spreads delays. It need not be unpredictable.
fn jitter() -> f64 {
    f64::from(Timestamp::now().subsec_nanosecond().unsigned_abs() % 10_007) / 10_007.0
}
