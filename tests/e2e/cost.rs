//! What one import costs: calls to AWS and writes to Kubernetes, on the real parts. A minute lasts half a second. The data is
//! checked, as it is by default.

use crate::env::s3::S3;
use crate::env::{TestEnv, dataset_arn, eventually};
use crate::invariants::{self, operator_writes};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

const MINUTE: Duration = Duration::from_millis(500);
const LONG: &str = "us-east-1";
const SHORT: &str = "eu-west-1";

/// What each import of a group cost.
struct Cost {
    calls: f64,
    writes: usize,
    /// The mean delay in minutes until the end of a job was recorded.
    delay: f64,
}

/// Sets of imports. Those of a set run at once, each into a dataset of its own; the sets run one after the other.
struct Group {
    region: &'static str,
    sets: usize,
    at_once: usize,
    minutes: u32,
}

impl Group {
    fn count(&self) -> f64 {
        f64::from(u32::try_from(self.sets * self.at_once).unwrap())
    }

    fn name(&self, round: &str, dataset: usize) -> String {
        format!("{round}-{}-{dataset}", self.region)
    }

    fn run(&self, env: &TestEnv, round: &str) {
        for set in 0..self.sets {
            let datasets = set * self.at_once..(set + 1) * self.at_once;
            for dataset in datasets.clone() {
                let arn = dataset_arn(&format!("d{dataset}")).replace(SHORT, self.region);
                env.import(&self.name(round, dataset), "", json!({"datasetArn": arn}));
            }
            let names: Vec<String> = datasets.map(|dataset| self.name(round, dataset)).collect();
            self.finish(env, &names);
        }
    }

    /// Ends the jobs that have run for their time; waits until the resources say so. The jobs end within half a minute of
    /// each other, because the delay of all of them would be the same if they ended together.
    fn finish(&self, env: &TestEnv, names: &[String]) {
        for (i, name) in (0..).zip(names) {
            let run = i64::try_from((MINUTE * self.minutes + MINUTE / 10 * i).as_millis()).unwrap();
            eventually("the job has run for its time", || {
                let jobs = env.service.jobs();
                let job = jobs.iter().find(|job| job["name"].as_str().unwrap().starts_with(&format!("{name}-")))?;
                let is_over = Timestamp::now().as_millisecond() - job["createdMs"].as_i64()? >= run;
                is_over.then(|| env.service.finish_job(job["arn"].as_str().unwrap()))
            });
        }
        for name in names {
            env.wait_for_reason(name, "ImportSucceeded");
            eventually("the last event is written", || {
                env.event_reasons(name).contains(&"ImportSucceeded".to_owned()).then_some(())
            });
        }
    }

    fn cost(&self, env: &TestEnv, round: &str, ledger: &[Value]) -> Cost {
        let names = (0..self.sets * self.at_once).map(|dataset| self.name(round, dataset));
        let calls = ledger.iter().filter(|call| call["region"] == self.region).count();
        let all_writes = env.audited_writes();
        let events = invariants::events(&env.control_plane.audit_log(), &env.namespace);
        let jobs = env.service.jobs();
        let (mut writes, mut delay) = (0, 0.0);
        for name in names {
            let own: Vec<&Value> =
                operator_writes(&all_writes).filter(|write| write["objectRef"]["name"] == *name).collect();
            let about = events.iter().filter(|event| event["requestObject"]["regarding"]["name"] == *name);
            writes = writes.max(own.len() + about.count());
            let job = jobs.iter().find(|job| job["name"].as_str().unwrap().starts_with(&format!("{name}-"))).unwrap();
            let recorded: Timestamp =
                own.last().unwrap()["requestReceivedTimestamp"].as_str().unwrap().parse().unwrap();
            let late = recorded.as_millisecond() - job["updatedMs"].as_i64().unwrap();
            delay += Duration::from_millis(late.max(0).unsigned_abs()).as_secs_f64() / MINUTE.as_secs_f64();
        }
        Cost { calls: f64::from(u32::try_from(calls).unwrap()) / self.count(), writes, delay: delay / self.count() }
    }
}

/// The numbers for `make bench`.
fn write_json(costs: &BTreeMap<String, Cost>) {
    let row = |(name, cost): (&String, &Cost)| {
        let row = json!({"AWS calls": cost.calls, "Kubernetes writes": cost.writes, "delay in min": cost.delay});
        (name.clone(), row)
    };
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../bench");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("cost.json"), format!("{:#}\n", Value::Object(costs.iter().map(row).collect()))).unwrap();
}

/// How many requests to S3 the metrics of an operator count.
fn s3_requests(metrics: &str) -> f64 {
    let is_s3 = |line: &&str| {
        let of = |operation| {
            line.starts_with(&format!("personalize_operator_api_requests_total{{operation=\"{operation}\""))
        };
        of("ListObjectsV2") || of("GetObject")
    };
    metrics.lines().filter(is_s3).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn import_of_an_hour_takes_at_most_40_calls_and_6_writes() {
    let env = TestEnv::new();
    let (pending, rest) = (MINUTE * 2, MINUTE * 600);
    env.service.set_durations(pending.as_millis().try_into().unwrap(), rest.as_millis().try_into().unwrap());
    let timing = |flag: &str, seconds: u32| format!("--{flag}={}ms", (MINUTE * seconds / 60).as_millis());
    let s3 = S3::start(env.dir());
    let flags = [&timing("poll-min", 15), &timing("poll-max", 300), "--preflight=warn", "--grace=60s"];
    let operator = env.start_operator_with(&[("AWS_ENDPOINT_URL_S3", s3.url())], &flags);
    let groups = [
        Group { region: LONG, sets: 1, at_once: 1, minutes: 60 },
        Group { region: SHORT, sets: 5, at_once: 5, minutes: 10 },
    ];
    let mut costs = BTreeMap::new();
    for (round, about) in [("first", "first import"), ("known", "second import")] {
        let calls = env.service.ledger().len();
        thread::scope(|scope| {
            let running = groups.each_ref().map(|group| scope.spawn(|| group.run(&env, round)));
            running.into_iter().for_each(|group| group.join().unwrap());
        });
        let ledger = env.service.ledger();
        for group in &groups {
            let name = format!("{} of {} min, {about}", group.at_once, group.minutes);
            costs.insert(name, group.cost(&env, round, &ledger[calls..]));
        }
    }
    println!("{:32} {:>10} {:>18} {:>14}", "cost of one import", "AWS calls", "Kubernetes writes", "delay in min");
    for (name, Cost { calls, writes, delay }) in &costs {
        println!("{name:32} {calls:>10.1} {writes:>18} {delay:>14.2}");
    }
    write_json(&costs);
    let imports: f64 = groups.iter().map(|group| 2.0 * group.count()).sum();
    println!("requests to S3 for each check: {:.1}", s3_requests(&operator.metrics()) / imports);
    let limits = [
        ("1 of 60 min, first import", 40.0),
        ("1 of 60 min, second import", 25.0),
        ("5 of 10 min, first import", 17.0),
        ("5 of 10 min, second import", 14.0),
    ];
    for (name, calls) in limits {
        assert!(costs[name].calls <= calls, "{name}: {} calls", costs[name].calls);
        assert!(costs[name].writes <= 6, "{name}: {} writes", costs[name].writes);
    }
    env.check_invariants_settled();
}
