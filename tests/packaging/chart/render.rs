//! What the chart renders: compared with reviewed snapshots, and accepted by a real API server.

use super::helm::{chart, compare, documents, file, helm, of_kind, read, render_as, resources};
use crate::env::{eventually, shared_control_plane, text};
use serde_json::{Value, json};
use std::fs;

/// The values of each file in cases/. The rendered resources are in snapshots/.
fn cases() -> Vec<(String, Value)> {
    let mut cases: Vec<_> = fs::read_dir(file("tests/packaging/chart/cases"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let values = serde_yaml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            (path.file_stem().unwrap().to_string_lossy().into_owned(), values)
        })
        .collect();
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(cases.len() >= 7);
    cases
}

/// Renders a case. A release name may look like a number.
fn rendered(name: &str, values: &Value) -> String {
    let release = if name == "numeric" { "2024" } else { "shop" };
    render_as(release, "personalize", &chart(), values).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Kinds that embed a file of the chart, the line after which they do, and the file.
const EMBEDDED_FILES: [(&str, &str, &str); 3] = [
    ("kind: CustomResourceDefinition", "spec:", "datasetimportjobs.yaml"),
    ("kind: PrometheusRule", "spec:", "alerts.yaml"),
    ("kind: ConfigMap", "  personalize-operator.json: |", "dashboard.json"),
];

/// Leaves out the embedded files.
fn shortened(rendered: &str) -> String {
    let documents = rendered.split("---\n").map(|document| {
        let embedding = EMBEDDED_FILES.iter().find_map(|(kind, from, file)| {
            let at = document.find(&format!("\n{from}\n")).filter(|_| document.contains(&format!("\n{kind}\n")))?;
            Some(format!("{}\n{from} # as in files/{file}\n", &document[..at]))
        });
        embedding.unwrap_or_else(|| format!("{}\n", document.trim_end()))
    });
    documents.skip(1).map(|document| format!("---\n{document}")).collect()
}

#[test]
fn rendered_cases_match_their_snapshots() {
    for (name, values) in cases() {
        compare(&format!("tests/packaging/chart/snapshots/{name}.yaml"), &shortened(&rendered(&name, &values)));
    }
}

#[test]
fn helm_lint_accepts_every_case() {
    let home = tempfile::tempdir().unwrap();
    for (name, _) in cases() {
        let values = file(format!("tests/packaging/chart/cases/{name}.yaml")).display().to_string();
        let chart = chart().display().to_string();
        let output = helm(home.path(), &["lint", "--strict", &chart, "--values", &values]);
        assert!(output.status.success(), "{name}: {}", text(&output));
    }
}

#[test]
fn api_server_accepts_every_rendered_manifest_without_a_warning() {
    let control_plane = shared_control_plane();
    let prepare =
        ["apply", "--server-side", "-f", &file("tests/packaging/chart/prometheus-operator.yaml").display().to_string()];
    let prepared = control_plane.kubectl(&prepare, None).unwrap();
    assert!(prepared.status.success(), "{}", text(&prepared));
    for namespace in ["personalize", "team-a", "team-b", "2024", "on"] {
        let restricted = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {
            "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"
        }}});
        let created = control_plane.kubectl(&["apply", "-f", "-"], Some(&restricted.to_string())).unwrap();
        assert!(created.status.success(), "{}", text(&created));
    }
    // kubectl fails for a CRD that has no conditions yet.
    eventually("all CRDs are established", || {
        let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
        control_plane.kubectl(&wait, None).unwrap().status.success().then_some(())
    });
    for (name, values) in cases() {
        let rendered = rendered(&name, &values);
        let args = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-"];
        let applied = control_plane.kubectl(&args, Some(&rendered)).unwrap();
        assert!(applied.status.success(), "{name}: {}", text(&applied));
        assert!(!text(&applied).contains("Warning"), "{name}: {}", text(&applied));
        assert_eq!(String::from_utf8_lossy(&applied.stdout).lines().count(), documents(&rendered).len(), "{name}");
    }
}

#[test]
fn artifact_hub_annotations_match_the_crd_and_their_examples_are_valid() {
    let metadata: Value = serde_yaml::from_str(&read("charts/personalize-operator/Chart.yaml")).unwrap();
    let annotation =
        |name: &str| serde_yaml::from_str::<Value>(metadata["annotations"][name].as_str().unwrap()).unwrap();
    let examples = annotation("artifacthub.io/crdsExamples");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": examples});
    let args = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    let applied = shared_control_plane().kubectl(&args, Some(&list.to_string())).unwrap();
    assert!(applied.status.success(), "{}", text(&applied));
    let crd: Value = serde_yaml::from_str(&read("crds/datasetimportjobs.yaml")).unwrap();
    let listed = &annotation("artifacthub.io/crds")[0];
    assert_eq!(listed["name"], crd["metadata"]["name"]);
    assert_eq!(listed["kind"], crd["spec"]["names"]["kind"]);
    assert_eq!(listed["version"], crd["spec"]["versions"][0]["name"]);
}

