//! The allocation state machine: what it asks the API to do, event by event.

use std::sync::Arc;

use kube_ovn::{
    api::{Ip, IpPool, Kind, Pod, PodLife, Text},
    controller::ledger::{Action, Claimant, Ledger, Northbound},
    net::IpRange,
    store::{Store, Stored},
};

use crate::support::objects::*;

#[derive(Default)]
pub struct World {
    pub store: Store,
    pub ledger: Ledger,
    seed: u64,
    /// The database holds the ports of all pods, whoever is their owner.
    pub port_stands: bool,
}

impl World {
    pub fn new() -> Self {
        let mut world = World::default();
        world.put(shared(settings()));
        world.put(shared(vpc("ovn-cluster")));
        world.put(shared(subnet("join", "100.64.0.0/16")));
        world.put(shared(subnet("ovn-default", "10.16.0.0/29")));
        world.put(shared(namespace("default")));
        world
    }

    pub fn put(&mut self, object: Arc<dyn Stored>) {
        let (kind, key) = (object.kind(), object.key());
        self.store.upsert(object);
        self.ledger.upserted(&self.store, kind, &key);
    }

    pub fn remove(&mut self, kind: Kind, key: &str) {
        self.store.remove(kind, key);
        self.ledger.removed(&self.store, kind, &key.into());
    }

    /// What is to be done when every port has left the database, and no pod will be placed.
    pub fn actions(&mut self) -> Vec<Action> {
        self.actions_while(|| true)
    }

    fn actions_while(&mut self, committed: impl Fn() -> bool) -> Vec<Action> {
        let mut actions = self.actions_now(&committed);
        for pod in self.ledger.take_untimed() {
            self.ledger.overdue(pod);
        }
        actions.extend(self.actions_now(committed));
        actions
    }

    fn actions_now(&mut self, committed: impl Fn() -> bool) -> Vec<Action> {
        let seed = &mut self.seed;
        let next = || {
            *seed += 1;
            *seed
        };
        let stands = self.port_stands;
        let northbound = Northbound { committed: &|_| committed(), holds: &|_| stands };
        self.ledger.evaluate(&self.store, next, &northbound, 64)
    }

    pub fn record(&mut self) -> Ip {
        match &self.actions()[..] {
            [Action::Record(ip)] => ip.clone(),
            other => panic!("expected one record, got {other:?}"),
        }
    }

    /// Carries records out until nothing is left to do.
    pub fn settle(&mut self) -> Vec<Ip> {
        let mut recorded = Vec::new();
        for _ in 0..10 {
            let actions = self.actions();
            if actions.is_empty() {
                return recorded;
            }
            for action in actions {
                match action {
                    Action::Record(ip) | Action::Adopt(ip) => {
                        recorded.push(ip.clone());
                        self.put(shared(ip));
                    }
                    Action::Delete(port) => {
                        let ip = self.store.get::<Ip>(&port).cloned().unwrap();
                        self.put(shared(Ip { deleting: true, ..ip }));
                    }
                    Action::Finalize(port) => self.remove(Kind::Ip, &port),
                }
            }
        }
        panic!("it never settles");
    }

    pub fn problem(&self, key: &str) -> Option<String> {
        self.ledger.problem(&Claimant::Pod(key.into())).map(|p| p.message.clone())
    }
}

pub fn names(actions: &[Action]) -> Vec<(&'static str, Text)> {
    let name = |action: &Action| match action {
        Action::Record(ip) => ("record", ip.name.clone()),
        Action::Adopt(ip) => ("adopt", ip.name.clone()),
        Action::Delete(port) => ("delete", port.clone()),
        Action::Finalize(port) => ("finalize", port.clone()),
    };
    actions.iter().map(name).collect()
}

#[test]
fn a_pod_is_recorded_once() {
    let mut world = World::new();
    world.put(shared(pod("default", "a", None)));
    let ip = world.record();
    assert_eq!((&*ip.name, ip.addresses), ("a.default", addresses("10.16.0.2")));
    // Nothing more while the write is under way, nor when it is done.
    world.put(shared(pod("default", "a", Some("node1"))));
    assert_eq!(world.actions(), vec![]);
    world.put(shared(ip));
    assert_eq!(world.actions(), vec![]);
}

