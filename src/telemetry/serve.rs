//! HTTP of every long-running applet: `/metrics`, `/healthz`, `/livez`, `/readyz`.
//!
//! Health answers come from the program's state (upstream answers a constant `ok`). There are no
//! profiling pages on this port (upstream serves them on it to everyone).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use kube::Client;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    auth::{Gate, Verdict},
    metrics,
    tls::{TlsError, TlsPolicy},
};

/// Where and how to serve; built from flags and environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Serving {
    /// Addresses to listen on; empty = all of them.
    pub addresses: Vec<IpAddr>,
    pub port: u16,
    pub metrics: Exposure,
    pub transport: Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    Served,
    /// Only the health paths, on the first address.
    Hidden,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Transport {
    Plain,
    /// TLS; everything but the health paths needs a token that Kubernetes accepts.
    Secure(TlsPolicy),
}

/// `Err` holds the reason, which becomes the body of a 503.
pub type Probe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Answers of `/livez` (and `/healthz`) and `/readyz`, asked at each request.
#[derive(Clone)]
pub struct Probes {
    pub live: Probe,
    pub ready: Probe,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("a secured metrics port needs access to the Kubernetes API")]
    NoClient,
}

/// TLS handshakes that may wait for the server to take them.
const BACKLOG: usize = 64;
/// A peer that does not finish its handshake is dropped.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Binds all addresses, then serves until the returned set is dropped. `client` is needed for
/// [`Transport::Secure`] only.
pub async fn serve(
    serving: &Serving,
    probes: Probes,
    client: Option<Client>,
) -> Result<JoinSet<()>, ServeError> {
    let mut tasks = JoinSet::new();
    let listeners = bind(serving).await?;
    let Transport::Secure(policy) = &serving.transport else {
        let router = routes(serving.metrics, probes, None);
        for listener in listeners {
            spawn(&mut tasks, listener, router.clone());
        }
        return Ok(tasks);
    };
    let gate = Arc::new(Gate::new(client.ok_or(ServeError::NoClient)?));
    let router = routes(serving.metrics, probes, Some(gate));
    let acceptor = TlsAcceptor::from(policy.server_config()?);
    for listener in listeners {
        spawn(&mut tasks, TlsListener::new(listener, acceptor.clone()), router.clone());
    }
    Ok(tasks)
}

fn spawn<L>(tasks: &mut JoinSet<()>, listener: L, router: Router)
where
    L: Listener<Addr = SocketAddr>,
{
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "health and metrics server ended");
        }
    });
}

async fn bind(serving: &Serving) -> Result<Vec<TcpListener>, ServeError> {
    let wanted = match serving.metrics {
        Exposure::Served => serving.addresses.as_slice(),
        Exposure::Hidden => serving.addresses.get(..1).unwrap_or_default(),
    };
    let listen = async |ip: IpAddr| {
        let address = SocketAddr::new(ip, serving.port);
        let bound = TcpListener::bind(address).await;
        bound.map_err(|source| ServeError::Listen { address, source })
    };
    if wanted.is_empty() {
        // `::` takes IPv4 as well; a kernel without IPv6 has only the other.
        let any = match listen(Ipv6Addr::UNSPECIFIED.into()).await {
            Ok(listener) => listener,
            Err(_) => listen(Ipv4Addr::UNSPECIFIED.into()).await?,
        };
        return Ok(vec![any]);
    }
    let mut listeners = Vec::new();
    for ip in wanted {
        listeners.push(listen(*ip).await?);
    }
    Ok(listeners)
}

fn routes(exposure: Exposure, probes: Probes, gate: Option<Arc<Gate>>) -> Router {
    let answer = |probe: Probe| {
        get(move || async move {
            match probe() {
                Ok(()) => (StatusCode::OK, "ok".to_owned()),
                Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
            }
        })
    };
    let mut guarded = Router::new();
    if exposure == Exposure::Served {
        guarded = guarded.route("/metrics", get(samples));
    }
    if let Some(gate) = gate {
        guarded = guarded.layer(middleware::from_fn_with_state(gate, guard));
    }
    guarded
        .route("/healthz", answer(probes.live.clone()))
        .route("/livez", answer(probes.live))
        .route("/readyz", answer(probes.ready))
}

async fn samples() -> Response {
    match metrics::render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn guard(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let token = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let verb = request.method().as_str().to_ascii_lowercase();
    match gate.review(token, request.uri().path(), &verb).await {
        Verdict::Allowed => next.run(request).await,
        Verdict::Unauthenticated => StatusCode::UNAUTHORIZED.into_response(),
        Verdict::Forbidden => StatusCode::FORBIDDEN.into_response(),
        Verdict::Unavailable => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Handshakes run in tasks of their own, so a silent peer cannot hold up the others.
pub struct TlsListener {
    local: Option<SocketAddr>,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    _accepting: JoinSet<()>,
}

impl TlsListener {
    pub fn new(mut listener: TcpListener, acceptor: TlsAcceptor) -> Self {
        let (sender, ready) = mpsc::channel(BACKLOG);
        let local = listener.local_addr().ok();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut handshakes = JoinSet::new();
            loop {
                while handshakes.len() >= BACKLOG {
                    handshakes.join_next().await;
                }
                let (stream, peer) = Listener::accept(&mut listener).await;
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                handshakes.spawn(async move {
                    if let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        let _ = sender.send((stream, peer)).await;
                    }
                });
            }
        });
        TlsListener { local, ready, _accepting: accepting }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The accepting task lives as long as this listener.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.local.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }
}
