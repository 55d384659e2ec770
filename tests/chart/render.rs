//! What the chart renders: reviewed, taken by a real API server, and refused in words where values are wrong.

use crate::env::{shared_control_plane, text};
use crate::helm::{chart, compare, documents, file, helm, of_kind, read, render_as, resources};
use serde_json::{Value, json};
use std::fs;

/// Each file in cases/ holds values; what they render is in snapshots/.
fn cases() -> Vec<(String, Value)> {
    let mut cases: Vec<_> = fs::read_dir(file("tests/chart/cases"))
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

/// What a case renders; releases may be named like numbers, too.
fn rendered(name: &str, values: &Value) -> String {
    let release = if name == "numeric" { "2024" } else { "shop" };
    render_as(release, "personalize", &chart(), values).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// From which line on a resource of this kind holds what a file of the chart holds, and which file.
const OF_FILES: [(&str, &str, &str); 3] = [
    ("kind: CustomResourceDefinition", "spec:", "datasetimportjobs.yaml"),
    ("kind: PrometheusRule", "spec:", "alerts.yaml"),
    ("kind: ConfigMap", "  personalize-operator.json: |", "dashboard.json"),
];

/// Without what is in files of the chart already.
fn shortened(rendered: &str) -> String {
    let documents = rendered.split("---\n").map(|document| {
        let of_file = OF_FILES.iter().find_map(|(kind, from, file)| {
            let at = document.find(&format!("\n{from}\n")).filter(|_| document.contains(&format!("\n{kind}\n")))?;
            Some(format!("{}\n{from} # as in files/{file}\n", &document[..at]))
        });
        of_file.unwrap_or_else(|| format!("{}\n", document.trim_end()))
    });
    documents.skip(1).map(|document| format!("---\n{document}")).collect()
}

#[test]
fn each_case_renders_what_was_reviewed() {
    for (name, values) in cases() {
        compare(&format!("tests/chart/snapshots/{name}.yaml"), &shortened(&rendered(&name, &values)));
    }
}

#[test]
fn helm_lint_finds_nothing() {
    let home = tempfile::tempdir().unwrap();
    for (name, _) in cases() {
        let values = file(&format!("tests/chart/cases/{name}.yaml")).display().to_string();
        let chart = chart().display().to_string();
        let output = helm(home.path(), &["lint", "--strict", &chart, "--values", &values]);
        assert!(output.status.success(), "{name}: {}", text(&output));
    }
}

#[test]
fn the_api_server_takes_every_manifest_strictly_and_without_a_warning() {
    let control_plane = shared_control_plane();
    let prepare = ["apply", "--server-side", "-f", &file("tests/chart/prometheus-operator.yaml").display().to_string()];
    let prepared = control_plane.kubectl(&prepare, None).unwrap();
    assert!(prepared.status.success(), "{}", text(&prepared));
    for namespace in ["personalize", "team-a", "team-b", "2024", "on"] {
        let restricted = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {
            "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"
        }}});
        let made = control_plane.kubectl(&["apply", "-f", "-"], Some(&restricted.to_string())).unwrap();
        assert!(made.status.success(), "{}", text(&made));
    }
    for kind in ["servicemonitors", "podmonitors", "prometheusrules"] {
        let crd = format!("crd/{kind}.monitoring.coreos.com");
        let wait = ["wait", "--for=condition=Established", &crd, "--timeout=60s"];
        assert!(control_plane.kubectl(&wait, None).unwrap().status.success());
    }
    for (name, values) in cases() {
        let rendered = rendered(&name, &values);
        let args = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-"];
        let taken = control_plane.kubectl(&args, Some(&rendered)).unwrap();
        assert!(taken.status.success(), "{name}: {}", text(&taken));
        assert!(!text(&taken).contains("Warning"), "{name}: {}", text(&taken));
        assert_eq!(String::from_utf8_lossy(&taken.stdout).lines().count(), documents(&rendered).len(), "{name}");
    }
}

#[test]
fn the_api_server_takes_the_examples_of_artifact_hub() {
    let about: Value = serde_yaml::from_str(&read("charts/personalize-operator/Chart.yaml")).unwrap();
    let annotation = |name: &str| serde_yaml::from_str::<Value>(about["annotations"][name].as_str().unwrap()).unwrap();
    let examples = annotation("artifacthub.io/crdsExamples");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": examples});
    let args = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    let taken = shared_control_plane().kubectl(&args, Some(&list.to_string())).unwrap();
    assert!(taken.status.success(), "{}", text(&taken));
    let crd: Value = serde_yaml::from_str(&read("crds/datasetimportjobs.yaml")).unwrap();
    let told = &annotation("artifacthub.io/crds")[0];
    assert_eq!(told["name"], crd["metadata"]["name"]);
    assert_eq!(told["kind"], crd["spec"]["names"]["kind"]);
    assert_eq!(told["version"], crd["spec"]["versions"][0]["name"]);
}

