//! The HTTP server. Each connection can be reset from within, and all end when the server is dropped.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, Uri},
    response::Response,
    routing::post,
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};

use crate::{clockwork::Shared, control, wire};

/// A connection, as its requests see it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connection(Arc<Notify>);

impl Connection {
    /// Ends the connection with a TCP reset.
    pub(crate) fn reset(&self) {
        self.0.notify_one();
    }
}

pub(crate) fn router(shared: Shared) -> Router {
    Router::new().route("/", post(service)).merge(control::router()).with_state(shared)
}

async fn service(
    State(shared): State<Shared>,
    Extension(connection): Extension<Connection>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    wire::answer(&shared, &connection, (method, uri, headers), body).await
}

/// Serves until aborted; the connections live in the set and end with it.
pub(crate) async fn run(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => { connections.spawn(serve(stream, peer, router.clone())); }
                Err(error) => tracing::warn!(%error, "a connection could not be accepted"),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, router: Router) {
    let connection = Connection::default();
    let router = router.layer(Extension(connection.clone()));
    let mut serving = http1::Builder::new().serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let reset = tokio::select! {
        served = &mut serving => {
            if let Err(error) = served {
                tracing::debug!(%peer, %error, "connection ended");
            }
            false
        }
        () = connection.0.notified() => true,
    };
    if reset {
        // Closing with zero linger is what sends a reset instead of an orderly end.
        let stream = serving.into_parts().io.into_inner();
        if let Err(error) = stream.set_zero_linger() {
            tracing::warn!(%peer, %error, "the connection can't be reset");
        }
    }
}
