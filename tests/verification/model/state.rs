//! The state of the model: two operators, an API server, the service, and the create calls between them.

use crate::config::{Budget, Config, Mutation};
use crate::protocol::ProtocolModel;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt;
use personalize_operator::api::{DatasetImportJob, resource_version};
use personalize_operator::import::timing::after;
use personalize_operator::import::{ImportRequest, LocalState, MANAGER, Timing};
use personalize_operator::personalize;
use personalize_operator::queue::Queue;
use personalize_operator::reconciliation::Reconciliation;
use serde_json::json;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// The grace period of the modelled operators. Each tick of the clock is longer.
const GRACE: Duration = Duration::from_secs(60);

/// More attempts than any model makes.
pub(crate) const MAX_ATTEMPTS: i32 = 9;

/// All delays but the grace period are zero: this covers every order of timers.
pub(crate) fn timing() -> Timing {
    let zero = Duration::ZERO;
    Timing {
        poll_min: zero,
        poll_max: zero,
        grace: GRACE,
        backoff_min: zero,
        backoff_max: zero,
        rejected_min: zero,
        rejected_max: zero,
        retry_min: zero,
        waiting: zero,
    }
}

/// The time after this many ticks.
pub(crate) fn at(ticks: u8) -> Timestamp {
    let start = Timestamp::from_second(1_750_000_000).unwrap();
    after(start, (GRACE + Duration::from_secs(1)) * u32::from(ticks))
}

/// A version of a resource. Versions with the same content are equal.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot(Arc<DatasetImportJob>);

impl Snapshot {
    /// Stores a digest of the content in a label, so that copies of the resource have it too.
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
    /// It waits for the response to a create call.
    pub(crate) awaits_create: bool,
    /// The last data deletion that had started when it listed them, from 1.
    pub(crate) listed_deletion: u8,
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
            self.listed_deletion,
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
    /// The operator still waits for the response.
    pub(crate) awaited: bool,
    /// The last data deletion that had started when its reconciliation listed them.
    pub(crate) listed_deletion: u8,
}

/// A job of the service.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct ModelJob {
    pub(crate) resource: usize,
    pub(crate) attempt: i32,
    /// Another program created it, under a name of this resource.
    pub(crate) foreign: bool,
    pub(crate) status: &'static str,
    /// Reads find it.
    pub(crate) visible: bool,
}

impl ModelJob {
    pub(crate) fn has_ended(&self) -> bool {
        personalize::has_ended(self.status)
    }
}

/// The state of everything. `live`, `versions`, `requested` and `pending_request` have one entry per resource.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct ModelState {
    /// The ticks since the start.
    pub(crate) clock: u8,
    /// The resources in the API server; `None` if deleted.
    pub(crate) live: Vec<Option<Snapshot>>,
    /// The latest resource version; it grows through deletions.
    pub(crate) versions: Vec<u64>,
    /// Both operators.
    pub(crate) operators: Vec<Arc<Operator>>,
    /// The create calls on their way.
    pub(crate) calls: Vec<CreateCall>,
    /// The jobs of the service.
    pub(crate) jobs: Vec<ModelJob>,
    /// The accepted create calls: resource and attempt.
    pub(crate) accepted: Vec<(usize, i32)>,
    /// The latest attempt that a user requested after the status said that the one before has failed.
    pub(crate) requested: Vec<i32>,
    /// The same, until a user deletes the resource or its status.
    pub(crate) pending_request: Vec<i32>,
    /// A user forged a status.
    pub(crate) status_forged: bool,
    /// An attempt was accepted although the one before has not failed, or although neither the limit nor a user allows
    /// another.
    pub(crate) disallowed_attempt: bool,
    /// An older import finished after a newer one, and no user requested it.
    pub(crate) out_of_order: bool,
    /// Two imports into the dataset were in flight.
    pub(crate) overlapped: bool,
    /// How many data deletions have started, and whether the last one runs.
    pub(crate) data_deletions: (u8, bool),
    /// An import was accepted within a data deletion that had started before its reconciliation listed them.
    pub(crate) accepted_in_deletion: bool,
    /// The events that may still happen.
    pub(crate) budget: Budget,
}

