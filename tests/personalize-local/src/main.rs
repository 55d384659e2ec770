//! `personalize-local`: the stand-in as a program.

use clap::Parser;
use personalize_local::{Seed, Service};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// A stand-in for the import part of Amazon Personalize.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Address to listen on; port 0 takes a free one. The address is printed on standard output.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// YAML file that declares accounts, datasets, jobs and durations.
    #[arg(long)]
    seed: PathBuf,
    /// Where s3://bucket/key is read from, as DIR/bucket/key.
    #[arg(long)]
    data: PathBuf,
    /// File that gets one JSON line per request.
    #[arg(long)]
    ledger: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "personalize-local: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(cli: Cli) -> Result<(), Box<dyn std::error::Error>> {
    let shown = cli.seed.display().to_string();
    let text = std::fs::read_to_string(&cli.seed).map_err(|e| format!("--seed {shown}: {e}"))?;
    let seed: Seed = serde_yaml::from_str(&text).map_err(|e| format!("--seed {shown}: {e}"))?;
    let service =
        Service::new(seed, cli.data, &cli.ledger).map_err(|e| format!("--ledger {}: {e}", cli.ledger.display()))?;
    let listener =
        tokio::net::TcpListener::bind(cli.listen).await.map_err(|e| format!("--listen {}: {e}", cli.listen))?;
    let mut out = std::io::stdout();
    let _ = writeln!(out, "listening on http://{}", listener.local_addr()?).and_then(|()| out.flush());
    let stop = async {
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
        let terminated = async {
            match &mut term {
                Some(term) => term.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! { _ = terminated => {}, _ = tokio::signal::ctrl_c() => {} }
    };
    tokio::select! {
        served = axum::serve(listener, service.router()) => served?,
        () = stop => {}
    }
    Ok(())
}
