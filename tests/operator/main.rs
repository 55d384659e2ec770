//! The operator as users meet it: the real binary, a real control plane, and the stand-in service.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "a test is told by its name")]

mod admission;
mod bed;
mod judge;
mod life;
mod once;
mod process;
mod queueing;
mod service;
mod states;
mod tenancy;
