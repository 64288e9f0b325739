//! Configuration of the ovn-central container from its environment, and the files it uses.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use crate::{net::parse_ip, ovsdb::tls::TlsFiles};

/// A setting that cannot be used: names the variable, its value and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{variable}={value:?} is not {expected}")]
    Value { variable: &'static str, value: String, expected: &'static str },
    #[error("{variable} is not set; {remedy}")]
    Missing { variable: &'static str, remedy: &'static str },
    #[error("the raft address {address} is not one of NODE_IPS={members}; set DB_CLUSTER_ADDR")]
    NotAMember { address: IpAddr, members: String },
}

/// Reads a variable; an empty value counts as unset.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Plain,
    /// TLS with the files of [`Paths::tls`].
    Tls,
}

impl Transport {
    /// `tcp` or `ssl`, as in `tcp:[10.0.0.1]:6641`.
    pub fn scheme(self) -> &'static str {
        match self {
            Transport::Plain => "tcp",
            Transport::Tls => "ssl",
        }
    }

    /// `scheme:[ip]:port`; OVS accepts brackets around both families.
    pub fn address(self, ip: IpAddr, port: u16) -> String {
        format!("{}:[{ip}]:{port}", self.scheme())
    }

    /// `pscheme:port:[ip]`.
    pub fn listener(self, ip: IpAddr, port: u16) -> String {
        format!("p{}:{port}:[{ip}]", self.scheme())
    }
}

/// One of the two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    Northbound,
    Southbound,
}

impl Role {
    pub const BOTH: [Role; 2] = [Role::Northbound, Role::Southbound];

    /// Name of the database in the schema.
    pub fn database(self) -> &'static str {
        match self {
            Role::Northbound => "OVN_Northbound",
            Role::Southbound => "OVN_Southbound",
        }
    }

    /// `nb` or `sb`.
    pub fn short(self) -> &'static str {
        match self {
            Role::Northbound => "nb",
            Role::Southbound => "sb",
        }
    }

    /// Stem of file names: `ovnnb_db`, `ovnsb_db`.
    pub fn stem(self) -> String {
        format!("ovn{}_db", self.short())
    }
}

/// Directories; all of them are below [`Paths::rooted`]'s root in tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    pub databases: PathBuf,
    pub run: PathBuf,
    pub logs: PathBuf,
    pub tls: PathBuf,
    /// Holds `ovn-nb.ovsschema` and `ovn-sb.ovsschema`.
    pub schemas: PathBuf,
}

impl Paths {
    /// The paths of the image.
    pub fn system() -> Self {
        Self::rooted("")
    }

    /// The paths of the image below a directory of its own; schemas stay those of the image.
    pub fn rooted(root: &str) -> Self {
        let path = |p: &str| PathBuf::from(format!("{root}{p}"));
        Paths {
            databases: path("/etc/ovn"),
            run: path("/var/run/ovn"),
            logs: path("/var/log/ovn"),
            tls: path("/var/run/tls"),
            schemas: PathBuf::from("/usr/share/ovn"),
        }
    }

    pub fn tls_files(&self) -> TlsFiles {
        TlsFiles {
            key: self.tls.join("key"),
            certificate: self.tls.join("cert"),
            authority: self.tls.join("cacert"),
        }
    }

    pub fn database(&self, role: Role) -> PathBuf {
        self.databases.join(format!("{}.db", role.stem()))
    }

    /// Backup of the raft header.
    pub fn header(&self, role: Role) -> PathBuf {
        self.databases.join(format!("{}.hdr", role.stem()))
    }

    pub fn schema(&self, role: Role) -> PathBuf {
        self.schemas.join(format!("ovn-{}.ovsschema", role.short()))
    }

    pub fn control(&self, role: Role) -> PathBuf {
        self.run.join(format!("{}.ctl", role.stem()))
    }

    pub fn socket(&self, role: Role) -> PathBuf {
        self.run.join(format!("{}.sock", role.stem()))
    }

    pub fn pidfile(&self, role: Role) -> PathBuf {
        self.run.join(format!("{}.pid", role.stem()))
    }

    /// Listeners and databases of the server, in ovsdb-server's `--config-file` form.
    pub fn server_config(&self, role: Role) -> PathBuf {
        self.run.join(format!("{}.json", role.stem()))
    }
}

