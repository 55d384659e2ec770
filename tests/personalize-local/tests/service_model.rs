//! The table of operations against the service model that botocore ships.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

mod python;

use std::{
    fs,
    process::{Command, Stdio},
};

use personalize_local::OPERATIONS;

#[test]
fn no_member_constraint_error_or_required_flag_differs() {
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("operations.json");
    fs::write(&table, serde_json::to_vec(OPERATIONS).unwrap()).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/compare_model.py");
    let mut compare = Command::new(python::venv().join("python"));
    python::done(compare.arg(script).stdin(Stdio::from(fs::File::open(table).unwrap())));
}
