//! Plays the kubelet for the pods of one namespace, on a machine without containers and without root.
//!
//! A pod's container runs as a process in user and mount namespaces of its own: its root holds nothing
//! but what its image would hold, read-only if the pod says so, with the pod's volumes mounted in it. It
//! gets the pod's own arguments and environment and a token of its ServiceAccount, is judged by its
//! probes, and stopped as its grace period says. kube-controller-manager makes the pods.
//!
//! Two things differ from a real node, both because pods share the machine's loopback interface: a pod's
//! address is one of 127.0.0.0/8, which 0.0.0.0 in its arguments stands for; and the name of a Service
//! leads to one of its ready pods, by /etc/hosts. What isn't played is refused, not passed over.

mod container;
mod kubelet;
mod tests;
mod volumes;

use kubelet::Kubelet;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What an image holds, and how it starts.
#[derive(Debug, Clone)]
pub struct Image {
    pub binary: PathBuf,
    pub entrypoint: String,
    pub user: i64,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Exit {
    pub pod: String,
    /// The exit status, unless a signal ended it.
    pub code: Option<i32>,
    /// Whether it had to be killed because its grace period was over.
    pub killed: bool,
}

/// A node for one namespace. Dropping it ends its pods.
pub struct Node {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    dir: PathBuf,
    exits: Arc<Mutex<Vec<Exit>>>,
}

impl Node {
    /// A node that has these images, for the pods of this namespace; its files are in `dir`.
    pub fn start(kubeconfig: &Path, namespace: &str, dir: &Path, images: HashMap<String, Image>) -> Self {
        let tried = Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]).output();
        let permitted = tried.as_ref().is_ok_and(|output| output.status.success());
        assert!(
            permitted,
            "this test runs pods in user namespaces, and `unshare --user --map-root-user --mount true` fails here \
             (util-linux 2.38 or newer and a kernel that permits user namespaces are needed): {tried:?}"
        );
        let (stop, exits) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let mut kubelet = Kubelet::new(kubeconfig, namespace, dir, images, Arc::clone(&exits));
        let ordered = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                while !ordered.load(Ordering::Relaxed) {
                    // What fails now is tried again, as a kubelet does.
                    let _ = kubelet.pass().await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        });
        Self { stop, thread: Some(thread), dir: dir.into(), exits }
    }

    /// The containers that have ended so far.
    pub fn exits(&self) -> Vec<Exit> {
        self.exits.lock().unwrap().clone()
    }

    /// What all containers have written, for messages.
    pub fn logs(&self) -> String {
        let entries = std::fs::read_dir(self.dir.join("logs")).unwrap();
        let logs = entries.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default());
        logs.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it has been told already.
            let _ = thread.join();
        }
    }
}
