//! Asks a running operator whether it is well: `personalize-operator probe`, for images without a shell.

use axum::body::Bytes;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout_at};

/// The most bytes of an answer that are read.
const LONGEST_ANSWER: usize = 10_000;

/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(500);

/// Why the operator is not well.
#[derive(Debug, Error)]
pub enum Error {
    /// It did not answer.
    #[error("{0} does not answer: {1}")]
    Silent(Uri, String),
    /// It told what keeps it.
    #[error("{0} answers {1}: {2}")]
    Unwell(Uri, StatusCode, String),
    /// It did not answer in time.
    #[error("{0} does not answer in time")]
    Late(Uri),
}

/// Asks again and again until the answer is good or the time is over; returns the good answer.
///
/// # Errors
/// The last answer, when the time is over.
pub async fn until_well(url: &Uri, patience: Duration) -> Result<String, Error> {
    let end = Instant::now() + patience;
    loop {
        let answer = timeout_at(end, ask(url)).await.unwrap_or_else(|_| Err(Error::Late(url.clone())));
        if answer.is_ok() || Instant::now() + PAUSE >= end {
            return answer;
        }
        sleep(PAUSE).await;
    }
}

async fn ask(url: &Uri) -> Result<String, Error> {
    let silent = |error: &dyn std::error::Error| Error::Silent(url.clone(), chain(error));
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let (head, body) = client.get(url.clone()).await.map_err(|e| silent(&e))?.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|e| silent(e.as_ref()))?;
    let text = String::from_utf8_lossy(&body.to_bytes()).trim().to_owned();
    if head.status.is_success() { Ok(text) } else { Err(Error::Unwell(url.clone(), head.status, text)) }
}

/// An error with all its causes: the outermost alone says little.
fn chain(error: &dyn std::error::Error) -> String {
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
    async fn the_answer_of_the_operators_own_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Uri = format!("http://{}/readyz", listener.local_addr().unwrap()).parse().unwrap();
        let health = Arc::new(Readiness::default());
        let serving = http::serve(listener, Arc::clone(&health), Arc::default(), std::future::pending());
        let serving = tokio::spawn(serving);
        let told = until_well(&url, Duration::from_millis(100)).await.unwrap_err().to_string();
        assert!(told.contains("503") && told.contains("API server"), "{told}");
        let later = async {
            sleep(Duration::from_millis(700)).await;
            health.crd(true);
        };
        let (answer, ()) = tokio::join!(until_well(&url, Duration::from_secs(60)), later);
        assert_eq!(answer.unwrap(), "ok");
        serving.abort();
        let _ = serving.await;
        let told = until_well(&url, Duration::ZERO).await.unwrap_err().to_string();
        assert!(told.contains("does not answer"), "{told}");
    }
}
