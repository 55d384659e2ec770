//! What users install: the Helm chart, the kustomize base, and the files for Argo CD, Flux and Prometheus. The tests use
//! the code of these tools, a real control plane and the real operator binary.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::panic,
    reason = "test names document themselves; tests/e2e uses the rest of the shared modules"
)]

mod chart;
#[path = "../e2e/env/mod.rs"]
mod env;
mod gitops;
#[path = "../e2e/invariants/mod.rs"]
mod invariants;
