//! The adapter to the AWS SDK: one client per account and region, one attempt per call, and errors
//! mapped once.

use crate::api::Tag;
use crate::import::request::ImportRequest;
use crate::personalize::{AccountRegion, DatasetArn, JobArn};
use crate::personalize::{ErrorKind, Job, JobSummary, Personalize, ROLE_NOT_ASSUMED, ServiceError};
use crate::redact;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_personalize::Client;
use aws_sdk_personalize::config::ProvideCredentials;
use aws_sdk_personalize::config::retry::RetryConfig;
use aws_sdk_personalize::config::timeout::TimeoutConfig;
use aws_sdk_personalize::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_personalize::operation::create_dataset_import_job::CreateDatasetImportJobOutput;
use aws_sdk_personalize::types;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// The most pages of a listing that are read: 100 jobs each.
const MOST_PAGES: usize = 1000;

/// The longest that a listing may take.
const LONGEST_LISTING: Duration = Duration::from_secs(120);

/// The most accounts and regions for which a client is kept: users name them.
const MOST_CLIENTS: usize = 1000;

/// The bound on looking for credentials, where the configuration has none.
const PATIENCE: Duration = Duration::from_secs(30);

/// The name of the operator's sessions in an assumed role, as CloudTrail tells it.
const SESSION: &str = "personalize-operator";

/// The code of a call that could not be signed.
const NO_CREDENTIALS: &str = "NoCredentials";

/// Why STS refuses, as far as it is fit to be told.
const STS_CODES: [&str; 8] = [
    "AccessDenied",
    "ExpiredToken",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "RegionDisabledException",
    "MalformedPolicyDocument",
    "ValidationError",
    "Throttling",
];

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
    clients: Mutex<HashMap<AccountRegion, Client>>,
    own_account: OnceLock<String>,
    /// The bound on looking for credentials that no call has asked for.
    patience: Duration,
}

impl Aws {
    /// Settings come from the SDK's default chain.
    pub async fn new(options: AwsOptions) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.read_timeout)
            .operation_timeout(options.operation_timeout)
            .build();
        // Each call has the region of its dataset. Only signing in may need another, and who sets that up names it, as
        // EKS does. Without a last word here the SDK would ask the machine's metadata service, for seconds where nobody
        // answers.
        let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else(Region::from_static("us-east-1"));
        let base = aws_config::defaults(BehaviorVersion::latest())
            .region(region)
            // The SDK would retry a create whose answer was lost, and meet its own job.
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .load()
            .await;
        Self::from_config(base, options.roles)
    }

    /// Settings as they are given; retries must be disabled in them. `roles` as in [`AwsOptions`].
    #[must_use]
    pub fn from_config(base: SdkConfig, roles: HashMap<String, String>) -> Self {
        let patience = base.timeout_config().and_then(TimeoutConfig::operation_timeout).unwrap_or(PATIENCE);
        Self { base, roles, clients: Mutex::default(), own_account: OnceLock::new(), patience }
    }

    async fn client(&self, location: &AccountRegion) -> Result<Client, ServiceError> {
        if let Some(client) = self.clients().get(location) {
            return Ok(client.clone());
        }
        // Nothing is locked while credentials are looked for: a slow source of theirs holds up no other account.
        let region = Region::new(location.region.clone());
        let mut config = aws_sdk_personalize::config::Builder::from(&self.base).region(region.clone());
        if let Some(role) = self.roles.get(&location.account) {
            let provider = AssumeRoleProvider::builder(role)
                .configure(&self.base)
                .region(region)
                .session_name(SESSION)
                .build()
                .await;
            config = config.credentials_provider(provider);
        } else if let Some(own) = self.own_account().await.filter(|own| *own != location.account) {
            // The service has no access across accounts, so there is nothing to ask.
            return Err(ServiceError::unanswered(
                ErrorKind::AccessDenied,
                "NoRoleForAccount",
                &format!("the operator's credentials are of account {own}: {}", no_role(&location.account)),
            ));
        }
        let client = Client::from_conf(config.build());
        let mut clients = self.clients();
        if clients.len() >= MOST_CLIENTS {
            // They are made anew when they are needed.
            clients.clear();
        }
        Ok(clients.entry(location.clone()).or_insert(client).clone())
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<AccountRegion, Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The account of the default credentials, where they tell it within the bound on a call. It is asked for until it
    /// is known.
    async fn own_account(&self) -> Option<String> {
        if let Some(known) = self.own_account.get() {
            return Some(known.clone());
        }
        let provider = self.base.credentials_provider()?;
        let credentials = timeout(self.patience, provider.provide_credentials()).await.ok()?.ok()?;
        let account = credentials.account_id()?.as_str();
        Some(self.own_account.get_or_init(|| account.to_owned()).clone())
    }

    /// What went wrong, and what it has to do with the credentials for that account.
    fn failure<E>(&self, location: &AccountRegion, error: &SdkError<E, HttpResponse>) -> ServiceError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let failure = failure(error);
        match (self.roles.get(&location.account), failure.kind) {
            (Some(role), ErrorKind::Credentials) if failure.code == NO_CREDENTIALS => {
                let told = DisplayErrorContext(error).to_string();
                let why = STS_CODES.iter().find(|code| told.contains(**code)).unwrap_or(&"no readable answer");
                let message = format!("the role {role} for account {} can't be assumed ({why})", location.account);
                ServiceError::unanswered(ErrorKind::Credentials, ROLE_NOT_ASSUMED, &message)
            }
            (None, ErrorKind::AccessDenied) if self.own_account.get() != Some(&location.account) => {
                let message = format!("{} ({})", failure.message, no_role(&location.account));
                ServiceError { message, ..failure }
            }
            _ => failure,
        }
    }
}

