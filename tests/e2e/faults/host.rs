//! A machine whose wall clock and name service a test turns, for a real operator that runs on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How the machine's clock and names stand, and what lets a process see them so.
pub(super) struct Machine {
    library: String,
    dir: PathBuf,
}

impl Machine {
    /// A machine whose files are in this directory of a test's. It stands as the real one does.
    pub(super) fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        let library = dir.join("machine.so");
        // At run time: checkouts may share what they compile.
        let source = format!("{}/tests/e2e/faults/host.c", std::env::var("CARGO_MANIFEST_DIR").unwrap());
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source);
        assert!(compiler.status().unwrap().success(), "{compiler:?}");
        Self { library: library.display().to_string(), dir: dir.to_owned() }
    }

    /// For the environment of a process that runs on it.
    pub(super) fn env(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", &self.library), ("MACHINE", self.dir.to_str().unwrap())]
    }

    /// From now on the wall clock is so many seconds ahead of the real one, or behind it.
    pub(super) fn clock(&self, ahead: i64) {
        self.write("clock", ahead);
    }

    /// From now on names are found, or none is.
    pub(super) fn names(&self, found: bool) {
        self.write("no-names", i64::from(!found));
    }

    fn write(&self, name: &str, value: i64) {
        // By a rename, so that nobody reads half of it.
        let new = self.dir.join("new");
        fs::write(&new, value.to_string()).unwrap();
        fs::rename(new, self.dir.join(name)).unwrap();
    }
}