impl ModelState {
    pub(crate) fn new(config: &Config) -> Self {
        let live: Vec<_> = (0..config.resources).map(|r| Some(Snapshot::new(resource(config, r, 0, 1)))).collect();
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
            status_forged: false,
            disallowed_attempt: false,
            out_of_order: false,
            overlapped: false,
            data_deletions: (0, false),
            accepted_in_deletion: false,
            budget: config.budget.clone(),
        };
        state.operators = [true, config.two_leaders].map(|leads| Arc::new(state.started(leads, false))).into();
        state
    }

    pub(crate) fn now(&self) -> Timestamp {
        at(self.clock)
    }

    /// An operator that has started and listed the resources.
    fn started(&self, leads: bool, quarantine: bool) -> Operator {
        let mut queue = Queue::new(5, timing());
        if quarantine {
            queue.quarantine(self.now());
        }
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

    /// An operator restarts and leads. Its create calls may still arrive.
    pub(crate) fn restart(&mut self, o: usize, quarantine: bool) {
        self.calls.iter_mut().filter(|call| call.operator == o).for_each(|call| call.awaited = false);
        self.operators[o] = Arc::new(self.started(true, quarantine));
    }

    pub(crate) fn operator(&mut self, o: usize) -> &mut Operator {
        Arc::make_mut(&mut self.operators[o])
    }

    /// Writes a new version of a resource. `manager` manages its status from now on.
    pub(crate) fn write(&mut self, r: usize, mut resource: DatasetImportJob, manager: Option<&str>) -> Snapshot {
        self.versions[r] += 1;
        resource.metadata.resource_version = Some(self.versions[r].to_string());
        if let Some(manager) = manager {
            let entry = ManagedFieldsEntry {
                manager: Some(manager.into()),
                subresource: Some("status".into()),
                ..ManagedFieldsEntry::default()
            };
            resource.metadata.managed_fields = Some(vec![entry]);
        }
        let snapshot = Snapshot::new(resource);
        self.live[r] = Some(snapshot.clone());
        snapshot
    }

    /// Whether a job has the name of this attempt, visible or not.
    pub(crate) fn has_job(&self, r: usize, attempt: i32) -> bool {
        self.jobs.iter().any(|job| (job.resource, job.attempt) == (r, attempt))
    }

    /// Makes states equal that differ only in the order in which jobs were created.
    pub(crate) fn sort_jobs(&mut self) {
        self.jobs.sort_by_key(|job| (job.resource, job.attempt, job.foreign));
    }

    pub(crate) fn active(&self) -> impl Iterator<Item = &ActiveReconciliation> {
        self.operators.iter().flat_map(|operator| operator.active.iter().flatten())
    }
}

impl ProtocolModel {
    /// Replaces the status subresource by compare-and-swap. `None` is a conflict.
    pub(crate) fn replace_status(
        &self,
        state: &mut ModelState,
        r: usize,
        resource: &DatasetImportJob,
    ) -> Option<Snapshot> {
        let live = state.live[r].as_ref().map(Snapshot::resource).filter(|live| live.uid() == resource.uid())?;
        if !self.has(Mutation::OverwriteStatus) && resource_version(live) != resource_version(resource) {
            return None;
        }
        let mut merged = live.clone();
        merged.status.clone_from(&resource.status);
        Some(state.write(r, merged, Some(MANAGER)))
    }
}

/// A resource as a user applies it, one second newer than the one before.
pub(crate) fn resource(config: &Config, r: usize, incarnation: u8, version: u64) -> DatasetImportJob {
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
            "suspend": config.oldest_suspended && r == 0 && incarnation == 0,
            "backoffLimit": config.backoff_limit,
        },
        "status": { "observedGeneration": -1 },
    });
    serde_json::from_value(json).expect("a resource")
}

/// What a resource asks for, and the names of its jobs.
#[derive(Clone, Debug)]
pub(crate) struct Import {
    pub(crate) request: ImportRequest,
    job_names: Vec<String>,
}

impl Import {
    pub(crate) fn new(config: &Config, r: usize) -> Self {
        let request = ImportRequest::of(&resource(config, r, 0, 1)).expect("a request");
        let job_names = (1..=MAX_ATTEMPTS).map(|attempt| request.job_name(attempt)).collect();
        Self { request, job_names }
    }

    pub(crate) fn job_name(&self, attempt: i32) -> String {
        self.job_names[usize::try_from(attempt - 1).unwrap()].clone()
    }
}
