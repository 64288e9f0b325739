//! What the planner reads: one plain value, built by the node loops from the store, the vswitch
//! replica and the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    api::{Invalid, Map, Subnet, Text, names::annotation},
    net::{Cidr, DualStack, Family, Mac},
};

/// Facts about this node and the cluster that decide the [`HostState`](super::HostState).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    pub node: Text,
    pub internal_ips: DualStack<IpAddr>,
    /// InternalIPs of every other node.
    pub other_nodes: BTreeSet<IpAddr>,
    /// The node's port on the join subnet; `None` until the controller has annotated the node.
    pub join: Option<JoinPort>,
    /// `--cluster-router`: subnets of other VPCs do not concern the host.
    pub cluster_router: Text,
    pub subnets: Vec<SubnetView>,
    /// Pods of this node in subnets with policy routing.
    pub local_pods: Vec<LocalPod>,
    /// Ports of pods and ovn0, with what their owners' annotations ask for.
    pub nics: Vec<super::NicView>,
    pub mirror: Option<super::MirrorView>,
    /// On nodes labelled external-gw=true while the external gateway is enabled.
    pub external: Option<super::ExternalView>,
    /// `--service-cluster-ip-range`.
    pub service_cidrs: Vec<Cidr>,
    pub encap: Option<Encap>,
    /// MTU of overlay pods and ovn0, see [`overlay_mtu`](super::overlay_mtu).
    pub overlay_mtu: u32,
    /// `--encap-checksum`.
    pub encap_checksum: bool,
    pub network_type: NetworkType,
    pub datapath: Datapath,
    /// Node label `ovn.kubernetes.io/ic-gw=true`.
    pub ic_gateway: bool,
    /// `--set-vxlan-tx-off`.
    pub vxlan_tx_off: bool,
    /// Names of existing ipsets made by kube-proxy (`KUBE-CLUSTER-IP`, `KUBE-6-...`); it has them
    /// in ipvs mode only.
    pub kube_proxy_sets: BTreeSet<Text>,
}

impl HostView {
    /// Families of the agent: those of the join port.
    pub fn families(&self) -> Vec<Family> {
        self.join.iter().flat_map(|j| j.addresses.families()).collect()
    }
}

/// One address of a pod on this node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalPod {
    pub subnet: Text,
    pub addresses: DualStack<IpAddr>,
}

/// A subnet with the parts of its status that a node needs. An invalid subnet is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetView {
    pub subnet: Arc<Subnet>,
    /// `status.activateGateway`: nodes that carry a centralized subnet now.
    pub active_gateways: Vec<Text>,
    /// `status.natOutgoingPolicyRules`, in order.
    pub nat_policy: Vec<NatPolicyRule>,
}

/// One applied NAT policy rule. An empty list matches every address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatPolicyRule {
    /// 12 hex digits.
    pub id: Text,
    pub action: NatAction,
    pub sources: Vec<Cidr>,
    pub destinations: Vec<Cidr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatAction {
    /// Leaves with the node's address.
    Nat,
    /// Leaves with the pod's address.
    Forward,
}

/// Datapath of br-int (`Bridge.datapath_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datapath {
    /// Kernel module.
    System,
    /// Userspace, internal ports are taps.
    Netdev,
}

/// `--network-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkType {
    Geneve,
    Vxlan,
    Stt,
    Vlan,
}

impl NetworkType {
    /// Kernel device of the tunnels, if it has one.
    pub fn tunnel_link(self) -> Option<&'static str> {
        match self {
            NetworkType::Geneve => Some("genev_sys_6081"),
            NetworkType::Vxlan => Some("vxlan_sys_4789"),
            NetworkType::Stt | NetworkType::Vlan => None,
        }
    }

    /// Octets that the encapsulation adds, over IPv4.
    pub fn overhead(self) -> u32 {
        match self {
            NetworkType::Geneve | NetworkType::Vlan => 100,
            NetworkType::Vxlan => 50,
            NetworkType::Stt => 72,
        }
    }
}

impl std::str::FromStr for NetworkType {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "geneve" => Ok(NetworkType::Geneve),
            "vxlan" => Ok(NetworkType::Vxlan),
            "stt" => Ok(NetworkType::Stt),
            "vlan" => Ok(NetworkType::Vlan),
            _ => Err(Invalid {
                reason: "InvalidFlag",
                message: format!(
                    "--network-type={text:?} is unknown; use geneve, vxlan, stt or vlan"
                ),
            }),
        }
    }
}

