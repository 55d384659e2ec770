//! The Grafana dashboard: Prometheus parses each query, and each one finds samples of a real run.

use super::alerts::unknown_in;
use super::metrics::{run_with_all_metrics, scrape};
use super::tool::{output, run};
use crate::chart::helm::read;
use crate::env::{TestEnv, text};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(&read("charts/personalize-operator/files/dashboard.json")).unwrap();
    dashboard["panels"].as_array().unwrap().iter().filter(|p| p["type"] != "row").cloned().collect()
}

/// The title of the panel and the query, with values for Grafana's variables.
fn queries() -> Vec<(String, String)> {
    let fill = |query: &str| {
        query
            .replace("$__rate_interval", "5m")
            .replace("$__range", "1h")
            .replace("$namespace", ".*")
            .replace("$account", ".*")
            .replace("$region", ".*")
    };
    let of_panel = |panel: Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().unwrap().clone();
        targets.into_iter().map(move |t| (title.clone(), fill(t["expr"].as_str().unwrap())))
    };
    panels().into_iter().flat_map(of_panel).collect()
}

#[test]
fn every_dashboard_query_parses_and_names_existing_metrics() {
    let ids: BTreeSet<i64> = panels().iter().map(|p| p["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), panels().len(), "panel ids are unique");
    for (title, query) in queries() {
        assert!(!query.contains('$'), "{title}: an unknown variable in {query}");
        let metrics = query.matches("_operator_").count() + query.matches("controller_runtime_").count();
        assert!(query.matches("{namespace=~").count() >= metrics, "{title}: {query} must select one operator");
        assert_eq!(unknown_in(&query), Vec::<String>::new(), "{title}");
    }
    let rules: Vec<Value> =
        queries().iter().enumerate().map(|(i, (_, q))| json!({"record": format!("query:{i}"), "expr": q})).collect();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = dir.path().join("rules.yaml");
    fs::write(&file, json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()).unwrap();
    output("promtool", &["check", "rules", "--lint=none", file.to_str().unwrap()], "");
}

/// The samples of an exposition, by series.
fn samples(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    lines.filter_map(|l| l.rsplit_once(' ')).map(|(series, value)| (series.to_owned(), value.to_owned())).collect()
}

/// The series with the labels that Prometheus adds.
fn scraped(series: &str) -> String {
    let (name, labels) = series.split_once('{').map_or((series, ""), |(n, l)| (n, l.trim_end_matches('}')));
    let joint = if labels.is_empty() { "" } else { "," };
    format!(r#"{name}{{{labels}{joint}instance="a",job="operator",namespace="n"}}"#)
}

#[test]
fn every_panel_shows_samples_of_a_real_run() {
    let env = TestEnv::new();
    let idle = env.start_operator(&["--max-in-flight=1"]);
    let before = samples(&scrape(&idle, "*/*").1);
    idle.kill();
    let (_operator, metrics) = run_with_all_metrics(&env);
    let after = samples(&metrics);
    let series: Vec<Value> = after
        .iter()
        .map(|(series, value)| {
            let first = before.get(series).map_or("_", String::as_str);
            json!({"series": scraped(series), "values": format!("{first} {value}x5")})
        })
        .collect();
    // No query returns this sample, so promtool prints the result of each one.
    let never = json!([{"labels": "never", "value": -1}]);
    let tests: Vec<Value> =
        queries().iter().map(|(_, q)| json!({"expr": q, "eval_time": "3m", "exp_samples": never})).collect();
    let file = env.dir().join("test.yaml");
    let test = json!({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}]});
    fs::write(&file, test.to_string()).unwrap();
    let output = text(&run("promtool", &["test", "rules", file.to_str().unwrap()], ""));
    let got: Vec<&str> = output.lines().filter_map(|l| l.trim().strip_prefix("got:")).collect();
    assert_eq!(got.len(), queries().len(), "{output}");
    let empty: Vec<(String, String)> =
        queries().into_iter().zip(got).filter(|(_, got)| got.trim() == "nil").map(|(query, _)| query).collect();
    assert!(empty.is_empty(), "{empty:#?}\n{output}");
}
