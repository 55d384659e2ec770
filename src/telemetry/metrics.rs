//! Prometheus metrics: those that dashboards for controllers query, and the operator's own.
//!
//! Account, region and the name of a dataset are the only labels with values from resources, and at most
//! [`MAX_POOL_SERIES`] accounts and regions and [`MAX_DATASET_SERIES`] datasets have series. The only other label with values from outside is the status code of the Kubernetes API. Gauges over all resources are exposed by the leader alone.

mod labels;

pub(crate) use labels::ErrorLabel;

use crate::api::conditions::Reason;
use crate::import::timing;
use crate::personalize::{AccountRegion, ErrorKind};
use crate::queue::{LastSuccess, PoolStats};
use http::StatusCode;
use jiff::Timestamp;
use labels::{
    BuildLabels, CONTROLLER, CONTROLLER_LABELS, ControllerLabels, DatasetLabels, ErrorLabels, KubeRequestLabels,
    LeaseLabels, OTHER, OutcomeLabels, PoolLabels, ReasonLabels, ReconcileLabels, ServiceRequestLabels,
};
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use strum::{EnumMessage, VariantArray};

/// The maximum number of accounts and regions with series of their own. Users choose accounts and regions, so there
/// must be a bound; the rest is summed under `other`.
pub const MAX_POOL_SERIES: usize = 100;

/// The maximum number of series of each metric by dataset. Datasets with a maximum age come first; the one of the others
/// that is due first has the labels `other`.
pub const MAX_DATASET_SERIES: usize = 500;

/// A format of the exposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0, which Prometheus asks for.
    OpenMetrics,
    /// The Prometheus text format 0.0.4, the default.
    Text,
}

impl Format {
    /// The format to answer a request with this `Accept` header in.
    #[must_use]
    pub fn negotiate(accept: Option<&str>) -> Self {
        if accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// Its media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// The description of a metric, for the documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The name in queries: that of a counter ends in `_total`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// A sentence on what it measures.
    pub help: &'static str,
}

/// The values of the label `error` of `personalize_operator_errors_total`, each with a sentence for the documentation.
pub fn error_labels() -> impl Iterator<Item = (&'static str, &'static str)> {
    ErrorLabel::VARIANTS.iter().map(|error| (error.into(), error.get_documentation().unwrap_or_default()))
}

/// A gauge of seconds.
type SecondsGauge = Gauge<f64, AtomicU64>;

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    reconciles: Family<ReconcileLabels, Counter>,
    reconcile_errors: Family<ControllerLabels, Counter>,
    reconcile_duration: Family<ControllerLabels, Histogram, fn() -> Histogram>,
    active_workers: Family<ControllerLabels, Gauge>,
    max_workers: Family<ControllerLabels, Gauge>,
    kube_requests: Family<KubeRequestLabels, Counter>,
    leader: Family<LeaseLabels, Gauge>,
    build_info: Family<BuildLabels, Gauge>,
    imports: Family<OutcomeLabels, Counter>,
    import_duration: Histogram,
    resources: Family<ReasonLabels, Gauge>,
    in_flight: Family<PoolLabels, Gauge>,
    queued: Family<PoolLabels, Gauge>,
    oldest_queued: Family<PoolLabels, SecondsGauge>,
    last_success: Family<DatasetLabels, SecondsGauge>,
    max_data_age: Family<DatasetLabels, SecondsGauge>,
    service_requests: Family<ServiceRequestLabels, Counter>,
    service_requests_unsent: Family<ServiceRequestLabels, Counter>,
    service_requests_waiting: Gauge,
    accounts_valid: Gauge,
    poll_lag: Histogram,
    poll_overdue: Family<ControllerLabels, SecondsGauge>,
    errors: Family<ErrorLabels, Counter>,
    registry: Mutex<Registry>,
    descriptions: Vec<Description>,
}

/// Registers metrics and collects their descriptions.
#[derive(Default)]
struct Registrar {
    registry: Registry,
    descriptions: Vec<Description>,
}

