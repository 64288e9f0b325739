//! Flags and environment of kube-ovn-daemon.

use std::{net::IpAddr, path::PathBuf};

use clap::ArgMatches;

use super::{
    Usage,
    flags::{self, Flag, Given, Support},
    options::{self, Environment, check_disjoint, cidrs, wrong},
};
use crate::{
    api::EXTERNAL_GATEWAY_CONFIG,
    net::{Cidr, DualStack},
    telemetry::{LogOptions, Serving},
};

/// Every flag of kube-ovn-daemon but those of klog.
pub const FLAGS: &[Flag] = &[
    Flag::switch("install-cni-config", "false", "install the conflist and exit"),
    Flag::text("cni-conf-dir", "/etc/cni/net.d", "folder of the conflist"),
    Flag::text("cni-conf-file", "/kube-ovn/01-kube-ovn.conflist", "conflist to install"),
    Flag::text("cni-conf-name", "01-kube-ovn.conflist", "name of the installed conflist"),
    Flag::text("node-name", "", "name of the Node; else KUBE_NODE_NAME, else the host name"),
    Flag::text("iface", "", "tunnel NIC: a name, or a comma list of regular expressions"),
    Flag::switch("host-tunnel-src", "false", "a /32 or /128 may be the tunnel address"),
    Flag::text("dpdk-tunnel-iface", "br-phy", "tunnel NIC of userspace datapaths"),
    Flag::number("mtu", "0", 65_535, "MTU of overlay pods; 0 = derived from the tunnel NIC"),
    Flag::switch("enable-mirror", "false", "copy all traffic of br-int to the mirror NIC"),
    Flag::text("mirror-iface", "mirror0", "NIC of mirrored traffic; made when missing"),
    Flag::text("bind-socket", "/run/openvswitch/kube-ovn-daemon.sock", "socket of the CNI server"),
    Flag::text("ovs-socket", "", "socket of the local Open vSwitch database"),
    Flag::text("service-cluster-ip-range", "10.96.0.0/12", "prefixes of Services, v4,v6"),
    Flag::text("cluster-router", "ovn-cluster", "name of the default VPC"),
    Flag::text("node-switch", "join", "name of the subnet that joins the nodes"),
    Flag::switch("encap-checksum", "true", "checksums on tunnel packets"),
    Flag::switch("enable-pprof", "false", "").support(Support::Ignored("this is not a Go program")),
    Flag::number("pprof-port", "10665", 65_535, "port of metrics and health"),
    Flag::switch("mac-learning-fallback", "false", "")
        .support(Support::Later("mac-learning-fallback (an option of patched Open vSwitch)")),
    Flag::text("network-type", "geneve", "tunnel type: geneve or vxlan"),
    Flag::text("default-provider-name", "provider", "").support(Support::Ignored("it is unused")),
    Flag::text("default-interface-name", "", "").support(Support::Ignored("it is unused")),
    Flag::text("external-gateway-config-ns", "kube-system", "namespace of ovn-external-gw-config"),
    Flag::text("external-gateway-switch", "external", "switch of the external network"),
    Flag::switch("enable-arp-detect-ip-conflict", "true", "probe for a doubled address (RFC 5227)"),
    Flag::text("kubelet-dir", "/var/lib/kubelet", "kubelet's folder"),
    Flag::switch("enable-verbose-conn-check", "false", "answer probes on the two ports below"),
    Flag::number("tcp-conn-check-port", "8100", 65_535, "accepts and closes"),
    Flag::number("udp-conn-check-port", "8101", 65_535, "answers `health check`"),
    Flag::switch("enable-tproxy", "false", "").support(Support::Later("probes by TProxy")),
    Flag::number("ovs-vsctl-concurrency", "100", 1_000_000, "")
        .support(Support::Ignored("nothing is forked; the database is written directly")),
    Flag::switch("enable-ovn-ipsec", "false", "").support(Support::Later("IPsec")),
    Flag::switch("set-vxlan-tx-off", "false", "checksum offload off on the VXLAN device"),
];

/// What the process shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    Serve,
    /// Install the conflist, then exit.
    InstallConflist,
}

/// Where the conflist comes from and goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflist {
    pub source: PathBuf,
    pub folder: PathBuf,
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelType {
    Geneve,
    Vxlan,
}

/// The tunnel of this node, as far as flags decide it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Exact names or regular expressions, tried in this order; empty = the NIC of the node's IP.
    pub interfaces: Vec<String>,
    /// NIC of nodes with a userspace datapath.
    pub userspace_interface: String,
    pub kind: TunnelType,
    /// A host prefix (/32, /128) may be the source.
    pub host_prefix_allowed: bool,
    pub checksum: bool,
    pub vxlan_checksum_offload: bool,
    /// POD_IP.
    pub address: Option<IpAddr>,
    /// Of overlay pods; `None` = derived.
    pub mtu: Option<u16>,
}

