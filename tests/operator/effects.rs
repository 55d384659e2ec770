//! A crash at every effect. A whole life is told as the list of all calls that the operator makes in it,
//! reads and writes, to Kubernetes and to AWS. Then it is lived again for each of them, and the operator
//! is killed right before that call and right after it. Whatever the next operator does in turn is killed
//! too.

use crate::bed::{Bed, eventually};
use crate::draw::{Draw, seed};
use crate::proxy::{Call, Fate};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

/// Every kind of call in a life. One that is new has to be thought about.
const KINDS: [&str; 13] = [
    "CreateDatasetImportJob",
    "DescribeDataset",
    "DescribeDatasetImportJob",
    "GET datasetimportjobs",
    "GET leases",
    "GET namespaces",
    "LIST datasetimportjobs",
    "ListDatasetImportJobs",
    "POST events",
    "POST leases",
    "PUT datasetimportjobs/status",
    "PUT leases",
    "WATCH datasetimportjobs",
];
/// What only those do besides who come after a crash: they find a job that was made already.
const KINDS_OF_RECOVERY: [&str; 1] = ["ListTagsForResource"];

/// How many lives run at once: most of their time they wait.
const AT_ONCE: usize = 8;

/// A moment to die.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Death {
    effect: String,
    after: bool,
}

impl Death {
    fn both(effect: &str) -> [Self; 2] {
        [false, true].map(|after| Self { effect: effect.into(), after })
    }

    fn fate(&self) -> Fate {
        if self.after { Fate::KillAfter } else { Fate::KillBefore }
    }
}

/// How the first attempt ends. Where it fails, there is one retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum First {
    Succeeds,
    Fails,
}

/// What was heard of one life so far.
struct Story {
    first: First,
    /// The status as it was written last, in short.
    phase: String,
    finished: bool,
    /// The process in this life has not asked for the lease yet.
    fresh: bool,
    /// The process watches.
    watches: bool,
    /// The process was told to stop.
    stopping: bool,
    /// The process is as good as dead.
    dying: bool,
    deaths: VecDeque<Death>,
    died: usize,
    effects: Vec<String>,
    calls: usize,
}

impl Story {
    fn new(first: First, deaths: &[Death]) -> Self {
        Self {
            first,
            phase: NOTHING.into(),
            finished: false,
            fresh: true,
            watches: false,
            stopping: false,
            dying: false,
            deaths: deaths.iter().cloned().collect(),
            died: 0,
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
            "POST events" => text(&body["reason"]),
            "PUT datasetimportjobs/status" => format!("{} -> {}", self.phase, phase(&body["status"])),
            _ => self.phase.clone(),
        };
        format!("{} [{at}]", call.label)
    }

    /// The next thing to write is an intent.
    fn before_intent(&self) -> bool {
        self.phase == NOTHING || self.phase.starts_with("Retrying")
    }

    /// Decides over a call, and keeps the service in step with what is told of it.
    fn heard(&mut self, call: &Call, bed: &Bed) -> Fate {
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
            self.died += 1;
            self.dying = true;
        }
        if call.label == "PUT datasetimportjobs/status" && !matches!(fate, Fate::KillBefore) {
            let body: Value = serde_json::from_str(&call.body).unwrap_or_default();
            self.told(&body["status"], bed);
        }
        fate
    }

    /// The import has ended, and all was heard that a process does besides.
    fn may_stop(&self) -> bool {
        let heard = |effect: &str| self.effects.iter().any(|e| e == effect);
        // An event that a crash cut off is not told again.
        let told = heard("POST events [ImportSucceeded]") || self.died > 0;
        self.finished && self.watches && told && heard("PUT leases []")
    }

    /// The process has died, and another begins.
    fn next_process(&mut self) {
        (self.dying, self.stopping, self.fresh, self.watches) = (false, false, true, false);
    }

    /// A job waits, runs and ends when its resource has told the state before.
    fn told(&mut self, status: &Value, bed: &Bed) {
        self.phase = phase(status);
        let job = text(&status["jobName"]);
        match text(&ready(status)["reason"]).as_str() {
            "Pending" if status["status"] == "CREATE PENDING" => bed.service.durations(1, HOURS),
            "Importing" if self.first == First::Fails && status["attempts"] == 1 => {
                bed.service.finish_as(&job, &json!({"failed": "as ordered"}));
            }
            "Importing" => bed.service.finish(&job),
            "Retrying" => bed.service.durations(HOURS, HOURS),
            "ImportSucceeded" => self.finished = true,
            _ => {}
        }
    }
}

