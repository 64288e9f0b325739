//! Ways out of the cluster: which node carries a centralized subnet, policy routing, NAT rules.

use std::collections::{BTreeMap, BTreeSet};

use kube_ovn::{
    api::{
        GatewayType, NamedGateway, PolicyRouting, Subnet, Text, crd,
        parse::{applied_nat_rules, parse_subnet},
    },
    controller::{
        gateway::{change_events, choose},
        gateway_probe::{Answer, Silence, targets},
    },
    host::{
        EgressRouting, HostOp, HostView, LocalPod, Observed, SubnetView, desired_host, diff_host,
        unreachable_gateways,
    },
    net::{POLICY_PROTOCOL, PolicyRule, RouteProtocol},
    store::{Store, Wanted},
};

use crate::{
    host::{address, link},
    support::{
        host_view::{cidr, dual_node, ip, overlay, seen},
        objects::*,
    },
};

fn central(nodes: &[&str]) -> Subnet {
    let named = |node: &&str| NamedGateway { node: (*node).into(), egress: None };
    Subnet {
        gateway_type: Some(GatewayType::Centralized),
        gateway_nodes: nodes.iter().map(named).collect(),
        ..subnet("c", "10.20.0.0/16")
    }
}

fn cluster() -> Store {
    let mut store = Store::default();
    for n in 1..=3 {
        store.upsert(shared(node(&format!("node{n}"), &format!("172.18.0.{n}"))));
        store.upsert(shared(node_ip(&format!("node{n}"), &format!("100.64.0.{}", n + 1))));
    }
    store
}

fn names(list: &[&str]) -> BTreeSet<Text> {
    list.iter().map(|n| (*n).into()).collect()
}

fn active(store: &Store, of: &Subnet, current: &str, silent: &[&str]) -> Vec<String> {
    let choice = choose(store, of, Some(current), &names(silent)).unwrap();
    choice.active.iter().map(|n| n.to_string()).collect()
}

#[test]
fn the_active_gateway_stays_until_it_is_silent_or_not_ready() {
    let mut store = cluster();
    let of = central(&["node1", "node2"]);
    assert_eq!(active(&store, &of, "", &[]), ["node1"]);
    assert_eq!(active(&store, &of, "node2", &[]), ["node2"], "sticky");
    assert_eq!(active(&store, &of, "node2", &["node2"]), ["node1"]);
    assert_eq!(active(&store, &of, "node1", &[]), ["node1"], "no way back");
    let mut gone = node("node1", "172.18.0.1");
    gone.ready = false;
    store.upsert(shared(gone));
    assert_eq!(active(&store, &of, "node1", &[]), ["node2"]);
    // Nobody answers: the fault is ours, not that of all nodes at once.
    assert_eq!(active(&store, &of, "node2", &["node1", "node2"]), ["node2"]);
    assert_eq!(active(&store, &central(&["node9"]), "", &[]), [""; 0]);
}

#[test]
fn ecmp_gateways_are_all_that_answer() {
    let store = cluster();
    let mut of = central(&["node1", "node2", "node3"]);
    of.enable_ecmp = true;
    assert_eq!(active(&store, &of, "", &[]), ["node1", "node2", "node3"]);
    assert_eq!(active(&store, &of, "", &["node2"]), ["node1", "node3"]);
    // A node with an egress address of each family is one next hop.
    of.gateway_nodes.push(NamedGateway { node: "node1".into(), egress: Some(ip("fd00::1")) });
    assert_eq!(active(&store, &of, "", &[]), ["node1", "node2", "node3"]);
}

#[test]
fn silence_is_three_lost_echoes_of_a_node_that_was_heard() {
    let mut store = cluster();
    assert!(targets(&store).is_empty(), "nobody is probed without centralized subnets");
    store.upsert(shared(central(&["node1", "node2", "unknown"])));
    let probed = targets(&store);
    assert_eq!(probed.keys().map(|k| &**k).collect::<Vec<_>>(), ["node1", "node2"]);
    let mut silence = Silence::default();
    let round = |a, b| BTreeMap::from([("node1".into(), a), ("node2".into(), b)]);
    // node2 has never answered: perhaps this host cannot reach it at all.
    silence.note(&round(Answer::Heard, Answer::Lost));
    for _ in 0..2 {
        silence.note(&round(Answer::Lost, Answer::Lost));
        assert!(silence.silent().is_empty());
    }
    silence.note(&round(Answer::Lost, Answer::Lost));
    assert_eq!(silence.silent(), names(&["node1"]));
    silence.note(&round(Answer::Heard, Answer::Lost));
    assert!(silence.silent().is_empty());
}

