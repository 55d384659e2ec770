//! A crash at every effect. A whole life is told as the list of all calls that the operator makes in it,
//! reads and writes, to Kubernetes and to AWS. Then it is lived again for each of them, and the operator
//! is killed right before that call and right after it. Whatever the next operator does in turn is killed
//! too.

mod call_trace;
mod user_script;

use crate::env::{Bed, eventually};
use crate::rng::{Draw, seed};
use call_trace::{BEHIND, Course, Death, HOURS, Story};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use user_script::Person;

/// Every kind of call in a life. One that is new has to be thought about.
const KINDS: [&str; 14] = [
    "CreateDatasetImportJob",
    "DescribeDataset",
    "DescribeDatasetImportJob",
    "GET datasetimportjobs",
    "GET leases",
    "GET namespaces",
    "LIST datasetimportjobs",
    "ListDatasetImportJobs",
    "ListTagsForResource",
    "POST events",
    "POST leases",
    "PUT datasetimportjobs/status",
    "PUT leases",
    "WATCH datasetimportjobs",
];

/// How many lives run at once: most of their time they wait.
const AT_ONCE: usize = 8;

/// How often a life is lived until all its deaths have come: a machine that is too busy makes it take
/// another course.
const TRIES: usize = 3;

/// How many lives have a second death at whatever the lot falls on.
const LOTS: usize = 12;

/// What one life brought.
struct Lived {
    /// Its effects in order.
    effects: Vec<String>,
    /// How many effects there were up to each death.
    died: Vec<usize>,
}

type Life = (Course, Vec<Death>);

/// Lives one life from the first start to the last stop, with these deaths in it in this order.
fn live(course: Course, deaths: &[Death]) -> Lived {
    let bed = Arc::new(Bed::new());
    bed.service.durations(HOURS, HOURS);
    let proxy = bed.proxy();
    let story = Arc::new(Mutex::new(Story::new(course, deaths)));
    let (heard, at) = (Arc::clone(&story), Arc::clone(&bed));
    proxy.rule(move |call| heard.lock().unwrap().heard(call, &at));
    let mut person = (course == Course::Hindered).then(|| Person::new(&bed));
    let edit = if course == Course::Fails { json!({"backoffLimit": 1}) } else { json!({}) };
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
            // Long enough for a person to come in between.
            "--rejected-min=2s",
            "--rejected-max=2s",
            "--drain-timeout=30s",
        ];
        bed.operator_behind(&proxy, &flags)
    };
    let mut starts = 0;
    loop {
        let mut operator = start();
        starts += 1;
        let killed = eventually(&format!("the life of {deaths:?} goes on"), || {
            if let Some(person) = &mut person {
                person.tend(&story);
            }
            let story = story.lock().unwrap();
            assert!(story.dying || !operator.has_ended(), "it ended by itself: {}", operator.log());
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
    let attempts = if course == Course::Fails { 2 } else { 1 };
    assert_eq!(bed.accepted(), attempts);
    assert_eq!(starts, story.died.len() + 1, "it stops by itself, or is killed as ordered");
    if deaths.is_empty() {
        assert_eq!(bed.service.ledger().len(), story.calls, "no call goes past the proxy");
    }
    bed.judged_settled();
    Lived { effects: story.effects.clone(), died: story.died.clone() }
}

/// Lives these lives side by side; tells what each brought, or what went wrong in it.
fn live_all(lives: Vec<Life>) -> Vec<(Life, Result<Lived, String>)> {
    let (waiting, lived) = (Mutex::new(VecDeque::from(lives)), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((course, deaths)) = { waiting.lock().unwrap().pop_front() } {
                    let outcome = catch_unwind(AssertUnwindSafe(|| live(course, &deaths)));
                    let outcome = outcome.map_err(|panic| {
                        let told = panic.downcast_ref::<String>().cloned();
                        told.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
                    });
                    lived.lock().unwrap().push(((course, deaths), outcome));
                }
            });
        }
    });
    lived.into_inner().unwrap()
}

