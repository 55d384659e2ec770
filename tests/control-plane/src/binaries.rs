//! Finds the programs on the machine, or builds them once from pinned Go modules into a cache.

use crate::child_guard::ChildGuard;
use crate::{Error, io};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A Go module that pins programs. Its files are embedded in this binary, so that all checkouts share one cache.
struct Module {
    /// The version of Kubernetes whose programs it pins, if it does.
    kubernetes: Option<&'static str>,
    files: &'static [(&'static str, &'static str)],
    /// Linker flags besides those that strip debug information.
    link: &'static str,
    /// Build tags.
    tags: &'static str,
    programs: &'static [Program],
}

/// The name of a program and its Go package.
type Program = (&'static str, &'static str);

/// The versions of Kubernetes that programs are pinned of, oldest first. The last one is used, unless the environment
/// variable `KUBERNETES_VERSION` names another.
pub const KUBERNETES_VERSIONS: [&str; 3] = ["1.31", "1.33", "1.36"];

/// The module that pins a version of Kubernetes.
macro_rules! kubernetes {
    ($version:literal, $dir:literal, $patch:literal) => {
        Module {
            kubernetes: Some($version),
            files: &[
                ("go.mod", include_str!(concat!("../go/", $dir, "/go.mod"))),
                ("go.sum", include_str!(concat!("../go/", $dir, "/go.sum"))),
            ],
            link: concat!("-X k8s.io/component-base/version.gitVersion=v", $version, ".", $patch),
            tags: "",
            programs: &[
                ("etcd", "go.etcd.io/etcd/server/v3"),
                ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
                ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
                ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
            ],
        }
    };
}

const MODULES: [Module; 8] = [
    kubernetes!("1.31", "kubernetes-1.31", 14),
    kubernetes!("1.33", "kubernetes-1.33", 13),
    kubernetes!("1.36", "kubernetes", 3),
    Module {
        kubernetes: None,
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
        kubernetes: None,
        files: &[("go.mod", include_str!("../go/promtool/go.mod")), ("go.sum", include_str!("../go/promtool/go.sum"))],
        link: "",
        // Service discovery pulls in many cloud SDKs and doubles the compile time.
        tags: "remove_all_sd",
        programs: &[("promtool", "github.com/prometheus/prometheus/cmd/promtool")],
    },
    Module {
        kubernetes: None,
        files: &[
            ("go.mod", include_str!("../go/argocd/go.mod")),
            ("go.sum", include_str!("../go/argocd/go.sum")),
            ("argocd-lua/main.go", include_str!("../go/argocd/argocd-lua/main.go")),
        ],
        link: "",
        tags: "",
        programs: &[("argocd-lua", "personalize-operator.io/argocd/argocd-lua")],
    },
    Module {
        kubernetes: None,
        files: &[
            ("go.mod", include_str!("../go/argo-workflows/go.mod")),
            ("go.sum", include_str!("../go/argo-workflows/go.sum")),
            ("argo-match/main.go", include_str!("../go/argo-workflows/argo-match/main.go")),
        ],
        link: "",
        tags: "",
        programs: &[("argo-match", "personalize-operator.io/argo-workflows/argo-match")],
    },
    Module {
        kubernetes: None,
        files: &[("go.mod", include_str!("../go/gofakes3/go.mod")), ("go.sum", include_str!("../go/gofakes3/go.sum"))],
        link: "",
        tags: "",
        programs: &[("gofakes3", "github.com/johannesboyne/gofakes3/cmd/gofakes3")],
    },
];

/// The path of a program. See [`paths_of`].
///
/// # Errors
/// As [`paths_of`].
pub fn path_of(program: &str) -> Result<PathBuf, Error> {
    paths_of(&[program]).map(|mut paths| paths.remove(0))
}

