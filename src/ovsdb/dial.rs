//! Whether a host lives: its kernel answers to being dialled, however busy its programs are.

use std::{io, time::Duration};

use tokio::{
    net::{TcpStream, ToSocketAddrs},
    time::timeout,
};

/// How a host takes being dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Taken,
    /// The host lives, the program does not serve: it may be about to start again.
    Refused,
    Silence,
}

/// Opens a connection and closes it again.
pub async fn dial(address: impl ToSocketAddrs, limit: Duration) -> Answer {
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Answer::Taken,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Answer::Refused,
        Ok(Err(_)) | Err(_) => Answer::Silence,
    }
}
