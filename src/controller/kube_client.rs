//! The client of the Kubernetes API: counts requests as `rest_client_requests_total`, and observes `Retry-After`.

use crate::telemetry::metrics::Metrics;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tower::{Layer, Service};

/// A client of the Kubernetes API, and the delay that the API server asked for.
#[derive(Clone)]
pub struct KubeClient {
    /// The client.
    pub client: Client,
    /// The delay that the API server asked for.
    pub retry_after: RetryAfter,
}

impl KubeClient {
    /// A client that counts its requests in `metrics`.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn new(config: Config, metrics: Arc<Metrics>) -> kube::Result<Self> {
        let retry_after = RetryAfter::default();
        let layer = MetricsLayer { metrics, retry_after: retry_after.clone() };
        Ok(Self { client: ClientBuilder::try_from(config)?.with_layer(&layer).build(), retry_after })
    }
}

/// The longest `Retry-After` that the operator follows.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);

/// Until when the API server asked for no more requests of any kind, in a `Retry-After` header.
///
/// An overloaded API server, or a load balancer before it, rejects requests before it handles them, with a plain text. A
/// JSON answer may be about one object: a webhook that denies a write can set the same status code and header. Its delay
/// counts for the resource that got it.
#[derive(Debug, Clone, Default)]
pub struct RetryAfter(Arc<Mutex<Option<Instant>>>);

impl RetryAfter {
    /// How long to wait before the next request; zero if it may be sent now.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let until = self.0.lock().ok().and_then(|until| *until);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    fn observe(&self, headers: &HeaderMap) {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if content_type.starts_with("application/json") {
            return;
        }
        let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        if let (Some(seconds), Ok(mut until)) = (seconds, self.0.lock()) {
            let requested = Instant::now() + Duration::from_secs(seconds).min(MAX_RETRY_AFTER);
            *until = (*until).max(Some(requested));
        }
    }
}

/// Counts requests by method and status code, and observes `Retry-After`.
#[derive(Debug, Clone)]
struct MetricsLayer {
    metrics: Arc<Metrics>,
    retry_after: RetryAfter,
}

impl<S> Layer<S> for MetricsLayer {
    type Service = MetricsService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        MetricsService { inner, layer: self.clone() }
    }
}

/// The service that [`MetricsLayer`] makes.
#[derive(Debug, Clone)]
struct MetricsService<S> {
    inner: S,
    layer: MetricsLayer,
}

impl<S, A, B> Service<Request<A>> for MetricsService<S>
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
        let (MetricsLayer { metrics, retry_after }, method) = (self.layer.clone(), request.method().clone());
        let response = self.inner.call(request);
        async move {
            let response = response.await;
            metrics.kube_request(method.as_str(), response.as_ref().ok().map(Response::status));
            if let Ok(response) = &response
                && (response.status() == StatusCode::TOO_MANY_REQUESTS || response.status().is_server_error())
            {
                retry_after.observe(response.headers());
            }
            response
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn retry_after_in_seconds_is_followed_up_to_the_maximum_and_the_longest_wins() {
        let retry_after = RetryAfter::default();
        let observe = |value: &'static str| {
            retry_after.observe(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]));
        };
        for ignored in ["", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "0"] {
            observe(ignored);
            assert_eq!(retry_after.remaining(), Duration::ZERO, "{ignored}");
        }
        let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        retry_after.observe(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("60")), json]));
        assert_eq!(retry_after.remaining(), Duration::ZERO, "the answer is about one object");
        observe("60");
        observe("30");
        assert!((31..=60).contains(&retry_after.remaining().as_secs()), "the longest wins");
        observe("99999999999");
        let remaining = retry_after.remaining();
        assert!(remaining > Duration::from_secs(61) && remaining <= MAX_RETRY_AFTER);
    }
}
