//! Memory and work over the number of finished imports: the operator as a process, against a real API server.

use crate::plot::{Panel, Plot};
use crate::report::{Report, as_f64, root, target};
use control_plane::{ChildGuard, ControlPlane};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use personalize_operator::api::conditions::{self, Reason};
use personalize_operator::api::{DatasetImportJob, DatasetImportJobStatus};
use personalize_operator::import::{ImportRequest, MANAGER};
use serde_json::json;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::sleep;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The numbers of finished imports. With `BENCH_LARGE=1` there is one more, which takes minutes to create.
const SIZES: [u64; 2] = [1_000, 10_000];
const LARGE: u64 = 100_000;

/// How many imports wait when the operator is started for the second time.
const WAITING: u64 = 1_000;

/// How many imports are edited while the operator runs.
const EDITS: u64 = 200;

const DATASETS: u64 = 100;

/// Measures each size in a namespace of its own.
pub(crate) fn measure() -> Outcome<Report> {
    let operator = build()?;
    let control_plane = ControlPlane::temporary()?;
    let crds = root().join("crds").display().to_string();
    kubectl(&control_plane, &["apply", "--server-side", "-f", &crds])?;
    kubectl(&control_plane, &["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
    let runtime = Runtime::new()?;
    let client = runtime.block_on(client(&control_plane.kubeconfig()))?;
    let mut points = Vec::new();
    for size in SIZES.into_iter().chain(std::env::var_os("BENCH_LARGE").map(|_| LARGE)) {
        let namespace = format!("finished-{size}");
        kubectl(&control_plane, &["create", "namespace", &namespace])?;
        let api = Api::namespaced(client.clone(), &namespace);
        runtime.block_on(create(&api, &namespace, size))?;
        let silent = TcpListener::bind("127.0.0.1:0")?;
        silent.set_nonblocking(true)?;
        let process = Process::start(&operator, &control_plane.kubeconfig(), &namespace, silent.local_addr()?)?;
        let mut numbers = runtime.block_on(process.measure(&api, size))?;
        numbers.push(f64::from(u8::from(silent.accept().is_ok())));
        drop(process);
        runtime.block_on(create_waiting(&api, size + 2))?;
        let service = Service::start()?;
        let process = Process::start(&operator, &control_plane.kubeconfig(), &namespace, service.address)?;
        numbers.extend(runtime.block_on(process.measure_first_submission(&service))?);
        points.push((as_f64(size), numbers));
    }
    let line = |title: &str, name, column: usize| Panel {
        title: title.into(),
        lines: vec![(name, points.iter().map(|(size, numbers)| (*size, numbers[column])).collect())],
        dots: Vec::new(),
    };
    let panels = vec![line("Memory", "MiB", 0), line("An edit of a finished import", "ms of CPU", 3)];
    let plot = Plot { axes: ("finished imports", ""), across: 2, panels };
    let rows = points.iter().map(|(size, numbers)| (format!("{size} finished"), numbers.clone())).collect();
    let columns = &[
        "MiB",
        "peak MiB",
        "start CPU s",
        "edit CPU ms",
        "reconciles",
        "writes",
        "AWS calls",
        "first create s",
        "MiB, waiting",
    ];
    Ok(Report { columns, rows, plot: ("memory.svg", plot.svg()?) })
}

/// Builds the operator as it is released.
fn build() -> Outcome<PathBuf> {
    let args = ["build", "--quiet", "--release", "--bin", "personalize-operator"];
    let built = Command::new(env!("CARGO")).current_dir(root()).args(args).status()?;
    if !built.success() {
        return Err("the operator does not build".into());
    }
    Ok(target().join("release/personalize-operator"))
}

fn kubectl(control_plane: &ControlPlane, args: &[&str]) -> Outcome<()> {
    let output = control_plane.kubectl(args, None)?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}

async fn client(kubeconfig: &Path) -> Outcome<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    Ok(Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)?)
}

