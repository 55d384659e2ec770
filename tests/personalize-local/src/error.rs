//! Why the stand-in could not start.

use std::path::PathBuf;

/// Why the stand-in could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file named on the command line can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file in question.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The listening address is taken or not ours.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: std::net::SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The seed is not what the README describes.
    #[error("seed: {0}")]
    Seed(#[from] serde_yaml::Error),
    /// The seed is well-formed but contradicts itself.
    #[error("seed: {0}")]
    SeedContent(String),
    /// The state file was not written by this program.
    #[error("state file {path}: {source}")]
    State {
        /// The file in question.
        path: PathBuf,
        /// Where the JSON goes wrong.
        source: serde_json::Error,
    },
}
