//! The operator as users meet it: the real binary, a real control plane, and the stand-in service.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "a test is told by its name")]

mod crash_points;
mod env;
mod faults;
#[path = "../chart/helm.rs"]
#[allow(dead_code, reason = "the tests of the chart use all of it")]
mod helm;
mod invariants;
mod rng;
mod scenarios;
mod security;
mod soak;
