//! The metrics endpoint: the parsers of Prometheus read it in both formats.

use super::tool::output;
use crate::env::{OperatorProcess, TestEnv, eventually};
use personalize_operator::telemetry::metrics::{Description, Metrics};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{Read, Write};

/// The label that the histogram format adds.
const BUCKET_LABEL: &str = "le";

/// The media type and the body of the response to a scrape with this Accept header.
pub fn scrape(operator: &OperatorProcess, accept: &str) -> (String, String) {
    let host = operator.url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAccept: {accept}\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let kind = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-type: ").map(str::to_owned));
    (kind.unwrap(), body.to_owned())
}

/// Runs an operator until every metric has a sample, and returns them.
pub fn run_with_all_metrics(env: &TestEnv) -> (OperatorProcess, String) {
    let operator = env.start_operator(&["--max-in-flight=1"]);
    env.import("good", "d0", json!({}));
    env.wait_for_reason("good", "ImportSucceeded");
    env.annotate("good", "personalize-operator.io/max-data-age=26h");
    env.import("bad", "d1", json!({"backoffLimit": 1, "dataSource": {"dataLocation": "s3://bucket/few.csv"}}));
    env.wait_for_reason("bad", "ImportFailed");
    env.service.reject_imports_into("d2");
    env.import("rejected", "d2", json!({}));
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
    // The operator updates the metrics of the queue at intervals.
    let text = eventually("the metrics show the queue", || {
        let text = scrape(&operator, "*/*").1;
        let shows = |sample: &str| text.contains(sample);
        (shows("operator_resources{reason=\"Queued\"} 1")
            && shows("operator_max_data_age_seconds{account=\"123456789012\"")
            && shows("operator_imports_in_flight{account=\"123456789012\""))
        .then_some(text)
    });
    (operator, text)
}

/// The name and the label names of each sample.
fn samples(text: &str) -> Vec<(String, BTreeSet<String>)> {
    let label = regex::Regex::new(r#"([a-zA-Z_]\w*)="(?:[^"\\]|\\.)*""#).unwrap();
    text.lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty())
        .map(|line| {
            let name = line.split(['{', ' ']).next().unwrap();
            let labels = label.captures_iter(line).map(|c| c[1].to_owned()).filter(|l| l != BUCKET_LABEL);
            (name.to_owned(), labels.collect())
        })
        .collect()
}

fn describes(description: &Description, sample: &str) -> bool {
    let suffixes: &[&str] = if description.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
    suffixes.iter().any(|suffix| *sample == format!("{}{suffix}", description.name))
}

#[test]
fn metrics_parse_match_their_descriptions_and_contain_no_user_input() {
    let env = TestEnv::new();
    let (operator, text) = run_with_all_metrics(&env);
    assert_eq!(scrape(&operator, "*/*").0, "text/plain; version=0.0.4; charset=utf-8");
    // This also lints names, types and help texts.
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
    for input in ["hostile", "elsewhere", &env.namespace, "s3:", "arn:"] {
        assert!(!text.contains(input), "{input} in\n{text}");
    }

    let (kind, open) = scrape(&operator, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    // This parser requires timestamps, which are optional in the format.
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

/// The value of the only sample of a metric.
fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|l| l.strip_prefix(name)?.rsplit_once(' ')?.1.parse().ok())
}

#[test]
fn poll_is_overdue_while_the_job_cannot_be_described() {
    let env = TestEnv::new();
    env.service.set_durations(100, 600_000);
    let operator = env.start_operator(&[]);
    env.import("nightly", "d0", json!({}));
    env.wait_for_reason("nightly", "Importing");
    let overdue = || value(&scrape(&operator, "*/*").1, "personalize_operator_poll_overdue_seconds{");
    eventually("the poll is on time", || overdue().filter(|seconds| *seconds < 1.0));
    let error = json!({"error": {"code": "InternalFailure", "message": "injected", "status": 500}});
    env.service.inject_fault(&json!({"operation": "DescribeDatasetImportJob", "count": 0, "action": error}));
    eventually("the poll is overdue", || overdue().filter(|seconds| *seconds > 3.0));
    env.service.clear_faults();
    eventually("the poll is on time again", || overdue().filter(|seconds| *seconds < 1.0));
}

#[test]
fn standby_replica_reports_that_it_does_not_lead_and_nothing_about_the_queue() {
    let env = TestEnv::new();
    let leader = env.start_operator(&["--identity=first"]);
    env.import("good", "d0", json!({}));
    env.wait_for_reason("good", "ImportSucceeded");
    let standby = env.start_operator(&["--identity=second"]);
    let metrics = |operator: &OperatorProcess| scrape(operator, "*/*").1;
    assert!(metrics(&leader).contains("leader_election_master_status{name=\"personalize-operator\"} 1"));
    let queue = ["personalize_operator_imports_queued", "personalize_operator_resources"];
    eventually("the leader reports the queue", || {
        let metrics = metrics(&leader);
        queue.iter().all(|name| metrics.contains(name)).then_some(())
    });
    let metrics = metrics(&standby);
    assert!(metrics.contains("leader_election_master_status{name=\"personalize-operator\"} 0"));
    for name in queue {
        assert!(!metrics.contains(name), "{name}");
    }
}
