//! A long random workload with faults and kills from a seed. The invariants are checked during it, and all at the end.
//!
//! Four tenants share two replicas. The first does everything at random in its own region. Two misbehave: `noisy` floods,
//! writes huge and invalid resources, and imports into a region that fails; the API server fails status writes in
//! `denied`. Both share an account and region with `healthy`, whose imports must go at all times (invariant I). Calm
//! phases, in which no replica is disturbed, alternate with storms.
//!
//! `make soak MINUTES=…` runs it for longer. The seed determines the actions and their order; when they reach the
//! operator depends on the machine.

use crate::env::proxy::{Call, Fault, Proxy};
use crate::env::{OperatorProcess, REGION, TestEnv, block_on, dataset_arn, install_crd};
use crate::invariants::accepted_creates;
use crate::rng::{Rng, seed};
use control_plane::{Component, ControlPlane};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use personalize_operator::api::DatasetImportJob;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const NAMES: usize = 16;
const DATASETS: usize = 6;
/// The region of all tenants but the first.
const SHARED_REGION: &str = "us-east-1";
/// A region in which no dataset exists and calls fail.
const FAILING_REGION: &str = "ap-southeast-2";
/// How many actions a cycle has, and how many of them are its storm. The first storm begins soon. A calm phase is longer
/// than an import may wait.
const CYCLE: usize = 450;
const STORM: usize = 60;
const FIRST_ACTION: usize = 340;
const FLOOD: usize = 50;
/// A busy machine answers late, and a leader that loses its Lease all the time imports nothing.
const LEASE: &str = "--lease-duration=9s";
/// How often the invariants are checked at first. A check takes longer the more happened, and at most a tenth of the time.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// How long imports may take to finish after the last fault.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(300);

/// One of the two replicas, behind its own proxy.
struct Replica {
    identity: &'static str,
    proxy: Proxy,
    operator: Option<OperatorProcess>,
    /// Paused until then.
    paused: Option<Instant>,
    /// Stopped until then.
    stopped: Option<Instant>,
    /// Its calls meet faults until then.
    faulty: Option<Instant>,
    denial: Denial,
}

/// The fault for status writes in a namespace.
type Denial = Arc<Mutex<Option<(String, Fault)>>>;

impl Replica {
    fn new(env: &TestEnv, identity: &'static str, denial: Denial) -> Self {
        let dir = env.dir().join(identity);
        fs::create_dir_all(&dir).unwrap();
        let proxy = env.start_proxy_in(&dir);
        let replica = Self { identity, proxy, operator: None, paused: None, stopped: None, faulty: None, denial };
        replica.inject(|_| Fault::None);
        replica
    }

    /// Sets what happens to calls other than denied status writes.
    fn inject(&self, mut injector: impl FnMut(&Call) -> Fault + Send + 'static) {
        let denial = Arc::clone(&self.denial);
        self.proxy.inject(move |call| {
            let denied = |(namespace, fault): &(String, Fault)| {
                let is_denied = call.label == "PUT datasetimportjobs/status" && call.path.contains(namespace.as_str());
                is_denied.then(|| fault.clone())
            };
            let denied = denial.lock().unwrap().as_ref().and_then(denied);
            denied.unwrap_or_else(|| injector(call))
        });
    }

    fn start(&mut self, env: &TestEnv) {
        let identity = format!("--identity={}", self.identity);
        self.operator = Some(env.spawn_operator_behind(&self.proxy, &[&identity, LEASE, "--log-level=info"]));
    }

    /// Ends the faults that are due, or all with `now`, and restarts an operator that has exited.
    fn recover(&mut self, env: &TestEnv, now: bool) {
        let is_due = |until: &mut Option<Instant>| until.take_if(|at| now || *at <= Instant::now()).is_some();
        if is_due(&mut self.faulty) {
            self.inject(|_| Fault::None);
        }
        self.operator.iter().for_each(OperatorProcess::note_footprint);
        if is_due(&mut self.paused)
            && let Some(operator) = &self.operator
        {
            operator.signal("-CONT");
        }
        // A fault may have killed it.
        if self.paused.is_none() && self.operator.as_mut().is_some_and(OperatorProcess::has_exited) {
            self.operator = None;
        }
        if is_due(&mut self.stopped) || self.operator.is_none() && self.stopped.is_none() {
            self.start(env);
        }
    }
}

