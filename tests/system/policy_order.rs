//! Which of several rules about one packet counts: the table in `src/ovn/acl.rs` against OVN.

use std::sync::Arc;

use kube_ovn::{
    api::*,
    net::{Family, Mac},
    store::Stored,
};

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
            shared(settings()),
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

fn ingress() -> Vec<Layer> {
    vec![
        ("subnet ACL 2500", BOTH, |w, s| subnet_acl(w, "to-lport", 2500, s)),
        ("security group rule", BOTH, |w, s| {
            w.secure(1, SecurityGroup { ingress: rule(s, FROM), ..group("rule") });
        }),
        ("same security group", ALLOWS, |w, _| {
            w.secure(
                0,
                SecurityGroup {
                    allow_same_group: true,
                    // The sender's own side is not what this is about.
                    egress: rule(Says::Allow, TO),
                    ..group("same")
                },
            );
            let key: Text = "ovn.kubernetes.io/security_groups".into();
            let named =
                w.pods[1].annotations.get(&key).map(|n| format!("{n},")).unwrap_or_default();
            w.pods[1].annotations.insert(key, format!("{named}same").into());
        }),
        ("security group, no rule", DROPS, |w, _| w.secure(1, group("closed"))),
        ("allowEWTraffic", ALLOWS, |w, _| {
            w.subnet.allow_ew_traffic = true;
            w.subnet.acls.push(SubnetAcl {
                direction: "to-lport".into(),
                priority: 1,
                matching: "udp".into(),
                action: "drop".into(),
            });
        }),
        ("subnet ACL 1500", BOTH, |w, s| subnet_acl(w, "to-lport", 1500, s)),
        ("private subnet", ALLOWS, |w, _| w.subnet.private = true),
        ("subnet ACL 1000", DROPS, |w, s| subnet_acl(w, "to-lport", 1000, s)),
    ]
}

fn egress() -> Vec<Layer> {
    vec![
        ("subnet ACL 2500", BOTH, |w, s| subnet_acl(w, "from-lport", 2500, s)),
        ("security group rule", BOTH, |w, s| {
            w.secure(0, SecurityGroup { egress: rule(s, TO), ..group("rule") });
        }),
        ("security group, no rule", DROPS, |w, _| w.secure(0, group("closed"))),
        ("allowEWTraffic", ALLOWS, |w, _| {
            w.subnet.allow_ew_traffic = true;
            w.subnet.acls.push(SubnetAcl {
                direction: "from-lport".into(),
                priority: 1,
                matching: "udp".into(),
                action: "drop".into(),
            });
        }),
        ("subnet ACL 1500", BOTH, |w, s| subnet_acl(w, "from-lport", 1500, s)),
    ]
}

/// Every two layers that can contradict each other: the first one counts.
fn check(ovn: &mut Northd, layers: &[Layer]) {
    for (n, (high, says, put_high)) in layers.iter().enumerate() {
        for (low, below, put_low) in &layers[n + 1..] {
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

#[test]
fn of_two_rules_about_incoming_traffic_the_one_higher_in_the_table_counts() {
    let mut ovn = Northd::start();
    ovn.set(World::new().objects());
    assert!(ovn.reaches(&packet(), "b.default"), "{}", ovn.trace(&packet()));
    check(&mut ovn, &ingress());
}

#[test]
fn of_two_rules_about_outgoing_traffic_the_one_higher_in_the_table_counts() {
    check(&mut Northd::start(), &egress());
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
