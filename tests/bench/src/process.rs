//! The operator and the stand-in service as processes.

use crate::cluster::{DATASETS, Outcome, dataset};
use crate::report::{root, target};
use control_plane::{ChildGuard, path_of};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::sleep;

/// Builds the operator as it is released, with these variables. Returns its program.
pub(crate) fn build(vars: &[(&str, &str)]) -> Outcome<PathBuf> {
    // Other variables must not replace the usual build.
    let directory = if vars.is_empty() { target() } else { target().join("profile") };
    let args = ["build", "--quiet", "--release", "--bin", "personalize-operator", "--target-dir"];
    let mut cargo = Command::new(env!("CARGO"));
    let built = cargo.current_dir(root()).args(args).arg(&directory).envs(vars.iter().copied()).status()?;
    if !built.success() {
        return Err("the operator does not build".into());
    }
    Ok(directory.join("release/personalize-operator"))
}

/// The stand-in service.
pub(crate) struct Service {
    _guard: ChildGuard,
    pub(crate) address: SocketAddr,
    ledger: PathBuf,
    _directory: TempDir,
}

impl Service {
    pub(crate) fn start() -> Outcome<Self> {
        let (directory, address) = (tempfile::tempdir()?, TcpListener::bind("127.0.0.1:0")?.local_addr()?);
        let at = |name: &str| directory.path().join(name);
        let schema = json!({
            "type": "record", "name": "Interactions", "namespace": "com.amazonaws.personalize.schema", "version": "1.0",
            "fields": [
                { "name": "USER_ID", "type": "string" },
                { "name": "ITEM_ID", "type": "string" },
                { "name": "TIMESTAMP", "type": "long" },
            ],
        });
        let schema = schema.to_string();
        let dataset = |i| json!({ "arn": dataset(i), "type": "Interactions", "status": "ACTIVE", "schema": schema });
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

    /// Waits for the first create.
    pub(crate) async fn wait_until_accepted(&self) -> Outcome<()> {
        for _ in 0..30_000 {
            if std::fs::read_to_string(&self.ledger).is_ok_and(|ledger| ledger.contains("CreateDatasetImportJob")) {
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Err("no import was submitted within 5 minutes".into())
    }
}

/// An S3 server with one bucket, `shop-data`, in memory.
pub(crate) struct S3 {
    _guard: ChildGuard,
    address: String,
    log: PathBuf,
    _directory: TempDir,
}

impl S3 {
    pub(crate) fn start() -> Outcome<Self> {
        let directory = tempfile::tempdir()?;
        let log = directory.path().join("log");
        let (program, out) = (path_of("gofakes3")?, std::fs::File::create(&log)?);
        let args = ["-host", "127.0.0.1:0", "-backend", "mem", "-initialbucket", "shop-data"].map(str::to_owned);
        let guard = ChildGuard::spawn(&program, &args, |command| {
            command.stdout(Stdio::null()).stderr(out);
        })?;
        loop {
            let text = std::fs::read_to_string(&log)?;
            if let Some((_, port)) = text.split_once("using port: ") {
                let port = port.lines().next().unwrap_or_default();
                return Ok(Self { _guard: guard, address: format!("127.0.0.1:{port}"), log, _directory: directory });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Writes an object.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) -> Outcome<()> {
        let mut stream = TcpStream::connect(&self.address)?;
        let size = bytes.len();
        write!(
            stream,
            "PUT /shop-data/{key} HTTP/1.1\r\nHost: s3\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
        )?;
        stream.write_all(bytes)?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        if response.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(response.into()) }
    }

    /// How many requests of this kind it has got, such as `GET OBJECT`.
    pub(crate) fn count(&self, kind: &str) -> Outcome<u64> {
        let log = std::fs::read_to_string(&self.log)?;
        Ok(u64::try_from(log.lines().filter(|line| line.contains(kind)).count())?)
    }
}

/// A running operator.
pub(crate) struct Process {
    pub(crate) guard: ChildGuard,
    address: String,
}

impl Process {
    /// Starts it. It checks the data of imports if there is an S3 server.
    pub(crate) fn start(
        program: &Path,
        kubeconfig: &Path,
        namespace: &str,
        service: SocketAddr,
        s3: Option<&S3>,
    ) -> Outcome<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let endpoint = format!("http://{service}");
        let preflight = if s3.is_some() { "--preflight=enforce" } else { "--preflight=off" };
        let args = ["run", "--leader-elect=false", "--log-level=warn", preflight, "--grace=3s"];
        let args = args.map(str::to_owned).into_iter();
        let args = args.chain([format!("--watch-namespaces={namespace}"), format!("--listen={address}")]);
        let guard = ChildGuard::spawn(program, &args.collect::<Vec<_>>(), |command| {
            command
                .env("KUBECONFIG", kubeconfig)
                .env("AWS_ENDPOINT_URL_PERSONALIZE", endpoint)
                .envs(s3.map(|s3| ("AWS_ENDPOINT_URL_S3", format!("http://{}", s3.address))))
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
    pub(crate) async fn wait_until_ready(&self) {
        while !self.get("/readyz").is_ok_and(|response| response.starts_with("HTTP/1.1 200")) {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The sum of the series of a metric whose labels contain a text.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> Outcome<f64> {
        let metrics = self.get("/metrics")?;
        let series = metrics.lines().filter(|line| line.starts_with(name) && line.contains(labels));
        Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// A value of `/proc/PID/status` in MiB.
    pub(crate) fn mebibytes(&self, field: &str) -> Outcome<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.guard.pid()))?;
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok());
        Ok(value.map_or(0.0, |kibibytes: f64| kibibytes / 1024.0))
    }

    /// The time that it has spent on a CPU, in clock ticks of 10 ms.
    pub(crate) fn cpu_seconds(&self) -> Outcome<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.guard.pid()))?;
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        Ok(fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0)
    }
}
