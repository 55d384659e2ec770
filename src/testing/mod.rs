//! Fixtures that unit tests and the verification workspace share. Compiled only for tests.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

pub mod strategies;
#[cfg(test)]
pub(crate) mod work;

use crate::api::{
    DataSource, DatasetImportJob, DatasetImportJobSpec, DatasetImportJobStatus, ImportMode, resource_version,
};
use crate::import::{AfterWrite, MANAGER, Timing};
use crate::personalize::{ACTIVE, Dataset, ErrorKind, JobSummary, ServiceError};
use crate::reconciliation::{Observation, Reconciliation};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};

/// A valid spec with no optional field.
#[must_use]
pub fn spec() -> DatasetImportJobSpec {
    DatasetImportJobSpec {
        dataset_arn: "arn:aws:personalize:eu-west-1:123456789012:dataset/shop/INTERACTIONS".into(),
        data_source: DataSource { data_location: "s3://bucket/interactions.csv".into() },
        role_arn: "arn:aws:iam::123456789012:role/Reader".into(),
        job_name: None,
        import_mode: ImportMode::Full,
        publish_attribution_metrics_to_s3: None,
        tags: None,
        suspend: false,
        backoff_limit: 0,
        preflight: None,
        guard: None,
    }
}

/// A new resource `shop/nightly` as the API server returns it, created at 1,699,999,000 seconds.
#[must_use]
pub fn resource(spec: DatasetImportJobSpec) -> DatasetImportJob {
    let mut resource = DatasetImportJob::new("nightly", spec);
    resource.metadata.namespace = Some("shop".into());
    resource.metadata.uid = Some("uid".into());
    resource.metadata.generation = Some(1);
    resource.metadata.resource_version = Some("1".into());
    resource.metadata.creation_timestamp = Some(Time(Timestamp::from_second(1_699_999_000).unwrap()));
    resource.status = Some(DatasetImportJobStatus { observed_generation: Some(-1), ..Default::default() });
    resource
}

/// The default delays.
#[must_use]
pub fn timing() -> Timing {
    Timing::default()
}

/// A failed call.
#[must_use]
pub fn service_error(kind: ErrorKind) -> ServiceError {
    ServiceError::unanswered(kind, kind.label(), "an error of the test")
}

/// An ACTIVE dataset.
#[must_use]
pub fn active_dataset() -> Dataset {
    Dataset { status: ACTIVE.into(), ..Dataset::default() }
}

/// A FULL import of the dataset, without times.
#[must_use]
pub fn job_summary(name: &str, status: &str) -> JobSummary {
    JobSummary { name: name.into(), status: status.into(), created: None, updated: None, import_mode: None }
}

/// Records who wrote the status, as the API server does.
pub fn set_status_manager(resource: &mut DatasetImportJob, manager: &str) {
    resource.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
        manager: Some(manager.into()),
        subresource: Some("status".into()),
        ..ManagedFieldsEntry::default()
    }]);
}

/// A status that is applied, as the API server answers it.
#[must_use]
pub fn status_applied(reconciliation: &Reconciliation) -> Observation {
    let mut resource = reconciliation.resource().clone();
    resource.metadata.resource_version = Some(resource_version(&resource).saturating_add(1).to_string());
    set_status_manager(&mut resource, MANAGER);
    Observation::StatusApplied(Some(Box::new(resource)))
}

/// A status write that succeeds, as the API server answers it.
#[must_use]
pub fn status_written(
    reconciliation: &Reconciliation,
    status: DatasetImportJobStatus,
    then: AfterWrite,
) -> Observation {
    let mut resource = reconciliation.with_status(status);
    resource.metadata.resource_version = Some(resource_version(&resource).saturating_add(1).to_string());
    set_status_manager(&mut resource, MANAGER);
    Observation::StatusWritten { resource: Box::new(resource), then }
}
