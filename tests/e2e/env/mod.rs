//! What a test works on: a namespace of the shared control plane, a stand-in service of its own, and
//! the real operator as a process.

pub mod personalize_local;
pub mod proxy;

use crate::invariants::{self, Books};
use control_plane::{ControlPlane, Tethered, shared, tether};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use personalize_operator::api::{DatasetImportJob, DatasetImportJobStatus};
use proxy::Proxy;
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, Once, OnceLock, mpsc};
use std::time::{Duration, Instant};

pub const ACCOUNT: &str = "123456789012";
pub const REGION: &str = "eu-west-1";
pub const ROLE: &str = "arn:aws:iam::123456789012:role/Reader";
/// These stand for a person's patience, not for how long anything takes.
const PATIENCE: Duration = Duration::from_secs(300);

/// Waits for a condition with a generous limit.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "gave up waiting: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn plane() -> &'static ControlPlane {
    static CRD: Once = Once::new();
    let plane = shared(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap_or_else(|e| panic!("{e}"));
    CRD.call_once(|| install_crd(plane));
    plane
}

pub fn install_crd(plane: &ControlPlane) {
    // At run time: checkouts may share what they compile.
    let crds = format!("{}/crds", std::env::var("CARGO_MANIFEST_DIR").unwrap());
    let applied = plane.kubectl(&["apply", "--server-side", "-f", &crds], None).unwrap();
    assert!(applied.status.success(), "{}", text(&applied));
    assert!(!text(&applied).contains("Warning"), "the API server takes the CRD without a warning: {}", text(&applied));
    let wait =
        ["wait", "--for=condition=Established", "crd", "datasetimportjobs.personalize-operator.io", "--timeout=60s"];
    assert!(plane.kubectl(&wait, None).unwrap().status.success());
    // Established comes before discovery and the schema are served.
    let explain = ["explain", "datasetimportjobs", "--api-version=personalize-operator.io/v1alpha1"];
    eventually("the API server explains the resource", || {
        plane.kubectl(&explain, None).unwrap().status.success().then_some(())
    });
}

/// Runs a future to its end, from a thread or from within a runtime.
pub fn block_on<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().unwrap());
    let (sender, receiver) = mpsc::channel();
    runtime.spawn(async move { sender.send(future.await) });
    receiver.recv().unwrap()
}

/// The administrator's client. Tests read with it, because kubectl takes a tenth of a second to start.
fn client(plane: &ControlPlane) -> Client {
    let kubeconfig = Kubeconfig::read_from(plane.kubeconfig()).unwrap();
    block_on(async {
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.connect_timeout = Some(Duration::from_secs(5));
        config.read_timeout = Some(Duration::from_secs(60));
        config.default_retry = false;
        Client::try_from(config).unwrap()
    })
}

/// Both outputs of a command.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A running operator.
pub struct Operator {
    process: Tethered,
    log: PathBuf,
    pub url: String,
}

impl Operator {
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits for its end, which somebody else brings.
    pub fn ended(mut self) {
        eventually("the operator has ended", || self.process.child().try_wait().unwrap());
    }

    /// Whether somebody else has brought its end.
    pub fn has_ended(&mut self) -> bool {
        self.process.child().try_wait().unwrap().is_some()
    }