impl Registrar {
    fn add<M>(&mut self, name: &'static str, labels: &'static [&'static str], help: &'static str) -> M
    where
        M: Metric + Clone + Default,
    {
        self.add_metric(name, labels, help, M::default())
    }

    fn add_metric<M>(&mut self, name: &'static str, labels: &'static [&'static str], help: &'static str, metric: M) -> M
    where
        M: Metric + Clone,
    {
        let (kind, suffix) = match metric.metric_type() {
            MetricType::Counter => ("counter", "_total"),
            MetricType::Histogram => ("histogram", ""),
            _ => ("gauge", ""),
        };
        self.descriptions.push(Description { name: format!("{name}{suffix}"), kind, labels, help });
        self.registry.register(name, help, metric.clone());
        metric
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut r = Registrar::default();
        let controller = &["controller"];
        let pool = &["account", "region"];
        let dataset = &["account", "region", "group", "type"];
        let metrics = Self {
            reconciles: r.add("controller_runtime_reconcile", &["controller", "result"], "Reconciles by result"),
            reconcile_errors: r.add(
                "controller_runtime_reconcile_errors",
                controller,
                "Reconciles that ended in an error",
            ),
            reconcile_duration: r.add_metric(
                "controller_runtime_reconcile_time_seconds",
                controller,
                "Duration of a reconcile",
                Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 16))),
            ),
            active_workers: r.add("controller_runtime_active_workers", controller, "Reconciles in progress"),
            max_workers: r.add(
                "controller_runtime_max_concurrent_reconciles",
                controller,
                "Maximum number of concurrent reconciles per account and region",
            ),
            kube_requests: r.add(
                "rest_client_requests",
                &["code", "method"],
                "Requests to the Kubernetes API by status code and method",
            ),
            leader: r.add(
                "leader_election_master_status",
                &["name"],
                "Whether this replica holds the Lease of that name; absent without leader election",
            ),
            build_info: r.add(
                "personalize_operator_build_info",
                &["version"],
                "Always 1; the label is the version of the operator",
            ),
            imports: r.add(
                "personalize_operator_imports",
                &["outcome"],
                "Finished imports and attempts: succeeded, failed, retried (an attempt failed, another follows) or rejected",
            ),
            import_duration: r.add_metric(
                "personalize_operator_import_duration_seconds",
                &[],
                "Duration of successful imports, by the service's clock",
                Histogram::new(exponential_buckets(30.0, 2.0, 14)),
            ),
            resources: r.add(
                "personalize_operator_resources",
                &["reason"],
                "DatasetImportJobs by the reason of their conditions; NotSeen counts those without conditions",
            ),
            in_flight: r.add("personalize_operator_imports_in_flight", pool, "Imports submitted and not finished"),
            queued: r.add("personalize_operator_imports_queued", pool, "Resources waiting to be submitted"),
            oldest_queued: r.add(
                "personalize_operator_oldest_queued_seconds",
                pool,
                "Waiting time of the resource that has waited longest to be submitted, for whatever reason",
            ),
            last_success: r.add(
                "personalize_operator_last_success_timestamp_seconds",
                dataset,
                "When the last successful import into the dataset ended, in seconds since 1970",
            ),
            max_data_age: r.add(
                "personalize_operator_max_data_age_seconds",
                dataset,
                "How old the data of the dataset may get, by the annotation max-data-age of its last successful import",
            ),
            service_requests: r.add(
                "personalize_operator_api_requests",
                &["operation", "code"],
                "Requests to Amazon Personalize and S3 by operation and kind of error, or OK",
            ),
            service_requests_unsent: r.add(
                "personalize_operator_api_requests_unsent",
                &["operation", "code"],
                "Requests not sent, because the service throttles or refuses all requests for the account and region",
            ),
            service_requests_waiting: r.add(
                "personalize_operator_api_requests_waiting",
                &[],
                "Requests to Amazon Personalize that wait for their turn",
            ),
            poll_lag: r.add_metric(
                "personalize_operator_poll_lag_seconds",
                &[],
                "How much later than due a running job was polled",
                Histogram::new(exponential_buckets(0.1, 2.0, 14)),
            ),
            poll_overdue: r.add(
                "personalize_operator_poll_overdue_seconds",
                controller,
                "How far the most overdue poll of a running job exceeds the maximum poll interval",
            ),
            accounts_valid: r.add(
                "personalize_operator_accounts_config_valid",
                &[],
                "Whether the current content of the ConfigMap of accounts is active",
            ),
            errors: r.add("personalize_operator_errors", &["error"], "Errors of the operator by kind"),
            registry: Mutex::new(r.registry),
            descriptions: r.descriptions,
        };
        metrics.expose_from_zero();
        metrics
    }
}

