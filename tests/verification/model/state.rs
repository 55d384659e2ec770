//! The state of the model: two operators, an API server, the service, and the calls between them.

use crate::rules::{Budget, Rules};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt;
use personalize_operator::api::{DatasetImportJob, resource_version};
use personalize_operator::import::timing::after;
use personalize_operator::import::{ImportRequest, LocalState, MANAGER, Timing};
use personalize_operator::personalize::CREATE_FAILED;
use personalize_operator::queue::Queue;
use personalize_operator::reconciliation::Reconciliation;
use serde_json::json;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// The grace period of the modelled operators. Each tick of the clock is longer.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// More attempts than any model makes.
pub(crate) const MAX_ATTEMPTS: i32 = 9;

/// All delays but the grace period are zero: this covers every order of timers.
pub(crate) fn timing(grace: Duration) -> Timing {
    let zero = Duration::ZERO;
    Timing {
        poll_min: zero,
        poll_max: zero,
        grace,
        backoff_min: zero,
        backoff_max: zero,
        rejected_min: zero,
        rejected_max: zero,
        retry_min: zero,
        waiting: zero,
    }
}

pub(crate) fn at(clock: u8) -> Timestamp {
    let start = Timestamp::from_second(1_750_000_000).unwrap_or(Timestamp::UNIX_EPOCH);
    after(start, (GRACE + Duration::from_secs(1)) * u32::from(clock))
}

/// A version of a resource. Versions with the same content are equal.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot(Arc<DatasetImportJob>);

impl Snapshot {
    /// A label of the resource holds the digest of the content.
    pub(crate) fn new(mut resource: DatasetImportJob) -> Self {
        resource.metadata.labels = None;
        let mut hasher = DefaultHasher::new();
        serde_json::to_string(&resource).unwrap_or_default().hash(&mut hasher);
        resource.metadata.labels = Some([("digest".to_owned(), hasher.finish().to_string())].into());
        Self(Arc::new(resource))
    }

    pub(crate) fn resource(&self) -> &DatasetImportJob {
        &self.0
    }
}

fn digest(resource: &DatasetImportJob) -> Option<&String> {
    resource.labels().get("digest")
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        digest(&self.0) == digest(&other.0)
    }
}

impl Hash for Snapshot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        digest(&self.0).hash(state);
    }
}

/// A reconciliation that runs in an operator.
#[derive(Clone, Debug)]
pub(crate) struct ActiveReconciliation {
    pub(crate) reconciliation: Reconciliation,
    /// It waits for the answer of a create call.
    pub(crate) awaits_create: bool,
}

impl ActiveReconciliation {
    fn parts(&self) -> impl PartialEq + Hash + use<> {
        (
            self.reconciliation.resource().uid(),
            digest(self.reconciliation.resource()).cloned(),
            self.reconciliation.observations().clone(),
            self.reconciliation.local().clone(),
            self.reconciliation.is_stale(),
            self.awaits_create,
        )
    }
}

impl PartialEq for ActiveReconciliation {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Hash for ActiveReconciliation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

/// The process of an operator.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct Operator {
    pub(crate) leads: bool,
    pub(crate) cache: Vec<Option<Snapshot>>,
    pub(crate) queue: Queue,
    pub(crate) local: Vec<LocalState>,
    pub(crate) active: Vec<Option<ActiveReconciliation>>,
}

/// A create call on its way to the service.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct CreateCall {
    pub(crate) operator: usize,
    pub(crate) resource: usize,
    pub(crate) attempt: i32,
    /// The caller still waits for the answer.
    pub(crate) awaited: bool,
}

/// A job at the service.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct ModelJob {
    pub(crate) resource: usize,
    pub(crate) attempt: i32,
    /// Somebody else created it under a name of this resource.
    pub(crate) foreign: bool,
    pub(crate) status: &'static str,
    /// Reads find it.
    pub(crate) visible: bool,
}

/// The state of everything.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct ModelState {
    pub(crate) clock: u8,
    pub(crate) live: Vec<Option<Snapshot>>,
    /// The latest version of each name; it grows through deletions.
    pub(crate) versions: Vec<u64>,
    pub(crate) operators: Vec<Arc<Operator>>,
    pub(crate) calls: Vec<CreateCall>,
    pub(crate) jobs: Vec<ModelJob>,
    /// The accepted creates: resource and attempt.
    pub(crate) accepted: Vec<(usize, i32)>,
    /// Per resource the latest attempt that a user requested after the status said that the one before has failed.
    pub(crate) requested: Vec<i32>,
    /// The same, until something voids the request.
    pub(crate) pending_request: Vec<i32>,
    /// A user forged a status.
    pub(crate) tampered: bool,
    /// An attempt was accepted that nobody requested, or whose predecessor has not failed.
    pub(crate) unrequested: bool,
    pub(crate) out_of_order: bool,
    pub(crate) overlapped: bool,
    pub(crate) left: Budget,
}

