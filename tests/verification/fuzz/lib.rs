//! Fuzz targets: the answers of the service, resources, observations and the configuration.
//!
//! `cargo test` runs each target for a moment on random input and on every input under `__fuzz__`. `make fuzz` runs them
//! guided by coverage.

#![cfg(test)]

mod answers;
mod configuration;
mod decisions;
mod document;
mod invariants;
mod resources;
