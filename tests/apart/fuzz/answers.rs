//! The service answers anything: through the SDK's own parsing into whole passes.

use crate::document::document;
use crate::judge::{Protocol, now, policy};
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_personalize::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use personalize_operator::api::DatasetImportJob;
use personalize_operator::aws::Aws;
use personalize_operator::import::plan::{Effect, ObservedJob};
use personalize_operator::personalize::Personalize;
use personalize_operator::queue::Queue;
use personalize_operator::reconciliation::{Reconciliation, Remembered};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

/// What the service will answer, in turn: for each call a byte that says how, and the rest as the body.
#[derive(Debug, Clone, Default)]
struct Script(Arc<Mutex<VecDeque<Vec<u8>>>>);

/// What no JSON text holds.
const SEPARATOR: u8 = 0xff;

impl Script {
    fn write(&self, input: &[u8]) {
        *self.0.lock().unwrap() = input.split(|b| *b == SEPARATOR).take(40).map(<[u8]>::to_vec).collect();
    }
}

impl HttpConnector for Script {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.lock().unwrap().pop_front().unwrap_or_default();
        let operation = request.headers().get("x-amz-target").unwrap_or_default().to_owned();
        let (how, rest) = answer.split_first().unwrap_or((&0, &[]));
        let status = match how % 16 {
            0 => return HttpConnectorFuture::ready(Err(ConnectorError::timeout("no answer in time".into()))),
            1 => return HttpConnectorFuture::ready(Err(ConnectorError::io("reset by peer".into()))),
            2 => 500,
            3 => 503,
            4 => 403,
            5 => 204,
            6 => 301,
            7..=9 => 400,
            _ => 200,
        };
        let template = if status == 200 { template(&operation) } else { refusal() };
        let body = document(&template, rest);
        let answer = status.try_into().map(|status| HttpResponse::new(status, body.into()));
        HttpConnectorFuture::ready(answer.map_err(|_| ConnectorError::user("not an HTTP status".into())))
    }
}

fn refusal() -> Value {
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
        _ => json!({ "dataset": { "status": "ACTIVE", "name": "INTERACTIONS" } }),
    }
}

fn client(script: &Script) -> Aws {
    let script = script.clone();
    let credentials = Credentials::new("AKIAIOSFODNN7EXAMPLE", crate::document::SECRET, None, None, "fuzz");
    let base = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(script.clone())))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build();
    Aws::from_config(base, HashMap::new())
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

/// Takes passes until the script has been read, and two more.
async fn life(service: &Aws, script: &Script) {
    let (mut job, mut remembered, mut queue) = (resource(), Remembered::default(), Queue::new(5, policy()));
    let mut accepted = Vec::new();
    queue.observe(&job, true);
    for round in 0.. {
        let last = script.0.lock().unwrap().is_empty();
        let mut pass = Reconciliation::new(job.clone(), remembered);
        one(service, &mut pass, &mut queue, now(round), &mut accepted).await;
        job = pass.job().clone();
        remembered = pass.end();
        if last && round > 1 || round > 20 {
            break;
        }
    }
    let attempts: std::collections::BTreeSet<i32> = accepted.iter().copied().collect();
    assert_eq!(attempts.len(), accepted.len(), "no attempt is accepted twice: {accepted:?}");
}

async fn one(
    service: &Aws,
    pass: &mut Reconciliation,
    queue: &mut Queue,
    now: jiff::Timestamp,
    accepted: &mut Vec<i32>,
) {
    let request = pass.request().unwrap();
    let mut protocol = Protocol::default();
    for _ in 0..1000 {
        let step = pass.next(now, &policy());
        protocol.step(pass, &step);
        match step {
            Effect::Refresh => assert!(pass.refreshed(Some(pass.job().clone()), queue)),
            Effect::AskPermission => pass.permitted(Ok(())),
            Effect::TakeTurn => pass.turned(queue.try_admit("u", now)),
            Effect::DescribeJob { attempt, prove } => {
                let arn = request.job_arn(attempt);
                let found = match service.describe_dataset_import_job(&request.dataset, &arn).await {
                    Ok(job) => {
                        let tags = if prove {
                            Some(service.list_tags_for_resource(&request.dataset, &arn).await)
                        } else {
                            None
                        };
                        Ok(ObservedJob { job, tags })
                    }
                    Err(failure) => Err(failure),
                };
                pass.looked_up(attempt, found, now);
            }
            Effect::DescribeDataset => pass.saw_dataset(service.describe_dataset(&request.dataset).await),
            Effect::ListJobs => pass.saw_jobs(service.list_dataset_import_jobs(&request.dataset).await, queue),
            Effect::ReadAge { job_name } => {
                let tags = service.list_tags_for_resource(&request.dataset, &request.dataset.job(&job_name)).await;
                pass.saw_age(job_name, tags);
            }
            Effect::RecordIntent(status) => {
                let attempt = status.submission.as_ref().unwrap().attempt;
                write(pass, *status, Some(attempt), queue);
            }
            Effect::Create { attempt } => {
                let answer = service.create_dataset_import_job(&request, &request.job_name(attempt)).await.map(drop);
                if answer.is_ok() {
                    accepted.push(attempt);
                }
                pass.created(attempt, answer, queue);
            }
            Effect::Outcome(rest) => {
                if let Some(status) = rest.status {
                    write(pass, *status, None, queue);
                }
                pass.rested(rest.again, now, &policy(), 0.5);
                if rest.verified {
                    pass.verified(queue);
                }
                pass.leave_queue(rest.refusal, now, &policy(), 0.5, queue);
                return;
            }
        }
    }
    panic!("the pass does not come to rest");
}

fn write(
    pass: &mut Reconciliation,
    status: personalize_operator::api::DatasetImportJobStatus,
    intent: Option<i32>,
    queue: &mut Queue,
) {
    let mut written = pass.with_status(status);
    let version = personalize_operator::queue::version(&written) + 1;
    written.metadata.resource_version = Some(version.to_string());
    pass.recorded(written, intent, queue);
}

#[test]
fn answers() {
    let script = Script::default();
    let service = client(&script);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let shared = AssertUnwindSafe((&script, &service, &runtime));
    bolero::check!(name = "answers").with_iterations(500).for_each(move |input: &[u8]| {
        let (script, service, runtime) = *shared;
        script.write(input);
        runtime.block_on(life(service, script));
    });
}
