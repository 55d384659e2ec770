//! The real operator as a process.

use super::{eventually, http};
use control_plane::ChildGuard;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A running operator. Dropping it kills it.
pub struct OperatorProcess {
    pub(super) process: ChildGuard,
    pub(super) log: PathBuf,
    pub url: String,
}

impl OperatorProcess {
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until the process exits without being asked to by this handle.
    pub fn wait_for_exit(mut self) {
        eventually("the operator exits", || self.process.child().try_wait().unwrap());
    }

    pub fn has_exited(&mut self) -> bool {
        self.process.child().try_wait().unwrap().is_some()
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    pub fn kill(mut self) {
        self.process.kill().unwrap();
    }

    /// Sends SIGTERM and waits. Returns true if the process exits with status 0.
    pub fn stop(mut self) -> bool {
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
pub(super) fn memory_kb(pid: u32, field: &str) -> Option<u64> {
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    // Another process may have the PID by now.
    line.split_whitespace().nth(1)?.parse().ok().filter(|_| program.ends_with("personalize-operator"))
}
