//! Fuzz targets: responses of the service, resources, single decisions, and the configuration.
//!
//! `cargo test` runs each target on some random input and on every input under `__fuzz__`. `make fuzz` runs them guided
//! by coverage.

#![cfg(test)]

mod configuration;
mod decisions;
mod document;
mod invariants;
mod resources;
mod responses;
