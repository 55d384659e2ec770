//! Prometheus metrics: the names that dashboards for controllers query, and the import's own.
//!
//! No label holds text from outside but account and region, and of these there are at most
//! [`MOST_LANES`]. What a replica knows only as the leader is told only by the leader.

use crate::api::conditions::Reason;
use crate::personalize::AccountRegion;
use crate::queue::PoolStats;
use prometheus_client::encoding::{EncodeLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use strum::{IntoStaticStr, VariantArray};

/// The value of the label `controller`.
pub const CONTROLLER: &str = "datasetimportjob";

/// The most accounts and regions that have series of their own. Whoever may create resources chooses
/// them, so there has to be a bound; the rest is summed up under `other`.
pub const MOST_LANES: usize = 100;

/// The value of the labels `account` and `region` beyond [`MOST_LANES`].
const OTHER: &str = "other";

/// The errors that `personalize_operator_errors_total` counts, each from 0 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub(crate) enum ErrorLabel {
    /// The Kubernetes API failed or refused a call.
    Kubernetes,
    /// The Kubernetes API refused a call by RBAC.
    KubernetesForbidden,
    /// The Kubernetes API did not answer in time.
    KubernetesTimeout,
    /// A reconcile stopped because this replica does not lead or is shutting down.
    NotLeading,
    /// A reconcile met too many write conflicts.
    #[strum(serialize = "Outrun")]
    Conflict,
    /// A reconcile exceeded the limit of effects.
    #[strum(serialize = "Restless")]
    EffectLimit,
    /// A reconcile panicked.
    Panicked,
    /// A resource could not be decoded.
    Unreadable,
    /// The watch was interrupted.
    Watch,
}

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

/// What a metric is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its name as queries use it: a counter's ends in `_total`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// A sentence on what it measures.
    pub help: &'static str,
}

/// The registry, and what is registered there.
#[derive(Debug, Default)]
struct Catalogue {
    registry: Registry,
    descriptions: Vec<Description>,
}

impl Catalogue {
    fn add(
        &mut self,
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
        metric: &(impl Metric + Clone),
    ) {
        let (kind, suffix) = match metric.metric_type() {
            MetricType::Counter => ("counter", "_total"),
            MetricType::Histogram => ("histogram", ""),
            _ => ("gauge", ""),
        };
        self.descriptions.push(Description { name: format!("{name}{suffix}"), kind, labels, help });
        self.registry.register(name, help, metric.clone());
    }
}

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
pub struct ErrorLabels {
    error: &'static str,
}

/// The label of a state that resources are in.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabel {
    reason: &'static str,
}

/// Labels of the build.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Build {
    version: &'static str,
}