/// Validated options of kube-ovn-daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct DaemonOptions {
    pub task: Task,
    pub conflist: Conflist,
    /// Lower-case.
    pub node_name: String,
    pub tunnel: Tunnel,
    pub cni_socket: PathBuf,
    pub ovs_socket: PathBuf,
    pub kubeconfig: Option<PathBuf>,
    pub service_cidrs: DualStack<Cidr>,
    pub cluster_router: String,
    pub node_switch: String,
    pub kubelet_folder: PathBuf,
    pub detect_address_conflict: bool,
    /// Copy all traffic of the bridge, not only that towards annotated pods.
    pub mirror_all: bool,
    /// Switch of the external network, and the key of its ConfigMap.
    pub external_switch: String,
    pub external_config: String,
    /// Link that mirrored traffic goes to.
    pub mirror_interface: String,
    /// TCP and UDP port that answer connectivity checks.
    pub check_ports: Option<(u16, u16)>,
    pub serving: Serving,
    pub log: LogOptions,
    /// Lines to log once the log is up.
    pub notes: Vec<String>,
}

pub fn command() -> clap::Command {
    flags::build(&[FLAGS, options::SERVING])
}

impl DaemonOptions {
    /// `hostname` is the kernel's, the last resort for the node's name.
    pub fn parse(matches: &ArgMatches, env: &Environment, hostname: &str) -> Result<Self, Usage> {
        let given = Given(matches);
        let notes = flags::check(&[FLAGS, options::SERVING], matches)?;
        let service_cidrs = cidrs(&given, "service-cluster-ip-range")?;
        check_disjoint(&[("service-cluster-ip-range", service_cidrs)])?;
        let ports = (given.small("tcp-conn-check-port"), given.small("udp-conn-check-port"));
        let name = Some(given.text("node-name")).filter(|name| !name.is_empty());
        let name = name.or_else(|| env.get("KUBE_NODE_NAME").map(str::to_owned));
        Ok(DaemonOptions {
            task: match given.is_on("install-cni-config") {
                true => Task::InstallConflist,
                false => Task::Serve,
            },
            conflist: conflist(&given)?,
            node_name: name.unwrap_or_else(|| hostname.to_owned()).to_lowercase(),
            tunnel: tunnel(&given, env)?,
            cni_socket: absolute(&given, "bind-socket")?,
            ovs_socket: match given.text("ovs-socket").as_str() {
                "" => PathBuf::from("/run/openvswitch/db.sock"),
                path => PathBuf::from(path),
            },
            kubeconfig: options::kubeconfig(&given),
            service_cidrs,
            cluster_router: given.text("cluster-router"),
            node_switch: given.text("node-switch"),
            kubelet_folder: absolute(&given, "kubelet-dir")?,
            mirror_all: given.is_on("enable-mirror"),
            external_switch: given.text("external-gateway-switch"),
            external_config: format!(
                "{}/{EXTERNAL_GATEWAY_CONFIG}",
                given.text("external-gateway-config-ns")
            ),
            mirror_interface: given.text("mirror-iface"),
            detect_address_conflict: given.is_on("enable-arp-detect-ip-conflict"),
            check_ports: given.is_on("enable-verbose-conn-check").then_some(ports),
            serving: options::serving(&given, env)?,
            log: options::log_options(&given)?,
            notes,
        })
    }
}

fn absolute(given: &Given<'_>, flag: &str) -> Result<PathBuf, Usage> {
    let path = PathBuf::from(given.text(flag));
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(wrong(flag, path.display(), "write a whole path"))
    }
}

fn conflist(given: &Given<'_>) -> Result<Conflist, Usage> {
    let name = given.text("cni-conf-name");
    if name.is_empty() || name.contains('/') {
        return Err(wrong("cni-conf-name", name, "write a file name without folder"));
    }
    Ok(Conflist {
        source: absolute(given, "cni-conf-file")?,
        folder: absolute(given, "cni-conf-dir")?,
        name,
    })
}

fn tunnel(given: &Given<'_>, env: &Environment) -> Result<Tunnel, Usage> {
    let kind = match given.text("network-type").as_str() {
        // On a vlan cluster upstream passes the tunnel type here, never `vlan`.
        "geneve" => TunnelType::Geneve,
        "vxlan" => TunnelType::Vxlan,
        "stt" => {
            return Err(wrong("network-type", "stt", "Open vSwitch 3.5 has no STT; use geneve"));
        }
        other => return Err(wrong("network-type", other, "write geneve or vxlan")),
    };
    let mtu: u16 = given.small("mtu");
    if (1..1280).contains(&mtu) {
        return Err(wrong("mtu", mtu, "IPv6 needs 1280 at least; 0 derives it"));
    }
    Ok(Tunnel {
        interfaces: given.list("iface"),
        userspace_interface: given.text("dpdk-tunnel-iface"),
        kind,
        host_prefix_allowed: given.is_on("host-tunnel-src"),
        checksum: given.is_on("encap-checksum"),
        vxlan_checksum_offload: !given.is_on("set-vxlan-tx-off"),
        address: env.addresses("POD_IP")?.first().copied(),
        mtu: (mtu > 0).then_some(mtu),
    })
}
