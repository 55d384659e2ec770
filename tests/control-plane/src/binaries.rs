//! The programs: built once from pinned Go modules into a cache, or taken from the machine.

use crate::{Error, io};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A Go module beside this file, which names programs as its tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    /// etcd, kube-apiserver, kube-controller-manager and kubectl.
    Kubernetes,
    /// helm.
    Helm,
    /// promtool.
    Promtool,
    /// Argo CD's Lua engine behind a small command of ours.
    ArgoLua,
    /// Flux's and Helm's judgement of readiness behind a small command of ours.
    Kstatus,
}

/// The version that the module of Kubernetes pins.
const KUBERNETES: &str = "v1.36.3";

/// Where each program comes from: module, package.
const PROGRAMS: [(&str, Module, &str); 8] = [
    ("etcd", Module::Kubernetes, "go.etcd.io/etcd/server/v3"),
    ("kube-apiserver", Module::Kubernetes, "k8s.io/kubernetes/cmd/kube-apiserver"),
    ("kubectl", Module::Kubernetes, "k8s.io/kubernetes/cmd/kubectl"),
    ("kube-controller-manager", Module::Kubernetes, "k8s.io/kubernetes/cmd/kube-controller-manager"),
    ("helm", Module::Helm, "helm.sh/helm/v4/cmd/helm"),
    ("promtool", Module::Promtool, "github.com/prometheus/prometheus/cmd/promtool"),
    ("argo-lua", Module::ArgoLua, "."),
    ("kstatus", Module::Kstatus, "."),
];

impl Module {
    fn dir(self) -> PathBuf {
        let name = match self {
            Self::Kubernetes => "go",
            Self::Helm => "helm",
            Self::Promtool => "promtool",
            Self::ArgoLua => "argo-lua",
            Self::Kstatus => "kstatus",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }
}

/// The path of a program: from `KUBEBUILDER_ASSETS` or PATH where the version fits, else from the
/// cache, where it is built first if it isn't there. Progress is told on standard error.
///
/// # Errors
/// When it is unknown, or can't be built.
pub fn path_of(program: &str) -> Result<PathBuf, Error> {
    let known = PROGRAMS.iter().find(|(name, ..)| *name == program);
    let Some((name, module, package)) = known else { return Err(Error::Missing("a program of that name")) };
    if *module == Module::Kubernetes
        && let Some(found) = on_machine(name)
    {
        return Ok(found);
    }
    build(name, *module, package)
}

/// A program of the machine's own, if it is new enough for the resource's CRD.
fn on_machine(program: &str) -> Option<PathBuf> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    assets
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file() && fits(program, file))
}

fn fits(program: &str, file: &Path) -> bool {
    let arg: &[&str] = if program == "kubectl" { &["version", "--client"] } else { &["--version"] };
    let Ok(output) = Command::new(file).args(arg).stdin(Stdio::null()).output() else { return false };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if program == "etcd" { (major, minor) >= (3, 5) } else { major == 1 && minor >= 33 }
}

fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || std::env::home_dir().unwrap_or_else(std::env::temp_dir).join(".cache");
    base.unwrap_or_else(home).join("personalize-operator")
}

/// The cache's key: what the module says, what its own sources say, and for which machine.
fn key(module: Module) -> Result<String, Error> {
    let mut hash = Sha256::new();
    let mut files: Vec<PathBuf> = fs::read_dir(module.dir())
        .map_err(io(format!("{}", module.dir().display())))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|p| p.is_file())
        .collect();
    files.sort();
    for file in files {
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(fs::read(&file).map_err(io(file.display().to_string()))?);
    }
    hash.update(std::env::consts::ARCH);
    hash.update(std::env::consts::OS);
    let digest = hash.finalize();
    Ok(digest.iter().take(8).map(|b| format!("{b:02x}")).collect())
}

fn build(program: &str, module: Module, package: &str) -> Result<PathBuf, Error> {
    let dir = cache().join(key(module)?);
    let target = dir.join(program);
    if target.is_file() {
        return Ok(target);
    }
    fs::create_dir_all(&dir).map_err(io(dir.display().to_string()))?;
    // Checkouts and processes that want the same program build it once.
    let lock = File::create(dir.join(".lock")).map_err(io("the cache's lock"))?;
    lock.lock().map_err(io("the cache's lock"))?;
    if target.is_file() {
        return Ok(target);
    }
    let half = dir.join(format!(".{program}.building"));
    let mut command = Command::new("go");
    command.current_dir(module.dir()).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod").env("GOTOOLCHAIN", "local");
    command
        .args(["build", "-trimpath", "-ldflags"])
        .arg(format!("-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES}"));
    command.arg("-o").arg(&half).arg(package).stdin(Stdio::null()).stdout(Stdio::null());
    let log = dir.join(format!("{program}.log"));
    command.stderr(File::create(&log).map_err(io("the build's log"))?);
    let mut child = match command.spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Missing("go (the Go compiler, 1.26 or newer)"));
        }
        child => child.map_err(io("go build"))?,
    };
    let began = Instant::now();
    let mut told = Duration::ZERO;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(io("go build"))? {
            break status;
        }
        let elapsed = began.elapsed();
        let every = if std::io::stderr().is_terminal() { Duration::from_secs(1) } else { Duration::from_secs(15) };
        if elapsed > told {
            told = elapsed + every;
            progress(program, elapsed);
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    if std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr());
    }
    if !status.success() {
        let output = fs::read_to_string(&log).unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "{output}");
        return Err(Error::Build { program: program.into(), output: tail(&output) });
    }
    fs::rename(&half, &target).map_err(io(target.display().to_string()))?;
    Ok(target)
}

fn progress(program: &str, elapsed: Duration) {
    let mut err = std::io::stderr();
    let line = format!(
        "building {program} from source, once ({}s so far; kube-apiserver takes 5 minutes on 2 cores)",
        elapsed.as_secs()
    );
    let _ = if err.is_terminal() { write!(err, "\r{line}") } else { writeln!(err, "{line}") };
    let _ = err.flush();
}

pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}
