//! [`Personalize`] with the AWS SDK: one client per account and region, and one attempt per call.

mod client;
mod credentials;
mod error;

use crate::api::Tag;
use crate::aws::error::{listing_limit_error, malformed_response};
use crate::personalize::{
    AccountRegion, CreateJobInput, Dataset, DatasetArn, ErrorKind, Job, JobArn, JobSummary, Personalize, ServiceError,
};
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_personalize::Client;
use aws_sdk_personalize::config::retry::RetryConfig;
use aws_sdk_personalize::config::timeout::TimeoutConfig;
use aws_sdk_personalize::primitives::DateTime;
use aws_sdk_personalize::types;
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;
use tokio::time::timeout;

/// The maximum number of pages read of a listing, with 100 jobs each.
const MAX_PAGES: usize = 1000;

/// The timeout of a whole listing.
const LISTING_TIMEOUT: Duration = Duration::from_secs(120);

/// The timeout of resolving credentials, if the configuration has no operation timeout.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings of [`Aws`].
#[derive(Debug, Clone)]
pub struct AwsOptions {
    /// The timeout of connecting.
    pub connect_timeout: Duration,
    /// The timeout of waiting for the first byte of a response.
    pub read_timeout: Duration,
    /// The timeout of a whole call.
    pub operation_timeout: Duration,
    /// The role to assume for each account other than that of the default credentials.
    pub roles: HashMap<String, String>,
}

/// Amazon Personalize through the AWS SDK.
#[derive(Debug)]
pub struct Aws {
    base: SdkConfig,
    roles: HashMap<String, String>,
    clients: Mutex<HashMap<AccountRegion, Client>>,
    own_account: OnceLock<String>,
    credentials_timeout: Duration,
}

impl Aws {
    /// Reads credentials, region and endpoint from the SDK's default chain.
    pub async fn new(options: AwsOptions) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.read_timeout)
            .operation_timeout(options.operation_timeout)
            .build();
        // Each call uses the region of its dataset. Only STS uses this one. The fallback keeps the SDK from querying
        // the instance metadata service, which takes seconds where there is none.
        let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else(Region::from_static("us-east-1"));
        let base = aws_config::defaults(BehaviorVersion::latest())
            .region(region)
            // A retried create whose first answer was lost would fail with ResourceAlreadyExistsException.
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .load()
            .await;
        Self::from_config(base, options.roles)
    }

    /// Uses this configuration, in which retries must be disabled. `roles` is as in [`AwsOptions`].
    #[must_use]
    pub fn from_config(base: SdkConfig, roles: HashMap<String, String>) -> Self {
        let operation_timeout = base.timeout_config().and_then(TimeoutConfig::operation_timeout);
        let base = match base.credentials_provider() {
            Some(provider) => base.into_builder().credentials_provider(credentials::redacted(provider)).build(),
            None => base,
        };
        let credentials_timeout = operation_timeout.unwrap_or(CREDENTIALS_TIMEOUT);
        Self { base, roles, clients: Mutex::default(), own_account: OnceLock::new(), credentials_timeout }
    }
}

impl Personalize for Aws {
    async fn create_dataset_import_job(&self, input: &CreateJobInput) -> Result<JobArn, ServiceError> {
        let account_region = input.dataset.account_region();
        let client = self.client(account_region).await?;
        let mut call = client
            .create_dataset_import_job()
            .job_name(&input.job_name)
            .dataset_arn(input.dataset.as_str())
            .data_source(types::DataSource::builder().data_location(&input.data_location).build())
            .role_arn(&input.role_arn)
            .import_mode(input.import_mode.as_str().into())
            .set_publish_attribution_metrics_to_s3(input.publish_attribution_metrics_to_s3);
        for Tag { tag_key, tag_value } in &input.tags {
            let tag = types::Tag::builder().tag_key(tag_key).tag_value(tag_value).build();
            call = call.tags(
                tag.map_err(|e| ServiceError::unanswered(ErrorKind::InvalidInput, "InvalidTag", &e.to_string()))?,
            );
        }
        let response = call.send().await.map_err(|e| self.error(account_region, &e))?;
        // Without an ARN the success does not prove that a job exists.
        let missing =
            || ServiceError::unanswered(ErrorKind::Indeterminate, "NoJobArn", "the response contains no job ARN");
        response.dataset_import_job_arn.map(JobArn).ok_or_else(missing)
    }

