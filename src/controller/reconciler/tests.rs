//! Reconciliations against a fake API server and service; the lease expires between two effects.

mod access;
mod deleted;

use super::executor::CREATE;
use super::*;
use crate::accounts::Accounts;
use crate::api::{Preflight, Submission, Tag};
use crate::controller::clock::Clock;
use crate::controller::context::LocalStates;
use crate::controller::data_check::DataChecks;
use crate::controller::events::EventPublisher;
use crate::controller::fake_api_server::fake_api_server;
use crate::controller::kube_client::RetryAfter;
use crate::controller::leader_election::{LeaseHold, Takeover};
use crate::controller::namespace_policy::DefaultPolicy;
use crate::controller::namespaces::Namespaces;
use crate::controller::shared_polls::SharedPolls;
use crate::controller::workers::Workers;
use crate::http::readiness::Readiness;
use crate::import::{Admission, DataCheck, ImportRequest, Key, MANAGER};
use crate::personalize::{
    CreateJobInput, DataDeletion, Dataset, DatasetArn, DatasetSchema, ErrorKind, Job, JobArn, JobSummary, Priority,
    ServiceError,
};
use crate::preflight::{Object, Page, Piece, Report};
use crate::queue::Queue;
use crate::telemetry::metrics::Metrics;
use crate::testing::{self, spec, timing};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::events::Reporter;
use kube::runtime::watcher::Event;
use serde_json::json;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use tokio::time::sleep;

/// A service without jobs. The operator's lease expires during the nth call of an operation.
struct Service {
    calls: Mutex<Vec<&'static str>>,
    /// Under which roles jobs are described.
    roles: Mutex<Vec<CallerRole>>,
    lease: LeaseHold,
    lease_expires_during: Option<(&'static str, usize)>,
    /// How long a create waits for its permit.
    permit_wait: Duration,
    /// Why a job can't be described.
    describe_error: ServiceError,
    /// Why a dataset can't be described.
    dataset_error: Mutex<Option<ServiceError>>,
    /// The schemas that DescribeSchema returns, one after the other.
    schemas: Mutex<Vec<String>>,
    /// The data of every location.
    data: &'static str,
    /// How long a read of the data takes.
    read_time: Duration,
    /// The reads at this moment, and the most of them.
    reads: Mutex<(usize, usize)>,
}

impl Service {
    fn called(&self, operation: &'static str) {
        let mut calls = self.calls.lock().unwrap();
        calls.push(operation);
        let count = calls.iter().filter(|o| **o == operation).count();
        if self.lease_expires_during == Some((operation, count)) {
            self.lease.expire();
        }
    }

    fn creates(&self) -> usize {
        self.count(CREATE)
    }

    fn count(&self, operation: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|o| **o == operation).count()
    }
}

const DESCRIBE: &str = "DescribeDatasetImportJob";
const DESCRIBE_DATASET: &str = "DescribeDataset";
const PERMIT: &str = "the permit of a create";
const LIST: &str = "ListDatasetImportJobs";

fn not_found() -> ServiceError {
    ServiceError::answered("ResourceNotFoundException", "", 400)
}

impl Personalize for Service {
    type Permit = ();

    async fn permit_create(&self, _: &Caller, _: &DatasetArn) -> Result<(), ServiceError> {
        sleep(self.permit_wait).await;
        self.called(PERMIT);
        Ok(())
    }

    async fn create_dataset_import_job(&self, (): (), input: &CreateJobInput) -> Result<JobArn, ServiceError> {
        self.called(CREATE);
        Ok(input.dataset.job(&input.job_name))
    }

    async fn describe_dataset_import_job(
        &self,
        caller: &Caller,
        _: &DatasetArn,
        _: &JobArn,
        _: Priority,
    ) -> Result<Job, ServiceError> {
        self.called(DESCRIBE);
        self.roles.lock().unwrap().push(caller.role.clone());
        Err(self.describe_error.clone())
    }

