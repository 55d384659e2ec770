//! The programs: built once from pinned Go modules into a cache, or taken from the machine.

use crate::{Error, io};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A Go module that pins programs. Its files are part of this binary, so nothing depends on where the
/// checkout is: checkouts share what they compile.
struct Module {
    files: &'static [(&'static str, &'static str)],
    /// Flags for the linker beyond leaving out what only a debugger needs.
    link: &'static str,
    /// Build tags.
    tags: &'static str,
    /// The programs and their packages.
    programs: &'static [(&'static str, &'static str)],
}

const MODULES: [Module; 4] = [
    Module {
        files: &[
            ("go.mod", include_str!("../go/kubernetes/go.mod")),
            ("go.sum", include_str!("../go/kubernetes/go.sum")),
        ],
        link: "-X k8s.io/component-base/version.gitVersion=v1.36.3",
        tags: "",
        programs: &[
            ("etcd", "go.etcd.io/etcd/server/v3"),
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
            ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        ],
    },
    Module {
        files: &[
            ("go.mod", include_str!("../go/helm/go.mod")),
            ("go.sum", include_str!("../go/helm/go.sum")),
            ("kstatus/main.go", include_str!("../go/helm/kstatus/main.go")),
        ],
        link: "",
        tags: "",
        programs: &[("helm", "helm.sh/helm/v4/cmd/helm"), ("kstatus", "personalize-operator.io/helm/kstatus")],
    },
    Module {
        files: &[("go.mod", include_str!("../go/promtool/go.mod")), ("go.sum", include_str!("../go/promtool/go.sum"))],
        link: "",
        // Service discovery brings half of the clouds' SDKs with it, and twice the time to compile.
        tags: "remove_all_sd",
        programs: &[("promtool", "github.com/prometheus/prometheus/cmd/promtool")],
    },
    Module {
        files: &[
            ("go.mod", include_str!("../go/argocd/go.mod")),
            ("go.sum", include_str!("../go/argocd/go.sum")),
            ("argocd-lua/main.go", include_str!("../go/argocd/argocd-lua/main.go")),
        ],
        link: "",
        tags: "",
        programs: &[("argocd-lua", "personalize-operator.io/argocd/argocd-lua")],
    },
];

/// The path of a program: from `KUBEBUILDER_ASSETS` or PATH where the version fits, else from the
/// cache, where it is built first if it isn't there. Progress is told on standard error.
///
/// # Errors
/// When it is unknown, or can't be built.
pub fn path_of(program: &str) -> Result<PathBuf, Error> {
    let known = MODULES.iter().find_map(|module| {
        module.programs.iter().find(|(name, _)| *name == program).map(|(name, package)| (module, *name, *package))
    });
    let Some((module, name, package)) = known else { return Err(Error::Unknown(program.into())) };
    on_machine(name).map_or_else(|| build(module, name, package), Ok)
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
    let arg: &[&str] = match program {
        "kubectl" => &["version", "--client"],
        "etcd" | "kube-apiserver" | "kube-controller-manager" => &["--version"],
        // Of these, what one finds on a machine tells little of what it does.
        _ => return false,
    };
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

/// The cache's key: what the module says, how it is built, and for which machine.
fn key(module: &Module) -> String {
    let mut hash = Sha256::new();
    for (name, text) in module.files {
        hash.update(name);
        hash.update(text);
    }
    hash.update(module.link);
    hash.update(module.tags);
    hash.update(std::env::consts::ARCH);
    hash.update(std::env::consts::OS);
    hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
}

fn build(module: &Module, program: &str, package: &str) -> Result<PathBuf, Error> {
    let dir = cache().join(key(module));
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
    let source = dir.join("module");
    fs::create_dir_all(&source).map_err(io(source.display().to_string()))?;
    for (name, text) in module.files {
        let file = source.join(name);
        fs::create_dir_all(file.parent().unwrap_or(&source)).map_err(io(*name))?;
        fs::write(file, text).map_err(io(*name))?;
    }
    let half = dir.join(format!(".{program}.building"));
    let mut command = Command::new("go");
    command.current_dir(&source).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod").env("GOTOOLCHAIN", "local");
    command.args(["build", "-trimpath", "-tags", module.tags, "-ldflags"]).arg(format!("-s -w {}", module.link));
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
        "building {program} from source, once ({}s so far; the longest take 5 minutes on 2 cores)",
        elapsed.as_secs()
    );
    let _ = if err.is_terminal() { write!(err, "\r{line}") } else { writeln!(err, "{line}") };
    let _ = err.flush();
}

pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}
