//! Commands to a running OVS or OVN daemon, as `ovs-appctl` sends them: one JSON-RPC request over
//! the daemon's control socket, answered by text.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::UnixStream, time::timeout};

use super::wire::{self, ReadError};

#[derive(Debug, thiserror::Error)]
pub enum UnixctlError {
    #[error("{}: {source}", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("{}: {source}", socket.display())]
    Exchange { socket: PathBuf, source: ReadError },
    #[error("{}: no answer to {method} within {seconds} s", socket.display())]
    Timeout { socket: PathBuf, method: String, seconds: f32 },
    #[error("{}: malformed answer to {method}", socket.display())]
    Malformed { socket: PathBuf, method: String },
    /// The daemon's own words.
    #[error("{method}: {message}")]
    Failed { method: String, message: String },
    #[error("{}: no process id in it", path.display())]
    PidFile { path: PathBuf },
}

/// Runs `method` with `params` in the daemon that listens at `socket`; gives its text.
pub async fn call(
    socket: &Path,
    method: &str,
    params: &[&str],
    limit: Duration,
) -> Result<String, UnixctlError> {
    timeout(limit, exchange(socket, method, params)).await.unwrap_or_else(|_| {
        let (socket, method) = (socket.to_owned(), method.to_owned());
        Err(UnixctlError::Timeout { socket, method, seconds: limit.as_secs_f32() })
    })
}

async fn exchange(socket: &Path, method: &str, params: &[&str]) -> Result<String, UnixctlError> {
    let connect = |source| UnixctlError::Connect { socket: socket.to_owned(), source };
    let fail = |source: ReadError| UnixctlError::Exchange { socket: socket.to_owned(), source };
    let mut stream = UnixStream::connect(socket).await.map_err(connect)?;
    let request = json!({"method": method, "params": params, "id": 0}).to_string();
    stream.write_all(request.as_bytes()).await.map_err(|e| fail(e.into()))?;

    let (mut reader, _writer) = wire::start(Box::new(stream));
    let malformed =
        || UnixctlError::Malformed { socket: socket.to_owned(), method: method.to_owned() };
    let message = reader.next().await.map_err(fail)?.ok_or_else(malformed)?;
    let reply: Value = serde_json::from_slice(&message).map_err(|_| malformed())?;
    match (reply.get("error"), reply.get("result")) {
        (Some(Value::String(message)), _) => {
            let message = message.trim_end().to_owned();
            Err(UnixctlError::Failed { method: method.to_owned(), message })
        }
        (_, Some(Value::String(text))) => Ok(text.clone()),
        _ => Err(malformed()),
    }
}

/// The control socket of a daemon that runs with `--unixctl` at its default and the pid file
/// `<directory>/<daemon>.pid`: `<directory>/<daemon>.<pid>.ctl`.
pub async fn socket_of(directory: &Path, daemon: &str) -> Result<PathBuf, UnixctlError> {
    let path = directory.join(format!("{daemon}.pid"));
    let text = tokio::fs::read_to_string(&path)
        .await
        .map_err(|source| UnixctlError::Connect { socket: path.clone(), source })?;
    let pid: u32 = text.trim().parse().map_err(|_| UnixctlError::PidFile { path })?;
    Ok(directory.join(format!("{daemon}.{pid}.ctl")))
}