#[test]
fn the_address_is_free_only_when_port_and_record_are_gone() {
    let mut world = World::new();
    world.put(shared(pod("default", "a", None)));
    let ip = world.settle().remove(0);
    world.remove(Kind::Pod, "default/a");
    assert_eq!(names(&world.actions()), vec![("delete", "a.default".into())]);
    world.put(shared(Ip { deleting: true, ..ip.clone() }));
    assert_eq!(world.actions_while(|| false), vec![], "the port is still in the database");
    assert_eq!(names(&world.actions()), vec![("finalize", "a.default".into())]);
    assert!(world.ledger.ipam().allocation("a.default").is_some());
    world.remove(Kind::Ip, "a.default");
    assert!(world.ledger.ipam().allocation("a.default").is_none());
}

#[test]
fn the_port_of_a_pod_that_went_while_nobody_led_keeps_its_address() {
    // A new leader knows the record of the pod, not the pod; its port is nobody's in the database,
    // and the fuse may hold it there.
    let mut world = World::new();
    let mut ip = pod_ip("default", "gone", "ovn-default", "10.16.0.2");
    ip.managed = true;
    world.put(shared(ip.clone()));
    world.put(shared(Ip { deleting: true, ..ip }));
    world.port_stands = true;
    world.put(shared(pod("default", "new", None)));
    let actions = world.actions();
    assert!(!actions.iter().any(|a| matches!(a, Action::Finalize(_))), "{actions:?}");
    let given =
        |a: &Action| matches!(a, Action::Record(ip) if ip.addresses == addresses("10.16.0.2"));
    assert!(!actions.iter().any(given), "its address is given away: {actions:?}");
    world.port_stands = false;
    assert_eq!(names(&world.actions()), vec![("finalize", "gone.default".into())]);
}

#[test]
fn a_pod_deleted_while_its_record_is_written_leaks_nothing() {
    let mut world = World::new();
    world.put(shared(pod("default", "a", None)));
    let ip = world.record();
    world.remove(Kind::Pod, "default/a");
    assert_eq!(world.actions(), vec![], "the outcome of the write is awaited");
    world.put(shared(ip));
    assert_eq!(world.settle(), vec![]);
    assert!(world.ledger.ipam().allocations().next().is_none());
}

#[test]
fn a_record_that_failed_is_deleted_before_its_address_is_free() {
    let mut world = World::new();
    world.put(shared(pod("default", "a", None)));
    let action = Action::Record(world.record());
    world.ledger.write_failed(&"a.default".into(), &action);
    world.remove(Kind::Pod, "default/a");
    world.ledger.retry(Claimant::Pod("default/a".into()));
    assert_eq!(names(&world.actions()), vec![("delete", "a.default".into())]);
    // The API says that there is none.
    world.ledger.forgotten(&"a.default".into());
    assert!(world.ledger.ipam().allocations().next().is_none());
    assert_eq!(world.actions(), vec![]);
}

#[test]
fn a_failed_record_is_retried_with_the_same_address() {
    let mut world = World::new();
    world.put(shared(pod("default", "a", None)));
    let ip = world.record();
    world.ledger.write_failed(&ip.name.clone(), &Action::Record(ip.clone()));
    world.ledger.retry(Claimant::Pod("default/a".into()));
    assert_eq!(world.record().addresses, ip.addresses);
}

#[test]
fn a_full_subnet_wakes_the_waiting_pod_when_an_address_is_freed() {
    let mut world = World::new();
    for n in 0..6 {
        world.put(shared(pod("default", &format!("p{n}"), None)));
    }
    assert_eq!(world.settle().len(), 5, ".2 to .6");
    assert!(world.problem("default/p5").unwrap().contains("NoAvailableAddress"));
    assert_eq!(world.ledger.take_news().len(), 1);
    world.remove(Kind::Pod, "default/p0");
    let recorded = world.settle();
    assert_eq!(recorded.len(), 1);
    assert_eq!((&*recorded[0].name, recorded[0].addresses), ("p5.default", addresses("10.16.0.2")));
    assert_eq!(world.problem("default/p5"), None);
}

