//! Runs `hack/demo`, the script behind `make demo`, with programs that are already built.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    // Read at run time, because checkouts may share compiled tests.
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap())
}

/// Adds the demo's settings to a command that runs it: the manifests, and a directory for all temporary files.
fn run(command: &mut Command, examples: &Path, temp: &Path) -> Output {
    let programs = Path::new(env!("CARGO_BIN_EXE_personalize-operator")).parent().unwrap();
    command.env("DEMO_BIN", programs).env("DEMO_EXAMPLES", examples).env("TMPDIR", temp).env_remove("KEEP");
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn files_in(temp: &Path) -> Vec<PathBuf> {
    fs::read_dir(temp).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn demo_on_a_terminal_passes_its_checks_and_removes_its_files() {
    const IN_TERMINAL: &str = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1])))";
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut python = Command::new("python3");
    let output =
        run(python.args(["-c", IN_TERMINAL]).arg(root().join("hack/demo")), &root().join("examples"), temp.path());
    let shown = text(&output);
    assert!(output.status.success(), "{shown}");
    for line in [
        "ok    interactions: ACTIVE",
        "ok    interactions-of-today: ACTIVE",
        "ok    items-without-a-column: CREATE FAILED",
        "ok    interactions-in-milliseconds: DataInvalid",
        "ok    invalid data found by personalize-operator check: yes",
        "ok    invalid manifest rejected by kubectl apply: yes",
        "ok    second import into the same dataset waited in the queue: yes",
        "ok    create calls that the service accepted: 3",
    ] {
        assert!(shown.contains(line), "{line} in\n{shown}");
    }
    assert!(!shown.contains("WRONG"), "{shown}");
    assert_eq!(files_in(temp.path()), Vec::<PathBuf>::new());
}

#[test]
fn rejected_manifest_ends_the_demo_and_keeps_the_logs() {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let examples = temp.path().join("examples");
    fs::create_dir(&examples).unwrap();
    let good = fs::read_to_string(root().join("examples/1-interactions.yaml")).unwrap();
    fs::write(examples.join("1-interactions.yaml"), good.replace("roleArn: arn:", "roleArn: nonsense:")).unwrap();
    let output = run(&mut Command::new(root().join("hack/demo")), &examples, temp.path());
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("roleArn must be") && shown.contains("1-interactions.yaml was rejected"), "{shown}");
    assert!(!shown.contains("wait until all imports have finished"), "{shown}");
    let logs = files_in(temp.path()).into_iter().find(|path| *path != examples).unwrap();
    assert!(shown.contains(&format!("kept in {}", logs.display())) && logs.join("operator.log").is_file(), "{shown}");
}
