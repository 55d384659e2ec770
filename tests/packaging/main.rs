//! What users install: the Helm chart, the kustomize base, and the files for Argo CD, Flux and Prometheus. The tests use
//! the code of these tools, a real control plane and the real operator binary.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "test names document themselves; tests/operator uses the rest of the shared modules"
)]

#[path = "../operator/bed.rs"]
mod bed;
mod chart;
mod gitops;
#[path = "../operator/judge.rs"]
mod judge;
#[path = "../operator/proxy.rs"]
mod proxy;
#[path = "../operator/service.rs"]
mod service;