fn routed(name: &str, block: &str, gateways: &[&str]) -> Subnet {
    Subnet {
        nat_outgoing: false,
        policy_routing: Some(PolicyRouting {
            gateways: gateways.iter().map(|g| ip(g)).collect(),
            priority: 1500,
            table: 1000,
        }),
        ..overlay(name, block)
    }
}

fn centralized(mut subnet: Subnet, nodes: &[&str]) -> SubnetView {
    subnet.gateway_type = Some(GatewayType::Centralized);
    subnet.gateway_nodes = central(nodes).gateway_nodes;
    seen(subnet)
}

fn rule(source: &str) -> PolicyRule {
    PolicyRule { source: cidr(source), priority: 1500, table: 1000 }
}

fn egress(view: &HostView) -> EgressRouting {
    desired_host(view).egress.unwrap()
}

#[test]
fn pods_of_distributed_subnets_are_routed_one_by_one() {
    let mut view = dual_node();
    view.subnets.push(seen(routed("e", "10.30.0.0/16,fd00:30::/64", &["172.18.0.9", "fc00::9"])));
    assert_eq!(egress(&view), EgressRouting::default(), "no pod, no table");
    let pod =
        |subnet: &str, ips: &str| LocalPod { subnet: subnet.into(), addresses: addresses(ips) };
    view.local_pods = vec![pod("e", "10.30.0.5,fd00:30::5"), pod("other", "10.16.0.5")];
    let wanted = egress(&view);
    assert_eq!(wanted.gateways, BTreeSet::from([(1000, ip("172.18.0.9")), (1000, ip("fc00::9"))]));
    assert_eq!(wanted.rules, BTreeSet::from([rule("10.30.0.5/32"), rule("fd00:30::5/128")]));
}

#[test]
fn centralized_subnets_are_routed_on_every_listed_node() {
    let mut view = dual_node();
    let of = |nodes| centralized(routed("e", "10.30.0.0/16", &["172.18.0.9"]), nodes);
    view.subnets.push(of(&["node2"]));
    assert_eq!(egress(&view), EgressRouting::default());
    view.subnets.push(of(&["node2", "node1"]));
    assert_eq!(egress(&view).rules, BTreeSet::from([rule("10.30.0.0/16")]));
    // Upstream's map of (gateway, priority, table) lost one of two such subnets.
    view.subnets.push(centralized(routed("f", "10.31.0.0/16", &["172.18.0.9"]), &["node1"]));
    let wanted = egress(&view);
    assert_eq!(wanted.rules, BTreeSet::from([rule("10.30.0.0/16"), rule("10.31.0.0/16")]));
    assert_eq!(wanted.gateways.len(), 1);
}

#[test]
fn policy_routing_ignores_subnets_with_nat_outgoing_bug_21() {
    let mut view = dual_node();
    let mut subnet = routed("e", "10.30.0.0/16", &["172.18.0.9"]);
    subnet.nat_outgoing = true;
    view.subnets.push(centralized(subnet, &["node1"]));
    assert_eq!(egress(&view), EgressRouting::default());
}

