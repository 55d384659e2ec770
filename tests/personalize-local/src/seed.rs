//! What the service holds when it begins, and the shapes of what it keeps.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The seed file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Seed {
    /// Accounts and the keys that open them.
    #[serde(default)]
    pub accounts: Vec<Account>,
    /// Datasets.
    #[serde(default)]
    pub datasets: Vec<Dataset>,
    /// Jobs that exist already.
    #[serde(default)]
    pub jobs: Vec<Job>,
    /// How long jobs take.
    #[serde(default)]
    pub durations: Durations,
    /// Roles that callers may not pass.
    #[serde(default)]
    pub refused_roles: Vec<String>,
    /// Buckets that the service may not read.
    #[serde(default)]
    pub unreadable_buckets: Vec<String>,
}

/// An AWS account.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Account {
    /// 12 digits.
    pub id: String,
    /// Its access keys.
    pub access_keys: Vec<AccessKey>,
}

/// An access key.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessKey {
    /// The access key's ID.
    pub id: String,
    /// The secret.
    pub secret: String,
    /// The session token that has to come with it.
    #[serde(default)]
    pub session_token: Option<String>,
    /// Whether its token has expired.
    #[serde(default)]
    pub expired: bool,
}

/// A dataset.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dataset {
    /// Its ARN, with region and account.
    pub arn: String,
    /// `Interactions`, `Users` or `Items`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `ACTIVE`, `CREATE PENDING`, …
    pub status: String,
    /// The Avro schema, as JSON text.
    pub schema: String,
}

/// How long jobs take, in milliseconds.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Durations {
    /// In CREATE PENDING.
    pub pending_ms: i64,
    /// In CREATE IN_PROGRESS.
    pub in_progress_ms: i64,
}

impl Default for Durations {
    fn default() -> Self {
        Self { pending_ms: 1000, in_progress_ms: 2000 }
    }
}

/// A dataset import job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// `jobName`.
    pub job_name: String,
    /// `datasetArn`.
    pub dataset_arn: String,
    /// `dataSource.dataLocation`.
    pub data_location: String,
    /// `roleArn`.
    pub role_arn: String,
    /// `importMode`.
    #[serde(default = "full")]
    pub import_mode: String,
    /// `publishAttributionMetricsToS3`.
    #[serde(default)]
    pub publish_attribution_metrics_to_s3: Option<bool>,
    /// Tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Where it stands; a job that has not ended goes on by the clock.
    #[serde(default = "pending")]
    pub status: String,
    /// Why it failed.
    #[serde(default)]
    pub failure_reason: Option<String>,
    /// When it was created, in milliseconds of the Unix epoch.
    #[serde(default)]
    pub created_ms: i64,
    /// When it changed last.
    #[serde(default)]
    pub updated_ms: i64,
    /// Whether it stays as it is until it is told to end.
    #[serde(default)]
    pub held: bool,
}

fn full() -> String {
    "FULL".into()
}

fn pending() -> String {
    "CREATE PENDING".into()
}

impl Job {
    /// Whether it counts against the quota.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.status != "ACTIVE" && self.status != "CREATE FAILED"
    }

    /// The account and region it lives in, and its ARN.
    #[must_use]
    pub fn arn(&self) -> String {
        let parts: Vec<&str> = self.dataset_arn.splitn(6, ':').collect();
        let part = |i: usize| parts.get(i).copied().unwrap_or_default();
        format!("arn:{}:personalize:{}:{}:dataset-import-job/{}", part(1), part(3), part(4), self.job_name)
    }

    /// What a summary tells of it; `whole` adds what only describe tells.
    #[must_use]
    pub fn tell(&self, whole: bool) -> Value {
        let seconds = |ms: i64| {
            serde_json::Number::from_f64(f64::from(i32::try_from(ms % 1000).unwrap_or(0)) / 1000.0 + (ms / 1000) as f64)
        };
        let mut told = serde_json::json!({
            "datasetImportJobArn": self.arn(),
            "jobName": self.job_name,
            "status": self.status,
            "importMode": self.import_mode,
            "creationDateTime": seconds(self.created_ms),
            "lastUpdatedDateTime": seconds(self.updated_ms),
        });
        if let Some(reason) = &self.failure_reason {
            told["failureReason"] = reason.as_str().into();
        }
        if whole {
            told["datasetArn"] = self.dataset_arn.as_str().into();
            told["roleArn"] = self.role_arn.as_str().into();
            told["dataSource"] = serde_json::json!({"dataLocation": self.data_location});
            if let Some(publish) = self.publish_attribution_metrics_to_s3 {
                told["publishAttributionMetricsToS3"] = publish.into();
            }
        }
        told
    }
}
