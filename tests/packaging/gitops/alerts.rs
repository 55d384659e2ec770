//! The alerts: their unit tests in promtool, their queries, and their runbooks.

use super::tool::{output, run};
use crate::chart::helm::{chart, documents, file, read, render_as};
use crate::env::text;
use personalize_operator::api::conditions::Reason;
use personalize_operator::telemetry::metrics::{Description, Metrics};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

const ALERTS: &str = "charts/personalize-operator/files/alerts.yaml";

/// Labels that Prometheus adds to each sample.
const SCRAPE_LABELS: [&str; 3] = ["instance", "job", "namespace"];

fn rules() -> Vec<Value> {
    let alerts: Value = serde_yaml::from_str(&read(ALERTS)).unwrap();
    alerts["groups"].as_array().unwrap().iter().flat_map(|g| g["rules"].as_array().unwrap().clone()).collect()
}

/// The metrics of a query that the operator does not have, and the labels that a metric does not have.
pub fn unknown_in(query: &str) -> Vec<String> {
    let described = Metrics::default().descriptions();
    let names = |d: &Description| match d.kind {
        "histogram" => ["_bucket", "_sum", "_count"].iter().map(|s| format!("{}{s}", d.name)).collect(),
        _ => vec![d.name.clone()],
    };
    let selector = regex::Regex::new(r"\b([a-z_]+_[a-z_]+)\b\s*(?:\{([^}]*)\})?(\s*\()?").unwrap();
    let label = regex::Regex::new(r#"([a-zA-Z_]\w*)\s*(?:=|!)"#).unwrap();
    let mut unknown = Vec::new();
    for found in selector.captures_iter(query) {
        let name = &found[1];
        // A function, or a label to group by.
        if found.get(3).is_some() || described.iter().any(|d| d.labels.contains(&name)) {
            continue;
        }
        let Some(metric) = described.iter().find(|d| names(d).iter().any(|n| n == name)) else {
            unknown.push(name.to_owned());
            continue;
        };
        for found in label.captures_iter(found.get(2).map_or("", |m| m.as_str())) {
            let label = &found[1];
            if !metric.labels.contains(&label) && !SCRAPE_LABELS.contains(&label) && label != "le" {
                unknown.push(format!("{name}{{{}}}", &found[1]));
            }
        }
    }
    unknown
}

#[test]
fn every_alert_has_unit_tests_in_which_it_fires_and_stays_silent() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::copy(file(ALERTS), dir.path().join("alerts.yaml")).unwrap();
    let tests = dir.path().join("test.yaml");
    fs::copy(file("tests/packaging/gitops/rules/alerts_test.yaml"), &tests).unwrap();
    output("promtool", &["check", "rules", "--lint-fatal", dir.path().join("alerts.yaml").to_str().unwrap()], "");
    output("promtool", &["test", "rules", tests.to_str().unwrap()], "");
    let cases: Value = serde_yaml::from_str(&read(&tests)).unwrap();
    let fires = |alert: &str, fires: bool| {
        let mut cases =
            cases["tests"].as_array().unwrap().iter().flat_map(|t| t["alert_rule_test"].as_array().unwrap());
        cases.any(|c| c["alertname"] == alert && c["exp_alerts"].is_array() == fires)
    };
    for rule in rules() {
        let alert = rule["alert"].as_str().unwrap();
        assert!(
            fires(alert, true) && fires(alert, false),
            "{alert} needs a test in which it fires, and one in which it does not"
        );
    }
}

