//! The real operator as a process.

use super::{eventually, http};
use crate::invariants::Footprint;
use control_plane::ChildGuard;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A running operator. Dropping it kills it.
pub struct OperatorProcess {
    pub(super) process: ChildGuard,
    pub(super) log: PathBuf,
    pub url: String,
    pub(super) footprint: Arc<Mutex<Footprint>>,
}

impl Drop for OperatorProcess {
    fn drop(&mut self) {
        self.note_footprint();
    }
}

impl OperatorProcess {
    /// Notes what it uses now. The invariants are checked against the peaks.
    pub fn note_footprint(&self) {
        note_footprint(&self.footprint, self.pid());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until the process exits without being asked to by this call. Returns true if it exits with status 0.
    pub fn wait_for_exit(mut self) -> bool {
        eventually("the operator exits", || self.process.child().try_wait().unwrap()).success()
    }

    pub fn has_exited(&mut self) -> bool {
        self.process.child().try_wait().unwrap().is_some()
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    pub fn kill(mut self) {
        self.note_footprint();
        self.process.kill().unwrap();
    }

    /// Sends SIGTERM and waits. Returns true if the process exits with status 0.
    pub fn stop(mut self) -> bool {
        self.note_footprint();
        self.process.stop(Duration::from_secs(60)).unwrap().success()
    }

    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        http("GET", &format!("{}{path}", self.url), "")
    }

    pub fn metrics(&self) -> String {
        self.get("/metrics").map(|(_, metrics)| metrics).unwrap_or_default()
    }

    pub fn is_ready(&self) -> bool {
        self.get("/readyz").is_some_and(|(status, _)| status == 200)
    }

    /// Peak resident memory in kB.
    pub fn peak_memory_kb(&self) -> u64 {
        memory_kb(self.pid(), "VmHWM:").unwrap()
    }

    /// Current resident memory in kB.
    pub fn resident_memory_kb(&self) -> u64 {
        memory_kb(self.pid(), "VmRSS:").unwrap()
    }
}

/// A memory value of `/proc/PID/status` in kB. `None` if the operator has exited.
fn memory_kb(pid: u32, field: &str) -> Option<u64> {
    status_field(pid, field)?.parse().ok()
}

/// A field of `/proc/PID/status`. `None` if the operator has exited.
fn status_field(pid: u32, field: &str) -> Option<String> {
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    // Another process may have the PID by now.
    program.ends_with("personalize-operator").then(|| line.split_whitespace().nth(1).map(str::to_owned))?
}

/// Notes what a process uses, if it runs.
pub(super) fn note_footprint(footprint: &Mutex<Footprint>, pid: u32) {
    let files: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().collect();
    let is_socket = |path: PathBuf| path.to_string_lossy().starts_with("socket:");
    let sockets =
        files.iter().filter_map(|file| fs::read_link(file.path()).ok()).filter(|path| is_socket(path.clone()));
    let used = Footprint {
        descriptors: files.len(),
        sockets: sockets.count(),
        threads: status_field(pid, "Threads:").and_then(|threads| threads.parse().ok()).unwrap_or(0),
        memory_kb: memory_kb(pid, "VmHWM:").unwrap_or(0),
        ..Footprint::default()
    };
    // It may have exited in between, and another process may have the PID.
    if used.memory_kb > 0 {
        footprint.lock().unwrap().add(&used);
    }
}

/// Notes how many series these metrics have.
pub(super) fn note_series(footprint: &Mutex<Footprint>, metrics: &str) {
    let series = metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
    footprint.lock().unwrap().add(&Footprint { series, ..Footprint::default() });
}
