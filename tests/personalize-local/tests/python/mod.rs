//! The Python environment of the clients that nobody here wrote: boto3, the AWS CLI, and moto's server as an STS.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

const REQUIREMENTS: &str = include_str!("../clients/requirements.txt");
const NEEDED: &str = "the tests with boto3 and the AWS CLI need Python 3.10 or newer with venv and pip";

/// The environment's `bin`. It is made on first use under `$XDG_CACHE_HOME/personalize-operator`, one for each set
/// of requirements.
pub(crate) fn venv() -> PathBuf {
    static VENV: OnceLock<PathBuf> = OnceLock::new();
    VENV.get_or_init(make).clone()
}

fn make() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from)
        .join("personalize-operator");
    fs::create_dir_all(&cache).unwrap();
    // Test binaries run side by side: only one of them installs.
    let lock = File::create(cache.join("python.lock")).unwrap();
    lock.lock().unwrap();
    let mut hasher = DefaultHasher::new();
    REQUIREMENTS.hash(&mut hasher);
    let venv = cache.join(format!("python-{:016x}", hasher.finish()));
    let ready = venv.join("ready");
    // Only a finished installation has the mark; what an interrupted one left is made anew.
    if !ready.exists() {
        let _ = fs::remove_dir_all(&venv);
        install(&venv);
        File::create(ready).unwrap();
    }
    venv.join("bin")
}

fn install(venv: &Path) {
    let python = Command::new("python3").arg("--version").output();
    assert!(python.is_ok_and(|output| output.status.success()), "python3 is missing: {NEEDED}");
    let made = Command::new("python3").args(["-m", "venv"]).arg(venv).output().unwrap();
    let pip = if made.status.success() {
        vec![venv.join("bin/pip").into_os_string()]
    } else {
        // Debian keeps ensurepip in a package of its own; a pip outside can serve the environment, too.
        let bare = Command::new("python3").args(["-m", "venv", "--clear", "--without-pip"]).arg(venv).output().unwrap();
        let pip = Command::new("python3").args(["-m", "pip", "--version"]).output().unwrap();
        let told = String::from_utf8_lossy(&made.stdout).into_owned();
        let can = bare.status.success() && pip.status.success();
        assert!(can, "python3 has no pip for a new environment (Debian: python3-venv): {NEEDED}\n{told}");
        ["python3", "-m", "pip", "--python"]
            .map(Into::into)
            .into_iter()
            .chain([venv.join("bin/python").into()])
            .collect()
    };
    let list = own("tests/clients/requirements.txt");
    let options = ["install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-compile", "--no-deps"];
    done(Command::new(&pip[0]).args(&pip[1..]).args(options).arg("-r").arg(list));
}

/// A file of this crate. At run time: checkouts may share what they compile.
pub(crate) fn own(path: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join(path)
}

/// Runs a command that must succeed, and gives what it printed.
pub(crate) fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
