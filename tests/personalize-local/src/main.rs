//! `personalize-local`: the stand-in as a program.

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use axum::http::Uri;
use clap::Parser;
use personalize_local::{Config, Durations, Seed, Service, StartError};

/// A stand-in for the Amazon Personalize import API.
///
/// It enforces the service's rules, reads real CSV files, and injects faults. Point any AWS client at it with
/// AWS_ENDPOINT_URL_PERSONALIZE. GET /_local/ shows accounts, datasets and jobs in a browser; POST /_local/faults
/// adds a fault. RUST_LOG sets the log level on standard error: info (the default) logs changes and errors, debug
/// logs every request.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to listen on; port 0 picks a free port, which is printed on stdout
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    listen: SocketAddr,
    /// Accounts, datasets and jobs that exist at the start (YAML)
    #[arg(long, value_name = "FILE")]
    seed: PathBuf,
    /// Root of the S3 data: s3://bucket/key is read from DIR/bucket/key
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Appends one JSON line per request
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Persists jobs, tags, dataset states and temporary credentials across restarts
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// An STS endpoint; POST /_local/sts forwards requests to it and registers the temporary credentials it issues
    #[arg(long, value_name = "URL")]
    sts: Option<Uri>,
    /// How long a job is CREATE PENDING, in milliseconds; overrides the seed
    #[arg(long, value_name = "MS")]
    pending_ms: Option<u64>,
    /// How long a job is CREATE IN_PROGRESS, in milliseconds; overrides the seed
    #[arg(long, value_name = "MS")]
    in_progress_ms: Option<u64>,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let colors = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(colors);
    log.with_writer(std::io::stderr).init();
    let args = Args::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "failed to start the async runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(args));
    // A thread may be blocked on a read, for example from a named pipe without a writer. Don't wait for it.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), StartError> {
    let Args { listen, seed: path, data, ledger, state, sts, pending_ms, in_progress_ms } = args;
    let text = std::fs::read_to_string(&path).map_err(|source| StartError::File { path, source })?;
    let mut seed = Seed::from_yaml(&text)?;
    seed.durations = Durations {
        pending_ms: pending_ms.unwrap_or(seed.durations.pending_ms),
        in_progress_ms: in_progress_ms.unwrap_or(seed.durations.in_progress_ms),
    };
    let service = Service::start(Config { listen, seed, data, ledger, state, sts }).await?;
    let mut out = std::io::stdout();
    let printed = writeln!(out, "listening on {}", service.url()).and_then(|()| out.flush());
    if let Err(error) = printed {
        tracing::warn!(%error, "failed to print the address on stdout");
    }
    let signal = shutdown_signal().await;
    tracing::info!("received {signal}; shutting down");
    service.stop().await;
    Ok(())
}

/// Waits for SIGTERM or SIGINT and returns its name.
async fn shutdown_signal() -> &'static str {
    let mut sigterm = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
    let terminated = async {
        match &mut sigterm {
            Some(signal) => signal.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => "SIGINT",
        _ = terminated => "SIGTERM",
    }
}
