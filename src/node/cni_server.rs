//! HTTP server of the CNI plugin: one unix socket, one POST per request.
//!
//! Every request runs in a task of its own with a cancellation token. When the plugin dies or is
//! killed by the runtime, hyper drops the request's future, the token fires, and the task undoes
//! what it had begun; it is never simply cut in the middle.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::post,
};
use futures::future::BoxFuture;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::cni::wire::{self, BadRequest, GcRequest, Request};

/// A client that sends no complete header in this time is cut off, as upstream does.
const HEADER_PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot {action} CNI socket {path}: {source}")]
    Socket { action: &'static str, path: PathBuf, source: std::io::Error },
}

/// A validated request of the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Add(Request),
    Del(Request),
    Check(Request),
    Gc(GcRequest),
    Status,
}

/// What goes back: a status and a JSON body, which is empty for 204.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: StatusCode,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(status: StatusCode, value: &impl serde::Serialize) -> Self {
        Reply { status, body: serde_json::to_vec(value).unwrap_or_default() }
    }

    pub fn done() -> Self {
        Reply { status: StatusCode::NO_CONTENT, body: Vec::new() }
    }

    /// `{"error": message}`.
    pub fn error(status: StatusCode, message: impl std::fmt::Display) -> Self {
        let error = message.to_string();
        Reply::json(status, &wire::Response { error, ..wire::Response::default() })
    }
}

/// Serves one call. The token fires when nobody waits for the reply any more.
pub type Handler = Arc<dyn Fn(Call, CancellationToken) -> BoxFuture<'static, Reply> + Send + Sync>;

/// A bound socket that is removed with its owner, unless a successor has replaced it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Binds `path` with mode 0600. A file left by a dead daemon is replaced atomically, so there
    /// is no moment at which the path is missing or open to other users.
    pub fn bind(path: &Path) -> Result<Self, ServerError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| ServerError::Socket { action, path, source }
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed("create the folder of", path))?;
        }
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        match std::fs::remove_file(&fresh) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("remove the stale", &fresh)(e));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&fresh).map_err(failed("bind", &fresh))?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))
            .map_err(failed("set the mode of", &fresh))?;
        let inode = std::fs::metadata(&fresh).map_err(failed("stat", &fresh))?.ino();
        std::fs::rename(&fresh, path).map_err(failed("install", path))?;
        Ok(Socket { listener, path: path.to_owned(), inode })
    }

    async fn accept(&self) -> std::io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if std::fs::metadata(&self.path).is_ok_and(|m| m.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[derive(Clone)]
struct Service {
    handler: Handler,
    metrics: Option<Metrics>,
}

/// Serves until `stop` fires; requests in flight are cancelled with their connections.
pub async fn serve(
    socket: Socket,
    handler: Handler,
    metrics: Option<Metrics>,
    stop: CancellationToken,
) {
    let router = Router::new()
        .route(wire::ADD, post(answer))
        .route(wire::DEL, post(answer))
        .route(wire::CHECK, post(answer))
        .route(wire::GC, post(answer))
        .route(wire::STATUS, post(answer))
        .layer(DefaultBodyLimit::max(wire::MAX_BODY))
        .with_state(Service { handler, metrics });
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match stream {
            Ok(stream) => {
                let connection = serve_connection(stream, router.clone());
                let stop = stop.clone();
                tokio::spawn(async move {
                    tokio::select! { () = stop.cancelled() => {}, () = connection => {} }
                });
            }
            // Out of descriptors: the next accept would fail at once too.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a CNI connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(stream: UnixStream, router: Router) {
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    // An early hang-up is how the runtime cancels; the request itself logs that.
    if let Err(error) = served {
        tracing::debug!(%error, "CNI connection ended early");
    }
}

fn parse_call(endpoint: &str, body: &[u8]) -> Result<Call, BadRequest> {
    match endpoint {
        wire::ADD => wire::parse_add(body).map(Call::Add),
        wire::DEL => wire::parse_del(body).map(Call::Del),
        wire::CHECK => wire::parse_add(body).map(Call::Check),
        wire::GC => wire::parse_gc(body).map(Call::Gc),
        _ => Ok(Call::Status),
    }
}

async fn answer(State(service): State<Service>, uri: Uri, body: Bytes) -> Response {
    let started = Instant::now();
    let reply = match parse_call(uri.path(), &body) {
        Err(error) => {
            tracing::warn!(endpoint = uri.path(), %error, "CNI request refused");
            Reply::error(StatusCode::BAD_REQUEST, error)
        }
        Ok(call) => run_call(&service.handler, call).await,
    };
    if let Some(metrics) = &service.metrics {
        let seconds = started.elapsed().as_secs_f64();
        metrics.observe_request(uri.path(), reply.status.as_u16(), seconds);
    }
    ([(header::CONTENT_TYPE, "application/json")], (reply.status, reply.body)).into_response()
}

async fn run_call(handler: &Handler, call: Call) -> Reply {
    let cancel = CancellationToken::new();
    // Dropped with this future, that is when the connection is gone.
    let guard = cancel.clone().drop_guard();
    let reply = tokio::spawn(handler(call, cancel)).await;
    guard.disarm();
    reply.unwrap_or_else(|error| Reply::error(StatusCode::INTERNAL_SERVER_ERROR, error))
}
