//! A long random workload with faults and kills from a seed. At the end all invariants are checked.
//!
//! `make soak MINUTES=…` runs it for longer. The seed determines the actions and their order; when they reach the
//! operator depends on the machine.

use crate::env::proxy::{Call, Fault, Proxy};
use crate::env::{OperatorProcess, TestEnv, block_on, dataset_arn, install_crd};
use crate::rng::{Rng, seed};
use control_plane::{Component, ControlPlane};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use personalize_operator::api::DatasetImportJob;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::time::{Duration, Instant};

const NAMES: usize = 16;
const DATASETS: usize = 6;
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
}

impl Replica {
    fn new(env: &TestEnv, identity: &'static str) -> Self {
        let dir = env.dir().join(identity);
        fs::create_dir_all(&dir).unwrap();
        let proxy = env.start_proxy_in(&dir);
        Self { identity, proxy, operator: None, paused: None, stopped: None, faulty: None }
    }

    fn start(&mut self, env: &TestEnv) {
        let identity = format!("--identity={}", self.identity);
        self.operator = Some(env.spawn_operator_behind(&self.proxy, &[&identity, "--log-level=info"]));
    }

    /// Ends the faults that are due, or all with `now`, and restarts an operator that has exited.
    fn recover(&mut self, env: &TestEnv, now: bool) {
        let is_due = |until: &mut Option<Instant>| until.take_if(|at| now || *at <= Instant::now()).is_some();
        if is_due(&mut self.faulty) {
            self.proxy.clear();
        }
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
}

impl Soak {
    fn new(control_plane: &'static ControlPlane, seed: u64) -> Self {
        let env = TestEnv::on(control_plane);
        let replicas = ["one", "two"].map(|identity| Replica::new(&env, identity));
        Self {
            env,
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
        let action = match self.rng.below(100) {
            0..30 => self.create_resource(),
            30..36 => self.delete(),
            36..44 => self.recreate(),
            44..54 => self.edit(),
            54..62 => self.annotate(),
            62..78 => self.inject_service_fault(),
            78..86 => self.inject_call_faults(),
            86..89 => self.kill(),
            89..92 => self.pause(),
            92..94 => self.stop(),
            94..97 => self.create_foreign_job(),
            97..99 => self.clear_status(),
            _ => self.restart_api_server(),
        };
        *self.actions.entry(action).or_default() += 1;
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
            "ListTagsForResource",
        ]);
        // The service makes these two mistakes in creates only.
        let is_create = operation == "CreateDatasetImportJob";
        if is_create || !(action.to_string().contains("noArn") || action.to_string().contains("notFoundFor")) {
            let count = 1 + self.rng.below(3);
            self.env.service.inject_fault(&json!({"operation": operation, "count": count, "action": action}));
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
        replica.proxy.inject(move |call| if rng.one_in(one_in) { random_fault(&mut rng, call) } else { Fault::None });
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
        // The lease expires after 3 s.
        let time = self.rng.millis(500, 6000);
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
        self.replicas.iter_mut().for_each(|replica| replica.recover(&self.env, false));
        std::thread::sleep(self.rng.millis(0, 5000));
        self.env.control_plane.start_component(Component::ApiServer).unwrap();
        "API server restarts"
    }

    fn summary(&self) -> String {
        let actions: Vec<String> = self.actions.iter().map(|(action, count)| format!("{count} {action}")).collect();
        let accepted = self.env.accepted_count();
        format!("{:4}s: {accepted} imports; {}", self.started.elapsed().as_secs(), actions.join(", "))
    }

    /// Takes actions for this long.
    fn run(&mut self, time: Duration) {
        let mut reported = Instant::now();
        while self.started.elapsed() < time {
            self.act();
            self.replicas.iter_mut().for_each(|replica| replica.recover(&self.env, false));
            if reported.elapsed() > Duration::from_secs(5) {
                reported = Instant::now();
                println!("{}", self.summary());
            }
            std::thread::sleep(self.rng.millis(20, 300));
        }
    }

    /// Ends all faults and waits until every import has finished. Returns the violations that remain.
    fn settle(&mut self) -> Vec<String> {
        self.env.service.clear_faults();
        self.env.service.set_durations(50, 50);
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            self.replicas.iter_mut().for_each(|replica| replica.recover(&self.env, true));
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
    soak.run(time);
    println!("{}; settling", soak.summary());
    let violations = soak.settle();
    println!("{}", soak.summary());
    if !violations.is_empty() && std::env::var_os("SOAK_KEEP").is_some() {
        println!("kept in {} and {}", dir.keep().display(), soak.env.dir().display());
        std::mem::forget(soak);
        panic!("SOAK_SEED={seed}: {violations:#?}");
    }
    assert_eq!(violations, Vec::<String>::new(), "SOAK_SEED={seed}");
    soak.env.check_invariants_settled();
    drop(soak);
    control_plane.shutdown();
}