#[test]
fn a_record_deleted_by_hand_is_made_anew() {
    let mut world = World::new();
    world.put(shared(pod("default", "a", Some("node1"))));
    let ip = world.settle().remove(0);
    world.put(shared(Ip { deleting: true, ..ip }));
    assert_eq!(names(&world.actions()), vec![("finalize", "a.default".into())]);
    world.remove(Kind::Ip, "a.default");
    assert_eq!(&*world.record().name, "a.default");
}

#[test]
fn a_reserved_address_outlives_its_pod() {
    let mut world = World::new();
    world.put(shared(Ip { reserved: true, ..pod_ip("default", "a", "ovn-default", "10.16.0.4") }));
    world.put(shared(pod("default", "a", None)));
    assert_eq!(world.actions(), vec![], "the reservation is the record");
    world.remove(Kind::Pod, "default/a");
    assert_eq!(world.actions(), vec![]);
    assert!(world.ledger.ipam().allocation("a.default").is_some());
}

#[test]
fn pods_without_a_network_of_ours_get_nothing() {
    let mut world = World::new();
    let mut host = pod("default", "host", None);
    host.host_network = true;
    let mut ended = pod("default", "ended", None);
    ended.life = PodLife::Ended;
    let mut leaving = pod("default", "leaving", None);
    leaving.life = PodLife::Terminating;
    [host, ended, leaving].into_iter().for_each(|p| world.put(shared(p)));
    assert_eq!(world.actions(), vec![]);
}

#[test]
fn an_ended_pod_gives_its_address_back() {
    let mut world = World::new();
    world.put(shared(pod("default", "job", None)));
    world.settle();
    let mut ended = pod("default", "job", None);
    ended.life = PodLife::Ended;
    world.put(shared(ended));
    world.settle();
    assert!(world.ledger.ipam().allocations().next().is_none());
}

#[test]
fn a_conflicting_static_address_names_the_holder_and_harms_nobody() {
    let mut world = World::new();
    world.put(shared(pod("default", "a", None)));
    world.settle();
    let mut second = pod("default", "b", None);
    second.annotations.insert("ovn.kubernetes.io/ip_address".into(), "10.16.0.2".into());
    world.put(shared(second));
    assert_eq!(world.settle(), vec![]);
    let message = world.problem("default/b").unwrap();
    assert!(message.contains("AddressConflict") && message.contains("10.16.0.2"), "{message}");
    assert!(message.contains("default/a"), "{message}");
    assert!(world.ledger.ipam().allocation("a.default").is_some());
}

#[test]
fn a_missing_subnet_is_named_and_its_arrival_heals() {
    let mut world = World::new();
    let mut lost = pod("default", "a", None);
    lost.annotations.insert("ovn.kubernetes.io/logical_switch".into(), "blue".into());
    world.put(shared(lost));
    assert_eq!(world.actions(), vec![]);
    assert!(world.problem("default/a").unwrap().contains("\"blue\""));
    world.put(shared(subnet("blue", "10.17.0.0/24")));
    assert_eq!(&*world.record().subnet, "blue");
}

#[test]
fn a_namespace_with_a_pool_never_uses_other_addresses() {
    let mut world = World::new();
    world.put(shared(IpPool {
        name: "pool".into(),
        subnet: "ovn-default".into(),
        namespaces: vec!["default".into()],
        ranges: vec![IpRange::parse("10.16.0.5").unwrap()],
    }));
    world.put(shared(pod("default", "a", None)));
    world.put(shared(pod("default", "b", None)));
    let recorded = world.settle();
    assert_eq!(recorded.len(), 1);
    assert_eq!(recorded[0].addresses, addresses("10.16.0.5"));
    assert!(world.problem("default/b").is_some());
}

