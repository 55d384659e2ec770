//! The calls of one run, by names that are the same in every run of the scenario, and the points at which it crashes.

use crate::env::TestEnv;
use crate::env::proxy::{Call, Fault};
use serde_json::{Value, json};
use std::collections::VecDeque;

/// What happens in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// Everything that can delay an import delays it once. At the end the resource is deleted and applied again.
    Obstructed,
    /// The first attempt succeeds.
    Succeeds,
    /// The first attempt fails, and the second succeeds.
    RetriesOnce,
}

/// The operator is killed before or after this call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CrashPoint {
    pub call: String,
    pub after: bool,
}

impl CrashPoint {
    pub fn around(call: &str) -> [Self; 2] {
        [false, true].map(|after| Self { call: call.into(), after })
    }

    fn fault(&self) -> Fault {
        if self.after { Fault::KillAfter } else { Fault::KillBefore }
    }
}

/// The job that another tool runs in an obstructed run.
pub const FOREIGN_JOB: &str = "foreign";

/// The summary for a resource without a status.
const NO_STATUS: &str = "no status";
/// The summary for a resource that was deleted and applied again.
const RECREATED: &str = "recreated";
/// Marks a live read because the cache may be stale. Not every run makes one.
pub const STALE_CACHE: &str = "stale cache";

/// Longer than any run, in milliseconds.
pub const FOREVER_MS: u64 = 36_000_000;

/// The calls of one run so far.
pub struct CallTrace {
    scenario: Scenario,
    /// The summary of the last written status.
    status_summary: String,
    finished: bool,
    /// The resource was deleted and applied again.
    recreated: bool,
    /// The current process has not asked for the lease yet.
    fresh: bool,
    /// The current process watches the resources.
    watching: bool,
    /// The current process was asked to stop.
    pub stopping: bool,
    /// The current process is about to be killed.
    pub crashing: bool,
    crash_points: VecDeque<CrashPoint>,
    /// How many calls there were up to and including each crash.
    pub crashes: Vec<usize>,
    pub calls: Vec<String>,
    pub service_calls: usize,
}

impl CallTrace {
    pub fn new(scenario: Scenario, crash_points: &[CrashPoint]) -> Self {
        Self {
            scenario,
            status_summary: NO_STATUS.into(),
            finished: false,
            recreated: false,
            fresh: true,
            watching: false,
            stopping: false,
            crashing: false,
            crash_points: crash_points.iter().cloned().collect(),
            crashes: Vec::new(),
            calls: Vec::new(),
            service_calls: 0,
        }
    }

    /// The name of a call: its label, and where in the run it happens. Polls of a running job and renewals of the
    /// lease share one name each, because their number is random and makes no difference.
    fn name(&mut self, call: &Call) -> String {
        let body: Value = serde_json::from_str(&call.body).unwrap_or_default();
        let position = match call.label.as_str() {
            "GET leases" | "PUT leases" | "POST leases" if self.stopping => "stopping".into(),
            "GET leases" if std::mem::take(&mut self.fresh) => "starting".into(),
            "GET leases" | "PUT leases" | "POST leases" => String::new(),
            "WATCH datasetimportjobs" | "LIST namespaces" | "WATCH namespaces" => String::new(),
            "LIST datasetimportjobs" if call.path.contains("limit=1&") || call.path.ends_with("limit=1") => {
                "CRD check".into()
            }
            "LIST datasetimportjobs" => "all".into(),
            "GET datasetimportjobs" if !self.is_before_intent() => STALE_CACHE.into(),
            "POST events" if self.recreated => format!("{}, {RECREATED}", text(&body["reason"])),
            "POST events" => text(&body["reason"]),
            "PUT datasetimportjobs/status" => format!("{} -> {}", self.status_summary, summary_of(&body["status"])),
            "ListTagsForResource" if call.body.contains(FOREIGN_JOB) => format!("foreign job, {}", self.status_summary),
            _ => self.status_summary.clone(),
        };
        format!("{} [{position}]", call.label)
    }

