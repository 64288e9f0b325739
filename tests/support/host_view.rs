//! A node as the host planner sees it.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use kube_ovn::{
    api::{GatewayType, NamedGateway, Subnet},
    host::{
        Datapath, Encap, HostView, JoinPort, NatAction, NatPolicyRule, NetworkType, SubnetView,
    },
    net::{Cidr, DualStack, Mac},
};

use super::objects;

pub const JOIN_MAC: Mac = Mac([0, 0, 0, 0x12, 0x34, 0x56]);

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

pub fn seen(subnet: Subnet) -> SubnetView {
    SubnetView { subnet: Arc::new(subnet), active_gateways: vec![], nat_policy: vec![] }
}

pub fn overlay(name: &str, block: &str) -> Subnet {
    Subnet {
        uid: format!("7f6b5c1e-0000-4000-8000-{:0>12}", name.replace('-', "")).into(),
        gateway_type: Some(GatewayType::Distributed),
        nat_outgoing: true,
        ..objects::subnet(name, block)
    }
}

/// A centralized subnet with an egress address on each of two nodes.
pub fn centralized(name: &str, block: &str, egress: [&str; 2]) -> SubnetView {
    let gateway = |node: &str, ip: &str| NamedGateway {
        node: node.into(),
        egress: Some(ip.parse().unwrap()),
    };
    let mut view = seen(Subnet {
        gateway_type: Some(GatewayType::Centralized),
        gateway_nodes: vec![gateway("node1", egress[0]), gateway("node2", egress[1])],
        ..overlay(name, block)
    });
    view.active_gateways = vec!["node1".into()];
    view
}

pub fn policy(
    id: &str,
    action: NatAction,
    sources: &[&str],
    destinations: &[&str],
) -> NatPolicyRule {
    let list = |texts: &[&str]| texts.iter().map(|t| cidr(t)).collect();
    NatPolicyRule {
        id: id.into(),
        action,
        sources: list(sources),
        destinations: list(destinations),
    }
}

/// `node1` of two nodes; both families, the default and the join subnet.
pub fn dual_node() -> HostView {
    let join = Subnet {
        nat_outgoing: false,
        gateway_type: None,
        ..overlay("join", "100.64.0.0/16,fd00:100:64::/112")
    };
    HostView {
        node: "node1".into(),
        internal_ips: objects::addresses("172.18.0.2,fc00:f853:ccd:e793::2"),
        other_nodes: BTreeSet::from([ip("172.18.0.3"), ip("fc00:f853:ccd:e793::3")]),
        join: Some(JoinPort {
            port_name: "node-node1".into(),
            mac: JOIN_MAC,
            addresses: DualStack::parse_cidrs("100.64.0.2/16,fd00:100:64::2/112").unwrap(),
            gateways: objects::addresses("100.64.0.1,fd00:100:64::1"),
        }),
        cluster_router: "ovn-cluster".into(),
        subnets: vec![seen(overlay("ovn-default", "10.16.0.0/16,fd00:10:16::/112")), seen(join)],
        local_pods: vec![],
        nics: vec![],
        mirror: None,
        external: None,
        service_cidrs: vec![cidr("10.96.0.0/12"), cidr("fd00:10:96::/112")],
        encap: Some(Encap { link: "eth0".into(), ip: ip("172.18.0.2"), link_mtu: 1500 }),
        overlay_mtu: 1400,
        encap_checksum: true,
        network_type: NetworkType::Geneve,
        datapath: Datapath::System,
        ic_gateway: false,
        vxlan_tx_off: false,
        kube_proxy_sets: BTreeSet::new(),
    }
}

/// The same node with the IPv4 half only.
pub fn v4_node() -> HostView {
    let mut view = dual_node();
    if let Some(join) = &mut view.join {
        join.addresses.v6 = None;
        join.gateways.v6 = None;
    }
    view
}
