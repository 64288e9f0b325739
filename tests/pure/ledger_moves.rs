//! Subnets that move to another range while their addresses are in use: manual 6.5 and 6.6.

use kube_ovn::{
    api::{Ip, Kind, Node, PodLife, StatefulSet, Subnet, Text},
    controller::ledger::Claimant,
};

use crate::{
    ledger::{World, names},
    ledger_fixed::{annotated, pool, set, stateful},
    support::objects::*,
};

/// What the reconciler makes of an edit: held back, or taken.
fn edit(world: &mut World, new: &Subnet) {
    let held = world.ledger.subnet_refusal(&world.store, new);
    let current = world.store.get::<Subnet>(&new.name).cloned().unwrap();
    let next = match held {
        Some(refusal) => {
            let deleting = new.deleting;
            Subnet { renumbering: refusal.next, deleting, ..current }
        }
        None => new.clone(),
    };
    world.put(shared(next));
}

fn range(world: &World, name: &str) -> String {
    world.store.get::<Subnet>(name).unwrap().cidrs.to_string()
}

fn replace(world: &mut World, old: &str, new: &str) -> Vec<Ip> {
    world.remove(Kind::Pod, &format!("default/{old}"));
    world.put(shared(pod("default", new, None)));
    world.settle()
}

#[test]
fn pods_that_are_replaced_wait_for_the_new_range() {
    let mut world = World::new();
    world.put(shared(pod("default", "a1", None)));
    world.put(shared(pod("default", "b1", None)));
    world.settle();
    let next = subnet("ovn-default", "10.99.0.0/29");
    edit(&mut world, &next);
    assert_eq!(range(&world, "ovn-default"), "10.16.0.0/29", "still in force");
    assert_eq!(replace(&mut world, "a1", "a2"), vec![]);
    let problem = world.problem("default/a2").unwrap();
    assert!(problem.contains("moves from 10.16.0.0/29 to 10.99.0.0/29"), "{problem}");
    edit(&mut world, &next);
    assert_eq!(range(&world, "ovn-default"), "10.16.0.0/29", "b1 is there");
    assert_eq!(replace(&mut world, "b1", "b2"), vec![]);
    edit(&mut world, &next);
    let given: Vec<_> = world.settle().iter().map(|ip| ip.addresses.to_string()).collect();
    assert_eq!(given, ["10.99.0.2", "10.99.0.3"]);
    assert_eq!(world.problem("default/a2"), None);
}

#[test]
fn what_both_ranges_have_is_given_at_once() {
    let mut world = World::new();
    world.put(shared(pod("default", "a1", None)));
    world.settle();
    // .4 to .7: .5 is the gateway.
    edit(&mut world, &subnet("ovn-default", "10.16.0.4/30"));
    assert_eq!(replace(&mut world, "a1", "a2")[0].addresses, addresses("10.16.0.6"));
    let fixed = pod("default", "f", None);
    world.put(shared(annotated(fixed, "ovn.kubernetes.io/ip_address", "10.16.0.3")));
    assert_eq!(world.settle(), vec![], "an address that goes is not given by name either");
    assert!(world.problem("default/f").unwrap().contains("moves from"));
}

#[test]
fn taking_the_change_back_ends_the_waiting() {
    let mut world = World::new();
    world.put(shared(pod("default", "a1", None)));
    world.settle();
    edit(&mut world, &subnet("ovn-default", "10.99.0.0/29"));
    world.put(shared(pod("default", "b", None)));
    assert_eq!(world.settle(), vec![]);
    edit(&mut world, &subnet("ovn-default", "10.16.0.0/29"));
    assert_eq!(world.settle().len(), 1);
}

#[test]
fn a_stateful_set_follows_its_subnet() {
    let mut world = World::new();
    world.put(shared(set("web", 1)));
    world.put(shared(stateful("web-0", "web")));
    assert_eq!(world.settle()[0].addresses, addresses("10.16.0.2"));
    edit(&mut world, &subnet("ovn-default", "10.99.0.0/29"));
    assert_eq!(world.actions(), vec![], "the pod runs on");
    // The set is quick: its next pod is there before anybody looked.
    world.remove(Kind::Pod, "default/web-0");
    world.put(shared(stateful("web-0", "web")));
    assert_eq!(world.settle(), vec![]);
    edit(&mut world, &subnet("ovn-default", "10.99.0.0/29"));
    assert_eq!(world.settle()[0].addresses, addresses("10.99.0.2"));
}

#[test]
fn a_kept_address_without_a_pod_holds_nothing_back() {
    let mut world = World::new();
    world.put(shared(StatefulSet { ..set("web", 1) }));
    world.put(shared(stateful("web-0", "web")));
    world.settle();
    world.remove(Kind::Pod, "default/web-0");
    assert_eq!(world.settle(), vec![], "kept for the next web-0");
    let next = subnet("ovn-default", "10.99.0.0/29");
    edit(&mut world, &next);
    world.settle();
    assert_eq!(world.ledger.subnet_refusal(&world.store, &next), None);
}

#[test]
fn a_pool_moves_before_its_subnet() {
    let mut world = World::new();
    world.put(shared(pool("p", "ovn-default", &["default"], &["10.16.0.4"])));
    world.put(shared(pod("default", "a1", None)));
    world.settle();
    let next = subnet("ovn-default", "10.99.0.0/29");
    edit(&mut world, &next);
    world.put(shared(pool("p", "ovn-default", &["default"], &["10.99.0.4"])));
    assert_eq!(world.ledger.pool_problem("p"), None);
    assert_eq!(replace(&mut world, "a1", "a2"), vec![]);
    edit(&mut world, &next);
    assert_eq!(world.settle()[0].addresses, addresses("10.99.0.4"));
}