impl Metrics {
    /// Creates the series whose labels are known, so that rates see the first increase.
    fn expose_from_zero(&self) {
        self.accounts_valid.set(1);
        self.build_info.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        for result in ["success", "error", "requeue_after"] {
            drop(self.reconciles.get_or_create(&ReconcileLabels { controller: CONTROLLER, result }));
        }
        drop(self.reconcile_errors.get_or_create(&CONTROLLER_LABELS));
        for kind in [ErrorKind::Throttled, ErrorKind::Credentials] {
            let labels = ServiceRequestLabels { operation: "DescribeDatasetImportJob", code: kind.label() };
            drop(self.service_requests_unsent.get_or_create(&labels));
        }
        for outcome in ["succeeded", "failed", "retried", "rejected"] {
            drop(self.imports.get_or_create(&OutcomeLabels { outcome }));
        }
        for error in ErrorLabel::VARIANTS {
            drop(self.errors.get_or_create(&ErrorLabels { error: error.into() }));
        }
    }

    /// The descriptions of all metrics, in the order of the exposition.
    #[must_use]
    pub fn descriptions(&self) -> Vec<Description> {
        self.descriptions.clone()
    }

    /// The exposition.
    #[must_use]
    pub fn expose(&self, format: Format) -> String {
        let mut exposition = String::new();
        if let Ok(registry) = self.registry.lock() {
            // Writing to a string does not fail.
            let _ = match format {
                Format::OpenMetrics => text::encode(&mut exposition, &registry),
                Format::Text => prometheus_text::encode(&mut exposition, &registry),
            };
        }
        exposition
    }

    pub(crate) fn worker_started(&self) {
        self.active_workers.get_or_create(&CONTROLLER_LABELS).inc();
    }

    pub(crate) fn worker_ended(&self, result: &'static str, duration: Duration) {
        self.active_workers.get_or_create(&CONTROLLER_LABELS).dec();
        self.reconcile_duration.get_or_create(&CONTROLLER_LABELS).observe(duration.as_secs_f64());
        self.reconciles.get_or_create(&ReconcileLabels { controller: CONTROLLER, result }).inc();
        if result == "error" {
            self.reconcile_errors.get_or_create(&CONTROLLER_LABELS).inc();
        }
    }

    pub(crate) fn set_max_workers(&self, max: u16) {
        self.max_workers.get_or_create(&CONTROLLER_LABELS).set(max.into());
    }

    /// Counts a request to the Kubernetes API; `code` is `None` if it got no answer. A webhook can deny with any code, so
    /// codes without a meaning share the series of their class.
    pub(crate) fn kube_request(&self, method: &str, code: Option<StatusCode>) {
        let code = match code {
            None => "<error>".to_owned(),
            Some(code) if code.canonical_reason().is_some() => code.as_str().to_owned(),
            Some(code) => format!("{}xx", code.as_u16() / 100),
        };
        self.kube_requests.get_or_create(&KubeRequestLabels { code, method: method.into() }).inc();
    }

    pub(crate) fn set_leader(&self, lease: &str, leads: bool) {
        self.leader.get_or_create(&LeaseLabels { name: lease.into() }).set(leads.into());
    }

    /// Counts a finished import or attempt; `duration` is that of a successful import.
    pub(crate) fn import_ended(&self, outcome: &'static str, duration: Option<Duration>) {
        self.imports.get_or_create(&OutcomeLabels { outcome }).inc();
        if let Some(duration) = duration {
            self.import_duration.observe(duration.as_secs_f64());
        }
    }

    /// Counts a request to the service; `code` is `OK` or the kind of the error.
    pub(crate) fn service_request(&self, operation: &'static str, code: &'static str) {
        self.service_requests.get_or_create(&ServiceRequestLabels { operation, code }).inc();
    }

    /// Counts a request that was not sent.
    pub(crate) fn service_request_unsent(&self, operation: &'static str, code: &'static str) {
        self.service_requests_unsent.get_or_create(&ServiceRequestLabels { operation, code }).inc();
    }

    /// The number of requests to the service that wait for their turn.
    pub(crate) fn service_requests_waiting(&self) -> Gauge {
        self.service_requests_waiting.clone()
    }

    pub(crate) fn set_accounts_valid(&self, valid: bool) {
        self.accounts_valid.set(valid.into());
    }

