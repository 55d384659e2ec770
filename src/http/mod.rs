//! The HTTP listener: `/healthz`, `/readyz`, `/metrics` and `/queue`.

pub mod probe;
mod queue;
pub mod readiness;

use crate::http::queue::QueuePage;
use crate::http::readiness::Readiness;
use crate::telemetry::metrics::{Format, Metrics};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::warn;

/// The most connections at once. More wait in the backlog of the listener.
const MAX_CONNECTIONS: usize = 128;

/// How long a peer may take to send a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last, with all its requests and responses.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves until `stop` completes.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(Arc::clone(&readiness))
        .route("/queue", get(queue::show))
        .with_state(Arc::new(QueuePage::new(readiness)))
        .route("/metrics", get(expose))
        .with_state(metrics);
    let app = TowerToHyperService::new(app);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT);
    let (connections, shutdown) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), GracefulShutdown::new());
    let mut stop = pin!(stop);
    loop {
        let (stream, slot) = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &connections) => accepted?,
        };
        let connection = shutdown.watch(http.serve_connection(TokioIo::new(stream), app.clone()));
        tokio::spawn(async move {
            // A peer that breaks or keeps a connection open is no failure of this process.
            let _ = timeout(CONNECTION_TIMEOUT, connection).await;
            drop(slot);
        });
    }
    // The process ends soon after this and cuts the rest off.
    shutdown.shutdown().await;
    Ok(())
}

/// Accepts a connection if there are not too many.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(connections).acquire_owned().await.map_err(std::io::Error::other)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Ok((stream, slot)),
            // The peer has given up.
            Err(error) if is_of_one_connection(&error) => {}
            // For example, the process has no file descriptor left.
            Err(error) => {
                warn!(%error, "can't accept a connection");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn readyz(State(readiness): State<Arc<Readiness>>) -> impl IntoResponse {
    match readiness.not_ready_reason() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn expose(State(metrics): State<Arc<Metrics>>, headers: HeaderMap) -> impl IntoResponse {
    let format = Format::negotiate(headers.get(header::ACCEPT).and_then(|h| h.to_str().ok()));
    ([(header::CONTENT_TYPE, format.content_type())], metrics.expose(format))
}
