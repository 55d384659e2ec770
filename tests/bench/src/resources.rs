//! Resources as the watch delivers them.

use jiff::Timestamp;
use personalize_operator::api::DatasetImportJob;
use personalize_operator::import::ImportRequest;
use personalize_operator::import::timing::after;
use serde_json::json;
use std::error::Error;
use std::time::Duration;

/// A resource; its number is its age and its UID.
pub(crate) fn resource(number: u64, namespace: &str, dataset_arn: &str) -> Result<DatasetImportJob, Box<dyn Error>> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "personalize-operator.io/v1alpha1",
        "kind": "DatasetImportJob",
        "metadata": {
            "namespace": namespace,
            "name": format!("import-{number:06}"),
            "uid": uid(number),
            "resourceVersion": "1",
            "creationTimestamp": second(number).to_string(),
        },
        "spec": {
            "datasetArn": dataset_arn,
            "dataSource": { "dataLocation": "s3://shop-data/data.csv" },
            "roleArn": "arn:aws:iam::111111111111:role/Reader",
        },
    }))?)
}

/// The UID of a resource.
pub(crate) fn uid(number: u64) -> String {
    format!("{number:06}")
}

/// This second since the start.
pub(crate) fn second(second: u64) -> Timestamp {
    after(Timestamp::UNIX_EPOCH, Duration::from_secs(second))
}

/// A later version of the resource, with a job of this status.
pub(crate) fn with_job(
    resource: &DatasetImportJob,
    version: u64,
    status: Option<&str>,
) -> Result<DatasetImportJob, Box<dyn Error>> {
    let request = ImportRequest::of(resource)?;
    let mut resource = resource.clone();
    resource.metadata.resource_version = Some(version.to_string());
    resource.status = Some(serde_json::from_value(json!({
        "jobName": request.job_name(1),
        "datasetImportJobArn": request.job_arn(1).0,
        "attempts": 1,
        "status": status,
    }))?);
    Ok(resource)
}