    async fn describe_dataset_import_job(&self, dataset: &DatasetArn, job: &JobArn) -> Result<Job, ServiceError> {
        let client = self.client(dataset.account_region()).await?;
        let response = client.describe_dataset_import_job().dataset_import_job_arn(&job.0).send().await;
        let job = response
            .map_err(|e| self.error(dataset.account_region(), &e))?
            .dataset_import_job
            .ok_or_else(malformed_response)?;
        Ok(Job {
            name: job.job_name.ok_or_else(malformed_response)?,
            dataset: job.dataset_arn.ok_or_else(malformed_response)?,
            data_location: job.data_source.and_then(|s| s.data_location).unwrap_or_default(),
            role_arn: job.role_arn.unwrap_or_default(),
            import_mode: job.import_mode.map(|m| m.as_str().to_owned()),
            publish_attribution_metrics_to_s3: job.publish_attribution_metrics_to_s3,
            status: job.status.ok_or_else(malformed_response)?,
            failure_reason: job.failure_reason,
            created: job.creation_date_time.and_then(timestamp),
            updated: job.last_updated_date_time.and_then(timestamp),
        })
    }

    async fn list_tags_for_resource(&self, dataset: &DatasetArn, job: &JobArn) -> Result<Vec<Tag>, ServiceError> {
        let client = self.client(dataset.account_region()).await?;
        let response = client
            .list_tags_for_resource()
            .resource_arn(&job.0)
            .send()
            .await
            .map_err(|e| self.error(dataset.account_region(), &e))?;
        let tags = response.tags.unwrap_or_default();
        Ok(tags.into_iter().map(|t| Tag { tag_key: t.tag_key, tag_value: t.tag_value }).collect())
    }

    async fn list_dataset_import_jobs(&self, dataset: &DatasetArn) -> Result<Vec<JobSummary>, ServiceError> {
        let timed_out = |_| Err(listing_limit_error(&format!("{} s", LISTING_TIMEOUT.as_secs())));
        timeout(LISTING_TIMEOUT, self.list_all_pages(dataset)).await.unwrap_or_else(timed_out)
    }

    async fn describe_dataset(&self, dataset: &DatasetArn) -> Result<Dataset, ServiceError> {
        let client = self.client(dataset.account_region()).await?;
        let response = client.describe_dataset().dataset_arn(dataset.as_str()).send().await;
        let dataset =
            response.map_err(|e| self.error(dataset.account_region(), &e))?.dataset.ok_or_else(malformed_response)?;
        Ok(Dataset {
            status: dataset.status.ok_or_else(malformed_response)?,
            created: dataset.creation_date_time.and_then(timestamp),
        })
    }
}

impl Aws {
    async fn list_all_pages(&self, dataset: &DatasetArn) -> Result<Vec<JobSummary>, ServiceError> {
        let client = self.client(dataset.account_region()).await?;
        let mut jobs = Vec::new();
        let mut token: Option<String> = None;
        let mut tokens = HashSet::new();
        for _ in 0..MAX_PAGES {
            let page = client
                .list_dataset_import_jobs()
                .dataset_arn(dataset.as_str())
                .max_results(100)
                .set_next_token(token.take())
                .send()
                .await
                .map_err(|e| self.error(dataset.account_region(), &e))?;
            jobs.extend(page.dataset_import_jobs.unwrap_or_default().into_iter().map(|job| JobSummary {
                name: job.job_name.unwrap_or_default(),
                status: job.status.unwrap_or_default(),
                created: job.creation_date_time.and_then(timestamp),
                updated: job.last_updated_date_time.and_then(timestamp),
                import_mode: job.import_mode.map(|mode| mode.as_str().to_owned()),
            }));
            let Some(next) = page.next_token.filter(|t| !t.is_empty()) else {
                return Ok(jobs);
            };
            // A repeated token would repeat the listing forever.
            if !tokens.insert(next.clone()) {
                break;
            }
            token = Some(next);
        }
        Err(listing_limit_error(&format!("{} jobs", MAX_PAGES * 100)))
    }
}

/// The time; `None` if it is before 1970, because the API server rejects a status with a year before 0.
fn timestamp(at: DateTime) -> Option<Timestamp> {
    let at = Timestamp::new(at.secs(), i32::try_from(at.subsec_nanos()).unwrap_or(0)).ok()?;
    (at >= Timestamp::UNIX_EPOCH).then_some(at)
}
