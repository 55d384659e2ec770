//! Amazon Personalize as the operator sees it: one narrow trait with the operations that an import needs.
//!
//! ```
//! use personalize_operator::personalize::{DatasetArn, ErrorKind};
//!
//! let dataset = DatasetArn::parse("arn:aws:personalize:eu-west-1:123456789012:dataset/shop/ITEMS")?;
//! let job = dataset.job("nightly");
//! assert_eq!(job.0, "arn:aws:personalize:eu-west-1:123456789012:dataset-import-job/nightly");
//! // A server error never proves that no job was created.
//! assert_eq!(ErrorKind::of("InternalFailure", "", 500), ErrorKind::Indeterminate);
//! # Ok::<(), personalize_operator::personalize::InvalidDatasetArn>(())
//! ```

mod arn;
mod error;

pub use arn::{AccountRegion, DatasetArn, InvalidDatasetArn, JobArn, RoleArn};
pub(crate) use error::{ACCOUNTS_NOT_READ, HOST_NOT_FOUND, ROLE_NOT_ASSUMED, SESSION_REFUSED};
pub use error::{ErrorKind, ServiceError};

use crate::api::{ImportMode, Tag};
use crate::preflight::{Object, Page, Piece};
use jiff::Timestamp;
use std::future::{Future, ready};
use std::ops::Range;

/// A dataset import job, as DescribeDatasetImportJob returns it.
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
    /// `importMode`; missing for old jobs, which were FULL.
    pub import_mode: Option<String>,
    /// `publishAttributionMetricsToS3`.
    pub publish_attribution_metrics_to_s3: Option<bool>,
    /// `status`: a free string, not an enum.
    pub status: String,
    /// `failureReason`, not sanitised yet.
    pub failure_reason: Option<String>,
    /// `creationDateTime`.
    pub created: Option<Timestamp>,
    /// `lastUpdatedDateTime`.
    pub updated: Option<Timestamp>,
}

/// A summary in the answer of ListDatasetImportJobs.
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
    /// `importMode`; missing for old jobs, which were FULL.
    pub import_mode: Option<String>,
}

impl JobSummary {
    /// Whether it is a FULL import that has succeeded.
    #[must_use]
    pub fn is_full_success(&self) -> bool {
        self.status == ACTIVE && self.import_mode.as_deref() != Some(ImportMode::Incremental.as_str())
    }
}

/// A summary in the answer of ListDataDeletionJobs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DataDeletion {
    /// `jobName`.
    pub name: String,
    /// `status`: a free string, not an enum.
    pub status: String,
}

impl DataDeletion {
    /// Whether it is PENDING or IN_PROGRESS.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.status.ends_with("PENDING") || self.status.ends_with("IN_PROGRESS")
    }
}

/// A dataset, as DescribeDataset returns it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Dataset {
    /// `status`: a free string, not an enum.
    pub status: String,
    /// `creationDateTime`. A dataset that was deleted and created again has the ARN of the former one.
    pub created: Option<Timestamp>,
    /// `schemaArn`.
    pub schema_arn: Option<String>,
}

/// A schema, as DescribeSchema returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetSchema {
    /// `schema`: Avro JSON.
    pub json: String,
    /// `domain`.
    pub domain: Option<String>,
}

/// The input of CreateDatasetImportJob.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateJobInput {
    /// `jobName`.
    pub job_name: String,
    /// `datasetArn`.
    pub dataset: DatasetArn,
    /// `dataSource.dataLocation`.
    pub data_location: String,
    /// `roleArn`.
    pub role_arn: String,
    /// `importMode`.
    pub import_mode: ImportMode,
    /// `publishAttributionMetricsToS3`; `None` leaves it to the service.
    pub publish_attribution_metrics_to_s3: Option<bool>,
    /// `tags`: the user's and the operator's.
    pub tags: Vec<Tag>,
}

/// The status of a dataset that is ready, and of a job that has succeeded.
pub const ACTIVE: &str = "ACTIVE";
/// The status of a job that has failed.
pub const CREATE_FAILED: &str = "CREATE FAILED";
/// The status of a job that the service has accepted and not started.
pub const CREATE_PENDING: &str = "CREATE PENDING";
/// The status of a job that runs.
pub const CREATE_IN_PROGRESS: &str = "CREATE IN_PROGRESS";
/// The most tags of a job.
pub(crate) const MAX_TAGS: usize = 50;

/// The most jobs that a page of a list has.
pub const MAX_PAGE: u8 = 100;

/// Whether a job with this status has ended. An unknown status counts as running.
#[must_use]
pub fn has_ended(status: &str) -> bool {
    status == ACTIVE || status == CREATE_FAILED
}

