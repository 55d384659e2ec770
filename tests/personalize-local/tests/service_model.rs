//! The table of operations against the service model that botocore ships.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

mod python;

use std::{
    fs,
    process::{Command, Stdio},
};

use personalize_local::OPERATIONS;
use serde_json::{Value, json};

/// What botocore finds wrong with each of several tables of operations.
fn differences(tables: &[Value]) -> Vec<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tables.json");
    fs::write(&path, json!(tables).to_string()).unwrap();
    let mut compare = Command::new(python::venv().join("python"));
    compare.arg(python::own("tests/clients/compare_model.py")).stdin(Stdio::from(fs::File::open(path).unwrap()));
    serde_json::from_str(&python::done(&mut compare)).unwrap()
}

#[test]
fn no_member_constraint_error_or_required_flag_is_missing_or_different() {
    assert_eq!(differences(&[json!(OPERATIONS)]), [Vec::<String>::new()]);
}

#[test]
fn whatever_differs_is_found() {
    let changes: [(&str, Value); 11] = [
        ("/0/input/0/required", json!(false)),
        ("/0/input/0/kind/text/max", json!(64)),
        ("/0/input/0/kind/text/min", json!(2)),
        ("/0/input/0/kind/text/pattern", json!(".*")),
        ("/8/input/1/kind/list/of/text/sensitive", json!(false)),
        ("/0/errors/5", json!("TooManyTagKeysException")),
        ("/0/input/5/kind/choice/0", json!("HALF")),
        ("/1/output/0/kind/structure/0/name", json!("name")),
        ("/2/input/2/kind/count/max", json!(50)),
        ("/7/input/1/kind/list/max", json!(50)),
        ("/9/output", json!([])),
    ];
    let changed = changes.map(|(place, value)| {
        let mut table = json!(OPERATIONS);
        *table.pointer_mut(place).unwrap() = value;
        table
    });
    for (found, change) in differences(&changed).iter().zip(changed) {
        assert_eq!(found.len(), 1, "{found:?} in {change}");
    }
}
