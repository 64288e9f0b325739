//! `--enable-verbose-conn-check`: ports that prove that this node can be reached. TCP accepts and
//! closes, UDP answers `health check`.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::{TcpListener, UdpSocket};

const ANSWER: &[u8] = b"health check";

/// All addresses of both families; a kernel without IPv6 has only the second.
fn any(port: u16) -> [SocketAddr; 2] {
    [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
}

/// Serves both ports for ever; ends only when one cannot be opened.
pub async fn serve_check_ports(tcp: u16, udp: u16) -> io::Result<()> {
    let tcp = TcpListener::bind(&any(tcp)[..]).await?;
    let udp = UdpSocket::bind(&any(udp)[..]).await?;
    let mut datagram = [0; 512];
    loop {
        tokio::select! {
            accepted = tcp.accept() => drop(accepted),
            received = udp.recv_from(&mut datagram) => {
                if let Ok((_, peer)) = received {
                    let _ = udp.send_to(ANSWER, peer).await;
                }
            }
        }
    }
}
