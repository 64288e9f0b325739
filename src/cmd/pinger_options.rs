//! Flags and environment of kube-ovn-pinger.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::ArgMatches;

use super::{
    Usage,
    flags::{self, Flag, Given, Support},
    options::{self, Environment, wrong},
};
use crate::{
    net::parse_ip,
    ovsdb::{endpoint::Endpoint, tls::TlsFiles},
    pinger::{local::Local, target},
    telemetry::{Exposure, LogOptions, Serving, Transport},
};

const NOT_NEEDED: Support = Support::Ignored("the system id is read from the database");
const BY_INTERVAL: Support = Support::Ignored("Open vSwitch is read once per --interval");

/// Files of the local Open vSwitch; the monitor has them too.
pub const OVS_FILES: &[Flag] = &[
    Flag::number("ovs.timeout", "2", 3600, "seconds that a local request may take"),
    Flag::text("system.run.dir", "/var/run/openvswitch", "Open vSwitch's run folder"),
    Flag::text("database.vswitch.name", "Open_vSwitch", "name of the local database"),
    Flag::text("database.vswitch.socket.remote", "unix:/var/run/openvswitch/db.sock", "its socket"),
    Flag::text("database.vswitch.file.data.path", "/etc/openvswitch/conf.db", "its file"),
    Flag::text(
        "database.vswitch.file.log.path",
        "/var/log/openvswitch/ovsdb-server.log",
        "log of its server",
    ),
    Flag::text(
        "database.vswitch.file.pid.path",
        "/var/run/openvswitch/ovsdb-server.pid",
        "pid file of its server",
    ),
    Flag::text("database.vswitch.file.system.id.path", "/etc/openvswitch/system-id.conf", "")
        .support(NOT_NEEDED),
    Flag::text(
        "service.vswitchd.file.log.path",
        "/var/log/openvswitch/ovs-vswitchd.log",
        "log of ovs-vswitchd",
    ),
    Flag::text(
        "service.vswitchd.file.pid.path",
        "/var/run/openvswitch/ovs-vswitchd.pid",
        "pid file of ovs-vswitchd",
    ),
];

