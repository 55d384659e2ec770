//! The HTTP server. Each connection can be reset from within, and all end when the server is dropped.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};

use crate::{clockwork::Shared, control, wire};

/// More than any request that the model's limits allow: 200 tags at their longest are some 400 kB of JSON.
const LONGEST_REQUEST: usize = 2 << 20;

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
    control::router(&shared).fallback(service).with_state(shared)
}

/// Whatever is not `/_local/` is a request to the service, which answers in its own way even to nonsense.
async fn service(
    State(shared): State<Shared>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Response {
    if request.uri().path().starts_with("/_local") {
        return StatusCode::NOT_FOUND.into_response();
    }
    let (parts, body) = request.into_parts();
    match whole(body).await {
        Ok(body) => wire::answer(&shared, &connection, parts, body).await,
        Err(error) => {
            tracing::debug!(%error, "a request ended before its end");
            StatusCode::BAD_REQUEST.into_response()
        }
    }
}

/// The body of a request; `None` if it is too long. It is read to its end all the same, or the client would not wait
/// for the answer.
async fn whole(body: Body) -> Result<Option<Bytes>, axum::Error> {
    let mut chunks = body.into_data_stream();
    let (mut read, mut length) = (Vec::new(), 0_usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        length = length.saturating_add(chunk.len());
        if length <= LONGEST_REQUEST {
            read.extend_from_slice(&chunk);
        }
    }
    Ok((length <= LONGEST_REQUEST).then(|| read.into()))
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
