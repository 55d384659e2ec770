//! A long random life: people, faults and kills from a seed, and at the end the judge over all of it.
//!
//! `make soak MINUTES=…` runs it for long. The seed fixes what is done in which order; when it meets the
//! operator is up to the machine.

use crate::env::proxy::{Call, Fate, Proxy};
use crate::env::{Bed, Operator, block_on, dataset_arn, install_crd};
use crate::invariants;
use crate::rng::{Draw, seed};
use control_plane::{ControlPlane, Part};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use personalize_operator::api::DatasetImportJob;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::time::{Duration, Instant};

const NAMES: usize = 16;
const DATASETS: usize = 6;
/// How long everything may take to come to rest once the faults are over.
const PATIENCE: Duration = Duration::from_secs(300);

/// One of the two replicas of the operator, behind a proxy of its own.
struct Replica {
    identity: &'static str,
    proxy: Proxy,
    operator: Option<Operator>,
    /// It is halted until then.
    halted: Option<Instant>,
    /// It is down until then.
    down: Option<Instant>,
    /// Its calls go wrong until then.
    troubled: Option<Instant>,
}

impl Replica {
    fn new(bed: &Bed, identity: &'static str) -> Self {
        let dir = bed.dir().join(identity);
        fs::create_dir_all(&dir).unwrap();
        let proxy = Proxy::start(&dir, &bed.plane.kubeconfig(), bed.service.url());
        Self { identity, proxy, operator: None, halted: None, down: None, troubled: None }
    }

    fn start(&mut self, bed: &Bed) {
        let identity = format!("--identity={}", self.identity);
        self.operator = Some(bed.operator_behind(&self.proxy, &[&identity, "--log-level=info"]));
    }

    /// Brings it back when its time has come; with `now` at once.
    fn tend(&mut self, bed: &Bed, now: bool) {
        let over = |until: &mut Option<Instant>| until.take_if(|at| now || *at <= Instant::now()).is_some();
        if over(&mut self.troubled) {
            self.proxy.pass();
        }
        if over(&mut self.halted)
            && let Some(operator) = &self.operator
        {
            operator.signal("-CONT");
        }
        // A proxy may have killed it.
        if self.halted.is_none() && self.operator.as_mut().is_some_and(Operator::has_ended) {
            self.operator = None;
        }
        if over(&mut self.down) || self.operator.is_none() && self.down.is_none() {
            self.start(bed);
        }
    }
}

struct Soak {
    bed: Bed,
    draw: Draw,
    replicas: [Replica; 2],
    /// The manifest that a name had last.
    manifests: HashMap<String, Value>,
    done: BTreeMap<&'static str, usize>,
    began: Instant,
}

impl Soak {
    fn new(plane: &'static ControlPlane, seed: u64) -> Self {
        let bed = Bed::on(plane);
        let replicas = ["one", "two"].map(|identity| Replica::new(&bed, identity));
        Self {
            bed,
            draw: Draw::new(seed),
            replicas,
            manifests: HashMap::new(),
            done: BTreeMap::new(),
            began: Instant::now(),
        }
    }

    fn name(&mut self) -> String {
        format!("import-{}", self.draw.below(NAMES))
    }

    /// One thing happens.
    fn act(&mut self) {
        let what = match self.draw.below(100) {
            0..30 => self.make(),
            30..36 => self.delete(),
            36..44 => self.make_again(),
            44..54 => self.edit(),
            54..62 => self.annotate(),
            62..78 => self.trouble_service(),
            78..86 => self.trouble_calls(),
            86..89 => self.kill(),
            89..92 => self.halt(),
            92..94 => self.stop(),
            94..97 => self.foreign_job(),
            97..99 => self.wipe_status(),
            _ => self.restart_api_server(),
        };
        *self.done.entry(what).or_default() += 1;
    }

    fn create(&self, manifest: Value) {
        let (api, job) = (self.bed.api(), serde_json::from_value::<DatasetImportJob>(manifest).unwrap());
        // Here and below: an API server that is away, or a name that is taken or not there, is part of it.
        let _ = block_on(async move { api.create(&PostParams::default(), &job).await });
    }

    fn patch(&self, name: &str, patch: Value) {
        let (api, name) = (self.bed.api(), name.to_owned());
        let _ = block_on(async move { api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await });
    }

    fn remove(&self, name: &str) {
        let (api, name) = (self.bed.api(), name.to_owned());
        let _ = block_on(async move { api.delete(&name, &DeleteParams::default()).await });
    }

