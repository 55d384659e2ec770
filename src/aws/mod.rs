//! [`Personalize`] with the AWS SDK: one rate limiter per account and region, one client per session in it, and one
//! attempt per call.

mod client;
mod credentials;
mod error;
mod http_client;
mod pages;
mod rate_limiter;
mod s3;

pub use client::{SessionClient, SessionPermit};
pub use rate_limiter::RateLimits;
pub use s3::S3;

use crate::accounts::Accounts;
use crate::api::Tag;
use crate::aws::error::{are_credentials_refused, malformed_response};
use crate::personalize::{
    Caller, CreateJobInput, DataDeletion, Dataset, DatasetArn, DatasetSchema, ErrorKind, Job, JobArn, JobSummary,
    MAX_PAGE, MAX_TAGS, Personalize, Priority, ServiceError,
};
use crate::preflight::{Object, Objects, Page, Piece};
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_personalize::Client;
use aws_sdk_personalize::config::retry::RetryConfig;
use aws_sdk_personalize::config::timeout::TimeoutConfig;
use aws_sdk_personalize::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_personalize::primitives::DateTime;
use aws_sdk_personalize::types;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use client::Clients;
use http_client::reloading_http_client;
use jiff::Timestamp;
use pages::{Pages, within_time};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::Duration;
use tracing::warn;

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
    /// The roles to assume for accounts.
    pub accounts: Accounts,
    /// The limits of the calls to each account and region.
    pub limits: RateLimits,
}

/// Amazon Personalize through the AWS SDK.
#[derive(Debug)]
pub struct Aws {
    base: SdkConfig,
    accounts: Accounts,
    clients: Clients,
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
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(region)
            // A retried create whose first answer was lost would fail with ResourceAlreadyExistsException.
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Some(client) = reloading_http_client() {
            loader = loader.http_client(client);
        }
        let base = loader.load().await;
        Self::from_config(base, options.accounts, options.limits)
    }

    /// Uses this configuration, in which retries must be disabled. `accounts` and `limits` are as in [`AwsOptions`].
    #[must_use]
    pub fn from_config(base: SdkConfig, accounts: Accounts, limits: RateLimits) -> Self {
        let operation_timeout = base.timeout_config().and_then(TimeoutConfig::operation_timeout);
        let base = match base.credentials_provider() {
            Some(provider) => base.into_builder().credentials_provider(credentials::redacted(provider)).build(),
            None => base,
        };
        let credentials_timeout = operation_timeout.unwrap_or(CREDENTIALS_TIMEOUT);
        Self { base, accounts, clients: Clients::new(limits), own_account: OnceLock::new(), credentials_timeout }
    }

    /// The configuration with the default credentials, in this region if one is given.
    #[must_use]
    pub fn config_for(&self, region: Option<&str>) -> SdkConfig {
        match region {
            Some(region) => self.base.to_builder().region(Region::new(region.to_owned())).build(),
            None => self.base.clone(),
        }
    }

    /// Makes one call when its turn comes.
    async fn call<T, E, F>(
        &self,
        caller: &Caller,
        dataset: &DatasetArn,
        priority: Priority,
        send: impl FnOnce(Client) -> F,
    ) -> Result<T, ServiceError>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let permit = self.permit(caller, dataset.account_region(), priority).await?;
        self.call_with(permit, send).await
    }

    /// Makes one call now.
    async fn call_with<T, E, F>(
        &self,
        SessionPermit { permit, session, .. }: SessionPermit,
        send: impl FnOnce(Client) -> F,
    ) -> Result<T, ServiceError>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        // On the heap: the futures of the SDK are large, and each future around them would be as large.
        let response = match Box::pin(self.client(&session)).await {
            Ok(client) => Box::pin(send(client)).await.map_err(|error| {
                if are_credentials_refused(&error) {
                    session.renew();
                }
                self.error(&session, &error)
            }),
            Err(error) => Err(error),
        };
        permit.report(response.as_ref().err());
        response
    }
}

impl Personalize for Aws {
    type Permit = SessionPermit;

    async fn permit_create(&self, caller: &Caller, dataset: &DatasetArn) -> Result<SessionPermit, ServiceError> {
        self.permit(caller, dataset.account_region(), Priority::High).await
    }

