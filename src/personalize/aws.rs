//! The adapter to the AWS SDK: one client per account and region, one attempt per call, and errors
//! mapped once.

use super::{Class, Failure, Job, JobSummary, Personalize};
use crate::api::Tag;
use crate::arn::{DatasetArn, JobArn, Location};
use crate::identity::Request;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_personalize::Client;
use aws_sdk_personalize::config::retry::RetryConfig;
use aws_sdk_personalize::config::timeout::TimeoutConfig;
use aws_sdk_personalize::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_personalize::operation::create_dataset_import_job::CreateDatasetImportJobOutput;
use aws_sdk_personalize::types;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::sync::Mutex;

/// The most pages of a listing that are read: 100 jobs each.
const MOST_PAGES: usize = 200;

/// How the adapter reaches the service.
#[derive(Debug, Clone)]
pub struct AwsOptions {
    /// The bound on connecting.
    pub connect_timeout: Duration,
    /// The bound on waiting for the answer's first byte.
    pub read_timeout: Duration,
    /// The bound on the whole call.
    pub operation_timeout: Duration,
    /// The role to assume for each account that the default credentials don't belong to.
    pub roles: HashMap<String, String>,
}

/// Amazon Personalize by the AWS SDK.
#[derive(Debug)]
pub struct Aws {
    base: SdkConfig,
    roles: HashMap<String, String>,
    clients: Mutex<HashMap<Location, Client>>,
}

impl Aws {
    /// Settings come from the SDK's default chain.
    pub async fn new(options: AwsOptions) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.read_timeout)
            .operation_timeout(options.operation_timeout)
            .build();
        let base = aws_config::defaults(BehaviorVersion::latest())
            // The SDK would retry a create whose answer was lost, and meet its own job.
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .load()
            .await;
        Self { base, roles: options.roles, clients: Mutex::default() }
    }

    async fn client(&self, location: &Location) -> Client {
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(location) {
            return client.clone();
        }
        let region = Region::new(location.region.clone());
        let mut config = aws_sdk_personalize::config::Builder::from(&self.base).region(region.clone());
        if let Some(role) = self.roles.get(&location.account) {
            let provider = AssumeRoleProvider::builder(role)
                .configure(&self.base)
                .region(region)
                .session_name("personalize-operator")
                .build()
                .await;
            config = config.credentials_provider(provider);
        }
        let client = Client::from_conf(config.build());
        clients.insert(location.clone(), client.clone());
        client
    }
}

impl Personalize for Aws {
    async fn create(&self, request: &Request, job_name: &str) -> Result<JobArn, Failure> {
        let client = self.client(request.dataset.location()).await;
        let mut call = client
            .create_dataset_import_job()
            .job_name(job_name)
            .dataset_arn(request.dataset.as_str())
            .data_source(types::DataSource::builder().data_location(&request.data_location).build())
            .role_arn(&request.role_arn)
            .import_mode(request.import_mode.as_str().into())
            .set_publish_attribution_metrics_to_s3(request.publish_attribution_metrics_to_s3);
        for Tag { tag_key, tag_value } in request.tags.iter().chain(&request.ownership_tags()) {
            let tag = types::Tag::builder().tag_key(tag_key).tag_value(tag_value).build();
            call = call.tags(tag.map_err(|e| Failure::unanswered(Class::InvalidInput, "InvalidTag", &e.to_string()))?);
        }
        let CreateDatasetImportJobOutput { dataset_import_job_arn, .. } = call.send().await.map_err(|e| failure(&e))?;
        // A success that names no job is no proof of one.
        let missing =
            || Failure::unanswered(Class::InDoubt, "NoJobArn", "the service answered without the ARN of a job");
        dataset_import_job_arn.map(JobArn).ok_or_else(missing)
    }

    async fn job(&self, dataset: &DatasetArn, job: &JobArn) -> Result<Job, Failure> {
        let client = self.client(dataset.location()).await;
        let answer = client.describe_dataset_import_job().dataset_import_job_arn(&job.0).send().await;
        let job = answer.map_err(|e| failure(&e))?.dataset_import_job.ok_or_else(unreadable)?;
        Ok(Job {
            name: job.job_name.ok_or_else(unreadable)?,
            dataset: job.dataset_arn.ok_or_else(unreadable)?,
            data_location: job.data_source.and_then(|s| s.data_location).unwrap_or_default(),
            role_arn: job.role_arn.unwrap_or_default(),
            import_mode: job.import_mode.map(|m| m.as_str().to_owned()),
            publish_attribution_metrics_to_s3: job.publish_attribution_metrics_to_s3,
            status: job.status.ok_or_else(unreadable)?,
            failure_reason: job.failure_reason,
            created: job.creation_date_time.and_then(timestamp),
            updated: job.last_updated_date_time.and_then(timestamp),
        })
    }

