//! The annotations that users set on a resource.

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

/// The field or annotation that suspends the import; `None` if none does. It only matters before the submission.
#[must_use]
pub fn suspended_by(resource: &DatasetImportJob) -> Option<&'static str> {
    let annotated = resource.annotations().get(SUSPEND).is_some_and(|value| value == "true");
    match (resource.spec.suspend, annotated) {
        (true, _) => Some("spec.suspend"),
        (false, true) => Some("the annotation personalize-operator.io/suspend"),
        (false, false) => None,
    }
}