    fn make(&mut self) -> &'static str {
        let name = self.name();
        let dataset = format!("d{}", self.draw.below(DATASETS));
        let file = self.draw.of(&["interactions", "interactions", "interactions", "few", "no-item"]);
        let mut spec = json!({
            "dataSource": {"dataLocation": format!("s3://bucket/{file}.csv")},
            "importMode": self.draw.of(&["FULL", "INCREMENTAL"]),
            "backoffLimit": self.draw.below(3),
            "suspend": self.draw.once_in(10),
        });
        if self.draw.once_in(6) {
            spec["jobName"] = json!(format!("chosen-{name}-{}", self.draw.below(3)));
        }
        let manifest = Bed::manifest(&name, &dataset, spec);
        // As tools do it that replace what they can't change.
        self.remove(&name);
        self.create(manifest.clone());
        self.manifests.insert(name, manifest);
        "made"
    }

    fn make_again(&mut self) -> &'static str {
        let name = self.name();
        if let Some(manifest) = self.manifests.get(&name).cloned() {
            self.remove(&name);
            self.create(manifest);
        }
        "made again"
    }

    fn delete(&mut self) -> &'static str {
        let name = self.name();
        self.remove(&name);
        "deleted"
    }

    fn edit(&mut self) -> &'static str {
        let name = self.name();
        let patch = match self.draw.below(4) {
            0 => json!({"spec": {"suspend": true}}),
            1 => json!({"spec": {"suspend": false}}),
            2 => json!({"spec": {"backoffLimit": self.draw.below(4)}}),
            _ => json!({"metadata": {"labels": {"edit": self.draw.below(1000).to_string()}}}),
        };
        self.patch(&name, patch);
        "edited"
    }

    fn annotate(&mut self) -> &'static str {
        let name = self.name();
        let key = self.draw.of(&["reconcile-requested-at", "retry-requested-at"]);
        let value = self.draw.below(1_000_000).to_string();
        self.patch(&name, json!({"metadata": {"annotations": {format!("personalize-operator.io/{key}"): value}}}));
        "annotated"
    }

    fn trouble_service(&mut self) -> &'static str {
        let error =
            |code: &str, status: u16| json!({"error": {"code": code, "message": "as ordered", "status": status}});
        let quota = "More than 5 resources with PENDING or IN_PROGRESS status.";
        let action = self.draw.of(&[
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
        let operation = self.draw.of(&[
            "CreateDatasetImportJob",
            "CreateDatasetImportJob",
            "DescribeDatasetImportJob",
            "DescribeDataset",
            "ListDatasetImportJobs",
            "ListTagsForResource",
        ]);
        // Elsewhere these two would be lies that the service does not tell.
        let create = operation == "CreateDatasetImportJob";
        if create || !(action.to_string().contains("noArn") || action.to_string().contains("notFoundFor")) {
            let count = 1 + self.draw.below(3);
            self.bed.service.fault(&json!({"operation": operation, "count": count, "action": action}));
        }
        if self.draw.once_in(4) {
            let (pending, running) = (self.draw.below(1500), self.draw.below(2500));
            self.bed.service.durations(u64::try_from(pending).unwrap(), u64::try_from(running).unwrap());
        }
        "faults of the service"
    }

    fn trouble_calls(&mut self) -> &'static str {
        let mut draw = Draw::new(u64::try_from(self.draw.below(1 << 30)).unwrap());
        let one_in = 4 + self.draw.below(40);
        let time = self.draw.millis(300, 4000);
        let replica = &mut self.replicas[self.draw.below(2)];
        replica.proxy.rule(move |call| if draw.once_in(one_in) { mishap(&mut draw, call) } else { Fate::Pass });
        replica.troubled = Some(Instant::now() + time);
        "troubled networks"
    }

    fn kill(&mut self) -> &'static str {
        let time = self.draw.millis(0, 5000);
        let replica = &mut self.replicas[self.draw.below(2)];
        if let Some(operator) = replica.operator.take() {
            operator.kill();
        }
        (replica.halted, replica.down) = (None, Some(Instant::now() + time));
        "kills"
    }

    fn halt(&mut self) -> &'static str {
        // The lease lives for 3 s.
        let time = self.draw.millis(500, 6000);
        let replica = &mut self.replicas[self.draw.below(2)];
        if let Some(operator) = replica.operator.as_mut().filter(|_| replica.halted.is_none())
            && !operator.has_ended()
        {
            operator.signal("-STOP");
            replica.halted = Some(Instant::now() + time);
        }
        "halts"
    }

    fn stop(&mut self) -> &'static str {
        let time = self.draw.millis(0, 2000);
        let replica = &mut self.replicas[self.draw.below(2)];
        if replica.halted.is_none()
            && let Some(operator) = replica.operator.take()
        {
            // Whether it ends well is for other tests: here its proxy may have killed it.
            operator.stop();
            replica.down = Some(Instant::now() + time);
        }
        "stops"
    }

    fn foreign_job(&mut self) -> &'static str {
        let (name, dataset) = (format!("elsewhere-{}", self.draw.below(1 << 30)), self.draw.below(DATASETS));
        self.bed.service.put_job(
            &json!({"name": name, "datasetArn": dataset_arn(&format!("d{dataset}")), "status": "CREATE PENDING"}),
        );
        "foreign jobs"
    }

    fn wipe_status(&mut self) -> &'static str {
        let (name, api) = (self.name(), self.bed.api());
        let patch = Patch::Merge(json!({"status": null}));
        let _ = block_on(async move { api.patch_status(&name, &PatchParams::default(), &patch).await });
        "wiped statuses"
    }

    fn restart_api_server(&mut self) -> &'static str {
        self.bed.plane.stop_part(Part::ApiServer).unwrap();
        self.replicas.iter_mut().for_each(|replica| replica.tend(&self.bed, false));
        std::thread::sleep(self.draw.millis(0, 5000));
        self.bed.plane.start_part(Part::ApiServer).unwrap();
        "restarts of the API server"
    }

    fn told(&self) -> String {
        let done: Vec<String> = self.done.iter().map(|(what, count)| format!("{count} {what}")).collect();
        let accepted = invariants::accepted(&self.bed.service.ledger()).len();
        format!("{:4}s: {accepted} imports; {}", self.began.elapsed().as_secs(), done.join(", "))
    }

    /// Things happen for so long.
    fn run(&mut self, time: Duration) {
        let mut told = Instant::now();
        while self.began.elapsed() < time {
            self.act();
            self.replicas.iter_mut().for_each(|replica| replica.tend(&self.bed, false));
            if told.elapsed() > Duration::from_secs(5) {
                told = Instant::now();
                println!("{}", self.told());
            }
            std::thread::sleep(self.draw.millis(20, 300));
        }
    }

    /// Nothing happens any more, and everything comes to rest.
    fn settle(&mut self) -> Vec<String> {
        self.bed.service.clear_faults();
        self.bed.service.durations(50, 50);
        let end = Instant::now() + PATIENCE;
        loop {
            self.replicas.iter_mut().for_each(|replica| replica.tend(&self.bed, true));
            let faults = self.bed.faults_settled();
            if faults.is_empty() || Instant::now() > end {
                return faults;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

/// What may go wrong with a call.
fn mishap(draw: &mut Draw, call: &Call) -> Fate {
    let retry = || vec![("retry-after", "1".to_owned())];
    let status = |code: u16, reason: &str| {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}).to_string()
    };
    let kubernetes = call.label.contains(' ');
    match draw.below(12) {
        0 | 1 => Fate::Break,
        2 | 3 => Fate::Lose,
        // Below the time for which a late job is awaited.
        4 | 5 => Fate::Delay(draw.millis(10, 700)),
        6 => Fate::Silence,
        7 => Fate::Forget,
        8 => Fate::Freeze,
        9 if kubernetes => Fate::Answer(429, retry(), status(429, "TooManyRequests")),
        10 if kubernetes => Fate::Answer(500, Vec::new(), status(500, "InternalError")),
        11 if draw.once_in(2) => Fate::KillBefore,
        11 => Fate::KillAfter,
        _ => Fate::Pass,
    }
}

#[test]
fn a_random_life_breaks_no_invariant() {
    let minutes = std::env::var("SOAK_MINUTES").ok().and_then(|minutes| minutes.parse::<u64>().ok());
    let (time, seed) = match minutes {
        Some(minutes) => (Duration::from_secs(60 * minutes), seed("SOAK_SEED")),
        None => (Duration::from_secs(25), 7),
    };
    println!("SOAK_SEED={seed} for {} s", time.as_secs());
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // Beds keep their control plane for good; this one is stopped by hand at the end.
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start(dir.path()).unwrap()));
    install_crd(plane);
    let mut soak = Soak::new(plane, seed);
    soak.run(time);
    println!("{}; coming to rest", soak.told());
    let faults = soak.settle();
    println!("{}", soak.told());
    if !faults.is_empty() && std::env::var_os("SOAK_KEEP").is_some() {
        println!("kept in {} and {}", dir.keep().display(), soak.bed.dir().display());
        std::mem::forget(soak);
        panic!("SOAK_SEED={seed}: {faults:#?}");
    }
    assert_eq!(faults, Vec::<String>::new(), "SOAK_SEED={seed}");
    soak.bed.judged_settled();
    drop(soak);
    plane.shutdown();
}
