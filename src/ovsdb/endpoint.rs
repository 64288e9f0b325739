//! Where a server listens, in the syntax of ovsdb(7), section "Connection Methods".

use std::{fmt, path::PathBuf, str::FromStr};

/// Port of a `tcp:` or `ssl:` endpoint that names none.
const DEFAULT_PORT: u16 = 6640;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `unix:/run/ovn/ovnnb_db.sock`
    Unix(PathBuf),
    /// `tcp:10.0.0.1:6641`, `tcp:[fd00::1]:6641`, `tcp:[10.0.0.1]:6641`
    Tcp { host: String, port: u16 },
    /// `ssl:10.0.0.1:6641` and the like
    Ssl { host: String, port: u16 },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an OVSDB endpoint: expected unix:FILE, tcp:HOST:PORT or ssl:HOST:PORT")]
pub struct BadEndpoint(pub String);

impl Endpoint {
    /// Reads a list separated by commas (`--ovn-nb-addr`).
    pub fn parse_list(text: &str) -> Result<Vec<Self>, BadEndpoint> {
        text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::parse).collect()
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let bad = || BadEndpoint(text.to_owned());
        let (method, rest) = text.split_once(':').ok_or_else(bad)?;
        if rest.is_empty() {
            return Err(bad());
        }
        match method {
            "unix" => Ok(Endpoint::Unix(rest.into())),
            "tcp" | "ssl" => {
                let (host, port) = split_host(rest).ok_or_else(bad)?;
                Ok(if method == "tcp" {
                    Endpoint::Tcp { host, port }
                } else {
                    Endpoint::Ssl { host, port }
                })
            }
            _ => Err(bad()),
        }
    }
}

/// `HOST`, `HOST:PORT`, `[HOST]`, `[HOST]:PORT`; an address with more than one colon is IPv6.
fn split_host(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']')?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
            (host, port)
        }
        None => match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|p| *p != 0)?,
        None => DEFAULT_PORT,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, host, port) = match self {
            Endpoint::Unix(path) => return write!(f, "unix:{}", path.display()),
            Endpoint::Tcp { host, port } => ("tcp", host, port),
            Endpoint::Ssl { host, port } => ("ssl", host, port),
        };
        write!(f, "{method}:[{host}]:{port}")
    }
}
