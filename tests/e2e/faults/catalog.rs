//! docs/faults.md and the tests agree: each fault is in the table, each test that it names exists where
//! it says, and no test of a fault is left out.

use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A row: the fault's number, and each test that it names with its file.
struct Row {
    number: u32,
    tests: Vec<(String, String)>,
}

fn root() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap())
}

fn rows() -> Vec<Row> {
    let table = fs::read_to_string(root().join("docs/faults.md")).unwrap();
    let row = Regex::new(r"^\| (\d+) ([^|]+)\|([^|]+)\|([^|]+)\|([^|]+)\|$").unwrap();
    let file = Regex::new(r"`((?:src|tests)/[\w/]+\.rs)`((?:[ ,]*`\w+`)+)").unwrap();
    let name = Regex::new(r"`(\w+)`").unwrap();
    let numbered = table.lines().filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit());
    numbered
        .map(|line| {
            let cells = row.captures(line).unwrap_or_else(|| panic!("not four full cells: {line}"));
            let blank = cells.iter().flatten().any(|cell| cell.as_str().trim().is_empty());
            assert!(!blank, "a cell is blank: {line}");
            let tests = file.captures_iter(&cells[3]).flat_map(|of| {
                let path = of[1].to_owned();
                name.captures_iter(&of[2]).map(|n| (path.clone(), n[1].to_owned())).collect::<Vec<_>>()
            });
            Row { number: cells[1].parse().unwrap(), tests: tests.collect() }
        })
        .collect()
}

fn sources(dir: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            found.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

/// Every test of a file: file and name.
fn tests() -> BTreeSet<(String, String)> {
    let mut found = BTreeMap::new();
    for dir in ["src", "tests/e2e"] {
        sources(&root().join(dir), &mut found);
    }
    let test = Regex::new(r"#\[(?:tokio::)?test[^\]]*\]\s+(?:async )?fn (\w+)").unwrap();
    let of = |(file, text): (&String, &String)| {
        test.captures_iter(text).map(|t| (file.clone(), t[1].to_owned())).collect::<Vec<_>>()
    };
    found.iter().flat_map(of).collect()
}

#[test]
fn the_table_holds_each_of_the_76_faults_once_and_in_order() {
    assert_eq!(rows().iter().map(|row| row.number).collect::<Vec<_>>(), (1..=76).collect::<Vec<_>>());
}

#[test]
fn each_test_that_the_table_names_exists_and_one_of_them_bears_the_number() {
    let tests = tests();
    for Row { number, tests: named } in rows() {
        for test in &named {
            assert!(tests.contains(test), "{number}: there is no {test:?}");
        }
        let prefix = format!("fault_{number:02}_");
        assert!(named.iter().any(|(_, name)| name.starts_with(&prefix)), "{number}: no test is named {prefix}…");
    }
}

#[test]
fn each_test_of_a_fault_is_in_its_row() {
    let rows = rows();
    for (file, name) in tests() {
        let Some(number) = name.strip_prefix("fault_").and_then(|n| n.get(..2)?.parse::<u32>().ok()) else { continue };
        let row = rows.iter().find(|row| row.number == number).unwrap_or_else(|| panic!("{name} has no row"));
        assert!(row.tests.contains(&(file.clone(), name.clone())), "row {number} leaves out {name} in {file}");
    }
}
