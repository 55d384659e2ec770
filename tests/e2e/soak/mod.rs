//! A long random workload with faults and kills from a seed. The invariants are checked during it, and all at the end.
//!
//! Four tenants share two replicas. The first does everything at random in its own region. Two misbehave: `noisy` floods,
//! writes huge and invalid resources, and imports into a region that fails; the API server fails status writes in
//! `denied`. Both share an account and region with `healthy`, whose imports must go at all times (invariant I). Calm
//! phases, in which no replica is disturbed, alternate with storms.
//!
//! `make soak MINUTES=…` runs it for longer. The seed determines the actions and their order; when they reach the
//! operator depends on the machine.

mod faults;
mod replica;
mod tenants;
mod users;

use crate::env::{REGION, TestEnv, block_on, dataset_arn, install_crd};
use crate::invariants::accepted_creates;
use crate::rng::{Rng, seed};
use control_plane::ControlPlane;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use personalize_operator::api::DatasetImportJob;
use replica::{Denial, Replica};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::net::TcpStream;
use std::sync::Arc;
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

    fn remove_all(&self, namespace: &str) {
        let api = self.api(namespace);
        let all = ListParams::default();
        let _ = block_on(async move { api.delete_collection(&DeleteParams::default(), &all).await });
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
