//! The chart as users meet it: the real helm, and a real API server that takes what it renders.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "a test is told by its name")]

#[allow(dead_code, reason = "the operator's own tests use the rest of it")]
#[path = "../../operator/bed.rs"]
mod bed;
mod helm;
mod image;
mod install;
#[allow(dead_code, reason = "the operator's own tests use the rest of it")]
#[path = "../../operator/judge.rs"]
mod judge;
mod kustomize;
mod node;
#[allow(dead_code, reason = "the operator's own tests use the rest of it")]
#[path = "../../operator/proxy.rs"]
mod proxy;
mod render;
mod schema;
#[allow(dead_code, reason = "the operator's own tests use the rest of it")]
#[path = "../../operator/service.rs"]
mod service;
mod tenancy;
mod values;