/// Which of the calls that wait goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Any other call.
    Normal,
    /// The call ends a submission whose intent is recorded.
    High,
}

/// On whose behalf a call is made. That decides which role signs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The namespace of the resource.
    pub namespace: String,
    /// Under which role.
    pub role: CallerRole,
}

/// The role that a Namespace names for the account of a dataset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum CallerRole {
    /// It names none: the configuration of the account decides.
    #[default]
    OfAccount,
    /// It names this one.
    Named(String),
    /// The namespace may make no call in this account, and why.
    Denied(String),
}

/// The calls of Amazon Personalize that the operator makes.
///
/// Each call is sent once: the caller decides about retries. Reads are idempotent. Create is not, and may have created
/// a job if it fails with [`ErrorKind::Indeterminate`]. A call that has to wait too long is not sent: it fails with
/// [`ErrorKind::Throttled`].
pub trait Personalize: Send + Sync + 'static {
    /// The right to send one create.
    type Permit: Send;

    /// Waits until a create may be sent for this caller. Create itself does not wait, so that nothing comes between the
    /// last checks and the call.
    fn permit_create(
        &self,
        caller: &Caller,
        dataset: &DatasetArn,
    ) -> impl Future<Output = Result<Self::Permit, ServiceError>> + Send;

    /// CreateDatasetImportJob in the dataset's account and region.
    fn create_dataset_import_job(
        &self,
        permit: Self::Permit,
        input: &CreateJobInput,
    ) -> impl Future<Output = Result<JobArn, ServiceError>> + Send;

    /// DescribeDatasetImportJob in the dataset's account and region.
    fn describe_dataset_import_job(
        &self,
        caller: &Caller,
        dataset: &DatasetArn,
        job: &JobArn,
        priority: Priority,
    ) -> impl Future<Output = Result<Job, ServiceError>> + Send;

    /// ListTagsForResource on a job.
    fn list_tags_for_resource(
        &self,
        caller: &Caller,
        dataset: &DatasetArn,
        job: &JobArn,
        priority: Priority,
    ) -> impl Future<Output = Result<Vec<Tag>, ServiceError>> + Send;

    /// ListDatasetImportJobs for the dataset: all pages, up to a bound.
    fn list_dataset_import_jobs(
        &self,
        caller: &Caller,
        dataset: &DatasetArn,
    ) -> impl Future<Output = Result<Vec<JobSummary>, ServiceError>> + Send;

    /// ListDatasetImportJobs for the whole account and region of the dataset: the first page, in no documented order.
    fn list_jobs_of_account(
        &self,
        _caller: &Caller,
        _dataset: &DatasetArn,
    ) -> impl Future<Output = Result<Vec<JobSummary>, ServiceError>> + Send {
        ready(Err(not_supported()))
    }

    /// ListDataDeletionJobs for the group of the dataset: all pages, up to a bound.
    fn list_data_deletion_jobs(
        &self,
        caller: &Caller,
        dataset: &DatasetArn,
    ) -> impl Future<Output = Result<Vec<DataDeletion>, ServiceError>> + Send;

    /// DescribeDataset.
    fn describe_dataset(
        &self,
        caller: &Caller,
        dataset: &DatasetArn,
    ) -> impl Future<Output = Result<Dataset, ServiceError>> + Send;

    /// DescribeSchema in the dataset's account and region.
    fn describe_schema(
        &self,
        _caller: &Caller,
        _dataset: &DatasetArn,
        _schema_arn: &str,
    ) -> impl Future<Output = Result<DatasetSchema, ServiceError>> + Send {
        ready(Err(not_supported()))
    }

    /// ListObjectsV2 of S3, for the dataset's account and region: one page, without what is in folders below the prefix.
    fn list_objects(
        &self,
        _caller: &Caller,
        _dataset: &DatasetArn,
        _bucket: &str,
        _prefix: &str,
        _token: Option<&str>,
    ) -> impl Future<Output = Result<Page, ServiceError>> + Send {
        ready(Err(not_supported()))
    }

    /// GetObject of S3, for the dataset's account and region: these bytes, if the object is still the listed one.
    fn get_object(
        &self,
        _caller: &Caller,
        _dataset: &DatasetArn,
        _bucket: &str,
        _object: &Object,
        _range: Range<u64>,
    ) -> impl Future<Output = Result<Piece, ServiceError>> + Send {
        ready(Err(not_supported()))
    }
}

/// The error of a service that lacks a call which only saves others or reads data. A test's service need not have it.
fn not_supported() -> ServiceError {
    ServiceError::unanswered(ErrorKind::AccessDenied, "NotSupported", "this service lacks the call")
}