    pub fn signal(&self, signal: &str) {
        let sent = std::process::Command::new("kill").args([signal, &self.pid().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    pub fn kill(mut self) {
        self.process.kill().unwrap();
    }

    /// Sends SIGTERM and waits for the end; tells whether it ended by itself and well.
    pub fn stop(mut self) -> bool {
        self.process.stop(Duration::from_secs(60)).unwrap().success()
    }

    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        http("GET", &format!("{}{path}", self.url), "")
    }

    pub fn ready(&self) -> bool {
        self.get("/readyz").is_some_and(|(status, _)| status == 200)
    }
}

/// The smallest HTTP client that serves here.
pub fn http(method: &str, url: &str, body: &str) -> Option<(u16, String)> {
    use std::io::{Read, Write};
    let rest = url.strip_prefix("http://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = std::net::TcpStream::connect(host).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(
        stream,
        "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

static NAMESPACES: AtomicU32 = AtomicU32::new(0);
static OPERATORS: AtomicU32 = AtomicU32::new(0);

/// A namespace, a service, and the files of both.
pub struct Bed {
    pub namespace: String,
    pub plane: &'static ControlPlane,
    pub service: personalize_local::Service,
    pub client: Client,
    dir: tempfile::TempDir,
    operators: AtomicU32,
    /// Process and URL of each operator that was started.
    started: Mutex<Vec<(u32, String)>>,
    made_in: &'static str,
    judged: AtomicBool,
}

/// No test of a fault forgets the judge.
impl Drop for Bed {
    fn drop(&mut self) {
        let forgotten = self.made_in.contains("/faults/") && !self.judged.load(Ordering::Relaxed);
        assert!(!forgotten || std::thread::panicking(), "a fault was staged, and the judge was not asked");
    }
}

impl Bed {
    #[track_caller]
    pub fn new() -> Self {
        Self::on(plane())
    }

    #[track_caller]
    pub fn on(plane: &'static ControlPlane) -> Self {
        let dir = tempfile::Builder::new().prefix("bed-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let namespace = format!("test-{}-{}", std::process::id(), NAMESPACES.fetch_add(1, Ordering::Relaxed));
        let made = plane.kubectl(&["create", "namespace", &namespace], None).unwrap();
        assert!(made.status.success(), "{}", text(&made));
        let service = personalize_local::Service::start(dir.path());
        Self {
            namespace,
            plane,
            service,
            client: client(plane),
            dir,
            operators: AtomicU32::new(0),
            started: Mutex::default(),
            made_in: Location::caller().file(),
            judged: AtomicBool::new(false),
        }
    }

    /// A directory of this test's own.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn kubectl(&self, args: &[&str]) -> Output {
        let args: Vec<&str> = ["-n", &self.namespace].into_iter().chain(args.iter().copied()).collect();
        self.plane.kubectl(&args, None).unwrap()
    }

    pub fn try_apply(&self, manifest: &Value) -> Output {
        self.plane.kubectl(&["-n", &self.namespace, "apply", "-f", "-"], Some(&manifest.to_string())).unwrap()
    }

    pub fn apply(&self, manifest: &Value) {
        let applied = self.try_apply(manifest);
        assert!(applied.status.success(), "{}", text(&applied));
    }

    /// A valid manifest; `edit` changes its spec.
    pub fn manifest(name: &str, dataset: &str, edit: Value) -> Value {
        let mut manifest = json!({
            "apiVersion": "personalize-operator.io/v1alpha1",
            "kind": "DatasetImportJob",
            "metadata": {"name": name},
            "spec": {
                "datasetArn": dataset_arn(dataset),
                "dataSource": {"dataLocation": "s3://bucket/interactions.csv"},
                "roleArn": ROLE,
            },
        });
        if let (Some(spec), Value::Object(edit)) = (manifest["spec"].as_object_mut(), edit) {
            spec.extend(edit);
        }
        manifest
    }

    pub fn import(&self, name: &str, dataset: &str, edit: Value) {
        self.apply(&Self::manifest(name, dataset, edit));
    }

    pub fn get(&self, name: &str) -> Option<DatasetImportJob> {
        let (api, name) = (self.api(), name.to_owned());
        // An API server that is away tells as little as one that knows no such resource.
        block_on(async move { api.get_opt(&name).await.ok().flatten() })
    }

    pub fn api(&self) -> Api<DatasetImportJob> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn status(&self, name: &str) -> DatasetImportJobStatus {
        self.get(name).and_then(|job| job.status).unwrap_or_default()
    }

    pub fn delete(&self, name: &str) {
        let deleted = self.kubectl(&["delete", "datasetimportjobs", name]);
        assert!(deleted.status.success(), "{}", text(&deleted));
    }

    pub fn annotate(&self, name: &str, annotation: &str) {
        let done = self.kubectl(&["annotate", "--overwrite", "datasetimportjobs", name, annotation]);
        assert!(done.status.success(), "{}", text(&done));
    }

    pub fn patch(&self, name: &str, patch: &Value) {
        let done = self.kubectl(&["patch", "datasetimportjobs", name, "--type=merge", "-p", &patch.to_string()]);
        assert!(done.status.success(), "{}", text(&done));
    }

    /// Waits for the reason that the Ready condition tells.
    pub fn until(&self, name: &str, reason: &str) -> DatasetImportJobStatus {
        let mut last = String::new();
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let status = self.status(name);
            let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
            if ready.is_some_and(|c| c.reason == reason) {
                return status;
            }
            last = format!("{:?}", ready.map(|c| (&c.reason, &c.message)));
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{name} does not become {reason}; last seen: {last}");
    }

    /// Waits until the Ready condition's message tells this, and gives the whole message.
    pub fn until_told(&self, name: &str, what: &str) -> String {
        let (end, mut told) = (Instant::now() + PATIENCE, String::new());
        while Instant::now() < end {
            let ready = self.status(name).conditions.into_iter().find(|c| c.type_ == "Ready");
            told = ready.map(|c| c.message).unwrap_or_default();
            if told.contains(what) {
                return told;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{name} does not tell {what}; last seen: {told}");
    }

    pub fn events(&self, name: &str) -> Vec<String> {
        let output =
            self.kubectl(&["get", "events", "-o", "json", "--field-selector", &format!("involvedObject.name={name}")]);
        let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let events = list["items"].as_array().cloned().unwrap_or_default();
        events.iter().map(|e| e["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Starts an operator for this namespace alone, with delays fit for tests, and waits until it
    /// answers. `extra` goes on its command line.
    pub fn operator(&self, extra: &[&str]) -> Operator {
        self.operator_with(&[], extra)
    }

    /// The same, with other variables in its environment.
    pub fn operator_with(&self, env: &[(&str, &str)], extra: &[&str]) -> Operator {
        let operator = self.start(env, extra);
        eventually("the operator is ready", || operator.ready().then_some(()));
        operator
    }

    /// Starts an operator that may have to wait for something before it is ready.
    pub fn operator_unready(&self) -> Operator {
        self.start(&[], &[])
    }

    /// The same, with other variables in its environment.
    pub fn operator_unready_with(&self, env: &[(&str, &str)]) -> Operator {
        self.start(env, &[])
    }

    /// Starts an operator and doesn't wait.
    fn start(&self, env: &[(&str, &str)], extra: &[&str]) -> Operator {
        // On an address of its own: no connection out of this machine takes the port before it is bound again.
        let many = OPERATORS.fetch_add(1, Ordering::Relaxed);
        let host = format!("127.{}.{}.{}", 64 + std::process::id() % 64, many / 250 % 250, 1 + many % 250);
        let listen = TcpListener::bind((host, 0)).unwrap().local_addr().unwrap();
        let number = self.operators.fetch_add(1, Ordering::Relaxed);
        let log = self.dir.path().join(format!("operator-{number}.log"));
        let mut args: Vec<String> = [
            "run",
            "--log-level=info,personalize_operator=debug",
            "--lease-duration=3s",
            "--poll-min=100ms",
            "--poll-max=300ms",
            "--grace=5s",
            "--backoff-min=200ms",
            "--backoff-max=1s",
            "--rejected-min=2s",
            "--rejected-max=4s",
            "--retry-min=100ms",
            "--aws-connect-timeout=2s",
            "--aws-read-timeout=2s",
            "--aws-timeout=3s",
            "--kube-timeout=5s",
            "--watch-timeout=10s",
        ]
        .map(String::from)
        .to_vec();
        args.push(format!("--watch-namespaces={}", self.namespace));
        args.push(format!("--lease-namespace={}", self.namespace));
        args.push(format!("--listen={listen}"));
        // A later flag overrides an earlier one only if the parser lets it.
        args.retain(|arg| !extra.iter().any(|e| arg.split('=').next() == e.split('=').next()));
        args.extend(extra.iter().map(|s| (*s).to_owned()));
        let out = fs::File::create(&log).unwrap();
        let process = tether(Path::new(env!("CARGO_BIN_EXE_personalize-operator")), &args, |command| {
            command
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("KUBECONFIG", self.plane.kubeconfig())
                .env("AWS_ENDPOINT_URL_PERSONALIZE", self.service.url())
                .env("AWS_ACCESS_KEY_ID", personalize_local::ACCESS_KEY)
                .env("AWS_SECRET_ACCESS_KEY", personalize_local::SECRET_KEY)
                .env("AWS_EC2_METADATA_DISABLED", "true")
                .envs(env.iter().copied())
                .stdout(out.try_clone().unwrap())
                .stderr(out);
        })
        .unwrap();
        let url = format!("http://{listen}");
        self.started.lock().unwrap().push((process.pid(), url.clone()));
        Operator { process, log, url }
    }

    /// No invariant is broken.
    pub fn judged(&self) {
        let (ledger, jobs, writes) = (self.service.ledger(), self.service.jobs(), self.writes());
        let books = Books { ledger: &ledger, jobs: &jobs, writes: &writes, ..Books::default() };
        self.judged_by(invariants::judge_books(&books));
    }

    /// No invariant is broken, and everything that can end has ended.
    pub fn judged_settled(&self) {
        self.judged_by(self.faults_settled());
    }

    /// Nothing was found in the books, nor is there anything in what the operators tell and take.
    pub fn judged_by(&self, mut faults: Vec<String>) {
        self.judged.store(true, Ordering::Relaxed);
        faults.extend(self.faults_of_operators());
        assert_eq!(faults, Vec::<String>::new());
    }

    /// Which invariants are broken, and what has not ended.
    pub fn faults_settled(&self) -> Vec<String> {
        let output = self.kubectl(&["get", "datasetimportjobs", "-o", "json"]);
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        let resources = list["items"].as_array().cloned().unwrap_or_default();
        let (_, faults) = http("GET", &format!("{}/_local/faults", self.service.url()), "").unwrap();
        let faults: Vec<Value> = serde_json::from_str(&faults).unwrap();
        let (ledger, jobs, writes) = (self.service.ledger(), self.service.jobs(), self.writes());
        invariants::judge_settled(&Books {
            ledger: &ledger,
            jobs: &jobs,
            faults: &faults,
            writes: &writes,
            resources: &resources,
        })
    }

    /// F beyond statuses: no event, log line or metric holds a secret. And G: the memory of each operator that lives.
    fn faults_of_operators(&self) -> Vec<String> {
        let started = self.started.lock().unwrap().clone();
        let logs = (0..started.len())
            .map(|number| fs::read_to_string(self.dir().join(format!("operator-{number}.log"))).unwrap())
            .collect::<Vec<_>>();
        let metrics = started.iter().filter_map(|(_, url)| Some(http("GET", &format!("{url}/metrics"), "")?.1));
        let events = invariants::events(&self.plane.audit_log(), &self.namespace);
        let mut faults = invariants::told(&events, &logs, &metrics.collect::<Vec<_>>());
        faults.extend(invariants::bounded_memory(
            &started.iter().filter_map(|(pid, _)| most_memory(*pid)).collect::<Vec<_>>(),
        ));
        faults
    }

    /// How many imports the service has accepted.
    pub fn accepted(&self) -> usize {
        invariants::accepted(&self.service.ledger()).len()
    }

    /// Starts a proxy before the API server and the service.
    pub fn proxy(&self) -> Proxy {
        Proxy::start(self.dir.path(), &self.plane.kubeconfig(), self.service.url())
    }

    /// Starts an operator behind a proxy. It leads at once, for it is the same replica unless told otherwise.
    pub fn operator_behind(&self, proxy: &Proxy, extra: &[&str]) -> Operator {
        self.operator_behind_with(proxy, &[], extra)
    }

    /// The same, with other variables in its environment.
    pub fn operator_behind_with(&self, proxy: &Proxy, env: &[(&str, &str)], extra: &[&str]) -> Operator {
        let kubeconfig = proxy.kubeconfig.display().to_string();
        let to_proxy = [("KUBECONFIG", kubeconfig.as_str()), ("AWS_ENDPOINT_URL_PERSONALIZE", &proxy.service_url)];
        let env: Vec<(&str, &str)> = to_proxy.into_iter().chain(env.iter().copied()).collect();
        let named = extra.iter().any(|arg| arg.starts_with("--identity="));
        let identity = (!named).then_some("--identity=one");
        let extra: Vec<&str> = identity.into_iter().chain(extra.iter().copied()).collect();
        let operator = self.start(&env, &extra);
        proxy.victim(operator.pid());
        operator
    }

    /// The writes to resources that the API server's audit log tells, in this namespace.
    pub fn writes(&self) -> Vec<Value> {
        invariants::writes(&self.plane.audit_log(), &self.namespace)
    }
}

/// The most memory that an operator has had so far, in kB; nothing if it has ended.
fn most_memory(pid: u32) -> Option<u64> {
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok().filter(|_| program.ends_with("personalize-operator"))
}

pub fn dataset_arn(name: &str) -> String {
    format!("arn:aws:personalize:{REGION}:{ACCOUNT}:dataset/shop/{name}")
}
