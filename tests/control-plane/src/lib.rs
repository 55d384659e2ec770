//! A real Kubernetes control plane on loopback: etcd, kube-apiserver, kube-controller-manager and kubectl.
//!
//! It needs no root and no container engine. It uses free ports, RBAC and an audit log. [`ControlPlane`] is one instance
//! with its own directory; [`shared`] returns one instance for all tests of a process.

mod binaries;
mod certificates;
mod child_guard;
mod instance;

pub use binaries::{KUBERNETES_VERSIONS, path_of, paths_of};
pub use child_guard::ChildGuard;
pub use instance::{Component, ControlPlane, shared};

use std::path::PathBuf;
use thiserror::Error;

/// Why a control plane or one of its programs is not available.
#[derive(Debug, Error)]
pub enum Error {
    /// A file or a process operation failed.
    #[error("{what}: {source}")]
    Io {
        /// The file or the operation.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A required program is not installed.
    #[error("{0} is not on PATH; install it (the README lists what is needed)")]
    Missing(&'static str),
    /// The program is not in the list of pinned programs.
    #[error("unknown program {0:?}; `control-plane path --help` lists the known ones")]
    Unknown(String),
    /// No programs of this version of Kubernetes are pinned.
    #[error("KUBERNETES_VERSION={0}: the pinned versions are {versions}", versions = KUBERNETES_VERSIONS.join(", "))]
    UnknownVersion(String),
    /// The Go compiler failed.
    #[error("building {programs} failed; the full output is above, its end is: {output}")]
    Build {
        /// The programs.
        programs: String,
        /// The end of the compiler's output.
        output: String,
    },
    /// A component did not become ready.
    #[error("{component} did not become ready; its log is {log}, the end of the log is: {tail}")]
    NotReady {
        /// The component.
        component: &'static str,
        /// The component's log file.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// Creating a certificate failed.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}