/// The paths of programs, in the given order. A program comes from `KUBEBUILDER_ASSETS` or `PATH` if its version fits and
/// `KUBERNETES_VERSION` is not set, else from the cache. Missing programs are built together, so that packages they share
/// compile once. Progress goes to standard error.
///
/// # Errors
/// When a program is unknown or can't be built, or no programs of `KUBERNETES_VERSION` are pinned.
pub fn paths_of(programs: &[&str]) -> Result<Vec<PathBuf>, Error> {
    let wanted = std::env::var("KUBERNETES_VERSION").ok();
    let version = KUBERNETES_VERSIONS.iter().rfind(|known| wanted.as_ref().is_none_or(|wanted| wanted == *known));
    let version = version.ok_or_else(|| Error::UnknownVersion(wanted.clone().unwrap_or_default()))?;
    let is_used = |module: &&Module| module.kubernetes.is_none_or(|of| of == *version);
    let mut paths = Vec::new();
    let mut modules: Vec<(&Module, Vec<Program>)> =
        MODULES.iter().filter(is_used).map(|module| (module, Vec::new())).collect();
    for name in programs {
        let found = modules.iter_mut().find_map(|(module, missing)| {
            let program = module.programs.iter().find(|(known, _)| known == name)?;
            Some((module_dir(module).join(name), *program, missing))
        });
        let (cached, program, missing) = found.ok_or_else(|| Error::Unknown((*name).into()))?;
        let path = installed(name).filter(|_| wanted.is_none()).unwrap_or(cached);
        if !path.is_file() {
            missing.push(program);
        }
        paths.push(path);
    }
    for (module, missing) in modules {
        if !missing.is_empty() {
            build(module, missing)?;
        }
    }
    Ok(paths)
}

/// A program that is installed on the machine and supports the CRD.
fn installed(program: &str) -> Option<PathBuf> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    assets
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file() && version_fits(program, file))
}

fn version_fits(program: &str, file: &Path) -> bool {
    let arg: &[&str] = match program {
        "kubectl" => &["version", "--client"],
        "etcd" | "kube-apiserver" | "kube-controller-manager" => &["--version"],
        // The tests need exactly the pinned version of the other programs.
        _ => return false,
    };
    let Ok(output) = Command::new(file).args(arg).stdin(Stdio::null()).output() else { return false };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if program == "etcd" { (major, minor) >= (3, 5) } else { major == 1 && minor >= 31 }
}

/// The cache directory of a module. Its name depends on the module's files, the build options and the machine type.
fn module_dir(module: &Module) -> PathBuf {
    let mut hash = Sha256::new();
    for (name, text) in module.files {
        hash.update(name);
        hash.update(text);
    }
    hash.update(module.link);
    hash.update(module.tags);
    hash.update(std::env::consts::ARCH);
    hash.update(std::env::consts::OS);
    let key: String = hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect();
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || std::env::home_dir().unwrap_or_else(std::env::temp_dir).join(".cache");
    base.unwrap_or_else(home).join("personalize-operator").join(key)
}

