//! The operator's one binary.

use clap::Parser;
use http::header::{HeaderValue, USER_AGENT};
use kube::Config;
use personalize_operator::aws::Aws;
use personalize_operator::cli::{Cli, Command, ProbeArgs, RunArgs};
use personalize_operator::controller::kube_client::KubeClient;
use personalize_operator::http::readiness::Readiness;
use personalize_operator::telemetry::metrics::Metrics;
use personalize_operator::{api, controller, http as server, http::probe, redact as text, telemetry::logging as log};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Crd => print_crd(),
        Command::Run(args) => run(&args),
        Command::Probe(args) => ask(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Before the log is set up there is only this.
            let _ = writeln!(std::io::stderr(), "personalize-operator: {}", text::sanitize(&failure.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn print_crd() -> Result<(), Failure> {
    let yaml = serde_yaml::to_string(&api::crd())?;
    std::io::stdout().write_all(yaml.as_bytes())?;
    Ok(())
}

fn ask(args: &ProbeArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(probe::until_well(&args.url, args.timeout))?;
    writeln!(std::io::stdout(), "{answer}")?;
    Ok(())
}

fn run(args: &RunArgs) -> Result<(), Failure> {
    log::init(&args.log_level, args.log_format)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(args))
}

async fn serve(args: &RunArgs) -> Result<(), Failure> {
    let (order, stop) = watch::channel(false);
    let health = Arc::new(Readiness::default());
    let metrics = Arc::new(Metrics::default());
    let config = kube_config(args).await?;
    let own_namespace = config.default_namespace.clone();
    let connection = KubeClient::new(config, Arc::clone(&metrics))?;
    let listener =
        tokio::net::TcpListener::bind(args.listen).await.map_err(|e| format!("--listen {}: {e}", args.listen))?;
    info!(version = env!("CARGO_PKG_VERSION"), listen = %listener.local_addr()?, "starting");
    let stopped = controller::stopped(stop.clone());
    let listening = tokio::spawn(server::serve(listener, Arc::clone(&health), Arc::clone(&metrics), stopped));

    let aws = Arc::new(Aws::new(args.aws.options()).await);
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let health_on_stop = Arc::clone(&health);
    let on_signal = async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        info!("stopping: no import is begun any more, those under way are brought to a safe point");
        health_on_stop.stop();
        let _ = order.send(true);
        // A second signal is an order to stop at once; the intents are recorded.
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        warn!("stopping at once");
    };
    let work = controller::run(connection, aws, args.options(&own_namespace), health, metrics, stop);
    tokio::pin!(work);
    let mut on_signal = tokio::spawn(on_signal);
    tokio::select! {
        () = &mut work => {}
        _ = &mut on_signal => return Err("stopped at once".into()),
    }
    on_signal.abort();
    info!("stopped");
    if let Ok(Ok(Err(error))) = tokio::time::timeout(Duration::from_secs(1), listening).await {
        error!(%error, "the listener failed");
    }
    Ok(())
}

async fn kube_config(args: &RunArgs) -> Result<Config, Failure> {
    let mut config = Config::infer().await?;
    config.connect_timeout = Some(args.kube.kube_timeout);
    // A watch that brings nothing for longer than it may live is dead.
    config.read_timeout = Some(args.kube.watch_timeout + args.kube.kube_timeout);
    config.write_timeout = Some(args.kube.kube_timeout);
    // A retried write would meet its own echo as a conflict; passes are taken up again anyway.
    config.default_retry = false;
    // So that an audit log tells who it was.
    let agent = HeaderValue::from_static(concat!("personalize-operator/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    Ok(config)
}
