//! The CustomResourceDefinition, as `personalize-operator crd` prints it and `crds/` holds it.

use super::DatasetImportJob;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps,
};
use kube::CustomResourceExt;
use serde_json::json;
use std::collections::BTreeMap;

/// The CustomResourceDefinition of `DatasetImportJob`.
///
/// Two things go beyond what the types say: `status` has a default, so that a resource which the
/// operator has not seen yet counts as in progress for kstatus (Helm, Flux, Argo CD); and optional
/// fields are absent rather than null, so that there is one way to leave a field out.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut crd = DatasetImportJob::crd();
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) else {
            continue;
        };
        forbid_null(root);
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
