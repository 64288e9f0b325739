//! Health and metrics over real sockets on loopback, plain and secured.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::{Json, Router, extract::State, routing::post};
use kube::{Client, Config};
use kube_ovn::telemetry::{Exposure, Probes, Serving, TlsPolicy, Transport, serve};
use rustls::{ClientConfig, pki_types::ServerName};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::tls::AnyCertificate;

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn serving(metrics: Exposure, transport: Transport) -> Serving {
    let addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    Serving { addresses, port: free_port(), metrics, transport }
}

fn probes(ready: &Arc<AtomicBool>) -> Probes {
    let ready = Arc::clone(ready);
    let state = move || ready.load(Ordering::SeqCst).then_some(()).ok_or("replica".to_owned());
    Probes { live: Arc::new(|| Ok(())), ready: Arc::new(state) }
}

/// `(status, body)` of a GET.
async fn get(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    token: &str,
) -> (u16, String) {
    let authorization = match token {
        "" => String::new(),
        token => format!("Authorization: Bearer {token}\r\n"),
    };
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n{authorization}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A TLS peer may close without close_notify.
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    (status, text.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[tokio::test]
async fn health_tells_the_state_and_nothing_else_is_served() {
    let ready = Arc::new(AtomicBool::new(false));
    let serving = serving(Exposure::Served, Transport::Plain);
    let _tasks = serve(&serving, probes(&ready), None).await.unwrap();
    let ask = async |path: &str| {
        get(TcpStream::connect(("127.0.0.1", serving.port)).await.unwrap(), path, "").await
    };
    assert_eq!(ask("/livez").await, (200, "ok".into()));
    assert_eq!(ask("/readyz").await, (503, "replica".into()));
    ready.store(true, Ordering::SeqCst);
    assert_eq!(ask("/readyz").await, (200, "ok".into()));
    let (status, text) = ask("/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("process_resident_memory_bytes"), "{text}");
    // Upstream BUG: profiles are served to everyone on 0.0.0.0.
    assert_eq!(ask("/debug/pprof/").await.0, 404);
}

#[tokio::test]
async fn without_metrics_only_health_is_served() {
    let ready = Arc::new(AtomicBool::new(true));
    let serving = serving(Exposure::Hidden, Transport::Plain);
    let _tasks = serve(&serving, probes(&ready), None).await.unwrap();
    let stream = TcpStream::connect(("127.0.0.1", serving.port)).await.unwrap();
    assert_eq!(get(stream, "/metrics", "").await.0, 404);
    let stream = TcpStream::connect(("127.0.0.1", serving.port)).await.unwrap();
    assert_eq!(get(stream, "/healthz", "").await.0, 200);
    let again = serve(&serving, probes(&ready), None).await.unwrap_err().to_string();
    assert!(again.contains("listen on 127.0.0.1:"), "{again}");
}

async fn reviews(
    State(asked): State<Arc<AtomicUsize>>,
    Json(mut body): Json<Value>,
) -> Json<Value> {
    asked.fetch_add(1, Ordering::SeqCst);
    body["status"] = match body["spec"]["token"].as_str() {
        Some("unknown") => json!({"authenticated": false}),
        Some(token) => json!({"authenticated": true, "user": {"username": token, "groups": ["g"]}}),
        None => {
            let path = &body["spec"]["nonResourceAttributes"];
            assert_eq!(*path, json!({"path": "/metrics", "verb": "get"}));
            json!({"allowed": body["spec"]["user"] == "prometheus"})
        }
    };
    Json(body)
}

async fn reviewer(asked: &Arc<AtomicUsize>) -> Client {
    let router = Router::new()
        .route("/apis/authentication.k8s.io/v1/tokenreviews", post(reviews))
        .route("/apis/authorization.k8s.io/v1/subjectaccessreviews", post(reviews))
        .with_state(Arc::clone(asked));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Client::try_from(Config::new(url)).unwrap()
}

#[tokio::test]
async fn secured_metrics_need_a_token_that_may_read_them() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let asked = Arc::new(AtomicUsize::new(0));
    let policy = TlsPolicy::parse("TLS13", "", &[]).unwrap();
    let serving = serving(Exposure::Served, Transport::Secure(policy));
    let ready = Arc::new(AtomicBool::new(true));
    let _tasks = serve(&serving, probes(&ready), Some(reviewer(&asked).await)).await.unwrap();
    let verifier = Arc::new(AnyCertificate);
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config.with_no_client_auth()));
    // A silent peer in the middle of a handshake does not hold up the others.
    let _silent = TcpStream::connect(("127.0.0.1", serving.port)).await.unwrap();
    let ask = async |path: &str, token: &str| {
        let stream = TcpStream::connect(("127.0.0.1", serving.port)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        get(connector.connect(name, stream).await.unwrap(), path, token).await.0
    };
    assert_eq!(ask("/readyz", "").await, 200, "kubelet has no token");
    assert_eq!(ask("/metrics", "").await, 401);
    assert_eq!(ask("/metrics", "unknown").await, 401);
    assert_eq!(ask("/metrics", "somebody").await, 403);
    assert_eq!(ask("/metrics", "prometheus").await, 200);
    let before = asked.load(Ordering::SeqCst);
    assert_eq!(ask("/metrics", "prometheus").await, 200);
    assert_eq!(asked.load(Ordering::SeqCst), before, "answers are kept a while");
    let plain = TcpStream::connect(("127.0.0.1", serving.port)).await.unwrap();
    let mut plain = plain;
    plain.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "no plain HTTP on a secured port");
}
