//! `probe`: one look at each target from where it runs. The other commands run it in the node
//! agents and, through nsenter, in the network namespaces of pods: nothing has to be installed
//! in a pod.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{Arg, ArgMatches, Command};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use super::{Arguments, FOUND, Session, Tool, Usage, words};
use crate::net::parse_ip;

pub const TOOL: Tool = Tool {
    name: "probe",
    aliases: &[],
    about: "Probe targets from this machine: icmp-IP, tcp-IP-PORT, udp-IP-PORT, dns-SERVER-NAME, \
            http-IP-PORT-PATH; one line of JSON each",
    example: "probe icmp-10.16.0.9 tcp-10.96.0.1-443",
    arguments: Arguments::Own,
    command: |command: Command| {
        command
            .hide(true)
            .arg(Arg::new("targets").value_name("TARGET").num_args(1..).required(true))
    },
    run: |session, matches| Box::pin(run(session, matches)),
};

const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Icmp(IpAddr),
    Tcp(SocketAddr),
    Udp(SocketAddr),
    Dns(IpAddr, String),
    Http(SocketAddr, String),
}

/// What came of one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub target: String,
    pub milliseconds: Option<f64>,
    /// Empty when it answered.
    pub error: String,
}

pub fn parse_target(text: &str) -> Result<Target, String> {
    let wrong =
        || format!("target {text:?}: write icmp-IP, tcp-IP-PORT, udp-IP-PORT or dns-IP-NAME");
    let (kind, rest) = text.split_once('-').ok_or_else(wrong)?;
    let (ip, rest) = match rest.split_once('-') {
        Some((ip, rest)) => (ip, rest),
        None => (rest, ""),
    };
    let ip = parse_ip(ip.trim_matches(['[', ']'])).map_err(|error| format!("{text:?}: {error}"))?;
    let socket = |port: &str| {
        let port = port.parse::<u16>().map_err(|_| wrong())?;
        Ok::<_, String>(SocketAddr::new(ip, port))
    };
    match kind {
        "icmp" if rest.is_empty() => Ok(Target::Icmp(ip)),
        "tcp" => Ok(Target::Tcp(socket(rest)?)),
        "udp" => Ok(Target::Udp(socket(rest)?)),
        "dns" if !rest.is_empty() => Ok(Target::Dns(ip, rest.to_owned())),
        "http" => {
            let (port, path) = rest.split_once('-').unwrap_or((rest, "/"));
            Ok(Target::Http(socket(port)?, path.to_owned()))
        }
        _ => Err(wrong()),
    }
}

async fn run(_: &Session<'_>, matches: &ArgMatches) -> anyhow::Result<u8> {
    let texts = words(matches, "targets");
    let targets = texts.iter().map(|text| parse_target(text)).collect::<Result<Vec<_>, _>>();
    let targets = targets.map_err(Usage)?;
    // At most 16 at a time, so that the latencies are those of the network.
    let mut failed = false;
    for (texts, targets) in texts.chunks(16).zip(targets.chunks(16)) {
        let results = futures::future::join_all(targets.iter().map(probe)).await;
        for (text, result) in texts.iter().zip(results) {
            let (milliseconds, error) = match result {
                Ok(taken) => (Some((taken * 1000.0).round() / 1000.0), String::new()),
                Err(error) => (None, format!("{error:#}")),
            };
            failed |= milliseconds.is_none();
            let outcome = Outcome { target: text.clone(), milliseconds, error };
            println!("{}", serde_json::to_string(&outcome)?);
        }
    }
    Ok(if failed { FOUND } else { 0 })
}

/// Milliseconds until the answer.
async fn probe(target: &Target) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let answer = async {
        match target {
            Target::Icmp(ip) => return ping(*ip).await,
            Target::Tcp(socket) => {
                TcpStream::connect(socket).await?;
            }
            Target::Udp(socket) => exchange(*socket, b"health check").await.map(|_| ())?,
            Target::Dns(server, name) => {
                let answer = exchange(SocketAddr::new(*server, 53), &query(name)).await?;
                check_answer(&answer, name)?;
            }
            Target::Http(socket, path) => get(*socket, path).await?,
        }
        Ok(begun.elapsed().as_secs_f64() * 1000.0)
    };
    tokio::time::timeout(PATIENCE, answer).await.context("no answer after 3 s")?
}

