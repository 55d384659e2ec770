//! The CustomResourceDefinition, as `personalize-operator crd` prints it and `crds/` holds it.

use super::DatasetImportJob;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use serde_json::json;
use std::collections::BTreeMap;

/// The start of a rule that an unchanged value passes.
pub(crate) const UNCHANGED: &str = "oldSelf.hasValue() && oldSelf.value() == self || ";

/// The CustomResourceDefinition as YAML. The word Off is quoted: kubectl and Helm read a plain one as `false`.
///
/// # Errors
///
/// The definition can't be written as YAML.
#[cfg(feature = "operator")]
pub fn crd_yaml() -> serde_yaml::Result<String> {
    Ok(serde_yaml::to_string(&crd())?.replace("- Off\n", "- 'Off'\n"))
}

/// The CustomResourceDefinition of `DatasetImportJob`.
///
/// Four things go beyond what the types say: `status` has a default, so that a resource which the
/// operator has not seen yet counts as in progress for kstatus (Helm, Flux, Argo CD); optional
/// fields can't be null, so that there is one way to leave a field out; each paragraph is one
/// line, so that `kubectl explain` wraps it to the width of the terminal; and the rules accept
/// unchanged values, so that a resource which an older CRD accepted gets its status. From
/// Kubernetes 1.33 on the API server sees to that itself.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut crd = DatasetImportJob::crd();
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) else {
            continue;
        };
        forbid_null(root);
        join_lines(root);
        accept_unchanged(root);
        if let Some(status) = root.properties.as_mut().and_then(|p| p.get_mut("status")) {
            status.default = Some(JSON(json!({ "observedGeneration": -1 })));
        }
    }
    crd
}

fn forbid_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    let properties: Option<&mut BTreeMap<_, _>> = schema.properties.as_mut();
    properties.into_iter().flat_map(BTreeMap::values_mut).for_each(forbid_null);
}

fn join_lines(schema: &mut JSONSchemaProps) {
    if let Some(text) = &mut schema.description {
        let paragraphs: Vec<String> = text.split("\n\n").map(|p| p.replace('\n', " ")).collect();
        *text = paragraphs.join("\n\n");
    }
    schema.properties.iter_mut().flat_map(BTreeMap::values_mut).for_each(join_lines);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        join_lines(items);
    }
}

fn accept_unchanged(schema: &mut JSONSchemaProps) {
    let rules = schema.x_kubernetes_validations.iter_mut().flatten();
    for rule in rules.filter(|rule| !rule.rule.contains("oldSelf")) {
        rule.rule.insert_str(0, UNCHANGED);
        rule.optional_old_self = Some(true);
    }
    schema.properties.iter_mut().flat_map(BTreeMap::values_mut).for_each(accept_unchanged);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        accept_unchanged(items);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_that_yaml_1_1_reads_as_a_boolean_is_plain() {
        let yaml = crd_yaml().unwrap().to_ascii_lowercase();
        let words = yaml.lines().filter_map(|line| line.trim().strip_prefix("- "));
        let plain: Vec<_> = words.filter(|word| ["y", "n", "yes", "no", "on", "off"].contains(word)).collect();
        assert_eq!(plain, Vec::<&str>::new());
    }

    #[test]
    fn no_description_is_broken_within_a_paragraph() {
        let crd = serde_json::to_string(&crd()).unwrap();
        let descriptions: Vec<&str> = crd.split("\"description\":\"").skip(1).collect();
        assert!(descriptions.len() > 30);
        for text in descriptions.iter().filter_map(|d| d.split_once('"')).map(|(text, _)| text) {
            assert!(!text.replace("\\n\\n", "").contains("\\n"), "{text}");
        }
    }
}
