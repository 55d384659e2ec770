//! Argo CD, Flux, Helm's `--wait`, pipelines and Prometheus: what their own code makes of the operator.

mod accounts;
mod alerts;
mod argocd_scripts;
mod argocd_sync;
mod crds;
mod dashboard;
mod kstatus;
mod manifests;
mod metrics;
mod pipelines;
mod tool;
