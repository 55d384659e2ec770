//! What Argo CD, Flux, Helm and Prometheus make of the operator: their own code judges it, beside the
//! real binary on a real control plane.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test is told by its name; the environment is shared with tests/e2e, which uses all of it"
)]

mod accounts;
mod alerts;
mod argocd_scripts;
mod argocd_sync;
mod crds;
mod dashboard;
#[path = "../e2e/env/mod.rs"]
mod env;
#[path = "../e2e/invariants/mod.rs"]
mod invariants;
mod kstatus;
mod manifests;
mod metrics;
mod pipelines;
mod tool;