fn no_role(account: &str) -> String {
    format!(
        "no role is configured for account {account}; if it is not the operator's own, add one with --account-roles"
    )
}

impl Personalize for Aws {
    async fn create_dataset_import_job(&self, request: &ImportRequest, job_name: &str) -> Result<JobArn, ServiceError> {
        let client = self.client(request.dataset.location()).await?;
        let mut call = client
            .create_dataset_import_job()
            .job_name(job_name)
            .dataset_arn(request.dataset.as_str())
            .data_source(types::DataSource::builder().data_location(&request.data_location).build())
            .role_arn(&request.role_arn)
            .import_mode(request.import_mode.as_str().into())
            .set_publish_attribution_metrics_to_s3(request.publish_attribution_metrics_to_s3);
        for Tag { tag_key, tag_value } in request.tags.iter().chain(&request.own_tags()) {
            let tag = types::Tag::builder().tag_key(tag_key).tag_value(tag_value).build();
            call = call.tags(
                tag.map_err(|e| ServiceError::unanswered(ErrorKind::InvalidInput, "InvalidTag", &e.to_string()))?,
            );
        }
        let CreateDatasetImportJobOutput { dataset_import_job_arn, .. } =
            call.send().await.map_err(|e| self.failure(request.dataset.location(), &e))?;
        // A success that names no job is no proof of one.
        let missing = || {
            ServiceError::unanswered(
                ErrorKind::Indeterminate,
                "NoJobArn",
                "the service answered without the ARN of a job",
            )
        };
        dataset_import_job_arn.map(JobArn).ok_or_else(missing)
    }

