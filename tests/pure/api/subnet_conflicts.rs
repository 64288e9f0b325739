//! Rules between subnets and other objects.

use kube_ovn::{
    api::{
        Node, Subnet, Vpc,
        parse::{conflicts, node_conflicts, parse_subnet, vpc_conflicts},
    },
    net::DualStack,
};

use super::{expect_finding, settings, subnet};

fn aged(name: &str, cidr: &str, created: i64) -> Subnet {
    Subnet { created, ..parse_subnet(&subnet(name, cidr), &settings()).unwrap() }
}

fn vpc(name: &str, namespaces: &[&str]) -> Vpc {
    Vpc {
        name: name.into(),
        namespaces: namespaces.iter().map(|n| (*n).into()).collect(),
        default_subnet: None,
        static_routes: vec![],
        policy_routes: vec![],
        external: false,
        invalid: vec![],
        deleting: false,
    }
}

/// Upstream wrote the condition and built both switches all the same.
#[test]
fn bug_the_younger_of_two_overlapping_subnets_is_refused() {
    let (old, young) = (aged("z", "10.16.0.0/16", 1), aged("a", "10.16.3.0/24", 2));
    assert!(conflicts(&old, [&young, &old]).is_empty());
    let found = conflicts(&young, [&old, &young]);
    expect_finding(&found, &["spec.cidrBlock", "10.16.3.0/24", "10.16.0.0/16", "\"z\""]);
    let twin = aged("b", "10.16.3.0/24", 2);
    assert!(conflicts(&young, [&twin]).is_empty(), "names break ties");
    assert_eq!(conflicts(&twin, [&young]).len(), 1);
}

#[test]
fn one_family_in_common_is_enough() {
    let old = aged("a", "10.16.0.0/16,fd00::/112", 1);
    assert_eq!(conflicts(&aged("b", "10.17.0.0/16,fd00::/64", 2), [&old]).len(), 1);
    assert!(conflicts(&aged("b", "10.17.0.0/16", 2), [&old]).is_empty());
}

#[test]
fn other_ground_does_not_conflict() {
    let old = aged("a", "10.16.0.0/16", 1);
    let vpc = Subnet { vpc: "v1".into(), ..aged("b", "10.16.0.0/16", 2) };
    let vlan = Subnet { vlan: Some("v".into()), ..aged("b", "10.16.0.0/16", 2) };
    let provider = Subnet { provider: "n.d".into(), ..aged("b", "10.16.0.0/16", 2) };
    let same = Subnet { name: "c".into(), created: 3, ..provider.clone() };
    for other in [&vpc, &vlan, &provider] {
        assert!(conflicts(other, [&old]).is_empty(), "{}", other.name);
    }
    assert_eq!(conflicts(&same, [&provider]).len(), 1);
}

#[test]
fn routing_tables_are_shared_by_all() {
    let raw = |name: &str, cidr: &str, created: i64| {
        let mut raw = subnet(name, cidr);
        raw.spec.external_egress_gateway = "10.9.0.1".into();
        raw.spec.policy_routing_table_id = 1000;
        raw.spec.policy_routing_priority = 500;
        Subnet { created, ..parse_subnet(&raw, &settings()).unwrap() }
    };
    let (old, young) = (raw("a", "10.16.0.0/16", 1), raw("b", "10.17.0.0/16", 2));
    expect_finding(&conflicts(&young, [&old]), &["spec.policyRoutingTableID", "1000", "\"a\""]);
}

#[test]
fn vpc_must_exist() {
    let lone = aged("a", "10.16.0.0/16", 1);
    let found = vpc_conflicts(&lone, &settings(), []);
    expect_finding(&found, &["spec.vpc", "ovn-cluster", "create the Vpc"]);
    assert!(vpc_conflicts(&lone, &settings(), [&vpc("ovn-cluster", &[])]).is_empty());
    let ipam_only = Subnet { vpc: "".into(), provider: "n.d".into(), ..lone };
    assert!(vpc_conflicts(&ipam_only, &settings(), []).is_empty());
}

#[test]
fn namespaces_belong_to_one_vpc() {
    let vpcs = [vpc("ovn-cluster", &[]), vpc("v1", &["ns1"])];
    let subnet = |vpc: &str, namespace: &str| Subnet {
        vpc: vpc.into(),
        namespaces: vec![namespace.into()],
        ..aged("a", "10.16.0.0/16", 1)
    };
    assert!(vpc_conflicts(&subnet("v1", "ns1"), &settings(), &vpcs).is_empty());
    assert!(vpc_conflicts(&subnet("ovn-cluster", "ns2"), &settings(), &vpcs).is_empty());
    let found = vpc_conflicts(&subnet("v1", "ns2"), &settings(), &vpcs);
    expect_finding(&found, &["spec.namespaces", "ns2", "v1"]);
    let found = vpc_conflicts(&subnet("ovn-cluster", "ns1"), &settings(), &vpcs);
    expect_finding(&found, &["spec.namespaces", "ns1", "v1"]);
}

#[test]
fn nodes_stay_outside_overlay_subnets() {
    let node = Node {
        name: "n1".into(),
        uid: "".into(),
        labels: Default::default(),
        annotations: Default::default(),
        internal_ips: DualStack::parse_addresses("172.18.0.2,fc00::2").unwrap(),
        ready: true,
        userspace: false,
        created: 0,
    };
    let overlay = aged("a", "172.18.0.0/16", 1);
    let found = node_conflicts(&overlay, &settings(), [&node]);
    expect_finding(&found, &["spec.cidrBlock", "172.18.0.2", "n1"]);
    let underlay = Subnet { vlan: Some("v".into()), ..overlay.clone() };
    assert!(node_conflicts(&underlay, &settings(), [&node]).is_empty());
    let custom = Subnet { vpc: "v1".into(), ..overlay };
    assert!(node_conflicts(&custom, &settings(), [&node]).is_empty());
}
