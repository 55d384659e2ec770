//! `personalize-local`: the stand-in as a process.

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
/// It keeps the service's rules, reads real CSV files, and fails on demand. Point any AWS client at it with
/// AWS_ENDPOINT_URL_PERSONALIZE. GET /_local/ shows accounts, datasets and jobs in a browser; POST /_local/faults
/// adds a fault. RUST_LOG sets the log on standard error: info (the default) tells what changes and what fails, debug
/// tells every request.
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
    /// Keeps jobs, tags, datasets' states and temporary credentials across restarts
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// An STS; POST /_local/sts passes requests on to it and learns the temporary credentials it gives out
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
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(colours);
    log.with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run(arguments));
    // A thread that waits for data (a named pipe may have none) must not hold up the end.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), StartError> {
    let Arguments { listen, seed: path, data, ledger, state, sts, pending_ms, in_progress_ms } = arguments;
    let text = std::fs::read_to_string(&path).map_err(|source| StartError::File { path, source })?;
    let mut seed = Seed::from_yaml(&text)?;
    seed.durations = Durations {
        pending_ms: pending_ms.unwrap_or(seed.durations.pending_ms),
        in_progress_ms: in_progress_ms.unwrap_or(seed.durations.in_progress_ms),
    };
    let service = Service::start(Config { listen, seed, data, ledger, state, sts }).await?;
    let mut out = std::io::stdout();
    let told = writeln!(out, "listening on {}", service.url()).and_then(|()| out.flush());
    if let Err(error) = told {
        tracing::warn!(%error, "the address can't be printed");
    }
    let asked = stop_asked().await;
    tracing::info!("{asked}, so it stops");
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