#[test]
fn a_querier_does_not_hold_its_subnet_back() {
    let mut world = World::new();
    let snooping = |cidr| Subnet { multicast_snoop: true, ..subnet("blue", cidr) };
    world.put(shared(snooping("10.17.0.0/24")));
    world.settle();
    let next = snooping("10.98.0.0/24");
    edit(&mut world, &next);
    assert_eq!(world.settle(), vec![]);
    edit(&mut world, &next);
    assert_eq!(world.settle()[0].addresses, addresses("10.98.0.2"));
}

#[test]
fn a_range_of_another_subnet_is_refused_and_nobody_moves() {
    let mut world = World::new();
    let young = Subnet { created: 9, ..subnet("blue", "10.99.0.0/24") };
    world.put(shared(young));
    world.put(shared(pod("default", "a", None)));
    world.settle();
    let next = subnet("ovn-default", "10.99.0.0/29");
    let refusal = world.ledger.subnet_refusal(&world.store, &next).unwrap();
    assert!(refusal.problem.message.contains("blue"), "{}", refusal.problem.message);
    assert_eq!(refusal.next, None);
}

#[test]
fn an_address_that_a_pod_has_does_not_become_the_gateway() {
    let mut world = World::new();
    world.put(shared(pod("default", "a", None)));
    world.settle();
    let mut next = subnet("ovn-default", "10.16.0.0/29");
    next.gateways = addresses("10.16.0.2");
    let refusal = world.ledger.subnet_refusal(&world.store, &next).unwrap();
    assert!(refusal.problem.message.contains("10.16.0.2 (a.default)"), "{refusal:?}");
}

fn join_of(ips: &[Ip]) -> Vec<String> {
    ips.iter().map(|ip| format!("{} {}", ip.name, ip.addresses)).collect()
}

fn annotated_node(ip: &str) -> Node {
    let mut old = node("node1", "172.18.0.2");
    old.annotations.insert("ovn.kubernetes.io/ip_address".into(), ip.into());
    old
}

#[test]
fn nodes_follow_the_join_subnet() {
    let mut world = World::new();
    world.put(shared(annotated_node("100.64.0.9")));
    world.put(shared(node("node2", "172.18.0.3")));
    assert_eq!(join_of(&world.settle()), ["node-node1 100.64.0.9", "node-node2 100.64.0.2"]);
    let next = subnet("join", "100.51.0.0/16");
    edit(&mut world, &next);
    assert_eq!(range(&world, "join"), "100.64.0.0/16");
    assert_eq!(world.settle(), vec![], "what both have nobody");
    let node1 = Claimant::Node("node1".into());
    assert!(world.ledger.problem(&node1).unwrap().message.contains("100.51.0.0/16"));
    edit(&mut world, &next);
    assert_eq!(range(&world, "join"), "100.51.0.0/16");
    assert_eq!(join_of(&world.settle()), ["node-node1 100.51.0.2", "node-node2 100.51.0.3"]);
    assert_eq!(world.ledger.problem(&node1), None);
}

/// Manual 6.6: the subnet is deleted and made anew by a controller with another flag.
#[test]
fn a_deleted_join_subnet_lets_its_nodes_go() {
    let mut world = World::new();
    world.put(shared(node("node1", "172.18.0.2")));
    world.settle();
    let join = subnet("join", "100.64.0.0/16");
    world.put(shared(Subnet { deleting: true, ..join }));
    assert_eq!(names(&world.actions()), vec![("delete", "node-node1".into())]);
    let ip = world.store.get::<Ip>("node-node1").cloned().unwrap();
    world.put(shared(Ip { deleting: true, ..ip }));
    assert_eq!(names(&world.actions()), vec![("finalize", "node-node1".into())]);
    world.remove(Kind::Ip, "node-node1");
    assert_eq!(world.actions(), vec![], "no address of a subnet that goes");
    world.remove(Kind::Subnet, "join");
    assert_eq!(world.settle(), vec![]);
    world.put(shared(subnet("join", "100.51.0.0/16")));
    assert_eq!(join_of(&world.settle()), ["node-node1 100.51.0.2"]);
}

/// The same with the finalizer taken off by hand before anybody could act, and a restart.
#[test]
fn records_of_another_join_subnet_are_replaced() {
    let mut world = World::default();
    world.put(shared(settings()));
    world.put(shared(annotated_node("100.64.0.2")));
    let mut old = node_ip("node1", "100.64.0.2");
    old.mac = Some("02:00:00:00:00:09".parse().unwrap());
    world.put(shared(old));
    assert_eq!(world.settle(), vec![], "kept while there is no join subnet");
    world.put(shared(subnet("join", "100.51.0.0/16")));
    assert_eq!(join_of(&world.settle()), ["node-node1 100.51.0.2"]);
}

#[test]
fn a_join_subnet_with_a_family_more_gives_it_to_nodes() {
    let mut world = World::new();
    world.put(shared(annotated_node("100.64.0.9")));
    world.settle();
    edit(&mut world, &subnet("join", "100.64.0.0/16,fd00:100:64::/112"));
    assert_eq!(join_of(&world.settle()), ["node-node1 100.64.0.9,fd00:100:64::2"]);
}

#[test]
fn a_terminating_pod_keeps_its_address_to_the_end() {
    let mut world = World::new();
    world.put(shared(pod("default", "a", None)));
    world.settle();
    let name: Text = "a.default".into();
    edit(&mut world, &subnet("ovn-default", "10.99.0.0/29"));
    let mut ending = pod("default", "a", None);
    ending.life = PodLife::Terminating;
    world.put(shared(ending));
    assert_eq!(world.actions(), vec![]);
    assert!(world.store.contains(Kind::Ip, &name));
}
