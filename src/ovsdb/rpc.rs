//! One-shot JSON-RPC: control sockets of daemons (unixctl) and single requests to an OVSDB server.
//! Long-lived sessions are in [`super::client`].

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    endpoint::Endpoint,
    tls::TlsFiles,
    unixctl::{self, UnixctlError},
    wire::{self, ConnectionError, ReadError, Reader, Writer},
};

#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    #[error(transparent)]
    Connect(#[from] ConnectionError),
    #[error(transparent)]
    Control(#[from] UnixctlError),
    #[error("{target} did not answer {method} within {seconds} s")]
    Timeout { target: Endpoint, method: String, seconds: u64 },
    #[error("{target} broke off during {method}: {source}")]
    Broken { target: Endpoint, method: String, source: ReadError },
    #[error("{target} sent no JSON: {source}")]
    Garbage { target: Endpoint, source: serde_json::Error },
    #[error("{target} refused {method}: {message}")]
    Refused { target: Endpoint, method: String, message: String },
}

/// A connection for a few requests, one at a time.
pub struct Rpc {
    target: Endpoint,
    reader: Reader,
    writer: Writer,
    limit: Duration,
}

impl Rpc {
    /// `limit` bounds the connect and each later call.
    pub async fn connect(
        target: &Endpoint,
        tls: Option<&TlsFiles>,
        limit: Duration,
    ) -> Result<Self, RpcError> {
        let stream = timeout(limit, wire::open(target, tls)).await.map_err(|_| {
            let seconds = limit.as_secs_f32();
            ConnectionError::ConnectTimeout { endpoint: target.clone(), seconds }
        })??;
        let (reader, writer) = wire::start(stream);
        Ok(Rpc { target: target.clone(), reader, writer, limit })
    }

    /// A connection to the socket of a local server.
    pub async fn local(socket: &Path, limit: Duration) -> Result<Self, RpcError> {
        Self::connect(&Endpoint::Unix(socket.to_owned()), None, limit).await
    }

    /// Sends one request and waits for its result.
    pub async fn call(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        let limit = self.limit;
        match timeout(limit, self.exchange(method, params)).await {
            Ok(result) => result,
            Err(_) => Err(RpcError::Timeout {
                target: self.target.clone(),
                method: method.to_owned(),
                seconds: limit.as_secs(),
            }),
        }
    }

    async fn exchange(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        let broken = |target: &Endpoint, source| RpcError::Broken {
            target: target.clone(),
            method: method.to_owned(),
            source,
        };
        let request = json!({ "id": 0, "method": method, "params": params });
        self.writer.send(request.to_string());
        loop {
            let next = self.reader.next().await.map_err(|source| broken(&self.target, source))?;
            let Some(bytes) = next else {
                let closed = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                return Err(broken(&self.target, closed.into()));
            };
            let message: Value = serde_json::from_slice(&bytes)
                .map_err(|source| RpcError::Garbage { target: self.target.clone(), source })?;
            if message["method"] == "echo" {
                let reply = json!({ "id": message["id"], "result": message["params"],
                                    "error": null });
                self.writer.send(reply.to_string());
            } else if message.get("method").is_none() && message["id"] == 0 {
                return self.result(method, message);
            }
        }
    }

    fn result(&self, method: &str, mut message: Value) -> Result<Value, RpcError> {
        let error = &message["error"];
        if error.is_null() {
            return Ok(message["result"].take());
        }
        let message = error.as_str().map_or_else(|| error.to_string(), |t| t.trim().to_owned());
        let target = self.target.clone();
        Err(RpcError::Refused { target, method: method.to_owned(), message })
    }

    /// An OVSDB transaction (RFC 7047, section 4.1.3); one result per operation.
    pub async fn transact(
        &mut self,
        database: &str,
        operations: Vec<Value>,
    ) -> Result<Vec<Value>, RpcError> {
        let mut params = vec![Value::from(database)];
        params.extend(operations);
        let results = match self.call("transact", Value::Array(params)).await? {
            Value::Array(results) => results,
            other => vec![other],
        };
        match results.iter().find(|r| !r["error"].is_null()) {
            None => Ok(results),
            Some(failed) => Err(RpcError::Refused {
                target: self.target.clone(),
                method: format!("transaction on {database}"),
                message: failed.to_string(),
            }),
        }
    }
}

/// One command on a control socket, as ovs-appctl(8) would send it.
pub async fn control(
    socket: &Path,
    command: &str,
    arguments: &[&str],
    limit: Duration,
) -> Result<String, RpcError> {
    Ok(unixctl::call(socket, command, arguments, limit).await?)
}

/// One command to the daemon of a pid file (`DIR/NAME.pid`, socket `DIR/NAME.PID.ctl`).
pub async fn control_daemon(
    pidfile: &Path,
    command: &str,
    arguments: &[&str],
    limit: Duration,
) -> Result<String, RpcError> {
    let directory = pidfile.parent().unwrap_or(Path::new("/"));
    let name = pidfile.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let socket = unixctl::socket_of(directory, &name).await?;
    control(&socket, command, arguments, limit).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Answers the first request with an echo request before the reply, cut in the middle.
    async fn serve(listener: tokio::net::UnixListener) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await.unwrap();
        let text =
            r#"{"id":"echo","method":"echo","params":[]}{"id":0,"result":"a}\"","error":null}"#;
        for half in [&text[..60], &text[60..]] {
            stream.write_all(half.as_bytes()).await.unwrap();
        }
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(String::from_utf8_lossy(&buffer[..n]).contains("\"id\":\"echo\""));
    }

    #[tokio::test]
    async fn replies_after_echo_requests_and_in_pieces() {
        let path = std::env::temp_dir().join(format!("kube-ovn-rpc-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let server = tokio::spawn(serve(tokio::net::UnixListener::bind(&path).unwrap()));
        let mut rpc = Rpc::local(&path, Duration::from_secs(5)).await.unwrap();
        assert_eq!(rpc.call("x", json!([])).await.unwrap(), "a}\"");
        server.await.unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
