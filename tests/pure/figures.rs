//! Metrics of subnets and of the node's kernel.

use std::sync::Arc;

use kube_ovn::{
    api::{Gateway, GatewayType, NamedGateway},
    controller::figures,
    host::parse_counters,
    ipam::{Ipam, Record, SubnetSpec},
    net::Family,
    node::figures as node,
    store::{Store, Stored},
    telemetry::Sample,
};

use crate::support::objects::{addresses, pod_ip, subnet};

fn shown(samples: &[Sample]) -> Vec<String> {
    let line = |s: &Sample| {
        assert_eq!(s.labels.len(), s.family.labels.len(), "{}", s.family.name);
        format!("{}{:?} {}", s.family.name, s.labels, s.value)
    };
    samples.iter().map(line).collect()
}

#[track_caller]
fn has(all: &[String], wanted: &str) {
    assert!(all.iter().any(|line| line == wanted), "{wanted} is not in\n{}", all.join("\n"));
}

#[test]
fn addresses_and_gateway_of_subnets() {
    let mut central = subnet("s", "10.0.0.0/29,fd00::/120");
    central.gateway_type = Some(GatewayType::Centralized);
    central.gateway_nodes = vec![NamedGateway { node: "n1".into(), egress: None }];
    let gateway = Gateway { subnet: "s".into(), active: vec!["n1".into()] };
    let mut record = pod_ip("", "x", "join", "100.64.0.2,fd00:100:64::2");
    record.name = "node-n1".into();
    let mut store = Store::default();
    let objects: [Arc<dyn Stored>; 3] = [Arc::new(central), Arc::new(gateway), Arc::new(record)];
    for object in objects {
        let _ = store.upsert(object);
    }
    let mut ipam = Ipam::new();
    let excludes = ["10.0.0.6", "fd00::ff"];
    let spec = SubnetSpec::parse("s", "10.0.0.0/29,fd00::/120", "10.0.0.1,fd00::1", &excludes);
    ipam.upsert_subnet(spec.unwrap()).unwrap();
    let record = Record {
        owner: "ns/p".into(),
        port: "p.ns".into(),
        subnet: "s".into(),
        addresses: addresses("10.0.0.2,fd00::2"),
        mac: None,
    };
    assert!(ipam.restore(&record).is_empty());
    let all = shown(&figures::samples(&store, &ipam));
    // Dual stack: the scarcer family counts as free, IPv4 as used.
    has(&all, r#"subnet_available_ip_count["s", "Dual", "10.0.0.0/29,fd00::/120"] 3"#);
    has(&all, r#"subnet_used_ip_count["s", "Dual", "10.0.0.0/29,fd00::/120"] 1"#);
    has(&all, r#"subnet_ip_assign_info["s", "10.0.0.2", "p.ns"] 1"#);
    has(&all, r#"subnet_ip_assign_info["s", "fd00::2", "p.ns"] 1"#);
    let ipam = r#"subnet_ipam_info["s", "10.0.0.0/29", "10.0.0.3-10.0.0.5", "10.0.0.6", "10.0.0.3-10.0.0.5", "10.0.0.2"] 1"#;
    has(&all, ipam);
    let v4 = r#"centralized_subnet_info["s", "false", "n1", "n1", "ip4.src == 10.0.0.0/29", "100.64.0.2"] 1"#;
    has(&all, v4);
    assert!(all.iter().any(|l| l.contains("ip6.src == fd00::/120")), "{all:?}");
}

/// TRAP: the label holds more than the name of the subnet.
#[test]
fn trap_subnet_name_of_gateway_counters() {
    let listing = "*filter\n[7:420] -A FORWARD -s 10.16.0.0/16 -m comment --comment \
                   \"ovn-subnet-gateway,ovn-default\"\n[1:60] -A FORWARD -d 10.16.0.0/16 -m comment \
                   --comment \"ovn-subnet-gateway,ovn-default\"\nCOMMIT\n";
    let counters = parse_counters(listing);
    let samples: Vec<Sample> =
        counters.iter().flat_map(|c| node::traffic("n1", Family::V4, c)).collect();
    let all = shown(&samples);
    let labels = r#"["n1", "ovn-default/egress/IPv4", "10.16.0.0/16", "egress", "IPv4"]"#;
    has(&all, &format!("ovn_subnet_gateway_packets{labels} 7"));
    has(&all, &format!("ovn_subnet_gateway_packet_bytes{labels} 420"));
    assert!(all.iter().any(|l| l.contains("ovn-default/ingress/IPv4")));
}

#[test]
fn checksum_errors() {
    let snmp = "Tcp: A InCsumErrors\nTcp: 1 9\nUdp: InDatagrams InCsumErrors X\nUdp: 10 3 0\n";
    assert_eq!(node::checksum_errors(snmp), Some(3.0));
    assert_eq!(node::checksum_errors(""), None);
    assert_eq!(node::checksum_errors("Udp: InDatagrams\nUdp: 1\n"), None);
}
