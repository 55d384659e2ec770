//! `personalize-operator probe`: requests the readiness of a running operator, for images without a shell.

use axum::body::Bytes;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout_at};

/// The maximum number of bytes read of an answer.
const MAX_ANSWER_BYTES: usize = 10_000;

/// The pause between two requests.
const INTERVAL: Duration = Duration::from_millis(500);

/// Why a request failed.
#[derive(Debug, Error)]
pub enum Error {
    /// There was no answer.
    #[error("{0} does not answer: {1}")]
    NoAnswer(Uri, String),
    /// The answer was not a 2xx status.
    #[error("{0} answers {1}: {2}")]
    NotReady(Uri, StatusCode, String),
    /// There was no answer in time.
    #[error("{0} does not answer in time")]
    Timeout(Uri),
}

/// Repeats the request until the answer is a 2xx status, and returns its body.
///
/// # Errors
/// The last failure, when `timeout` is over.
pub async fn wait_until_ready(url: &Uri, timeout: Duration) -> Result<String, Error> {
    let deadline = Instant::now() + timeout;
    loop {
        let answer = timeout_at(deadline, get(url)).await.unwrap_or_else(|_| Err(Error::Timeout(url.clone())));
        if answer.is_ok() || Instant::now() + INTERVAL >= deadline {
            return answer;
        }
        sleep(INTERVAL).await;
    }
}

async fn get(url: &Uri) -> Result<String, Error> {
    let no_answer = |error: &dyn std::error::Error| Error::NoAnswer(url.clone(), with_causes(error));
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let (head, body) = client.get(url.clone()).await.map_err(|e| no_answer(&e))?.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|e| no_answer(e.as_ref()))?;
    let text = String::from_utf8_lossy(&body.to_bytes()).trim().to_owned();
    if head.status.is_success() { Ok(text) } else { Err(Error::NotReady(url.clone(), head.status, text)) }
}

/// The error followed by its causes, because the outermost alone says little.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http;
    use crate::http::readiness::Readiness;
    use std::sync::Arc;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn probe_repeats_until_the_listener_reports_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Uri = format!("http://{}/readyz", listener.local_addr().unwrap()).parse().unwrap();
        let readiness = Arc::new(Readiness::default());
        let server = http::serve(listener, Arc::clone(&readiness), Arc::default(), std::future::pending());
        let server = tokio::spawn(server);
        let error = wait_until_ready(&url, Duration::from_millis(100)).await.unwrap_err().to_string();
        assert!(error.contains("503") && error.contains("API server"), "{error}");
        let becomes_ready = async {
            sleep(Duration::from_millis(700)).await;
            readiness.set_crd_served(true);
        };
        let (answer, ()) = tokio::join!(wait_until_ready(&url, Duration::from_secs(60)), becomes_ready);
        assert_eq!(answer.unwrap(), "ok");
        server.abort();
        let _ = server.await;
        let error = wait_until_ready(&url, Duration::ZERO).await.unwrap_err().to_string();
        assert!(error.contains("does not answer"), "{error}");
    }
}
