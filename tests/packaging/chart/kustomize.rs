//! The kustomize base is what the chart renders with its default values.

use super::helm::{chart, compare, documents, file, read, render_as};
use crate::env::{shared_control_plane, text};
use serde_json::{Value, json};

const NAME: &str = "personalize-operator";

#[test]
fn kustomize_base_matches_the_rendered_chart() {
    let rendered = documents(&render_as(NAME, NAME, &chart(), &json!({"crds": {"enabled": false}})).unwrap());
    let mut all = String::from("# Generated from the chart by `make generate`.\n");
    for mut resource in rendered.into_iter().filter(|resource| resource["kind"] != "Pod") {
        let labels = resource["metadata"]["labels"].as_object_mut().unwrap();
        for label in ["helm.sh/chart", "app.kubernetes.io/managed-by"] {
            assert!(labels.remove(label).is_some());
        }
        all += &format!("---\n{}", serde_yaml::to_string(&resource).unwrap());
    }
    compare("config/operator/operator.yaml", &all);
    assert_eq!(read("config/crd/datasetimportjobs.yaml"), read("crds/datasetimportjobs.yaml"), "run `make generate`");
}

#[test]
fn kustomize_builds_namespaced_resources_with_the_image_of_this_version() {
    let built =
        shared_control_plane().kubectl(&["kustomize", &file("config/default").display().to_string()], None).unwrap();
    assert!(built.status.success(), "{}", text(&built));
    let resources = documents(&text(&built));
    let deployment = resources.iter().find(|r| r["kind"] == "Deployment").unwrap();
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(*image, Value::from(format!("localhost/{NAME}:{}", env!("CARGO_PKG_VERSION"))));
    let namespaces: Vec<&Value> =
        resources.iter().map(|r| &r["metadata"]["namespace"]).filter(|n| !n.is_null()).collect();
    assert!(!namespaces.is_empty() && namespaces.iter().all(|n| **n == NAME));
}
