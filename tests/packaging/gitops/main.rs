//! What Argo CD, Flux, Helm and Prometheus make of the operator: their own code judges it, beside the
//! real binary on a real control plane.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test is told by its name; the bed is shared with tests/operator, which uses all of it"
)]

mod accounts;
mod alerts;
mod argocd_scripts;
mod argocd_sync;
#[path = "../../operator/bed.rs"]
mod bed;
mod crds;
mod dashboard;
#[path = "../../operator/judge.rs"]
mod judge;
mod kstatus;
mod manifests;
mod metrics;
mod pipelines;
#[path = "../../operator/proxy.rs"]
mod proxy;
#[path = "../../operator/service.rs"]
mod service;
mod tool;