    async fn create_dataset_import_job(
        &self,
        permit: SessionPermit,
        input: &CreateJobInput,
    ) -> Result<JobArn, ServiceError> {
        let tag =
            |Tag { tag_key, tag_value }: &Tag| types::Tag::builder().tag_key(tag_key).tag_value(tag_value).build();
        let tags = with_default_tags(input.tags.clone(), &permit.config.default_tags);
        let tags: Result<Vec<types::Tag>, _> = tags.iter().map(tag).collect();
        let tags = tags.map_err(|e| ServiceError::unanswered(ErrorKind::InvalidInput, "InvalidTag", &e.to_string()))?;
        let send = |client: Client| {
            client
                .create_dataset_import_job()
                .job_name(&input.job_name)
                .dataset_arn(input.dataset.as_str())
                .data_source(types::DataSource::builder().data_location(&input.data_location).build())
                .role_arn(&input.role_arn)
                .import_mode(input.import_mode.as_str().into())
                .set_publish_attribution_metrics_to_s3(input.publish_attribution_metrics_to_s3)
                .set_tags(Some(tags).filter(|tags| !tags.is_empty()))
                .send()
        };
        let response = self.call_with(permit, send).await?;
        // Without an ARN the success does not prove that a job exists.
        let missing =
            || ServiceError::unanswered(ErrorKind::Indeterminate, "NoJobArn", "the response contains no job ARN");
        response.dataset_import_job_arn.map(JobArn).ok_or_else(missing)
    }

    async fn describe_dataset_import_job(
        &self,
        caller: &Caller,
        dataset: &DatasetArn,
        job: &JobArn,
        priority: Priority,
    ) -> Result<Job, ServiceError> {
        let send = |client: Client| client.describe_dataset_import_job().dataset_import_job_arn(&job.0).send();
        let response = self.call(caller, dataset, priority, send).await?;
        let job = response.dataset_import_job.ok_or_else(malformed_response)?;
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

    async fn list_tags_for_resource(
        &self,
        caller: &Caller,
        dataset: &DatasetArn,
        job: &JobArn,
        priority: Priority,
    ) -> Result<Vec<Tag>, ServiceError> {
        let send = |client: Client| client.list_tags_for_resource().resource_arn(&job.0).send();
        let tags = self.call(caller, dataset, priority, send).await?.tags.unwrap_or_default();
        Ok(tags.into_iter().map(|t| Tag { tag_key: t.tag_key, tag_value: t.tag_value }).collect())
    }

    async fn list_dataset_import_jobs(
        &self,
        caller: &Caller,
        dataset: &DatasetArn,
    ) -> Result<Vec<JobSummary>, ServiceError> {
        within_time(self.list_all_jobs(caller, dataset)).await
    }

    async fn list_jobs_of_account(
        &self,
        caller: &Caller,
        dataset: &DatasetArn,
    ) -> Result<Vec<JobSummary>, ServiceError> {
        let send = |client: Client| client.list_dataset_import_jobs().max_results(MAX_PAGE.into()).send();
        let page = self.call(caller, dataset, Priority::Normal, send).await?;
        Ok(page.dataset_import_jobs.unwrap_or_default().into_iter().map(summary).collect())
    }

    async fn list_data_deletion_jobs(
        &self,
        caller: &Caller,
        dataset: &DatasetArn,
    ) -> Result<Vec<DataDeletion>, ServiceError> {
        within_time(self.list_all_data_deletions(caller, dataset)).await
    }

    async fn describe_dataset(&self, caller: &Caller, dataset: &DatasetArn) -> Result<Dataset, ServiceError> {
        let send = |client: Client| client.describe_dataset().dataset_arn(dataset.as_str()).send();
        let response = self.call(caller, dataset, Priority::Normal, send).await?;
        let dataset = response.dataset.ok_or_else(malformed_response)?;
        Ok(Dataset {
            status: dataset.status.ok_or_else(malformed_response)?,
            created: dataset.creation_date_time.and_then(timestamp),
            schema_arn: dataset.schema_arn,
        })
    }

    async fn describe_schema(
        &self,
        caller: &Caller,
        dataset: &DatasetArn,
        schema_arn: &str,
    ) -> Result<DatasetSchema, ServiceError> {
        let send = |client: Client| client.describe_schema().schema_arn(schema_arn).send();
        let response = self.call(caller, dataset, Priority::Normal, send).await?;
        let schema = response.schema.ok_or_else(malformed_response)?;
        let domain = schema.domain.map(|domain| domain.as_str().to_owned());
        Ok(DatasetSchema { json: schema.schema.ok_or_else(malformed_response)?, domain })
    }

    async fn list_objects(
        &self,
        caller: &Caller,
        dataset: &DatasetArn,
        bucket: &str,
        prefix: &str,
        token: Option<&str>,
    ) -> Result<Page, ServiceError> {
        self.s3(caller, dataset.account_region()).await?.list(bucket, prefix, token).await
    }

    async fn get_object(
        &self,
        caller: &Caller,
        dataset: &DatasetArn,
        bucket: &str,
        object: &Object,
        range: Range<u64>,
    ) -> Result<Piece, ServiceError> {
        self.s3(caller, dataset.account_region()).await?.read(bucket, object, range).await
    }
}

impl Aws {
    async fn list_all_jobs(&self, caller: &Caller, dataset: &DatasetArn) -> Result<Vec<JobSummary>, ServiceError> {
        let (mut jobs, mut pages) = (Vec::new(), Pages::default());
        loop {
            let send = |client: Client| {
                let page = client.list_dataset_import_jobs().dataset_arn(dataset.as_str()).max_results(MAX_PAGE.into());
                page.set_next_token(pages.take_token()).send()
            };
            let page = self.call(caller, dataset, Priority::Normal, send).await?;
            jobs.extend(page.dataset_import_jobs.unwrap_or_default().into_iter().map(summary));
            if !pages.follow(page.next_token)? {
                return Ok(jobs);
            }
        }
    }