/// Labels of an account and region.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub struct Lane {
    account: String,
    region: String,
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    catalogue: Mutex<Catalogue>,
    build: Family<Build, Gauge>,
    reconciles: Family<Reconciled, Counter>,
    reconcile_errors: Family<Controller, Counter>,
    reconcile_seconds: Family<Controller, Histogram, fn() -> Histogram>,
    active_workers: Family<Controller, Gauge>,
    max_workers: Family<Controller, Gauge>,
    rest_calls: Family<RestCall, Counter>,
    leading: Family<Named, Gauge>,
    imports: Family<Outcome, Counter>,
    import_seconds: Histogram,
    in_flight: Family<Lane, Gauge>,
    queued: Family<Lane, Gauge>,
    oldest_queued: Family<Lane, Gauge<f64, AtomicU64>>,
    service_calls: Family<ServiceCall, Counter>,
    poll_lag: Histogram,
    poll_overdue: Family<Controller, Gauge<f64, AtomicU64>>,
    resources: Family<ReasonLabel, Gauge>,
    errors: Family<ErrorLabels, Counter>,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            catalogue: Mutex::default(),
            build: Family::default(),
            reconciles: Family::default(),
            reconcile_errors: Family::default(),
            reconcile_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            active_workers: Family::default(),
            max_workers: Family::default(),
            rest_calls: Family::default(),
            leading: Family::default(),
            imports: Family::default(),
            import_seconds: Histogram::new(exponential_buckets(30.0, 2.0, 14)),
            in_flight: Family::default(),
            queued: Family::default(),
            oldest_queued: Family::default(),
            service_calls: Family::default(),
            poll_lag: Histogram::new(exponential_buckets(0.1, 2.0, 14)),
            poll_overdue: Family::default(),
            resources: Family::default(),
            errors: Family::default(),
        };
        metrics.register();
        metrics.build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        for result in ["success", "error", "requeue_after"] {
            drop(metrics.reconciles.get_or_create(&Reconciled { controller: CONTROLLER, result }));
        }
        drop(metrics.reconcile_errors.get_or_create(&Controller { controller: CONTROLLER }));
        for outcome in ["succeeded", "failed", "retried", "rejected"] {
            drop(metrics.imports.get_or_create(&Outcome { outcome }));
        }
        for error in ErrorLabel::VARIANTS {
            drop(metrics.errors.get_or_create(&ErrorLabels { error: error.into() }));
        }
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let Ok(mut catalogue) = self.catalogue.lock() else { return };
        let c = &mut *catalogue;
        let controller = &["controller"];
        c.add("controller_runtime_reconcile", &["controller", "result"], "Reconciles by result", &self.reconciles);
        c.add(
            "controller_runtime_reconcile_errors",
            controller,
            "Reconciles that ended in an error",
            &self.reconcile_errors,
        );
        c.add(
            "controller_runtime_reconcile_time_seconds",
            controller,
            "How long a reconcile took",
            &self.reconcile_seconds,
        );
        c.add("controller_runtime_active_workers", controller, "Reconciles under way", &self.active_workers);
        c.add(
            "controller_runtime_max_concurrent_reconciles",
            controller,
            "The most reconciles at once",
            &self.max_workers,
        );
        c.add(
            "rest_client_requests",
            &["code", "method"],
            "Calls to the Kubernetes API by status code and method",
            &self.rest_calls,
        );
        c.add(
            "leader_election_master_status",
            &["name"],
            "Whether this replica holds the Lease of that name; absent without leader election",
            &self.leading,
        );
        self.register_imports(c);
    }

    fn register_imports(&self, c: &mut Catalogue) {
        let lane = &["account", "region"];
        c.add("personalize_operator_build_info", &["version"], "Always 1; the label tells the version", &self.build);
        c.add(
            "personalize_operator_imports",
            &["outcome"],
            "Ended imports and attempts: succeeded, failed, retried (an attempt failed, another follows) or rejected",
            &self.imports,
        );
        c.add(
            "personalize_operator_import_duration_seconds",
            &[],
            "How long successful imports took, by the service's clock",
            &self.import_seconds,
        );
        c.add(
            "personalize_operator_resources",
            &["reason"],
            "DatasetImportJobs by the reason of their conditions; NotSeen stands for those that have none yet",
            &self.resources,
        );
        c.add("personalize_operator_imports_in_flight", lane, "Imports submitted and not ended", &self.in_flight);
        c.add(
            "personalize_operator_imports_queued",
            lane,
            "Resources that wait for their turn to import",
            &self.queued,
        );
        c.add(
            "personalize_operator_oldest_queued_seconds",
            lane,
            "How long the resource waits that has waited longest",
            &self.oldest_queued,
        );
        c.add(
            "personalize_operator_api_requests",
            &["operation", "code"],
            "Calls to Amazon Personalize by operation and class of failure, or OK",
            &self.service_calls,
        );
        c.add(
            "personalize_operator_poll_lag_seconds",
            &[],
            "How much later than due a running job was looked at",
            &self.poll_lag,
        );
        c.add(
            "personalize_operator_poll_overdue_seconds",
            &["controller"],
            "By how much the running job that was seen least recently is over the longest time between two looks",
            &self.poll_overdue,
        );
        c.add("personalize_operator_errors", &["error"], "Errors of the operator by kind", &self.errors);
    }

    /// What is registered, in the order of the exposition.
    #[must_use]
    pub fn descriptions(&self) -> Vec<Description> {
        self.catalogue.lock().map(|c| c.descriptions.clone()).unwrap_or_default()
    }

    /// The exposition.
    #[must_use]
    pub fn expose(&self, format: Format) -> String {
        let mut exposition = String::new();
        if let Ok(catalogue) = self.catalogue.lock() {
            // Writing to a string does not fail.
            let _ = match format {
                Format::OpenMetrics => text::encode(&mut exposition, &catalogue.registry),
                Format::Text => prometheus_text::encode(&mut exposition, &catalogue.registry),
            };
        }
        exposition
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

    pub(crate) fn error(&self, error: ErrorLabel) {
        self.errors.get_or_create(&ErrorLabels { error: error.into() }).inc();
    }

    /// Sets what the leader knows of all resources, as of now.
    pub(crate) fn survey(&self, survey: &Survey, now: jiff::Timestamp) {
        // Under the registry's lock, so that no scrape meets half of it.
        let Ok(_catalogue) = self.catalogue.lock() else { return };
        self.clear();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let mut lanes: Vec<(&AccountRegion, &PoolStats)> =
            survey.tallies.iter().filter(|(_, t)| t.in_flight + t.waiting > 0).collect();
        lanes.sort_by_key(|(location, tally)| {
            (std::cmp::Reverse(tally.in_flight + tally.waiting), &location.account, &location.region)
        });
        for (place, (location, tally)) in lanes.iter().enumerate() {
            let (account, region) =
                if place < MOST_LANES { (&*location.account, &*location.region) } else { (OTHER, OTHER) };
            let lane = Lane { account: account.into(), region: region.into() };
            self.in_flight.get_or_create(&lane).inc_by(count(tally.in_flight));
            self.queued.get_or_create(&lane).inc_by(count(tally.waiting));
            let waits = tally.since.map_or(0.0, |since| crate::import::timing::since(since, now).as_secs_f64());
            let longest = self.oldest_queued.get_or_create(&lane);
            longest.set(longest.get().max(waits));
        }
        for reason in std::iter::once(None).chain(Reason::ALL.iter().copied().map(Some)) {
            let label = ReasonLabel { reason: reason.map_or("NotSeen", Reason::as_str) };
            let resources = survey.reasons.get(&reason).copied().unwrap_or(0);
            self.resources.get_or_create(&label).set(count(resources));
        }
        self.poll_overdue.get_or_create(&Controller { controller: CONTROLLER }).set(survey.overdue.as_secs_f64());
    }

    /// This replica does not lead any more: what only the leader knows is not told by two.
    pub(crate) fn stands_by(&self) {
        if let Ok(_catalogue) = self.catalogue.lock() {
            self.clear();
            self.resources.clear();
            self.poll_overdue.clear();
        }
    }

    fn clear(&self) {
        self.in_flight.clear();
        self.queued.clear();
        self.oldest_queued.clear();
    }
}

