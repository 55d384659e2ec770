//! Counts the calls to the Kubernetes API, as `rest_client_requests_total`.

use crate::metrics::Metrics;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use std::sync::Arc;
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// A layer that counts calls by method and status code.
#[derive(Debug, Clone)]
pub struct Counted {
    metrics: Arc<Metrics>,
}

impl Counted {
    /// A layer that counts into these metrics.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

impl<S> Layer<S> for Counted {
    type Service = CountedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CountedService { inner, metrics: Arc::clone(&self.metrics) }
    }
}

/// The service that [`Counted`] makes.
#[derive(Debug, Clone)]
pub struct CountedService<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S, A, B> Service<Request<A>> for CountedService<S>
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
        let (metrics, method) = (Arc::clone(&self.metrics), request.method().clone());
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await;
            let code = answer.as_ref().map_or("<error>".to_owned(), |a| a.status().as_u16().to_string());
            metrics.rest_call(method.as_str(), &code);
            answer
        }
        .boxed()
    }
}
