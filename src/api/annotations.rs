//! The annotations that users set on a resource.
//!
//! ```
//! use personalize_operator::api::{DatasetImportJob, SUSPEND, suspended_by};
//!
//! let mut resource: DatasetImportJob = serde_json::from_value(serde_json::json!({
//!     "apiVersion": "personalize-operator.io/v1alpha1", "kind": "DatasetImportJob", "metadata": { "name": "nightly" },
//!     "spec": {
//!         "datasetArn": "arn:aws:personalize:eu-west-1:123456789012:dataset/shop/INTERACTIONS",
//!         "dataSource": { "dataLocation": "s3://shop-data/interactions.csv" },
//!         "roleArn": "arn:aws:iam::123456789012:role/PersonalizeRead",
//!     },
//! }))?;
//! assert_eq!(suspended_by(&resource), None);
//! resource.metadata.annotations.get_or_insert_default().insert(SUSPEND.into(), "true".into());
//! assert_eq!(suspended_by(&resource), Some("the annotation personalize-operator.io/suspend"));
//! # Ok::<(), serde_json::Error>(())
//! ```

use super::DatasetImportJob;
use kube::ResourceExt;

/// `"true"` adopts an existing job that does not carry this resource's ownership tags.
pub const ADOPT: &str = "personalize-operator.io/adopt";

/// `"true"` suspends the import like `spec.suspend`, for tools that must not change what Git tracks.
pub const SUSPEND: &str = "personalize-operator.io/suspend";

/// A new value polls the service and retries a rejected import now.
pub const RECONCILE_REQUESTED_AT: &str = "personalize-operator.io/reconcile-requested-at";

/// A new value grants one more attempt after CREATE FAILED.
pub const RETRY_REQUESTED_AT: &str = "personalize-operator.io/retry-requested-at";

/// The annotations of a resource that the operator reads.
pub const ANNOTATIONS: [&str; 4] = [ADOPT, SUSPEND, RECONCILE_REQUESTED_AT, RETRY_REQUESTED_AT];

/// What the operator reads of the value of an annotation, which can be as long as 256 KiB: 256 characters.
pub(crate) fn truncate(value: &str) -> String {
    value.chars().take(256).collect()
}

/// The field or annotation that suspends the import; `None` if none does. It only has an effect before the submission.
#[must_use]
pub fn suspended_by(resource: &DatasetImportJob) -> Option<&'static str> {
    let annotated = resource.annotations().get(SUSPEND).is_some_and(|value| value == "true");
    match (resource.spec.suspend, annotated) {
        (true, _) => Some("spec.suspend"),
        (false, true) => Some("the annotation personalize-operator.io/suspend"),
        (false, false) => None,
    }
}
