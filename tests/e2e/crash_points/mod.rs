//! A crash before and after every call. A run records all calls of the operator, reads and writes, to Kubernetes and
//! AWS. The run is then repeated for each call, and the operator is killed right before and right after it. The calls
//! of recovery are crash points, too.

mod call_trace;
mod user_script;

use crate::env::{TestEnv, eventually};
use crate::rng::{Rng, seed};
use call_trace::{CallTrace, CrashPoint, FOREVER_MS, STALE_CACHE, Scenario};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use user_script::UserScript;

/// Every kind of call in a run. The test fails on a new kind, so that somebody decides whether it is safe to repeat.
const KINDS: [&str; 17] = [
    "CreateDatasetImportJob",
    "DescribeDataset",
    "DescribeDatasetImportJob",
    "GET datasetimportjobs",
    "GET leases",
    "GET namespaces",
    "LIST datasetimportjobs",
    "LIST namespaces",
    "ListDataDeletionJobs",
    "ListDatasetImportJobs",
    "ListTagsForResource",
    "POST events",
    "POST leases",
    "PUT datasetimportjobs/status",
    "PUT leases",
    "WATCH datasetimportjobs",
    "WATCH namespaces",
];

/// How many runs are concurrent. They mostly wait.
const CONCURRENCY: usize = 8;

/// How often a run is tried until all its crash points are reached. A busy machine may take another path.
const TRIES: usize = 3;

/// How many runs get a second crash point at random.
const SAMPLES: usize = 12;

/// A scenario and its crash points in order.
type Run = (Scenario, Vec<CrashPoint>);

struct RunResult {
    /// The calls in order.
    calls: Vec<String>,
    /// How many calls there were up to and including each crash.
    crashes: Vec<usize>,
}

/// Runs a scenario from the first start to the last stop, with crashes at these points in this order.
fn run(scenario: Scenario, crash_points: &[CrashPoint]) -> RunResult {
    let env = Arc::new(TestEnv::new());
    env.service.set_durations(FOREVER_MS, FOREVER_MS);
    let proxy = env.start_proxy();
    let trace = Arc::new(Mutex::new(CallTrace::new(scenario, crash_points)));
    let (recorder, recorder_env) = (Arc::clone(&trace), Arc::clone(&env));
    proxy.inject(move |call| recorder.lock().unwrap().record(call, &recorder_env));
    let mut user = (scenario == Scenario::Obstructed).then(|| UserScript::new(&env));
    let spec = if scenario == Scenario::RetriesOnce { json!({"backoffLimit": 1}) } else { json!({}) };
    env.import("nightly", "d0", spec);
    let start = || {
        let flags = [
            // Long timeouts: only a crash may interrupt a call, even on a busy machine. A renewal of the lease would come at
            // any moment, so that a crash at it has no fixed place in the run.
            "--lease-duration=80s",
            "--kube-timeout=30s",
            "--aws-connect-timeout=30s",
            "--aws-read-timeout=30s",
            "--aws-timeout=30s",
            "--poll-min=50ms",
            "--poll-max=50ms",
            "--grace=3s",
            "--backoff-min=50ms",
            "--backoff-max=200ms",
            // Long enough for the user to act in between.
            "--rejected-min=2s",
            "--rejected-max=2s",
            "--drain-timeout=30s",
        ];
        env.spawn_operator_behind(&proxy, &flags)
    };
    let mut starts = 0;
    loop {
        let mut operator = start();
        starts += 1;
        let crashed = eventually(&format!("the run with {crash_points:?} continues"), || {
            if let Some(user) = &mut user {
                user.act(&trace);
            }
            let trace = trace.lock().unwrap();
            assert!(trace.crashing || !operator.has_exited(), "the operator exited: {}", operator.log());
            (trace.crashing || trace.may_stop()).then_some(trace.crashing)
        });
        if crashed {
            operator.wait_for_exit();
        } else {
            trace.lock().unwrap().stopping = true;
            if operator.stop() {
                break;
            }
        }
        trace.lock().unwrap().next_process();
    }
    let trace = trace.lock().unwrap();
    let attempts = if scenario == Scenario::RetriesOnce { 2 } else { 1 };
    assert_eq!(env.accepted_count(), attempts);
    assert_eq!(starts, trace.crashes.len() + 1, "the operator stops only when asked, or at a crash point");
    if crash_points.is_empty() {
        assert_eq!(env.service.ledger().len(), trace.service_calls, "every call goes through the proxy");
    }
    env.check_invariants_settled();
    RunResult { calls: trace.calls.clone(), crashes: trace.crashes.clone() }
}

/// Runs all of these concurrently. Returns the result of each, or how it failed.
fn run_all(runs: Vec<Run>) -> Vec<(Run, Result<RunResult, String>)> {
    let (pending, done) = (Mutex::new(VecDeque::from(runs)), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..CONCURRENCY {
            scope.spawn(|| {
                while let Some((scenario, crash_points)) = { pending.lock().unwrap().pop_front() } {
                    let result = catch_unwind(AssertUnwindSafe(|| run(scenario, &crash_points)));
                    let result = result.map_err(|panic| {
                        let message = panic.downcast_ref::<String>().cloned();
                        message.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
                    });
                    done.lock().unwrap().push(((scenario, crash_points), result));
                }
            });
        }
    });
    done.into_inner().unwrap()
}

