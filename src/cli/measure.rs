//! `measure`: latency and bandwidth between two places, for `perf`. It runs in pods of the image
//! that every node has, so nothing has to be pulled.
//!
//! One port, TCP and UDP. A TCP connection opens with a letter: `L` wants every message back, `B`
//! is read to its end and then answered with the number of bytes. A datagram opens with a letter
//! and a number that its test has chosen: `L` comes back, `B` is counted, `R` asks for the count.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches, Command};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{Arguments, Session, Tool, Usage, argument, output::Format};
use crate::net::parse_ip;

pub const TOOL: Tool = Tool {
    name: "measure",
    aliases: &[],
    about: "Measure latency and bandwidth towards another 'measure serve'; used by perf",
    example: "measure serve\nmeasure client 10.16.0.9 --size 1024 --seconds 5",
    arguments: Arguments::Own,
    command: |command: Command| {
        let number = |name: &'static str, default: &'static str| {
            Arg::new(name)
                .long(name)
                .default_value(default)
                .value_parser(clap::value_parser!(u32).range(1..=65_000))
        };
        command
            .hide(true)
            .subcommand_required(true)
            .subcommand(Command::new("serve").about("Answer clients, for ever"))
            .subcommand(
                Command::new("client")
                    .about("One round of all measurements, as JSON")
                    .arg(Arg::new("host").required(true).value_name("IP"))
                    .arg(number("size", "1024"))
                    .arg(number("seconds", "5")),
            )
    },
    run: |session, matches| Box::pin(run(session, matches)),
};

pub const PORT: u16 = 5201;
const STREAMS: usize = 10;
/// Letter and number of a datagram, and its length at least.
const HEAD: usize = 5;
const PATIENCE: Duration = Duration::from_secs(2);
/// Datagrams sent before other tasks get their turn.
const BURST: usize = 64;

/// What one round found; latencies are half of a round trip, as qperf tells them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    pub tcp_latency_us: f64,
    pub tcp_bits: f64,
    pub udp_latency_us: f64,
    /// Between 0 and 1.
    pub udp_lost: f64,
    /// Of what arrived.
    pub udp_bits: f64,
}

async fn run(_: &Session<'_>, matches: &ArgMatches) -> anyhow::Result<u8> {
    match matches.subcommand() {
        Some(("client", inner)) => {
            let host = argument(inner, "host");
            let host = parse_ip(host).map_err(|e| Usage(format!("{host}: {e}")))?;
            let number = |name: &str| inner.get_one::<u32>(name).copied().unwrap_or(1);
            let length = Duration::from_secs(u64::from(number("seconds")));
            let target = SocketAddr::new(host, PORT);
            let measured = measure(target, number("size") as usize, length).await?;
            super::output::emit(Format::Json, &measured, |_| String::new())?;
            Ok(0)
        }
        _ => serve(PORT).await.map(|()| 0),
    }
}

/// Answers for ever; both families.
pub async fn serve(port: u16) -> anyhow::Result<()> {
    let any = [IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::UNSPECIFIED)];
    for ip in any {
        let address = SocketAddr::new(ip, port);
        let Ok(listener) = TcpListener::bind(address).await else { continue };
        let socket = UdpSocket::bind(address).await.context("listen for datagrams")?;
        serve_on(listener, socket).await;
        return Ok(());
    }
    bail!("port {port} is taken")
}

/// Answers on these sockets for ever.
pub async fn serve_on(listener: TcpListener, socket: UdpSocket) {
    let mut streams = JoinSet::new();
    streams.spawn(serve_datagrams(Arc::new(socket)));
    while let Ok((stream, _)) = listener.accept().await {
        streams.spawn(async move {
            // A client that goes away in the middle is none of our business.
            let _ = serve_stream(stream).await;
        });
        while streams.try_join_next().is_some() {}
    }
}

async fn serve_stream(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let kind = stream.read_u8().await?;
    let mut buffer = vec![0; 64 << 10];
    let mut total: u64 = 0;
    loop {
        let read = stream.read(&mut buffer).await?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        total += read as u64;
        if kind == b'L' {
            stream.write_all(part).await?;
        }
    }
    if kind == b'B' {
        stream.write_u64(total).await?;
    }
    Ok(())
}

async fn serve_datagrams(socket: Arc<UdpSocket>) {
    let mut counts: HashMap<[u8; 4], u64> = HashMap::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok((read, from)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(datagram) = buffer.get(..read) else { continue };
        let Some((kind, test)) = head(datagram) else { continue };
        let answer = match kind {
            b'L' => socket.send_to(datagram, from).await,
            b'B' => {
                // Tests that nobody asks about any more must not fill the memory.
                if counts.len() > 10_000 {
                    counts.clear();
                }
                *counts.entry(test).or_default() += 1;
                continue;
            }
            b'R' => {
                let count = counts.get(&test).copied().unwrap_or_default();
                socket.send_to(&count.to_be_bytes(), from).await
            }
            _ => continue,
        };
        // An address that cannot be reached any more.
        let _ = answer;
    }
}

fn head(datagram: &[u8]) -> Option<(u8, [u8; 4])> {
    let (kind, rest) = datagram.split_first()?;
    Some((*kind, *rest.first_chunk()?))
}

/// All measurements, one after the other, each for `length`.
pub async fn measure(
    target: SocketAddr,
    size: usize,
    length: Duration,
) -> anyhow::Result<Measured> {
    let size = size.max(HEAD);
    let tcp_latency_us = tcp_latency(target, size, length).await.context("TCP latency")?;
    let udp_latency_us = udp_latency(target, size, length).await.context("UDP latency")?;
    let (udp_bits, udp_lost) = udp_rate(target, size, length).await.context("UDP bandwidth")?;
    let tcp_bits = tcp_rate(target, size, length).await.context("TCP bandwidth")?;
    Ok(Measured { tcp_latency_us, tcp_bits, udp_latency_us, udp_lost, udp_bits })
}

