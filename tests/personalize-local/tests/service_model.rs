//! Compares the table of operations with the service model in botocore.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod python;

use std::{
    fs,
    process::{Command, Stdio},
};

use personalize_local::OPERATIONS;
use serde_json::{Value, json};

/// The differences between the service model and each of the tables.
fn differences(tables: &[Value]) -> Vec<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tables.json");
    fs::write(&path, json!(tables).to_string()).unwrap();
    let mut compare = Command::new(python::bin_dir().join("python"));
    compare.arg(python::crate_path("tests/clients/compare_model.py")).stdin(Stdio::from(fs::File::open(path).unwrap()));
    serde_json::from_str(&python::run(&mut compare)).unwrap()
}

#[test]
fn operation_table_equals_the_service_model() {
    assert_eq!(differences(&[json!(OPERATIONS)]), [Vec::<String>::new()]);
}

#[test]
fn each_change_to_the_table_is_reported_as_one_difference() {
    let changes: [(&str, Value); 11] = [
        ("/0/input/0/required", json!(false)),
        ("/0/input/0/shape/string/max", json!(64)),
        ("/0/input/0/shape/string/min", json!(2)),
        ("/0/input/0/shape/string/pattern", json!(".*")),
        ("/8/input/1/shape/list/member/string/sensitive", json!(false)),
        ("/0/errors/5", json!("TooManyTagKeysException")),
        ("/0/input/5/shape/enum/0", json!("HALF")),
        ("/1/output/0/shape/structure/0/name", json!("name")),
        ("/2/input/2/shape/integer/max", json!(50)),
        ("/7/input/1/shape/list/max", json!(50)),
        ("/9/output", json!([])),
    ];
    let changed = changes.map(|(pointer, value)| {
        let mut table = json!(OPERATIONS);
        *table.pointer_mut(pointer).unwrap() = value;
        table
    });
    for (reported, table) in differences(&changed).iter().zip(changed) {
        assert_eq!(reported.len(), 1, "{reported:?} in {table}");
    }
}
