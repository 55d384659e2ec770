//! The operator's binary.

use clap::Parser;
use personalize_operator::cli::{Cli, Command};
use personalize_operator::redact::sanitize_display;
use personalize_operator::{api, check, http::probe, run, telemetry::logging};
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match execute(Cli::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(stderr(), "personalize-operator: {}", sanitize_display(&error));
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Command) -> Result<ExitCode, run::Error> {
    match command {
        Command::Run(args) => {
            logging::init(&args.log_level, args.log_format)?;
            run::run(&args).await?;
        }
        Command::Crd => stdout().write_all(api::crd_yaml()?.as_bytes())?,
        Command::Probe(args) => {
            let answer = probe::wait_until_ready(&args.url, args.timeout).await?;
            writeln!(stdout(), "{answer}")?;
        }
        Command::Check(args) => return check::check(&args).await,
    }
    Ok(ExitCode::SUCCESS)
}