    /// Whether the operator records an intent next.
    fn is_before_intent(&self) -> bool {
        let waiting = ["Queued, attempt 0", "InvalidInput, attempt 0", "DatasetNotReady, attempt 0"];
        self.status_summary == NO_STATUS
            || self.status_summary.starts_with("Retrying")
            || waiting.contains(&self.status_summary.as_str())
    }

    /// Records a call, decides its fault, and lets the job progress when the operator reports its status.
    pub fn record(&mut self, call: &Call, env: &TestEnv) -> Fault {
        if self.crashing {
            return Fault::DropRequest;
        }
        if !call.is_kubernetes() {
            self.service_calls += 1;
        }
        let name = self.name(call);
        self.watching |= call.label == "WATCH datasetimportjobs";
        self.calls.push(name.clone());
        let mut fault = Fault::None;
        if let Some(crash_point) = self.crash_points.pop_front_if(|crash_point| crash_point.call == name) {
            fault = crash_point.fault();
            self.crashes.push(self.calls.len());
            self.crashing = true;
        }
        if call.label == "PUT datasetimportjobs/status" && !matches!(fault, Fault::KillBefore) {
            let body: Value = serde_json::from_str(&call.body).unwrap_or_default();
            self.status_written(&body["status"], env);
        }
        fault
    }

    pub fn has(&self, name: &str) -> bool {
        self.calls.iter().any(|call| call == name)
    }

    /// The status and the event report the end. A crash may have lost the event; it is not sent again.
    pub fn has_reported_the_end(&self) -> bool {
        let recreated = if self.recreated { format!(", {RECREATED}") } else { String::new() };
        self.finished && (self.has(&format!("POST events [ImportSucceeded{recreated}]")) || !self.crashes.is_empty())
    }

    /// The import has ended, and the process has also made the calls that do not depend on it.
    pub fn may_stop(&self) -> bool {
        let last = self.recreated || self.scenario != Scenario::Obstructed;
        last && self.watching && self.has_reported_the_end() && self.has("PUT leases []")
    }

    /// The process has exited, and another one starts.
    pub fn next_process(&mut self) {
        (self.crashing, self.stopping, self.fresh, self.watching) = (false, false, true, false);
    }

    /// The resource is deleted, and is applied again.
    pub fn resource_recreated(&mut self) {
        (self.recreated, self.finished, self.status_summary) = (true, false, RECREATED.into());
    }

    /// A job waits, runs and ends only after the status reports the state before, so that every run has all states.
    fn status_written(&mut self, status: &Value, env: &TestEnv) {
        self.status_summary = summary_of(status);
        let job = text(&status["jobName"]);
        match text(&ready(status)["reason"]).as_str() {
            "Pending" if status["status"] == "CREATE PENDING" => env.service.set_durations(1, FOREVER_MS),
            "Importing" if self.scenario == Scenario::RetriesOnce && status["attempts"] == 1 => {
                env.service.finish_job_with(&job, &json!({"failed": "injected"}));
            }
            "Importing" => env.service.finish_job(&job),
            "Retrying" => env.service.set_durations(FOREVER_MS, FOREVER_MS),
            "ImportSucceeded" => self.finished = true,
            _ => {}
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn ready(status: &Value) -> Value {
    let all = status["conditions"].as_array();
    all.and_then(|all| all.iter().find(|c| c["type"] == "Ready")).cloned().unwrap_or_default()
}

/// Reason, service status and attempt of a status.
fn summary_of(status: &Value) -> String {
    let attempt = status["submission"]["attempt"].as_i64().or(status["attempts"].as_i64()).unwrap_or(0);
    let (mut reason, service_status) = (text(&ready(status)["reason"]), text(&status["status"]));
    // An import that was queued keeps this reason until its submission has a result. Whether another process
    // reports Submitting in between is random.
    if reason == "Queued" && status["submission"].is_object() {
        reason = "Submitting".into();
    }
    let parts = [reason, service_status, format!("attempt {attempt}")];
    parts.into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(", ")
}