/// ping(8) measures in the kernel, and needs no raw socket of ours.
async fn ping(ip: IpAddr) -> anyhow::Result<f64> {
    let mut command = tokio::process::Command::new("ping");
    command.args(["-n", "-c", "1", "-W", "2", &ip.to_string()]).kill_on_drop(true);
    let output = command.output().await.context("run ping")?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_ping(&text).with_context(|| format!("no echo from {ip}"))
}

fn parse_ping(text: &str) -> Option<f64> {
    let (_, rest) = text.split_once("time=")?;
    rest.split(' ').next()?.parse().ok()
}

async fn exchange(with: SocketAddr, message: &[u8]) -> anyhow::Result<Vec<u8>> {
    let any: SocketAddr =
        if with.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(with).await?;
    socket.send(message).await?;
    let mut answer = vec![0; 4096];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

/// A query for A records (RFC 1035, section 4).
fn query(name: &str) -> Vec<u8> {
    let mut message = vec![0x4b, 0x4f, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let bytes = label.as_bytes().get(..63.min(label.len())).unwrap_or_default();
        message.push(u8::try_from(bytes.len()).unwrap_or_default());
        message.extend_from_slice(bytes);
    }
    // Root, type A, class IN.
    message.extend([0, 0, 1, 0, 1]);
    message
}

fn check_answer(answer: &[u8], name: &str) -> anyhow::Result<()> {
    match answer {
        [0x4b, 0x4f, _, flags, ..] if flags & 0x0f == 0 => Ok(()),
        [0x4b, 0x4f, _, flags, ..] => {
            anyhow::bail!("{name}: the server answers with code {}", flags & 0x0f)
        }
        _ => anyhow::bail!("{name}: not an answer of DNS"),
    }
}

async fn get(from: SocketAddr, path: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(from).await?;
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {}\r\nConnection: close\r\n\r\n", from.ip());
    stream.write_all(request.as_bytes()).await?;
    let mut head = vec![0; 64];
    let length = stream.read(&mut head).await?;
    let head = String::from_utf8_lossy(head.get(..length).unwrap_or_default()).into_owned();
    let code = head.split(' ').nth(1).unwrap_or_default();
    anyhow::ensure!(code == "200", "HTTP {code}");
    Ok(())
}

/// Outcomes out of the lines that a probe printed.
pub fn parse_outcomes(text: &str) -> Vec<Outcome> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        assert_eq!(parse_target("icmp-10.0.0.1"), Ok(Target::Icmp([10, 0, 0, 1].into())));
        assert_eq!(parse_target("tcp-10.0.0.1-80"), Ok(Target::Tcp(([10, 0, 0, 1], 80).into())));
        assert_eq!(
            parse_target("udp-fd00::1-53"),
            Ok(Target::Udp("[fd00::1]:53".parse().expect("socket")))
        );
        let name = "my-svc.default.svc.cluster.local";
        let dns = format!("dns-10.0.0.1-{name}");
        assert_eq!(parse_target(&dns), Ok(Target::Dns([10, 0, 0, 1].into(), name.into())));
        for wrong in ["icmp", "tcp-10.0.0.1", "tcp-x-80", "sctp-10.0.0.1-80", "dns-10.0.0.1"] {
            assert!(parse_target(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn messages() {
        let message = query("a.bc");
        assert_eq!(message.get(12..), Some(&[1, b'a', 2, b'b', b'c', 0, 0, 1, 0, 1][..]));
        assert!(check_answer(&[0x4b, 0x4f, 0x81, 0x80], "x").is_ok());
        assert!(check_answer(&[0x4b, 0x4f, 0x81, 0x83], "x").is_err());
        assert_eq!(parse_ping("64 bytes from 1: icmp_seq=1 ttl=64 time=0.123 ms"), Some(0.123));
        assert_eq!(parse_ping("100% packet loss"), None);
    }
}
