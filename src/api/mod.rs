//! The `DatasetImportJob` resource: what users write and what the operator answers.

pub mod conditions;
mod crd;
mod spec;
mod status;

pub use crd::crd;
pub use spec::{DataSource, DatasetImportJob, DatasetImportJobSpec, ImportMode, Tag};
pub use status::{DatasetImportJobStatus, Submission};

use kube::ResourceExt;

/// The API group of every resource of this operator; also the prefix of its annotations and tags.
pub const GROUP: &str = "personalize-operator.io";

/// `"true"` lets a person adopt an existing job that does not carry this resource's ownership tags.
pub const ADOPT: &str = "personalize-operator.io/adopt";

/// `"true"` holds an import back like `spec.suspend`: for tools that must not change what Git tracks.
pub const SUSPEND: &str = "personalize-operator.io/suspend";

/// Any new value: look at the service again now.
pub const RECONCILE_REQUESTED_AT: &str = "personalize-operator.io/reconcile-requested-at";

/// A new value grants one more attempt after CREATE FAILED.
pub const RETRY_REQUESTED_AT: &str = "personalize-operator.io/retry-requested-at";

/// What holds an import back that was not submitted yet, by name; `None` if nothing does.
#[must_use]
pub fn held_back_by(job: &DatasetImportJob) -> Option<&'static str> {
    let annotated = job.annotations().get(SUSPEND).is_some_and(|value| value == "true");
    match (job.spec.suspend, annotated) {
        (true, _) => Some("spec.suspend"),
        (false, true) => Some("the annotation personalize-operator.io/suspend"),
        (false, false) => None,
    }
}
