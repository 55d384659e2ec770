//! The state of the modelled world: two operators, an API server, the service, and what is on the wire.

use crate::rules::{Budget, Rules};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt;
use personalize_operator::api::DatasetImportJob;
use personalize_operator::import::request::ImportRequest;
use personalize_operator::import::timing::{Timing, after};
use personalize_operator::personalize::CREATE_FAILED;
use personalize_operator::queue::{Queue, version};
use personalize_operator::reconciliation::{MANAGER, Reconciliation, Remembered};
use serde_json::json;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// The grace of the modelled operators; each tick of the clock outlasts it.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// More attempts than any model makes.
pub(crate) const MOST_ATTEMPTS: i32 = 9;

/// No delay but the grace keeps anyone from acting: that is every order of timers at once.
pub(crate) fn policy(grace: Duration) -> Timing {
    let none = Duration::ZERO;
    Timing {
        poll_min: none,
        poll_max: none,
        grace,
        backoff_min: none,
        backoff_max: none,
        rejected_min: none,
        rejected_max: none,
        retry_min: none,
        waiting: none,
    }
}

pub(crate) fn at(clock: u8) -> Timestamp {
    let begin = Timestamp::from_second(1_750_000_000).unwrap_or(Timestamp::UNIX_EPOCH);
    after(begin, (GRACE + Duration::from_secs(1)) * u32::from(clock))
}

/// A version of a resource, told from others by its content.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot(Arc<DatasetImportJob>);

impl Snapshot {
    /// The content's digest travels with the resource, so that a pass that holds it can be told apart.
    pub(crate) fn new(mut job: DatasetImportJob) -> Self {
        job.metadata.labels = None;
        let mut hasher = DefaultHasher::new();
        serde_json::to_string(&job).unwrap_or_default().hash(&mut hasher);
        job.metadata.labels = Some([("digest".to_owned(), hasher.finish().to_string())].into());
        Self(Arc::new(job))
    }

    pub(crate) fn job(&self) -> &DatasetImportJob {
        &self.0
    }
}

fn digest(job: &DatasetImportJob) -> Option<&String> {
    job.labels().get("digest")
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

/// A pass under way in an operator.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) pass: Reconciliation,
    /// A create call is waiting for its answer.
    pub(crate) waits: Option<i32>,
}

impl Run {
    fn parts(&self) -> impl PartialEq + Hash + use<> {
        // Whether the resource in hand is stale follows from the memory and the resource, or from a
        // conflict, after which nothing is seen.
        let stale = self.pass.is_stale();
        (
            self.pass.job().uid(),
            digest(self.pass.job()).cloned(),
            self.pass.seen().clone(),
            self.pass.remembered().clone(),
            stale,
            self.waits,
        )
    }
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Hash for Run {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

/// An operator's process.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct Context {
    pub(crate) leads: bool,
    pub(crate) cache: Vec<Option<Snapshot>>,
    pub(crate) queue: Queue,
    pub(crate) remembered: Vec<Remembered>,
    pub(crate) runs: Vec<Option<Run>>,
}

/// A create call on its way to the service.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct Call {
    pub(crate) operator: usize,
    pub(crate) resource: usize,
    pub(crate) attempt: i32,
    /// Its sender still waits for the answer.
    pub(crate) awaited: bool,
}

/// A job at the service.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct Made {
    pub(crate) resource: usize,
    pub(crate) attempt: i32,
    /// Somebody else made it, under a name of this resource.
    pub(crate) foreign: bool,
    pub(crate) status: &'static str,
    /// Reads show it.
    pub(crate) visible: bool,
}

/// Everything that there is.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct World {
    pub(crate) clock: u8,
    pub(crate) live: Vec<Option<Snapshot>>,
    /// The version that each name has come to, through deletions.
    pub(crate) versions: Vec<u64>,
    pub(crate) operators: Vec<Arc<Context>>,
    pub(crate) calls: Vec<Call>,
    pub(crate) jobs: Vec<Made>,
    /// What was accepted: resource, attempt, how often.
    pub(crate) accepted: Vec<(usize, i32)>,
    /// Per resource the latest attempt that a person asked for, when the one before was told to have failed.
    pub(crate) granted: Vec<i32>,
    /// The same, while nothing has happened to the resource that makes the wish void.
    pub(crate) owed: Vec<i32>,
    /// A person asked for the adoption of foreign jobs, or forged a status.
    pub(crate) meddled: bool,
    /// Another attempt was accepted that nobody had asked for, or whose predecessor had not failed.
    pub(crate) unasked: bool,
    pub(crate) out_of_order: bool,
    pub(crate) overlapped: bool,
    pub(crate) left: Budget,
}

