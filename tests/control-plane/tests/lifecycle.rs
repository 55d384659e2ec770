//! The control plane comes up, keeps its data, tells what was written, and never outlives its owner.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

use control_plane::{Component, ControlPlane, path_of};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Processes whose command line names this directory.
fn running_in(dir: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(&format!("{dir}/"))).count()
}

fn up(dir: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_control-plane"));
    let mut child = command.args(["up", "--dir", dir]).stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready: export KUBECONFIG="), "{line}");
    child
}

#[test]
fn it_keeps_its_data_over_restarts_and_audits_writes() {
    let plane = ControlPlane::temporary().unwrap();
    let made = plane.kubectl(&["create", "namespace", "kept"], None).unwrap();
    assert!(made.status.success(), "{made:?}");
    plane.stop_component(Component::ApiServer).unwrap();
    plane.stop_component(Component::Etcd).unwrap();
    assert!(!plane.kubectl(&["get", "ns", "--request-timeout=2s"], None).unwrap().status.success());
    plane.start_component(Component::Etcd).unwrap();
    plane.start_component(Component::ApiServer).unwrap();
    let kept = plane.kubectl(&["get", "namespace", "kept"], None).unwrap();
    assert!(kept.status.success(), "{kept:?}");
    let audit = std::fs::read_to_string(plane.audit_log()).unwrap();
    let writes = |line: &&str| line.contains(r#""verb":"create""#) && line.contains(r#""name":"kept""#);
    assert_eq!(audit.lines().filter(writes).count(), 1);
}

#[test]
fn it_leaves_no_process_behind_when_it_is_told_to_stop_or_killed() {
    for signal in ["-TERM", "-KILL"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().display().to_string();
        let mut child = up(&path);
        assert!(running_in(&path) >= 3);
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        child.wait().unwrap();
        eventually("no process is left", || running_in(&path) == 0);
    }
}

#[test]
fn an_unknown_program_is_refused() {
    assert!(path_of("nonesuch").is_err());
}
