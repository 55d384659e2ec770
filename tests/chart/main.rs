//! The chart as users meet it: the real helm, and a real API server that takes what it renders.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "a test is told by its name")]

#[allow(dead_code, reason = "the operator's own tests use the rest of it")]
#[path = "../e2e/env/mod.rs"]
mod env;
mod helm;
mod image;
mod install;
#[allow(dead_code, reason = "the operator's own tests use the rest of it")]
#[path = "../e2e/invariants/mod.rs"]
mod invariants;
mod kustomize;
mod node;
mod render;
mod schema;
mod tenancy;
mod values;
