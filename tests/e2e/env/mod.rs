//! The environment of one test: a namespace on a real control plane, a stand-in for Amazon Personalize, and the
//! real operator as a process.

mod checker;
pub mod moto;
mod operator;
pub mod personalize_local;
pub mod proxy;
#[path = "../../personalize-local/tests/python/mod.rs"]
#[allow(dead_code, reason = "the tests of the stand-in use the rest")]
mod python;
pub mod recorder;
pub mod s3;
pub mod tls;

use crate::invariants::{self, Disturbance, Footprint};
use checker::Started;
use control_plane::{ChildGuard, ControlPlane, shared};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
pub use operator::OperatorProcess;
use personalize_local::PersonalizeLocal;
use personalize_operator::api::{DatasetImportJob, DatasetImportJobStatus};
use proxy::Proxy;
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::panic::Location;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock, mpsc};
use std::time::{Duration, Instant};

pub const ACCOUNT: &str = "123456789012";
pub const REGION: &str = "eu-west-1";
pub const ROLE: &str = "arn:aws:iam::123456789012:role/Reader";
/// A flag for tests in which a lease is lost or expires. With the default, no machine is busy enough to lose one.
pub const SHORT_LEASE: &str = "--lease-duration=3s";
/// Flags for tests in which a call never gets an answer. With the defaults, no machine is busy enough for a timeout.
pub const SHORT_TIMEOUTS: [&str; 4] =
    ["--aws-connect-timeout=2s", "--aws-read-timeout=2s", "--aws-timeout=3s", "--kube-timeout=5s"];
/// When a test gives up waiting. No test measures this time.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Polls until a condition holds. `what` names the condition in the failure message.
pub fn eventually<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The control plane that all tests of this process share, with the CRD installed.
pub fn shared_control_plane() -> &'static ControlPlane {
    static CRD: Once = Once::new();
    let control_plane = shared(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap_or_else(|e| panic!("{e}"));
    CRD.call_once(|| install_crd(control_plane));
    control_plane
}

pub fn install_crd(control_plane: &ControlPlane) {
    // Read at run time, because several checkouts may share compiled tests.
    let crds = format!("{}/crds", std::env::var("CARGO_MANIFEST_DIR").unwrap());
    let applied = control_plane.kubectl(&["apply", "--server-side", "-f", &crds], None).unwrap();
    assert!(applied.status.success(), "{}", text(&applied));
    assert!(!text(&applied).contains("Warning"), "the API server warns about the CRD: {}", text(&applied));
    let wait =
        ["wait", "--for=condition=Established", "crd", "datasetimportjobs.personalize-operator.io", "--timeout=60s"];
    assert!(control_plane.kubectl(&wait, None).unwrap().status.success());
    // The CRD is Established before discovery and the schema are served.
    let explain = ["explain", "datasetimportjobs", "--api-version=personalize-operator.io/v1alpha1"];
    eventually("the API server explains the resource", || {
        control_plane.kubectl(&explain, None).unwrap().status.success().then_some(())
    });
}

/// Runs a future to completion, from any thread, also from within a runtime.
pub fn block_on<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().unwrap());
    let (sender, receiver) = mpsc::channel();
    runtime.spawn(async move { sender.send(future.await) });
    receiver.recv().unwrap()
}

/// The administrator's client. Tests use it for what they do often, because kubectl takes 100 ms to start.
fn admin_client(control_plane: &ControlPlane) -> Client {
    let kubeconfig = Kubeconfig::read_from(control_plane.kubeconfig()).unwrap();
    block_on(async {
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.connect_timeout = Some(Duration::from_secs(5));
        config.read_timeout = Some(Duration::from_secs(60));
        config.default_retry = false;
        Client::try_from(config).unwrap()
    })
}

fn create_namespace(client: &Client, name: &str) {
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    let api: Api<Namespace> = Api::all(client.clone());
    block_on(async move { api.create(&PostParams::default(), &namespace).await }).unwrap();
}

