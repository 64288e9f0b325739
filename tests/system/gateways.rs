//! Ways out of the default VPC, judged by OVN: which node or external gateway a packet goes to.

use std::sync::Arc;

use kube_ovn::{api::*, net::Mac, ovn::keys::stable_mac, store::Stored};

use crate::{
    northd::{Northd, Packet},
    support::objects::*,
};

const FLOATING: &str = "172.56.0.233";
const OUTSIDE: &str = "203.0.113.9";

fn mac(host: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, host])
}

/// Pod on a node, with its address.
fn pod_with(name: &str, subnet: &str, node: &str, host: u8) -> [Arc<dyn Stored>; 2] {
    let address = match subnet {
        "ovn-default" => format!("10.16.0.{host}"),
        _ => format!("10.20.0.{host}"),
    };
    let mut ip = pod_ip("default", name, subnet, &address);
    ip.mac = Some(mac(host));
    let mut pod = pod("default", name, Some(node));
    if name == "floating" {
        pod.annotations.insert("ovn.kubernetes.io/eip".into(), FLOATING.into());
    }
    [shared(pod), shared(ip)]
}

fn cluster(gateway_type: GatewayType) -> Vec<Arc<dyn Stored>> {
    let mut other = subnet("other", "10.20.0.0/16");
    other.gateway_type = Some(gateway_type);
    other.gateway_nodes = vec![NamedGateway { node: "node2".into(), egress: None }];
    let mut all = vec![
        shared(settings()),
        shared(vpc("ovn-cluster")),
        shared(subnet("join", "100.64.0.0/16")),
        shared(subnet("ovn-default", "10.16.0.0/16")),
        shared(other),
        shared(namespace("default")),
        shared(node_ip("node1", "100.64.0.2")),
        shared(Ip { mac: Some(mac(102)), ..node_ip("node2", "100.64.0.3") }),
        shared(ExternalGateway {
            key: settings().external.config,
            enabled: true,
            placement: Placement::Centralized(vec!["node1".into()]),
            nic: "eth1".into(),
            next_hops: addresses("172.56.0.1"),
            addresses: kube_ovn::net::DualStack::parse_cidrs("172.56.0.254/16").unwrap(),
            mac: Some(mac(200)),
            invalid: vec![],
        }),
    ];
    for (name, internal) in [("node1", "172.18.0.2"), ("node2", "172.18.0.3")] {
        let mut node = node(name, internal);
        node.annotations
            .insert("ovn.kubernetes.io/chassis".into(), format!("chassis-{name}").into());
        all.push(shared(node));
    }
    all.extend(pod_with("a", "ovn-default", "node1", 2));
    all.extend(pod_with("b", "other", "node1", 3));
    all.extend(pod_with("floating", "ovn-default", "node2", 4));
    if gateway_type == GatewayType::Centralized {
        all.push(shared(Gateway { subnet: "other".into(), active: vec!["node2".into()] }));
    }
    all
}

fn packet(from: &'static str, switch: &'static str, source: (u8, &str), to: &str) -> Packet {
    let router = stable_mac(&format!("router-port:{switch}"));
    let (host, source) = source;
    Packet {
        from,
        switch,
        fields: format!(
            "eth.src == {} && eth.dst == {router} && ip4.src == {source} && ip4.dst == {to} && \
             ip.ttl == 64 && tcp && tcp.src == 40000 && tcp.dst == 80",
            mac(host)
        ),
    }
}

#[test]
fn packets_leave_through_the_gateway_of_their_pod() {
    let mut ovn = Northd::start();
    ovn.set(cluster(GatewayType::Distributed));
    let from_a = packet("a.default", "ovn-default", (2, "10.16.0.2"), OUTSIDE);
    let from_b = packet("b.default", "other", (3, "10.20.0.3"), OUTSIDE);
    assert!(ovn.reaches(&from_a, "node-node1"), "{}", ovn.trace(&from_a));
    assert!(ovn.reaches(&from_b, "node-node1"), "{}", ovn.trace(&from_b));
    // Inside the VPC nothing goes to a gateway, not even from a pod with an external address: a
    // source route would have taken it there.
    let east = packet("floating.default", "ovn-default", (4, "10.16.0.4"), "10.20.0.3");
    assert!(ovn.reaches(&east, "b.default"), "{}", ovn.trace(&east));
    let north = packet("floating.default", "ovn-default", (4, "10.16.0.4"), OUTSIDE);
    let trace = ovn.trace(&north);
    assert!(trace.contains("172.56.0.1") && trace.contains("ovn-cluster-external"), "{trace}");
    assert!(!ovn.reaches(&north, "node-node2"), "{trace}");
    ovn.set(cluster(GatewayType::Centralized));
    assert!(ovn.reaches(&from_a, "node-node1"), "{}", ovn.trace(&from_a));
    assert!(ovn.reaches(&from_b, "node-node2"), "{}", ovn.trace(&from_b));
}
