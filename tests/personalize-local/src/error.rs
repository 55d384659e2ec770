//! Errors at startup.

use std::path::PathBuf;

/// Why the stand-in failed to start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file named on the command line can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The listen address can't be bound.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The requested address.
        address: std::net::SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The seed is not valid YAML, or its keys are not those in the README.
    #[error("seed: {0}")]
    Seed(#[from] serde_yaml::Error),
    /// The seed is well-formed, but its content is invalid.
    #[error("seed: {0}")]
    SeedContent(String),
    /// The state file is not in the format of this program.
    #[error("state file {path}: {source}")]
    State {
        /// The file.
        path: PathBuf,
        /// The JSON error and its position.
        source: serde_json::Error,
    },
}
