//! The differ: take-over, foreign rows, twins, drift, order, bisection.

use kube_ovn::{
    api::Kind,
    ovsdb::{
        datum::{Atom, Datum, Uuid},
        row::ID_KEY,
        schema::{Column, nb},
        transaction::{Cell, Mutation, Operation, Target, Transaction},
    },
    plan::{Batch, Cause, diff},
};

use crate::support::{
    cluster::{Cluster, Cost, full_batch},
    objects::*,
};

fn ids(entries: &[(&str, &str)]) -> Cell {
    Cell::map(entries.iter().map(|(k, v)| (*k, *v)))
}

fn mutate(cluster: &mut Cluster, column: Column, row: Uuid, mutations: Vec<Mutation>) {
    let target = Target::Uuid(row);
    let operations = vec![Operation::Mutate { table: column.table, target, mutations }];
    cluster.nb.execute(&Transaction { operations }).unwrap();
}

/// What the controller does when it (re)connects or finds drift: everything is compared again.
fn compare_all(cluster: &mut Cluster) -> Cost {
    for (owner, cause, touches) in full_batch(&cluster.engine).owners {
        cluster.pending.add(owner, cause, touches);
    }
    cluster.commit(Cost::default())
}

fn router(cluster: &Cluster) -> Uuid {
    cluster.nb.find("Logical_Router", "vpc:ovn-cluster:router").unwrap()
}

/// A database as upstream left it: switch, router and port by name, without identities.
fn upstream(cluster: &mut Cluster) -> (Uuid, Uuid, Uuid) {
    let vendor = ids(&[("vendor", "kube-ovn")]);
    let nb = &mut cluster.nb;
    let router = nb.insert_foreign(
        &nb::LOGICAL_ROUTER,
        &[
            (nb::logical_router::NAME, Cell::one("ovn-cluster")),
            (nb::logical_router::EXTERNAL_IDS, vendor.clone()),
            (nb::logical_router::OPTIONS, ids(&[("ic-route-learn", "true")])),
        ],
    );
    let switch = nb.insert_foreign(
        &nb::LOGICAL_SWITCH,
        &[
            (nb::logical_switch::NAME, Cell::one("ovn-default")),
            (nb::logical_switch::EXTERNAL_IDS, vendor.clone()),
        ],
    );
    let port = nb.insert_child(
        &nb::LOGICAL_SWITCH_PORT,
        &[
            (nb::logical_switch_port::NAME, Cell::one("a.default")),
            (nb::logical_switch_port::ADDRESSES, Cell::one("00:00:00:00:00:99 10.16.0.2")),
            (nb::logical_switch_port::EXTERNAL_IDS, vendor),
        ],
        (switch, nb::logical_switch::PORTS),
    );
    nb.insert_child(
        &nb::LOGICAL_ROUTER_POLICY,
        &[
            (nb::logical_router_policy::PRIORITY, Cell::one(29000)),
            (nb::logical_router_policy::MATCH, Cell::one("ip4.src == 10.99.0.0/16")),
            (nb::logical_router_policy::ACTION, Cell::one("drop")),
        ],
        (router, nb::logical_router::POLICIES),
    );
    (router, switch, port)
}

#[test]
fn rows_of_upstream_are_adopted_by_name_not_made_anew() {
    let mut cluster = Cluster::default();
    let (router, switch, port) = upstream(&mut cluster);
    cluster.put_all(small_cluster());
    assert_eq!(cluster.nb.find("Logical_Router", "vpc:ovn-cluster:router"), Some(router));
    assert_eq!(cluster.nb.find("Logical_Switch", "subnet:ovn-default:switch"), Some(switch));
    assert_eq!(cluster.nb.find("Logical_Switch_Port", "pod:a.default:port"), Some(port));
    let options = cluster.nb.get(nb::logical_router::OPTIONS, router).unwrap();
    assert_eq!(options.entry("ic-route-learn").map(|v| &**v), Some("true"));
    assert!(!cluster.nb.dump().contains("10.99.0.0/16"), "upstream's own policy goes");
    let clean = Cluster::with(small_cluster()).nb.dump();
    let without_ic = cluster.nb.dump().replace("\"ic-route-learn\"=\"true\", ", "");
    assert_eq!(without_ic, clean);
    assert_eq!(cluster.restart(), 0);
}

