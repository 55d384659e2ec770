//! The exposition, read by parsers that nobody here wrote: Prometheus' own, in both formats.

use crate::env::{OperatorProcess, TestEnv, eventually};
use crate::tool::output;
use personalize_operator::telemetry::metrics::{Description, Metrics};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{Read, Write};

/// The labels of a sample that its metric's description does not name.
const OF_THE_FORMAT: &str = "le";

/// What a scraper gets that sends this Accept header: the media type and the text.
pub fn scrape(operator: &OperatorProcess, accept: &str) -> (String, String) {
    let host = operator.url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAccept: {accept}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let kind = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-type: ").map(str::to_owned));
    (kind.unwrap(), body.to_owned())
}

/// An operator whose metrics have all something to tell, and what they tell then.
pub fn eventful(env: &TestEnv) -> (OperatorProcess, String) {
    let operator = env.start_operator(&["--max-in-flight=1"]);
    env.import("good", "d0", json!({}));
    env.wait_for_reason("good", "ImportSucceeded");
    env.import("bad", "d1", json!({"backoffLimit": 1, "dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    env.wait_for_reason("bad", "ImportFailed");
    env.import("rejected", "d2", json!({"importMode": "INCREMENTAL"}));
    env.wait_for_reason("rejected", "InvalidInput");
    env.import(
        "elsewhere",
        "d0",
        json!({"datasetArn": crate::env::dataset_arn("d0").replace("123456789012", "999999999999")}),
    );
    env.wait_for_reason("elsewhere", "AccessDenied");
    env.service.set_durations(100, 600_000);
    env.import("hostile-name", "d3", json!({"tags": [{"tagKey": "hostile-key", "tagValue": "hostile-value"}]}));
    env.wait_for_reason("hostile-name", "Importing");
    env.import("waiting", "d4", json!({}));
    env.wait_for_reason("waiting", "Queued");
    // The queue is told at intervals, so some time after it is so.
    let text = eventually("the queue is told", || {
        let text = scrape(&operator, "*/*").1;
        let seen = |what: &str| text.contains(what);
        (seen("operator_resources{reason=\"Queued\"} 1") && seen("operator_imports_in_flight{account=\"123456789012\""))
            .then_some(text)
    });
    (operator, text)
}

/// The names of labels of each sample line, with the sample's own name.
fn samples(text: &str) -> Vec<(String, BTreeSet<String>)> {
    let label = regex::Regex::new(r#"([a-zA-Z_]\w*)="(?:[^"\\]|\\.)*""#).unwrap();
    text.lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty())
        .map(|line| {
            let name = line.split(['{', ' ']).next().unwrap();
            let labels = label.captures_iter(line).map(|c| c[1].to_owned()).filter(|l| l != OF_THE_FORMAT);
            (name.to_owned(), labels.collect())
        })
        .collect()
}

fn describes(description: &Description, sample: &str) -> bool {
    let suffixes: &[&str] = if description.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
    suffixes.iter().any(|suffix| *sample == format!("{}{suffix}", description.name))
}

#[test]
fn the_live_exposition_parses_is_described_and_holds_nothing_from_outside() {
    let env = TestEnv::new();
    let (operator, text) = eventful(&env);
    assert_eq!(scrape(&operator, "*/*").0, "text/plain; version=0.0.4; charset=utf-8");
    // Parses it, and lints names, types and help.
    output("promtool", &["check", "metrics"], &text);

    let described = Metrics::default().descriptions();
    let samples = samples(&text);
    for (name, labels) in &samples {
        let description =
            described.iter().find(|d| describes(d, name)).unwrap_or_else(|| panic!("{name} is not described"));
        let expected: BTreeSet<String> = description.labels.iter().map(|l| (*l).to_owned()).collect();
        assert_eq!(*labels, expected, "{name}");
    }
    for description in &described {
        assert!(samples.iter().any(|(name, _)| describes(description, name)), "{} has no sample", description.name);
    }
    for outside in ["hostile", "elsewhere", &env.namespace, "s3:", "arn:"] {
        assert!(!text.contains(outside), "{outside} in\n{text}");
    }

    let (kind, open) = scrape(&operator, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    // This reader of Prometheus' wants times, which an exposition needn't have.
    let timed: String =
        open.lines().map(|l| if l.starts_with('#') { format!("{l}\n") } else { format!("{l} 1700000000\n") }).collect();
    let file = env.dir().join("open.txt");
    std::fs::write(&file, timed).unwrap();
    let blocks = env.dir().join("blocks");
    output(
        "promtool",
        &["tsdb", "create-blocks-from", "openmetrics", file.to_str().unwrap(), blocks.to_str().unwrap()],
        "",
    );
}

/// The value of the one sample of that name.
fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|l| l.strip_prefix(name)?.rsplit_once(' ')?.1.parse().ok())
}

#[test]
fn a_running_job_that_can_not_be_looked_at_is_overdue_until_it_can() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let operator = env.start_operator(&[]);
    env.import("nightly", "d0", json!({}));
    env.wait_for_reason("nightly", "Importing");
    let overdue = || value(&scrape(&operator, "*/*").1, "personalize_operator_poll_overdue_seconds{");
    eventually("it is looked at in time", || overdue().filter(|seconds| *seconds < 1.0));
    let refusal = json!({"error": {"code": "InternalFailure", "message": "as ordered", "status": 500}});
    env.service.inject_fault(&json!({"operation": "DescribeDatasetImportJob", "count": 0, "action": refusal}));
    eventually("it is overdue", || overdue().filter(|seconds| *seconds > 3.0));
    env.service.clear_faults();
    eventually("it is in time again", || overdue().filter(|seconds| *seconds < 1.0));
}

#[test]
fn a_replica_that_stands_by_tells_that_it_does_and_nothing_of_the_queue() {
    let env = TestEnv::new();
    let leader = env.start_operator(&["--identity=first"]);
    env.import("good", "d0", json!({}));
    env.wait_for_reason("good", "ImportSucceeded");
    let other = env.start_operator(&["--identity=second"]);
    let told = |operator: &OperatorProcess| scrape(operator, "*/*").1;
    assert!(told(&leader).contains("leader_election_master_status{name=\"personalize-operator\"} 1"));
    eventually("the queue is told by who leads", || told(&leader).contains("workqueue_depth").then_some(()));
    let text = told(&other);
    assert!(text.contains("leader_election_master_status{name=\"personalize-operator\"} 0"));
    for name in ["workqueue_depth", "personalize_operator_resources"] {
        assert!(!text.contains(name), "{name}");
    }
}
