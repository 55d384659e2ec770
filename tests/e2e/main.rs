//! End-to-end tests: the real operator binary, a real control plane, and the stand-in for Amazon Personalize.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "the name documents a test")]

mod cost;
mod crash_points;
mod env;
mod faults;
#[path = "../packaging/chart/helm.rs"]
#[allow(dead_code, reason = "the tests of the chart use the rest")]
mod helm;
mod invariants;
mod rng;
mod scenarios;
mod security;
mod soak;