/// Standard output and standard error of a command.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A minimal HTTP client: one request per connection. Returns status and body.
pub fn http(method: &str, url: &str, body: &str) -> Option<(u16, String)> {
    http_with(method, url, "Content-Type: application/json", body)
}

/// One request with these header lines.
pub fn http_with(method: &str, url: &str, header: &str, body: &str) -> Option<(u16, String)> {
    use std::io::{Read, Write};
    let rest = url.strip_prefix("http://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = std::net::TcpStream::connect(host).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(
        stream,
        "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{header}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    let status = response.split(' ').nth(1)?.parse().ok()?;
    Some((status, response.split_once("\r\n\r\n")?.1.to_owned()))
}

pub fn dataset_arn(name: &str) -> String {
    format!("arn:aws:personalize:{REGION}:{ACCOUNT}:dataset/shop/{name}")
}

pub fn ready_condition(status: &DatasetImportJobStatus) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == "Ready")
}

static NAMESPACES: AtomicU32 = AtomicU32::new(0);
static OPERATORS: AtomicU32 = AtomicU32::new(0);

/// A namespace, a stand-in service, and the files of both.
pub struct TestEnv {
    pub namespace: String,
    pub control_plane: &'static ControlPlane,
    pub service: PersonalizeLocal,
    pub client: Client,
    dir: tempfile::TempDir,
    /// More namespaces that its operators watch.
    tenants: Vec<String>,
    started: Mutex<Vec<Started>>,
    disturbances: Arc<Mutex<Vec<Disturbance>>>,
    created_in: &'static str,
    checked: AtomicBool,
}

impl Drop for TestEnv {
    fn drop(&mut self) {
        let unchecked = self.created_in.contains("/faults/") && !self.checked.load(Ordering::Relaxed);
        assert!(!unchecked || std::thread::panicking(), "a fault test must check the invariants");
    }
}

impl TestEnv {
    /// An environment on the shared control plane.
    #[track_caller]
    pub fn new() -> Self {
        Self::on(shared_control_plane())
    }

    #[track_caller]
    pub fn on(control_plane: &'static ControlPlane) -> Self {
        Self::with_seed(control_plane, &Value::Null)
    }

    /// An environment whose stand-in has these settings in its seed.
    #[track_caller]
    pub fn with_seed(control_plane: &'static ControlPlane, settings: &Value) -> Self {
        Self::with_sts(control_plane, settings, None)
    }

    /// The same, with an STS behind the stand-in: `/_local/sts` forwards to this URL.
    #[track_caller]
    pub fn with_sts(control_plane: &'static ControlPlane, settings: &Value, sts: Option<&str>) -> Self {
        let dir = tempfile::Builder::new().prefix("env-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let namespace = format!("test-{}-{}", std::process::id(), NAMESPACES.fetch_add(1, Ordering::Relaxed));
        let client = admin_client(control_plane);
        create_namespace(&client, &namespace);
        Self {
            namespace,
            control_plane,
            service: PersonalizeLocal::start(dir.path(), settings, sts),
            client,
            dir,
            tenants: Vec::new(),
            started: Mutex::default(),
            disturbances: Arc::default(),
            created_in: Location::caller().file(),
            checked: AtomicBool::new(false),
        }
    }

    /// Adds a namespace that the operators started from now on watch, too. Returns its name.
    pub fn add_tenant(&mut self, name: &str) -> String {
        let namespace = format!("{}-{name}", self.namespace);
        create_namespace(&self.client, &namespace);
        self.tenants.push(namespace.clone());
        namespace
    }

    fn namespaces(&self) -> impl Iterator<Item = &str> {
        [&self.namespace].into_iter().chain(&self.tenants).map(String::as_str)
    }

    /// A temporary directory of this test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn kubectl(&self, args: &[&str]) -> Output {
        let args: Vec<&str> = ["-n", &self.namespace].into_iter().chain(args.iter().copied()).collect();
        self.control_plane.kubectl(&args, None).unwrap()
    }