fn manifest(i: u64, suspend: bool) -> Result<DatasetImportJob, serde_json::Error> {
    serde_json::from_value(json!({
        "apiVersion": "personalize-operator.io/v1alpha1",
        "kind": "DatasetImportJob",
        "metadata": { "name": name(i) },
        "spec": {
            "datasetArn": dataset(i % DATASETS),
            "dataSource": { "dataLocation": format!("s3://shop-data/{i}/interactions.csv") },
            "roleArn": "arn:aws:iam::123456789012:role/PersonalizeRead",
            "suspend": suspend,
        },
    }))
}

fn dataset(i: u64) -> String {
    format!("arn:aws:personalize:eu-west-1:123456789012:dataset/group{i}/INTERACTIONS")
}

fn name(i: u64) -> String {
    format!("import-{i:06}")
}

/// The status that the operator writes when an import has succeeded.
fn succeeded(resource: &DatasetImportJob, namespace: &str, i: u64) -> Outcome<DatasetImportJobStatus> {
    let created = Time(Timestamp::from_second(1_700_000_000 + i64::try_from(i)? * 60)?);
    let request = ImportRequest::new(namespace, &name(i), &resource.spec)?;
    let mut status = DatasetImportJobStatus {
        status: Some("ACTIVE".into()),
        job_name: Some(request.job_name(1)),
        dataset_import_job_arn: Some(request.job_arn(1).0),
        attempts: Some(1),
        creation_date_time: Some(created.clone()),
        last_updated_date_time: Some(created.clone()),
        start_time: Some(created.clone()),
        completion_time: Some(created.clone()),
        ..DatasetImportJobStatus::default()
    };
    conditions::set(&mut status, 1, Reason::ImportSucceeded, "the data is in the dataset", created.0);
    Ok(status)
}

/// Creates finished imports, with many requests at once.
async fn create(api: &Api<DatasetImportJob>, namespace: &str, count: u64) -> Outcome<()> {
    let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
    let one = |i: u64| {
        let params = &params;
        async move {
            let mut resource = api.create(params, &manifest(i, false)?).await?;
            resource.status = Some(succeeded(&resource, namespace, i)?);
            resource.metadata.managed_fields = None;
            api.replace_status(&name(i), params, &resource).await?;
            Outcome::Ok(())
        }
    };
    futures::stream::iter(0..count).map(one).buffer_unordered(32).try_collect().await
}

/// Creates imports that wait for their first submission.
async fn create_waiting(api: &Api<DatasetImportJob>, from: u64) -> Outcome<()> {
    let one = |i: u64| async move {
        api.create(&PostParams::default(), &manifest(i, false)?).await?;
        Outcome::Ok(())
    };
    futures::stream::iter(from..from + WAITING).map(one).buffer_unordered(32).try_collect().await
}

/// Annotates some of the imports.
async fn edit(api: &Api<DatasetImportJob>, count: u64) -> Outcome<()> {
    let patch = &Patch::Merge(json!({ "metadata": { "annotations": { "example.org/note": "edited" } } }));
    let one = |i: u64| async move {
        api.patch(&name(i * count / EDITS), &PatchParams::default(), patch).await?;
        Outcome::Ok(())
    };
    futures::stream::iter(0..EDITS).map(one).buffer_unordered(8).try_collect().await
}

