//! Records what happened in an environment, and checks the invariants.

use super::{TestEnv, block_on, http, operator};
use crate::invariants::{self, Disturbance, Footprint, History, Limits, secrets};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One operator that a test started. Its handle may be dropped before the invariants are checked.
#[derive(Clone)]
pub(super) struct Started {
    pub(super) pid: u32,
    pub(super) url: String,
    pub(super) log: PathBuf,
    pub(super) flags: Vec<String>,
    pub(super) footprint: Arc<Mutex<Footprint>>,
}

impl Started {
    /// The value of a flag: its last one, or its default.
    pub(super) fn flag(&self, name: &str, default: &str) -> String {
        let value = |flag: &String| Some(flag.strip_prefix(name)?.strip_prefix('=')?.to_owned());
        self.flags.iter().rev().find_map(value).unwrap_or_else(|| default.to_owned())
    }

    fn duration(&self, name: &str) -> Duration {
        humantime::parse_duration(&self.flag(name, "0s")).unwrap()
    }

    /// What bounds the waits under this operator.
    fn limits(&self) -> Limits {
        // One call of each kind may run into a short timeout, and then the delays follow. The rest is for slow machines. No
        // call runs into a long timeout.
        let delays = ["--grace", "--watch-timeout", "--backoff-max", "--rejected-max"].map(|flag| self.duration(flag));
        let timeout = |name: &str, short: u64| self.duration(name).min(Duration::from_secs(short));
        let calls = timeout("--kube-timeout", 5) * 2 + timeout("--aws-timeout", 3) * 3;
        let wait = delays.iter().sum::<Duration>() + calls + Duration::from_secs(20);
        // A leader renews its Lease after at most an eighth of its duration. More than one renewal in a second counts once.
        let period = (self.duration("--lease-duration") / 8).max(Duration::from_secs(1));
        // Starts and stops write the Lease, too. So a few of its writes measure no time.
        let renewals = (wait.as_secs() / period.as_secs()).max(15);
        Limits {
            quota: self.flag("--max-in-flight", "5").parse().unwrap(),
            grace: self.duration("--grace").as_millis().try_into().unwrap(),
            renewals: renewals.try_into().unwrap(),
        }
    }
}

/// What the service, the API server and the proxies have recorded.
#[derive(Default)]
struct Records {
    ledger: Vec<Value>,
    jobs: Vec<Value>,
    data_deletions: Vec<Value>,
    faults: Vec<Value>,
    writes: Vec<Value>,
    resources: Vec<Value>,
    requests: Vec<Value>,
    namespaces: Vec<Value>,
    disturbances: Vec<Disturbance>,
    limits: Limits,
}

impl Records {
    fn history(&self) -> History<'_> {
        History {
            ledger: &self.ledger,
            jobs: &self.jobs,
            data_deletions: &self.data_deletions,
            faults: &self.faults,
            writes: &self.writes,
            resources: &self.resources,
            requests: &self.requests,
            namespaces: &self.namespaces,
            disturbances: &self.disturbances,
            limits: self.limits,
        }
    }
}

impl TestEnv {
    /// Checks the invariants that hold at any moment.
    pub fn check_invariants(&self) {
        self.assert_no_violations(self.violations());
    }

    /// Checks all invariants. Every import must have finished, or must be stalled or suspended for a real reason.
    pub fn check_invariants_settled(&self) {
        self.assert_no_violations(self.settled_violations());
    }

    /// Fails if there is a violation, here or in what the operators report and consume.
    pub fn assert_no_violations(&self, mut violations: Vec<String>) {
        self.checked.store(true, Ordering::Relaxed);
        violations.extend(self.process_violations());
        assert_eq!(violations, Vec::<String>::new());
    }

    /// The violations of the invariants that hold at any moment.
    pub fn violations(&self) -> Vec<String> {
        invariants::check(&self.records().history())
    }

    /// The same, while operators work: in what was recorded until now.
    pub fn violations_so_far(&self) -> Vec<String> {
        let now = Timestamp::now();
        // What is under way is recorded by then.
        std::thread::sleep(Duration::from_secs(2));
        let mut records = self.records();
        let until_now = |time: &Value| time.as_str().and_then(|t| t.parse().ok()).is_some_and(|t: Timestamp| t <= now);
        records.ledger.retain(|call| until_now(&call["time"]));
        records.writes.retain(|write| until_now(&write["requestReceivedTimestamp"]));
        records.requests.retain(|request| until_now(&request["requestReceivedTimestamp"]));
        invariants::check(&records.history())
    }

    /// The violations of all invariants, once every import should have finished.
    pub fn settled_violations(&self) -> Vec<String> {
        let list = |namespace: &str| {
            let api = self.objects(namespace);
            let resources = block_on(async move { api.list(&ListParams::default()).await }).unwrap();
            resources.into_iter().map(|resource| serde_json::to_value(resource).unwrap()).collect::<Vec<_>>()
        };
        let get = |namespace: &str| {
            let (api, name) = (Api::<Namespace>::all(self.client.clone()), namespace.to_owned());
            serde_json::to_value(block_on(async move { api.get(&name).await }).unwrap()).unwrap()
        };
        // What is recorded later must not be missing in what was recorded earlier.
        let (resources, namespaces) =
            (self.namespaces().flat_map(list).collect(), self.namespaces().map(get).collect());
        let records = Records { resources, namespaces, faults: self.service.faults(), ..self.records() };
        invariants::check_settled(&records.history())
    }

    fn records(&self) -> Records {
        let log = self.control_plane.audit_log();
        let limits: Vec<Limits> = self.started.lock().unwrap().iter().map(Started::limits).collect();
        Records {
            ledger: self.service.ledger(),
            jobs: self.service.jobs(),
            data_deletions: self.service.data_deletions(),
            writes: self.audited_writes(),
            requests: self.namespaces().flat_map(|namespace| invariants::requests(&log, namespace)).collect(),
            disturbances: self.disturbances.lock().unwrap().clone(),
            limits: limits.into_iter().reduce(Limits::widest).unwrap_or_default(),
            ..Records::default()
        }
    }

    /// F for events, logs and metrics, and K for what the operators used.
    fn process_violations(&self) -> Vec<String> {
        let started = self.started.lock().unwrap().clone();
        let log = self.control_plane.audit_log();
        let events: Vec<Value> = self.namespaces().flat_map(|namespace| invariants::events(&log, namespace)).collect();
        let events = events.iter().map(|event| ("an event", event.to_string()));
        let logs = started.iter().map(|operator| ("a log", fs::read_to_string(&operator.log).unwrap()));
        let metrics = started.iter().filter_map(|operator| {
            let metrics = http("GET", &format!("{}/metrics", operator.url), "")?.1;
            operator::note_series(&operator.footprint, &metrics);
            Some(("a metric", metrics))
        });
        let outputs: Vec<(&str, String)> = events.chain(logs).chain(metrics).collect();
        started.iter().for_each(|operator| operator::note_footprint(&operator.footprint, operator.pid));
        let footprints: Vec<Footprint> = started.iter().map(|operator| *operator.footprint.lock().unwrap()).collect();
        [secrets::leaks(&outputs, &secrets::PLANTED), invariants::check_footprints(&footprints)].concat()
    }
}