    async fn list_all_data_deletions(
        &self,
        caller: &Caller,
        dataset: &DatasetArn,
    ) -> Result<Vec<DataDeletion>, ServiceError> {
        let (mut deletions, mut pages) = (Vec::new(), Pages::default());
        loop {
            let send = |client: Client| {
                let page =
                    client.list_data_deletion_jobs().dataset_group_arn(dataset.group()).max_results(MAX_PAGE.into());
                page.set_next_token(pages.take_token()).send()
            };
            let page = self.call(caller, dataset, Priority::Normal, send).await?;
            deletions.extend(page.data_deletion_jobs.unwrap_or_default().into_iter().map(|job| DataDeletion {
                name: job.job_name.unwrap_or_default(),
                status: job.status.unwrap_or_default(),
            }));
            if !pages.follow(page.next_token)? {
                return Ok(deletions);
            }
        }
    }
}

/// Adds the default tags whose keys are not taken, up to the maximum of the service.
fn with_default_tags(mut tags: Vec<Tag>, defaults: &BTreeMap<String, String>) -> Vec<Tag> {
    let missing: Vec<_> = defaults.iter().filter(|(key, _)| tags.iter().all(|tag| tag.tag_key != **key)).collect();
    let space = MAX_TAGS.saturating_sub(tags.len());
    if missing.len() > space {
        warn!(left_out = missing.len() - space, "a job takes {MAX_TAGS} tags; some default tags are left out");
    }
    let added = missing.into_iter().take(space);
    tags.extend(added.map(|(key, value)| Tag { tag_key: key.clone(), tag_value: value.clone() }));
    tags
}

fn summary(job: types::DatasetImportJobSummary) -> JobSummary {
    JobSummary {
        name: job.job_name.unwrap_or_default(),
        status: job.status.unwrap_or_default(),
        created: job.creation_date_time.and_then(timestamp),
        updated: job.last_updated_date_time.and_then(timestamp),
        import_mode: job.import_mode.map(|mode| mode.as_str().to_owned()),
    }
}

/// The time; `None` if it is before 1970, because the API server rejects a status with a year before 0.
fn timestamp(at: DateTime) -> Option<Timestamp> {
    let at = Timestamp::new(at.secs(), i32::try_from(at.subsec_nanos()).unwrap_or(0)).ok()?;
    (at >= Timestamp::UNIX_EPOCH).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_tags_take_the_free_places_and_no_taken_key() {
        let tag = |key: &str, value: &str| Tag { tag_key: key.into(), tag_value: value.into() };
        let defaults = BTreeMap::from([("a".to_owned(), "default".to_owned()), ("b".into(), "default".into())]);
        let tags = with_default_tags(vec![tag("a", "own")], &defaults);
        assert_eq!(tags, [tag("a", "own"), tag("b", "default")]);
        let full: Vec<Tag> = (0..MAX_TAGS - 1).map(|i| tag(&format!("k{i}"), "own")).collect();
        let tags = with_default_tags(full.clone(), &defaults);
        assert_eq!((&tags[..full.len()], &tags[full.len()..]), (&full[..], &[tag("a", "default")][..]));
    }
}
