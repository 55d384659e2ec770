//! What the effects of a reconciliation observe.

use crate::api::{DatasetImportJob, ImportedData, Tag};
use crate::import::{Admission, AfterWrite, DataCheck, Key, ObservedJob};
use crate::personalize::{DataDeletion, Dataset, JobSummary, ServiceError};
use jiff::Timestamp;

/// What an effect observed.
#[derive(Debug, Clone)]
pub enum Observation {
    /// The resource, read from the API server; `None` if it is deleted.
    Resource(Option<Box<DatasetImportJob>>),
    /// Whether the namespace may make this import, or why not.
    Namespace(Result<(), String>),
    /// The queue's answer.
    Admission(Admission),
    /// The resource whose newer import has replaced the data of this one.
    NewerImport(Option<Key>),
    /// The job of an attempt.
    Job {
        /// The attempt, from 1.
        attempt: i32,
        /// The job.
        job: Result<ObservedJob, ServiceError>,
    },
    /// A list of the account's jobs showed that the running job still has its recorded status.
    JobListed {
        /// When, by the clock of this process.
        at: Timestamp,
    },
    /// The dataset.
    Dataset(Result<Dataset, ServiceError>),
    /// What the check of the data found; `None` if it is not wanted.
    Data(Option<DataCheck>),
    /// The data, as it was listed once more.
    DataListed(Result<ImportedData, ServiceError>),
    /// The dataset's jobs.
    Jobs(Result<Vec<JobSummary>, ServiceError>),
    /// The data deletion jobs of the dataset's group.
    DataDeletions(Result<Vec<DataDeletion>, ServiceError>),
    /// The tags of another job of the dataset.
    Tags {
        /// The job's name.
        job_name: String,
        /// Its tags.
        tags: Result<Vec<Tag>, ServiceError>,
    },
    /// The status is written.
    StatusWritten {
        /// The resource that the API server returned.
        resource: Box<DatasetImportJob>,
        /// What follows the write.
        then: AfterWrite,
    },
    /// The status is applied; `None` if that failed.
    StatusApplied(Option<Box<DatasetImportJob>>),
    /// The status is not written: the resource was changed or deleted after it was read.
    Conflict,
    /// The answer of CreateDatasetImportJob.
    Created {
        /// The attempt, from 1.
        attempt: i32,
        /// The answer.
        answer: Result<(), ServiceError>,
    },
}
