//! Joins the HTTP server with the attacher: calls in, replies and one log line out.

use std::{sync::Arc, time::Instant};

use axum::http::StatusCode;
use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::{
    attach::{Attacher, CniError},
    cni_server::{Call, Handler, Reply},
    resolve::Refusal,
};

/// The handler for [`serve`](super::cni_server::serve).
pub fn handler(attacher: Attacher) -> Handler {
    Arc::new(move |call, cancel| {
        let attacher = attacher.clone();
        async move { run(&attacher, call, cancel).await }.boxed()
    })
}

fn status_of(error: &CniError) -> StatusCode {
    match error {
        CniError::Refused(Refusal::Request(_)) => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn run(attacher: &Attacher, call: Call, cancel: CancellationToken) -> Reply {
    let started = Instant::now();
    let mut stages = String::new();
    let result = match &call {
        Call::Add(request) => attacher.add(request, &cancel).await.map(|added| {
            stages = added.timeline.to_string();
            Reply::json(StatusCode::OK, &added.response)
        }),
        Call::Del(request) => attacher.del(request).await.map(|()| Reply::done()),
        Call::Check(request) => attacher.check(request).await.map(|()| Reply::done()),
        Call::Gc(request) => attacher.gc(request).await.map(|()| Reply::done()),
        Call::Status => attacher.status().map(|()| Reply::done()),
    };
    log(&call, &result, started, &stages);
    result.unwrap_or_else(|error| Reply::error(status_of(&error), error))
}

/// One line per request; a failure is logged here and nowhere else.
fn log(call: &Call, result: &Result<Reply, CniError>, started: Instant, stages: &str) {
    let milliseconds = started.elapsed().as_millis() as u64;
    let (command, request) = match call {
        Call::Add(request) => ("ADD", request),
        Call::Del(request) => ("DEL", request),
        Call::Check(request) => ("CHECK", request),
        Call::Gc(_) | Call::Status => {
            let command = if *call == Call::Status { "STATUS" } else { "GC" };
            match result {
                Ok(_) => tracing::debug!(command, milliseconds, "CNI request"),
                Err(error) => tracing::warn!(command, milliseconds, %error, "CNI request failed"),
            }
            return;
        }
    };
    let pod = format!("{}/{}", request.pod_namespace, request.pod_name);
    let (container, interface) = (&request.container_id, &request.if_name);
    let provider = &request.provider;
    match result {
        Ok(_) => tracing::info!(
            command, %pod, %container, %interface, %provider, milliseconds, %stages, "CNI request"
        ),
        Err(error) => tracing::warn!(
            command, %pod, %container, %interface, %provider, milliseconds, %error,
            "CNI request failed"
        ),
    }
}