/// The phase of a resource without a status.
const NOTHING: &str = "nothing told";
/// The resource is read because the cache may be behind; not every life comes to that.
const BEHIND: &str = "the cache may be behind";

/// As good as for ever, in milliseconds.
const HOURS: u64 = 36_000_000;

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
    let (reason, told) = (text(&ready(status)["reason"]), text(&status["status"]));
    [reason, told, format!("attempt {attempt}")].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(", ")
}

/// What one life brought.
struct Lived {
    /// Its effects in order.
    effects: Vec<String>,
    died: usize,
}

/// Lives one life from the first start to the last stop, with these deaths in it in this order.
fn live(first: First, deaths: &[Death]) -> Lived {
    let bed = Arc::new(Bed::new());
    bed.service.durations(HOURS, HOURS);
    let proxy = bed.proxy();
    let story = Arc::new(Mutex::new(Story::new(first, deaths)));
    let (heard, at) = (Arc::clone(&story), Arc::clone(&bed));
    proxy.rule(move |call| heard.lock().unwrap().heard(call, &at));
    let edit = if first == First::Fails { json!({"backoffLimit": 1}) } else { json!({}) };
    bed.import("nightly", "d0", edit);
    let start = || {
        let flags = [
            // Long enough for a busy machine: here nothing but death cuts a call short.
            "--lease-duration=16s",
            "--kube-timeout=30s",
            "--aws-connect-timeout=30s",
            "--aws-read-timeout=30s",
            "--aws-timeout=30s",
            "--poll-min=50ms",
            "--poll-max=50ms",
            "--grace=3s",
            "--backoff-min=50ms",
            "--backoff-max=200ms",
            "--drain-timeout=30s",
        ];
        bed.operator_behind(&proxy, &flags)
    };
    let mut starts = 0;
    loop {
        let operator = start();
        starts += 1;
        let killed = eventually(&format!("the life of {deaths:?} goes on"), || {
            let story = story.lock().unwrap();
            (story.dying || story.may_stop()).then_some(story.dying)
        });
        if killed {
            operator.ended();
        } else {
            story.lock().unwrap().stopping = true;
            if operator.stop() {
                break;
            }
        }
        story.lock().unwrap().next_process();
    }
    let story = story.lock().unwrap();
    let attempts = if first == First::Fails { 2 } else { 1 };
    assert_eq!(bed.accepted(), attempts);
    assert_eq!(starts, story.died + 1, "it stops by itself, or is killed as ordered");
    if deaths.is_empty() {
        assert_eq!(bed.service.ledger().len(), story.calls, "no call goes past the proxy");
    }
    bed.judged_settled();
    Lived { effects: story.effects.clone(), died: story.died }
}

/// Lives these lives side by side; tells what each brought, or what went wrong in it.
fn live_all(lives: Vec<(First, Vec<Death>)>) -> Vec<(First, Vec<Death>, Result<Lived, String>)> {
    let (waiting, lived) = (Mutex::new(VecDeque::from(lives)), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((first, deaths)) = { waiting.lock().unwrap().pop_front() } {
                    let outcome = catch_unwind(AssertUnwindSafe(|| live(first, &deaths)));
                    let outcome = outcome.map_err(|panic| {
                        let told = panic.downcast_ref::<String>().cloned();
                        told.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
                    });
                    lived.lock().unwrap().push((first, deaths, outcome));
                }
            });
        }
    });
    lived.into_inner().unwrap()
}