/// Runs one of each list of alternatives, and tries the next one until all crash points of a run are reached.
fn run_until_crashed(runs: Vec<Vec<Run>>) -> Vec<(Run, RunResult)> {
    let (mut missing, mut done, mut failures) = (runs, Vec::new(), Vec::new());
    for try_number in 0..TRIES {
        let alternatives: BTreeMap<Run, Vec<Run>> =
            missing.drain(..).map(|runs| (runs[try_number % runs.len()].clone(), runs)).collect();
        for (run, result) in run_all(alternatives.keys().cloned().collect()) {
            match result {
                Ok(result) if result.crashes.len() == run.1.len() => done.push((run, result)),
                Ok(_) => missing.push(alternatives[&run].clone()),
                Err(message) => failures.push(format!("{run:?}: {message}")),
            }
        }
    }
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!(missing, Vec::<Vec<Run>>::new(), "every crash point is reached");
    done
}

fn kinds_of<'a>(calls: impl IntoIterator<Item = &'a String>) -> BTreeSet<&'a str> {
    calls.into_iter().filter_map(|call| call.split(" [").next()).collect()
}

#[test]
fn crash_before_or_after_any_call_neither_loses_nor_duplicates_an_import() {
    let started = Instant::now();
    let mut baseline: BTreeMap<Scenario, BTreeSet<String>> = BTreeMap::new();
    let scenarios = [Scenario::Obstructed, Scenario::Succeeds, Scenario::RetriesOnce];
    // On a busy machine a run may make a call that the next one does not make.
    let twice = scenarios.iter().chain(&scenarios).map(|scenario| (*scenario, Vec::new()));
    for ((scenario, _), result) in run_all(twice.collect()) {
        let calls = result.unwrap().calls.into_iter();
        let calls: BTreeSet<String> = calls.filter(|call| !call.contains(STALE_CACHE)).collect();
        baseline.entry(scenario).and_modify(|both| both.retain(|call| calls.contains(call))).or_insert(calls);
    }
    let kinds = kinds_of(baseline.values().flatten());
    assert_eq!(kinds, BTreeSet::from(KINDS), "the kinds of calls");

    // One crash per run, before and after each call. A call that several scenarios make is tested in one of them.
    let calls: BTreeMap<&String, Scenario> =
        baseline.iter().flat_map(|(scenario, calls)| calls.iter().map(|call| (call, *scenario))).collect();
    let single = |(call, scenario): (&&String, &Scenario)| {
        CrashPoint::around(call).map(|crash_point| vec![(*scenario, vec![crash_point])])
    };
    let singles = run_until_crashed(calls.iter().flat_map(single).collect());
    println!("{} calls, {} s", calls.len(), started.elapsed().as_secs());

    // Two crashes per run: at each call that only a recovery makes, and at a random sample of the other calls.
    let mut recovery: BTreeMap<&String, Vec<(usize, Scenario, CrashPoint)>> = BTreeMap::new();
    for ((scenario, crash_points), result) in &singles {
        let after = result.calls[result.crashes[0]..].iter().enumerate();
        // Whether the cache is stale is random.
        let new = after.filter(|(_, call)| !calls.contains_key(call) && !call.contains(STALE_CACHE)).rev();
        for (call, distance) in new.map(|(distance, call)| (call, distance)).collect::<BTreeMap<_, _>>() {
            recovery.entry(call).or_default().push((distance, *scenario, crash_points[0].clone()));
        }
    }
    // Prefer the run in which the call comes soonest after the crash: it is the most reproducible.
    recovery.values_mut().for_each(|runs| runs.sort());
    let kinds = kinds_of(recovery.keys().copied());
    assert!(kinds.is_subset(&BTreeSet::from(KINDS)), "the kinds of calls: {kinds:?}");
    let double =
        |scenario: Scenario, first: &CrashPoint, second: &CrashPoint| (scenario, vec![first.clone(), second.clone()]);
    let mut runs: Vec<Vec<Run>> = Vec::new();
    for (call, alternatives) in &recovery {
        let with = |second| alternatives.iter().map(|(_, scenario, first)| double(*scenario, first, &second)).collect();
        runs.extend(CrashPoint::around(call).map(with));
    }
    let seed = seed("CRASH_SEED");
    println!("CRASH_SEED={seed}: {} runs with a crash during recovery", runs.len());
    let mut rng = Rng::new(seed);
    let mut sample = || {
        let ((scenario, crash_points), result) = &singles[rng.below(singles.len())];
        let after: Vec<&String> =
            result.calls[result.crashes[0]..].iter().filter(|call| calls.contains_key(call)).collect();
        let second = CrashPoint { call: after[rng.below(after.len())].clone(), after: rng.one_in(2) };
        double(*scenario, &crash_points[0], &second)
    };
    runs.extend((0..SAMPLES).map(|_| (0..TRIES).map(|_| sample()).collect()));
    run_until_crashed(runs);
    println!("{} s", started.elapsed().as_secs());
}