fn build(module: &Module, mut programs: Vec<Program>) -> Result<(), Error> {
    let dir = module_dir(module);
    let source = dir.join("module");
    fs::create_dir_all(&source).map_err(io(source.display().to_string()))?;
    let lock = File::create(dir.join(".lock")).map_err(io("the lock of the cache"))?;
    if lock.try_lock().is_err() {
        print_line("waiting for another process that builds programs of the same module");
        lock.lock().map_err(io("the lock of the cache"))?;
    }
    programs.retain(|(name, _)| !dir.join(name).is_file());
    if programs.is_empty() {
        return Ok(());
    }
    for (name, text) in module.files {
        let file = source.join(name);
        fs::create_dir_all(file.parent().unwrap_or(&source)).map_err(io(*name))?;
        fs::write(file, text).map_err(io(*name))?;
    }
    let output = dir.join("building");
    // An interrupted build leaves files here.
    let _ = fs::remove_dir_all(&output);
    fs::create_dir_all(&output).map_err(io(output.display().to_string()))?;

    let names = programs.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    print_line(&format!("building {names} from source, once"));
    let list = ["list", "-deps", "-tags", module.tags].map(String::from);
    let downloading = |log: &str| format!("downloading modules: {}", log.lines().filter(|l| !is_package(l)).count());
    let packages = go(&source, &list, &programs, &dir.join("list.log"), downloading)?;
    let total = packages.lines().filter(|line| is_package(line)).count();
    // The linker drops debug information anyway. Not generating it saves a sixth of the compile time.
    let gcflags = "-gcflags=all=-dwarf=false";
    let (ldflags, target) = (format!("-ldflags=-s -w {}", module.link), format!("-o={}/", output.display()));
    let build = ["build", "-v", "-trimpath", gcflags, "-tags", module.tags, &ldflags, &target].map(String::from);
    let compiling = |log: &str| format!("package {} of {total}", log.lines().filter(|line| is_package(line)).count());
    go(&source, &build, &programs, &dir.join("build.log"), compiling)?;
    for (name, package) in programs {
        let target = dir.join(name);
        fs::rename(output.join(executable(package)), &target).map_err(io(target.display().to_string()))?;
    }
    fs::remove_dir_all(&output).map_err(io(output.display().to_string()))
}

/// Whether a line of `go list` or `go build -v` is a package. Messages contain spaces.
fn is_package(line: &str) -> bool {
    !line.contains(' ')
}

/// The name that `go build` gives to a package's executable: the last element of its path that is not a version.
fn executable(package: &str) -> &str {
    let is_version = |element: &str| element.strip_prefix('v').is_some_and(|rest| rest.parse::<u32>().is_ok());
    package.rsplit('/').find(|element| !is_version(element)).unwrap_or(package)
}

/// Runs a Go command on the programs' packages. Reports progress, which `describe` reads from the output, and returns
/// the output.
fn go(
    source: &Path,
    args: &[String],
    programs: &[Program],
    log: &Path,
    describe: impl Fn(&str) -> String,
) -> Result<String, Error> {
    let output = File::create(log).map_err(io(log.display().to_string()))?;
    let errors = output.try_clone().map_err(io(log.display().to_string()))?;
    let args: Vec<String> =
        args.iter().cloned().chain(programs.iter().map(|(_, package)| (*package).to_owned())).collect();
    let mut child = ChildGuard::spawn(Path::new("go"), &args, |command| {
        command.current_dir(source).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod").env("GOTOOLCHAIN", "local");
        if std::env::var_os("GOTMPDIR").is_none() {
            command.env("GOTMPDIR", source.with_file_name("building"));
        }
        command.stdout(output).stderr(errors);
    })
    .map_err(io("go"))?;
    let is_terminal = std::io::stderr().is_terminal();
    let interval = Duration::from_secs(if is_terminal { 1 } else { 5 });
    let (started, mut shown) = (Instant::now(), Duration::ZERO);
    let read = || fs::read_to_string(log).unwrap_or_default();
    let status = loop {
        if let Some(status) = child.child().try_wait().map_err(io("go"))? {
            break status;
        }
        if started.elapsed() >= shown + interval {
            shown = started.elapsed();
            let line = format!("{}, {} s", describe(&read()), shown.as_secs());
            let _ = if is_terminal {
                write!(std::io::stderr(), "\r{line}\x1b[K")
            } else {
                writeln!(std::io::stderr(), "{line}")
            };
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    if is_terminal && !shown.is_zero() {
        print_line("");
    }
    let text = read();
    match status.code() {
        Some(0) => Ok(text),
        Some(127) => Err(Error::Missing("go (the Go compiler, 1.26 or newer)")),
        _ => {
            let messages: Vec<&str> = text.lines().filter(|line| !is_package(line)).collect();
            let messages = messages.join("\n");
            print_line(&messages);
            let programs = programs.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            Err(Error::Build { programs, output: tail(&messages) })
        }
    }
}

fn print_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}
