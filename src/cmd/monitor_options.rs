//! Flags and environment of kube-ovn-monitor.

use std::{path::PathBuf, time::Duration};

use clap::ArgMatches;

use super::{
    Usage,
    flags::{self, Flag, Given, Support},
    options::{self, Environment, wrong},
};
use crate::{
    monitor::observe::{Server, Sources},
    telemetry::{LogOptions, Serving},
};

const OF_PINGER: Support = Support::Ignored("Open vSwitch is watched by kube-ovn-pinger");
const BY_SOCKET: Support = Support::Ignored("the server is asked at its local sockets");

const fn ignored(name: &'static str, default: &'static str, why: Support) -> Flag {
    Flag::text(name, default, "").support(why)
}

/// Every flag of kube-ovn-monitor but those of klog and of the metrics port.
pub const FLAGS: &[Flag] = &[
    Flag::number("metrics-port", "10661", 65_535, "port of metrics and health"),
    Flag::number("ovs.timeout", "2", 3600, "seconds that a local request may take"),
    Flag::number("ovs.poll-interval", "30", 86_400, "seconds between two readings"),
    Flag::text("database.northbound.name", "OVN_Northbound", "name of the database"),
    Flag::text("database.northbound.socket.remote", "unix:/run/ovn/ovnnb_db.sock", "its socket"),
    Flag::text("database.northbound.socket.control", "unix:/run/ovn/ovnnb_db.ctl", "its control"),
    Flag::text("database.northbound.file.data.path", "/etc/ovn/ovnnb_db.db", "its file"),
    Flag::text("database.northbound.file.log.path", "/var/log/ovn/ovsdb-server-nb.log", "its log"),
    Flag::text("database.southbound.name", "OVN_Southbound", "name of the database"),
    Flag::text("database.southbound.socket.remote", "unix:/run/ovn/ovnsb_db.sock", "its socket"),
    Flag::text("database.southbound.socket.control", "unix:/run/ovn/ovnsb_db.ctl", "its control"),
    Flag::text("database.southbound.file.data.path", "/etc/ovn/ovnsb_db.db", "its file"),
    Flag::text("database.southbound.file.log.path", "/var/log/ovn/ovsdb-server-sb.log", "its log"),
    Flag::text("service.ovn.northd.file.log.path", "/var/log/ovn/ovn-northd.log", "log of northd"),
    Flag::text("service.ovn.northd.file.pid.path", "/var/run/ovn/ovn-northd.pid", "its pid file"),
    ignored("database.northbound.file.pid.path", "/run/ovn/ovnnb_db.pid", BY_SOCKET),
    ignored("database.southbound.file.pid.path", "/run/ovn/ovnsb_db.pid", BY_SOCKET),
    ignored("database.northbound.port.default", "6641", BY_SOCKET),
    ignored("database.northbound.port.ssl", "6631", BY_SOCKET),
    ignored("database.northbound.port.raft", "6643", BY_SOCKET),
    ignored("database.southbound.port.default", "6642", BY_SOCKET),
    ignored("database.southbound.port.ssl", "6632", BY_SOCKET),
    ignored("database.southbound.port.raft", "6644", BY_SOCKET),
    ignored("system.run.dir", "/var/run/openvswitch", OF_PINGER),
    ignored("database.vswitch.name", "Open_vSwitch", OF_PINGER),
    ignored("database.vswitch.socket.remote", "unix:/var/run/openvswitch/db.sock", OF_PINGER),
    ignored("database.vswitch.file.data.path", "/etc/openvswitch/conf.db", OF_PINGER),
    ignored("database.vswitch.file.log.path", "/var/log/openvswitch/ovsdb-server.log", OF_PINGER),
    ignored("database.vswitch.file.pid.path", "/var/run/openvswitch/ovsdb-server.pid", OF_PINGER),
    ignored("database.vswitch.file.system.id.path", "/etc/openvswitch/system-id.conf", OF_PINGER),
    ignored("service.vswitchd.file.log.path", "/var/log/openvswitch/ovs-vswitchd.log", OF_PINGER),
    ignored("service.vswitchd.file.pid.path", "/var/run/openvswitch/ovs-vswitchd.pid", OF_PINGER),
];

/// Validated options of kube-ovn-monitor.
#[derive(Debug, Clone, PartialEq)]
pub struct MonitorOptions {
    pub sources: Sources,
    pub interval: Duration,
    pub serving: Serving,
    pub kubeconfig: Option<PathBuf>,
    pub log: LogOptions,
    /// Lines to log once the log is up.
    pub notes: Vec<String>,
}

pub fn command() -> clap::Command {
    flags::build(&[FLAGS, options::SERVING])
}

impl MonitorOptions {
    /// `hostname` is the kernel's, for a start outside of a cluster.
    pub fn parse(matches: &ArgMatches, env: &Environment, hostname: &str) -> Result<Self, Usage> {
        let given = Given(matches);
        let notes = flags::check(&[FLAGS, options::SERVING], matches)?;
        let path = |flag: &str| PathBuf::from(given.text(flag));
        Ok(MonitorOptions {
            sources: Sources {
                host: env.get("KUBE_NODE_NAME").unwrap_or(hostname).to_owned(),
                northbound: server(&given, "northbound", "ovsdb-server-northbound")?,
                southbound: server(&given, "southbound", "ovsdb-server-southbound")?,
                northd_pid: path("service.ovn.northd.file.pid.path"),
                northd_log: path("service.ovn.northd.file.log.path"),
                timeout: Duration::from_secs(given.small::<u64>("ovs.timeout").max(1)),
            },
            interval: Duration::from_secs(given.small::<u64>("ovs.poll-interval").max(1)),
            serving: Serving {
                port: given.small("metrics-port"),
                ..options::serving(&given, env)?
            },
            kubeconfig: options::kubeconfig(&given),
            log: options::log_options(&given)?,
            notes,
        })
    }
}

fn server(given: &Given<'_>, side: &str, component: &'static str) -> Result<Server, Usage> {
    let of = |what: &str| given.text(&format!("database.{side}.{what}"));
    let remote = of("socket.remote");
    let control = of("socket.control");
    let control = control.strip_prefix("unix:").unwrap_or(&control);
    Ok(Server {
        component,
        database: of("name"),
        remote: remote
            .parse()
            .map_err(|e| wrong(&format!("database.{side}.socket.remote"), &remote, e))?,
        control: control.into(),
        file: of("file.data.path").into(),
        log: of("file.log.path").into(),
    })
}