/// Client and raft port of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub client: u16,
    pub raft: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CentralConfig {
    /// Raft members in the order of NODE_IPS; empty means a standalone server.
    pub members: Vec<IpAddr>,
    /// Our raft address; the pod address when standalone.
    pub local: IpAddr,
    /// Addresses that the servers listen on for clients.
    pub listen: Vec<IpAddr>,
    pub northbound: Ports,
    pub southbound: Ports,
    pub transport: Transport,
    /// Inactivity probe of client connections; milliseconds.
    pub probe_interval: u64,
    /// Probe of northd towards the databases; milliseconds.
    pub northd_probe_interval: u64,
    pub northd_threads: u32,
    pub version_compatibility: Option<String>,
    pub leader_check: Duration,
    pub compaction: Compaction,
    /// Raft election timer, milliseconds. Stock starts at 1000, which loaded hosts miss.
    pub election_timer: u64,
}

/// Whether the leader checker compacts the databases in every round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compaction {
    Server,
    EveryRound,
}

pub const ELECTION_TIMER: u64 = 5000;

impl CentralConfig {
    pub fn parse(env: Environment) -> Result<Self, ConfigError> {
        let members = addresses("NODE_IPS", env)?;
        let pod_ips = addresses("POD_IPS", env)?;
        let pod_ip = addresses("POD_IP", env)?.first().copied().or(pod_ips.first().copied());
        let local = addresses("DB_CLUSTER_ADDR", env)?.first().copied().or(pod_ip);
        let local = local.ok_or(ConfigError::Missing {
            variable: "POD_IP",
            remedy: "set it from status.podIP in the manifest",
        })?;
        if !members.is_empty() && !members.contains(&local) {
            let members = members.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            return Err(ConfigError::NotAMember { address: local, members });
        }
        let listen = match flag("ENABLE_BIND_LOCAL_IP", env)? {
            true if pod_ips.is_empty() => vec![local],
            true => pod_ips,
            false => vec![IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)],
        };
        let tls = flag("ENABLE_SSL", env)?;
        let compact = flag("ENABLE_COMPACT", env)?;
        Ok(CentralConfig {
            members,
            local,
            listen,
            northbound: ports(["NB_PORT", "NB_CLUSTER_PORT"], [6641, 6643], env)?,
            southbound: ports(["SB_PORT", "SB_CLUSTER_PORT"], [6642, 6644], env)?,
            transport: if tls { Transport::Tls } else { Transport::Plain },
            probe_interval: number("PROBE_INTERVAL", 180_000, env)?,
            northd_probe_interval: number("OVN_NORTHD_PROBE_INTERVAL", 5000, env)?,
            northd_threads: number("OVN_NORTHD_N_THREADS", 1, env)?,
            version_compatibility: env("OVN_VERSION_COMPATIBILITY"),
            leader_check: Duration::from_secs(number("OVN_LEADER_PROBE_INTERVAL", 5, env)?),
            compaction: if compact { Compaction::EveryRound } else { Compaction::Server },
            election_timer: ELECTION_TIMER,
        })
    }

    pub fn ports(&self, role: Role) -> Ports {
        match role {
            Role::Northbound => self.northbound,
            Role::Southbound => self.southbound,
        }
    }

    pub fn is_clustered(&self) -> bool {
        !self.members.is_empty()
    }

    /// Every member but us.
    pub fn peers(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.members.iter().copied().filter(|ip| *ip != self.local)
    }

    pub fn is_first(&self) -> bool {
        self.members.first() == Some(&self.local)
    }

    /// Our address in raft (`tcp:[10.0.0.1]:6643`).
    pub fn raft_address(&self, role: Role) -> String {
        self.transport.address(self.local, self.ports(role).raft)
    }

    /// Raft addresses of the other members.
    pub fn raft_peers(&self, role: Role) -> Vec<String> {
        self.peers().map(|ip| self.transport.address(ip, self.ports(role).raft)).collect()
    }

    /// Where northd finds a database: all members, or the local socket.
    pub fn client_addresses(&self, role: Role, paths: &Paths) -> String {
        if self.members.is_empty() {
            return format!("unix:{}", paths.socket(role).display());
        }
        let port = self.ports(role).client;
        let all: Vec<String> =
            self.members.iter().map(|ip| self.transport.address(*ip, port)).collect();
        all.join(",")
    }
}

