//! Which of several rules about one packet counts: the table in `src/ovn/acl.rs` against OVN.

use std::sync::Arc;

use kube_ovn::{
    api::{
        parse::{
            parse_admin_network_policy, parse_baseline_admin_network_policy, parse_network_policy,
        },
        *,
    },
    net::{Family, Mac},
    store::Stored,
};
use serde_json::{Value, json};

use crate::{
    northd::{Northd, Packet},
    support::objects::*,
};

const FROM: &str = "10.16.0.2";
const TO: &str = "10.16.0.3";

fn mac(host: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, host])
}

/// `a` sends to port 80 of `b`, on one switch.
fn packet() -> Packet {
    Packet {
        from: "a.default",
        switch: "ovn-default",
        fields: format!(
            "eth.src == {} && eth.dst == {} && ip4.src == {FROM} && ip4.dst == {TO} && \
             ip.ttl == 64 && tcp && tcp.src == 40000 && tcp.dst == 80",
            mac(2),
            mac(3)
        ),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Says {
    Allow,
    Drop,
}

/// The cluster under test, before it goes into the store.
struct World {
    subnet: Subnet,
    pods: [Pod; 2],
    more: Vec<Arc<dyn Stored>>,
}

impl World {
    fn new() -> Self {
        let mut pods = [pod("default", "a", Some("node1")), pod("default", "b", Some("node2"))];
        for pod in &mut pods {
            pod.labels.insert("app".into(), pod.name.clone());
        }
        World { subnet: subnet("ovn-default", "10.16.0.0/16"), pods, more: vec![] }
    }

    fn objects(self) -> Vec<Arc<dyn Stored>> {
        let mut all = vec![
            shared(Settings { enable_anp: true, ..settings() }),
            shared(vpc("ovn-cluster")),
            shared(subnet("join", "100.64.0.0/16")),
            shared(namespace("default")),
            shared(node("node1", "172.18.0.2")),
            shared(node("node2", "172.18.0.3")),
            shared(node_ip("node1", "100.64.0.2")),
            shared(node_ip("node2", "100.64.0.3")),
            shared(self.subnet),
        ];
        for (n, pod) in (2..).zip(self.pods) {
            let mut ip = pod_ip("default", &pod.name, "ovn-default", &format!("10.16.0.{n}"));
            ip.mac = Some(mac(n));
            all.extend([shared(pod), shared(ip)]);
        }
        all.extend(self.more);
        all
    }

    fn secure(&mut self, pod: usize, group: SecurityGroup) {
        let key: Text = "ovn.kubernetes.io/security_groups".into();
        let named =
            self.pods[pod].annotations.get(&key).map(|n| format!("{n},")).unwrap_or_default();
        self.pods[pod].annotations.insert(key, format!("{named}{}", group.name).into());
        self.more.push(shared(group));
    }
}

fn group(name: &str) -> SecurityGroup {
    SecurityGroup { name: name.into(), ..SecurityGroup::default() }
}

fn rule(says: Says, remote: &str) -> SecurityRules {
    let rule = SecurityRule {
        families: vec![Family::V4],
        priority: 1,
        remote: Remote::Address(remote.into()),
        traffic: Traffic::Tcp(Some((80, 80))),
        verdict: if says == Says::Allow { Verdict::Allow } else { Verdict::Drop },
    };
    SecurityRules { rules: vec![rule], invalid: vec![] }
}

fn subnet_acl(world: &mut World, direction: &str, priority: i64, says: Says) {
    world.subnet.acls.push(SubnetAcl {
        direction: direction.into(),
        priority,
        matching: format!("ip4.src == {FROM} && tcp.dst == 80").into(),
        action: if says == Says::Allow { "allow-related" } else { "drop" }.into(),
    });
}

/// What can speak about a packet towards `b`, the one that counts first.
type Layer = (&'static str, &'static [Says], fn(&mut World, Says));

const BOTH: &[Says] = &[Says::Allow, Says::Drop];
const ALLOWS: &[Says] = &[Says::Allow];
const DROPS: &[Says] = &[Says::Drop];

/// Pods of all namespaces with a label.
fn app(name: &str) -> Value {
    json!({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": name}}}})
}

fn action(says: Says) -> &'static str {
    if says == Says::Allow { "Allow" } else { "Deny" }
}

/// `spec` of an administrator's policy about what `b` receives or `a` sends.
fn administered(direction: &str, action: &str) -> Value {
    let ports = json!([{"portNumber": {"protocol": "TCP", "port": 80}}]);
    if direction == "ingress" {
        let rule = json!({"name": "r", "action": action, "from": [app("a")], "ports": ports});
        json!({"priority": 9, "subject": app("b"), "ingress": [rule]})
    } else {
        let rule = json!({"name": "r", "action": action, "to": [app("b")], "ports": ports});
        json!({"priority": 9, "subject": app("a"), "egress": [rule]})
    }
}

fn admin_policy(world: &mut World, direction: &str, action: &str) {
    let raw = json!({"apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": "AdminNetworkPolicy", "metadata": {"name": "admin"},
        "spec": administered(direction, action)});
    let raw = serde_json::from_value(raw).unwrap();
    world.more.push(shared(parse_admin_network_policy(&raw).unwrap()));
}

fn baseline_policy(world: &mut World, direction: &str, action: &str) {
    let raw = json!({"apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": "BaselineAdminNetworkPolicy", "metadata": {"name": "default"},
        "spec": administered(direction, action)});
    let raw = serde_json::from_value(raw).unwrap();
    world.more.push(shared(parse_baseline_admin_network_policy(&raw).unwrap()));
}

/// A policy that isolates the port, with or without a rule that admits the packet.
fn network_policy(world: &mut World, direction: &str, says: Says) {
    let pods = |name: &str| json!({"matchLabels": {"app": name}});
    let (subject, peer, end, kind) = match direction {
        "ingress" => ("b", "a", "from", "Ingress"),
        _ => ("a", "b", "to", "Egress"),
    };
    let rules = match says {
        Says::Allow => json!([{end: [{"podSelector": pods(peer)}]}]),
        Says::Drop => json!([]),
    };
    let raw = json!({"metadata": {"name": "np", "namespace": "default"},
        "spec": {"podSelector": pods(subject), "policyTypes": [kind], direction: rules}});
    world.more.push(shared(parse_network_policy(&serde_json::from_value(raw).unwrap())));
}

fn both_in(world: &mut World, name: &str) {
    let key: Text = "ovn.kubernetes.io/security_groups".into();
    for pod in &mut world.pods {
        let named = pod.annotations.get(&key).map(|n| format!("{n},")).unwrap_or_default();
        pod.annotations.insert(key.clone(), format!("{named}{name}").into());
    }
    world.more.push(shared(SecurityGroup {
        allow_same_group: true,
        // The sender's own side is not what this is about.
        egress: rule(Says::Allow, TO),
        ..group(name)
    }));
}

fn east_west(world: &mut World, direction: &str) {
    world.subnet.allow_ew_traffic = true;
    // Without any ACL the field does nothing.
    world.subnet.acls.push(SubnetAcl {
        direction: direction.into(),
        priority: 1,
        matching: "udp".into(),
        action: "drop".into(),
    });
}

/// Names as in the list in `src/ovn/acl.rs`.
fn ingress() -> Vec<Layer> {
    vec![
        ("AdminNetworkPolicy", BOTH, |w, s| admin_policy(w, "ingress", action(s))),
        ("subnet ACL, for example 2500", BOTH, |w, s| subnet_acl(w, "to-lport", 2500, s)),
        ("security group rule", BOTH, |w, s| {
            w.secure(1, SecurityGroup { ingress: rule(s, FROM), ..group("rule") });
        }),
        ("same security group", ALLOWS, |w, _| both_in(w, "same")),
        ("security group without a rule", DROPS, |w, _| w.secure(1, group("closed"))),
        ("NetworkPolicy, admitted", ALLOWS, |w, s| network_policy(w, "ingress", s)),
        ("NetworkPolicy, isolated", DROPS, |w, s| network_policy(w, "ingress", s)),
        ("allowEWTraffic", ALLOWS, |w, _| east_west(w, "to-lport")),
        ("subnet ACL, for example 1500", BOTH, |w, s| subnet_acl(w, "to-lport", 1500, s)),
        ("private subnet", ALLOWS, |w, _| w.subnet.private = true),
        ("subnet ACL, for example 1000", DROPS, |w, s| subnet_acl(w, "to-lport", 1000, s)),
        ("BaselineAdminNetworkPolicy", BOTH, |w, s| baseline_policy(w, "ingress", action(s))),
    ]
}

/// Before load balancing.
fn egress() -> Vec<Layer> {
    vec![
        ("subnet ACL, for example 2500", BOTH, |w, s| subnet_acl(w, "from-lport", 2500, s)),
        ("security group rule", BOTH, |w, s| {
            w.secure(0, SecurityGroup { egress: rule(s, TO), ..group("rule") });
        }),
        ("security group without a rule", DROPS, |w, _| w.secure(0, group("closed"))),
        ("allowEWTraffic", ALLOWS, |w, _| east_west(w, "from-lport")),
        ("subnet ACL, for example 1500", BOTH, |w, s| subnet_acl(w, "from-lport", 1500, s)),
    ]
}

/// After load balancing, on top of [`egress`]: both must admit.
fn late_egress() -> Vec<Layer> {
    vec![
        ("AdminNetworkPolicy", BOTH, |w, s| admin_policy(w, "egress", action(s))),
        ("NetworkPolicy, admitted", ALLOWS, |w, s| network_policy(w, "egress", s)),
        ("NetworkPolicy, isolated", DROPS, |w, s| network_policy(w, "egress", s)),
        ("BaselineAdminNetworkPolicy", BOTH, |w, s| baseline_policy(w, "egress", action(s))),
    ]
}

/// Every two layers that can contradict each other: the first one counts.
fn check(ovn: &mut Northd, layers: &[Layer]) {
    for (n, (high, says, put_high)) in layers.iter().enumerate() {
        for (low, below, put_low) in &layers[n + 1..] {
            // One object cannot isolate and admit at once.
            if high.starts_with("NetworkPolicy") && low.starts_with("NetworkPolicy") {
                continue;
            }
            for verdict in says.iter() {
                let Some(contrary) = below.iter().find(|s| *s != verdict) else { continue };
                let mut world = World::new();
                put_high(&mut world, *verdict);
                put_low(&mut world, *contrary);
                ovn.set(world.objects());
                let passes = ovn.reaches(&packet(), "b.default");
                assert_eq!(
                    passes,
                    *verdict == Says::Allow,
                    "{high} says {verdict:?}, {low} {contrary:?}\n{}",
                    ovn.trace(&packet())
                );
            }
        }
    }
}

/// The list in the documentation is the one that is checked here.
#[test]
fn the_documented_order_is_the_tested_one() {
    let text = include_str!("../../src/ovn/acl.rs");
    let mut lists = text.split("//! 1. ").skip(1);
    for layers in [ingress(), egress(), late_egress()] {
        let list = lists.next().expect("a numbered list").split("//!\n").next().unwrap();
        let mut at = 0;
        for (name, ..) in layers {
            let found = list[at..].find(name);
            at +=
                found.unwrap_or_else(|| panic!("{name:?} is not listed, or out of order: {list}"));
        }
    }
}

#[test]
fn of_two_rules_about_incoming_traffic_the_one_higher_in_the_list_counts() {
    let mut ovn = Northd::start();
    ovn.set(World::new().objects());
    assert!(ovn.reaches(&packet(), "b.default"), "{}", ovn.trace(&packet()));
    check(&mut ovn, &ingress());
}

#[test]
fn of_two_rules_about_outgoing_traffic_the_one_higher_in_the_list_counts() {
    let mut ovn = Northd::start();
    check(&mut ovn, &egress());
    check(&mut ovn, &late_egress());
    // What one point drops the other cannot admit.
    for (early, late) in [(Says::Allow, Says::Drop), (Says::Drop, Says::Allow)] {
        for (_, says, put_late) in late_egress() {
            if !says.contains(&late) {
                continue;
            }
            let mut world = World::new();
            world.secure(0, SecurityGroup { egress: rule(early, TO), ..group("rule") });
            put_late(&mut world, late);
            ovn.set(world.objects());
            assert!(!ovn.reaches(&packet(), "b.default"), "{}", ovn.trace(&packet()));
        }
    }
}

/// `Pass` leaves the decision to what follows; nothing follows: the packet goes through.
#[test]
fn pass_leaves_it_to_network_policies_and_then_to_the_baseline() {
    let mut ovn = Northd::start();
    let mut passes = |put: &dyn Fn(&mut World)| {
        let mut world = World::new();
        admin_policy(&mut world, "ingress", "Pass");
        put(&mut world);
        ovn.set(world.objects());
        ovn.reaches(&packet(), "b.default")
    };
    assert!(passes(&|_| {}));
    assert!(!passes(&|w| network_policy(w, "ingress", Says::Drop)));
    assert!(!passes(&|w| baseline_policy(w, "ingress", "Deny")));
    assert!(passes(&|w| {
        network_policy(w, "ingress", Says::Allow);
        baseline_policy(w, "ingress", "Deny");
    }));
}

/// A name is a number of its own on each pod; one that no pod has concerns nothing.
#[test]
fn a_named_port_of_an_administrators_policy_acts() {
    let mut ovn = Northd::start();
    for (direction, name, denied) in [
        ("ingress", "http", true),
        ("egress", "http", true),
        ("ingress", "other", false),
        ("egress", "other", false),
    ] {
        let mut world = World::new();
        let (protocol, number) = (policy::Protocol::Tcp, 80);
        world.pods[1].ports = vec![policy::NamedPort { name: "http".into(), protocol, number }];
        let mut spec = administered(direction, "Deny");
        spec[direction][0]["ports"] = json!([{"namedPort": name}]);
        let raw = json!({"apiVersion": "policy.networking.k8s.io/v1alpha1",
            "kind": "AdminNetworkPolicy", "metadata": {"name": "admin"}, "spec": spec});
        let raw = serde_json::from_value(raw).unwrap();
        world.more.push(shared(parse_admin_network_policy(&raw).unwrap()));
        ovn.set(world.objects());
        assert_eq!(ovn.reaches(&packet(), "b.default"), !denied, "{direction} {name}");
    }
}

/// Ports that name a group that does not exist are closed; a rule that opens them opens just what
/// it says.
#[test]
fn a_security_group_opens_what_it_says() {
    let mut ovn = Northd::start();
    let mut world = World::new();
    world.pods[1].annotations.insert("ovn.kubernetes.io/security_groups".into(), "nobody".into());
    ovn.set(world.objects());
    assert!(!ovn.reaches(&packet(), "b.default"));

    let mut world = World::new();
    world.secure(1, SecurityGroup { ingress: rule(Says::Allow, "10.16.0.0/24"), ..group("web") });
    ovn.set(world.objects());
    assert!(ovn.reaches(&packet(), "b.default"));
    let other =
        Packet { fields: packet().fields.replace("tcp.dst == 80", "tcp.dst == 81"), ..packet() };
    assert!(!ovn.reaches(&other, "b.default"));

    // Of two rules that contradict each other at one priority, what both are about is dropped, and
    // the rest of what the one allows is allowed.
    let mut world = World::new();
    let mut both = rule(Says::Allow, "10.16.0.0/24");
    both.rules[0].traffic = Traffic::Tcp(Some((80, 81)));
    both.rules.extend(rule(Says::Drop, FROM).rules);
    world.secure(1, SecurityGroup { ingress: both, ..group("web") });
    ovn.set(world.objects());
    assert!(!ovn.reaches(&packet(), "b.default"), "{}", ovn.trace(&packet()));
    assert!(ovn.reaches(&other, "b.default"), "{}", ovn.trace(&other));

    // By membership instead of by address.
    let mut world = World::new();
    let mut by_group = rule(Says::Allow, TO);
    by_group.rules[0].remote = Remote::Group("clients".into());
    world.secure(1, SecurityGroup { ingress: by_group, ..group("web") });
    world.more.push(shared(group("clients")));
    ovn.set(world.objects());
    assert!(!ovn.reaches(&packet(), "b.default"));
    let mut world = World::new();
    let mut by_group = rule(Says::Allow, TO);
    by_group.rules[0].remote = Remote::Group("clients".into());
    world.secure(1, SecurityGroup { ingress: by_group, ..group("web") });
    world.secure(0, SecurityGroup { egress: rule(Says::Allow, TO), ..group("clients") });
    ovn.set(world.objects());
    assert!(ovn.reaches(&packet(), "b.default"), "{}", ovn.trace(&packet()));
}

/// With port security a pod sends from its own addresses only.
#[test]
fn port_security_stops_foreign_sources() {
    let mut ovn = Northd::start();
    let spoofed = Packet { fields: packet().fields.replace(FROM, "10.16.0.77"), ..packet() };
    ovn.set(World::new().objects());
    assert!(ovn.reaches(&spoofed, "b.default"));
    let mut world = World::new();
    world.pods[0].annotations.insert("ovn.kubernetes.io/port_security".into(), "true".into());
    ovn.set(world.objects());
    assert!(!ovn.reaches(&spoofed, "b.default"));
    assert!(ovn.reaches(&packet(), "b.default"));
}
