//! Tunnel NIC, encap address, overlay MTU.

use std::net::IpAddr;

use regex::Regex;

use super::{Encap, NetworkType};
use crate::{
    api::{Invalid, Text, names::annotation},
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

const NO_TUNNEL: &str = "NoTunnelInterface";

/// Chooses the tunnel NIC and its address. The same rule serves start and later changes.
pub fn choose_encap(request: &EncapRequest) -> Result<Encap, Invalid> {
    let named = |name: &&Text| !name.is_empty();
    let wish = request.dpdk_link.as_ref().filter(named);
    let wish = wish.or(request.annotation.as_ref().filter(named));
    match wish.or(Some(&request.iface_flag).filter(named)) {
        Some(wish) => by_name(request, wish),
        None => by_address(request),
    }
}

fn refuse<T>(message: String) -> Result<T, Invalid> {
    Err(Invalid { reason: NO_TUNNEL, message })
}

/// The link that holds the pod's own address (the agent lives in the host network), else an
/// InternalIP of the node.
fn by_address(request: &EncapRequest) -> Result<Encap, Invalid> {
    let ips = &request.internal_ips;
    let Some(ip) = request.pod_ip.or(ips.v4).or(ips.v6) else {
        return refuse("neither POD_IP nor an InternalIP is known; set --iface".into());
    };
    let holder = request.addresses.iter().find(|a| a.cidr.address == ip);
    match holder.and_then(|a| request.links.iter().find(|l| l.name == a.link)) {
        Some(link) => Ok(Encap { link: link.name.clone(), ip, link_mtu: link.mtu }),
        None => refuse(format!("no interface has the address {ip}; set --iface")),
    }
}

fn by_name(request: &EncapRequest, wish: &Text) -> Result<Encap, Invalid> {
    let nic = find_link(request, wish)?;
    // The bridge took over the addresses of the NIC.
    let bridge = request.bridge_of.get(&nic.name);
    let holder = bridge.and_then(|b| request.links.iter().find(|l| l.name == *b)).unwrap_or(nic);
    let sources: Vec<IpAddr> = request
        .routes
        .iter()
        .filter(|r| r.link == holder.name && r.gateway.is_none())
        .filter_map(|r| r.source)
        .collect();
    let usable = |a: &&LinkAddress| {
        let ip = a.cidr.address;
        let host_mask = a.cidr.prefix == a.cidr.family().bits();
        a.link == holder.name
            && !ip.is_loopback()
            && !is_link_local(ip)
            && (request.allow_host_masks || !host_mask)
            && (sources.iter().all(|s| s.is_ipv4() != ip.is_ipv4()) || sources.contains(&ip))
    };
    match request.addresses.iter().find(usable) {
        Some(a) => {
            Ok(Encap { link: holder.name.clone(), ip: a.cidr.address, link_mtu: holder.mtu })
        }
        None => refuse(format!(
            "tunnel interface {} has no usable address (loopback, link-local and host masks do \
             not count); give it one, or set --host-tunnel-src for host masks",
            holder.name
        )),
    }
}

/// The link with that very name, else the first link in index order whose whole name matches one
/// of the comma separated expressions. Upstream did not anchor them: `eth1` took `veth1...` (bug
/// 19).
fn find_link<'a>(request: &'a EncapRequest, wish: &str) -> Result<&'a Link, Invalid> {
    if let Some(link) = request.links.iter().find(|l| *l.name == *wish) {
        return Ok(link);
    }
    let mut expressions = Vec::new();
    for part in wish.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        match Regex::new(&format!("^(?:{part})$")) {
            Ok(expression) => expressions.push(expression),
            Err(e) => return refuse(format!("tunnel interface {part:?} is no expression: {e}")),
        }
    }
    let matching = request.links.iter().filter(|l| expressions.iter().any(|e| e.is_match(&l.name)));
    match matching.min_by_key(|l| l.index) {
        Some(link) => Ok(link),
        None => refuse(format!(
            "no interface is named or matches {wish:?}; set --iface or the annotation {}",
            annotation::TUNNEL_INTERFACE
        )),
    }
}

pub(super) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
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
