//! One-shot JSON-RPC: control sockets of daemons (unixctl) and single requests to an OVSDB server.
//! Long-lived OVSDB sessions are in `ovsdb::client`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    #[error("cannot reach {target}: {source}")]
    Connect { target: String, source: std::io::Error },
    #[error("{target} did not answer {method} within {millis} ms")]
    Timeout { target: String, method: String, millis: u128 },
    #[error("{target} closed the connection during {method}: {source}")]
    Broken { target: String, method: String, source: std::io::Error },
    #[error("{target} sent no JSON: {source}")]
    Garbage { target: String, source: serde_json::Error },
    #[error("{target} refused {method}: {message}")]
    Refused { target: String, method: String, message: String },
}

/// Whom to ask.
#[derive(Debug, Clone)]
pub enum Target {
    Unix(PathBuf),
    Tcp(SocketAddr),
    Tls(SocketAddr, Arc<rustls::ClientConfig>),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
            Target::Tcp(address) => write!(f, "tcp:{address}"),
            Target::Tls(address, _) => write!(f, "ssl:{address}"),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection for a few requests, one at a time.
pub struct Rpc {
    target: String,
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    limit: Duration,
}

impl Rpc {
    /// `limit` bounds the connect and each later call.
    pub async fn connect(target: &Target, limit: Duration) -> Result<Self, RpcError> {
        let name = target.to_string();
        let stream = tokio::time::timeout(limit, open(target)).await.map_err(|_| {
            let method = "connect".to_owned();
            RpcError::Timeout { target: name.clone(), method, millis: limit.as_millis() }
        })?;
        let stream =
            stream.map_err(|source| RpcError::Connect { target: name.clone(), source })?;
        Ok(Rpc { target: name, stream, buffer: Vec::new(), limit })
    }

    /// Sends one request and waits for its result.
    pub async fn call(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        let limit = self.limit;
        tokio::time::timeout(limit, self.exchange(method, params)).await.map_err(|_| {
            RpcError::Timeout {
                target: self.target.clone(),
                method: method.to_owned(),
                millis: limit.as_millis(),
            }
        })?
    }

    async fn exchange(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        let broken = |target: &str, source| RpcError::Broken {
            target: target.to_owned(),
            method: method.to_owned(),
            source,
        };
        let request = json!({ "id": 0, "method": method, "params": params }).to_string();
        let sent = self.stream.write_all(request.as_bytes()).await;
        sent.map_err(|source| broken(&self.target, source))?;
        loop {
            while let Some(message) = self.take_message()? {
                if message["method"] == "echo" {
                    let reply = json!({ "id": message["id"], "result": message["params"],
                                        "error": null });
                    let sent = self.stream.write_all(reply.to_string().as_bytes()).await;
                    sent.map_err(|source| broken(&self.target, source))?;
                } else if message.get("method").is_none() && message["id"] == 0 {
                    return self.result(method, message);
                }
            }
            let read = self.stream.read_buf(&mut self.buffer).await;
            if read.map_err(|source| broken(&self.target, source))? == 0 {
                let source = std::io::ErrorKind::UnexpectedEof.into();
                return Err(broken(&self.target, source));
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

    /// The next whole message in the buffer.
    fn take_message(&mut self) -> Result<Option<Value>, RpcError> {
        let mut messages = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<Value>();
        match messages.next() {
            None => Ok(None),
            Some(Ok(message)) => {
                let used = messages.byte_offset();
                self.buffer.drain(..used);
                Ok(Some(message))
            }
            Some(Err(e)) if e.is_eof() => Ok(None),
            Some(Err(source)) => Err(RpcError::Garbage { target: self.target.clone(), source }),
        }
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

async fn open(target: &Target) -> std::io::Result<Box<dyn Stream>> {
    Ok(match target {
        Target::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Target::Tcp(address) => Box::new(TcpStream::connect(address).await?),
        Target::Tls(address, config) => {
            let stream = TcpStream::connect(address).await?;
            let name = rustls::pki_types::ServerName::from(address.ip());
            let connector = tokio_rustls::TlsConnector::from(config.clone());
            Box::new(connector.connect(name, stream).await?)
        }
    })
}

/// One command on a control socket, as ovs-appctl(8) would send it.
pub async fn control(
    socket: &Path,
    command: &str,
    arguments: &[&str],
    limit: Duration,
) -> Result<String, RpcError> {
    let mut rpc = Rpc::connect(&Target::Unix(socket.to_owned()), limit).await?;
    let result = rpc.call(command, json!(arguments)).await?;
    Ok(result.as_str().map(str::to_owned).unwrap_or_default())
}

/// The control socket of a daemon that names it after its process id (`NAME.PID.ctl`).
pub fn control_of_pidfile(pidfile: &Path) -> Option<PathBuf> {
    let pid: i32 = std::fs::read_to_string(pidfile).ok()?.trim().parse().ok()?;
    let name = pidfile.file_stem()?.to_str()?;
    Some(pidfile.with_file_name(format!("{name}.{pid}.ctl")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers the first request with two messages in one write, an echo request before the reply.
    async fn serve(listener: tokio::net::UnixListener) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await.unwrap();
        let text = r#"{"id":"echo","method":"echo","params":[]}{"id":0,"result":"a}\"","error":null}"#;
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
        let answer = control(&path, "version", &[], Duration::from_secs(5)).await.unwrap();
        assert_eq!(answer, "a}\"");
        server.await.unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    #[tokio::test]
    async fn nobody_there() {
        let error = control(Path::new("/nonexistent"), "version", &[], Duration::from_secs(1)).await;
        assert!(matches!(error, Err(RpcError::Connect { .. })));
    }
}
