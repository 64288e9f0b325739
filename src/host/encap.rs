//! Tunnel NIC, encap address, overlay MTU.

use std::net::IpAddr;

use super::{Encap, NetworkType};
use crate::{
    api::{Invalid, Text},
    net::{DualStack, Link, LinkAddress, Route},
};

/// What decides the tunnel NIC. Later names override earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EncapRequest {
    /// `--iface`: a name, else a comma list of regular expressions that match whole names.
    pub iface_flag: Text,
    /// Node annotation `ovn.kubernetes.io/tunnel_interface`.
    pub annotation: Option<Text>,
    /// `--dpdk-tunnel-iface`, when the node is labelled `ovs_dp_type=userspace`.
    pub dpdk_link: Option<Text>,
    /// `--host-tunnel-src`.
    pub allow_host_masks: bool,
    /// Environment `POD_IP`.
    pub pod_ip: Option<IpAddr>,
    pub internal_ips: DualStack<IpAddr>,
    pub links: Vec<Link>,
    pub addresses: Vec<LinkAddress>,
    /// Main table.
    pub routes: Vec<Route>,
    /// NIC -> the bridge of vendor kube-ovn that it is a port of.
    pub bridge_of: std::collections::BTreeMap<Text, Text>,
}

/// Chooses the tunnel NIC and its address. The same rule serves start and later changes.
pub fn choose_encap(request: &EncapRequest) -> Result<Encap, Invalid> {
    let _ = request;
    Err(Invalid { reason: "NoTunnelInterface", message: String::new() })
}

/// MTU of the overlay: the flag when not 0, else the NIC's minus the encapsulation and 20 more
/// over IPv6.
pub fn overlay_mtu(flag: u32, network_type: NetworkType, encap: &Encap) -> u32 {
    if flag > 0 {
        return flag;
    }
    let v6 = if encap.ip.is_ipv6() { 20 } else { 0 };
    encap.link_mtu.saturating_sub(network_type.overhead() + v6)
}