/// Every other flag of kube-ovn-pinger but those of klog.
pub const FLAGS: &[Flag] = &[
    Flag::number("port", "8080", 65_535, "port of metrics and health"),
    Flag::text("mode", "server", "server: again and again; job: once"),
    Flag::number("interval", "5", 86_400, "seconds between two rounds"),
    Flag::number("exit-code", "0", 255, "exit code when anything failed"),
    Flag::text("ds-namespace", "kube-system", "namespace of the pinger's DaemonSet"),
    Flag::text("ds-name", "kube-ovn-pinger", "the DaemonSet whose pods are pinged"),
    Flag::text("internal-dns", "kubernetes.default", "name to resolve"),
    Flag::text("external-dns", "", "name outside the cluster to resolve; empty = none"),
    Flag::text("external-address", "", "addresses outside to ping, comma list; empty = none"),
    Flag::text("target-ip-ports", "", "ports to connect to: tcp-10.0.0.1-80,udp-10.0.0.2-53"),
    Flag::text("network-mode", "kube-ovn", "anything else leaves Open vSwitch and OVN out"),
    Flag::switch("enable-metrics", "true", "serve /metrics"),
    Flag::switch("enable-verbose-conn-check", "false", "connect to the two ports of all peers too"),
    Flag::number("tcp-conn-check-port", "8100", 65_535, "accepts and closes"),
    Flag::number("udp-conn-check-port", "8101", 65_535, "answers `health check`"),
    Flag::number("ovs.poll-interval", "15", 86_400, "").support(BY_INTERVAL),
    Flag::text("service.ovncontroller.file.log.path", "/var/log/ovn/ovn-controller.log", "")
        .support(Support::Ignored("no metric is made of it")),
    Flag::text(
        "service.ovncontroller.file.pid.path",
        "/var/run/ovn/ovn-controller.pid",
        "pid file of ovn-controller",
    ),
    Flag::text("log-perm", "640", "permissions of the log file, octal"),
    Flag::text("kubeconfig", "", "path of a kubeconfig; empty = service account of the pod"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Server,
    Job,
}

/// Validated options of kube-ovn-pinger.
#[derive(Debug, Clone, PartialEq)]
pub struct PingerOptions {
    pub mode: Mode,
    pub interval: Duration,
    /// When anything failed.
    pub exit_code: u8,
    pub namespace: String,
    pub daemon_set: String,
    pub internal_dns: String,
    pub external_dns: String,
    pub external_addresses: Vec<IpAddr>,
    pub port_checks: Vec<target::PortCheck>,
    /// TCP and UDP port.
    pub peer_ports: Option<(u16, u16)>,
    pub local: Option<Local>,
    pub pod: String,
    pub pod_address: String,
    pub node: String,
    pub node_address: String,
    pub serving: Serving,
    pub kubeconfig: Option<PathBuf>,
    pub log: LogOptions,
    /// Lines to log once the log is up.
    pub notes: Vec<String>,
}

pub fn command() -> clap::Command {
    flags::build(&[FLAGS, OVS_FILES])
}

impl PingerOptions {
    pub fn parse(matches: &ArgMatches, env: &Environment) -> Result<Self, Usage> {
        let given = Given(matches);
        let mut notes = flags::check(&[FLAGS, OVS_FILES], matches)?;
        let (port_checks, skipped) = target::parse_port_checks(&given.list("target-ip-ports"));
        notes.extend(
            skipped.iter().map(|e| format!("--target-ip-ports: {e:?} is not tcp|udp-IP-PORT")),
        );
        let externals = given.list("external-address");
        let external_addresses = externals
            .iter()
            .map(|text| parse_ip(text).map_err(|e| wrong("external-address", text, e)))
            .collect::<Result<_, _>>()?;
        let ports = (given.small("tcp-conn-check-port"), given.small("udp-conn-check-port"));
        let of = |name: &str| env.get(name).unwrap_or_default().to_owned();
        Ok(PingerOptions {
            mode: match given.text("mode").as_str() {
                "server" => Mode::Server,
                "job" => Mode::Job,
                other => return Err(wrong("mode", other, "write server or job")),
            },
            interval: Duration::from_secs(given.small::<u64>("interval").max(1)),
            exit_code: given.small("exit-code"),
            namespace: given.text("ds-namespace"),
            daemon_set: given.text("ds-name"),
            internal_dns: given.text("internal-dns"),
            external_dns: given.text("external-dns"),
            external_addresses,
            port_checks,
            peer_ports: given.is_on("enable-verbose-conn-check").then_some(ports),
            local: match given.text("network-mode").as_str() {
                "kube-ovn" => Some(local(&given, env)?),
                _ => None,
            },
            pod: of("POD_NAME"),
            pod_address: of("POD_IP"),
            node: of("NODE_NAME"),
            node_address: of("HOST_IP"),
            serving: Serving {
                addresses: Vec::new(),
                port: given.small("port"),
                metrics: match given.is_on("enable-metrics") {
                    true => Exposure::Served,
                    // TRAP: upstream then listens nowhere, and its own probes kill the pod.
                    false => Exposure::Hidden,
                },
                transport: Transport::Plain,
            },
            kubeconfig: options::kubeconfig(&given),
            log: options::log_options(&given)?,
            notes,
        })
    }
}

fn local(given: &Given<'_>, env: &Environment) -> Result<Local, Usage> {
    let path = |flag: &str| PathBuf::from(given.text(flag));
    let remote = given.text("database.vswitch.socket.remote");
    let secure = env.is_true("ENABLE_SSL");
    Ok(Local {
        database: remote
            .parse()
            .map_err(|error| wrong("database.vswitch.socket.remote", &remote, error))?,
        database_name: given.text("database.vswitch.name"),
        database_file: path("database.vswitch.file.data.path"),
        database_log: path("database.vswitch.file.log.path"),
        database_pid: path("database.vswitch.file.pid.path"),
        vswitchd_log: path("service.vswitchd.file.log.path"),
        vswitchd_pid: path("service.vswitchd.file.pid.path"),
        controller_pid: path("service.ovncontroller.file.pid.path"),
        run_folder: given.text("system.run.dir"),
        timeout: Duration::from_secs(given.small::<u64>("ovs.timeout").max(1)),
        southbound: southbound(env)?,
        tls: secure.then(|| TlsFiles {
            key: "/var/run/tls/key".into(),
            certificate: "/var/run/tls/cert".into(),
            authority: "/var/run/tls/cacert".into(),
        }),
    })
}

/// Service ovn-sb, as kubelet tells it.
fn southbound(env: &Environment) -> Result<Option<Endpoint>, Usage> {
    let Some(host) = env.get("OVN_SB_SERVICE_HOST") else { return Ok(None) };
    let port = env.get("OVN_SB_SERVICE_PORT").unwrap_or("6642");
    let port = port
        .parse()
        .map_err(|_| Usage(format!("environment OVN_SB_SERVICE_PORT={port}: not a port")))?;
    let host = host.to_owned();
    Ok(Some(match env.is_true("ENABLE_SSL") {
        true => Endpoint::Ssl { host, port },
        false => Endpoint::Tcp { host, port },
    }))
}