async fn connect(target: SocketAddr, kind: u8) -> anyhow::Result<TcpStream> {
    let opened = timeout(PATIENCE, TcpStream::connect(target)).await;
    let mut stream = opened.with_context(|| format!("{target} does not answer"))??;
    stream.set_nodelay(true)?;
    stream.write_u8(kind).await?;
    Ok(stream)
}

fn half_round_trip(begun: Instant, rounds: u32) -> anyhow::Result<f64> {
    if rounds == 0 {
        bail!("no answer");
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(rounds) / 2.0)
}

async fn tcp_latency(target: SocketAddr, size: usize, length: Duration) -> anyhow::Result<f64> {
    let mut stream = connect(target, b'L').await?;
    let (message, mut answer) = (vec![1; size], vec![0; size]);
    let (begun, mut rounds) = (Instant::now(), 0);
    while begun.elapsed() < length {
        stream.write_all(&message).await?;
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.context("no answer")??;
        rounds += 1;
    }
    half_round_trip(begun, rounds)
}

async fn tcp_rate(target: SocketAddr, size: usize, length: Duration) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        streams.spawn(async move {
            let mut stream = connect(target, b'B').await?;
            let message = vec![1; size];
            while begun.elapsed() < length {
                stream.write_all(&message).await?;
            }
            stream.shutdown().await?;
            let counted = timeout(length + PATIENCE, stream.read_u64()).await;
            anyhow::Ok(counted.context("no count")??)
        });
    }
    let mut bytes = 0;
    while let Some(counted) = streams.join_next().await {
        bytes += counted??;
    }
    Ok(bytes as f64 * 8.0 / begun.elapsed().as_secs_f64())
}

async fn socket_to(target: SocketAddr) -> anyhow::Result<UdpSocket> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

fn datagram(kind: u8, test: [u8; 4], size: usize) -> Vec<u8> {
    let mut all = vec![1; size.max(HEAD)];
    all[0] = kind;
    all[1..HEAD].copy_from_slice(&test);
    all
}

async fn udp_latency(target: SocketAddr, size: usize, length: Duration) -> anyhow::Result<f64> {
    let socket = socket_to(target).await?;
    let (message, mut answer) = (datagram(b'L', [0; 4], size), vec![0; size]);
    let (begun, mut rounds, mut waited) = (Instant::now(), 0, Duration::ZERO);
    while begun.elapsed() < length {
        socket.send(&message).await?;
        let asked = Instant::now();
        match timeout(PATIENCE / 4, socket.recv(&mut answer)).await {
            Ok(received) => {
                received?;
                rounds += 1;
            }
            // A lost one says nothing about the latency.
            Err(_) => waited += asked.elapsed(),
        }
    }
    half_round_trip(begun + waited, rounds)
}

/// Bits per second that arrived, and the share that did not.
async fn udp_rate(target: SocketAddr, size: usize, length: Duration) -> anyhow::Result<(f64, f64)> {
    let begun = Instant::now();
    let own = std::process::id().to_be_bytes();
    let mut sockets = JoinSet::new();
    for n in 0..STREAMS {
        // Of this process, this stream, this size: counts are kept by the server.
        let test = [own[2], own[3], n as u8, (size >> 4) as u8];
        sockets.spawn(async move {
            let socket = socket_to(target).await?;
            let before = count(&socket, test).await?;
            let message = datagram(b'B', test, size);
            let mut sent: u64 = 0;
            while begun.elapsed() < length {
                for _ in 0..BURST {
                    // A full queue is waited for, an ICMP error is a lost datagram.
                    let _ = socket.send(&message).await;
                    sent += 1;
                }
                tokio::task::yield_now().await;
            }
            let arrived = count(&socket, test).await?.saturating_sub(before);
            anyhow::Ok((sent, arrived))
        });
    }
    let (mut sent, mut arrived) = (0, 0);
    while let Some(counted) = sockets.join_next().await {
        let (of_stream, received) = counted??;
        sent += of_stream;
        arrived += received;
    }
    let lost = 1.0 - arrived as f64 / sent.max(1) as f64;
    Ok((arrived as f64 * size as f64 * 8.0 / length.as_secs_f64(), lost.clamp(0.0, 1.0)))
}

async fn count(socket: &UdpSocket, test: [u8; 4]) -> anyhow::Result<u64> {
    let question = datagram(b'R', test, HEAD);
    let mut answer = [0; 8];
    for _ in 0..10 {
        // What is still in queues comes before the question.
        let _ = socket.send(&question).await;
        if let Ok(Ok(8)) = timeout(PATIENCE / 4, socket.recv(&mut answer)).await {
            return Ok(u64::from_be_bytes(answer));
        }
    }
    bail!("the server does not tell its count")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_round_over_loopback_fills_every_cell() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("address");
        let socket = UdpSocket::bind(address).await.expect("listen for datagrams");
        let server = tokio::spawn(serve_on(listener, socket));
        let length = Duration::from_millis(50);
        let found = measure(address, 64, length).await.expect("a round");
        server.abort();
        assert!(found.tcp_latency_us > 0.0 && found.udp_latency_us > 0.0, "{found:?}");
        assert!(found.tcp_bits > 0.0 && found.udp_bits > 0.0, "{found:?}");
        assert!((0.0..1.0).contains(&found.udp_lost), "{found:?}");
    }

    #[test]
    fn short_datagrams_are_ignored() {
        assert_eq!(head(b"L123"), None);
        assert_eq!(head(b"R1234x"), Some((b'R', *b"1234")));
    }
}
