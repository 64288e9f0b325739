//! Configuration of the ovs container from its environment. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use super::config::{ConfigError, Environment, Transport, addresses, flag, number};

/// `OVS_DATAPATH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatapathChoice {
    /// The kernel module if the kernel has it, else userspace.
    Auto,
    System,
    /// Userspace, also on the NIC that carries the node's own address.
    Netdev,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datapath {
    System,
    Netdev,
}

impl Datapath {
    /// As `Bridge.datapath_type` has it.
    pub fn name(self) -> &'static str {
        match self {
            Datapath::System => "system",
            Datapath::Netdev => "netdev",
        }
    }
}

/// `HW_OFFLOAD`: flows go to the NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    On,
    Off,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OvsConfig {
    /// `ovn-remote`: comma list of the SB servers.
    pub remotes: String,
    pub transport: Transport,
    /// `geneve`, `vxlan`, `stt`.
    pub tunnel_type: String,
    pub node: String,
    pub offload: Offload,
    pub datapath: DatapathChoice,
    /// A NIC by name, or a comma list of expressions that match whole names; "" = by `pod_ips`.
    pub iface: String,
    pub pod_ips: Vec<IpAddr>,
    /// Milliseconds.
    pub probe_interval: u64,
    /// Seconds.
    pub openflow_interval: u64,
    /// Milliseconds for which a new ovn-controller leaves the rules of its predecessor; 0 = none.
    /// Not among [`Self::external_ids`]: it is written while there are rules, see [`super::rules`].
    pub wait_before_clear: u64,
}

const SB_PORT: u16 = 6642;

impl OvsConfig {
    pub fn parse(env: Environment) -> Result<Self, ConfigError> {
        let tls = flag("ENABLE_SSL", env)?;
        let transport = if tls { Transport::Tls } else { Transport::Plain };
        let datapath = match env("OVS_DATAPATH").as_deref() {
            None | Some("auto") => DatapathChoice::Auto,
            Some("system") => DatapathChoice::System,
            Some("netdev") => DatapathChoice::Netdev,
            Some(other) => {
                return Err(ConfigError::Value {
                    variable: "OVS_DATAPATH",
                    value: other.to_owned(),
                    expected: "auto, system or netdev",
                });
            }
        };
        let mut pod_ips = addresses("POD_IPS", env)?;
        pod_ips.extend(addresses("POD_IP", env)?);
        pod_ips.dedup();
        let tunnel_type = env("TUNNEL_TYPE").unwrap_or_else(|| "geneve".to_owned());
        if !["geneve", "vxlan", "stt"].contains(&tunnel_type.as_str()) {
            return Err(ConfigError::Value {
                variable: "TUNNEL_TYPE",
                value: tunnel_type,
                expected: "geneve, vxlan or stt",
            });
        }
        Ok(OvsConfig {
            remotes: remotes(transport, env)?,
            transport,
            tunnel_type,
            node: env("KUBE_NODE_NAME").ok_or(ConfigError::Missing {
                variable: "KUBE_NODE_NAME",
                remedy: "set it from spec.nodeName in the manifest",
            })?,
            offload: if flag("HW_OFFLOAD", env)? { Offload::On } else { Offload::Off },
            datapath,
            iface: env("IFACE").unwrap_or_default(),
            pod_ips,
            probe_interval: probe_interval(env)?,
            openflow_interval: number("OVN_REMOTE_OPENFLOW_INTERVAL", 180, env)?,
            wait_before_clear: number("OVN_OFCTRL_WAIT_BEFORE_CLEAR", 8000, env)?,
        })
    }

    /// `external-ids` of Open_vSwitch that ovn-controller reads; `None` removes a key.
    pub fn external_ids(&self, datapath: Datapath) -> BTreeMap<&'static str, Option<String>> {
        BTreeMap::from([
            ("ovn-remote", Some(self.remotes.clone())),
            ("ovn-remote-probe-interval", Some(self.probe_interval.to_string())),
            ("ovn-openflow-probe-interval", Some(self.openflow_interval.to_string())),
            ("ovn-encap-type", Some(self.tunnel_type.clone())),
            // Also for the kernel datapath: without it br-int keeps the type that it has.
            ("ovn-bridge-datapath-type", Some(datapath.name().to_owned())),
            ("hostname", Some(self.node.clone())),
        ])
    }
}

/// What install.sh and the chart write unless they are told otherwise.
const PROBE_INTERVAL: u64 = 10_000;
/// A node whose southbound member lost its power learns nothing until the probe is over, and then
/// finds another member at once: it pays to look more often where there is another.
const PROBE_INTERVAL_OF_SEVERAL: u64 = 4_000;

