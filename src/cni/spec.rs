//! Versions, errors and identifiers of the CNI specification.
//!
//! Source: https://github.com/containernetworking/cni/blob/main/SPEC.md, sections 2 and "Error".

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A `cniVersion` that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V010,
    V020,
    V030,
    V031,
    V040,
    V100,
    V110,
}

impl Version {
    pub const ALL: [Version; 7] = [
        Version::V010,
        Version::V020,
        Version::V030,
        Version::V031,
        Version::V040,
        Version::V100,
        Version::V110,
    ];

    /// Version of answers to a request whose own version is unknown or unreadable.
    pub const LATEST: Version = Version::V110;

    pub fn text(self) -> &'static str {
        match self {
            Version::V010 => "0.1.0",
            Version::V020 => "0.2.0",
            Version::V030 => "0.3.0",
            Version::V031 => "0.3.1",
            Version::V040 => "0.4.0",
            Version::V100 => "1.0.0",
            Version::V110 => "1.1.0",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for Version {
    type Err = CniError;

    /// An absent version means 0.1.0, the only one that had no such field.
    fn from_str(text: &str) -> Result<Self, CniError> {
        if text.is_empty() {
            return Ok(Version::V010);
        }
        Version::ALL.into_iter().find(|v| v.text() == text).ok_or_else(|| {
            let known: Vec<&str> = Version::ALL.iter().map(|v| v.text()).collect();
            CniError::new(Code::IncompatibleVersion, "incompatible CNI versions").details(format!(
                "config is {text:?}, plugin supports {}; set cniVersion to one of them",
                known.join(" ")
            ))
        })
    }
}

/// `CNI_COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Command {
    pub const ALL: [Command; 6] = [
        Command::Add,
        Command::Del,
        Command::Check,
        Command::Gc,
        Command::Status,
        Command::Version,
    ];

    pub fn text(self) -> &'static str {
        match self {
            Command::Add => "ADD",
            Command::Del => "DEL",
            Command::Check => "CHECK",
            Command::Gc => "GC",
            Command::Status => "STATUS",
            Command::Version => "VERSION",
        }
    }

    /// The first version that knows the command.
    pub fn since(self) -> Version {
        match self {
            Command::Add | Command::Del | Command::Version => Version::V010,
            Command::Check => Version::V040,
            Command::Gc | Command::Status => Version::V110,
        }
    }
}

impl FromStr for Command {
    type Err = CniError;

    fn from_str(text: &str) -> Result<Self, CniError> {
        Command::ALL.into_iter().find(|c| c.text() == text).ok_or_else(|| {
            CniError::new(Code::InvalidEnvironment, format!("unknown CNI_COMMAND: {text:?}"))
        })
    }
}

/// Error codes: the specification's, and 999 for whatever has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    IncompatibleVersion,
    /// `CNI_*` variable missing or malformed.
    InvalidEnvironment,
    Io,
    /// stdin is not the JSON of a network configuration.
    Decoding,
    /// The configuration or `CNI_ARGS` lacks something or contradicts itself.
    InvalidConfig,
    /// The daemon could not be reached or refused. The specification calls it "try again later".
    Rpc,
    /// STATUS: ADD cannot be served now.
    NotAvailable,
    Internal,
}

impl Code {
    pub fn number(self) -> u32 {
        match self {
            Code::IncompatibleVersion => 1,
            Code::InvalidEnvironment => 4,
            Code::Io => 5,
            Code::Decoding => 6,
            Code::InvalidConfig => 7,
            Code::Rpc => 11,
            Code::NotAvailable => 50,
            Code::Internal => 999,
        }
    }
}

/// The error object that a plugin prints.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{msg}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct CniError {
    pub code: Code,
    pub msg: String,
    pub details: String,
}

impl CniError {
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        CniError { code, msg: msg.into(), details: String::new() }
    }

    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// `{cniVersion, code, msg, details}`; empty details are left out.
    pub fn json(&self, version: Version) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Printed<'a> {
            cni_version: &'static str,
            code: u32,
            msg: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details: &'a str,
        }
        let printed = Printed {
            cni_version: version.text(),
            code: self.code.number(),
            msg: &self.msg,
            details: &self.details,
        };
        serde_json::to_string(&printed).unwrap_or_default()
    }
}

/// The answer to VERSION.
pub fn version_json(version: Version) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Versions {
        cni_version: &'static str,
        supported_versions: Vec<&'static str>,
    }
    let versions = Versions {
        cni_version: version.text(),
        supported_versions: Version::ALL.iter().map(|v| v.text()).collect(),
    };
    serde_json::to_string(&versions).unwrap_or_default()
}

/// Resolver settings of a network configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// Specification: alphanumeric first, then also `_ . -`.
pub fn validate_container_id(id: &str) -> Result<(), CniError> {
    let mut bytes = id.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        return Ok(());
    }
    Err(CniError::new(Code::InvalidEnvironment, "invalid container ID")
        .details(format!("CNI_CONTAINERID is {id:?}; letters, digits, '_', '.' and '-' only")))
}

/// A Linux interface name: 1 to 15 bytes, no blank, `/` or `:`, not `.` or `..`.
pub fn validate_interface_name(name: &str) -> Result<(), CniError> {
    let bad = |why: &str| {
        Err(CniError::new(Code::InvalidEnvironment, "invalid interface name")
            .details(format!("CNI_IFNAME is {name:?}: {why}")))
    };
    if name.is_empty() || name.len() > 15 {
        return bad("an interface name has 1 to 15 bytes");
    }
    if name == "." || name == ".." {
        return bad("'.' and '..' are not interface names");
    }
    if name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        return bad("'/', ':' and blanks are not allowed");
    }
    Ok(())
}