    async fn describe_dataset_import_job(&self, dataset: &DatasetArn, job: &JobArn) -> Result<Job, ServiceError> {
        let client = self.client(dataset.location()).await?;
        let answer = client.describe_dataset_import_job().dataset_import_job_arn(&job.0).send().await;
        let job =
            answer.map_err(|e| self.failure(dataset.location(), &e))?.dataset_import_job.ok_or_else(unreadable)?;
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

    async fn list_tags_for_resource(&self, dataset: &DatasetArn, job: &JobArn) -> Result<Vec<Tag>, ServiceError> {
        let client = self.client(dataset.location()).await?;
        let answer = client
            .list_tags_for_resource()
            .resource_arn(&job.0)
            .send()
            .await
            .map_err(|e| self.failure(dataset.location(), &e))?;
        let tags = answer.tags.unwrap_or_default();
        Ok(tags.into_iter().map(|t| Tag { tag_key: t.tag_key, tag_value: t.tag_value }).collect())
    }

    async fn list_dataset_import_jobs(&self, dataset: &DatasetArn) -> Result<Vec<JobSummary>, ServiceError> {
        let late = |_| Err(endless(&format!("{} s", LONGEST_LISTING.as_secs())));
        timeout(LONGEST_LISTING, self.all_jobs(dataset)).await.unwrap_or_else(late)
    }

    async fn describe_dataset(&self, dataset: &DatasetArn) -> Result<String, ServiceError> {
        let client = self.client(dataset.location()).await?;
        let answer = client.describe_dataset().dataset_arn(dataset.as_str()).send().await;
        answer.map_err(|e| self.failure(dataset.location(), &e))?.dataset.and_then(|d| d.status).ok_or_else(unreadable)
    }
}

impl Aws {
    async fn all_jobs(&self, dataset: &DatasetArn) -> Result<Vec<JobSummary>, ServiceError> {
        let client = self.client(dataset.location()).await?;
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
                .map_err(|e| self.failure(dataset.location(), &e))?;
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
        Err(endless(&format!("{} jobs", MOST_PAGES * 100)))
    }
}

fn endless(bound: &str) -> ServiceError {
    let message = format!("the listing of the dataset's jobs does not end within {bound}");
    ServiceError::unanswered(ErrorKind::Indeterminate, "EndlessListing", &message)
}

fn unreadable() -> ServiceError {
    ServiceError::unanswered(
        ErrorKind::Indeterminate,
        "UnreadableAnswer",
        "the service's answer lacks what it must have",
    )
}

/// Nothing for a time that no job can have: the API server takes no year before 0, and a status that it
/// does not take would never be recorded.
fn timestamp(at: aws_sdk_personalize::primitives::DateTime) -> Option<Timestamp> {
    let at = Timestamp::new(at.secs(), i32::try_from(at.subsec_nanos()).unwrap_or(0)).ok()?;
    (at >= Timestamp::UNIX_EPOCH).then_some(at)
}

fn failure<E>(error: &SdkError<E, HttpResponse>) -> ServiceError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let told = redact::sanitize_display(&DisplayErrorContext(error));
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let (code, message) = (answer.err().code(), answer.err().message().unwrap_or_default());
            match code {
                Some(code) => ServiceError::answered(code, message, status),
                // Without a code there is no telling who answered, and what it means.
                None => ServiceError::unanswered(
                    ErrorKind::Indeterminate,
                    "UnreadableAnswer",
                    &format!("HTTP status {status}"),
                ),
            }
        }
        // Nothing was sent: the request could not even be built or signed.
        SdkError::ConstructionFailure(_) => construction(&told),
        SdkError::TimeoutError(_) => ServiceError::unanswered(ErrorKind::Indeterminate, "Timeout", &told),
        SdkError::ResponseError(_) => ServiceError::unanswered(ErrorKind::Indeterminate, "UnreadableAnswer", &told),
        SdkError::DispatchFailure(failure) => {
            // The SDK counts a missing or failing credentials provider among these.
            if told.to_ascii_lowercase().contains("credential") || told.contains("identity") {
                return ServiceError::unanswered(ErrorKind::Credentials, NO_CREDENTIALS, &told);
            }
            let code = if failure.is_timeout() { "ConnectTimeout" } else { "NoConnection" };
            ServiceError::unanswered(ErrorKind::Indeterminate, code, &told)
        }
        _ => ServiceError::unanswered(ErrorKind::Indeterminate, "Unknown", &told),
    }
}

fn construction(told: &str) -> ServiceError {
    if told.contains("credential") || told.contains("identity") {
        ServiceError::unanswered(ErrorKind::Credentials, NO_CREDENTIALS, told)
    } else {
        ServiceError::unanswered(ErrorKind::InvalidInput, "UnsendableRequest", told)
    }
}
