//! The Python environment of the third-party clients: boto3, the AWS CLI, and the moto server as an STS.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

const REQUIREMENTS: &str = include_str!("../clients/requirements.txt");
const PREREQUISITE: &str = "the tests with boto3 and the AWS CLI need Python 3.10 or newer with venv and pip";

/// The `bin` directory of the environment. It is created on first use in `$XDG_CACHE_HOME/personalize-operator`, once
/// per content of requirements.txt.
pub(crate) fn bin_dir() -> PathBuf {
    static VENV: OnceLock<PathBuf> = OnceLock::new();
    VENV.get_or_init(create_if_missing).clone()
}

fn create_if_missing() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from)
        .join("personalize-operator");
    fs::create_dir_all(&cache).unwrap();
    // Test binaries may run in parallel; only one of them installs.
    let lock = File::create(cache.join("python.lock")).unwrap();
    lock.lock().unwrap();
    let mut hasher = DefaultHasher::new();
    REQUIREMENTS.hash(&mut hasher);
    let venv = cache.join(format!("python-{:016x}", hasher.finish()));
    let ready = venv.join("ready");
    // The marker file is created last. Without it, an earlier installation was interrupted.
    if !ready.exists() {
        let _ = fs::remove_dir_all(&venv);
        install(&venv);
        File::create(ready).unwrap();
    }
    venv.join("bin")
}

fn install(venv: &Path) {
    let python = Command::new("python3").arg("--version").output();
    assert!(python.is_ok_and(|output| output.status.success()), "python3 is missing: {PREREQUISITE}");
    let created = Command::new("python3").args(["-m", "venv"]).arg(venv).output().unwrap();
    let pip = if created.status.success() {
        vec![venv.join("bin/pip").into_os_string()]
    } else {
        // Debian has ensurepip in a separate package. The pip of the system can install into the environment instead.
        let bare = Command::new("python3").args(["-m", "venv", "--clear", "--without-pip"]).arg(venv).output().unwrap();
        let pip = Command::new("python3").args(["-m", "pip", "--version"]).output().unwrap();
        let output = String::from_utf8_lossy(&created.stdout).into_owned();
        let usable = bare.status.success() && pip.status.success();
        assert!(usable, "python3 has no pip for a new environment (Debian: python3-venv): {PREREQUISITE}\n{output}");
        ["python3", "-m", "pip", "--python"]
            .map(Into::into)
            .into_iter()
            .chain([venv.join("bin/python").into()])
            .collect()
    };
    // The tests of other crates use this module, too, so the file of this crate may not be where it is.
    let requirements = venv.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS).unwrap();
    let options = ["install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-compile", "--no-deps"];
    run(Command::new(&pip[0]).args(&pip[1..]).args(options).arg("-r").arg(requirements));
}

/// The path of a file in this crate, resolved at run time because checkouts may share a target directory.
pub(crate) fn crate_path(path: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join(path)
}

/// Runs a command that must succeed, and returns its standard output.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