    pub(crate) fn poll_lag(&self, lag: Duration) {
        self.poll_lag.observe(lag.as_secs_f64());
    }

    pub(crate) fn error(&self, error: ErrorLabel) {
        self.errors.get_or_create(&ErrorLabels { error: error.into() }).inc();
    }

    /// Sets the gauges over all resources, which only the leader exposes.
    pub(crate) fn record_snapshot(&self, snapshot: &Snapshot, now: Timestamp) {
        // The registry's lock keeps a scrape from reading half of a snapshot.
        let Ok(_registry) = self.registry.lock() else { return };
        self.clear_pools();
        let mut pools: Vec<(&AccountRegion, &PoolStats)> =
            snapshot.pools.iter().filter(|(_, stats)| stats.in_flight + stats.pending > 0).collect();
        pools.sort_by_key(|(account_region, stats)| {
            (Reverse(stats.in_flight + stats.pending), &account_region.account, &account_region.region)
        });
        for (rank, (account_region, stats)) in pools.into_iter().enumerate() {
            let (account, region) = if rank < MAX_POOL_SERIES {
                (&*account_region.account, &*account_region.region)
            } else {
                (OTHER, OTHER)
            };
            let labels = PoolLabels { account: account.into(), region: region.into() };
            self.in_flight.get_or_create(&labels).inc_by(to_i64(stats.in_flight));
            self.queued.get_or_create(&labels).inc_by(to_i64(stats.pending));
            let waiting = stats.pending_since.map_or(0.0, |since| timing::since(since, now).as_secs_f64());
            let oldest = self.oldest_queued.get_or_create(&labels);
            oldest.set(oldest.get().max(waiting));
        }
        for reason in std::iter::once(None).chain(Reason::ALL.iter().copied().map(Some)) {
            let labels = ReasonLabels { reason: reason.map_or("NotSeen", Reason::as_str) };
            let count = snapshot.reasons.get(&reason).copied().unwrap_or(0);
            self.resources.get_or_create(&labels).set(to_i64(count));
        }
        self.poll_overdue.get_or_create(&CONTROLLER_LABELS).set(snapshot.overdue.as_secs_f64());
    }

    /// Sets the gauges of the last successful imports, which only the leader exposes.
    pub(crate) fn record_last_successes(&self, mut successes: Vec<LastSuccess>) {
        successes.sort_by(|a, b| (a.max_age.is_none(), &a.dataset).cmp(&(b.max_age.is_none(), &b.dataset)));
        let others =
            if successes.len() > MAX_DATASET_SERIES { successes.split_off(MAX_DATASET_SERIES - 1) } else { Vec::new() };
        let due = |s: &&LastSuccess| (s.max_age.is_none(), timing::after(s.ended, s.max_age.unwrap_or_default()));
        let other = others.iter().min_by_key(due).map(|other| (DatasetLabels::other(), other));
        // The registry's lock keeps a scrape from reading half of them.
        let Ok(_registry) = self.registry.lock() else { return };
        self.last_success.clear();
        self.max_data_age.clear();
        for (labels, success) in
            successes.iter().map(|success| (DatasetLabels::of(&success.dataset), success)).chain(other)
        {
            self.last_success.get_or_create(&labels).set(success.ended.as_second() as f64);
            if let Some(max_age) = success.max_age {
                self.max_data_age.get_or_create(&labels).set(max_age.as_secs_f64());
            }
        }
    }

    /// Clears the gauges that only the leader exposes, so that sums over replicas are correct.
    pub(crate) fn clear_snapshot(&self) {
        if let Ok(_registry) = self.registry.lock() {
            self.clear_pools();
            self.resources.clear();
            self.poll_overdue.clear();
            self.last_success.clear();
            self.max_data_age.clear();
        }
    }

    fn clear_pools(&self) {
        self.in_flight.clear();
        self.queued.clear();
        self.oldest_queued.clear();
    }
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The state of all resources, as the leader knows it.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The running and waiting imports of each account and region.
    pub(crate) pools: HashMap<AccountRegion, PoolStats>,
    /// The number of resources with each reason; `None` stands for those without conditions.
    pub(crate) reasons: HashMap<Option<Reason>, usize>,
    /// How far the most overdue poll of a running job is past due.
    pub(crate) overdue: Duration,
}

#[cfg(test)]
mod tests;
