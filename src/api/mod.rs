//! The `DatasetImportJob` resource: what users write and what the operator answers.

mod crd;
mod spec;
mod status;

pub use crd::crd;
pub use spec::{DataSource, DatasetImportJob, DatasetImportJobSpec, ImportMode, Tag};
pub use status::{DatasetImportJobStatus, Submission};

/// The API group of every resource of this operator; also the prefix of its annotations and tags.
pub const GROUP: &str = "personalize-operator.io";

/// `"true"` lets a person adopt an existing job that does not carry this resource's ownership tags.
pub const ADOPT: &str = "personalize-operator.io/adopt";

/// Any new value: look at the service again now.
pub const RECONCILE_REQUESTED_AT: &str = "personalize-operator.io/reconcile-requested-at";

/// A new value grants one more attempt after CREATE FAILED.
pub const RETRY_REQUESTED_AT: &str = "personalize-operator.io/retry-requested-at";
