//! Generates the test column of docs/faults.md from the tests of this binary. `make generate` updates it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The paths of all fault tests, by the number in their names.
fn fault_tests() -> BTreeMap<u32, Vec<String>> {
    let listed = Command::new(std::env::current_exe().unwrap()).args(["--list", "--format=terse"]).output().unwrap();
    let mut tests: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for path in String::from_utf8(listed.stdout).unwrap().lines().filter_map(|line| line.strip_suffix(": test")) {
        let number = path.split("::fault_").nth(1).and_then(|name| name.split('_').next()?.parse().ok());
        number.into_iter().for_each(|number| tests.entry(number).or_default().push(format!("`{path}`")));
    }
    tests
}

#[test]
fn every_fault_in_the_docs_has_a_test_and_every_fault_test_has_a_row() {
    let file = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("docs/faults.md");
    let page = fs::read_to_string(&file).unwrap();
    let (mut tests, mut numbers, mut expected) = (fault_tests(), Vec::new(), String::new());
    let last = *tests.keys().next_back().unwrap();
    for line in page.lines() {
        let number = line.strip_prefix("| ").and_then(|line| line.split(' ').next()?.parse().ok());
        let Some(number) = number else {
            expected.extend([line, "\n"]);
            continue;
        };
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert!(cells.len() == 4 && cells.iter().all(|cell| !cell.is_empty()), "the row needs four cells: {line}");
        let tests = tests.remove(&number).unwrap_or_else(|| panic!("fault {number} has no test"));
        expected.push_str(&format!("| {} | {} | {} | {} |\n", cells[0], tests.join(", "), cells[2], cells[3]));
        numbers.push(number);
    }
    assert!(numbers.iter().copied().eq(1..=last), "docs/faults.md has every fault once and in order: {numbers:?}");
    assert_eq!(tests, BTreeMap::new(), "these tests have no row in docs/faults.md");
    if std::env::var_os("GENERATE").is_some() {
        fs::write(&file, &expected).unwrap();
    }
    let page = fs::read_to_string(&file).unwrap();
    assert!(page == expected, "the test column of docs/faults.md is out of date; run `make generate`");
}