#[test]
fn the_crd_is_that_of_crds_with_metadata_of_the_release() {
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
    let held: Value = serde_yaml::from_str(&read("crds/datasetimportjobs.yaml")).unwrap();
    assert_eq!(crd, held);
    let unkept = resources(&json!({"crds": {"keep": false}}));
    let annotations = &of_kind(&unkept, "CustomResourceDefinition")[0]["metadata"]["annotations"];
    assert_eq!(*annotations, json!({"argocd.argoproj.io/sync-options": "ServerSideApply=true"}));
    assert!(of_kind(&resources(&json!({"crds": {"enabled": false}})), "CustomResourceDefinition").is_empty());
}

#[test]
fn alerts_and_dashboard_are_those_of_their_files() {
    let metrics = json!({"prometheusRule": {"enabled": true}, "dashboard": {"enabled": true}});
    let rendered = resources(&json!({"metrics": metrics}));
    let alerts = read("charts/personalize-operator/files/alerts.yaml").replace("~\".*\"", "\"personalize\"");
    let alerts: Value = serde_yaml::from_str(&alerts).unwrap();
    assert_eq!(of_kind(&rendered, "PrometheusRule")[0]["spec"], alerts);
    let rule = json!({"enabled": true, "runbookBase": "https://example.com/main/"});
    let based = resources(&json!({"metrics": {"prometheusRule": rule}}));
    let alert = of_kind(&based, "PrometheusRule")[0]["spec"]["groups"][0]["rules"][0].clone();
    let runbook = alert["annotations"]["runbook_url"].as_str().unwrap();
    assert!(runbook.starts_with("https://example.com/main/docs/"), "{runbook}");
    let text = of_kind(&rendered, "ConfigMap")[0]["data"]["personalize-operator.json"].as_str().unwrap();
    let dashboard: Value = serde_json::from_str(&read("charts/personalize-operator/files/dashboard.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), dashboard);
}

#[test]
fn a_namespaced_install_has_nothing_that_is_cluster_wide_but_the_crd() {
    let rendered = resources(&json!({"watchNamespaces": ["team-a", "team-b"]}));
    let wide: Vec<_> = rendered.iter().filter(|r| r["metadata"]["namespace"].is_null()).map(|r| &r["kind"]).collect();
    assert_eq!(wide, ["CustomResourceDefinition"]);
}

/// What a selector looks for is on what it is to find.
fn finds(selector: &Value, labels: &Value) {
    for (label, value) in selector.as_object().unwrap() {
        assert_eq!(labels[label], *value, "{label}");
    }
}

#[test]
fn no_label_of_the_user_hides_the_pods_or_the_service_from_what_selects_them() {
    let zz = json!({"app.kubernetes.io/name": "zz", "app.kubernetes.io/instance": "zz"});
    for monitor in ["serviceMonitor", "podMonitor"] {
        let mut values = json!({
            "commonLabels": zz, "podLabels": zz, "replicas": 2,
            "networkPolicy": {"enabled": true}, "podDisruptionBudget": {"enabled": true}, "metrics": {},
        });
        values["metrics"][monitor] = json!({"enabled": true});
        let rendered = resources(&values);
        let one = |kind: &str| of_kind(&rendered, kind)[0];
        let pod = &one("Deployment")["spec"]["template"]["metadata"]["labels"];
        let service = one("Service");
        finds(&one("Deployment")["spec"]["selector"]["matchLabels"], pod);
        finds(&service["spec"]["selector"], pod);
        finds(&one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"], pod);
        finds(&one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"], pod);
        match monitor {
            "serviceMonitor" => {
                finds(&one("ServiceMonitor")["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"]);
            }
            _ => finds(&one("PodMonitor")["spec"]["selector"]["matchLabels"], pod),
        }
        // The pod of `helm test` is not the operator.
        assert_ne!(one("Pod")["metadata"]["labels"]["app.kubernetes.io/name"], pod["app.kubernetes.io/name"]);
    }
}

#[test]
fn a_parent_chart_can_hold_this_one() {
    let parent = tempfile::tempdir().unwrap();
    let charts = parent.path().join("charts");
    fs::create_dir(&charts).unwrap();
    std::os::unix::fs::symlink(chart(), charts.join("personalize-operator")).unwrap();
    let dependency =
        json!({"name": "personalize-operator", "version": "*", "condition": "personalize-operator.enabled"});
    let about = json!({"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [dependency]});
    fs::write(parent.path().join("Chart.yaml"), about.to_string()).unwrap();
    for enabled in [true, false] {
        let values = json!({"global": {"team": "shop"}, "personalize-operator": {"enabled": enabled, "replicas": 2}});
        let rendered = documents(&crate::helm::render_at(parent.path(), &values).unwrap());
        assert_eq!(of_kind(&rendered, "Deployment").len(), usize::from(enabled));
    }
}
