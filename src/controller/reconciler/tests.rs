//! Passes against a pretended API server and service, while the lease runs out between two steps.

use super::*;
use crate::api::Tag;
use crate::import::request::ImportRequest;
use crate::import::request::tests::spec;
use crate::import::timing::tests::policy;
use crate::personalize::{ACTIVE, Job, JobSummary};
use crate::personalize::{DatasetArn, JobArn};
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::client::Body;
use kube::runtime::events::Reporter;
use serde_json::{Value, json};

/// An API server that holds this resource, and the list of what it was asked for: `PUT /apis/…`.
pub(crate) fn api_server(resource: Value) -> (Client, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (resource, told) = (Arc::new(Mutex::new(resource)), Arc::clone(&asked));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (resource, told) = (Arc::clone(&resource), Arc::clone(&told));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            told.lock().unwrap().push(format!("{} {}", head.method, head.uri.path()));
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

/// A service that has no job, and whose lease-holder's lease runs out while this call is answered.
struct Service {
    asked: Mutex<Vec<&'static str>>,
    leadership: LeaseHold,
    last: Option<(&'static str, usize)>,
}

impl Service {
    fn asked(&self, operation: &'static str) {
        let mut asked = self.asked.lock().unwrap();
        asked.push(operation);
        let count = asked.iter().filter(|o| **o == operation).count();
        if self.last == Some((operation, count)) {
            self.leadership.run_out();
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
    async fn create_dataset_import_job(&self, request: &ImportRequest, job_name: &str) -> Result<JobArn, ServiceError> {
        self.asked(CREATE);
        Ok(request.dataset.job(job_name))
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
    let mut job = DatasetImportJob::new("nightly", spec());
    job.metadata.namespace = Some("shop".into());
    job.metadata.uid = Some("uid".into());
    job.metadata.generation = Some(1);
    job.metadata.resource_version = Some("1".into());
    job.metadata.creation_timestamp = Some(Time(Timestamp::now()));
    job.status = Some(DatasetImportJobStatus { observed_generation: Some(-1), ..DatasetImportJobStatus::default() });
    job
}

/// One pass over a new resource. The lease runs out during this call to the service. Tells how the pass ended, how
/// often the status was written, and how often create was called.
async fn pass(last: Option<(&'static str, usize)>) -> (Result<(), Error>, usize, usize) {
    let job = resource();
    let (client, asked) = api_server(serde_json::to_value(&job).unwrap());
    let leadership = LeaseHold::until(std::time::Instant::now() + Duration::from_secs(3600));
    let service = Arc::new(Service { asked: Mutex::default(), leadership: leadership.clone(), last });
    let health = Arc::new(Readiness::default());
    health.set_leading(["shop".to_owned()]);
    health.mark_synced("shop");
    let reporter = Reporter { controller: MANAGER.into(), instance: None };
    let operator = Context {
        client: client.clone(),
        personalize: Arc::clone(&service),
        policy: policy(),
        unlisted: DefaultPolicy::Allow,
        kube_timeout: Duration::from_secs(60),
        queue: Mutex::new(Queue::new(5, policy())),
        memories: Memories::default(),
        leadership,
        stopping: AtomicBool::new(false),
        health,
        metrics: Arc::new(Metrics::default()),
        recorder: EventPublisher::new(client, reporter),
        wake: Box::new(|_| {}),
        pause: RetryAfter::default(),
        workers: Semaphore::new(1),
    };
    operator.queue().observe(&job, true);
    let outcome = operator.pass(&job).await.1;
    let writes = asked.lock().unwrap().iter().filter(|call| call.starts_with("PUT ")).count();
    (outcome, writes, service.creates())
}

#[tokio::test]
async fn a_replica_that_leads_submits() {
    let (outcome, writes, creates) = pass(None).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert!(writes >= 2, "the intent and the job");
    assert_eq!(creates, 1);
}

#[tokio::test]
async fn a_lease_that_runs_out_before_the_intent_stops_the_intent() {
    let (outcome, writes, creates) = pass(Some((LIST, 1))).await;
    assert!(matches!(outcome, Err(Error::NotLeading)), "{outcome:?}");
    assert_eq!((writes, creates), (0, 0));
}

#[tokio::test]
async fn a_lease_that_runs_out_between_intent_and_create_stops_the_create() {
    let (outcome, writes, creates) = pass(Some((DESCRIBE, 2))).await;
    assert!(matches!(outcome, Err(Error::NotLeading)), "{outcome:?}");
    assert_eq!((writes, creates), (1, 0), "the intent was recorded, and nothing was sent");
}