/// Lives each of these lives until its deaths have come, by another of its ways each time, and tells what
/// they brought.
fn live_until_died(lives: Vec<Vec<Life>>) -> Vec<(Life, Lived)> {
    let (mut missing, mut done, mut faults) = (lives, Vec::new(), Vec::new());
    for again in 0..TRIES {
        let ways: BTreeMap<Life, Vec<Life>> =
            missing.drain(..).map(|ways| (ways[again % ways.len()].clone(), ways)).collect();
        for (life, lived) in live_all(ways.keys().cloned().collect()) {
            match lived {
                Ok(lived) if lived.died.len() == life.1.len() => done.push((life, lived)),
                Ok(_) => missing.push(ways[&life].clone()),
                Err(told) => faults.push(format!("{life:?}: {told}")),
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(missing, Vec::<Vec<Life>>::new(), "each death that was ordered came");
    done
}

fn kinds_of<'a>(effects: impl IntoIterator<Item = &'a String>) -> BTreeSet<&'a str> {
    effects.into_iter().filter_map(|effect| effect.split(" [").next()).collect()
}

#[test]
fn a_crash_right_before_and_right_after_every_effect_costs_nothing_and_doubles_nothing() {
    let began = Instant::now();
    let mut undisturbed: BTreeMap<Course, BTreeSet<String>> = BTreeMap::new();
    let courses = [Course::Hindered, Course::Succeeds, Course::Fails];
    for ((course, _), lived) in live_all(courses.map(|course| (course, Vec::new())).to_vec()) {
        let effects = lived.unwrap().effects.into_iter();
        undisturbed.insert(course, effects.filter(|effect| !effect.contains(BEHIND)).collect());
    }
    let kinds = kinds_of(undisturbed.values().flatten());
    assert_eq!(kinds, BTreeSet::from(KINDS), "every kind of call is known");

    // One death in each life, right before and right after each effect. What several kinds of life have in
    // common is gone through in one of them.
    let effects: BTreeMap<&String, Course> =
        undisturbed.iter().flat_map(|(course, effects)| effects.iter().map(|e| (e, *course))).collect();
    let single = |(effect, course): (&&String, &Course)| Death::both(effect).map(|death| vec![(*course, vec![death])]);
    let singles = live_until_died(effects.iter().flat_map(single).collect());
    println!("{} effects, {} s", effects.len(), began.elapsed().as_secs());

    // Two deaths in one life: at what only those do who come after a crash, and at whatever else follows
    // the first, as the lot falls.
    let mut recovery: BTreeMap<&String, Vec<(usize, Course, Death)>> = BTreeMap::new();
    for ((course, deaths), lived) in &singles {
        let after = lived.effects[lived.died[0]..].iter().enumerate();
        // Whether a cache is behind is chance.
        let news = after.filter(|(_, effect)| !effects.contains_key(effect) && !effect.contains(BEHIND)).rev();
        for (effect, later) in news.map(|(later, effect)| (effect, later)).collect::<BTreeMap<_, _>>() {
            recovery.entry(effect).or_default().push((later, *course, deaths[0].clone()));
        }
    }
    // On a busy machine much may follow by chance; what comes soonest follows from the death.
    recovery.values_mut().for_each(|ways| ways.sort());
    let kinds = kinds_of(recovery.keys().copied());
    assert!(kinds.is_subset(&BTreeSet::from(KINDS)), "every kind of call is known: {kinds:?}");
    let twice = |course: Course, first: &Death, second: &Death| (course, vec![first.clone(), second.clone()]);
    let mut lives: Vec<Vec<Life>> = Vec::new();
    for (effect, ways) in &recovery {
        let second = |second| ways.iter().map(|(_, course, first)| twice(*course, first, &second)).collect();
        lives.extend(Death::both(effect).map(second));
    }
    let seed = seed("EFFECTS_SEED");
    println!("EFFECTS_SEED={seed}: {} lives with a crash in recovery", lives.len());
    let mut draw = Draw::new(seed);
    let mut lot = || {
        let ((course, deaths), lived) = &singles[draw.below(singles.len())];
        let after: Vec<&String> = lived.effects[lived.died[0]..].iter().filter(|e| effects.contains_key(e)).collect();
        let second = Death { effect: after[draw.below(after.len())].clone(), after: draw.once_in(2) };
        twice(*course, &deaths[0], &second)
    };
    lives.extend((0..LOTS).map(|_| (0..TRIES).map(|_| lot()).collect()));
    live_until_died(lives);
    println!("{} s", began.elapsed().as_secs());
}
