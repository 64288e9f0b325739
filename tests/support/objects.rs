//! Builders of validated objects.

use std::{net::IpAddr, sync::Arc};

use kube_ovn::{
    api::*,
    net::{DualStack, Mac},
    store::Stored,
};

pub fn addresses(text: &str) -> DualStack<IpAddr> {
    DualStack::parse_addresses(text).unwrap()
}

pub fn settings() -> Settings {
    Settings {
        cluster_router: "ovn-cluster".into(),
        default_subnet: "ovn-default".into(),
        node_switch: "join".into(),
        service_cidrs: DualStack::parse_cidrs("10.96.0.0/12").unwrap(),
        api_server: None,
        pod_nic_type: "veth-pair".into(),
        enable_lb: true,
        enable_np: true,
        load_balancers: Default::default(),
        enable_anp: false,
        keep_vm_ip: true,
        node_local_dns: vec![],
        network_type: "geneve".into(),
        enable_ipsec: false,
        external: ExternalSettings::default(),
    }
}

pub fn vpc(name: &str) -> Vpc {
    Vpc {
        name: name.into(),
        namespaces: vec![],
        default_subnet: None,
        static_routes: vec![],
        policy_routes: vec![],
        external: false,
        invalid: vec![],
        deleting: false,
    }
}

pub fn subnet(name: &str, cidr: &str) -> Subnet {
    let cidrs = DualStack::parse_cidrs(cidr).unwrap();
    Subnet {
        name: name.into(),
        uid: name.into(),
        vpc: "ovn-cluster".into(),
        provider: "ovn".into(),
        default: name == "ovn-default",
        gateways: cidrs.map(|c| c.first_usable()),
        cidrs,
        excludes: vec![],
        namespaces: vec![],
        namespace_selectors: vec![],
        gateway_type: (name != "join").then_some(GatewayType::Distributed),
        gateway_nodes: vec![],
        enable_ecmp: false,
        nat_outgoing: true,
        nat_rules: vec![],
        private: false,
        allow_subnets: vec![],
        vlan: None,
        logical_gateway: false,
        u2o_interconnection: false,
        enable_lb: None,
        disable_gateway_check: false,
        mtu: None,
        route_table: "".into(),
        multicast_snoop: false,
        dhcp: None,
        router_advertisement: None,
        policy_routing: None,
        created: 0,
        deleting: false,
        ..Subnet::default()
    }
}

pub fn node(name: &str, internal: &str) -> Node {
    Node {
        name: name.into(),
        uid: name.into(),
        labels: Map::new(),
        annotations: Map::new(),
        internal_ips: addresses(internal),
        ready: true,
        userspace: false,
        created: 0,
    }
}

pub fn namespace(name: &str) -> Namespace {
    Namespace { name: name.into(), labels: Map::new(), annotations: Map::new(), deleting: false }
}

pub fn pod(namespace: &str, name: &str, node: Option<&str>) -> Pod {
    Pod {
        namespace: namespace.into(),
        name: name.into(),
        uid: format!("{namespace}-{name}").into(),
        node: node.map(Into::into),
        host_network: false,
        life: PodLife::Alive,
        labels: Map::new(),
        annotations: Map::new(),
        owner: None,
        ports: vec![],
        invalid: vec![],
    }
}

pub fn pod_ip(namespace: &str, name: &str, subnet: &str, ips: &str) -> Ip {
    Ip {
        name: format!("{name}.{namespace}").into(),
        pod_name: name.into(),
        namespace: namespace.into(),
        subnet: subnet.into(),
        node: "".into(),
        addresses: addresses(ips),
        mac: Some(Mac::local(ips.len() as u64 * 7 + name.len() as u64)),
        pod_type: "".into(),
        reserved: false,
        managed: true,
        deleting: false,
    }
}

pub fn node_ip(node: &str, ips: &str) -> Ip {
    Ip {
        name: format!("node-{node}").into(),
        pod_name: node.into(),
        namespace: "".into(),
        mac: Some(Mac([2, 0, 0, 0, 0, node.len() as u8])),
        ..pod_ip("", node, "join", ips)
    }
}

pub fn shared<T: Object>(object: T) -> Arc<dyn Stored> {
    Arc::new(object)
}

/// Two nodes, the default network, one pod on each node.
pub fn small_cluster() -> Vec<Arc<dyn Stored>> {
    vec![
        shared(settings()),
        shared(vpc("ovn-cluster")),
        shared(subnet("join", "100.64.0.0/16,fd00:100:64::/112")),
        shared(subnet("ovn-default", "10.16.0.0/16,fd00:10:16::/112")),
        shared(namespace("default")),
        shared(node("node1", "172.18.0.2,fc00::2")),
        shared(node("node2", "172.18.0.3,fc00::3")),
        shared(node_ip("node1", "100.64.0.2,fd00:100:64::2")),
        shared(node_ip("node2", "100.64.0.3,fd00:100:64::3")),
        shared(pod("default", "a", Some("node1"))),
        shared(pod("default", "b", Some("node2"))),
        shared(pod_ip("default", "a", "ovn-default", "10.16.0.2,fd00:10:16::2")),
        shared(pod_ip("default", "b", "ovn-default", "10.16.0.3,fd00:10:16::3")),
    ]
}

/// A Service with one TCP port, 80.
pub fn service(namespace: &str, name: &str, address: &str) -> Service {
    Service {
        namespace: namespace.into(),
        name: name.into(),
        cluster_ips: vec![address.parse().unwrap()],
        external_ips: vec![],
        ports: vec![ServicePort { name: "".into(), protocol: Protocol::Tcp, port: 80 }],
        selector: Map::new(),
        session: names::Session::None,
        session_seconds: 10800,
        internal_traffic: TrafficPolicy::Cluster,
        external_traffic: TrafficPolicy::Cluster,
        is_load_balancer: false,
        vpc: None,
        created: 0,
        invalid: vec![],
    }
}

/// The slice of a Service, port 8080 of these addresses.
pub fn slice(
    namespace: &str,
    service: &str,
    addresses: impl IntoIterator<Item = String>,
) -> EndpointSlice {
    let endpoints = addresses.into_iter().map(|address| Endpoint {
        address: address.parse().unwrap(),
        node: None,
        pod: None,
        state: EndpointState::Ready,
        zones: vec![],
    });
    EndpointSlice {
        namespace: namespace.into(),
        name: format!("{service}-1").into(),
        service: Some(format!("{namespace}/{service}").into()),
        ports: vec![EndpointPort { name: "".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: endpoints.collect(),
    }
}
