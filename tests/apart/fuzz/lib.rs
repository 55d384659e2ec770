//! What comes from outside, made up by a fuzzer: the service's answers, resources, the configuration.
//!
//! `cargo test` runs each target for a moment on made-up input and on every input kept under
//! `__fuzz__`; `make fuzz` runs them guided by coverage.

#![cfg(test)]

mod answers;
mod configuration;
mod decisions;
mod document;
mod judge;
mod resources;
