//! The control plane starts, persists its data, audits writes, and never outlives its owner.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may panic")]

use control_plane::{ChildGuard, Component, ControlPlane, path_of};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The command lines of running processes that contain this text.
fn command_lines(text: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).into_owned()).filter(|line| line.contains(text)).collect()
}

/// Starts a control plane and waits until it is ready.
fn up(dir: &str, flags: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_control-plane"));
    command.args(["up", "--dir", dir]).args(flags).stdout(Stdio::piped()).stdin(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready: export KUBECONFIG="), "{line}");
    child
}

fn send(signal: &str, child: &mut Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    child.wait().unwrap();
}

#[test]
fn after_a_restart_data_is_intact_and_the_write_is_audited_once() {
    let plane = ControlPlane::temporary().unwrap();
    let created = plane.kubectl(&["create", "namespace", "persistent"], None).unwrap();
    assert!(created.status.success(), "{created:?}");
    plane.stop_component(Component::ApiServer).unwrap();
    plane.stop_component(Component::Etcd).unwrap();
    assert!(!plane.kubectl(&["get", "ns", "--request-timeout=2s"], None).unwrap().status.success());
    plane.start_component(Component::Etcd).unwrap();
    plane.start_component(Component::ApiServer).unwrap();
    let read = plane.kubectl(&["get", "namespace", "persistent"], None).unwrap();
    assert!(read.status.success(), "{read:?}");
    let audit = std::fs::read_to_string(plane.audit_log()).unwrap();
    let writes = |line: &&str| line.contains(r#""verb":"create""#) && line.contains(r#""name":"persistent""#);
    assert_eq!(audit.lines().filter(writes).count(), 1);
}

#[test]
fn stopped_or_killed_control_plane_leaves_no_process() {
    for signal in ["-TERM", "-KILL"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().display().to_string();
        let mut child = up(&path, &[]);
        assert!(command_lines(&format!("{path}/")).len() >= 3);
        send(signal, &mut child);
        eventually("no process is left", || command_lines(&format!("{path}/")).is_empty());
    }
}

#[test]
fn without_controller_manager_the_api_server_has_a_default_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().display().to_string();
    let mut child = up(&path, &["--without-controller-manager"]);
    let kubeconfig = format!("{path}/kubeconfig");
    eventually("the default namespace exists", || {
        let mut command = Command::new(path_of("kubectl").unwrap());
        command.args(["--kubeconfig", &kubeconfig, "get", "namespace", "default"]).output().unwrap().status.success()
    });
    let programs = command_lines(&format!("{path}/"));
    assert!(!programs.iter().any(|line| line.contains("kube-controller-manager")), "{programs:?}");
    send("-TERM", &mut child);
}

#[test]
fn dropped_guard_kills_grandchildren() {
    // An odd duration, so that the test finds its own processes.
    let seconds = format!("1{:08}", std::process::id());
    let script = ["-c".to_owned(), format!("sleep {seconds} & sleep {seconds}")];
    let guard = ChildGuard::spawn(Path::new("sh"), &script, |_| ()).unwrap();
    let sleeping = || command_lines(&format!("sleep\0{seconds}")).len();
    eventually("both children run", || sleeping() == 2);
    drop(guard);
    eventually("no process is left", || sleeping() == 0);
}

#[test]
fn unknown_program_is_rejected() {
    assert!(path_of("nonesuch").is_err());
}
