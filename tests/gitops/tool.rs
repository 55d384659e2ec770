//! Programs that others wrote, and the files of this checkout.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A path in the checkout. At run time: checkouts may share what they compile.
pub fn checkout(path: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join(path)
}

pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Runs one of the pinned programs.
pub fn run(program: &str, args: &[&str], input: &str) -> Output {
    let path = control_plane::path_of(program).unwrap_or_else(|e| panic!("{e}"));
    let mut command = Command::new(path);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that refuses its arguments doesn't read.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// Runs it and takes its standard output; it has to end well.
pub fn output(program: &str, args: &[&str], input: &str) -> String {
    let output = run(program, args, input);
    assert!(output.status.success(), "{program} {args:?}: {}", crate::env::text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Compares a generated file with what is held; `make generate` mends it.
pub fn compare(file: &str, expected: &str) {
    let path = checkout(file);
    if std::env::var_os("GENERATE").is_some() {
        fs::write(&path, expected).unwrap();
    }
    let held = fs::read_to_string(&path).unwrap_or_default();
    assert!(held == expected, "{file} is not up to date; run `make generate`");
}

/// All files below a directory with this extension, in order.
pub fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A resource as the API server has it.
pub fn live(env: &crate::env::TestEnv, name: &str) -> serde_json::Value {
    let output = env.kubectl(&["get", "datasetimportjobs", name, "-o", "json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{name}: {e}: {}", crate::env::text(&output)))
}
