//! The alerts: their unit tests on promtool, what they query, and where their runbooks are.

use crate::tool::{checkout, output, read};
use personalize_operator::api::conditions::Reason;
use personalize_operator::telemetry::metrics::{Description, Metrics};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

const ALERTS: &str = "charts/personalize-operator/files/alerts.yaml";

/// Labels that a scrape adds.
const OF_THE_SCRAPE: [&str; 3] = ["instance", "job", "namespace"];

fn rules() -> Vec<Value> {
    let file: Value = serde_yaml::from_str(&read(&checkout(ALERTS))).unwrap();
    file["groups"].as_array().unwrap().iter().flat_map(|g| g["rules"].as_array().unwrap().clone()).collect()
}

/// What keeps a query from finding anything: a metric that does not exist, or a label that it has not.
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
        // A function, or the label of a grouping.
        if found.get(3).is_some() || described.iter().any(|d| d.labels.contains(&name)) {
            continue;
        }
        let Some(metric) = described.iter().find(|d| names(d).iter().any(|n| n == name)) else {
            unknown.push(name.to_owned());
            continue;
        };
        for found in label.captures_iter(found.get(2).map_or("", |m| m.as_str())) {
            let known = metric.labels.contains(&&found[1]) || OF_THE_SCRAPE.contains(&&found[1]) || &found[1] == "le";
            if !known {
                unknown.push(format!("{name}{{{}}}", &found[1]));
            }
        }
    }
    unknown
}

#[test]
fn the_alerts_pass_their_unit_tests_and_each_is_tested() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::copy(checkout(ALERTS), dir.path().join("alerts.yaml")).unwrap();
    let tests = dir.path().join("test.yaml");
    fs::copy(checkout("tests/gitops/rules/alerts_test.yaml"), &tests).unwrap();
    output("promtool", &["check", "rules", "--lint-fatal", dir.path().join("alerts.yaml").to_str().unwrap()], "");
    output("promtool", &["test", "rules", tests.to_str().unwrap()], "");
    let cases: Value = serde_yaml::from_str(&read(&tests)).unwrap();
    let fires = |alert: &str, fires: bool| {
        let cases = cases["tests"].as_array().unwrap().iter().flat_map(|t| t["alert_rule_test"].as_array().unwrap());
        cases.into_iter().any(|c| c["alertname"] == alert && c["exp_alerts"].is_array() == fires)
    };
    for rule in rules() {
        let alert = rule["alert"].as_str().unwrap();
        assert!(fires(alert, true) && fires(alert, false), "{alert} is seen firing, and not firing");
    }
}

#[test]
fn each_alert_queries_what_exists_and_has_a_runbook() {
    let reasons: BTreeSet<&str> = Reason::ALL.iter().map(|r| r.as_str()).collect();
    let list_of_reasons = regex::Regex::new(r#"reason=~"([^"]*)""#).unwrap();
    for rule in rules() {
        let (alert, query) = (rule["alert"].as_str().unwrap(), rule["expr"].as_str().unwrap());
        assert_eq!(unknown_in(query), Vec::<String>::new(), "{alert}");
        for list in list_of_reasons.captures_iter(query) {
            assert!(list[1].split('|').all(|reason| reasons.contains(reason)), "{alert}: {}", &list[1]);
        }
        let link = rule["annotations"]["runbook_url"].as_str().unwrap();
        let (file, anchor) = link.split_once('#').unwrap();
        assert!(file.starts_with("docs/"), "{link}");
        let text = read(&checkout(file));
        let mut headings = text.lines().filter_map(|l| l.strip_prefix("## "));
        assert!(headings.any(|h| h.to_lowercase() == anchor), "{link} leads to a heading");
    }
    assert_eq!(unknown_in("rate(personalize_operator_nothing_total[5m])"), ["personalize_operator_nothing_total"]);
    assert_eq!(unknown_in("workqueue_depth{nothing=\"x\"}"), ["workqueue_depth{nothing}"]);
}

#[test]
fn the_alerts_of_a_release_are_about_its_own_namespace() {
    let chart = checkout("charts/personalize-operator");
    let args =
        ["template", "r", chart.to_str().unwrap(), "--namespace=one", "--set=metrics.prometheusRule.enabled=true"];
    let rendered = crate::manifests::documents(&output("helm", &args, ""));
    let rule = rendered.iter().find(|r| r["kind"] == "PrometheusRule").unwrap();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(dir.path().join("alerts.yaml"), rule["spec"].to_string()).unwrap();
    // Each alert has a reason to fire, in another namespace; in its own there is nothing, not even an operator.
    let failing = [
        ("personalize_operator_imports_total", "outcome=\"failed\"", "0+1x60"),
        ("personalize_operator_resources", "reason=\"AccessDenied\"", "1x60"),
        ("personalize_operator_resources", "reason=\"CredentialsRefused\"", "1x60"),
        ("personalize_operator_oldest_queued_seconds", "account=\"1\"", "90000x60"),
        ("personalize_operator_poll_overdue_seconds", "instance=\"a\"", "90000x60"),
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
        let told = crate::tool::run("promtool", &["test", "rules", file.to_str().unwrap()], "");
        if !told.status.success() {
            assert!(crate::env::text(&told).contains("namespace=\"one\""), "{}", crate::env::text(&told));
        }
        !told.status.success()
    };
    for rule in rules() {
        let alert = rule["alert"].as_str().unwrap();
        let down = alert == "PersonalizeOperatorDown";
        assert_eq!(fires(alert, &["two"]), down, "{alert}: another release's trouble");
        assert_eq!(fires(alert, &["one", "two"]), !down, "{alert}: its own");
    }
}
