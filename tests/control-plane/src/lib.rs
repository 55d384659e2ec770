//! A real Kubernetes control plane on loopback: etcd, kube-apiserver, kube-controller-manager, kubectl.
//!
//! No root, no container engine, free ports; RBAC and the audit log are on. [`ControlPlane`] is one
//! instance with a directory of its own; [`shared`] is one for all tests of a process.

mod binaries;
mod certificates;
mod child_guard;
mod instance;

pub use binaries::path_of;
pub use child_guard::ChildGuard;
pub use instance::{Component, ControlPlane, shared};

use std::path::PathBuf;
use thiserror::Error;

/// Why a control plane can't be had.
#[derive(Debug, Error)]
pub enum Error {
    /// A file or process could not be handled.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A program that has to be on the machine is missing.
    #[error("{0} is not on PATH; install it (the README lists what is needed)")]
    Missing(&'static str),
    /// No program of that name is pinned here.
    #[error("no program {0:?} is known here; `control-plane path --help` tells which are")]
    Unknown(String),
    /// The Go compiler failed.
    #[error("building {program} failed; its output is above, and in short: {output}")]
    Build {
        /// The program.
        program: String,
        /// The end of what the compiler said.
        output: String,
    },
    /// A part did not come up.
    #[error("{part} did not get ready; its log is {log}, which ends: {tail}")]
    NotReady {
        /// The part.
        part: &'static str,
        /// Where it logs to.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// A certificate could not be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}