/// Parses a comma separated address list; blanks are ignored.
pub fn addresses(variable: &'static str, env: Environment) -> Result<Vec<IpAddr>, ConfigError> {
    let Some(text) = env(variable) else { return Ok(Vec::new()) };
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            parse_ip(part.trim_matches(['[', ']'])).map_err(|_| ConfigError::Value {
                variable,
                value: text.clone(),
                expected: "a comma separated list of IP addresses",
            })
        })
        .collect()
}

/// A boolean variable; unset is false.
pub fn flag(variable: &'static str, env: Environment) -> Result<bool, ConfigError> {
    match env(variable).as_deref() {
        None | Some("false" | "False" | "FALSE" | "0") => Ok(false),
        Some("true" | "True" | "TRUE" | "1") => Ok(true),
        Some(value) => {
            Err(ConfigError::Value { variable, value: value.to_owned(), expected: "true or false" })
        }
    }
}

/// A numeric variable with a default.
pub fn number<N: std::str::FromStr>(
    variable: &'static str,
    default: N,
    env: Environment,
) -> Result<N, ConfigError> {
    match env(variable) {
        None => Ok(default),
        Some(value) => value.trim().parse().map_err(|_| ConfigError::Value {
            variable,
            value,
            expected: "a whole number in range",
        }),
    }
}

fn ports(
    variables: [&'static str; 2],
    defaults: [u16; 2],
    env: Environment,
) -> Result<Ports, ConfigError> {
    Ok(Ports {
        client: number(variables[0], defaults[0], env)?,
        raft: number(variables[1], defaults[1], env)?,
    })
}

/// The variables of this process; empty ones count as unset.
pub fn process_environment(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<CentralConfig, ConfigError> {
        CentralConfig::parse(&|name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    fn standalone_when_node_ips_is_empty() {
        let config = parse(&[("POD_IP", "10.0.0.1")]).unwrap();
        assert!(!config.is_clustered());
        assert_eq!(config.listen, vec![IpAddr::from(std::net::Ipv6Addr::UNSPECIFIED)]);
        assert_eq!(config.northbound, Ports { client: 6641, raft: 6643 });
        assert_eq!(config.probe_interval, 180_000);
    }

    #[test]
    fn raft_member_list_and_addresses() {
        let config = parse(&[
            ("NODE_IPS", "fd00::1, fd00::2,fd00::3"),
            ("POD_IP", "fd00::2"),
            ("POD_IPS", "10.0.0.2,fd00::2"),
            ("ENABLE_BIND_LOCAL_IP", "true"),
            ("ENABLE_SSL", "true"),
        ])
        .unwrap();
        assert!(!config.is_first());
        assert_eq!(config.raft_address(Role::Southbound), "ssl:[fd00::2]:6644");
        assert_eq!(
            config.raft_peers(Role::Northbound),
            ["ssl:[fd00::1]:6643", "ssl:[fd00::3]:6643"]
        );
        assert_eq!(config.listen.len(), 2);
        assert_eq!(
            config.client_addresses(Role::Northbound, &Paths::system()),
            "ssl:[fd00::1]:6641,ssl:[fd00::2]:6641,ssl:[fd00::3]:6641"
        );
    }

    #[test]
    fn raft_address_must_be_a_member() {
        let error = parse(&[("NODE_IPS", "10.0.0.1"), ("POD_IP", "10.0.0.9")]).unwrap_err();
        assert!(error.to_string().contains("DB_CLUSTER_ADDR"), "{error}");
        assert!(parse(&[("NODE_IPS", "10.0.0.1"), ("POD_IP", "x")]).is_err());
        assert!(parse(&[("POD_IP", "10.0.0.1"), ("PROBE_INTERVAL", "soon")]).is_err());
    }

    #[test]
    fn address_spelling_does_not_matter() {
        let config = parse(&[("NODE_IPS", "FD00:0::1"), ("POD_IP", "fd00::1")]).unwrap();
        assert!(config.is_first());
    }
}
