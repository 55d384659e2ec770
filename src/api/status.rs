//! The status: the service's answer, the operator's recorded intent, and the conditions.

#![allow(unreachable_pub, reason = "KubeSchema emits a second, private struct with the same visibility")]

use super::plural;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the operator knows of the import. No field changes merely because time passed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DatasetImportJobStatus {
    /// The generation of the spec that this status speaks of; -1 until the operator has seen the
    /// resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// How far the import is, in one word: Pending, Queued, Running, Succeeded, Failed, Stalled or Suspended. Failed is
    /// the end; Stalled means that the operator tries again until a user fixes the cause. This field, reason and
    /// message repeat the condition Ready, for tools that can't select a condition; the operator never reads them.
    /// They are absent until the operator has seen the resource, and in a status of an older version until its next
    /// change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,

    /// The reason of the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,

    /// The message of the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// The status of the job in the service's own words: CREATE PENDING, CREATE IN_PROGRESS, ACTIVE or
    /// CREATE FAILED. Absent until there is a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,

    /// Why the last job failed, in the service's own words (control characters and secrets removed, at most
    /// 1024 characters). It speaks of jobs only: if the service rejects the call CreateDatasetImportJob, there
    /// is no job, and the message of the condition Stalled has the service's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<String>,

    /// The name of the job in Amazon Personalize.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,

    /// The ARN of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_import_job_arn: Option<String>,

    /// When the service created the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_date_time: Option<Time>,

    /// When the service last changed the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated_date_time: Option<Time>,

    /// When the service created the first job of this resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,

    /// When the import ended, in success or failure. Absent as long as it may still go on, so also
    /// while the service rejects the call CreateDatasetImportJob, because the operator repeats it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,

    /// How many jobs the service has taken for this resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i32>,

    /// The attempt that a user asked for with the annotation personalize-operator.io/retry-requested-at. It is
    /// made even if a newer import has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_attempt: Option<i32>,

    /// The submission under way: written before CreateDatasetImportJob is called, so that an operator
    /// which dies in between finds out what became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submission: Option<Submission>,

    /// The data that the last submission imports, as it was right before. Absent if the operator did not list it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ImportedData>,

    /// The value of the annotation personalize-operator.io/reconcile-requested-at that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,

    /// The value of the annotation personalize-operator.io/retry-requested-at that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_retry_at: Option<String>,

    /// Ready, Succeeded, Reconciling and Stalled, DataCurrent once the import has succeeded, and DataChecked if
    /// the data was to be checked; their reasons are listed in the operator's docs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// What is at a data location.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct ImportedData {
    /// The number of objects.
    pub files: i64,
    /// Their size in bytes.
    pub bytes: i64,
    /// A digest of the keys, sizes and ETags of the objects: it changes when one of them does.
    pub fingerprint: String,
}

impl fmt::Display for ImportedData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in {}", self.bytes, plural(self.files, "file"))
    }
}

/// A recorded intent to call CreateDatasetImportJob.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Submission {
    /// The name under which the job is submitted.
    pub job_name: String,
    /// Which job of this resource it is, from 1.
    pub attempt: i32,
    /// The hash over what defines the import; it is also a tag of the job.
    pub request_hash: String,
    /// The generation of the spec that the request was made from.
    pub generation: i64,
    /// When the intent was recorded, by the operator's clock.
    pub time: Time,
}
