//! The stand-in as a separate process.

use std::{fs, path::Path, path::PathBuf};

use control_plane::ChildGuard;

use crate::env;

/// A running `personalize-local`. It stops when it is dropped.
pub(crate) struct Process {
    pub(crate) child: ChildGuard,
    pub(crate) url: String,
}

/// Starts it with these files in a directory: `seed.yaml` (written if missing), `data`, `ledger.jsonl`, `state.json`.
pub(crate) async fn start(dir: &Path, extra_arguments: &[&str]) -> Process {
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
    arguments.extend(extra_arguments.iter().map(|&argument| argument.to_owned()));
    let (stdout, log) =
        (fs::File::create(&out).unwrap(), fs::File::options().create(true).append(true).open(dir.join("log")));
    let program = PathBuf::from(env!("CARGO_BIN_EXE_personalize-local"));
    let child = ChildGuard::spawn(&program, &arguments, |command| {
        command.stdout(stdout).stderr(log.unwrap());
    });
    let url = env::eventually("the stand-in listens", || {
        let output = fs::read_to_string(&out).unwrap();
        output.strip_prefix("listening on ").filter(|url| url.ends_with('\n')).map(|url| url.trim().to_owned())
    });
    Process { child: child.unwrap(), url: url.await }
}
