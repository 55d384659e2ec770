//! The command `check` on the data sets of `tests/corpus`, which were written from the developer guide alone.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::thread;

/// How many of the 60 broken sets must be refused at least.
const MIN_REFUSED: usize = 57;

/// Processes at the same time.
const AT_ONCE: usize = 8;

/// Event types that the guide prescribes, so that a finding may name them.
const PRESCRIBED: [&str; 2] = ["Viewed", "Not taken"];

/// What `case.yaml` says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    title: String,
    domain: String,
    dataset_type: String,
    import_mode: String,
    location: String,
}

/// A data set.
struct Set {
    dir: PathBuf,
    case: Case,
}

impl Set {
    fn name(&self) -> String {
        format!("{}: {}", self.dir.file_name().unwrap().display(), self.case.title)
    }

    fn check(&self, flags: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_personalize-operator"));
        command.current_dir(&self.dir).env_clear().args(["check", &self.case.location, "--schema", "schema.json"]);
        command.args(["--type", &self.case.dataset_type, "--import-mode", &self.case.import_mode]).args(flags);
        if self.case.domain != "CUSTOM" {
            command.args(["--domain", &self.case.domain]);
        }
        command.output().unwrap()
    }
}

/// The sets of one kind, by name.
fn sets(kind: &str) -> Vec<Set> {
    // Read at run time, because checkouts may share compiled tests.
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("tests/corpus").join(kind);
    let mut dirs: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    assert_eq!(dirs.len(), 60, "{kind}");
    let case = |dir: &PathBuf| serde_yaml::from_str(&fs::read_to_string(dir.join("case.yaml")).unwrap()).unwrap();
    dirs.into_iter().map(|dir| Set { case: case(&dir), dir }).collect()
}

/// What a function says of each set, in their order.
fn for_each<T: Send>(sets: &[Set], function: impl Fn(&Set) -> T + Sync) -> Vec<T> {
    let (queue, results) = (Mutex::new(sets.iter().enumerate()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some((index, set)) = queue.lock().unwrap().next() else { break };
                    let result = function(set);
                    results.lock().unwrap().push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The sets whose exit status is another one, with the output. Sets of this size are read completely in either way.
fn misjudged(kind: &str, status: i32) -> Vec<String> {
    let judge = |set: &Set| {
        let outputs = ["--full", "--sample"].map(|depth| set.check(&[depth]));
        let wrong = outputs.iter().find(|output| output.status.code() != Some(status))?;
        Some(format!("{}\n{}", set.name(), text(wrong)))
    };
    for_each(&sets(kind), judge).into_iter().flatten().collect()
}

#[test]
fn broken_sets_are_refused() {
    let accepted = misjudged("broken", 1);
    let shown = accepted.join("\n");
    println!("{} of 60 broken sets are refused; not these:\n{shown}", 60 - accepted.len());
    assert!(60 - accepted.len() >= MIN_REFUSED, "{shown}");
}

#[test]
fn good_sets_are_not_refused() {
    let refused = misjudged("good", 0);
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

/// Where the cells of a file end, in whatever format it is.
const SEPARATORS: [char; 6] = [',', ';', '\t', '\r', '\n', '"'];

/// The first six characters of each longer cell in the files of a set, unless the schema contains them: a finding may name
/// its fields.
fn planted(set: &Set) -> BTreeSet<String> {
    let schema = fs::read_to_string(set.dir.join("schema.json")).unwrap();
    let location = set.dir.join(&set.case.location);
    let folder = if location.is_dir() { location } else { location.parent().unwrap().to_owned() };
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let mut starts = BTreeSet::new();
    for content in files.map(|file| fs::read(file).unwrap()) {
        // Without the zero bytes UTF-16 is readable, too.
        let content: Vec<u8> = content.into_iter().filter(|byte| *byte != 0).collect();
        let content = String::from_utf8_lossy(&content);
        let cells = content.split(SEPARATORS).map(str::trim).filter(|cell| !PRESCRIBED.contains(cell));
        let start = |cell: &str| cell.chars().take(6).collect::<String>();
        starts.extend(cells.map(start).filter(|start| start.chars().count() == 6 && !schema.contains(start.as_str())));
    }
    starts
}

#[test]
fn no_value_of_the_data_is_shown() {
    let leaks = |set: &Set| {
        let planted = planted(set);
        let shown = ["text", "json"].map(|format| text(&set.check(&["--output", format]))).concat();
        let leaked = planted.iter().filter(|cell| shown.contains(*cell)).cloned().collect::<Vec<_>>();
        (planted.len(), (!leaked.is_empty()).then(|| format!("{}: {leaked:?}", set.name())))
    };
    for kind in ["broken", "good"] {
        let (counts, leaked): (Vec<_>, Vec<_>) = for_each(&sets(kind), leaks).into_iter().unzip();
        println!("{kind}: {} values are looked for", counts.iter().sum::<usize>());
        assert!(counts.iter().sum::<usize>() > 10_000, "the values are found in the files");
        assert_eq!(leaked.into_iter().flatten().collect::<Vec<_>>(), Vec::<String>::new());
    }
}
