//! One question to one peer.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use super::target::{Echoes, Transport};
use crate::{
    kernel::{self, arp, within},
    net::Place,
};

/// Echoes per target and round, and the time between two.
const COUNT: u32 = 3;
const GAP: Duration = Duration::from_millis(100);
/// For a connection or a datagram.
const PORT_PATIENCE: Duration = Duration::from_secs(3);
const QUESTION: &[u8] = b"health check";

/// Three ICMP echoes, 100 ms apart; what is not back after `patience` is lost.
pub async fn ping(target: IpAddr, patience: Duration) -> Result<Echoes, kernel::Error> {
    let echoes = (0..COUNT).map(|n| async move {
        let gap = GAP * n;
        sleep(gap).await;
        let left = patience.saturating_sub(gap);
        within(Place::Host, move || arp::echo(&Place::Host, target, left)).await
    });
    let mut times = Vec::new();
    for result in futures::future::join_all(echoes).await {
        match result {
            Ok(time) => times.push(time.map(|t| t.as_secs_f64() * 1000.0)),
            // No route is a lost packet; no right to a raw socket is not.
            Err(error) if is_unreachable(&error) => times.push(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Echoes::of(&times))
}

fn is_unreachable(error: &kernel::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable};
    let kernel::Error::Call { source, .. } = error else { return false };
    let kinds = [AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable];
    kinds.contains(&source.kind()) || source.raw_os_error() == Some(libc::EACCES)
}

/// A TCP connection, or a UDP datagram that is answered.
pub async fn connect(transport: Transport, target: SocketAddr) -> Result<(), String> {
    let attempt = async {
        match transport {
            Transport::Tcp => TcpStream::connect(target).await.map(drop),
            Transport::Udp => ask(target).await,
        }
    };
    match timeout(PORT_PATIENCE, attempt).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PORT_PATIENCE.as_secs())),
    }
}

async fn ask(target: SocketAddr) -> io::Result<()> {
    let local: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((local, 0)).await?;
    socket.connect(target).await?;
    socket.send(QUESTION).await?;
    socket.recv(&mut [0; 512]).await.map(drop)
}