    async fn tags(&self, dataset: &DatasetArn, job: &JobArn) -> Result<Vec<Tag>, Failure> {
        let client = self.client(dataset.location()).await;
        let answer = client.list_tags_for_resource().resource_arn(&job.0).send().await.map_err(|e| failure(&e))?;
        let tags = answer.tags.unwrap_or_default();
        Ok(tags.into_iter().map(|t| Tag { tag_key: t.tag_key, tag_value: t.tag_value }).collect())
    }

    async fn jobs(&self, dataset: &DatasetArn) -> Result<Vec<JobSummary>, Failure> {
        let client = self.client(dataset.location()).await;
        let mut jobs = Vec::new();
        let mut token: Option<String> = None;
        let mut tokens = HashSet::new();
        for _ in 0..MOST_PAGES {
            let page = client
                .list_dataset_import_jobs()
                .dataset_arn(dataset.as_str())
                .max_results(100)
                .set_next_token(token.take())
                .send()
                .await
                .map_err(|e| failure(&e))?;
            jobs.extend(page.dataset_import_jobs.unwrap_or_default().into_iter().map(|job| JobSummary {
                name: job.job_name.unwrap_or_default(),
                status: job.status.unwrap_or_default(),
                created: job.creation_date_time.and_then(timestamp),
                updated: job.last_updated_date_time.and_then(timestamp),
            }));
            let Some(next) = page.next_token.filter(|t| !t.is_empty()) else {
                return Ok(jobs);
            };
            if !tokens.insert(next.clone()) {
                break;
            }
            token = Some(next);
        }
        Err(Failure::unanswered(Class::InDoubt, "EndlessListing", "the listing of the dataset's jobs does not end"))
    }

    async fn dataset_status(&self, dataset: &DatasetArn) -> Result<String, Failure> {
        let client = self.client(dataset.location()).await;
        let answer = client.describe_dataset().dataset_arn(dataset.as_str()).send().await;
        answer.map_err(|e| failure(&e))?.dataset.and_then(|d| d.status).ok_or_else(unreadable)
    }
}

fn unreadable() -> Failure {
    Failure::unanswered(Class::InDoubt, "UnreadableAnswer", "the service's answer lacks what it must have")
}

fn timestamp(at: aws_sdk_personalize::primitives::DateTime) -> Option<Timestamp> {
    Timestamp::new(at.secs(), i32::try_from(at.subsec_nanos()).unwrap_or(0)).ok()
}

fn failure<E>(error: &SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let told = DisplayErrorContext(error).to_string();
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let (code, message) = (answer.err().code(), answer.err().message().unwrap_or_default());
            match code {
                Some(code) => Failure::answered(code, message, status),
                // Without a code there is no telling who answered, and what it means.
                None => Failure::unanswered(Class::InDoubt, "UnreadableAnswer", &format!("HTTP status {status}")),
            }
        }
        // Nothing was sent: the request could not even be built or signed.
        SdkError::ConstructionFailure(_) => construction(&told),
        SdkError::TimeoutError(_) => Failure::unanswered(Class::InDoubt, "Timeout", &told),
        SdkError::ResponseError(_) => Failure::unanswered(Class::InDoubt, "UnreadableAnswer", &told),
        SdkError::DispatchFailure(failure) => {
            // The SDK counts a missing or failing credentials provider among these.
            if told.to_ascii_lowercase().contains("credential") || told.contains("identity") {
                return Failure::unanswered(Class::Credentials, "NoCredentials", &told);
            }
            let code = if failure.is_timeout() { "ConnectTimeout" } else { "NoConnection" };
            Failure::unanswered(Class::InDoubt, code, &told)
        }
        _ => Failure::unanswered(Class::InDoubt, "Unknown", &told),
    }
}

fn construction(told: &str) -> Failure {
    if told.contains("credential") || told.contains("identity") {
        Failure::unanswered(Class::Credentials, "NoCredentials", told)
    } else {
        Failure::unanswered(Class::InvalidInput, "UnsendableRequest", told)
    }
}
