//! Reconciliations against a fake API server and service, while the lease expires between two effects.

use super::*;
use crate::api::Tag;
use crate::controller::context::LocalStates;
use crate::controller::events::EventPublisher;
use crate::controller::kube_client::RetryAfter;
use crate::controller::leader_election::LeaseHold;
use crate::controller::namespace_policy::DefaultPolicy;
use crate::http::readiness::Readiness;
use crate::personalize::{ACTIVE, CreateJobInput, Job, JobSummary};
use crate::personalize::{DatasetArn, JobArn};
use crate::queue::Queue;
use crate::telemetry::metrics::Metrics;
use crate::testing::{self, spec, timing};
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::client::Body;
use kube::runtime::events::Reporter;
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use tokio::sync::Semaphore;

/// An API server with this resource, and the list of its requests, such as `PUT /apis/…`.
pub(crate) fn api_server(resource: Value) -> (Client, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (resource, recorded) = (Arc::new(Mutex::new(resource)), Arc::clone(&asked));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (resource, recorded) = (Arc::clone(&resource), Arc::clone(&recorded));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            recorded.lock().unwrap().push(format!("{} {}", head.method, head.uri.path()));
            let mut resource = resource.lock().unwrap();
            let answer = match (head.method.as_str(), head.uri.path()) {
                ("GET", "/api/v1/namespaces/shop") => {
                    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "shop"}})
                }
                ("PUT", _) => {
                    *resource = serde_json::from_slice(&body).unwrap();
                    let version: u64 = resource["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
                    resource["metadata"]["resourceVersion"] = json!((version + 1).to_string());
                    resource.clone()
                }
                ("GET", _) => resource.clone(),
                _ => serde_json::from_slice(&body).unwrap(),
            };
            Ok::<_, kube::Error>(http::Response::new(Body::from(answer.to_string().into_bytes())))
        }
    });
    (Client::new(service, "shop"), asked)
}

/// A service without jobs. The operator's lease expires during the call `last`.
struct Service {
    asked: Mutex<Vec<&'static str>>,
    lease: LeaseHold,
    last: Option<(&'static str, usize)>,
}

impl Service {
    fn asked(&self, operation: &'static str) {
        let mut asked = self.asked.lock().unwrap();
        asked.push(operation);
        let count = asked.iter().filter(|o| **o == operation).count();
        if self.last == Some((operation, count)) {
            self.lease.expire();
        }
    }

    fn creates(&self) -> usize {
        self.asked.lock().unwrap().iter().filter(|o| **o == CREATE).count()
    }
}

const CREATE: &str = "CreateDatasetImportJob";
const DESCRIBE: &str = "DescribeDatasetImportJob";
const LIST: &str = "ListDatasetImportJobs";

fn nothing() -> ServiceError {
    ServiceError::answered("ResourceNotFoundException", "", 400)
}

impl Personalize for Service {
    async fn create_dataset_import_job(&self, input: &CreateJobInput) -> Result<JobArn, ServiceError> {
        self.asked(CREATE);
        Ok(input.dataset.job(&input.job_name))
    }

    async fn describe_dataset_import_job(&self, _: &DatasetArn, _: &JobArn) -> Result<Job, ServiceError> {
        self.asked(DESCRIBE);
        Err(nothing())
    }

    async fn list_tags_for_resource(&self, _: &DatasetArn, _: &JobArn) -> Result<Vec<Tag>, ServiceError> {
        Err(nothing())
    }

    async fn list_dataset_import_jobs(&self, _: &DatasetArn) -> Result<Vec<JobSummary>, ServiceError> {
        self.asked(LIST);
        Ok(Vec::new())
    }

    async fn describe_dataset(&self, _: &DatasetArn) -> Result<String, ServiceError> {
        Ok(ACTIVE.into())
    }
}

fn resource() -> DatasetImportJob {
    let mut resource = testing::resource(spec());
    resource.metadata.creation_timestamp = Some(Time(Timestamp::now()));
    resource
}

/// Reconciles a new resource once. The lease runs out during this call to the service. Returns the result, the number of
/// status writes and the number of create calls.
async fn reconcile(last: Option<(&'static str, usize)>) -> (Result<(), Error>, usize, usize) {
    let resource = resource();
    let (client, asked) = api_server(serde_json::to_value(&resource).unwrap());
    let lease = LeaseHold::until(Instant::now() + Duration::from_secs(3600));
    let service = Arc::new(Service { asked: Mutex::default(), lease: lease.clone(), last });
    let readiness = Arc::new(Readiness::default());
    readiness.set_leading(["shop".to_owned()]);
    readiness.mark_synced("shop");
    let reporter = Reporter { controller: MANAGER.into(), instance: None };
    let context = Context {
        client: client.clone(),
        personalize: Arc::clone(&service),
        timing: timing(),
        default_policy: DefaultPolicy::Allow,
        kube_timeout: Duration::from_secs(60),
        queue: Mutex::new(Queue::new(5, timing())),
        local_states: LocalStates::default(),
        lease,
        stopping: AtomicBool::new(false),
        readiness,
        metrics: Arc::new(Metrics::default()),
        events: EventPublisher::new(client, reporter),
        enqueue: Box::new(|_| {}),
        retry_after: RetryAfter::default(),
        workers: Semaphore::new(1),
    };
    context.observe(&resource);
    let result = context.reconcile(&resource).await.1;
    let writes = asked.lock().unwrap().iter().filter(|call| call.starts_with("PUT ")).count();
    (result, writes, service.creates())
}

#[tokio::test]
async fn leader_submits_a_new_resource() {
    let (result, writes, creates) = reconcile(None).await;
    assert!(result.is_ok(), "{result:?}");
    assert!(writes >= 2, "the intent and the job");
    assert_eq!(creates, 1);
}

#[tokio::test]
async fn lease_that_expires_before_the_intent_stops_the_submission() {
    let (result, writes, creates) = reconcile(Some((LIST, 1))).await;
    assert!(matches!(result, Err(Error::NotLeading)), "{result:?}");
    assert_eq!((writes, creates), (0, 0));
}

#[tokio::test]
async fn lease_that_expires_between_intent_and_create_stops_the_create() {
    let (result, writes, creates) = reconcile(Some((DESCRIBE, 2))).await;
    assert!(matches!(result, Err(Error::NotLeading)), "{result:?}");
    assert_eq!((writes, creates), (1, 0), "the intent is recorded, and nothing is sent");
}
