//! Marks of the sheets that belong to no single feature: what upstream gets wrong about chassis,
//! names of the default VPC, the join gateway and broken nodes.

use std::collections::BTreeMap;

use kube_ovn::{
    api::{Ip, Kind, Subnet},
    controller::{
        chassis::{self, plan_upkeep},
        ledger::Claimant,
    },
    net::DualStack,
    ovsdb::{
        replica::{Replica, Scope, Update},
        schema::sb,
    },
};
use serde_json::{Value, json};

use crate::{
    ledger::World,
    support::{cluster::Cluster, objects::*},
};

/// Upstream's clean-up of doubled chassis never deletes (an inner error hides the outer one).
#[test]
fn bug_a_doubled_chassis_of_a_node_is_removed() {
    let row = |name: &str, host: &str, ids: &Value, other: Value| {
        json!({"initial": {"name": name, "hostname": host,
            "external_ids": ["map", ids], "other_config": ["map", other]}})
    };
    let (ours, none) = (json!([["vendor", "kube-ovn"]]), json!([]));
    let uuid = |n: u32| format!("00000000-0000-0000-0000-{n:012}");
    let rows = json!({"Chassis": {
        uuid(1): row("now", "node1", &none, json!([])),
        uuid(2): row("before-its-reinstallation", "node1", &ours, json!([])),
        uuid(3): row("of-a-gone-node", "node9", &ours, json!([])),
        uuid(4): row("other-zone", "far", &ours, json!([["is-remote", "true"]])),
        uuid(5): row("never-ours", "node9", &none, json!([])),
        uuid(6): row("not-annotated-yet", "node2", &ours, json!([])),
    }});
    let mut replica = Replica::new(&sb::DATABASE, &chassis::monitored());
    let tables = serde_json::value::to_raw_value(&rows).unwrap().into();
    replica.apply(&Update { scope: Scope::Snapshot, tables, transaction: None }).unwrap();
    let nodes = BTreeMap::from([("node1".into(), Some("now".into())), ("node2".into(), None)]);
    let upkeep = plan_upkeep(&nodes, replica.rows(&sb::CHASSIS));
    let names = |all: &std::collections::BTreeSet<_>| -> Vec<String> {
        all.iter().map(|uuid: &kube_ovn::ovsdb::datum::Uuid| uuid.to_string()).collect()
    };
    assert_eq!(names(&upkeep.tag), [uuid(1)]);
    assert_eq!(names(&upkeep.remove), [uuid(2), uuid(3)]);
}

/// Upstream compares with the literal `ovn-cluster` in several places.
#[test]
fn trap_the_default_vpc_may_have_another_name() {
    let dump = |name: &str| {
        let vpc_of = |subnet: Subnet| shared(Subnet { vpc: name.into(), ..subnet });
        let mut settings = settings();
        settings.cluster_router = name.into();
        let cluster = Cluster::with([
            shared(settings),
            shared(vpc(name)),
            vpc_of(subnet("join", "100.64.0.0/16,fd00:100:64::/112")),
            vpc_of(subnet("ovn-default", "10.16.0.0/16,fd00:10:16::/112")),
            shared(namespace("default")),
            shared(node("node1", "172.18.0.2,fc00::2")),
            shared(node_ip("node1", "100.64.0.2,fd00:100:64::2")),
            shared(pod("default", "a", Some("node1"))),
            shared(pod_ip("default", "a", "ovn-default", "10.16.0.2,fd00:10:16::2")),
        ]);
        let mut lines: Vec<String> =
            cluster.nb.dump().lines().map(|line| line.replace(name, "VPC")).collect();
        lines.sort();
        lines
    };
    let usual = dump("ovn-cluster");
    assert!(usual.iter().any(|line| line.contains("VPC-ovn-default")), "{usual:#?}");
    assert_eq!(dump("edge-router"), usual);
}

/// Upstream reads the join gateway from the flag, so that default routes go astray after an edit.
#[test]
fn trap_default_routes_follow_an_edited_join_gateway() {
    let mut cluster = Cluster::with(small_cluster());
    let routes = |cluster: &Cluster| -> Vec<String> {
        let dump = cluster.nb.dump();
        dump.lines().filter(|l| l.contains("nexthop = ")).map(|l| l.trim().to_owned()).collect()
    };
    assert!(routes(&cluster).contains(&r#"nexthop = "100.64.0.1""#.to_owned()));
    let join = cluster.store.get::<Subnet>("join").unwrap().clone();
    let gateways = DualStack::parse_addresses("100.64.255.254,fd00:100:64::fffe").unwrap();
    cluster.put_all([shared(Subnet { gateways, ..join })]);
    let after = routes(&cluster);
    assert!(after.contains(&r#"nexthop = "100.64.255.254""#.to_owned()), "{after:?}");
    assert!(!after.iter().any(|l| l.contains("\"100.64.0.1\"")), "{after:?}");
}

/// At every start upstream waits until each node has its address, and no pod gets one meanwhile.
#[test]
fn trap_a_node_without_an_address_holds_no_pod_up() {
    let mut world = World::new();
    world.remove(Kind::Subnet, "join");
    world.put(shared(node("broken", "172.18.0.9")));
    world.put(shared(pod("default", "a", Some("node1"))));
    let recorded: Vec<Ip> = world.settle();
    assert_eq!(recorded.iter().map(|ip| &*ip.name).collect::<Vec<_>>(), ["a.default"]);
    let problem = world.ledger.problem(&Claimant::Node("broken".into())).unwrap();
    assert!(problem.message.contains("the join subnet"), "{}", problem.message);
}
