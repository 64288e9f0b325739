//! One JSON-RPC connection: opening it, reading messages, writing them.
//!
//! Reading and writing are separate tasks: a server whose own backlog is not empty stops
//! reading, so a client that writes 1000 requests before it reads deadlocks.

use std::{borrow::Cow, io};

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::{TcpStream, UnixStream},
    sync::mpsc,
    task::JoinHandle,
    time::Instant,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::{
    endpoint::Endpoint,
    frame::{FrameError, FrameScanner},
    tls::{TlsError, TlsFiles},
};

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("{endpoint}: {source}")]
    Connect { endpoint: Endpoint, source: io::Error },
    #[error("{endpoint}: no connection within {seconds} s")]
    ConnectTimeout { endpoint: Endpoint, seconds: f32 },
    #[error("{endpoint}: {source}")]
    Tls { endpoint: Endpoint, source: TlsError },
    #[error("{endpoint}: an ssl: endpoint needs a key, a certificate and an authority")]
    NoTlsFiles { endpoint: Endpoint },
    #[error("{endpoint}: {source}")]
    Read { endpoint: Endpoint, source: ReadError },
    #[error("{endpoint}: closed by the server")]
    Closed { endpoint: Endpoint },
    #[error("{endpoint}: silent for {seconds} s")]
    Silent { endpoint: Endpoint, seconds: f32 },
    #[error("{endpoint}: its host answers nothing (without power, or cut off)")]
    HostSilent { endpoint: Endpoint },
    #[error("{endpoint}: a transaction had no answer within {seconds} s")]
    NoAnswer { endpoint: Endpoint, seconds: f32 },
    #[error("{endpoint}: {reason}")]
    Unsuitable { endpoint: Endpoint, reason: Unsuitable },
    #[error("{endpoint}: {reason}")]
    Protocol { endpoint: Endpoint, reason: String },
    #[error("no endpoint is configured")]
    NoEndpoint,
    #[error("the client was dropped")]
    Dropped,
}

impl ConnectionError {
    /// Nothing came back, not even a refusal: the host may be without power.
    pub fn is_silence(&self) -> bool {
        use ConnectionError::{ConnectTimeout, HostSilent, Silent};
        matches!(self, ConnectTimeout { .. } | HostSilent { .. } | Silent { .. })
    }
}

/// Why a server that answers is not the one to talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsuitable {
    #[error("does not serve the database")]
    NoDatabase,
    #[error("has no contact with a majority of its cluster")]
    Disconnected,
    #[error("is not the leader of its cluster")]
    NotLeader,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Any byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Opens a connection. Has no time limit of its own.
pub async fn open(
    endpoint: &Endpoint,
    tls: Option<&TlsFiles>,
) -> Result<Box<dyn Stream>, ConnectionError> {
    let fail = |source| ConnectionError::Connect { endpoint: endpoint.clone(), source };
    match endpoint {
        Endpoint::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(fail)?)),
        Endpoint::Tcp { host, port } => Ok(Box::new(open_tcp(host, *port).await.map_err(fail)?)),
        Endpoint::Ssl { host, port } => {
            let Some(files) = tls else {
                return Err(ConnectionError::NoTlsFiles { endpoint: endpoint.clone() });
            };
            let config = files
                .load()
                .map_err(|source| ConnectionError::Tls { endpoint: endpoint.clone(), source })?;
            let name = ServerName::try_from(host.clone())
                .map_err(|e| fail(io::Error::new(io::ErrorKind::InvalidInput, e)))?;
            let stream = open_tcp(host, *port).await.map_err(fail)?;
            let stream = TlsConnector::from(config).connect(name, stream).await.map_err(fail)?;
            Ok(Box::new(stream))
        }
    }
}

async fn open_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What a message may hold (RFC 7047, section 4). A reply has `result` or `error`.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    #[serde(borrow, default)]
    pub id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub error: Option<&'a RawValue>,
}

const CHUNK: usize = 64 << 10;
/// A buffer that grew beyond this for a snapshot is given back.
const KEPT: usize = 1 << 20;

/// Reads one message at a time.
pub struct Reader {
    stream: ReadHalf<Box<dyn Stream>>,
    buffer: BytesMut,
    scanner: FrameScanner,
    /// When bytes came last.
    pub last_read: Instant,
}

impl Reader {
    /// The next message; `None` when the peer closed. Cancelling loses nothing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            if let Some(end) = self.scanner.scan(&self.buffer)? {
                let message = self.buffer.split_to(end).freeze();
                if message.len() > KEPT {
                    self.buffer = BytesMut::from(&self.buffer[..]);
                }
                return Ok(Some(message));
            }
            self.buffer.reserve(CHUNK);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
            self.last_read = Instant::now();
        }
    }
}

/// Queues messages for the writing task, which ends with this value.
pub struct Writer {
    queue: mpsc::UnboundedSender<Bytes>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Never waits. A write error shows as the end of the stream at the reader.
    pub fn send(&self, message: impl Into<Bytes>) {
        let _ = self.queue.send(message.into());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Splits a connection and starts its writing task.
pub fn start(stream: Box<dyn Stream>) -> (Reader, Writer) {
    let (read, write) = tokio::io::split(stream);
    let (queue, messages) = mpsc::unbounded_channel();
    let task = tokio::spawn(write_all(write, messages));
    let reader = Reader {
        stream: read,
        buffer: BytesMut::new(),
        scanner: FrameScanner::default(),
        last_read: Instant::now(),
    };
    (reader, Writer { queue, task })
}

async fn write_all(
    mut stream: WriteHalf<Box<dyn Stream>>,
    mut messages: mpsc::UnboundedReceiver<Bytes>,
) {
    while let Some(message) = messages.recv().await {
        if stream.write_all(&message).await.is_err() || stream.flush().await.is_err() {
            return; // The reader sees it, or the probe that can not be sent stays unanswered.
        }
    }
}
