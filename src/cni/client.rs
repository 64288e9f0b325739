//! One HTTP/1.1 request over a unix socket, blocking. `Connection: close` makes the end of the
//! stream the end of the answer; no header of the answer but the status line and the framing
//! matters.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// The daemon gives up after 60 s and says what it waited for; only a daemon that hangs is cut.
const PATIENCE: Duration = Duration::from_secs(120);

/// No answer of ours is larger; an endless one must not fill the node's memory.
const MAX_ANSWER: u64 = 8 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot connect to {socket}: {source}; is the kube-ovn-cni pod of this node running?")]
    Connect { socket: String, source: std::io::Error },
    #[error("request to {socket} {endpoint} failed: {source}")]
    Exchange { socket: String, endpoint: &'static str, source: std::io::Error },
    #[error("answer of {socket} {endpoint} is not HTTP/1.1: {problem}")]
    Malformed { socket: String, endpoint: &'static str, problem: &'static str },
}

/// Status and body of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Sends `body` as JSON to `endpoint` and reads the answer.
pub fn post(socket: &str, endpoint: &'static str, body: &[u8]) -> Result<Answer, ClientError> {
    let mut stream = UnixStream::connect(Path::new(socket))
        .map_err(|source| ClientError::Connect { socket: socket.to_owned(), source })?;
    let bytes = exchange(&mut stream, endpoint, body).map_err(|source| ClientError::Exchange {
        socket: socket.to_owned(),
        endpoint,
        source,
    })?;
    parse_answer(&bytes).map_err(|problem| ClientError::Malformed {
        socket: socket.to_owned(),
        endpoint,
        problem,
    })
}

fn exchange(stream: &mut UnixStream, endpoint: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = format!(
        "POST {endpoint} HTTP/1.1\r\nHost: kube-ovn\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request)?;
    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Splits a complete answer; understands `Content-Length`, `chunked` and "until closed".
pub fn parse_answer(bytes: &[u8]) -> Result<Answer, &'static str> {
    let end = find(bytes, b"\r\n\r\n").ok_or("the header does not end")?;
    let header = std::str::from_utf8(&bytes[..end]).map_err(|_| "the header is not text")?;
    let mut body = &bytes[end + 4..];
    let mut lines = header.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or("no status line")?;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a header line has no colon")?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let length: usize = value.parse().map_err(|_| "Content-Length is not a number")?;
            body = body.get(..length).ok_or("the connection ended before the body did")?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err("unknown Transfer-Encoding");
            }
            return Ok(Answer { status, body: parse_chunks(body)? });
        }
    }
    Ok(Answer { status, body: body.to_vec() })
}

fn parse_chunks(mut rest: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut body = Vec::new();
    loop {
        let end = find(rest, b"\r\n").ok_or("a chunk has no size line")?;
        let line = std::str::from_utf8(&rest[..end]).map_err(|_| "a chunk size is not text")?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).map_err(|_| "a chunk size is not hex")?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Ok(body);
        }
        let chunk = rest.get(..size).ok_or("the connection ended inside a chunk")?;
        body.extend_from_slice(chunk);
        rest = rest[size..].strip_prefix(b"\r\n").ok_or("a chunk does not end with CRLF")?;
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
