//! Who owns a job. A job is adopted only if its tags prove that this resource submitted it with the same request, or if
//! a user asked for the adoption.

use super::plan::{ObservedJob, Planner};
use super::request::{TAG_NAME, TAG_NAMESPACE, TAG_REQUEST_HASH};
use crate::api::ImportMode;
use crate::personalize::ServiceError;
use crate::redact::sanitize;

/// Who owns an existing job.
pub(super) enum Ownership<'a> {
    /// This resource, or a user let this resource adopt it.
    Owned,
    /// Somebody else, or another request; the text says what differs.
    Foreign(String),
    /// The request is the same, but no tags name an owner; the text says so.
    Untagged(String),
    /// Its tags could not be read.
    Unknown(&'a ServiceError),
}

impl Planner<'_> {
    pub(super) fn ownership<'f>(&self, found: &'f ObservedJob) -> Ownership<'f> {
        let differences = self.differences(found);
        if !differences.is_empty() {
            return Ownership::Foreign(format!("its request has another {}", differences.join(", another ")));
        }
        let is_denied = matches!(self.observations.namespace, Some(Err(_)));
        if self.inputs.adopt && !is_denied {
            return Ownership::Owned;
        }
        let tags = match &found.tags {
            Some(Ok(tags)) => tags,
            Some(Err(error)) => return Ownership::Unknown(error),
            None => return Ownership::Foreign("its tags were not read".into()),
        };
        let value = |key: &str| tags.iter().find(|t| t.tag_key == key).map(|t| t.tag_value.as_str());
        let (namespace, name, hash) = (value(TAG_NAMESPACE), value(TAG_NAME), value(TAG_REQUEST_HASH));
        let request = &self.request;
        if namespace == Some(&request.namespace) && name == Some(&request.name) && hash == Some(&request.hash()) {
            return Ownership::Owned;
        }
        match (namespace, name) {
            // Names from other namespaces stay private.
            (Some(namespace), Some(_)) if namespace != request.namespace => {
                Ownership::Foreign("its tags name a DatasetImportJob in another namespace as its owner".into())
            }
            (Some(_), Some(name)) => {
                Ownership::Foreign(format!("its tags name the DatasetImportJob {} as its owner", sanitize(name)))
            }
            _ => Ownership::Untagged(
                "it has no tags of this operator; if it is the import you want, set the annotation personalize-operator.io/adopt to \"true\"".into(),
            ),
        }
    }

    /// The fields in which the job's request differs from this resource's. The values stay private: the job may belong
    /// to another namespace.
    fn differences(&self, found: &ObservedJob) -> Vec<&'static str> {
        let (request, job) = (&self.request, &found.job);
        let mode = job.import_mode.as_deref().unwrap_or(ImportMode::Full.as_str());
        let publish = job.publish_attribution_metrics_to_s3.unwrap_or(false);
        let requested_publish = request.publish_attribution_metrics_to_s3.unwrap_or(false);
        let fields = [
            ("datasetArn", job.dataset != request.dataset.as_str()),
            ("dataSource.dataLocation", job.data_location != request.data_location),
            ("roleArn", job.role_arn != request.role_arn),
            ("importMode", mode != request.import_mode.as_str()),
            ("publishAttributionMetricsToS3", publish != requested_publish),
        ];
        fields.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
    }
}