/// Tunnel endpoint of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encap {
    pub link: Text,
    pub ip: IpAddr,
    /// MTU of the link in octets.
    pub link_mtu: u32,
}

/// The node's port on the join subnet, as the controller annotated it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinPort {
    /// `ovn.kubernetes.io/port_name`, the LSP: `node-<name>`.
    pub port_name: Text,
    pub mac: Mac,
    /// Addresses with the prefix length of the join subnet.
    pub addresses: DualStack<Cidr>,
    pub gateways: DualStack<IpAddr>,
}

const BAD_JOIN: &str = "InvalidNodeAnnotation";

/// Reads the join port of a node. `Ok(None)`: not annotated yet, wait for the node to change.
pub fn parse_join(annotations: &Map) -> Result<Option<JoinPort>, Invalid> {
    let get = |key| annotations.get(key).filter(|t| !t.is_empty());
    let (Some(ips), Some(cidr), Some(mac), Some(gateway), Some(port)) = (
        get(annotation::IP_ADDRESS),
        get(annotation::CIDR),
        get(annotation::MAC_ADDRESS),
        get(annotation::GATEWAY),
        get(annotation::PORT_NAME),
    ) else {
        return Ok(None);
    };
    let bad = |key: &str, error: crate::net::NetError| Invalid {
        reason: BAD_JOIN,
        message: format!("annotation {key}: {error}; remove it and the controller writes it anew"),
    };
    let ips =
        DualStack::<IpAddr>::parse_addresses(ips).map_err(|e| bad(annotation::IP_ADDRESS, e))?;
    let cidrs = DualStack::<Cidr>::parse_cidrs(cidr).map_err(|e| bad(annotation::CIDR, e))?;
    let gateways =
        DualStack::<IpAddr>::parse_addresses(gateway).map_err(|e| bad(annotation::GATEWAY, e))?;
    let mac = mac.parse().map_err(|e| bad(annotation::MAC_ADDRESS, e))?;
    let mut addresses = DualStack::default();
    for (family, ip) in ips.iter() {
        match cidrs.get(family) {
            Some(c) if c.contains(*ip) => addresses.set(family, Some(c.with_address(*ip))),
            _ => {
                return Err(Invalid {
                    reason: BAD_JOIN,
                    message: format!(
                        "annotation {}: {ip} lies outside {} {cidr}",
                        annotation::IP_ADDRESS,
                        annotation::CIDR
                    ),
                });
            }
        }
    }
    Ok(Some(JoinPort { port_name: port.clone(), mac, addresses, gateways }))
}

/// The world as seen: a kernel dump, the vswitch replica and the firewall's own listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    pub links: Vec<crate::net::Link>,
    pub addresses: Vec<crate::net::LinkAddress>,
    /// Main table, both families.
    pub routes: Vec<crate::net::Route>,
    /// Ours beside the main table, see [`POLICY_PROTOCOL`](crate::net::POLICY_PROTOCOL).
    pub policy_routes: Vec<crate::net::Route>,
    pub policy_rules: Vec<crate::net::PolicyRule>,
    /// Transmit checksum offload of the links that the state asks about; absent = unknown.
    pub tx_checksum: BTreeMap<Text, TxChecksum>,
    /// Values under /proc/sys by dotted name.
    pub sysctls: BTreeMap<Text, Text>,
    /// Output of `ipset save`; absent = could not be read, leave the firewall alone.
    pub ipsets: Option<Text>,
    /// Output of `iptables-save` and `ip6tables-save`; absent = could not be read, leave alone.
    pub iptables: DualStack<Text>,
    pub ovs: ObservedOvs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TxChecksum {
    On,
    Off,
}

/// The part of the vswitch replica that concerns the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedOvs {
    /// `Open_vSwitch.external_ids`.
    pub external_ids: BTreeMap<Text, Text>,
    /// Ports of br-int by name, as far as `OvsPort` describes them.
    pub ports: BTreeMap<Text, super::OvsPort>,
    /// Of the same ports.
    pub shaping: BTreeMap<Text, super::PortShaping>,
    /// Queueing rows of ours are left without a port.
    pub stale_queues: bool,
    pub mirror: Option<super::OvsMirror>,
    pub bridges: BTreeMap<Text, super::SeenBridge>,
}
