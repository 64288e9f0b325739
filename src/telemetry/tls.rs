//! TLS of the metrics port: a certificate made in memory, versions and suites as the flags say.

use std::sync::Arc;

use rustls::{
    ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    version::{TLS12, TLS13},
};

/// Versions and cipher suites a server offers.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsPolicy {
    versions: Vec<&'static SupportedProtocolVersion>,
    suites: Vec<SupportedCipherSuite>,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("TLS settings: {0}")]
    Settings(#[from] rustls::Error),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    /// 1.0 and 1.1, which are insecure and not offered.
    Old,
    V12,
    V13,
}

impl TlsPolicy {
    /// `min` and `max`: `TLS10`..`TLS13`, `1.2`, `TLS 1.2`, `auto`, `default` or empty. `suites`:
    /// names of Go's crypto/tls; empty = all. TLS 1.3 suites are always offered, as in Go.
    pub fn parse(min: &str, max: &str, suites: &[String]) -> Result<Self, String> {
        let lowest = parse_version("tls-min-version", min)?.unwrap_or(Version::V12);
        let highest = parse_version("tls-max-version", max)?.unwrap_or(Version::V13);
        if highest == Version::Old {
            return Err(format!("--tls-max-version={max}: TLS 1.2 is the lowest version offered"));
        }
        if lowest > highest {
            return Err(format!("--tls-min-version={min} is above --tls-max-version={max}"));
        }
        let offered = [(Version::V12, &TLS12), (Version::V13, &TLS13)];
        let versions = offered.iter().filter(|(v, _)| (lowest..=highest).contains(v));
        Ok(TlsPolicy {
            versions: versions.map(|(_, version)| *version).collect(),
            suites: parse_suites(suites)?,
        })
    }

    /// A server configuration with a fresh self-signed certificate.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider =
            CryptoProvider { cipher_suites: self.suites.clone(), ..ring::default_provider() };
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&self.versions)?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::from(key))?;
        Ok(Arc::new(config))
    }
}

fn parse_version(flag: &str, text: &str) -> Result<Option<Version>, String> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    match (text.to_ascii_lowercase().as_str(), digits.as_str()) {
        ("" | "auto" | "default", _) => Ok(None),
        (_, "10" | "11") => Ok(Some(Version::Old)),
        (_, "12") => Ok(Some(Version::V12)),
        (_, "13") => Ok(Some(Version::V13)),
        _ => Err(format!("--{flag}={text}: write TLS12 or TLS13")),
    }
}

fn parse_suites(names: &[String]) -> Result<Vec<SupportedCipherSuite>, String> {
    let all = ring::ALL_CIPHER_SUITES;
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    let go_name =
        |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1);
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|s| go_name(s) == **name)) {
        let known: Vec<String> = all.iter().map(go_name).collect();
        return Err(format!("--tls-cipher-suites={unknown}: known are {}", known.join(", ")));
    }
    let chosen = |s: &&SupportedCipherSuite| s.tls13().is_some() || names.contains(&go_name(s));
    Ok(all.iter().filter(chosen).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_suites_as_go_names_them() {
        for (min, max, good) in [
            ("", "", true),
            ("TLS12", "TLS13", true),
            ("TLS 1.2", "1.3", true),
            ("TLS10", "auto", true),
            ("TLS13", "TLS12", false),
            ("", "TLS11", false),
            ("SSL3", "", false),
        ] {
            assert_eq!(TlsPolicy::parse(min, max, &[]).is_ok(), good, "{min} {max}");
        }
        let suite = |name: &str| TlsPolicy::parse("", "", &[name.to_owned()]);
        let policy = suite("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256").unwrap();
        assert_eq!(policy.suites.len(), 4, "one of TLS 1.2 and the three of TLS 1.3");
        assert!(suite("TLS_RSA_WITH_RC4_128_SHA").unwrap_err().contains("known are TLS_"));
        policy.server_config().unwrap();
    }
}