    pub fn try_apply(&self, manifest: &Value) -> Output {
        self.control_plane.kubectl(&["-n", &self.namespace, "apply", "-f", "-"], Some(&manifest.to_string())).unwrap()
    }

    pub fn apply(&self, manifest: &Value) {
        let applied = self.try_apply(manifest);
        assert!(applied.status.success(), "{}", text(&applied));
    }

    /// A valid manifest. `spec` overrides fields of its spec. The role is of the dataset's account.
    pub fn manifest(name: &str, dataset: &str, spec: Value) -> Value {
        let account = spec["datasetArn"].as_str().and_then(|arn| arn.split(':').nth(4));
        let role = ROLE.replace(ACCOUNT, account.filter(|account| account.len() == 12).unwrap_or(ACCOUNT));
        let mut manifest = json!({
            "apiVersion": "personalize-operator.io/v1alpha1",
            "kind": "DatasetImportJob",
            "metadata": {"name": name},
            "spec": {
                "datasetArn": dataset_arn(dataset),
                "dataSource": {"dataLocation": "s3://bucket/interactions.csv"},
                "roleArn": role,
            },
        });
        if let (Some(defaults), Value::Object(spec)) = (manifest["spec"].as_object_mut(), spec) {
            defaults.extend(spec);
        }
        manifest
    }

    /// Applies a manifest.
    pub fn import(&self, name: &str, dataset: &str, spec: Value) {
        self.patch_with(name, PatchParams::apply("test").force(), Patch::Apply(Self::manifest(name, dataset, spec)));
    }

    /// The resource; `None` if it does not exist or the API server can't be reached.
    pub fn get(&self, name: &str) -> Option<DatasetImportJob> {
        let (api, name) = (self.api(), name.to_owned());
        block_on(async move { api.get_opt(&name).await.ok().flatten() })
    }

    pub fn api(&self) -> Api<DatasetImportJob> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn status(&self, name: &str) -> DatasetImportJobStatus {
        self.get(name).and_then(|resource| resource.status).unwrap_or_default()
    }

    pub fn uid(&self, name: &str) -> Option<String> {
        let (api, name) = (self.objects(&self.namespace), name.to_owned());
        block_on(async move { api.get_opt(&name).await.ok().flatten() })?.metadata.uid
    }

    /// Deletes a resource and waits until it is gone.
    pub fn delete(&self, name: &str) {
        let (api, deleted) = (self.objects(&self.namespace), name.to_owned());
        let uid = self.uid(name);
        block_on(async move { api.delete(&deleted, &DeleteParams::default()).await }).unwrap();
        eventually(&format!("{name} is deleted"), || (self.uid(name) != uid).then_some(()));
    }

    /// Sets an annotation, `KEY=VALUE`.
    pub fn annotate(&self, name: &str, annotation: &str) {
        let (key, value) = annotation.split_once('=').unwrap();
        self.patch(name, &json!({"metadata": {"annotations": {key: value}}}));
    }

    pub fn patch(&self, name: &str, patch: &Value) {
        self.patch_with(name, PatchParams::default(), Patch::Merge(patch.clone()));
    }

    pub fn patch_status(&self, name: &str, patch: &Value) {
        let (api, name, patch) = (self.objects(&self.namespace), name.to_owned(), Patch::Merge(patch.clone()));
        block_on(async move { api.patch_status(&name, &PatchParams::default(), &patch).await }).unwrap();
    }

    fn patch_with(&self, name: &str, params: PatchParams, patch: Patch<Value>) {
        let (api, name) = (self.objects(&self.namespace), name.to_owned());
        block_on(async move { api.patch(&name, &params, &patch).await }).unwrap();
    }