    async fn list_tags_for_resource(
        &self,
        _: &Caller,
        _: &DatasetArn,
        _: &JobArn,
        _: Priority,
    ) -> Result<Vec<Tag>, ServiceError> {
        Err(not_found())
    }

    async fn list_dataset_import_jobs(&self, _: &Caller, _: &DatasetArn) -> Result<Vec<JobSummary>, ServiceError> {
        self.called(LIST);
        Ok(Vec::new())
    }

    async fn list_data_deletion_jobs(&self, _: &Caller, _: &DatasetArn) -> Result<Vec<DataDeletion>, ServiceError> {
        Ok(Vec::new())
    }

    async fn describe_dataset(&self, _: &Caller, _: &DatasetArn) -> Result<Dataset, ServiceError> {
        self.called(DESCRIBE_DATASET);
        sleep(self.read_time).await;
        self.dataset_error.lock().unwrap().clone().map_or_else(|| Ok(testing::active_dataset()), Err)
    }

    async fn describe_schema(&self, _: &Caller, _: &DatasetArn, _: &str) -> Result<DatasetSchema, ServiceError> {
        Ok(DatasetSchema { json: self.schemas.lock().unwrap().remove(0), domain: None })
    }

    async fn list_objects(
        &self,
        _: &Caller,
        _: &DatasetArn,
        _: &str,
        key: &str,
        _: Option<&str>,
    ) -> Result<Page, ServiceError> {
        let object = Object { key: key.into(), size: self.data.len() as u64, etag: "1".into() };
        Ok(Page { objects: vec![object], ..Page::default() })
    }

    async fn get_object(
        &self,
        _: &Caller,
        _: &DatasetArn,
        _: &str,
        _: &Object,
        _: Range<u64>,
    ) -> Result<Piece, ServiceError> {
        {
            let (now, most) = &mut *self.reads.lock().unwrap();
            *now += 1;
            *most = *now.max(most);
        }
        sleep(self.read_time).await;
        self.reads.lock().unwrap().0 -= 1;
        Ok(Piece { bytes: self.data.into(), kms: false })
    }
}

fn resource() -> DatasetImportJob {
    let mut resource = testing::resource(spec());
    resource.metadata.creation_timestamp = Some(Time(Timestamp::now()));
    resource
}

/// A service that answers at once.
fn service(lease: LeaseHold) -> Service {
    Service {
        calls: Mutex::default(),
        roles: Mutex::default(),
        lease,
        lease_expires_during: None,
        permit_wait: Duration::ZERO,
        describe_error: not_found(),
        dataset_error: Mutex::default(),
        schemas: Mutex::default(),
        data: "",
        read_time: Duration::ZERO,
        reads: Mutex::default(),
    }
}

/// A context of a leader that watches the namespace `shop`, and the requests to its API server.
fn context(service: Service, lease: LeaseHold) -> (Context<Service>, Arc<Mutex<Vec<String>>>) {
    context_with(Arc::new(service), lease, serde_json::to_value(resource()).unwrap())
}

/// Like [`context`]; the API server has this object, or none if it is null.
fn context_with(
    service: Arc<Service>,
    lease: LeaseHold,
    object: serde_json::Value,
) -> (Context<Service>, Arc<Mutex<Vec<String>>>) {
    let (client, requests) = fake_api_server(object);
    let readiness = Arc::new(Readiness::default());
    readiness.set_leading(["shop".to_owned()]);
    readiness.mark_synced("shop");
    let reporter = Reporter { controller: MANAGER.into(), instance: None };
    let context = Context {
        clock: Clock::start(),
        client: client.clone(),
        personalize: service,
        timing: timing(),
        default_policy: DefaultPolicy::Allow,
        kube_timeout: Duration::from_secs(60),
        queue: Arc::new(Mutex::new(Queue::new(5, timing()))),
        local_states: LocalStates::default(),
        lease,
        stopping: AtomicBool::new(false),
        touched: AtomicBool::new(false),
        readiness,
        metrics: Arc::new(Metrics::default()),
        events: EventPublisher::new(client, reporter),
        wake: Box::new(|_| ()),
        enqueue: Box::new(|_| {}),
        retry_after: RetryAfter::default(),
        workers: Workers::new(1),
        namespaces: Namespaces::new(&[]),
        accounts: Accounts::new(HashMap::new(), None),
        data_checks: DataChecks::new(Preflight::Warn),
        shared_polls: SharedPolls::default(),
    };
    (context, requests)
}