#[test]
fn rendered_crd_is_the_generated_one_with_the_metadata_of_the_release() {
    assert_eq!(
        read("charts/personalize-operator/files/datasetimportjobs.yaml"),
        read("crds/datasetimportjobs.yaml"),
        "run `make generate`"
    );
    let rendered = resources(&json!({}));
    let mut crd = of_kind(&rendered, "CustomResourceDefinition")[0].clone();
    let metadata = crd["metadata"].as_object_mut().unwrap();
    let annotations = metadata.remove("annotations").unwrap();
    assert_eq!(annotations["helm.sh/resource-policy"], "keep");
    assert_eq!(annotations["argocd.argoproj.io/sync-options"], "Prune=false,ServerSideApply=true");
    assert_eq!(metadata.remove("labels").unwrap()["app.kubernetes.io/instance"], "shop");
    let generated: Value = serde_yaml::from_str(&read("crds/datasetimportjobs.yaml")).unwrap();
    assert_eq!(crd, generated);
    let not_kept = resources(&json!({"crds": {"keep": false}}));
    let annotations = &of_kind(&not_kept, "CustomResourceDefinition")[0]["metadata"]["annotations"];
    assert_eq!(*annotations, json!({"argocd.argoproj.io/sync-options": "ServerSideApply=true"}));
    assert!(of_kind(&resources(&json!({"crds": {"enabled": false}})), "CustomResourceDefinition").is_empty());
}

#[test]
fn rendered_alerts_and_dashboard_match_their_files() {
    let metrics = json!({"prometheusRule": {"enabled": true}, "dashboard": {"enabled": true}});
    let rendered = resources(&json!({"metrics": metrics}));
    let alerts = read("charts/personalize-operator/files/alerts.yaml").replace("~\".*\"", "\"personalize\"");
    let alerts: Value = serde_yaml::from_str(&alerts).unwrap();
    assert_eq!(of_kind(&rendered, "PrometheusRule")[0]["spec"], alerts);
    let rule = json!({"enabled": true, "runbookBase": "https://example.com/main/"});
    let with_base = resources(&json!({"metrics": {"prometheusRule": rule}}));
    let alert = of_kind(&with_base, "PrometheusRule")[0]["spec"]["groups"][0]["rules"][0].clone();
    let runbook = alert["annotations"]["runbook_url"].as_str().unwrap();
    assert!(runbook.starts_with("https://example.com/main/docs/"), "{runbook}");
    let text = of_kind(&rendered, "ConfigMap")[0]["data"]["personalize-operator.json"].as_str().unwrap();
    let dashboard: Value = serde_json::from_str(&read("charts/personalize-operator/files/dashboard.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), dashboard);
}

#[test]
fn namespaced_install_has_only_the_crd_as_cluster_wide_resource() {
    let rendered = resources(&json!({"watchNamespaces": ["team-a", "team-b"]}));
    let cluster_wide = rendered.iter().filter(|r| r["metadata"]["namespace"].is_null()).map(|r| &r["kind"]);
    assert_eq!(cluster_wide.collect::<Vec<_>>(), ["CustomResourceDefinition"]);
}

fn assert_selects(selector: &Value, labels: &Value) {
    for (label, value) in selector.as_object().unwrap() {
        assert_eq!(labels[label], *value, "{label}");
    }
}

#[test]
fn user_labels_never_break_a_selector() {
    let other = json!({"app.kubernetes.io/name": "zz", "app.kubernetes.io/instance": "zz"});
    for monitor in ["serviceMonitor", "podMonitor"] {
        let mut values = json!({
            "commonLabels": other, "podLabels": other, "replicas": 2,
            "networkPolicy": {"enabled": true}, "podDisruptionBudget": {"enabled": true}, "metrics": {},
        });
        values["metrics"][monitor] = json!({"enabled": true});
        let rendered = resources(&values);
        let one = |kind: &str| of_kind(&rendered, kind)[0];
        let pod = &one("Deployment")["spec"]["template"]["metadata"]["labels"];
        let service = one("Service");
        assert_selects(&one("Deployment")["spec"]["selector"]["matchLabels"], pod);
        assert_selects(&service["spec"]["selector"], pod);
        assert_selects(&one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"], pod);
        assert_selects(&one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"], pod);
        match monitor {
            "serviceMonitor" => {
                assert_selects(
                    &one("ServiceMonitor")["spec"]["selector"]["matchLabels"],
                    &service["metadata"]["labels"],
                );
            }
            _ => assert_selects(&one("PodMonitor")["spec"]["selector"]["matchLabels"], pod),
        }
        // No selector finds the pod of `helm test`.
        assert_ne!(one("Pod")["metadata"]["labels"]["app.kubernetes.io/name"], pod["app.kubernetes.io/name"]);
    }
}

#[test]
fn parent_chart_can_enable_and_disable_this_one() {
    let parent = tempfile::tempdir().unwrap();
    let charts = parent.path().join("charts");
    fs::create_dir(&charts).unwrap();
    std::os::unix::fs::symlink(chart(), charts.join("personalize-operator")).unwrap();
    let dependency =
        json!({"name": "personalize-operator", "version": "*", "condition": "personalize-operator.enabled"});
    let metadata = json!({"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [dependency]});
    fs::write(parent.path().join("Chart.yaml"), metadata.to_string()).unwrap();
    for enabled in [true, false] {
        let values = json!({"global": {"team": "shop"}, "personalize-operator": {"enabled": enabled, "replicas": 2}});
        let rendered = documents(&super::helm::render_at(parent.path(), &values).unwrap());
        assert_eq!(of_kind(&rendered, "Deployment").len(), usize::from(enabled));
    }
}
