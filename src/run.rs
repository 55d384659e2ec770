//! The command `run`: connects to Kubernetes and AWS, starts the listener and the controller, and shuts down on a
//! signal.

use crate::aws::Aws;
use crate::cli::{KubeArgs, RunArgs};
use crate::controller::{self, kube_client::KubeClient};
use crate::http;
use crate::http::readiness::Readiness;
use crate::telemetry::metrics::Metrics;
use ::http::Uri;
use ::http::header::{HeaderValue, USER_AGENT};
use hyper_util::client::proxy::matcher::Matcher;
use kube::Config;
use kube::config::Kubeconfig;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

/// Any error that ends the process.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Runs the operator until SIGTERM or SIGINT, and then until the reconciles in progress have finished.
///
/// # Errors
/// When the configuration can't be used, the listener can't be bound, or a second signal cuts the shutdown short.
pub async fn run(args: &RunArgs) -> Result<(), Error> {
    args.check()?;
    let (stop_sender, stop) = watch::channel(false);
    let readiness = Arc::new(Readiness::default());
    let metrics = Arc::new(Metrics::default());
    let config = kube_config(&args.kube).await?;
    let options = args.options(&config.default_namespace);
    let client = KubeClient::new(config, Arc::clone(&metrics))?;
    let listener = TcpListener::bind(args.listen).await.map_err(|e| format!("--listen {}: {e}", args.listen))?;
    info!(version = env!("CARGO_PKG_VERSION"), listen = %listener.local_addr()?, "starting");
    // Probes and scrapes are answered until the last reconcile has ended.
    let (ended_sender, ended) = watch::channel(false);
    let ended = controller::stopped(ended);
    let server = tokio::spawn(http::serve(listener, Arc::clone(&readiness), Arc::clone(&metrics), ended));
    let mut aws_options = args.aws_options(options.accounts.clone());
    aws_options.limits.waiting = metrics.service_requests_waiting();
    let aws = Arc::new(Aws::new(aws_options).await);

    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut next_signal = async || {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    };
    let second_signal = async {
        next_signal().await;
        info!("shutting down: finishing in-flight submissions");
        readiness.set_stopping();
        let _ = stop_sender.send(true);
        next_signal().await;
    };
    tokio::select! {
        () = controller::run(client, aws, options, Arc::clone(&readiness), metrics, stop) => info!("stopped"),
        () = second_signal => {
            // An interrupted submission is safe: its intent is recorded.
            warn!("second signal: exiting without finishing in-flight submissions");
            return Err("a second signal interrupted the shutdown".into());
        }
    }
    let _ = ended_sender.send(true);
    if let Ok(Ok(Err(error))) = tokio::time::timeout(Duration::from_secs(1), server).await {
        error!(%error, "the listener failed");
    }
    Ok(())
}

async fn kube_config(args: &KubeArgs) -> Result<Config, Error> {
    let mut config = Config::infer().await?;
    if let Some(proxy) = &config.proxy_url
        && is_excepted(&config.cluster_url, proxy)
    {
        config.proxy_url = None;
    }
    config.root_cert_file = config.root_cert_file.or_else(ca_file);
    config.connect_timeout = Some(args.kube_timeout);
    // A watch that is silent for longer than its own timeout has lost its connection.
    config.read_timeout = Some(args.watch_timeout + args.kube_timeout);
    config.write_timeout = Some(args.kube_timeout);
    // No client retries: a PUT that succeeded and is retried returns 409. The controller requeues instead.
    config.default_retry = false;
    // The Kubernetes audit log shows this name.
    let agent = HeaderValue::from_static(concat!("personalize-operator/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    Ok(config)
}

/// The file with the certificate authority, if the kubeconfig names one. kube reads it again every minute if it knows the
/// path, and otherwise only in a pod.
fn ca_file() -> Option<PathBuf> {
    let kubeconfig = Kubeconfig::read().ok()?;
    let (contexts, clusters, current) = (kubeconfig.contexts, kubeconfig.clusters, kubeconfig.current_context?);
    let context = contexts.into_iter().find(|context| context.name == current)?.context?;
    let cluster = clusters.into_iter().find(|cluster| cluster.name == context.cluster)?.cluster?;
    let has_data = cluster.certificate_authority_data.is_some_and(|data| !data.is_empty());
    cluster.certificate_authority.filter(|file| !file.is_empty() && !has_data).map(PathBuf::from)
}

/// Whether `NO_PROXY` excepts the API server from this proxy of the environment. kube compares `NO_PROXY` with the host of
/// the proxy. A proxy that a kubeconfig names is used in any case.
fn is_excepted(cluster_url: &Uri, proxy: &Uri) -> bool {
    let var =
        |names: [&str; 2]| names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let from_env = var(["HTTPS_PROXY", "https_proxy"]).filter(|url| url.parse::<Uri>().is_ok_and(|url| url == *proxy));
    let no_proxy = var(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    from_env.is_some_and(|url| Matcher::builder().https(url).no(no_proxy).build().intercept(cluster_url).is_none())
}
