//! The Python environment that has boto3 and the AWS CLI.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
    sync::Mutex,
};

static VENV: Mutex<()> = Mutex::new(());

/// The environment's `bin`; made on first use under `$XDG_CACHE_HOME/personalize-operator`.
pub(crate) fn venv() -> PathBuf {
    let _one_at_a_time = VENV.lock().unwrap();
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from);
    let dir = cache.join("personalize-operator");
    fs::create_dir_all(&dir).unwrap();
    // Test binaries run side by side: only one of them installs.
    let lock = File::create(dir.join("personalize-local-venv.lock")).unwrap();
    lock.lock().unwrap();
    let venv = dir.join("personalize-local-venv");
    if !venv.join("bin/aws").exists() {
        done(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        done(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "boto3", "awscli"]));
    }
    venv.join("bin")
}

/// Runs a command that must succeed, and gives what it printed.
pub(crate) fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
