//! The stand-in as a process of its own.

use std::{fs, path::Path, path::PathBuf};

use control_plane::ChildGuard;

use crate::bed;

/// A running `personalize-local`. It ends with the test.
pub(crate) struct Process {
    pub(crate) guard: ChildGuard,
    pub(crate) url: String,
}

/// Starts it on files in a directory: `seed.yaml` (unless it is there), `data`, `ledger.jsonl`, `state.json`.
pub(crate) async fn start(dir: &Path, more: &[&str]) -> Process {
    let out = dir.join("out");
    if !dir.join("seed.yaml").exists() {
        fs::write(dir.join("seed.yaml"), include_str!("../seed.yaml")).unwrap();
    }
    let path = |name: &str| dir.join(name).display().to_string();
    let mut arguments = Vec::new();
    for (flag, name) in
        [("--seed", "seed.yaml"), ("--data", "data"), ("--ledger", "ledger.jsonl"), ("--state", "state.json")]
    {
        arguments.extend([flag.to_owned(), path(name)]);
    }
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    let (stdout, log) =
        (fs::File::create(&out).unwrap(), fs::File::options().create(true).append(true).open(dir.join("log")));
    let program = PathBuf::from(env!("CARGO_BIN_EXE_personalize-local"));
    let guard = ChildGuard::spawn(&program, &arguments, |command| {
        command.stdout(stdout).stderr(log.unwrap());
    });
    let url = bed::eventually("the stand-in listens", || {
        let told = fs::read_to_string(&out).unwrap();
        told.strip_prefix("listening on ").filter(|told| told.ends_with('\n')).map(|url| url.trim().to_owned())
    });
    Process { guard: guard.unwrap(), url: url.await }
}
