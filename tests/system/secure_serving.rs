//! `SECURE_SERVING`: the executables serve their metrics by TLS, to those whom Kubernetes admits.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use axum::{Json, Router, routing::post};
use rustls::{ClientConfig, pki_types::ServerName};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{kube_api::KubeApi, ovsdb_server::Folder, support::tls::AnyCertificate};

/// Kubernetes knows one token, and lets its owner read metrics.
async fn review(Json(mut body): Json<Value>) -> Json<Value> {
    body["status"] = match body["spec"]["token"].as_str() {
        Some("good") => json!({"authenticated": true, "user": {"username": "prometheus"}}),
        Some(_) => json!({"authenticated": false}),
        None => json!({"allowed": body["spec"]["user"] == "prometheus"}),
    };
    Json(body)
}

async fn kubernetes(folder: &Folder) -> String {
    let router = Router::new()
        .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review))
        .route("/apis/authorization.k8s.io/v1/subjectaccessreviews", post(review));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let path = folder.0.join("kubeconfig");
    KubeApi::write_kubeconfig_for(port, &path);
    path.display().to_string()
}

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Status of a GET; `None` while nobody speaks TLS there.
async fn ask(port: u16, path: &str, token: &str) -> Option<u16> {
    let verifier = Arc::new(AnyCertificate);
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config.with_no_client_auth()));
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, stream).await.ok()?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    // A TLS peer may close without close_notify.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

#[tokio::test]
async fn programs_serve_metrics_by_tls_to_those_whom_kubernetes_admits() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = Folder::new();
    let kubeconfig = format!("--kubeconfig={}", kubernetes(&folder).await);
    // Databases that do not answer: serving must not wait for them.
    let away = "tcp:[127.0.0.1]:1";
    let (north, south) = (format!("--ovn-nb-addr={away}"), format!("--ovn-sb-addr={away}"));
    for (program, port_flag, more) in [
        ("kube-ovn-monitor", "metrics-port", &[][..]),
        ("kube-ovn-controller", "pprof-port", &[north.as_str(), south.as_str()][..]),
    ] {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(env!("CARGO_BIN_EXE_kube-ovn"))
            .arg(program)
            .args(["--secure-serving=true", &format!("--{port_flag}={port}"), &kubeconfig])
            .args(more)
            .env("POD_NAME", "test")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _program = Program(child);
        let mut live = None;
        for _ in 0..300 {
            live = ask(port, "/livez", "").await;
            if live.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(live, Some(200), "{program}: the kubelet has no token");
        assert_eq!(ask(port, "/metrics", "").await, Some(401), "{program}");
        assert_eq!(ask(port, "/metrics", "bad").await, Some(401), "{program}");
        assert_eq!(ask(port, "/metrics", "good").await, Some(200), "{program}");
        let mut plain = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        plain.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"), "{program}: plain HTTP on a secured port");
    }
}
