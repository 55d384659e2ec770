//! Code of Argo CD, Flux, kstatus and Prometheus, run on the operator's manifests, resources and metrics.

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
