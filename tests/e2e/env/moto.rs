//! The moto server: STS and S3 that this project did not write.

use super::{eventually, python};
use control_plane::ChildGuard;
use std::fs::{self, File};

/// A running moto server.
pub struct Moto {
    _process: ChildGuard,
    pub url: String,
}

impl Moto {
    pub fn start() -> Self {
        let log = tempfile::Builder::new().prefix("moto-").tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let log = log.into_temp_path().keep().unwrap();
        let arguments = ["-H", "127.0.0.1", "-p", "0"].map(str::to_owned);
        let process = ChildGuard::spawn(&python::bin_dir().join("moto_server"), &arguments, |command| {
            command.env("PYTHONUNBUFFERED", "1").stdout(File::create(&log).unwrap());
            command.stderr(File::options().append(true).open(&log).unwrap());
        })
        .unwrap();
        let url = eventually("moto listens", || {
            let output = fs::read_to_string(&log).ok()?;
            let (_, rest) = output.split_once("Running on ")?;
            rest.split_once('\n').map(|(url, _)| url.trim().to_owned())
        });
        fs::remove_file(&log).unwrap();
        Self { _process: process, url }
    }
}
