//! The Helm chart: rendered by the real helm, accepted by a real API server, and its pods run with the real binary.

pub mod helm;
mod image;
mod install;
mod kustomize;
mod pods;
mod render;
mod schema;
mod tenancy;
mod values;
