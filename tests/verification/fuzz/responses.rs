//! Any response of the service: it passes through the SDK's parser into whole reconciliations.

use crate::document::document;
use crate::invariants::{ProtocolCheck, now, timing};
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_personalize::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use jiff::Timestamp;
use personalize_operator::accounts::Accounts;
use personalize_operator::api::DatasetImportJob;
use personalize_operator::aws::{Aws as AwsClient, RateLimits};
use personalize_operator::import::{Effect, ImportRequest, LocalState, ObservedJob, Trust};
use personalize_operator::personalize::{Caller, Personalize, Priority};
use personalize_operator::queue::Queue;
use personalize_operator::reconciliation::{Executor, Observation, Reconciliation, drive};
use personalize_operator::testing::{status_applied, status_written, strategies::SECRET};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The responses of the service, one per call: a byte that chooses the status or an error, then the body.
#[derive(Debug, Clone, Default)]
struct Script(Arc<Mutex<VecDeque<Vec<u8>>>>);

/// Between two responses. No JSON text contains this byte.
const SEPARATOR: u8 = 0xff;

impl Script {
    fn write(&self, input: &[u8]) {
        *self.0.lock().unwrap() = input.split(|b| *b == SEPARATOR).take(40).map(<[u8]>::to_vec).collect();
    }
}

impl HttpConnector for Script {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let response = self.0.lock().unwrap().pop_front().unwrap_or_default();
        let operation = request.headers().get("x-amz-target").unwrap_or_default().to_owned();
        let (kind, rest) = response.split_first().unwrap_or((&0, &[]));
        let status = match kind % 16 {
            0 => return HttpConnectorFuture::ready(Err(ConnectorError::timeout("no response in time".into()))),
            1 => return HttpConnectorFuture::ready(Err(ConnectorError::io("reset by peer".into()))),
            2 => 500,
            3 => 503,
            4 => 403,
            5 => 204,
            6 => 301,
            7..=9 => 400,
            _ => 200,
        };
        let template = if status == 200 { template(&operation) } else { error_template() };
        let body = document(&template, rest);
        let response = status.try_into().map(|status| HttpResponse::new(status, body.into()));
        HttpConnectorFuture::ready(response.map_err(|_| ConnectorError::user("not an HTTP status".into())))
    }
}

fn error_template() -> Value {
    json!({ "__type": "ResourceNotFoundException", "message": "no such thing" })
}

fn template(operation: &str) -> Value {
    match operation.trim_start_matches("AmazonPersonalize.") {
        "CreateDatasetImportJob" => {
            json!({ "datasetImportJobArn": "arn:aws:personalize:eu-west-1:123456789012:dataset-import-job/nightly" })
        }
        "DescribeDatasetImportJob" => json!({ "datasetImportJob": {
            "jobName": "nightly",
            "datasetImportJobArn": "arn:aws:personalize:eu-west-1:123456789012:dataset-import-job/nightly",
            "datasetArn": "arn:aws:personalize:eu-west-1:123456789012:dataset/shop/INTERACTIONS",
            "dataSource": { "dataLocation": "s3://bucket/interactions.csv" },
            "roleArn": "arn:aws:iam::123456789012:role/Reader",
            "status": "CREATE IN_PROGRESS",
            "creationDateTime": 1_749_999_000.837,
            "lastUpdatedDateTime": 1_749_999_500.5,
            "failureReason": "Input csv is missing the following columns: [ITEM_ID]",
            "importMode": "FULL",
            "publishAttributionMetricsToS3": false,
        }}),
        "ListTagsForResource" => json!({ "tags": [
            { "tagKey": "personalize-operator.io/namespace", "tagValue": "shop" },
            { "tagKey": "personalize-operator.io/name", "tagValue": "nightly" },
            { "tagKey": "personalize-operator.io/request-hash",
              "tagValue": "8f1ba9c618943263a98667ac7ec11e8409f4546e99cbc271a6f8b5998a34df68" },
        ]}),
        "ListDatasetImportJobs" => json!({ "datasetImportJobs": [
            { "jobName": "earlier", "status": "ACTIVE", "creationDateTime": 1_749_000_000.5,
              "lastUpdatedDateTime": 1_749_001_000.5, "importMode": "FULL" },
        ], "nextToken": "" }),
        "ListDataDeletionJobs" => json!({ "dataDeletionJobs": [
            { "jobName": "erasure", "status": "COMPLETED", "creationDateTime": 1_749_000_000.5 },
        ], "nextToken": "" }),
        _ => json!({ "dataset": { "status": "ACTIVE", "name": "INTERACTIONS" } }),
    }
}

fn client(script: &Script) -> AwsClient {
    let script = script.clone();
    let credentials = Credentials::new("AKIAIOSFODNN7EXAMPLE", SECRET, None, None, "fuzz");
    let base = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(script.clone())))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build();
    let (accounts, calls_per_second, pause_max) = (Accounts::new(HashMap::new(), None), 1e9, Duration::ZERO);
    AwsClient::from_config(base, accounts, RateLimits { calls_per_second, pause_max, ..RateLimits::default() })
}

