//! A pod NIC: what is asked for, how it is named, which MTU it gets.

use std::net::IpAddr;

use super::{Datapath, HostOp, OvsPort};
use crate::{
    api::{Map, Subnet, Text, names},
    net::{Cidr, Dad, DualStack, Link, LinkAddress, Mac, Route},
};

/// A CNI ADD after the annotations are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachRequest {
    /// Name in `iface-id`: the pod, or its virtual machine.
    pub owner_name: Text,
    pub namespace: Text,
    /// `ovn`, or `<nad>.<ns>.ovn`; "" means `ovn`.
    pub provider: Text,
    pub container_id: Text,
    /// Path of the pod's network namespace.
    pub netns: Text,
    pub ifname: Text,
    pub mac: Mac,
    /// Addresses with the prefix length of the subnet.
    pub addresses: DualStack<Cidr>,
    pub gateways: DualStack<IpAddr>,
    /// `status.u2oInterconnectionIP` of the subnet: then the next hop of the default route.
    pub u2o_addresses: DualStack<IpAddr>,
    pub default_route: DefaultRoute,
    /// Of the CNI configuration, then of the annotation `routes`.
    pub routes: Vec<ExtraRoute>,
    /// From [`pod_mtu`]; `None` leaves the kernel's.
    pub mtu: Option<u32>,
    pub datapath: Datapath,
    /// `Detect` on underlay outside live migration: others may share the segment.
    pub dad: Dad,
    pub gateway_check: GatewayCheck,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultRoute {
    Wanted,
    None,
}

/// `{dst, gw}`; without `gw` the next hop is the gateway of the family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraRoute {
    pub destination: Cidr,
    pub gateway: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayCheck {
    /// ADD fails when no gateway answers.
    Required,
    /// `disableGatewayCheck`: one try, the result does not matter.
    Lenient,
    /// Live migration, activation strategy.
    Skipped,
}

/// What is there before the plan; default = nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AttachObserved {
    /// The link with the name of the host end.
    pub host_link: Option<Link>,
    /// Links, addresses and main-table routes of the pod's namespace.
    pub pod_links: Vec<Link>,
    pub pod_addresses: Vec<LinkAddress>,
    pub pod_routes: Vec<Route>,
    /// The br-int port with the name of the host end.
    pub port: Option<OvsPort>,
    /// Interfaces, other than that port's, that carry the same `iface-id`.
    pub rivals: Vec<Text>,
}

/// What to do for one NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachPlan {
    pub names: NicNames,
    /// LSP name: watch the interface for `external_ids:ovn-installed`.
    pub iface_id: Text,
    /// Applied at once, before the port is installed.
    pub ops: Vec<HostOp>,
    /// Applied when the port is installed: announcements.
    pub after_installed: Vec<HostOp>,
    /// Checked in this order after installation.
    pub gateways: Vec<IpAddr>,
    pub gateway_check: GatewayCheck,
    /// Undo all of it when a step fails.
    pub rollback: Vec<HostOp>,
    /// All routes of the NIC, for the CNI result.
    pub routes: Vec<Route>,
    /// Extra routes that were left out, and why; ADD goes on without them.
    pub warnings: Vec<String>,
}

/// Names of both ends. `container` is the alias of the pod's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicNames {
    pub host: Text,
    pub container: Text,
}

/// Why a NIC cannot be attached; each message names the field and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    #[error("ifname {0:?} is longer than 12 characters; choose a shorter one")]
    LongIfname(Text),
    #[error("ifname {0:?} is not an interface name (1-15 characters, no '/', ':' or blanks)")]
    BadIfname(Text),
    #[error("container id {0:?} has fewer than 12 characters or unusual ones")]
    BadContainerId(Text),
    #[error("interface {0} has no address; the annotation ip_address must name one")]
    NoAddress(Text),
    #[error("host link {link} already serves {owner}; delete that sandbox or rename the interface")]
    NameTaken { link: Text, owner: Text },
    #[error("the pod's namespace already has an interface {0} that is not ours; delete it")]
    IfnameTaken(Text),
}

/// Names of the veth pair of an interface, 14 or 15 characters each.
///
/// `eth0` gives `<12 of cid>_h`, others `<12 - len of cid>_<ifname>_h`; KubeVirt's hotplug names
/// (`pod` and 11 characters) are shortened by `pod` and the last four first. Longer names than 12
/// characters leave no room and are refused (upstream panicked, its bug 9).
pub fn nic_names(container_id: &str, ifname: &str) -> Result<NicNames, AttachError> {
    let usable = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    if ifname.is_empty() || !ifname.chars().all(usable) || [".", ".."].contains(&ifname) {
        return Err(AttachError::BadIfname(ifname.into()));
    }
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let Some(id) = container_id.get(..12).filter(|id| id.chars().all(word)) else {
        return Err(AttachError::BadContainerId(container_id.into()));
    };
    let stem = if ifname == "eth0" {
        id.to_owned()
    } else {
        let middle = ifname.strip_prefix("pod").filter(|rest| rest.len() == 11);
        let short = middle.and_then(|rest| rest.get(..7)).unwrap_or(ifname);
        let room = 12usize.checked_sub(short.len()).and_then(|room| id.get(..room));
        let prefix = room.ok_or_else(|| AttachError::LongIfname(ifname.into()))?;
        format!("{prefix}_{short}")
    };
    Ok(NicNames { host: format!("{stem}_h").into(), container: format!("{stem}_c").into() })
}

/// MTU of a pod NIC: the subnet's own; else, on a bridged underlay, the node label of the
/// provider network (absent = leave the kernel's); else the node's overlay MTU.
pub fn pod_mtu(
    subnet: &Subnet,
    provider_network: Option<&str>,
    node_labels: &Map,
    overlay_mtu: u32,
) -> Option<u32> {
    if let Some(mtu) = subnet.mtu.filter(|mtu| *mtu > 0) {
        return Some(mtu);
    }
    match provider_network.filter(|name| !name.is_empty()) {
        Some(name) if !subnet.logical_gateway && !subnet.u2o_interconnection => {
            let key = names::provider_network_key(name, names::provider_network::MTU);
            node_labels.get(key.as_str()).and_then(|mtu| mtu.parse().ok())
        }
        _ => Some(overlay_mtu),
    }
}
