//! The CNI server alone: its socket file, bad requests, clients that hang up.

use std::{
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::FutureExt;
use kube_ovn::{
    cni::client::post,
    node::cni_server::{Call, Handler, Reply, Socket, serve},
};
use tokio_util::sync::CancellationToken;

use crate::node_rig::{Folder, wait_until};

const ADD: &[u8] = br#"{"cni_type":"kube-ovn","pod_name":"a","pod_namespace":"b",
    "container_id":"c","net_ns":"/n","if_name":"eth0","provider":"ovn","unknown":1}"#;

/// ADD sleeps until it is cancelled and counts that; the rest is done at once.
fn handler(cancelled: Arc<AtomicUsize>) -> Handler {
    Arc::new(move |call, cancel: CancellationToken| {
        let cancelled = cancelled.clone();
        async move {
            if matches!(call, Call::Add(_)) {
                cancel.cancelled().await;
                cancelled.fetch_add(1, Ordering::SeqCst);
            }
            Reply::done()
        }
        .boxed()
    })
}

struct Server {
    cancelled: Arc<AtomicUsize>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn start(path: &Path) -> Server {
    let cancelled = Arc::new(AtomicUsize::new(0));
    let stop = CancellationToken::new();
    let socket = Socket::bind(path).unwrap();
    let task = tokio::spawn(serve(socket, handler(cancelled.clone()), None, stop.clone()));
    Server { cancelled, stop, task }
}

fn raw(path: &Path, text: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_private_replaces_a_stale_one_and_goes_with_its_owner() {
    let folder = Folder::new();
    let path = folder.0.join("run/daemon.sock");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "left by a killed daemon").unwrap();
    let old = start(&path);
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    // A successor takes the path over; the end of the old one does not take it away.
    let new = start(&path);
    assert_ne!(std::fs::metadata(&path).unwrap().ino(), meta.ino());
    old.stop.cancel();
    old.task.await.unwrap();
    assert!(path.exists());
    new.stop.cancel();
    new.task.await.unwrap();
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_400_and_name_the_field() {
    let folder = Folder::new();
    let path = folder.0.join("daemon.sock");
    let server = start(&path);
    let text = path.to_str().unwrap().to_owned();
    let answers = tokio::task::spawn_blocking(move || {
        let status = |endpoint, body: &[u8]| post(&text, endpoint, body).unwrap();
        [
            status("/api/v1/add", b"{"),
            status("/api/v1/add", br#"{"container_id":"a"}"#),
            status("/api/v1/del", br#"{"container_id":"../x"}"#),
            status("/api/v1/gc", b"[]x"),
            status("/api/v1/del", br#"{"container_id":"a"}"#),
            status("/api/v1/status", b"{}"),
            status("/api/v1/nothing", b"{}"),
        ]
    })
    .await
    .unwrap();
    let statuses: Vec<u16> = answers.iter().map(|a| a.status).collect();
    assert_eq!(statuses, [400, 400, 400, 400, 204, 204, 404]);
    let body = |n: usize| String::from_utf8_lossy(&answers[n].body).into_owned();
    assert!(body(0).starts_with(r#"{"protocol":"""#) && body(0).contains("not valid JSON"));
    assert!(body(1).contains("pod_name"), "{}", body(1));
    assert!(body(2).contains("container_id"), "{}", body(2));
    server.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_cancels_the_request() {
    let folder = Folder::new();
    let path = folder.0.join("daemon.sock");
    let server = start(&path);
    let mut stream = UnixStream::connect(&path).unwrap();
    let head =
        format!("POST /api/v1/add HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", ADD.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(ADD).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.cancelled.load(Ordering::SeqCst), 0);
    drop(stream);
    wait_until("the cancellation", || server.cancelled.load(Ordering::SeqCst) == 1).await;
    // The end of the daemon does the same to requests in flight.
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(ADD).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.cancel();
    wait_until("the end", || server.cancelled.load(Ordering::SeqCst) == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_header_is_cut_off_after_three_seconds() {
    let folder = Folder::new();
    let path = folder.0.join("daemon.sock");
    let server = start(&path);
    let started = Instant::now();
    tokio::task::spawn_blocking(move || raw(&path, "POST /api/v1/add HTT")).await.unwrap();
    let seconds = started.elapsed().as_secs_f64();
    assert!((2.0..6.0).contains(&seconds), "{seconds}");
    server.stop.cancel();
}