fn resource() -> DatasetImportJob {
    serde_json::from_value(json!({
        "apiVersion": "personalize-operator.io/v1alpha1",
        "kind": "DatasetImportJob",
        "metadata": { "name": "nightly", "namespace": "shop", "uid": "u", "generation": 1, "resourceVersion": "1",
                      "creationTimestamp": "2025-06-15T00:00:00Z" },
        "spec": {
            "datasetArn": "arn:aws:personalize:eu-west-1:123456789012:dataset/shop/INTERACTIONS",
            "dataSource": { "dataLocation": "s3://bucket/interactions.csv" },
            "roleArn": "arn:aws:iam::123456789012:role/Reader",
            "backoffLimit": 1,
        },
        "status": { "observedGeneration": -1 },
    }))
    .unwrap()
}

/// Reconciles until the script has no more responses, and twice more.
async fn reconcile_all(service: &AwsClient, script: &Script) {
    let (mut resource, mut local) = (resource(), LocalState::default());
    let queue = Mutex::new(Queue::new(5, timing()));
    queue.lock().unwrap().observe(&resource, Trust::Trusted);
    let mut accepted = Vec::new();
    for round in 0.. {
        let is_empty = script.0.lock().unwrap().is_empty();
        let mut reconciliation = Reconciliation::new(resource.clone(), local);
        let request = reconciliation.request().unwrap();
        let protocol = ProtocolCheck::default();
        let mut executor = SdkService { service, request, protocol, now: now(round), accepted: &mut accepted };
        drive(&mut reconciliation, &mut executor, &queue, &timing()).await.expect("the reconciliation finishes");
        resource = reconciliation.resource().clone();
        local = reconciliation.into_local();
        if is_empty && round > 1 || round > 20 {
            break;
        }
    }
    let attempts: BTreeSet<i32> = accepted.iter().copied().collect();
    assert_eq!(attempts.len(), accepted.len(), "no attempt is accepted twice: {accepted:?}");
}

/// Performs effects through the AWS SDK.
struct SdkService<'a> {
    service: &'a AwsClient,
    request: ImportRequest,
    protocol: ProtocolCheck,
    now: Timestamp,
    accepted: &'a mut Vec<i32>,
}

impl Executor for SdkService<'_> {
    type Error = Infallible;

    fn now(&self) -> Timestamp {
        self.now
    }

    fn jitter(&self) -> f64 {
        0.5
    }

    async fn perform(&mut self, reconciliation: &Reconciliation, effect: Effect) -> Result<Observation, Infallible> {
        self.protocol.check(reconciliation, &effect);
        let (service, request) = (self.service, &self.request);
        let (caller, dataset) = (&Caller::default(), &request.dataset);
        Ok(match effect {
            Effect::ReadResource => Observation::Resource(Some(Box::new(reconciliation.resource().clone()))),
            Effect::CheckNamespace => Observation::Namespace(Ok(())),
            Effect::DescribeJob { attempt, with_tags } => {
                let arn = request.job_arn(attempt);
                let job = match service.describe_dataset_import_job(caller, dataset, &arn, Priority::High).await {
                    Ok(job) if with_tags => {
                        let tags = Some(service.list_tags_for_resource(caller, dataset, &arn, Priority::High).await);
                        Ok(ObservedJob { job, tags })
                    }
                    Ok(job) => Ok(ObservedJob { job, tags: None }),
                    Err(error) => Err(error),
                };
                Observation::Job { attempt, job }
            }
            Effect::DescribeDataset => Observation::Dataset(service.describe_dataset(caller, dataset).await),
            Effect::ListJobs => Observation::Jobs(service.list_dataset_import_jobs(caller, dataset).await),
            Effect::ListDataDeletions => {
                Observation::DataDeletions(service.list_data_deletion_jobs(caller, dataset).await)
            }
            Effect::ListTags { job_name } => {
                let tags =
                    service.list_tags_for_resource(caller, dataset, &dataset.job(&job_name), Priority::Normal).await;
                Observation::Tags { job_name, tags }
            }
            Effect::CheckData => Observation::Data(None),
            Effect::ListData => Observation::DataListed(Ok(personalize_operator::api::ImportedData::default())),
            Effect::WriteStatus { status, then } => status_written(reconciliation, *status, then),
            Effect::ApplyStatus => status_applied(reconciliation),
            Effect::CreateJob { attempt } => {
                let answer = match service.permit_create(caller, dataset).await {
                    Ok(permit) => service.create_dataset_import_job(permit, &request.create_input(attempt, None)).await,
                    Err(error) => Err(error),
                };
                let answer = answer.map(drop);
                if answer.is_ok() {
                    self.accepted.push(attempt);
                }
                Observation::Created { attempt, answer }
            }
        })
    }
}

#[test]
fn responses() {
    let script = Script::default();
    let service = client(&script);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let shared = AssertUnwindSafe((&script, &service, &runtime));
    bolero::check!(name = "responses").with_iterations(500).for_each(move |input: &[u8]| {
        let (script, service, runtime) = *shared;
        script.write(input);
        runtime.block_on(reconcile_all(service, script));
    });
}
