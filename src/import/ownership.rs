//! Whose job is it? A job is adopted only if its tags prove that this resource made it and its request
//! is this resource's request, or if a person asked for it.

use super::plan::{ObservedJob, Planner};
use crate::api::ImportMode;
use crate::import::request::{TAG_NAME, TAG_NAMESPACE, TAG_REQUEST_HASH};
use crate::personalize::ServiceError;
use crate::redact::sanitize;

/// What an existing job is to a resource.
pub(super) enum Ownership<'a> {
    /// Its own, or one that a person let it adopt.
    Owned,
    /// Somebody else's, or of another request; the sentence says what differs.
    Foreign(String),
    /// Of the same request, and without tags that tell whose it is; the sentence says so.
    Untagged(String),
    /// Its tags could not be read.
    Unknown(&'a ServiceError),
}

impl Planner<'_> {
    pub(super) fn claim<'f>(&self, found: &'f ObservedJob) -> Ownership<'f> {
        let differences = self.differences(found);
        if !differences.is_empty() {
            return Ownership::Foreign(format!("its request differs: {}", differences.join(", ")));
        }
        let barred = matches!(self.seen.permission, Some(Err(_)));
        if self.inputs.adopt && !barred {
            return Ownership::Owned;
        }
        let tags = match &found.tags {
            Some(Ok(tags)) => tags,
            Some(Err(failure)) => return Ownership::Unknown(failure),
            None => return Ownership::Foreign("its tags were not read".into()),
        };
        let value = |key: &str| tags.iter().find(|t| t.tag_key == key).map(|t| t.tag_value.as_str());
        let (namespace, name, hash) = (value(TAG_NAMESPACE), value(TAG_NAME), value(TAG_REQUEST_HASH));
        let request = &self.request;
        if namespace == Some(&request.namespace) && name == Some(&request.name) && hash == Some(&request.hash()) {
            return Ownership::Owned;
        }
        match (namespace, name) {
            // What others call theirs is nothing for this namespace.
            (Some(namespace), Some(_)) if namespace != request.namespace => {
                Ownership::Foreign("its tags say that it belongs to a DatasetImportJob in another namespace".into())
            }
            (Some(_), Some(name)) => {
                Ownership::Foreign(format!("its tags say that it belongs to the DatasetImportJob {}", sanitize(name)))
            }
            _ => Ownership::Untagged("it carries no tags of this operator; if it is the import you want, set the annotation personalize-operator.io/adopt to \"true\"".into()),
        }
    }

    fn differences(&self, found: &ObservedJob) -> Vec<String> {
        let (request, job) = (&self.request, &found.job);
        let mode = job.import_mode.as_deref().unwrap_or(ImportMode::Full.as_str());
        let publish = job.publish_attribution_metrics_to_s3.unwrap_or(false);
        let wanted_publish = request.publish_attribution_metrics_to_s3.unwrap_or(false);
        let pairs = [
            ("datasetArn", job.dataset.as_str(), request.dataset.as_str()),
            ("dataSource.dataLocation", &job.data_location, &request.data_location),
            ("roleArn", &job.role_arn, &request.role_arn),
            ("importMode", mode, request.import_mode.as_str()),
        ];
        let mut differences: Vec<String> = pairs
            .iter()
            .filter(|(_, theirs, ours)| theirs != ours)
            .map(|(field, theirs, _)| format!("{field} is {}", sanitize(theirs)))
            .collect();
        if publish != wanted_publish {
            differences.push(format!("publishAttributionMetricsToS3 is {publish}"));
        }
        differences
    }
}
