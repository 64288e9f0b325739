//! The client of the Kubernetes API that long-running applets use: whatever is answered at once is
//! waited for [`ANSWER`], not for the silence that a watch may keep.
//!
//! A write whose answer does not come in time may have been done all the same. Its caller gets an
//! error of the service, which everywhere means "try again": the next attempt finds what the lost
//! one did (a record that says the same is ours, a patch that changes nothing is done).

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{Method, Request, Response, header};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use tower::{BoxError, Layer, Service};

/// Longest wait for an answer. The API server itself gives up after 60 s; half of that is long for
/// it, and short for a pod that waits for its address.
pub const ANSWER: Duration = Duration::from_secs(30);

/// Nobody answered.
#[derive(Debug, thiserror::Error)]
#[error("no answer to {method} {path} in {limit:?}; it may have been done, trying again")]
struct Silence {
    method: Method,
    path: String,
    limit: Duration,
}

/// A client with the usual bound.
pub fn client(config: Config) -> Result<Client, kube::Error> {
    client_within(config, ANSWER)
}

/// The same with another bound.
pub fn client_within(config: Config, limit: Duration) -> Result<Client, kube::Error> {
    Ok(ClientBuilder::try_from(config)?.with_layer(&Limit(limit)).build())
}

struct Limit(Duration);

impl<S> Layer<S> for Limit {
    type Service = Limited<S>;

    fn layer(&self, service: S) -> Limited<S> {
        Limited { service, limit: self.0 }
    }
}

/// A service that does not wait for ever.
struct Limited<S> {
    service: S,
    limit: Duration,
}

impl<S, B> Service<Request<Body>> for Limited<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.service.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let limit = (!is_lasting(&request)).then_some(self.limit);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = self.service.call(request);
        Box::pin(async move {
            let Some(limit) = limit else { return answer.await.map_err(Into::into) };
            match tokio::time::timeout(limit, answer).await {
                Ok(answer) => answer.map_err(Into::into),
                Err(_) => Err(Silence { method, path, limit }.into()),
            }
        })
    }
}

/// Watches, followed logs, and connections for commands in pods: they last.
fn is_lasting(request: &Request<Body>) -> bool {
    let lasts = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        matches!(name, "watch" | "follow") && !matches!(value, "false" | "0")
    };
    request.uri().query().is_some_and(|query| query.split('&').any(lasts))
        || request.headers().contains_key(header::UPGRADE)
}