    /// The resources of a namespace as the API server stores them, also those that the operator can't decode.
    fn objects(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &ApiResource::erase::<DatasetImportJob>(&()))
    }

    /// Waits until a new resource is newer than this one: creation times have a resolution of one second.
    pub fn wait_until_others_are_newer(&self, name: &str) {
        let created = self.get(name).unwrap().metadata.creation_timestamp.unwrap().0.as_second();
        eventually("the next second begins", || (Timestamp::now().as_second() > created).then_some(()));
    }

    /// Waits until the Ready condition has this reason.
    pub fn wait_for_reason(&self, name: &str, reason: &str) -> DatasetImportJobStatus {
        self.wait_for_ready(name, reason, |ready| ready.reason == reason)
    }

    /// Waits until the message of the Ready condition contains this text. Returns the whole message.
    pub fn wait_for_message(&self, name: &str, part: &str) -> String {
        let status = self.wait_for_ready(name, part, |ready| ready.message.contains(part));
        ready_condition(&status).unwrap().message.clone()
    }

    fn wait_for_ready(
        &self,
        name: &str,
        expected: &str,
        matches: impl Fn(&Condition) -> bool,
    ) -> DatasetImportJobStatus {
        let (deadline, mut last) = (Instant::now() + TIMEOUT, String::new());
        while Instant::now() < deadline {
            let status = self.status(name);
            if let Some(ready) = ready_condition(&status) {
                if matches(ready) {
                    return status;
                }
                last = format!("{}: {}", ready.reason, ready.message);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("timed out waiting until {name} reports {expected:?}; last seen: {last}");
    }

    /// All events about a resource; none if the API server can't be reached.
    pub fn events(&self, name: &str) -> Vec<Event> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let about = ListParams::default().fields(&format!("involvedObject.name={name}"));
        block_on(async move { api.list(&about).await }).into_iter().flatten().collect()
    }

    /// The reasons of all events about a resource.
    pub fn event_reasons(&self, name: &str) -> Vec<String> {
        self.events(name).into_iter().filter_map(|event| event.reason).collect()
    }

    /// Starts an operator for this namespace, with delays that suit tests, and waits until it is ready.
    /// `flags` override its default flags. All have the same identity by default, so a successor leads at once.
    pub fn start_operator(&self, flags: &[&str]) -> OperatorProcess {
        self.start_operator_with(&[], flags)
    }

    /// Like [`Self::start_operator`], with environment variables.
    pub fn start_operator_with(&self, vars: &[(&str, &str)], flags: &[&str]) -> OperatorProcess {
        let operator = self.spawn(vars, flags);
        eventually("the operator is ready", || operator.is_ready().then_some(()));
        operator
    }

    /// Starts an operator without waiting until it is ready.
    pub fn spawn_operator(&self) -> OperatorProcess {
        self.spawn(&[], &[])
    }

    /// Like [`Self::spawn_operator`], with environment variables.
    pub fn spawn_operator_with(&self, vars: &[(&str, &str)], flags: &[&str]) -> OperatorProcess {
        self.spawn(vars, flags)
    }

    /// Starts an operator whose calls go through a proxy, without waiting until it is ready.
    pub fn spawn_operator_behind(&self, proxy: &Proxy, flags: &[&str]) -> OperatorProcess {
        self.spawn_operator_behind_with(proxy, &[], flags)
    }

    /// Like [`Self::spawn_operator_behind`], with environment variables.
    pub fn spawn_operator_behind_with(&self, proxy: &Proxy, vars: &[(&str, &str)], flags: &[&str]) -> OperatorProcess {
        let kubeconfig = proxy.kubeconfig.display().to_string();
        let to_proxy = [("KUBECONFIG", kubeconfig.as_str()), ("AWS_ENDPOINT_URL_PERSONALIZE", &proxy.service_url)];
        let vars: Vec<(&str, &str)> = to_proxy.into_iter().chain(vars.iter().copied()).collect();
        let operator = self.spawn(&vars, flags);
        proxy.set_operator(operator.pid());
        operator
    }

    fn spawn(&self, vars: &[(&str, &str)], flags: &[&str]) -> OperatorProcess {
        // Each operator has its own loopback address, so no outgoing connection takes the port before it binds it.
        let count = OPERATORS.fetch_add(1, Ordering::Relaxed);
        let host = format!("127.{}.{}.{}", 64 + std::process::id() % 64, count / 250 % 250, 1 + count % 250);
        let listen = TcpListener::bind((host, 0)).unwrap().local_addr().unwrap();
        let mut started = self.started.lock().unwrap();
        let log = self.dir.path().join(format!("operator-{}.log", started.len()));
        let mut args: Vec<String> = [
            "run",
            "--log-level=info,personalize_operator=debug",
            "--identity=one",
            "--lease-duration=30s",
            "--poll-min=100ms",
            "--poll-max=300ms",
            "--preflight=off",
            "--grace=5s",
            "--backoff-min=200ms",
            "--backoff-max=1s",
            "--rejected-min=2s",
            "--rejected-max=4s",
            "--retry-min=100ms",
            "--aws-connect-timeout=60s",
            "--aws-read-timeout=60s",
            "--aws-timeout=60s",
            "--aws-calls-per-second=1000",
            "--kube-timeout=30s",
            "--watch-timeout=15s",
        ]
        .map(String::from)
        .to_vec();
        args.push(format!("--watch-namespaces={}", self.namespaces().collect::<Vec<_>>().join(",")));
        args.push(format!("--lease-namespace={}", self.namespace));
        args.push(format!("--listen={listen}"));
        // Pass each flag once: a repeated list flag would add to the list.
        args.retain(|arg| !flags.iter().any(|flag| arg.split('=').next() == flag.split('=').next()));
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let out = fs::File::create(&log).unwrap();
        let process = ChildGuard::spawn(Path::new(env!("CARGO_BIN_EXE_personalize-operator")), &args, |command| {
            command
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("KUBECONFIG", self.control_plane.kubeconfig())
                .env("AWS_ENDPOINT_URL_PERSONALIZE", self.service.url())
                .env("AWS_ACCESS_KEY_ID", personalize_local::ACCESS_KEY)
                .env("AWS_SECRET_ACCESS_KEY", personalize_local::SECRET_KEY)
                .env("AWS_EC2_METADATA_DISABLED", "true")
                .envs(vars.iter().copied())
                .stdout(out.try_clone().unwrap())
                .stderr(out);
        })
        .unwrap();
        let url = format!("http://{listen}");
        let footprint = Arc::<Mutex<Footprint>>::default();
        let pid = process.pid();
        let operator = Started { pid, url: url.clone(), log: log.clone(), flags: args, footprint: footprint.clone() };
        footprint.lock().unwrap().concurrency = operator.flag("--concurrency", "10").parse().unwrap();
        started.push(operator);
        OperatorProcess { process, log, url, footprint }
    }

    /// Starts a proxy in front of the API server and the service.
    pub fn start_proxy(&self) -> Proxy {
        self.start_proxy_in(self.dir.path())
    }

    /// The same, with its files in this directory.
    pub fn start_proxy_in(&self, dir: &Path) -> Proxy {
        let disturbances = Arc::clone(&self.disturbances);
        Proxy::start(dir, &self.control_plane.kubeconfig(), self.service.url(), disturbances)
    }

    /// How many imports the service has accepted.
    pub fn accepted_count(&self) -> usize {
        invariants::accepted_creates(&self.service.ledger()).len()
    }

    /// All successful writes to resources of this environment in the API server's audit log.
    pub fn audited_writes(&self) -> Vec<Value> {
        let log = self.control_plane.audit_log();
        self.namespaces().flat_map(|namespace| invariants::resource_writes(&log, namespace)).collect()
    }

    /// When the leader has renewed its Lease, in milliseconds since 1970.
    pub fn renewals(&self) -> Vec<i64> {
        invariants::renewals(&invariants::requests(&self.control_plane.audit_log(), &self.namespace))
    }

    /// How often the operator has written a resource.
    pub fn operator_write_count(&self, name: &str) -> usize {
        let writes = self.audited_writes();
        invariants::operator_writes(&writes).filter(|write| write["objectRef"]["name"] == name).count()
    }
}