#[test]
fn every_alert_queries_existing_metrics_and_links_to_a_runbook() {
    let reasons: BTreeSet<&str> = Reason::ALL.iter().map(|r| r.as_str()).collect();
    let list_of_reasons = regex::Regex::new(r#"reason=~"([^"]*)""#).unwrap();
    for rule in rules() {
        let (alert, query) = (rule["alert"].as_str().unwrap(), rule["expr"].as_str().unwrap());
        assert_eq!(unknown_in(query), Vec::<String>::new(), "{alert}");
        for list in list_of_reasons.captures_iter(query) {
            assert!(list[1].split('|').all(|reason| reasons.contains(reason)), "{alert}: {}", &list[1]);
        }
        let link = rule["annotations"]["runbook_url"].as_str().unwrap();
        let (page, anchor) = link.split_once('#').unwrap();
        assert!(page.starts_with("docs/"), "{link}");
        let page = read(page);
        let mut headings = page.lines().filter_map(|l| l.strip_prefix("## "));
        assert!(headings.any(|h| h.to_lowercase() == anchor), "{link} must lead to a heading");
    }
    assert_eq!(unknown_in("rate(personalize_operator_nothing_total[5m])"), ["personalize_operator_nothing_total"]);
    let query = "personalize_operator_imports_queued{nothing=\"x\"}";
    assert_eq!(unknown_in(query), ["personalize_operator_imports_queued{nothing}"]);
}

#[test]
fn alerts_of_a_release_fire_only_for_its_own_namespace() {
    let values = json!({"metrics": {"prometheusRule": {"enabled": true}}});
    let rendered = documents(&render_as("r", "one", &chart(), &values).unwrap());
    let rule = rendered.iter().find(|r| r["kind"] == "PrometheusRule").unwrap();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(dir.path().join("alerts.yaml"), rule["spec"].to_string()).unwrap();
    // Series for which each alert fires. PersonalizeOperatorDown fires without any.
    let failing = [
        ("personalize_operator_imports_total", "outcome=\"failed\"", "0+1x60"),
        ("personalize_operator_resources", "reason=\"AccessDenied\"", "1x60"),
        ("personalize_operator_resources", "reason=\"CredentialsRefused\"", "1x60"),
        ("personalize_operator_oldest_queued_seconds", "account=\"1\"", "90000x60"),
        ("personalize_operator_last_success_timestamp_seconds", "type=\"ITEMS\"", "0x60"),
        ("personalize_operator_max_data_age_seconds", "type=\"ITEMS\"", "60x60"),
        ("personalize_operator_poll_overdue_seconds", "instance=\"a\"", "90000x60"),
        ("personalize_operator_accounts_config_valid", "instance=\"a\"", "0x60"),
        ("personalize_operator_build_info", "instance=\"a\"", "1x60"),
        ("leader_election_master_status", "instance=\"a\"", "0x60"),
    ];
    let of = |namespace: &str| -> Vec<Value> {
        let series = |name: &str, label: &str| format!("{name}{{{label}, namespace=\"{namespace}\"}}");
        failing.iter().map(|(n, l, values)| json!({"series": series(n, l), "values": values})).collect()
    };
    let fires = |alert: &str, namespaces: &[&str]| {
        let series: Vec<Value> = namespaces.iter().flat_map(|n| of(n)).collect();
        let test = json!({"alertname": alert, "eval_time": "50m"});
        let test = json!({"interval": "1m", "input_series": series, "alert_rule_test": [test]});
        let file = dir.path().join("test.yaml");
        fs::write(&file, json!({"rule_files": ["alerts.yaml"], "tests": [test]}).to_string()).unwrap();
        // The test expects no alert, so promtool fails if one fires.
        let tested = run("promtool", &["test", "rules", file.to_str().unwrap()], "");
        assert!(tested.status.success() || text(&tested).contains("namespace=\"one\""), "{}", text(&tested));
        !tested.status.success()
    };
    for rule in rules() {
        let alert = rule["alert"].as_str().unwrap();
        let down = alert == "PersonalizeOperatorDown";
        assert_eq!(fires(alert, &["two"]), down, "{alert}: another release has a problem");
        assert_eq!(fires(alert, &["one", "two"]), !down, "{alert}: this release has a problem, too");
    }
}
