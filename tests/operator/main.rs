//! The operator as users meet it: the real binary, a real control plane, and the stand-in service.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "a test is told by its name")]

mod admission;
mod bed;
mod draw;
mod effects;
mod faults;
#[path = "../packaging/chart/helm.rs"]
#[allow(dead_code, reason = "the tests of the chart use all of it")]
mod helm;
mod judge;
mod life;
mod once;
mod proxy;
mod queueing;
mod security;
mod service;
mod soak;
mod states;
mod tenancy;
