//! Prometheus metrics: the names that dashboards for controllers query, and the import's own. No label
//! holds text from outside.

use crate::arn::Location;
use crate::queue::Tally;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The value of the label `controller`.
pub const CONTROLLER: &str = "datasetimportjob";

/// Labels of a finished reconcile.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reconciled {
    controller: &'static str,
    result: &'static str,
}

/// The label of the one controller.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Controller {
    controller: &'static str,
}

/// A label `name`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Named {
    name: String,
}

/// Labels of a call to the Kubernetes API.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RestCall {
    code: String,
    method: String,
}

/// Labels of a call to Amazon Personalize.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ServiceCall {
    operation: &'static str,
    /// `OK` or the class of the failure.
    code: &'static str,
}

/// The label of an ended import or attempt.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Outcome {
    outcome: &'static str,
}

/// The label of an error.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ErrorLabel {
    error: &'static str,
}

/// Labels of an account and region.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Lane {
    account: String,
    region: String,
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    reconciles: Family<Reconciled, Counter>,
    reconcile_errors: Family<Controller, Counter>,
    reconcile_seconds: Family<Controller, Histogram, fn() -> Histogram>,
    active_workers: Family<Controller, Gauge>,
    max_workers: Family<Controller, Gauge>,
    depth: Family<Named, Gauge>,
    rest_calls: Family<RestCall, Counter>,
    leading: Family<Named, Gauge>,
    imports: Family<Outcome, Counter>,
    import_seconds: Histogram,
    in_flight: Family<Lane, Gauge>,
    queued: Family<Lane, Gauge>,
    oldest_queued: Family<Lane, Gauge<f64, AtomicU64>>,
    service_calls: Family<ServiceCall, Counter>,
    poll_lag: Histogram,
    errors: Family<ErrorLabel, Counter>,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::default(),
            reconciles: Family::default(),
            reconcile_errors: Family::default(),
            reconcile_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            active_workers: Family::default(),
            max_workers: Family::default(),
            depth: Family::default(),
            rest_calls: Family::default(),
            leading: Family::default(),
            imports: Family::default(),
            import_seconds: Histogram::new(exponential_buckets(30.0, 2.0, 14)),
            in_flight: Family::default(),
            queued: Family::default(),
            oldest_queued: Family::default(),
            service_calls: Family::default(),
            poll_lag: Histogram::new(exponential_buckets(0.1, 2.0, 14)),
            errors: Family::default(),
        };
        metrics.register();
        for result in ["success", "error", "requeue_after"] {
            drop(metrics.reconciles.get_or_create(&Reconciled { controller: CONTROLLER, result }));
        }
        drop(metrics.reconcile_errors.get_or_create(&Controller { controller: CONTROLLER }));
        for outcome in ["succeeded", "failed", "retried", "rejected"] {
            drop(metrics.imports.get_or_create(&Outcome { outcome }));
        }
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let Ok(mut registry) = self.registry.lock() else { return };
        let r = &mut *registry;
        r.register("controller_runtime_reconcile", "Reconciles by result", self.reconciles.clone());
        r.register(
            "controller_runtime_reconcile_errors",
            "Reconciles that ended in an error",
            self.reconcile_errors.clone(),
        );
        r.register(
            "controller_runtime_reconcile_time_seconds",
            "How long a reconcile took",
            self.reconcile_seconds.clone(),
        );
        r.register("controller_runtime_active_workers", "Reconciles under way", self.active_workers.clone());
        r.register(
            "controller_runtime_max_concurrent_reconciles",
            "The most reconciles at once",
            self.max_workers.clone(),
        );
        r.register("workqueue_depth", "Resources that wait for their turn to import", self.depth.clone());
        r.register(
            "rest_client_requests",
            "Calls to the Kubernetes API by status code and method",
            self.rest_calls.clone(),
        );
        r.register("leader_election_master_status", "Whether this replica leads", self.leading.clone());
        r.register("personalize_operator_imports", "Ended imports and attempts by outcome", self.imports.clone());
        r.register(
            "personalize_operator_import_duration_seconds",
            "How long successful imports took, by the service's clock",
            self.import_seconds.clone(),
        );
        r.register("personalize_operator_imports_in_flight", "Imports submitted and not ended", self.in_flight.clone());
        r.register(
            "personalize_operator_imports_queued",
            "Resources that wait for their turn to import",
            self.queued.clone(),
        );
        r.register(
            "personalize_operator_oldest_queued_seconds",
            "The age of the oldest resource that waits",
            self.oldest_queued.clone(),
        );
        r.register(
            "personalize_operator_api_requests",
            "Calls to Amazon Personalize by operation and class of failure",
            self.service_calls.clone(),
        );
        r.register(
            "personalize_operator_poll_lag_seconds",
            "How much later than due a running job was looked at",
            self.poll_lag.clone(),
        );
        r.register("personalize_operator_errors", "Errors of the operator by kind", self.errors.clone());
    }

    /// The exposition in the Prometheus text format (OpenMetrics).
    #[must_use]
    pub fn expose(&self) -> String {
        let mut text = String::new();
        if let Ok(registry) = self.registry.lock() {
            // Writing to a string does not fail.
            let _ = encode(&mut text, &registry);
        }
        text
    }

    pub(crate) fn worker_started(&self) {
        self.active_workers.get_or_create(&Controller { controller: CONTROLLER }).inc();
    }

    pub(crate) fn worker_ended(&self, result: &'static str, took: Duration) {
        let controller = Controller { controller: CONTROLLER };
        self.active_workers.get_or_create(&controller).dec();
        self.reconcile_seconds.get_or_create(&controller).observe(took.as_secs_f64());
        self.reconciles.get_or_create(&Reconciled { controller: CONTROLLER, result }).inc();
        if result == "error" {
            self.reconcile_errors.get_or_create(&controller).inc();
        }
    }

    pub(crate) fn workers(&self, most: u16) {
        self.max_workers.get_or_create(&Controller { controller: CONTROLLER }).set(most.into());
    }

    pub(crate) fn rest_call(&self, method: &str, code: &str) {
        self.rest_calls.get_or_create(&RestCall { code: code.into(), method: method.into() }).inc();
    }

    pub(crate) fn leads(&self, lease: &str, leads: bool) {
        self.leading.get_or_create(&Named { name: lease.into() }).set(leads.into());
    }

    pub(crate) fn import_ended(&self, outcome: &'static str, took: Option<Duration>) {
        self.imports.get_or_create(&Outcome { outcome }).inc();
        if let Some(took) = took {
            self.import_seconds.observe(took.as_secs_f64());
        }
    }

    pub(crate) fn service_call(&self, operation: &'static str, code: &'static str) {
        self.service_calls.get_or_create(&ServiceCall { operation, code }).inc();
    }

    pub(crate) fn poll_lag(&self, lag: Duration) {
        self.poll_lag.observe(lag.as_secs_f64());
    }

    pub(crate) fn error(&self, error: &'static str) {
        self.errors.get_or_create(&ErrorLabel { error }).inc();
    }

    /// Sets what the queue tells, as of now.
    pub(crate) fn tally(&self, tallies: &HashMap<Location, Tally>, now: jiff::Timestamp) {
        self.in_flight.clear();
        self.queued.clear();
        self.oldest_queued.clear();
        let mut depth = 0;
        for (location, tally) in tallies {
            let lane = Lane { account: location.account.clone(), region: location.region.clone() };
            let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            self.in_flight.get_or_create(&lane).set(count(tally.in_flight));
            self.queued.get_or_create(&lane).set(count(tally.waiting));
            let age = tally.oldest.map_or(0.0, |oldest| crate::schedule::since(oldest, now).as_secs_f64());
            self.oldest_queued.get_or_create(&lane).set(age);
            depth += count(tally.waiting);
        }
        self.depth.get_or_create(&Named { name: CONTROLLER.into() }).set(depth);
    }
}