#[test]
fn a_node_keeps_the_address_of_its_annotations() {
    let mut world = World::new();
    let mut old = node("node1", "172.18.0.2");
    old.annotations.insert("ovn.kubernetes.io/ip_address".into(), "100.64.0.9".into());
    old.annotations.insert("ovn.kubernetes.io/mac_address".into(), "02:00:00:00:00:09".into());
    world.put(shared(old));
    let ip = world.record();
    assert_eq!(ip.addresses, addresses("100.64.0.9"));
    assert_eq!(ip.mac.unwrap().to_string(), "02:00:00:00:00:09");
    world.put(shared(ip));
    world.remove(Kind::Node, "node1");
    assert_eq!(names(&world.actions()), vec![("delete", "node-node1".into())]);
}

#[test]
fn a_node_whose_old_address_does_not_fit_gets_a_new_one() {
    let mut world = World::new();
    let mut moved = node("node1", "172.18.0.2");
    moved.annotations.insert("ovn.kubernetes.io/ip_address".into(), "100.99.0.9".into());
    world.put(shared(moved));
    assert_eq!(world.record().addresses, addresses("100.64.0.2"));
}

#[test]
fn after_a_restart_records_come_before_subnets_and_nothing_is_written() {
    let mut world = World::default();
    world.put(shared(pod_ip("default", "a", "ovn-default", "10.16.0.4")));
    world.put(shared(pod("default", "a", Some("node1"))));
    world.put(shared(settings()));
    world.put(shared(vpc("ovn-cluster")));
    world.put(shared(namespace("default")));
    world.put(shared(subnet("ovn-default", "10.16.0.0/29")));
    assert_eq!(world.actions(), vec![]);
    world.put(shared(pod("default", "b", None)));
    assert_eq!(world.record().addresses, addresses("10.16.0.2"));
    assert_eq!(world.ledger.ipam().usage("ovn-default").v4.unwrap().using, 2);
}

#[test]
fn a_pod_that_is_not_placed_yet_is_recorded_with_its_node_at_once() {
    let mut world = World::new();
    world.put(shared(pod("default", "a", None)));
    assert_eq!(world.actions_now(|| true), vec![]);
    assert!(!world.ledger.is_idle(), "something is to come");
    assert_eq!(world.ledger.take_untimed(), [Text::from("default/a")]);
    // Other news of it start no second wait.
    let labels = [("a".into(), "b".into())].into();
    world.put(shared(Pod { labels, ..pod("default", "a", None) }));
    assert_eq!(world.actions_now(|| true), vec![]);
    assert_eq!(world.ledger.take_untimed(), Vec::<Text>::new());
    world.put(shared(pod("default", "a", Some("node1"))));
    match &world.actions_now(|| true)[..] {
        [Action::Record(ip)] => assert_eq!(&*ip.node, "node1"),
        other => panic!("{other:?}"),
    }
    // Its time runs out later, without any effect.
    world.ledger.overdue("default/a".into());
    assert_eq!(world.actions_now(|| true), vec![]);
}

#[test]
fn a_pod_that_is_never_placed_gets_its_address_all_the_same() {
    let mut world = World::new();
    world.put(shared(pod("default", "a", None)));
    world.put(shared(pod("default", "gone", None)));
    assert_eq!(world.actions_now(|| true), vec![]);
    world.remove(Kind::Pod, "default/gone");
    for pod in world.ledger.take_untimed() {
        world.ledger.overdue(pod);
    }
    assert_eq!(names(&world.actions_now(|| true)), [("record", "a.default".into())]);
    // What is wrong with it is told now, too.
    let wrong = [("ovn.kubernetes.io/ip_address".into(), "10.16.0.77".into())].into();
    world.put(shared(Pod { annotations: wrong, ..pod("default", "b", None) }));
    assert_eq!(world.actions_now(|| true), vec![]);
    assert_eq!(world.problem("default/b"), None);
    for pod in world.ledger.take_untimed() {
        world.ledger.overdue(pod);
    }
    world.actions_now(|| true);
    assert!(world.problem("default/b").unwrap().contains("10.16.0.77"));
}