/// Waits until a new import is suspended.
async fn wait_until_suspended(api: &Api<DatasetImportJob>, i: u64) -> Outcome<()> {
    api.create(&PostParams::default(), &manifest(i, true)?).await?;
    loop {
        let status = api.get_status(&name(i)).await?.status.unwrap_or_default();
        if Reason::of(&status) == Some(Reason::Suspended) {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The stand-in service.
struct Service {
    _guard: ChildGuard,
    address: SocketAddr,
    ledger: PathBuf,
    _directory: TempDir,
}

impl Service {
    fn start() -> Outcome<Self> {
        let (directory, address) = (tempfile::tempdir()?, TcpListener::bind("127.0.0.1:0")?.local_addr()?);
        let at = |name: &str| directory.path().join(name);
        let dataset = |i| json!({ "arn": dataset(i), "type": "Interactions", "status": "ACTIVE" });
        let account = json!({ "id": "123456789012", "accessKeys": [{ "id": "test", "secret": "test" }] });
        let seed = json!({ "accounts": [account], "datasets": (0..DATASETS).map(dataset).collect::<Vec<_>>() });
        std::fs::write(at("seed.yaml"), seed.to_string())?;
        std::fs::create_dir(at("data"))?;
        let mut args = vec!["--listen".to_owned(), address.to_string()];
        for (flag, name) in [("--seed", "seed.yaml"), ("--data", "data"), ("--ledger", "ledger.jsonl")] {
            args.extend([flag.to_owned(), at(name).display().to_string()]);
        }
        let log = std::fs::File::create(at("log"))?;
        let guard = ChildGuard::spawn(&target().join("debug/personalize-local"), &args, |command| {
            command.stdout(Stdio::null()).stderr(log);
        })?;
        Ok(Self { _guard: guard, address, ledger: at("ledger.jsonl"), _directory: directory })
    }

    fn has_accepted(&self) -> bool {
        std::fs::read_to_string(&self.ledger).is_ok_and(|ledger| ledger.contains("CreateDatasetImportJob"))
    }
}

/// A running operator.
struct Process {
    guard: ChildGuard,
    address: String,
}

impl Process {
    fn start(program: &Path, kubeconfig: &Path, namespace: &str, service: SocketAddr) -> Outcome<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let endpoint = format!("http://{service}");
        let args = ["run", "--leader-elect=false", "--log-level=warn", "--preflight=off", "--grace=1s"];
        let args = args.map(str::to_owned).into_iter();
        let args = args.chain([format!("--watch-namespaces={namespace}"), format!("--listen={address}")]);
        let guard = ChildGuard::spawn(program, &args.collect::<Vec<_>>(), |command| {
            command
                .env("KUBECONFIG", kubeconfig)
                .env("AWS_ENDPOINT_URL_PERSONALIZE", endpoint)
                .env("AWS_ACCESS_KEY_ID", "test")
                .env("AWS_SECRET_ACCESS_KEY", "test");
        })?;
        Ok(Self { guard, address })
    }

    fn get(&self, path: &str) -> Outcome<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response)
    }

    /// Waits until the initial list is complete.
    async fn wait_until_ready(&self) {
        while !self.get("/readyz").is_ok_and(|response| response.starts_with("HTTP/1.1 200")) {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The time from the initial list to the first submission, and the memory then.
    async fn measure_first_submission(&self, service: &Service) -> Outcome<Vec<f64>> {
        self.wait_until_ready().await;
        let ready = Instant::now();
        while !service.has_accepted() {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(vec![ready.elapsed().as_secs_f64(), self.mebibytes("VmRSS:")?])
    }

    /// Measures a start and edits over this many finished imports.
    async fn measure(&self, api: &Api<DatasetImportJob>, size: u64) -> Outcome<Vec<f64>> {
        self.wait_until_ready().await;
        // Its status is written after all events before it are handled.
        wait_until_suspended(api, size).await?;
        let (start, peak) = (self.cpu_seconds()?, self.mebibytes("VmHWM:")?);
        edit(api, size).await?;
        wait_until_suspended(api, size + 1).await?;
        let (reconciles, requests) = ("controller_runtime_reconcile_total", "rest_client_requests_total");
        Ok(vec![
            self.mebibytes("VmRSS:")?,
            peak,
            start,
            (self.cpu_seconds()? - start) * 1000.0 / as_f64(EDITS),
            self.metric(reconciles, "")?,
            self.metric(requests, "method=\"PUT\"")? + self.metric(requests, "method=\"PATCH\"")?,
        ])
    }

    /// The sum of the series of a metric whose labels contain a text.
    fn metric(&self, name: &str, labels: &str) -> Outcome<f64> {
        let metrics = self.get("/metrics")?;
        let series = metrics.lines().filter(|line| line.starts_with(name) && line.contains(labels));
        Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// A value of `/proc/PID/status` in MiB.
    fn mebibytes(&self, field: &str) -> Outcome<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.guard.pid()))?;
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok());
        Ok(value.map_or(0.0, |kibibytes: f64| kibibytes / 1024.0))
    }

    /// The time that it has spent on a CPU, in clock ticks of 10 ms.
    fn cpu_seconds(&self) -> Outcome<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.guard.pid()))?;
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        Ok(fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0)
    }
}