struct Soak {
    env: TestEnv,
    rng: Rng,
    replicas: [Replica; 2],
    /// The last manifest of each name.
    manifests: HashMap<String, Value>,
    actions: BTreeMap<&'static str, usize>,
    started: Instant,
    /// Counts all actions; the phase follows from it.
    taken: usize,
    healthy: String,
    noisy: String,
    denied: String,
    denial: Denial,
    denied_until: Option<Instant>,
    /// A data deletion that runs, and its end.
    deletion: Option<(String, Instant)>,
    /// Half-sent requests to the replicas.
    half_sent: Vec<TcpStream>,
}

impl Soak {
    fn new(control_plane: &'static ControlPlane, seed: u64) -> Self {
        let mut env = TestEnv::on(control_plane);
        let [healthy, noisy, denied] = ["healthy", "noisy", "denied"].map(|name| env.add_tenant(name));
        let denial = Denial::default();
        let replicas = ["one", "two"].map(|identity| Replica::new(&env, identity, Arc::clone(&denial)));
        Self {
            env,
            taken: FIRST_ACTION,
            healthy,
            noisy,
            denied,
            denial,
            denied_until: None,
            deletion: None,
            half_sent: Vec::new(),
            rng: Rng::new(seed),
            replicas,
            manifests: HashMap::new(),
            actions: BTreeMap::new(),
            started: Instant::now(),
        }
    }

    fn name(&mut self) -> String {
        format!("import-{}", self.rng.below(NAMES))
    }

    /// Takes one random action.
    fn act(&mut self) {
        self.taken += 1;
        let is_storm = self.taken % CYCLE >= CYCLE - STORM;
        let action = if is_storm && self.rng.one_in(4) { self.disturb_replica() } else { self.act_as_tenant() };
        *self.actions.entry(action).or_default() += 1;
    }