/// What the leader knows of all resources.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// What runs and waits, by account and region.
    pub(crate) tallies: HashMap<AccountRegion, PoolStats>,
    /// How many resources there are of each reason; `None` for those that have none yet.
    pub(crate) reasons: HashMap<Option<Reason>, usize>,
    /// By how much the look at a running job that is most overdue is so.
    pub(crate) overdue: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(i: usize) -> AccountRegion {
        AccountRegion { partition: "aws".into(), account: format!("{i:012}"), region: "eu-west-1".into() }
    }

    #[test]
    fn openmetrics_is_served_only_when_requested() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(Format::negotiate(Some(prometheus)), Format::OpenMetrics);
        assert_eq!(Format::negotiate(Some("*/*")), Format::Text);
        assert_eq!(Format::negotiate(None), Format::Text);
    }

    #[test]
    fn counter_names_end_in_total_in_both_formats() {
        let metrics = Metrics::default();
        let (open, text) = (metrics.expose(Format::OpenMetrics), metrics.expose(Format::Text));
        assert!(open.contains("# TYPE personalize_operator_errors counter\n") && open.ends_with("# EOF\n"), "{open}");
        assert!(text.contains("# TYPE personalize_operator_errors_total counter\n") && !text.contains("EOF"), "{text}");
        for exposition in [open, text] {
            assert!(exposition.contains("\npersonalize_operator_errors_total{error=\"Watch\"} 0\n"), "{exposition}");
        }
    }

    #[test]
    fn every_error_label_is_exposed_from_zero_on() {
        let text = Metrics::default().expose(Format::Text);
        let prefix = "personalize_operator_errors_total{error=\"";
        let mut labels: Vec<_> = text.lines().filter_map(|l| l.strip_prefix(prefix)?.strip_suffix("\"} 0")).collect();
        labels.sort_unstable();
        let expected = [
            "Kubernetes",
            "KubernetesForbidden",
            "KubernetesTimeout",
            "NotLeading",
            "Outrun",
            "Panicked",
            "Restless",
            "Unreadable",
            "Watch",
        ];
        assert_eq!(labels, expected);
    }

    #[test]
    fn however_many_accounts_resources_name_the_series_are_bounded() {
        let metrics = Metrics::default();
        let now = jiff::Timestamp::now();
        let tally = |n| PoolStats { in_flight: n, waiting: 1, since: Some(now) };
        let mut tallies: HashMap<_, _> = (0..1000).map(|i| (lane(i), tally(0))).collect();
        tallies.insert(lane(999), tally(5));
        metrics.survey(&Survey { tallies, ..Survey::default() }, now);
        let text = metrics.expose(Format::Text);
        let queued: Vec<&str> =
            text.lines().filter(|l| l.starts_with("personalize_operator_imports_queued{")).collect();
        assert_eq!(queued.len(), MOST_LANES + 1);
        assert!(queued.iter().any(|l| l.contains("account=\"other\"") && l.ends_with(" 900")), "{queued:?}");
        assert!(
            text.contains("imports_in_flight{account=\"000000000999\",region=\"eu-west-1\"} 5"),
            "the busiest stay"
        );
    }

    #[test]
    fn who_stands_by_tells_nothing_that_the_leader_tells() {
        let metrics = Metrics::default();
        let tallies = HashMap::from([(lane(1), PoolStats { in_flight: 1, waiting: 0, since: None })]);
        metrics.survey(&Survey { tallies, ..Survey::default() }, jiff::Timestamp::now());
        assert!(metrics.expose(Format::Text).contains("reason=\"ImportFailed\"} 0"));
        metrics.stands_by();
        let text = metrics.expose(Format::Text);
        for name in ["imports_in_flight", "operator_resources", "poll_overdue"] {
            assert!(!text.contains(name), "{name}");
        }
    }
}
