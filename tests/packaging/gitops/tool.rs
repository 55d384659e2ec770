//! Runs pinned third-party programs, finds files, and reads live resources.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Runs one of the pinned programs.
pub fn run(program: &str, args: &[&str], input: &str) -> Output {
    let path = control_plane::path_of(program).unwrap_or_else(|e| panic!("{e}"));
    let mut command = Command::new(path);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that rejects its arguments doesn't read its input.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// The standard output of a program, which must succeed.
pub fn output(program: &str, args: &[&str], input: &str) -> String {
    let output = run(program, args, input);
    assert!(output.status.success(), "{program} {args:?}: {}", crate::env::text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// All files below a directory with this extension, sorted.
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

/// A resource as the API server returns it.
pub fn live(env: &crate::env::TestEnv, name: &str) -> serde_json::Value {
    let output = env.kubectl(&["get", "datasetimportjobs", name, "-o", "json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{name}: {e}: {}", crate::env::text(&output)))
}
