//! The service behind one narrow trait: the five calls that an import needs.

mod arn;
mod error;

pub use arn::{DatasetArn, InvalidDatasetArn, JobArn, Location};
pub(crate) use error::ROLE_NOT_ASSUMED;
pub use error::{Class, Failure};

use crate::api::Tag;
use crate::import::request::Request;
use jiff::Timestamp;
use std::future::Future;
use std::sync::Arc;

/// A dataset import job as DescribeDatasetImportJob tells it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Job {
    /// `jobName`.
    pub name: String,
    /// `datasetArn`.
    pub dataset: String,
    /// `dataSource.dataLocation`.
    pub data_location: String,
    /// `roleArn`.
    pub role_arn: String,
    /// `importMode`; the service may leave it out for old jobs, which were FULL.
    pub import_mode: Option<String>,
    /// `publishAttributionMetricsToS3`.
    pub publish_attribution_metrics_to_s3: Option<bool>,
    /// `status`: a free string, not an enum.
    pub status: String,
    /// `failureReason`, as it came: not fit for users before it is sanitised.
    pub failure_reason: Option<String>,
    /// `creationDateTime`.
    pub created: Option<Timestamp>,
    /// `lastUpdatedDateTime`.
    pub updated: Option<Timestamp>,
}

/// One line of ListDatasetImportJobs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JobSummary {
    /// `jobName`.
    pub name: String,
    /// `status`.
    pub status: String,
    /// `creationDateTime`.
    pub created: Option<Timestamp>,
    /// `lastUpdatedDateTime`.
    pub updated: Option<Timestamp>,
}

/// The status of a job or dataset that is ready, and the only good end of a job.
pub const ACTIVE: &str = "ACTIVE";
/// The only bad end of a job.
pub const CREATE_FAILED: &str = "CREATE FAILED";
/// A job that waits for the service to begin.
pub const CREATE_PENDING: &str = "CREATE PENDING";

/// Whether a job with this status is over. An unknown status is not.
#[must_use]
pub fn has_ended(status: &str) -> bool {
    status == ACTIVE || status == CREATE_FAILED
}

/// The calls of Amazon Personalize that the operator makes.
///
/// Each is sent once: what to do about a failure is the caller's decision. Reads are idempotent;
/// `create` is not, and a [`Class::InDoubt`] failure of it may have made a job.
pub trait Personalize: Send + Sync + 'static {
    /// CreateDatasetImportJob.
    fn create(&self, request: &Request, job_name: &str) -> impl Future<Output = Result<JobArn, Failure>> + Send;

    /// DescribeDatasetImportJob in the dataset's account and region.
    fn job(&self, dataset: &DatasetArn, job: &JobArn) -> impl Future<Output = Result<Job, Failure>> + Send;

    /// ListTagsForResource on a job.
    fn tags(&self, dataset: &DatasetArn, job: &JobArn) -> impl Future<Output = Result<Vec<Tag>, Failure>> + Send;

    /// ListDatasetImportJobs of a dataset, all pages within a bound.
    fn jobs(&self, dataset: &DatasetArn) -> impl Future<Output = Result<Vec<JobSummary>, Failure>> + Send;

    /// The status that DescribeDataset tells.
    fn dataset_status(&self, dataset: &DatasetArn) -> impl Future<Output = Result<String, Failure>> + Send;
}

impl<P: Personalize> Personalize for Arc<P> {
    fn create(&self, request: &Request, job_name: &str) -> impl Future<Output = Result<JobArn, Failure>> + Send {
        (**self).create(request, job_name)
    }

    fn job(&self, dataset: &DatasetArn, job: &JobArn) -> impl Future<Output = Result<Job, Failure>> + Send {
        (**self).job(dataset, job)
    }

    fn tags(&self, dataset: &DatasetArn, job: &JobArn) -> impl Future<Output = Result<Vec<Tag>, Failure>> + Send {
        (**self).tags(dataset, job)
    }

    fn jobs(&self, dataset: &DatasetArn) -> impl Future<Output = Result<Vec<JobSummary>, Failure>> + Send {
        (**self).jobs(dataset)
    }

    fn dataset_status(&self, dataset: &DatasetArn) -> impl Future<Output = Result<String, Failure>> + Send {
        (**self).dataset_status(dataset)
    }
}
