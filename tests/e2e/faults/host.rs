//! A host whose wall clock and name resolution a test controls, for a real operator on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory with the state of the host, and the library that applies it to a process.
pub(super) struct Host {
    library: String,
    dir: PathBuf,
}

impl Host {
    /// A host with its files in this directory, and the real clock and names.
    pub(super) fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        let library = dir.join("host.so");
        // Read at run time, because several checkouts may share compiled tests.
        let source = format!("{}/tests/e2e/faults/host.c", std::env::var("CARGO_MANIFEST_DIR").unwrap());
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source);
        assert!(compiler.status().unwrap().success(), "{compiler:?}");
        Self { library: library.display().to_string(), dir: dir.to_owned() }
    }

    /// The environment variables of a process on this host.
    pub(super) fn vars(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", &self.library), ("FAKE_HOST_DIR", self.dir.to_str().unwrap())]
    }

    /// Sets how many seconds the wall clock is ahead of the real one.
    pub(super) fn set_clock_offset(&self, seconds: i64) {
        self.write("clock-offset", seconds);
    }

    /// Sets whether names can be resolved.
    pub(super) fn set_names_resolve(&self, resolve: bool) {
        self.write("no-names", i64::from(!resolve));
    }

    fn write(&self, name: &str, value: i64) {
        // Rename, so that no process reads a partial file.
        let new = self.dir.join("new");
        fs::write(&new, value.to_string()).unwrap();
        fs::rename(new, self.dir.join(name)).unwrap();
    }
}