impl ModelState {
    pub(crate) fn new(rules: &Rules) -> Self {
        let live: Vec<_> = (0..rules.resources).map(|r| Some(Snapshot::new(resource(rules, r, 0, 1)))).collect();
        let mut state = Self {
            clock: 0,
            versions: vec![1; live.len()],
            requested: vec![0; live.len()],
            pending_request: vec![0; live.len()],
            live,
            operators: Vec::new(),
            calls: Vec::new(),
            jobs: Vec::new(),
            accepted: Vec::new(),
            tampered: false,
            unrequested: false,
            out_of_order: false,
            overlapped: false,
            left: rules.budget.clone(),
        };
        state.operators = (0..2).map(|o| Arc::new(state.started(rules, o == 0 || rules.both_lead))).collect();
        state
    }

    pub(crate) fn now(&self) -> Timestamp {
        at(self.clock)
    }

    /// An operator that has started and listed the resources.
    pub(crate) fn started(&self, rules: &Rules, leads: bool) -> Operator {
        let mut queue = Queue::new(5, timing(rules.grace));
        let cache = if leads { self.live.clone() } else { vec![None; self.live.len()] };
        for resource in cache.iter().flatten().map(Snapshot::resource) {
            queue.observe(resource, LocalState::default().trust(resource));
        }
        Operator {
            leads,
            local: vec![LocalState::default(); cache.len()],
            active: vec![None; cache.len()],
            cache,
            queue,
        }
    }

    pub(crate) fn operator(&mut self, o: usize) -> &mut Operator {
        Arc::make_mut(&mut self.operators[o])
    }

    /// Writes a new version of a resource. `by` manages its status from now on.
    pub(crate) fn write(&mut self, r: usize, mut resource: DatasetImportJob, by: Option<&str>) -> Snapshot {
        self.versions[r] += 1;
        resource.metadata.resource_version = Some(self.versions[r].to_string());
        if let Some(by) = by {
            let entry = ManagedFieldsEntry {
                manager: Some(by.into()),
                subresource: Some("status".into()),
                ..ManagedFieldsEntry::default()
            };
            resource.metadata.managed_fields = Some(vec![entry]);
        }
        let snapshot = Snapshot::new(resource);
        self.live[r] = Some(snapshot.clone());
        snapshot
    }

    /// A replace of the status subresource, by compare-and-swap.
    pub(crate) fn put(&mut self, r: usize, resource: &DatasetImportJob, rules: &Rules) -> Option<Snapshot> {
        let live = self.live[r].as_ref().filter(|live| live.resource().uid() == resource.uid())?;
        if !rules.mutation.no_compare_and_swap && resource_version(live.resource()) != resource_version(resource) {
            return None;
        }
        let mut merged = live.resource().clone();
        merged.status.clone_from(&resource.status);
        Some(self.write(r, merged, Some(MANAGER)))
    }

    /// Whether a job has this name, visible or not.
    pub(crate) fn taken(&self, r: usize, attempt: i32) -> bool {
        self.jobs.iter().any(|job| (job.resource, job.attempt) == (r, attempt))
    }

    /// Makes states equal whatever the order in which jobs were created.
    pub(crate) fn sort_jobs(&mut self) {
        self.jobs.sort_by_key(|job| (job.resource, job.attempt, job.foreign));
    }

    pub(crate) fn active(&self) -> impl Iterator<Item = &ActiveReconciliation> {
        self.operators.iter().flat_map(|operator| operator.active.iter().flatten())
    }
}

/// A resource as a user applies it, one second newer than the one before. All import into one dataset.
pub(crate) fn resource(rules: &Rules, r: usize, incarnation: u8, version: u64) -> DatasetImportJob {
    let json = json!({
        "apiVersion": "personalize-operator.io/v1alpha1",
        "kind": "DatasetImportJob",
        "metadata": {
            "name": format!("r{r}"), "namespace": "shop", "uid": format!("r{r}-{incarnation}"), "generation": 1,
            "resourceVersion": version.to_string(),
            "creationTimestamp": format!("2025-06-01T00:00:0{}Z", r % 10),
        },
        "spec": {
            "datasetArn": "arn:aws:personalize:eu-west-1:123456789012:dataset/shop/INTERACTIONS",
            "dataSource": { "dataLocation": format!("s3://bucket/{r}.csv") },
            "roleArn": "arn:aws:iam::123456789012:role/Reader",
            "suspend": rules.suspended && r == 0 && incarnation == 0,
            "backoffLimit": rules.backoff_limit,
        },
        "status": { "observedGeneration": -1 },
    });
    serde_json::from_value(json).expect("a resource")
}

/// The requests and job names of all resources.
#[derive(Clone, Debug)]
pub(crate) struct Names(pub(crate) Vec<(ImportRequest, Vec<String>)>);

impl Names {
    pub(crate) fn new(rules: &Rules) -> Self {
        let one = |r| {
            let resource = resource(rules, r, 0, 1);
            let request = ImportRequest::of(&resource).expect("a request");
            let names = (1..=MAX_ATTEMPTS).map(|attempt| request.job_name(attempt)).collect();
            (request, names)
        };
        Self((0..rules.resources).map(one).collect())
    }

    pub(crate) fn of(&self, r: usize, attempt: i32) -> String {
        let attempt = usize::try_from(attempt).unwrap_or(1).max(1);
        self.0[r].1.get(attempt - 1).cloned().unwrap_or_default()
    }
}

/// Whether a job is has_ended.
pub(crate) fn has_ended(job: &ModelJob) -> bool {
    job.status == personalize_operator::personalize::ACTIVE || job.status == CREATE_FAILED
}
