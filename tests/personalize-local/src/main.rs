//! `personalize-local`: the stand-in as a process.

use std::{io::Write, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use personalize_local::{Config, Durations, Seed, Service, StartError};

/// A stand-in for the Amazon Personalize import API.
///
/// Point a client at it with AWS_ENDPOINT_URL_PERSONALIZE. GET /_local/ shows accounts, datasets and jobs;
/// POST /_local/faults adds a fault.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen; port 0 picks a free one, printed on stdout
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    listen: SocketAddr,
    /// Accounts, datasets and jobs that exist (YAML)
    #[arg(long, value_name = "FILE")]
    seed: PathBuf,
    /// s3://bucket/key is read from DIR/bucket/key
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Appends one JSON line per request
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Keeps jobs, tags and datasets' states across restarts
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// How long a job is CREATE PENDING, in milliseconds; overrides the seed
    #[arg(long, value_name = "MS")]
    pending_ms: Option<u64>,
    /// How long a job is CREATE IN_PROGRESS, in milliseconds; overrides the seed
    #[arg(long, value_name = "MS")]
    in_progress_ms: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(std::io::stderr).init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), StartError> {
    let Arguments { listen, seed: path, data, ledger, state, pending_ms, in_progress_ms } = arguments;
    let text = std::fs::read_to_string(&path).map_err(|source| StartError::File { path, source })?;
    let mut seed = Seed::from_yaml(&text)?;
    seed.durations = Durations {
        pending_ms: pending_ms.unwrap_or(seed.durations.pending_ms),
        in_progress_ms: in_progress_ms.unwrap_or(seed.durations.in_progress_ms),
    };
    let service = Service::start(Config { listen, seed, data, ledger, state }).await?;
    let mut out = std::io::stdout();
    let told = writeln!(out, "listening on {}", service.url()).and_then(|()| out.flush());
    if let Err(error) = told {
        tracing::warn!(%error, "the address can't be printed");
    }
    let asked = stop_asked().await;
    tracing::info!(asked, "stopping");
    service.stop().await;
    Ok(())
}

/// Waits for SIGTERM or SIGINT.
async fn stop_asked() -> &'static str {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
    let terminated = async {
        match &mut terminate {
            Some(signal) => signal.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => "interrupted",
        _ = terminated => "terminated",
    }
}
