//! What `make demo` runs, with the programs that are built already.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    // At run time: checkouts may share what they compile.
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap())
}

/// Runs the demo with these manifests; `temp` takes all that it writes.
fn demo(examples: &Path, temp: &Path) -> Output {
    let programs = Path::new(env!("CARGO_BIN_EXE_personalize-operator")).parent().unwrap();
    let mut command = Command::new(root().join("hack/demo"));
    command.env("DEMO_BIN", programs).env("DEMO_EXAMPLES", examples).env("TMPDIR", temp).env_remove("KEEP");
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn left_in(temp: &Path) -> Vec<PathBuf> {
    fs::read_dir(temp).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn the_demo_ends_as_announced_and_leaves_nothing_behind() {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let shown = demo(&root().join("examples"), temp.path());
    let told = text(&shown);
    assert!(shown.status.success(), "{told}");
    for line in [
        "ok    interactions: ACTIVE",
        "ok    interactions-of-today: ACTIVE",
        "ok    items-without-a-column: CREATE FAILED",
        "ok    refused at admission: yes",
        "ok    waited in the queue: yes",
        "ok    creates that the service took: 3",
    ] {
        assert!(told.contains(line), "{line} in\n{told}");
    }
    assert!(!told.contains("WRONG"), "{told}");
    assert_eq!(left_in(temp.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_manifest_that_is_not_taken_ends_the_demo_at_once_and_the_logs_are_kept() {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let examples = temp.path().join("examples");
    fs::create_dir(&examples).unwrap();
    let good = fs::read_to_string(root().join("examples/1-interactions.yaml")).unwrap();
    fs::write(examples.join("1-interactions.yaml"), good.replace("roleArn: arn:", "roleArn: nonsense:")).unwrap();
    let shown = demo(&examples, temp.path());
    let told = text(&shown);
    assert_eq!(shown.status.code(), Some(1), "{told}");
    assert!(told.contains("roleArn must be") && told.contains("1-interactions.yaml was not taken"), "{told}");
    assert!(!told.contains("watching until all have ended"), "{told}");
    let kept = left_in(temp.path()).into_iter().find(|path| *path != examples).unwrap();
    assert!(told.contains(&format!("kept in {}", kept.display())) && kept.join("operator.log").is_file(), "{told}");
}