    fn disturb_replica(&mut self) -> &'static str {
        match self.rng.below(10) {
            0..4 => self.inject_call_faults(),
            4..6 => self.kill(),
            6..8 => self.pause(),
            8 => self.stop(),
            _ => self.restart_api_server(),
        }
    }

    fn act_as_tenant(&mut self) -> &'static str {
        match self.rng.below(100) {
            0..20 => self.create_resource(),
            20..25 => self.delete(),
            25..31 => self.recreate(),
            31..38 => self.edit(),
            38..44 => self.annotate(),
            44..54 => self.inject_service_fault(),
            54..56 => self.create_foreign_job(),
            56..58 => self.clear_status(),
            58..72 => self.import_as("healthy"),
            72..80 => self.import_as("denied"),
            80..84 => self.deny_status_writes(),
            84..89 => self.fail_region(),
            89..92 => self.flood(),
            92..94 => self.end_flood(),
            94..97 => self.misbehave(),
            97 => self.delete_data(),
            _ => self.send_half_requests(),
        }
    }

    fn api(&self, namespace: &str) -> Api<DatasetImportJob> {
        Api::namespaced(self.env.client.clone(), namespace)
    }

    /// Creates resources of a tenant. Errors are expected: the API server may be down, or refuse one.
    fn create_in(&self, namespace: &str, manifests: Vec<Value>) {
        let api = self.api(namespace);
        block_on(async move {
            for manifest in manifests {
                let resource = serde_json::from_value::<DatasetImportJob>(manifest).unwrap();
                let _ = api.create(&PostParams::default(), &resource).await;
            }
        });
    }

    fn manifest_in(name: &str, region: &str, dataset: usize) -> Value {
        let arn = dataset_arn(&format!("d{dataset}")).replace(REGION, region);
        TestEnv::manifest(name, "", json!({"datasetArn": arn}))
    }

    /// A tenant with own datasets imports once more.
    fn import_as(&mut self, tenant: &'static str) -> &'static str {
        let (namespace, datasets, action) = match tenant {
            "healthy" => (self.healthy.clone(), 10..14, "healthy"),
            _ => (self.denied.clone(), 14..20, "denied"),
        };
        let dataset = datasets.start + self.rng.below(datasets.len());
        let name = format!("{tenant}-{}", self.taken);
        self.create_in(&namespace, vec![Self::manifest_in(&name, SHARED_REGION, dataset)]);
        action
    }

    /// For a while, the API server fails status writes in one namespace.
    fn deny_status_writes(&mut self) -> &'static str {
        let status = |code: u16, message: &str, seconds: u32| {
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message,
                   "details": {"retryAfterSeconds": seconds}})
            .to_string()
        };
        let failed = "Internal error occurred: failed calling webhook \"slow\": context deadline exceeded";
        let fault = self.rng.pick(&[
            Fault::HangRequest,
            Fault::HangRequest,
            Fault::Delay(Duration::from_secs(2)),
            Fault::Respond(500, Vec::new(), status(500, failed, 0)),
            Fault::Respond(403, Vec::new(), status(403, "admission webhook \"no\" denied the request: no", 0)),
            Fault::Respond(429, Vec::new(), status(429, "admission webhook \"busy\" denied the request: later", 5)),
        ]);
        *self.denial.lock().unwrap() = Some((format!("/namespaces/{}/", self.denied), fault));
        self.denied_until = Some(Instant::now() + self.rng.millis(5_000, 90_000));
        "denials"
    }

    /// For a while, users are deleted from a dataset group.
    fn delete_data(&mut self) -> &'static str {
        if self.deletion.is_none() {
            let name = format!("deletion-{}", self.taken);
            self.env.service.start_data_deletion(&name, "shop");
            self.deletion = Some((name, Instant::now() + self.rng.millis(500, 8_000)));
        }
        "data deletions"
    }

    /// Calls to one region fail for a while.
    fn fail_region(&mut self) -> &'static str {
        let error = |code: &str, status: u16| json!({"error": {"code": code, "message": "injected", "status": status}});
        let action = self.rng.pick(&[
            json!({"silenceBeforeHeaders": {"effect": false}}),
            json!({"silenceBeforeHeaders": {"effect": false}}),
            json!({"silenceAfterHeaders": {"effect": false}}),
            error("ThrottlingException", 400),
            error("ExpiredTokenException", 403),
            error("AccessDeniedException", 400),
            error("InternalServerException", 500),
            json!("resetBefore"),
        ]);
        let count = 10 + self.rng.below(100);
        let fault = json!({"name": format!(":{FAILING_REGION}:"), "count": count, "action": action});
        self.env.service.inject_fault(&fault);
        "region faults"
    }

    fn flood(&mut self) -> &'static str {
        let region = self.rng.pick(&[SHARED_REGION, FAILING_REGION, FAILING_REGION]);
        let name = format!("flood-{}", self.taken);
        let manifest = |i: usize| Self::manifest_in(&format!("{name}-{i}"), region, 20 + i % 10);
        self.create_in(&self.noisy, (0..FLOOD).map(manifest).collect());
        "floods"
    }

    fn end_flood(&mut self) -> &'static str {
        self.remove_all(&self.noisy);
        "ends of floods"
    }

    fn remove_all(&self, namespace: &str) {
        let api = self.api(namespace);
        let all = ListParams::default();
        let _ = block_on(async move { api.delete_collection(&DeleteParams::default(), &all).await });
    }

    /// Creates a resource that is huge, or that can't be imported.
    fn misbehave(&mut self) -> &'static str {
        let name = format!("odd-{}", self.taken);
        let mut manifest = Self::manifest_in(&name, SHARED_REGION, 20 + self.rng.below(10));
        let (key, value) = self.rng.pick(&[
            ("/metadata/annotations", json!({"huge": "x".repeat(200_000)})),
            ("/spec/dataSource/dataLocation", json!("s3://locked/interactions.csv")),
            ("/spec/dataSource/dataLocation", json!("s3://bucket/missing.csv")),
            ("/spec/datasetArn", json!("nonsense")),
            ("/spec/datasetArn", json!("arn:aws:personalize:us-east-1:210987654321:dataset/shop/d1")),
            ("/spec/roleArn", json!("arn:aws:iam::210987654321:role/Reader")),
        ]);
        manifest["metadata"]["annotations"] = json!({});
        *manifest.pointer_mut(key).unwrap() = value;
        self.create_in(&self.noisy, vec![manifest]);
        "odd resources"
    }

    /// Opens connections to the replicas' listeners, sends half of a request, and leaves them open until next time.
    fn send_half_requests(&mut self) -> &'static str {
        self.half_sent.clear();
        let urls = self.replicas.iter().filter_map(|replica| replica.operator.as_ref().map(|o| o.url.clone()));
        for address in urls.filter_map(|url| url.strip_prefix("http://").map(str::to_owned)) {
            for _ in 0..40 {
                let Ok(mut stream) = TcpStream::connect(&address) else { break };
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nX-Half: ");
                self.half_sent.push(stream);
            }
        }
        "half-sent requests"
    }

    fn create(&self, manifest: Value) {
        let (api, resource) = (self.env.api(), serde_json::from_value::<DatasetImportJob>(manifest).unwrap());
        // Errors are expected, here and below: the API server may be down, and the name may be taken or missing.
        let _ = block_on(async move { api.create(&PostParams::default(), &resource).await });
    }

    fn patch(&self, name: &str, patch: Value) {
        let (api, name) = (self.env.api(), name.to_owned());
        let _ = block_on(async move { api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await });
    }

    fn remove(&self, name: &str) {
        let (api, name) = (self.env.api(), name.to_owned());
        let _ = block_on(async move { api.delete(&name, &DeleteParams::default()).await });
    }

    fn create_resource(&mut self) -> &'static str {
        let name = self.name();
        let dataset = format!("d{}", self.rng.below(DATASETS));
        let file = self.rng.pick(&["interactions", "interactions", "interactions", "few", "no-item"]);
        let mut spec = json!({
            "dataSource": {"dataLocation": format!("s3://bucket/{file}.csv")},
            "importMode": self.rng.pick(&["FULL", "INCREMENTAL"]),
            "backoffLimit": self.rng.below(3),
            "suspend": self.rng.one_in(10),
        });
        if self.rng.one_in(6) {
            spec["jobName"] = json!(format!("chosen-{name}-{}", self.rng.below(3)));
        }
        let manifest = TestEnv::manifest(&name, &dataset, spec);
        // Like tools that replace what they can't change.
        self.remove(&name);
        self.create(manifest.clone());
        self.manifests.insert(name, manifest);
        "created"
    }

    fn recreate(&mut self) -> &'static str {
        let name = self.name();
        if let Some(manifest) = self.manifests.get(&name).cloned() {
            self.remove(&name);
            self.create(manifest);
        }
        "recreated"
    }

    fn delete(&mut self) -> &'static str {
        let name = self.name();
        self.remove(&name);
        "deleted"
    }

    fn edit(&mut self) -> &'static str {
        let name = self.name();
        let patch = match self.rng.below(4) {
            0 => json!({"spec": {"suspend": true}}),
            1 => json!({"spec": {"suspend": false}}),
            2 => json!({"spec": {"backoffLimit": self.rng.below(4)}}),
            _ => json!({"metadata": {"labels": {"edit": self.rng.below(1000).to_string()}}}),
        };
        self.patch(&name, patch);
        "edited"
    }

    fn annotate(&mut self) -> &'static str {
        let name = self.name();
        let key = self.rng.pick(&["reconcile-requested-at", "retry-requested-at"]);
        let value = self.rng.below(1_000_000).to_string();
        self.patch(&name, json!({"metadata": {"annotations": {format!("personalize-operator.io/{key}"): value}}}));
        "annotated"
    }

    fn inject_service_fault(&mut self) -> &'static str {
        let error = |code: &str, status: u16| json!({"error": {"code": code, "message": "injected", "status": status}});
        let quota = "More than 5 resources with PENDING or IN_PROGRESS status.";
        let action = self.rng.pick(&[
            error("ThrottlingException", 400),
            error("InternalServerException", 500),
            error("ServiceUnavailable", 503),
            error("ExpiredTokenException", 403),
            error("InvalidInputException", 400),
            error("AccessDeniedException", 400),
            error("ResourceInUseException", 400),
            json!({"error": {"code": "LimitExceededException", "message": quota}}),
            json!({"errorAfter": {}}),
            json!({"delay": {"ms": 700}}),
            json!({"silenceBeforeHeaders": {"effect": true}}),
            json!({"silenceBeforeHeaders": {"effect": false}}),
            json!({"silenceAfterHeaders": {"effect": true}}),
            json!("cutBody"),
            json!("garbage"),
            json!("resetBefore"),
            json!("resetAfter"),
            json!("noArn"),
            json!({"notFoundFor": {"lookups": 1}}),
        ]);
        let operation = self.rng.pick(&[
            "CreateDatasetImportJob",
            "CreateDatasetImportJob",
            "DescribeDatasetImportJob",
            "DescribeDataset",
            "ListDatasetImportJobs",
            "ListDataDeletionJobs",
            "ListTagsForResource",
        ]);
        // The service makes these two mistakes in creates only.
        let is_create = operation == "CreateDatasetImportJob";
        if is_create || !(action.to_string().contains("noArn") || action.to_string().contains("notFoundFor")) {
            let count = 1 + self.rng.below(3);
            let name = format!(":{REGION}:");
            let fault = json!({"operation": operation, "name": name, "count": count, "action": action});
            self.env.service.inject_fault(&fault);
        }
        if self.rng.one_in(4) {
            let (pending, running) = (self.rng.below(1500), self.rng.below(2500));
            self.env.service.set_durations(u64::try_from(pending).unwrap(), u64::try_from(running).unwrap());
        }
        "service faults"
    }

    fn inject_call_faults(&mut self) -> &'static str {
        let mut rng = Rng::new(u64::try_from(self.rng.below(1 << 30)).unwrap());
        let one_in = 4 + self.rng.below(40);
        let time = self.rng.millis(300, 4000);
        let replica = &mut self.replicas[self.rng.below(2)];
        replica.inject(move |call| if rng.one_in(one_in) { random_fault(&mut rng, call) } else { Fault::None });
        replica.faulty = Some(Instant::now() + time);
        "faulty networks"
    }

    fn kill(&mut self) -> &'static str {
        let time = self.rng.millis(0, 5000);
        let replica = &mut self.replicas[self.rng.below(2)];
        if let Some(operator) = replica.operator.take() {
            operator.kill();
        }
        (replica.paused, replica.stopped) = (None, Some(Instant::now() + time));
        "kills"
    }

    fn pause(&mut self) -> &'static str {
        // Shorter and longer than the Lease.
        let time = self.rng.millis(500, 15_000);
        let replica = &mut self.replicas[self.rng.below(2)];
        if let Some(operator) = replica.operator.as_mut().filter(|_| replica.paused.is_none())
            && !operator.has_exited()
        {
            operator.signal("-STOP");
            replica.paused = Some(Instant::now() + time);
        }
        "pauses"
    }

    fn stop(&mut self) -> &'static str {
        let time = self.rng.millis(0, 2000);
        let replica = &mut self.replicas[self.rng.below(2)];
        if replica.paused.is_none()
            && let Some(operator) = replica.operator.take()
        {
            // Its exit status does not matter: a fault may have killed it.
            operator.stop();
            replica.stopped = Some(Instant::now() + time);
        }
        "stops"
    }

    fn create_foreign_job(&mut self) -> &'static str {
        let (name, dataset) = (format!("foreign-{}", self.rng.below(1 << 30)), self.rng.below(DATASETS));
        self.env.service.put_job(
            &json!({"name": name, "datasetArn": dataset_arn(&format!("d{dataset}")), "status": "CREATE PENDING"}),
        );
        "foreign jobs"
    }

    fn clear_status(&mut self) -> &'static str {
        let (name, api) = (self.name(), self.env.api());
        let patch = Patch::Merge(json!({"status": null}));
        let _ = block_on(async move { api.patch_status(&name, &PatchParams::default(), &patch).await });
        "cleared statuses"
    }

    fn restart_api_server(&mut self) -> &'static str {
        self.env.control_plane.stop_component(Component::ApiServer).unwrap();
        self.recover(false);
        std::thread::sleep(self.rng.millis(0, 5000));
        self.env.control_plane.start_component(Component::ApiServer).unwrap();
        "API server restarts"
    }

    fn summary(&self) -> String {
        let actions: Vec<String> = self.actions.iter().map(|(action, count)| format!("{count} {action}")).collect();
        let accepted = accepted_creates(&self.env.service.ledger());
        let healthy = accepted.iter().filter(|create| create.job_name.starts_with("healthy-")).count();
        let (seconds, all) = (self.started.elapsed().as_secs(), accepted.len());
        format!("{seconds:4}s: {all} imports, {healthy} of them healthy; {}", actions.join(", "))
    }

    /// Ends the faults that are due, or all with `now`.
    fn recover(&mut self, now: bool) {
        if self.denied_until.take_if(|until| now || *until <= Instant::now()).is_some() {
            *self.denial.lock().unwrap() = None;
        }
        if let Some((name, _)) = self.deletion.take_if(|(_, until)| now || *until <= Instant::now()) {
            self.env.service.finish_data_deletion(&name);
        }
        self.replicas.iter_mut().for_each(|replica| replica.recover(&self.env, now));
    }

    /// Takes actions for this long. Returns the violations that it sees.
    fn run(&mut self, time: Duration) -> Vec<String> {
        let (mut reported, mut check_at) = (Instant::now(), Instant::now() + CHECK_INTERVAL);
        while self.started.elapsed() < time {
            self.act();
            self.recover(false);
            if reported.elapsed() > Duration::from_secs(5) {
                reported = Instant::now();
                println!("{}", self.summary());
            }
            if Instant::now() > check_at {
                let begin = Instant::now();
                let violations = self.env.violations_so_far();
                if !violations.is_empty() {
                    return violations;
                }
                check_at = Instant::now() + CHECK_INTERVAL.max(begin.elapsed() * 10);
            }
            std::thread::sleep(self.rng.millis(20, 300));
        }
        Vec::new()
    }

    /// Ends all faults and waits until every import has finished. Returns the violations that remain.
    fn settle(&mut self) -> Vec<String> {
        self.env.service.clear_faults();
        self.env.service.set_durations(50, 50);
        self.half_sent.clear();
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            self.recover(true);
            // Its imports can't all finish.
            self.remove_all(&self.noisy);
            let violations = self.env.settled_violations();
            if violations.is_empty() || Instant::now() > deadline {
                return violations;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

/// A random fault for a call.
fn random_fault(rng: &mut Rng, call: &Call) -> Fault {
    let retry = || vec![("retry-after", "1".to_owned())];
    let status = |code: u16, reason: &str| {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}).to_string()
    };
    let kubernetes = call.is_kubernetes();
    match rng.below(12) {
        0 | 1 => Fault::DropRequest,
        2 | 3 => Fault::DropResponse,
        // Shorter than the grace period.
        4 | 5 => Fault::Delay(rng.millis(10, 700)),
        6 => Fault::HangRequest,
        7 => Fault::HangResponse,
        8 => Fault::HangBody,
        9 if kubernetes => Fault::Respond(429, retry(), status(429, "TooManyRequests")),
        10 if kubernetes => Fault::Respond(500, Vec::new(), status(500, "InternalError")),
        11 if rng.one_in(2) => Fault::KillBefore,
        11 => Fault::KillAfter,
        _ => Fault::None,
    }
}

