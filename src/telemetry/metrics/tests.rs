//! The exposed text by example.

use super::*;
use crate::personalize::DatasetArn;

fn account_region(i: usize) -> AccountRegion {
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
        "IntentTooOld",
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
fn number_of_pool_series_is_bounded() {
    let metrics = Metrics::default();
    let now = Timestamp::now();
    let stats = |n| PoolStats { in_flight: n, pending: 1, pending_since: Some(now) };
    let mut pools: HashMap<_, _> = (0..1000).map(|i| (account_region(i), stats(0))).collect();
    pools.insert(account_region(999), stats(5));
    metrics.record_snapshot(&Snapshot { pools, ..Snapshot::default() }, now);
    let text = metrics.expose(Format::Text);
    let queued: Vec<&str> = text.lines().filter(|l| l.starts_with("personalize_operator_imports_queued{")).collect();
    assert_eq!(queued.len(), MAX_POOL_SERIES + 1);
    assert!(queued.iter().any(|l| l.contains("account=\"other\"") && l.ends_with(" 900")), "{queued:?}");
    assert!(
        text.contains("imports_in_flight{account=\"000000000999\",region=\"eu-west-1\"} 5"),
        "the busiest pools keep their series"
    );
}

#[test]
fn number_of_dataset_series_is_bounded_and_the_others_show_what_is_due_first() {
    let metrics = Metrics::default();
    let at = |second| Timestamp::from_second(second).unwrap();
    let success = |i: u32, max_age: Option<u64>| LastSuccess {
        dataset: DatasetArn::parse(&format!("arn:aws:personalize:eu-west-1:123456789012:dataset/g{i:04}/ITEMS"))
            .unwrap(),
        ended: at(1_000_000 - i64::from(i)),
        max_age: max_age.map(Duration::from_secs),
    };
    let series = |name: &str| {
        let text = metrics.expose(Format::Text);
        let lines = text.lines().filter(|line| line.starts_with(&format!("personalize_operator_{name}{{")));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let other = "{account=\"other\",region=\"other\",group=\"other\",type=\"other\"}";
    let shows = |lines: &[String], value: &str| lines.iter().any(|line| line.ends_with(&format!("{other} {value}")));
    metrics.record_last_successes((0..1000).map(|i| success(i, (i >= 900).then_some(60))).collect());
    let last = series("last_success_timestamp_seconds");
    assert_eq!(last.len(), MAX_DATASET_SERIES);
    assert!(last.iter().any(|line| line.contains("group=\"g0999\",type=\"ITEMS\"} 999001")));
    assert!(shows(&last, "999101.0"), "the oldest of the others");
    assert_eq!(series("max_data_age_seconds").len(), 100);
    metrics.record_last_successes((0..1000).map(|i| success(i, Some(60 + u64::from(i) * 2))).collect());
    assert_eq!(series("max_data_age_seconds").len(), MAX_DATASET_SERIES);
    let last = series("last_success_timestamp_seconds");
    assert!(shows(&last, "999501.0"), "the first of the others that is due");
    metrics.record_last_successes(vec![success(1, None)]);
    assert_eq!((series("last_success_timestamp_seconds").len(), series("max_data_age_seconds").len()), (1, 0));
    metrics.clear_snapshot();
    assert!(series("last_success_timestamp_seconds").is_empty());
}

#[test]
fn number_of_status_code_series_is_bounded() {
    let metrics = Metrics::default();
    for code in 100..1000 {
        metrics.kube_request("PUT", Some(StatusCode::from_u16(code).unwrap()));
    }
    metrics.kube_request("PUT", None);
    let text = metrics.expose(Format::Text);
    let series = text.lines().filter(|l| l.starts_with("rest_client_requests_total{")).count();
    assert!(series < 80, "{series}");
    for code in ["200", "429", "4xx", "9xx", "<error>"] {
        assert!(text.contains(&format!("rest_client_requests_total{{code=\"{code}\",method=\"PUT\"}}")), "{code}");
    }
}

#[test]
fn standby_replica_exposes_no_gauges_over_all_resources() {
    let metrics = Metrics::default();
    let pools = HashMap::from([(account_region(1), PoolStats { in_flight: 1, pending: 0, pending_since: None })]);
    metrics.record_snapshot(&Snapshot { pools, ..Snapshot::default() }, Timestamp::now());
    assert!(metrics.expose(Format::Text).contains("reason=\"ImportFailed\"} 0"));
    metrics.clear_snapshot();
    let text = metrics.expose(Format::Text);
    for name in ["imports_in_flight", "operator_resources", "poll_overdue"] {
        assert!(!text.contains(name), "{name}");
    }
}