#[test]
fn rows_of_others_in_our_router_and_switches_stay() {
    let mut cluster = Cluster::with(small_cluster());
    let router = router(&cluster);
    cluster.nb.insert_child(
        &nb::LOGICAL_ROUTER_STATIC_ROUTE,
        &[
            (nb::logical_router_static_route::IP_PREFIX, Cell::one("10.77.0.0/16")),
            (nb::logical_router_static_route::NEXTHOP, Cell::one("169.254.100.2")),
            (
                nb::logical_router_static_route::EXTERNAL_IDS,
                ids(&[("ic-learned-route", "7a4b0000-0000-0000-0000-000000000000")]),
            ),
        ],
        (router, nb::logical_router::STATIC_ROUTES),
    );
    let switch = cluster.nb.find("Logical_Switch", "subnet:ovn-default:switch").unwrap();
    cluster.nb.insert_child(
        &nb::LOGICAL_SWITCH_PORT,
        &[(nb::logical_switch_port::NAME, Cell::one("made-by-hand"))],
        (switch, nb::logical_switch::PORTS),
    );
    let before = cluster.nb.dump();
    assert_eq!(compare_all(&mut cluster).operations, 0);
    assert_eq!(cluster.restart(), 0);
    assert_eq!(cluster.nb.dump(), before);
    cluster.put(shared(pod("default", "b", Some("node1"))));
    assert!(cluster.nb.dump().contains("10.77.0.0/16"));
    assert!(cluster.nb.dump().contains("made-by-hand"));
}

#[test]
fn options_of_others_survive_and_ours_go_when_no_longer_wanted() {
    let mut cluster = Cluster::with(small_cluster());
    let (router, column) = (router(&cluster), nb::logical_router::OPTIONS);
    mutate(
        &mut cluster,
        column,
        router,
        vec![Mutation::insert(column, ids(&[("ic-route-adv", "true")]))],
    );
    assert_eq!(compare_all(&mut cluster).operations, 0);
    let learns = |cluster: &Cluster| {
        let options = cluster.nb.get(column, router).unwrap();
        assert_eq!(options.entry("ic-route-adv").map(|v| &**v), Some("true"));
        options.entry("always_learn_from_arp_request").map(|v| v.to_string())
    };
    assert_eq!(learns(&cluster), Some("false".into()));
    let mut under = subnet("under", "10.50.0.0/16");
    under.vlan = Some("vlan1".into());
    under.u2o_interconnection = true;
    cluster.put(shared(under));
    assert_eq!(learns(&cluster), None);
    cluster.remove(Kind::Subnet, "under");
    assert_eq!(learns(&cluster), Some("false".into()));
}

#[test]
fn of_two_rows_with_one_identity_one_goes() {
    let mut cluster = Cluster::with(small_cluster());
    let clean = cluster.nb.dump();
    let router = router(&cluster);
    cluster.nb.insert_child(
        &nb::LOGICAL_ROUTER_POLICY,
        &[
            (nb::logical_router_policy::PRIORITY, Cell::one(30000)),
            (nb::logical_router_policy::MATCH, Cell::one("ip4.dst == 172.18.0.2")),
            (nb::logical_router_policy::ACTION, Cell::one("allow")),
            (nb::logical_router_policy::EXTERNAL_IDS, ids(&[(ID_KEY, "node:node1:address/4")])),
        ],
        (router, nb::logical_router::POLICIES),
    );
    assert_ne!(cluster.nb.dump(), clean);
    compare_all(&mut cluster);
    assert_eq!(cluster.nb.dump(), clean);
}

#[test]
fn drift_of_values_and_memberships_heals() {
    let mut cluster = Cluster::with(small_cluster());
    let clean = cluster.nb.dump();
    let port = cluster.nb.find("Logical_Switch_Port", "pod:a.default:port").unwrap();
    let update = Operation::Update {
        table: &nb::LOGICAL_SWITCH_PORT,
        target: port.into(),
        row: [(nb::logical_switch_port::ADDRESSES, Cell::one("unknown"))].into(),
    };
    cluster.nb.execute(&Transaction { operations: vec![update] }).unwrap();
    // In a group that it has no business in, and out of its own.
    let ports = nb::port_group::PORTS;
    let member = || Cell::set([Atom::Uuid(port)]);
    let other = cluster.nb.find("Port_Group", "node:node2:ports").unwrap();
    mutate(&mut cluster, ports, other, vec![Mutation::insert(ports, member())]);
    let own = cluster.nb.find("Port_Group", "node:node1:ports").unwrap();
    mutate(&mut cluster, ports, own, vec![Mutation::delete(ports, member())]);
    assert_ne!(cluster.nb.dump(), clean);
    // One operation per row that was bent.
    assert_eq!(compare_all(&mut cluster).operations, 3);
    assert_eq!(cluster.nb.dump(), clean);
}

#[test]
fn columns_that_no_feature_declares_are_nobodys_business() {
    let mut cluster = Cluster::with(small_cluster());
    let port = cluster.nb.find("Logical_Switch_Port", "pod:a.default:port").unwrap();
    let update = Operation::Update {
        table: &nb::LOGICAL_SWITCH_PORT,
        target: port.into(),
        row: [(nb::logical_switch_port::UP, Cell::one(true))].into(),
    };
    cluster.nb.execute(&Transaction { operations: vec![update] }).unwrap();
    assert_eq!(compare_all(&mut cluster).operations, 0);
    let up = cluster.nb.get(nb::logical_switch_port::UP, port);
    assert_eq!(up, Some(&Datum::one(true.into())));
}