#[test]
fn random_workload_with_faults_violates_no_invariant() {
    let minutes = std::env::var("SOAK_MINUTES").ok().and_then(|minutes| minutes.parse::<u64>().ok());
    let (time, seed) = match minutes {
        Some(minutes) => (Duration::from_secs(60 * minutes), seed("SOAK_SEED")),
        None => (Duration::from_secs(25), 7),
    };
    println!("SOAK_SEED={seed} for {} s", time.as_secs());
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // An environment needs a static reference. This control plane is stopped at the end.
    let control_plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start(dir.path()).unwrap()));
    install_crd(control_plane);
    let mut soak = Soak::new(control_plane, seed);
    let mut violations = soak.run(time);
    println!("{}; settling", soak.summary());
    if violations.is_empty() {
        violations = soak.settle();
    }
    println!("{}", soak.summary());
    if !violations.is_empty() && std::env::var_os("SOAK_KEEP").is_some() {
        println!("kept in {} and {}", dir.keep().display(), soak.env.dir().display());
        std::mem::forget(soak);
        panic!("SOAK_SEED={seed}: {violations:#?}");
    }
    assert_eq!(violations, Vec::<String>::new(), "SOAK_SEED={seed}");
    assert!(soak.env.accepted_count() > 0, "nothing was imported");
    soak.env.check_invariants_settled();
    drop(soak);
    control_plane.shutdown();
}
