//! The queue by example and by property.

mod admission;
mod deletion;
mod index;
mod order;
mod restart;

use super::*;
use crate::api::conditions::{self, DataCurrent};
use crate::api::{DatasetImportJobStatus, ImportMode, Submission};
use crate::import::timing::after;
use crate::personalize::ACTIVE;
use crate::testing::{spec, timing};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// A resource of this dataset, created in this second. Its UID is its name.
fn resource(second: i64, dataset: &str) -> DatasetImportJob {
    let mut resource = DatasetImportJob::new(&format!("r{second:03}"), spec());
    resource.spec.dataset_arn = format!("arn:aws:personalize:eu-west-1:123456789012:dataset/shop/{dataset}");
    resource.metadata.namespace = Some("shop".into());
    resource.metadata.uid = resource.metadata.name.clone();
    resource.metadata.creation_timestamp = Some(Time(at(second)));
    resource.metadata.resource_version = Some("1".into());
    resource
}

fn request(resource: &DatasetImportJob) -> ImportRequest {
    ImportRequest::of(resource).unwrap()
}

/// A later version of the resource, with a job.
fn submitted(mut resource: DatasetImportJob, status: Option<&str>) -> DatasetImportJob {
    let request = request(&resource);
    resource.status = Some(DatasetImportJobStatus {
        dataset_import_job_arn: Some(request.job_arn(1).0),
        attempts: Some(1),
        status: status.map(Into::into),
        completion_time: status.map(|_| Time(at(900))),
        start_time: Some(Time(at(800))),
        ..Default::default()
    });
    resource.metadata.resource_version = Some("2".into());
    resource
}

fn with_intent(mut resource: DatasetImportJob) -> DatasetImportJob {
    let request = request(&resource);
    resource.status = Some(DatasetImportJobStatus {
        submission: Some(Submission {
            job_name: request.job_name(1),
            attempt: 1,
            request_hash: request.hash(),
            generation: 1,
            time: Time(at(0)),
        }),
        ..Default::default()
    });
    resource.metadata.resource_version = Some("2".into());
    resource
}

/// The resource without a job, with this reason.
fn with_reason(mut resource: DatasetImportJob, reason: Reason) -> DatasetImportJob {
    conditions::set(resource.status.get_or_insert_default(), 1, reason, "", at(0));
    resource
}

fn queue(resources: &[DatasetImportJob]) -> Queue {
    let mut queue = Queue::new(2, timing());
    resources.iter().for_each(|resource| {
        queue.observe(resource, Trust::Trusted);
    });
    queue
}

fn admit(queue: &mut Queue, uid: &str) -> bool {
    queue.try_admit(uid, at(1000)) == Admission::Admitted
}