/// Reconciles a new resource once. The lease expires during the nth call of an operation. Returns the result, the
/// number of status writes and the number of create calls.
async fn reconcile(lease_expires_during: Option<(&'static str, usize)>) -> (Result<(), Error>, usize, usize) {
    reconcile_with(lease_expires_during, Duration::ZERO).await
}

/// Like [`reconcile`]; the create waits this long for its permit, and the grace period is 4 s.
async fn reconcile_with(
    lease_expires_during: Option<(&'static str, usize)>,
    permit_wait: Duration,
) -> (Result<(), Error>, usize, usize) {
    let lease = LeaseHold::until(Instant::now() + Duration::from_secs(3600));
    let service = Arc::new(Service { lease_expires_during, permit_wait, ..service(lease.clone()) });
    let object = serde_json::to_value(resource()).unwrap();
    let (mut context, requests) = context_with(Arc::clone(&service), lease, object);
    context.timing.grace = Duration::from_secs(4);
    let resource = resource();
    context.observe(&resource);
    let result = context.reconcile_once(&resource).await.1;
    let writes = requests.lock().unwrap().iter().filter(|request| request.starts_with("PUT ")).count();
    (result, writes, service.creates())
}

/// Whether a leader without a former Lease admits a resource when all its namespaces are listed. It has reconciled the
/// resource before that if `reconciled`.
async fn admits(listed: DatasetImportJob, reconciled: bool) -> bool {
    let (context, _) = context(service(LeaseHold::forever()), LeaseHold::forever());
    context.readiness.set_leading(["shop".to_owned(), "other".to_owned()]);
    context.queue().quarantine(Timestamp::now());
    context.observe(&listed);
    context.initial_list_complete("shop", Takeover::First);
    context.readiness.mark_synced("shop");
    if reconciled {
        assert!(context.reconcile_once(&listed).await.1.is_ok());
    }
    context.initial_list_complete("other", Takeover::First);
    context.queue().try_admit(&listed.uid().unwrap(), Timestamp::now()) == Admission::Admitted
}

#[tokio::test]
async fn new_installation_submits_after_its_last_list_even_if_it_has_reconciled_before() {
    assert!(admits(resource(), false).await);
    assert!(admits(resource(), true).await);
    let mut touched = resource();
    let status = touched.status.get_or_insert_default();
    crate::api::conditions::set(status, 1, Reason::Queued, "", Timestamp::now());
    assert!(!admits(touched, false).await, "another leader has reconciled it");
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
    assert_eq!((writes, creates), (1, 0), "the intent is recorded, and no job is created");
}

#[tokio::test]
async fn resource_deleted_while_it_waits_for_a_worker_is_not_reconciled() {
    let (context, requests) = context(service(LeaseHold::forever()), LeaseHold::forever());
    let (resource, context) = (resource(), Arc::new(context));
    context.observe(&resource);
    let (store, mut writer) = kube::runtime::reflector::store();
    let worker = context.workers.acquire(&resource, false).await;
    let guarded = kube::core::DeserializeGuard(Ok(resource));
    writer.apply_watcher_event(&Event::Apply(guarded.clone()));
    let mut reconcile = Box::pin(super::reconcile(Arc::new(guarded.clone()), store, context));
    assert!((&mut reconcile).now_or_never().is_none(), "it waits");
    writer.apply_watcher_event(&Event::Delete(guarded));
    drop(worker);
    assert_eq!(reconcile.await, Ok(Action::await_change()));
    assert!(requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn resource_that_may_submit_now_overtakes_those_that_wait_for_a_worker() {
    let (mut context, _) = context(service(LeaseHold::forever()), LeaseHold::forever());
    context.queue = Arc::new(Mutex::new(Queue::new(1, timing())));
    let [older, newer] = ["a", "b"].map(|name| {
        let mut resource = resource();
        resource.metadata.name = Some(name.into());
        resource.metadata.uid = Some(name.into());
        resource
    });
    context.observe(&older);
    context.observe(&newer);
    let busy = context.workers.acquire(&resource(), false).await;
    let [mut first, mut second] = [&newer, &older].map(|resource| Box::pin(context.workers.acquire(resource, false)));
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    let dataset = DatasetArn::parse(&older.spec.dataset_arn).unwrap();
    context.enqueue_admissible(dataset.account_region());
    drop(busy);
    assert!((&mut first).now_or_never().is_none() && second.now_or_never().is_some());
}

#[tokio::test]
async fn lease_that_expires_while_the_create_waits_for_its_permit_stops_the_create() {
    let (result, writes, creates) = reconcile(Some((PERMIT, 1))).await;
    assert!(matches!(result, Err(Error::NotLeading)), "{result:?}");
    assert_eq!((writes, creates), (1, 0));
}

#[tokio::test]
async fn create_is_not_sent_if_it_waits_for_half_the_grace_period() {
    let (result, writes, creates) = reconcile_with(None, Duration::from_secs(2)).await;
    assert!(matches!(result, Err(Error::IntentTooOld)), "{result:?}");
    assert_eq!((writes, creates), (1, 0), "the intent is recorded, and no job is created");
}

/// A resource of this namespace whose job has run for an hour.
fn running(namespace: &str) -> DatasetImportJob {
    let mut running = resource();
    running.metadata.namespace = Some(namespace.into());
    let request = ImportRequest::of(&running).unwrap();
    let status = running.status.get_or_insert_default();
    status.attempts = Some(1);
    status.status = Some("CREATE IN_PROGRESS".into());
    status.job_name = Some(request.job_name(1));
    status.dataset_import_job_arn = Some(request.job_arn(1).0);
    status.submission = Some(Submission {
        job_name: request.job_name(1),
        attempt: 1,
        request_hash: request.hash(),
        generation: 1,
        time: Time(Timestamp::now() - Duration::from_secs(3600)),
    });
    running
}

#[tokio::test]
async fn resource_that_is_gone_before_the_watch_says_so_is_not_reconciled_again_at_once() {
    let lease = LeaseHold::forever();
    let (mut context, _) = context_with(Arc::new(service(lease.clone())), lease, serde_json::Value::Null);
    let enqueued: Arc<Mutex<Vec<Key>>> = Arc::default();
    let record = Arc::clone(&enqueued);
    context.enqueue = Box::new(move |key| record.lock().unwrap().push(key.clone()));
    let (gone, mut newer) = (resource(), resource());
    newer.metadata.name = Some("newer".into());
    newer.metadata.uid = Some("newer".into());
    context.observe(&gone);
    context.observe(&newer);
    let (requeue_after, result) = context.reconcile_once(&gone).await;
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(requeue_after, Some(timing().waiting));
    let names: Vec<String> = enqueued.lock().unwrap().iter().map(|key| key.name.clone()).collect();
    assert_eq!(names, ["newer"], "only what may submit instead");
}

/// A schema of items with this column.
fn items_schema(column: &str) -> String {
    let fields = [("ITEM_ID", "string"), (column, "float")].map(|(name, kind)| json!({"name": name, "type": kind}));
    json!({"type": "record", "name": "Items", "fields": fields}).to_string()
}

/// An import of items, and their dataset, created in this second.
fn items(created: i64) -> (DatasetImportJob, Dataset) {
    let mut items = resource();
    items.spec.dataset_arn = items.spec.dataset_arn.replace("INTERACTIONS", "ITEMS");
    let (created, schema_arn) = (Timestamp::from_second(created).ok(), Some("schema".into()));
    (items, Dataset { created, schema_arn, ..testing::active_dataset() })
}

/// Checks the data of an import of items into the dataset that was created in this second.
async fn check_items(context: &Context<Service>, created: i64) -> Result<Report, ServiceError> {
    let (items, dataset) = items(created);
    let request = ImportRequest::of(&items).unwrap();
    let check = context.check_data(&Caller::default(), &request, &items.spec, Some(&dataset)).await.unwrap();
    check.and_then(|check| check.report).unwrap()
}

#[tokio::test]
async fn data_of_a_dataset_that_was_created_again_is_checked_against_its_new_schema() {
    let lease = LeaseHold::forever();
    let schemas = Mutex::new(["SIZE", "WEIGHT"].map(items_schema).into());
    let (context, _) = context(Service { schemas, data: "ITEM_ID,WEIGHT\ni1,1.5\n", ..service(lease.clone()) }, lease);
    assert!(check_items(&context, 1).await.unwrap().has_errors(), "the column is SIZE");
    assert_eq!(check_items(&context, 2).await.unwrap().findings, []);
    assert_eq!(check_items(&context, 2).await.unwrap().findings, [], "the schema is not read again");
}

#[tokio::test]
async fn account_and_region_has_eight_checks_of_data_at_once_and_leaves_others_to_the_next() {
    let lease = LeaseHold::forever();
    let service = Arc::new(Service {
        schemas: Mutex::new(vec![items_schema("WEIGHT")]),
        data: "ITEM_ID,WEIGHT\ni1,1.5\n",
        read_time: Duration::from_millis(20),
        ..service(lease.clone())
    });
    let (context, _) = context_with(Arc::clone(&service), lease, serde_json::Value::Null);
    check_items(&context, 1).await.unwrap();
    let imports: Vec<_> = (0..120)
        .map(|i| {
            let (mut items, dataset) = items(1);
            items.metadata.name = Some(format!("r{i}"));
            if i >= 100 {
                items.spec.dataset_arn = items.spec.dataset_arn.replace("123456789012", "210987654321");
            }
            (ImportRequest::of(&items).unwrap(), items, dataset)
        })
        .collect();
    let caller = Caller::default();
    let check = async |(request, items, dataset): &(ImportRequest, DatasetImportJob, Dataset)| {
        context.check_data(&caller, request, &items.spec, Some(dataset)).await.unwrap()
    };
    let is_good = |check: &Option<DataCheck>| {
        check.as_ref().is_some_and(|check| matches!(&check.report, Some(Ok(report)) if report.findings.is_empty()))
    };
    assert!(join_all(imports[..100].iter().map(check)).await.iter().all(is_good));
    assert_eq!(service.reads.lock().unwrap().1, 8);
    let mut slow = join_all(imports[..100].iter().map(check));
    let others = join_all(imports[100..].iter().map(check));
    tokio::select! {
        _ = &mut slow => panic!("another account and region waits"),
        checked = others => assert!(checked.iter().all(is_good)),
    }
    assert!(context.list_data(&caller, &imports[0].0).now_or_never().is_some(), "a list waits for no check");
    assert!(slow.await.iter().all(is_good));
    assert!((9..=16).contains(&service.reads.lock().unwrap().1));
    context.data_checks.close();
    let (request, items, dataset) = &imports[0];
    let stopped = context.check_data(&caller, request, &items.spec, Some(dataset)).await;
    assert!(matches!(stopped, Err(Error::NotLeading)), "no check begins during a shutdown");
}