fn kinds_of<'a>(effects: impl IntoIterator<Item = &'a String>) -> BTreeSet<&'a str> {
    effects.into_iter().filter_map(|effect| effect.split(" [").next()).collect()
}

#[test]
fn a_crash_right_before_and_right_after_every_effect_costs_nothing_and_doubles_nothing() {
    let mut faults: Vec<String> = Vec::new();
    let mut undisturbed: BTreeMap<First, BTreeSet<String>> = BTreeMap::new();
    let firsts = [First::Succeeds, First::Fails];
    for (first, _, lived) in live_all(firsts.map(|first| (first, Vec::new())).to_vec()) {
        let effects = lived.unwrap().effects.into_iter();
        undisturbed.insert(first, effects.filter(|effect| !effect.contains(BEHIND)).collect());
    }
    let kinds = kinds_of(undisturbed.values().flatten());
    assert_eq!(kinds, BTreeSet::from(KINDS), "every kind of call is known");

    // One death in each life, right before and right after each effect.
    // What both kinds of life have in common is gone through in the one that fails first.
    let effects: BTreeMap<&String, First> =
        undisturbed.iter().flat_map(|(first, effects)| effects.iter().map(|e| (e, *first))).collect();
    let single = |(effect, first): (&&String, &First)| Death::both(effect).map(|death| (*first, vec![death]));
    let mut missing: Vec<(First, Vec<Death>)> = effects.iter().flat_map(single).collect();
    // What is done only after a crash, and the death that leads there.
    let mut recovery: BTreeMap<String, (First, Death)> = BTreeMap::new();
    // A machine that is too busy makes a life take another course; it may try again.
    for _ in 0..3 {
        for (first, deaths, lived) in live_all(std::mem::take(&mut missing)) {
            match lived {
                Ok(lived) if lived.died == 1 => {
                    for effect in lived.effects.iter().filter(|e| !effects.contains_key(e)) {
                        recovery.entry(effect.clone()).or_insert_with(|| (first, deaths[0].clone()));
                    }
                }
                Ok(_) => missing.push((first, deaths)),
                Err(told) => faults.push(format!("{first:?} {deaths:?}: {told}")),
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(missing, [], "there was a death right before and right after every effect");
    let kinds: BTreeSet<&str> = &kinds_of(recovery.keys()) - &BTreeSet::from(KINDS);
    assert_eq!(kinds, BTreeSet::from(KINDS_OF_RECOVERY), "every kind of call is known");

    // Two deaths in one life: at what only those do who come after a crash, and wherever the lot falls.
    let mut lives: Vec<(First, Vec<Death>)> = recovery
        .iter()
        .flat_map(|(effect, (first, death))| Death::both(effect).map(|d| (*first, vec![death.clone(), d])))
        .collect();
    let again = lives.len();
    let seed = seed("EFFECTS_SEED");
    let mut draw = Draw::new(seed);
    for _ in 0..10 {
        let first = firsts[draw.below(2)];
        let effects: Vec<&String> = undisturbed[&first].iter().collect();
        let mut lot = || Death { effect: effects[draw.below(effects.len())].clone(), after: draw.below(2) == 1 };
        lives.push((first, vec![lot(), lot()]));
    }
    println!("EFFECTS_SEED={seed}: {} effects, {again} lives with a crash in recovery", effects.len());
    let mut twice = 0;
    for (first, deaths, lived) in live_all(lives) {
        match lived {
            Ok(lived) => twice += usize::from(lived.died == 2),
            Err(told) => faults.push(format!("{first:?} {deaths:?}: {told}")),
        }
    }
    assert_eq!(faults, Vec::<String>::new(), "EFFECTS_SEED={seed}");
    assert!(twice >= again / 2, "of {again} crashes in recovery {twice} came about");
}
