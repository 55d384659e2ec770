//! The HTTP server. A request can reset its connection, and dropping the server closes all connections.

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

use crate::{api::protocol, app::AppState, control};

/// Exceeds every request that the model's limits allow: 200 tags of maximum length are about 400 kB of JSON.
const MAX_REQUEST_BYTES: usize = 2 << 20;

/// A connection, as its requests see it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connection(Arc<Notify>);

impl Connection {
    /// Closes the connection with a TCP reset.
    pub(crate) fn reset(&self) {
        self.0.notify_one();
    }
}

pub(crate) fn router(app: AppState) -> Router {
    control::router(&app).fallback(handle_api_request).with_state(app)
}

/// Handles every request outside `/_local/`. Even malformed requests get an API error.
async fn handle_api_request(
    State(app): State<AppState>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Response {
    if request.uri().path().starts_with("/_local") {
        return StatusCode::NOT_FOUND.into_response();
    }
    let (parts, body) = request.into_parts();
    match read_body(body).await {
        Ok(body) => protocol::respond(&app, &connection, parts, body).await,
        Err(error) => {
            tracing::debug!(%error, "request aborted while reading its body");
            StatusCode::BAD_REQUEST.into_response()
        }
    }
}

/// Reads a request body; `None` if it is too long. Even then it is read to the end, because many clients read the
/// response only after they have sent the whole request.
async fn read_body(body: Body) -> Result<Option<Bytes>, axum::Error> {
    let mut chunks = body.into_data_stream();
    let (mut read, mut length) = (Vec::new(), 0_usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        length = length.saturating_add(chunk.len());
        if length <= MAX_REQUEST_BYTES {
            read.extend_from_slice(&chunk);
        }
    }
    Ok((length <= MAX_REQUEST_BYTES).then(|| read.into()))
}

/// Serves until aborted. The connections live in the `JoinSet`, so they close with it.
pub(crate) async fn run(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => { connections.spawn(serve(stream, peer, router.clone())); }
                Err(error) => tracing::warn!(%error, "failed to accept a connection"),
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
        result = &mut serving => {
            if let Err(error) = result {
                tracing::debug!(%peer, %error, "connection closed");
            }
            false
        }
        () = connection.0.notified() => true,
    };
    if reset {
        // Closing with zero linger sends RST instead of FIN.
        let stream = serving.into_parts().io.into_inner();
        if let Err(error) = stream.set_zero_linger() {
            tracing::warn!(%peer, %error, "failed to reset the connection");
        }
    }
}
