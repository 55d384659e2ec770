//! What is heard of one life: the calls that the operator makes in it, by names that are the same in every
//! life of its kind, and the moments at which it dies.

use crate::env::Bed;
use crate::env::proxy::{Call, Fate};
use serde_json::{Value, json};
use std::collections::VecDeque;

/// How a life goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Course {
    /// Whatever can come before an import comes, once each; in the end the resource is made anew.
    Hindered,
    /// The first attempt succeeds.
    Succeeds,
    /// The first attempt fails, and there is one retry.
    Fails,
}

/// A moment to die.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Death {
    pub effect: String,
    pub after: bool,
}

impl Death {
    pub fn both(effect: &str) -> [Self; 2] {
        [false, true].map(|after| Self { effect: effect.into(), after })
    }

    fn fate(&self) -> Fate {
        if self.after { Fate::KillAfter } else { Fate::KillBefore }
    }
}

/// The job that somebody else runs in a hindered life.
pub const ELSEWHERE: &str = "elsewhere";

/// The phase of a resource without a status.
const NOTHING: &str = "nothing told";
/// The phase of a resource that was deleted and applied again.
const ANEW: &str = "applied anew";
/// The resource is read because the cache may be behind; not every life comes to that.
pub const BEHIND: &str = "the cache may be behind";

/// As good as for ever, in milliseconds.
pub const HOURS: u64 = 36_000_000;

/// What was heard of one life so far.
pub struct Story {
    course: Course,
    /// The status as it was written last, in short.
    phase: String,
    finished: bool,
    /// The resource was deleted and applied again.
    anew: bool,
    /// The process in this life has not asked for the lease yet.
    fresh: bool,
    /// The process watches.
    watches: bool,
    /// The process was told to stop.
    pub stopping: bool,
    /// The process is as good as dead.
    pub dying: bool,
    deaths: VecDeque<Death>,
    /// How many effects were heard up to each death.
    pub died: Vec<usize>,
    pub effects: Vec<String>,
    pub calls: usize,
}

impl Story {
    pub fn new(course: Course, deaths: &[Death]) -> Self {
        Self {
            course,
            phase: NOTHING.into(),
            finished: false,
            anew: false,
            fresh: true,
            watches: false,
            stopping: false,
            dying: false,
            deaths: deaths.iter().cloned().collect(),
            died: Vec::new(),
            effects: Vec::new(),
            calls: 0,
        }
    }

    /// The name of a call: what is asked, and where in the life. How often a running job is looked at,
    /// and when a lease is renewed, is chance and makes no difference.
    fn effect(&mut self, call: &Call) -> String {
        let body: Value = serde_json::from_str(&call.body).unwrap_or_default();
        let at = match call.label.as_str() {
            "GET leases" | "PUT leases" | "POST leases" if self.stopping => "stopping".into(),
            "GET leases" if std::mem::take(&mut self.fresh) => "starting".into(),
            "GET leases" | "PUT leases" | "POST leases" | "WATCH datasetimportjobs" => String::new(),
            "LIST datasetimportjobs" if call.path.contains("limit=1&") || call.path.ends_with("limit=1") => {
                "probe".into()
            }
            "LIST datasetimportjobs" => "all".into(),
            // Whether the cache is behind is chance, too.
            "GET datasetimportjobs" if !self.before_intent() => BEHIND.into(),
            "POST events" if self.anew => format!("{}, {ANEW}", text(&body["reason"])),
            "POST events" => text(&body["reason"]),
            "PUT datasetimportjobs/status" => format!("{} -> {}", self.phase, phase(&body["status"])),
            "ListTagsForResource" if call.body.contains(ELSEWHERE) => format!("of another, {}", self.phase),
            _ => self.phase.clone(),
        };
        format!("{} [{at}]", call.label)
    }

    /// The next thing to write is an intent.
    fn before_intent(&self) -> bool {
        let waits = ["Queued, attempt 0", "InvalidInput, attempt 0", "DatasetNotReady, attempt 0"];
        self.phase == NOTHING || self.phase.starts_with("Retrying") || waits.contains(&self.phase.as_str())
    }

    /// Decides over a call, and keeps the service in step with what is told of it.
    pub fn heard(&mut self, call: &Call, bed: &Bed) -> Fate {
        if self.dying {
            return Fate::Break;
        }
        if !call.label.contains(' ') {
            self.calls += 1;
        }
        let effect = self.effect(call);
        self.watches |= call.label == "WATCH datasetimportjobs";
        self.effects.push(effect.clone());
        let mut fate = Fate::Pass;
        if self.deaths.front().is_some_and(|death| death.effect == effect) {
            fate = self.deaths.pop_front().map_or(Fate::Pass, |death| death.fate());
            self.died.push(self.effects.len());
            self.dying = true;
        }
        if call.label == "PUT datasetimportjobs/status" && !matches!(fate, Fate::KillBefore) {
            let body: Value = serde_json::from_str(&call.body).unwrap_or_default();
            self.told(&body["status"], bed);
        }
        fate
    }

    pub fn has_heard(&self, effect: &str) -> bool {
        self.effects.iter().any(|e| e == effect)
    }

    /// Everything was told; an event that a crash cut off is not told again.
    pub fn end_was_told(&self) -> bool {
        let anew = if self.anew { format!(", {ANEW}") } else { String::new() };
        self.finished && (self.has_heard(&format!("POST events [ImportSucceeded{anew}]")) || !self.died.is_empty())
    }

    /// The import has ended, and all was heard that a process does besides.
    pub fn may_stop(&self) -> bool {
        let last = self.anew || self.course != Course::Hindered;
        last && self.watches && self.end_was_told() && self.has_heard("PUT leases []")
    }

    /// The process has died, and another begins.
    pub fn next_process(&mut self) {
        (self.dying, self.stopping, self.fresh, self.watches) = (false, false, true, false);
    }

    /// The resource is deleted, and will be applied again.
    pub fn begins_anew(&mut self) {
        (self.anew, self.finished, self.phase) = (true, false, ANEW.into());
    }

    /// A job waits, runs and ends when its resource has told the state before.
    fn told(&mut self, status: &Value, bed: &Bed) {
        self.phase = phase(status);
        let job = text(&status["jobName"]);
        match text(&ready(status)["reason"]).as_str() {
            "Pending" if status["status"] == "CREATE PENDING" => bed.service.durations(1, HOURS),
            "Importing" if self.course == Course::Fails && status["attempts"] == 1 => {
                bed.service.finish_as(&job, &json!({"failed": "as ordered"}));
            }
            "Importing" => bed.service.finish(&job),
            "Retrying" => bed.service.durations(HOURS, HOURS),
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

/// Where in its life a status is.
fn phase(status: &Value) -> String {
    let attempt = status["submission"]["attempt"].as_i64().or(status["attempts"].as_i64()).unwrap_or(0);
    let (mut reason, told) = (text(&ready(status)["reason"]), text(&status["status"]));
    // One that waited says so until it has news; whether a next process comes to tell it is chance.
    if reason == "Queued" && status["submission"].is_object() {
        reason = "Submitting".into();
    }
    [reason, told, format!("attempt {attempt}")].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(", ")
}