#[test]
fn an_old_port_goes_no_later_than_the_one_that_takes_its_address() {
    let mut cluster = Cluster::with(small_cluster());
    cluster.limit = 1;
    // One refresh that deletes pod `b` and makes pod `aa` (earlier by name) with its address.
    let mut reads = cluster.store.remove(Kind::Pod, "default/b");
    reads.extend(cluster.store.remove(Kind::Ip, "b.default"));
    reads.extend(cluster.store.upsert(shared(pod("default", "aa", Some("node1")))));
    let address = "10.16.0.3,fd00:10:16::3";
    reads.extend(cluster.store.upsert(shared(pod_ip("default", "aa", "ovn-default", address))));
    cluster.refresh(&reads, Cause::Changed);
    let mut seen = 0;
    while !cluster.pending.is_empty() {
        let batch = cluster.pending.take(1, |_| false);
        let plan = diff::plan(cluster.engine.desired(), &cluster.nb.replica(), &batch);
        cluster.nb.execute(&plan.transaction).unwrap();
        seen = seen.max(cluster.nb.dump().matches(" 10.16.0.3 ").count());
    }
    assert_eq!(seen, 1, "both ports held the address at once");
}

#[test]
fn names_that_clash_change_without_ever_being_the_same() {
    let mut cluster = Cluster::default();
    cluster.limit = 1;
    let names = |cluster: &Cluster| -> Vec<String> {
        let dump = cluster.nb.dump();
        let lines = dump.lines().filter_map(|l| l.strip_prefix("  name = \"node."));
        lines.map(|l| l.trim_end_matches('"').to_owned()).collect()
    };
    cluster.put_all([shared(settings()), shared(vpc("ovn-cluster"))]);
    cluster.put(shared(node("a.b", "172.18.0.1")));
    assert_eq!(names(&cluster), ["a.b"]);
    cluster.put(shared(node("a-b", "172.18.0.2")));
    let both = names(&cluster);
    assert!(both.len() == 2 && both[0] != both[1], "{both:?}");
    cluster.remove(Kind::Node, "a-b");
    assert_eq!(names(&cluster), ["a.b"]);
}

#[test]
fn bisection_finds_the_owner_that_is_refused() {
    let mut cluster = Cluster::default();
    // Two policies of users that no schema check of ours refuses, one of them too high.
    let mut bad = vpc("bad");
    bad.policy_routes = vec![kube_ovn::api::PolicyRoute {
        priority: 40_000,
        matching: "ip4".into(),
        action: kube_ovn::api::PolicyAction::Drop,
        next_hops: vec![],
    }];
    let objects = [shared(settings()), shared(vpc("good")), shared(vpc("fine")), shared(bad)];
    let reads: Vec<_> = objects.into_iter().flat_map(|o| cluster.store.upsert(o)).collect();
    cluster.refresh(&reads, Cause::Changed);
    let mut refused = Vec::new();
    let mut pieces: Vec<Batch> = vec![cluster.pending.take(usize::MAX, |_| false)];
    while let Some(batch) = pieces.pop() {
        let plan = diff::plan(cluster.engine.desired(), &cluster.nb.replica(), &batch);
        if cluster.nb.execute(&plan.transaction).is_ok() {
            continue;
        }
        if batch.len() == 1 {
            refused.extend(batch.owners);
            continue;
        }
        let (first, second) = batch.halves();
        pieces.extend([second, first]);
    }
    let names: Vec<String> = refused.iter().map(|(owner, ..)| format!("{owner:?}")).collect();
    assert_eq!(names, ["vpc:Vpc/bad"]);
    assert!(cluster.nb.dump().contains("\"good\"") && cluster.nb.dump().contains("\"fine\""));
}

#[test]
fn children_wait_for_a_parent_that_is_held_back() {
    let mut cluster = Cluster::default();
    let objects = small_cluster();
    let reads: Vec<_> = objects.into_iter().flat_map(|o| cluster.store.upsert(o)).collect();
    cluster.refresh(&reads, Cause::Changed);
    // The switch's owner is blocked (refused by the database, say): its ports must wait.
    let held = |owner: &kube_ovn::store::Owner| owner.feature == "subnet";
    let batch = cluster.pending.take(usize::MAX, held);
    let plan = diff::plan(cluster.engine.desired(), &cluster.nb.replica(), &batch);
    cluster.nb.execute(&plan.transaction).unwrap();
    let waiting: Vec<&str> = plan.deferred.keys().map(|o| o.feature).collect();
    assert_eq!(waiting, ["node", "node", "pod", "pod"]);
    assert!(!cluster.nb.dump().contains("a.default"));
    for (owner, touches) in plan.deferred {
        cluster.pending.add(owner, Cause::Changed, touches);
    }
    cluster.commit(Cost::default());
    assert_eq!(cluster.nb.dump(), Cluster::with(small_cluster()).nb.dump());
}