#[test]
fn policy_routing_converges_and_removes_what_an_earlier_life_left() {
    let mut view = dual_node();
    view.subnets.push(centralized(routed("e", "10.30.0.0/16", &["172.18.0.9"]), &["node1"]));
    let mut state = desired_host(&view);
    let mut observed = Observed {
        links: vec![link(2, "eth0"), link(7, "ovn0")],
        addresses: vec![address("eth0", "172.18.0.2/16")],
        policy_rules: vec![PolicyRule { table: 77, ..rule("10.99.0.0/16") }],
        ..Observed::default()
    };
    // Only this part is looked at.
    state.external_ids.clear();
    state.ports.clear();
    (state.routes, state.firewall) = (None, None);
    state.sysctls.clear();
    state.links.clear();
    let ops = diff_host(&state, &observed);
    let [HostOp::ReplaceRoute { route, .. }, HostOp::AddRule(new), HostOp::RemoveRule(old)] =
        &ops[..]
    else {
        panic!("{ops:?}");
    };
    assert_eq!((&*route.link, route.table, route.gateway), ("eth0", 1000, Some(ip("172.18.0.9"))));
    assert_eq!(route.protocol, RouteProtocol::Other(POLICY_PROTOCOL));
    assert_eq!((new, old.table), (&rule("10.30.0.0/16"), 77));
    (observed.policy_routes, observed.policy_rules) = (vec![route.clone()], vec![new.clone()]);
    assert_eq!(diff_host(&state, &observed), []);
    // The gateway moves, and at last the subnet goes: routes go after the rules that use them.
    state.egress = Some(EgressRouting::default());
    let ops = diff_host(&state, &observed);
    assert!(matches!(&ops[..], [HostOp::RemoveRule(_), HostOp::RemoveRoute { .. }]), "{ops:?}");
}

#[test]
fn a_gateway_that_no_link_reaches_is_named() {
    let mut view = dual_node();
    view.subnets.push(centralized(routed("e", "10.30.0.0/16", &["192.0.2.9"]), &["node1"]));
    let observed =
        Observed { addresses: vec![address("eth0", "172.18.0.2/16")], ..Observed::default() };
    assert_eq!(unreachable_gateways(&egress(&view), &observed), [ip("192.0.2.9")]);
}

#[test]
fn nat_rules_have_upstream_identities() {
    let mut raw = crd::Subnet::new("net1", Default::default());
    raw.spec.cidr_block = "10.0.11.0/24".into();
    raw.spec.nat_outgoing = true;
    let mut rule = crd::NatRule { action: "forward".into(), ..Default::default() };
    rule.matching.src_ips = "10.0.11.0/30,10.0.11.254".into();
    raw.spec.nat_outgoing_policy_rules = vec![rule.clone(), rule];
    let rules = applied_nat_rules("net1", &raw.spec);
    // sha256("net1" + "0" + `{"match":{"srcIPs":"..."},"action":"forward"}`), 12 digits.
    let ids: Vec<&str> = rules.iter().map(|r| r.rule_id.as_str()).collect();
    assert_eq!(ids[0].len(), 12);
    assert_ne!(ids[0], ids[1], "the index tells equal rules apart");
    assert_eq!((rules[0].action.as_str(), &rules[0].matching), ("forward", &rules[1].matching));
    let parsed = parse_subnet(&raw, &settings()).unwrap();
    assert_eq!(parsed.nat_rules.iter().map(|t| &**t).collect::<Vec<_>>(), ids);
    raw.spec.nat_outgoing = false;
    assert!(applied_nat_rules("net1", &raw.spec).is_empty());
}

#[test]
fn policy_routing_needs_its_numbers() {
    let mut raw = crd::Subnet::new("e", Default::default());
    raw.spec.cidr_block = "10.30.0.0/16".into();
    raw.spec.external_egress_gateway = "172.18.0.9".into();
    let found = parse_subnet(&raw, &settings()).unwrap_err();
    assert!(found.iter().any(|f| f.message.contains("spec.policyRoutingTableID")), "{found:?}");
    raw.spec.policy_routing_table_id = 1000;
    raw.spec.policy_routing_priority = 1500;
    assert!(parse_subnet(&raw, &settings()).is_ok());
}

#[test]
fn changes_of_a_gateway_are_told() {
    let (old, new) = (subnet("c", "10.20.0.0/16"), central(&["node1"]));
    assert_eq!(change_events(&old, &old), []);
    let told: Vec<String> = change_events(&old, &new)
        .iter()
        .map(|wanted| match wanted {
            Wanted::Event { reason, message, .. } => format!("{reason}: {message}"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        told,
        [
            "SubnetGatewayTypeChanged: gatewayType changes from distributed to centralized",
            "SubnetGatewayNodeChanged: gatewayNode changes from \"\" to \"node1\"",
        ]
    );
}
