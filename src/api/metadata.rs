//! What the operator reads of a resource's metadata.

use super::DatasetImportJob;
use jiff::Timestamp;
use kube::ResourceExt;

/// The resource version as a number; 0 if it is missing. The versions of one resource only grow, unless etcd is
/// restored from a backup.
#[must_use]
pub fn resource_version(resource: &DatasetImportJob) -> u64 {
    resource.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// When the resource was created, by the API server's clock; 1970 if that is missing.
#[must_use]
pub fn created_at(resource: &DatasetImportJob) -> Timestamp {
    resource.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}
