//! The way to the Kubernetes API: counts the calls, as `rest_client_requests_total`, and takes note of it when the API
//! server asks to be left alone for a while.

use crate::telemetry::metrics::Metrics;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, Response, StatusCode};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tower::{Layer, Service};

/// A client of the Kubernetes API, and the pause that the API server asked for.
#[derive(Clone)]
pub struct KubeClient {
    /// The client.
    pub client: Client,
    /// Until when the API server asked to be left alone.
    pub pause: RetryAfter,
}

impl KubeClient {
    /// The way to a cluster; its calls are counted into these metrics.
    ///
    /// # Errors
    /// When the configuration can't be used.
    pub fn new(config: Config, metrics: Arc<Metrics>) -> kube::Result<Self> {
        let pause = RetryAfter::default();
        let watched = Watched { metrics, pause: pause.clone() };
        Ok(Self { client: ClientBuilder::try_from(config)?.with_layer(&watched).build(), pause })
    }
}

/// The longest that the operator leaves the API server alone at its word.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Until when the API server asked to be left alone, by a Retry-After.
#[derive(Debug, Clone, Default)]
pub struct RetryAfter(Arc<Mutex<Option<Instant>>>);

impl RetryAfter {
    /// How long it is to be left alone still.
    #[must_use]
    pub fn left(&self) -> Duration {
        let until = self.0.lock().ok().and_then(|until| *until);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    fn heed(&self, headers: &HeaderMap) {
        let asked = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        if let (Some(seconds), Ok(mut until)) = (asked, self.0.lock()) {
            let asked = Instant::now() + Duration::from_secs(seconds).min(LONGEST_PAUSE);
            *until = (*until).max(Some(asked));
        }
    }
}

/// A layer that counts calls by method and status code, and heeds Retry-After.
#[derive(Debug, Clone)]
struct Watched {
    metrics: Arc<Metrics>,
    pause: RetryAfter,
}

impl<S> Layer<S> for Watched {
    type Service = WatchedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        WatchedService { inner, watched: self.clone() }
    }
}

/// The service that [`Watched`] makes.
#[derive(Debug, Clone)]
struct WatchedService<S> {
    inner: S,
    watched: Watched,
}

impl<S, A, B> Service<Request<A>> for WatchedService<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (watched, method) = (self.watched.clone(), request.method().clone());
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await;
            let code = answer.as_ref().map_or("<error>".to_owned(), |a| a.status().as_u16().to_string());
            watched.metrics.kube_request(method.as_str(), &code);
            if let Ok(answer) = &answer
                && (answer.status() == StatusCode::TOO_MANY_REQUESTS || answer.status().is_server_error())
            {
                watched.pause.heed(answer.headers());
            }
            answer
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_api_server_is_left_alone_for_as_long_as_it_asks_within_reason() {
        let pause = RetryAfter::default();
        let heed =
            |value: &'static str| pause.heed(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]));
        for nothing in ["", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "0"] {
            heed(nothing);
            assert_eq!(pause.left(), Duration::ZERO, "{nothing}");
        }
        heed("60");
        heed("30");
        assert!((31..=60).contains(&pause.left().as_secs()), "the longer one counts");
        heed("99999999999");
        assert!(pause.left() > Duration::from_secs(61) && pause.left() <= LONGEST_PAUSE);
    }
}
