//! The `DatasetImportJob` resource: the spec that users write and the status that the operator writes.

pub mod annotations;
pub mod conditions;
mod crd;
mod metadata;
mod spec;
mod status;

pub use annotations::{
    ADOPT, ANNOTATIONS, MAX_DATA_AGE, RECONCILE_REQUESTED_AT, RELEASE_GUARD, RETRY_REQUESTED_AT, SUSPEND, suspended_by,
};
pub(crate) use annotations::{max_data_age, truncate};
#[cfg(test)]
pub(crate) use crd::UNCHANGED;
pub use crd::crd;
#[cfg(feature = "operator")]
pub use crd::crd_yaml;
pub use metadata::{created_at, resource_version};
pub use spec::{DataSource, DatasetImportJob, DatasetImportJobSpec, Guard, ImportMode, Preflight, Tag};
pub use status::{DatasetImportJobStatus, ImportedData, Submission};
use std::fmt::Display;

/// A count and its noun, such as "1 file" or "2 files".
pub(crate) fn plural<T: Copy + Display + PartialEq + From<u8>>(count: T, noun: &str) -> String {
    let ending = if count == T::from(1) { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// The API group of the resource; also the prefix of its annotations and tags.
pub const GROUP: &str = "personalize-operator.io";