fn probe_interval(env: Environment) -> Result<u64, ConfigError> {
    let given = number("OVN_REMOTE_PROBE_INTERVAL", PROBE_INTERVAL, env)?;
    let several = addresses("OVN_DB_IPS", env)?.len() > 1;
    Ok(if several && given == PROBE_INTERVAL { PROBE_INTERVAL_OF_SEVERAL } else { given })
}

/// All masters by OVN_DB_IPS, else the address of Service ovn-sb.
fn remotes(transport: Transport, env: Environment) -> Result<String, ConfigError> {
    let masters = addresses("OVN_DB_IPS", env)?;
    if !masters.is_empty() {
        let all: Vec<String> = masters.iter().map(|ip| transport.address(*ip, SB_PORT)).collect();
        return Ok(all.join(","));
    }
    let service = addresses("OVN_SB_SERVICE_HOST", env)?;
    let ip = service.first().ok_or(ConfigError::Missing {
        variable: "OVN_DB_IPS",
        remedy: "set it to the addresses of the masters, or create Service ovn-sb",
    })?;
    Ok(transport.address(*ip, number("OVN_SB_SERVICE_PORT", SB_PORT, env)?))
}

/// `other_config` of Open_vSwitch; `None` removes a key. More than 12 CPUs get fewer threads than
/// OVS would start, for the sake of memory.
pub fn other_config(offload: Offload, cpus: usize) -> BTreeMap<&'static str, Option<String>> {
    let offload = if offload == Offload::On { "true" } else { "false" };
    let mut wanted = BTreeMap::from([("hw-offload", Some(offload.to_owned()))]);
    if cpus > 12 {
        wanted.insert("n-revalidator-threads", Some("4".to_owned()));
        wanted.insert("n-handler-threads", Some("10".to_owned()));
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<OvsConfig, ConfigError> {
        let mut all = vec![("KUBE_NODE_NAME", "n1"), ("POD_IP", "10.0.0.5")];
        all.extend(variables);
        OvsConfig::parse(&|name| all.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn remotes_by_masters_or_service_with_brackets_for_both_families() {
        let config = parse(&[("OVN_DB_IPS", "10.0.0.1,fd00::2"), ("ENABLE_SSL", "true")]).unwrap();
        assert_eq!(config.remotes, "ssl:[10.0.0.1]:6642,ssl:[fd00::2]:6642");
        let config =
            parse(&[("OVN_SB_SERVICE_HOST", "fd00::9"), ("OVN_SB_SERVICE_PORT", "7000")]).unwrap();
        assert_eq!(config.remotes, "tcp:[fd00::9]:7000");
        assert!(parse(&[]).is_err());
        assert!(parse(&[("OVN_DB_IPS", "10.0.0.1"), ("OVS_DATAPATH", "dpdk")]).is_err());
    }

    #[test]
    fn nodes_look_after_several_masters_more_often_unless_told_how_often() {
        let probe = |ips: &str, given: &str| {
            parse(&[("OVN_DB_IPS", ips), ("OVN_REMOTE_PROBE_INTERVAL", given)])
                .unwrap()
                .probe_interval
        };
        assert_eq!(probe("10.0.0.1", "10000"), 10_000);
        assert_eq!(probe("10.0.0.1,10.0.0.2", "10000"), 4_000);
        assert_eq!(probe("10.0.0.1,10.0.0.2", "60000"), 60_000);
    }

    #[test]
    fn external_ids_follow_the_datapath() {
        let config = parse(&[("OVN_DB_IPS", "10.0.0.1")]).unwrap();
        let netdev = config.external_ids(Datapath::Netdev);
        assert_eq!(netdev["ovn-bridge-datapath-type"].as_deref(), Some("netdev"));
        let system = config.external_ids(Datapath::System);
        assert_eq!(system["ovn-bridge-datapath-type"].as_deref(), Some("system"));
        assert_eq!(netdev["ovn-encap-type"].as_deref(), Some("geneve"));
        assert!(!netdev.contains_key("ovn-encap-ip"), "kube-ovn-daemon writes it");
    }

    #[test]
    fn threads_on_large_hosts_only() {
        assert_eq!(other_config(Offload::Off, 12).len(), 1);
        let large = other_config(Offload::On, 13);
        assert_eq!(large["n-handler-threads"].as_deref(), Some("10"));
        assert_eq!(large["hw-offload"].as_deref(), Some("true"));
    }
}