impl World {
    pub(crate) fn new(rules: &Rules) -> Self {
        let live: Vec<_> = (0..rules.resources).map(|r| Some(Snapshot::new(resource(rules, r, 0, 1)))).collect();
        let mut world = Self {
            clock: 0,
            versions: vec![1; live.len()],
            granted: vec![0; live.len()],
            owed: vec![0; live.len()],
            live,
            operators: Vec::new(),
            calls: Vec::new(),
            jobs: Vec::new(),
            accepted: Vec::new(),
            meddled: false,
            unasked: false,
            out_of_order: false,
            overlapped: false,
            left: rules.budget.clone(),
        };
        world.operators = (0..2).map(|o| Arc::new(world.started(rules, o == 0 || rules.both_lead))).collect();
        world
    }

    pub(crate) fn now(&self) -> Timestamp {
        at(self.clock)
    }

    /// An operator that has just started and listed.
    pub(crate) fn started(&self, rules: &Rules, leads: bool) -> Context {
        let mut queue = Queue::new(5, policy(rules.grace));
        let cache = if leads { self.live.clone() } else { vec![None; self.live.len()] };
        for job in cache.iter().flatten().map(Snapshot::job) {
            queue.observe(job, Remembered::default().proves(job));
        }
        Context {
            leads,
            remembered: vec![Remembered::default(); cache.len()],
            runs: vec![None; cache.len()],
            cache,
            queue,
        }
    }

    pub(crate) fn operator(&mut self, o: usize) -> &mut Context {
        Arc::make_mut(&mut self.operators[o])
    }

    /// Writes a new version of a resource; `by` touched its status.
    pub(crate) fn write(&mut self, r: usize, mut job: DatasetImportJob, by: Option<&str>) -> Snapshot {
        self.versions[r] += 1;
        job.metadata.resource_version = Some(self.versions[r].to_string());
        if let Some(by) = by {
            let entry = ManagedFieldsEntry {
                manager: Some(by.into()),
                subresource: Some("status".into()),
                ..ManagedFieldsEntry::default()
            };
            job.metadata.managed_fields = Some(vec![entry]);
        }
        let snapshot = Snapshot::new(job);
        self.live[r] = Some(snapshot.clone());
        snapshot
    }

    /// A status update as the API server carries it out: only the status of the version that it names.
    pub(crate) fn put(&mut self, r: usize, job: &DatasetImportJob, rules: &Rules) -> Option<Snapshot> {
        let live = self.live[r].as_ref().filter(|live| live.job().uid() == job.uid())?;
        if !rules.breaks.no_swap && version(live.job()) != version(job) {
            return None;
        }
        let mut merged = live.job().clone();
        merged.status.clone_from(&job.status);
        Some(self.write(r, merged, Some(MANAGER)))
    }

    /// Whether this name is taken at the service, seen or not.
    pub(crate) fn taken(&self, r: usize, attempt: i32) -> bool {
        self.jobs.iter().any(|job| (job.resource, job.attempt) == (r, attempt))
    }

    /// Keeps equal states equal, whichever job came first.
    pub(crate) fn order_jobs(&mut self) {
        self.jobs.sort_by_key(|job| (job.resource, job.attempt, job.foreign));
    }

    pub(crate) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.operators.iter().flat_map(|operator| operator.runs.iter().flatten())
    }
}

/// A resource as a person applies it, each a second younger than the one before; all import into one dataset.
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

/// The requests and job names of all resources, made once.
#[derive(Clone, Debug)]
pub(crate) struct Names(pub(crate) Vec<(ImportRequest, Vec<String>)>);

impl Names {
    pub(crate) fn new(rules: &Rules) -> Self {
        let one = |r| {
            let job = resource(rules, r, 0, 1);
            let request = ImportRequest::of(&job).expect("a request");
            let names = (1..=MOST_ATTEMPTS).map(|attempt| request.job_name(attempt)).collect();
            (request, names)
        };
        Self((0..rules.resources).map(one).collect())
    }

    pub(crate) fn of(&self, r: usize, attempt: i32) -> String {
        let attempt = usize::try_from(attempt).unwrap_or(1).max(1);
        self.0[r].1.get(attempt - 1).cloned().unwrap_or_default()
    }
}

/// Whether a job is over.
pub(crate) fn over(job: &Made) -> bool {
    job.status == personalize_operator::personalize::ACTIVE || job.status == CREATE_FAILED
}
