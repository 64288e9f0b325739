//! Names to addresses: RFC 1035 over UDP, with the search list of resolv.conf(5).
//!
//! The program is linked statically, and the C library's resolver would load shared objects that
//! no image has; a probe also wants to know exactly what it measured.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{net::UdpSocket, time::timeout};

use crate::net::{Family, parse_ip};

/// For one answer of one server; a lookup asks every server twice.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    #[error("{0}: no nameserver in /etc/resolv.conf")]
    NoServer(String),
    #[error("{0}: not a host name")]
    BadName(String),
    #[error("{name}: {server} did not answer")]
    Silent { name: String, server: IpAddr },
    #[error("{name}: {server}: {reason}")]
    Broken { name: String, server: IpAddr, reason: String },
    #[error("{name}: no such host (code {code})")]
    NoHost { name: String, code: u8 },
}

/// What resolv.conf(5) says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolver {
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub ndots: usize,
    pub port: u16,
}

impl Resolver {
    pub fn parse(text: &str) -> Self {
        let mut resolver = Resolver { ndots: 1, port: 53, ..Resolver::default() };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|w| w.split('%').next());
                    resolver.servers.extend(address.and_then(|w| parse_ip(w).ok()));
                }
                Some("search" | "domain") => {
                    resolver.search = words.map(|w| w.trim_end_matches('.').to_owned()).collect();
                }
                Some("options") => {
                    let ndots =
                        words.filter_map(|w| w.strip_prefix("ndots:")?.parse().ok()).next_back();
                    resolver.ndots = ndots.unwrap_or(resolver.ndots);
                }
                _ => {}
            }
        }
        resolver
    }

    /// The names to ask for, in order.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let dots = name.matches('.').count();
        let mut names: Vec<String> = searched.collect();
        names.insert(if dots >= self.ndots { 0 } else { names.len() }, name.to_owned());
        names
    }

    /// Addresses of these families. The first candidate that has one decides.
    pub async fn resolve(&self, name: &str, families: &[Family]) -> Result<Vec<IpAddr>, DnsError> {
        let mut last = DnsError::NoServer(name.to_owned());
        for candidate in self.candidates(name) {
            let mut found = Vec::new();
            for family in families {
                match self.ask(&candidate, *family).await {
                    Ok(addresses) => found.extend(addresses),
                    Err(error @ DnsError::NoHost { .. }) => last = error,
                    // A server that is silent for one name is silent for the others.
                    Err(error) => return Err(error),
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
            if !matches!(last, DnsError::NoHost { .. }) {
                last = DnsError::NoHost { name: candidate, code: 0 };
            }
        }
        Err(last)
    }

    async fn ask(&self, name: &str, family: Family) -> Result<Vec<IpAddr>, DnsError> {
        let mut last = DnsError::NoServer(name.to_owned());
        for _ in 0..ATTEMPTS {
            for server in &self.servers {
                let address = SocketAddr::new(*server, self.port);
                match timeout(PATIENCE, exchange(address, name, family)).await {
                    Ok(Ok(answer)) if answer.code == 0 => return Ok(answer.addresses),
                    Ok(Ok(Answer { code: 3, .. })) => {
                        return Err(DnsError::NoHost { name: name.to_owned(), code: 3 });
                    }
                    Ok(Ok(answer)) => {
                        last = DnsError::NoHost { name: name.to_owned(), code: answer.code };
                    }
                    Ok(Err(error)) => last = error,
                    Err(_) => {
                        last = DnsError::Silent { name: name.to_owned(), server: *server };
                    }
                }
            }
        }
        Err(last)
    }
}

async fn exchange(server: SocketAddr, name: &str, family: Family) -> Result<Answer, DnsError> {
    let broken = |error: std::io::Error| DnsError::Broken {
        name: name.to_owned(),
        server: server.ip(),
        reason: error.to_string(),
    };
    let id = fresh_id();
    let query = encode_query(id, name, family).ok_or_else(|| DnsError::BadName(name.to_owned()))?;
    let local: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((local, 0)).await.map_err(broken)?;
    socket.connect(server).await.map_err(broken)?;
    socket.send(&query).await.map_err(broken)?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(broken)?;
        // What is no answer to this question is somebody else's.
        if let Some(answer) = buffer.get(..length).and_then(|message| parse_answer(message, id)) {
            return Ok(answer);
        }
    }
}

/// Not to be guessed: a blind forger has to hit it.
fn fresh_id() -> u16 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() as u16
}

const CLASS_IN: u16 = 1;
const RECURSION_DESIRED: u16 = 0x0100;

fn record_type(family: Family) -> u16 {
    match family {
        Family::V4 => 1,
        Family::V6 => 28,
    }
}

/// A question; `None` for a name that DNS cannot carry.
pub fn encode_query(id: u16, name: &str, family: Family) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(18 + name.len());
    for word in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    let name = name.trim_end_matches('.');
    if name.is_empty() || name.len() > 253 {
        return None;
    }
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|l| (1..=63).contains(l))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(record_type(family).to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    Some(message)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// RCODE; 0 no error, 3 no such name.
    pub code: u8,
    /// A and AAAA records. Those of a truncated message are good too.
    pub addresses: Vec<IpAddr>,
}

/// `None` for everything that is not an answer to question `id`.
pub fn parse_answer(message: &[u8], id: u16) -> Option<Answer> {
    let word = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let flags = word(2)?;
    if word(0)? != id || flags & 0x8000 == 0 {
        return None;
    }
    let mut at = 12;
    for _ in 0..word(4)? {
        at = skip_name(message, at)? + 4;
    }
    let mut addresses = Vec::new();
    for _ in 0..word(6)? {
        let Some(record) = skip_name(message, at) else { break };
        let (Some(kind), Some(length)) = (word(record), word(record + 8)) else { break };
        let data = record + 10;
        let end = data + usize::from(length);
        let Some(bytes) = message.get(data..end) else { break };
        match kind {
            1 => addresses.extend(<[u8; 4]>::try_from(bytes).ok().map(IpAddr::from)),
            28 => addresses.extend(<[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)),
            _ => {}
        }
        at = end;
    }
    Some(Answer { code: (flags & 0xf) as u8, addresses })
}

/// Offset behind a name; a compression pointer ends it.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = *message.get(at)?;
        match length {
            0 => return Some(at + 1),
            0xc0.. => return Some(at + 2),
            1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}
