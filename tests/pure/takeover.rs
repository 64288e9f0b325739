//! Take-over of a database that upstream Kube-OVN wrote: written here by hand from what upstream
//! is known to write, rows of the default VPC with two nodes, two pods, a Service, a policy.

use std::collections::BTreeMap;

use kube_ovn::{
    cli::adopt::{Adoption, describe_takeover, is_upstreams},
    ovsdb::{
        datum::{Atom, Datum, Uuid},
        schema::{Column, Table, nb},
        transaction::{Cell, Transaction},
    },
    plan::{Cause, removal, takeover},
};

use crate::support::{
    cluster::{Cluster, Cost},
    objects::small_cluster,
};

fn ids(entries: &[(&str, &str)]) -> Cell {
    Cell::map(entries.iter().map(|(k, v)| (*k, *v)))
}

const VENDOR: (&str, &str) = ("vendor", "kube-ovn");
/// Upstream chooses the addresses of its router ports at random.
const GATEWAY_MAC: &str = "4e:1f:02:9c:7d:33";

/// The rows that hold the traffic of running pods, by name.
#[derive(Default)]
struct Upstream {
    rows: BTreeMap<String, (&'static Table, Uuid)>,
}

impl Upstream {
    fn root(&mut self, cluster: &mut Cluster, name: &str, row: &[(Column, Cell)]) -> Uuid {
        let table = row[0].0.table;
        let uuid = cluster.nb.insert_foreign(table, row);
        self.rows.insert(name.to_owned(), (table, uuid));
        uuid
    }

    fn child(
        &mut self,
        cluster: &mut Cluster,
        name: &str,
        row: &[(Column, Cell)],
        parent: (Uuid, Column),
    ) -> Uuid {
        let table = row[0].0.table;
        let uuid = cluster.nb.insert_child(table, row, parent);
        self.rows.insert(name.to_owned(), (table, uuid));
        uuid
    }

    fn router(&mut self, cluster: &mut Cluster) -> Uuid {
        let router = self.root(
            cluster,
            "ovn-cluster",
            &[
                (nb::logical_router::NAME, Cell::one("ovn-cluster")),
                (nb::logical_router::EXTERNAL_IDS, ids(&[VENDOR])),
            ],
        );
        let policies = nb::logical_router::POLICIES;
        for (priority, matching, action, next_hop, external) in [
            (
                31000,
                "ip4.dst == 10.16.0.0/16",
                "allow",
                None,
                ids(&[VENDOR, ("subnet", "ovn-default")]),
            ),
            (31000, "ip4.dst == 100.64.0.0/16", "allow", None, ids(&[VENDOR, ("subnet", "join")])),
            (
                30000,
                "ip4.dst == 172.18.0.2",
                "reroute",
                Some("100.64.0.2"),
                ids(&[VENDOR, ("node", "node1"), ("address-family", "4")]),
            ),
            (
                29000,
                "ip4.src == $ovn.default.node1_ip4",
                "reroute",
                Some("100.64.0.2"),
                ids(&[VENDOR, ("subnet", "ovn-default"), ("node", "node1")]),
            ),
        ] {
            let mut row = vec![
                (nb::logical_router_policy::PRIORITY, Cell::one(priority)),
                (nb::logical_router_policy::MATCH, Cell::one(matching)),
                (nb::logical_router_policy::ACTION, Cell::one(action)),
                (nb::logical_router_policy::EXTERNAL_IDS, external),
            ];
            row.extend(next_hop.map(|n| (nb::logical_router_policy::NEXTHOPS, Cell::one(n))));
            cluster.nb.insert_child(&nb::LOGICAL_ROUTER_POLICY, &row, (router, policies));
        }
        cluster.nb.insert_child(
            &nb::LOGICAL_ROUTER_STATIC_ROUTE,
            &[
                (nb::logical_router_static_route::IP_PREFIX, Cell::one("0.0.0.0/0")),
                (nb::logical_router_static_route::NEXTHOP, Cell::one("100.64.0.1")),
                (nb::logical_router_static_route::POLICY, Cell::one("dst-ip")),
            ],
            (router, nb::logical_router::STATIC_ROUTES),
        );
        router
    }

    fn switch(&mut self, cluster: &mut Cluster, router: Uuid, name: &str, network: &str) -> Uuid {
        let switch = self.root(
            cluster,
            name,
            &[
                (nb::logical_switch::NAME, Cell::one(name)),
                (nb::logical_switch::EXTERNAL_IDS, ids(&[VENDOR])),
            ],
        );
        let mac = if name == "join" { "4e:1f:02:9c:7d:34" } else { GATEWAY_MAC };
        let lrp = format!("ovn-cluster-{name}");
        self.child(
            cluster,
            &lrp,
            &[
                (nb::logical_router_port::NAME, Cell::one(lrp.as_str())),
                (nb::logical_router_port::MAC, Cell::one(mac)),
                (nb::logical_router_port::NETWORKS, Cell::one(network)),
                (nb::logical_router_port::EXTERNAL_IDS, ids(&[VENDOR, ("lr", "ovn-cluster")])),
            ],
            (router, nb::logical_router::PORTS),
        );
        let lsp = format!("{name}-ovn-cluster");
        self.child(
            cluster,
            &lsp,
            &[
                (nb::logical_switch_port::NAME, Cell::one(lsp.as_str())),
                (nb::logical_switch_port::TYPE, Cell::one("router")),
                (nb::logical_switch_port::ADDRESSES, Cell::one("router")),
                (nb::logical_switch_port::OPTIONS, ids(&[("router-port", lrp.as_str())])),
                (nb::logical_switch_port::EXTERNAL_IDS, ids(&[VENDOR, ("ls", name)])),
            ],
            (switch, nb::logical_switch::PORTS),
        );
        switch
    }

    fn port(
        &mut self,
        cluster: &mut Cluster,
        name: &str,
        addresses: &str,
        parent: (&str, Uuid),
    ) -> Uuid {
        let (switch_name, switch) = parent;
        self.child(
            cluster,
            name,
            &[
                (nb::logical_switch_port::NAME, Cell::one(name)),
                (nb::logical_switch_port::ADDRESSES, Cell::one(addresses)),
                (nb::logical_switch_port::EXTERNAL_IDS, ids(&[VENDOR, ("ls", switch_name)])),
            ],
            (switch, nb::logical_switch::PORTS),
        )
    }

    /// Everything of the default VPC.
    fn write(cluster: &mut Cluster) -> Upstream {
        let mut all = Upstream::default();
        let router = all.router(cluster);
        let switch = all.switch(cluster, router, "ovn-default", "10.16.0.1/16");
        let join = all.switch(cluster, router, "join", "100.64.0.1/16");
        let v = ("ovn-default", switch);
        let a = all.port(cluster, "a.default", "02:00:00:00:00:a2 10.16.0.2", v);
        let b = all.port(cluster, "b.default", "02:00:00:00:00:a2 10.16.0.3", v);
        let nodes = [("node-node1", "100.64.0.2"), ("node-node2", "100.64.0.3")];
        for (name, ip) in nodes {
            all.port(cluster, name, &format!("02:00:00:00:00:05 {ip}"), ("join", join));
        }
        for (name, port, external) in [
            ("node.node1", a, ids(&[("node", "node1"), ("np", "node/node1")])),
            ("node.node2", b, ids(&[("node", "node2"), ("np", "node/node2")])),
        ] {
            all.root(
                cluster,
                name,
                &[
                    (nb::port_group::NAME, Cell::one(name)),
                    (nb::port_group::PORTS, Cell::one(Atom::Uuid(port))),
                    (nb::port_group::EXTERNAL_IDS, external),
                ],
            );
        }
        all
    }
}

fn pod_cluster() -> (Cluster, Upstream) {
    let mut cluster = Cluster::default();
    let upstream = Upstream::write(&mut cluster);
    cluster.put_all(small_cluster());
    (cluster, upstream)
}

#[test]
fn no_port_switch_router_or_group_of_upstream_is_made_anew() {
    let (cluster, upstream) = pod_cluster();
    for (name, (table, uuid)) in &upstream.rows {
        let column = table.column("name").unwrap();
        let kept = cluster.nb.get(column, *uuid);
        assert_eq!(
            kept.and_then(Datum::text).map(|t| &**t),
            Some(name.as_str()),
            "{} {name}",
            table.name
        );
    }
    let twins = |name: &str| cluster.nb.dump().matches(&format!("name = \"{name}\"")).count();
    for name in upstream.rows.keys() {
        assert_eq!(twins(name), 1, "{name}");
    }
}

/// Pods have the address of their gateway in their neighbour tables; a new one would cost them
/// all their connections to the outside until the entry expires.
#[test]
fn gateways_keep_the_mac_address_that_pods_know() {
    let (mut cluster, _) = pod_cluster();
    assert!(cluster.nb.dump().contains(GATEWAY_MAC));
    assert_eq!(cluster.restart(), 0);
    assert!(cluster.nb.dump().contains(GATEWAY_MAC));
}

#[test]
fn the_result_is_that_of_a_fresh_installation() {
    let (mut cluster, _) = pod_cluster();
    let fresh = Cluster::with(small_cluster()).nb.dump();
    let without_macs = |dump: String| {
        let lines = dump.lines().filter(|l| !l.trim_start().starts_with("mac = "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without_macs(cluster.nb.dump()), without_macs(fresh));
    assert_eq!(cluster.restart(), 0);
    cluster.check_oracle();
}

/// Between the old policies and the new ones there is no moment without any.
#[test]
fn routes_and_policies_change_hands_in_one_transaction() {
    let mut cluster = Cluster::default();
    Upstream::write(&mut cluster);
    let reads: Vec<_> = small_cluster().into_iter().flat_map(|o| cluster.store.upsert(o)).collect();
    cluster.refresh(&reads, Cause::Changed);
    let cost = cluster.commit(Cost::default());
    assert_eq!(cost.transactions, 1);
}

impl Upstream {
    /// What our controller has no row of the same name for, and what somebody made by hand.
    fn write_orphans(cluster: &mut Cluster) {
        let vips = [("10.96.0.10:53", "10.16.0.2:53"), ("192.0.2.9:80", "10.16.0.3:80")];
        for (name, vips) in [
            ("cluster-udp-loadbalancer", &vips[..]),
            ("cluster-udp-session-loadbalancer", &[]),
            ("by-hand", &[]),
        ] {
            let row = [
                (nb::load_balancer::NAME, Cell::one(name)),
                (nb::load_balancer::PROTOCOL, Cell::one("udp")),
                (nb::load_balancer::VIPS, ids(vips)),
            ];
            cluster.nb.insert_foreign(&nb::LOAD_BALANCER, &row);
        }
        let marks = ids(&[
            VENDOR,
            ("subnet", "ovn-default"),
            ("node", "node1"),
            ("np", "ovn-default/node1"),
        ]);
        for (name, marks) in [("ovn.default.node1", marks), ("of.somebody", ids(&[("node", "x")]))]
        {
            let row =
                [(nb::port_group::NAME, Cell::one(name)), (nb::port_group::EXTERNAL_IDS, marks)];
            cluster.nb.insert_foreign(&nb::PORT_GROUP, &row);
        }
    }
}

fn adoption(cluster: &Cluster) -> Adoption {
    let replica = cluster.nb.replica();
    let upstreams = |row: &_| is_upstreams(row, &Default::default());
    describe_takeover(&takeover(cluster.engine.desired(), &replica, upstreams), &replica)
}

fn names(lines: &[kube_ovn::cli::adopt::Line]) -> Vec<String> {
    lines.iter().map(|line| line.name.clone()).collect()
}

#[test]
fn the_plan_of_a_take_over_names_every_row_of_upstream_and_removal_leaves_those_of_others() {
    let mut cluster = Cluster::default();
    let upstream = Upstream::write(&mut cluster);
    Upstream::write_orphans(&mut cluster);
    let reads: Vec<_> = small_cluster().into_iter().flat_map(|o| cluster.store.upsert(o)).collect();
    cluster.refresh(&reads, Cause::Changed);

    let before = adoption(&cluster);
    let mut claimed = names(&before.claimed);
    claimed.sort();
    assert_eq!(claimed, upstream.rows.keys().cloned().collect::<Vec<_>>());
    assert!(before.claimed.iter().all(|line| line.note.contains(':')), "identities to come");
    assert_eq!(before.replaced.len(), 5, "four policies and a route: {:?}", before.replaced);
    let orphans =
        ["cluster-udp-loadbalancer", "cluster-udp-session-loadbalancer", "ovn.default.node1"];
    let mut removed = names(&before.removed);
    removed.sort();
    assert_eq!(removed, orphans);
    let served = before.removed.iter().find(|line| line.name == orphans[0]).unwrap();
    assert_eq!(served.note, "nothing else serves 10.96.0.10:53, 192.0.2.9:80");
    let mut left = names(&before.left);
    left.sort();
    assert_eq!(left, ["by-hand", "of.somebody"]);

    cluster.commit(Cost::default());
    let after = adoption(&cluster);
    assert!(after.claimed.is_empty() && after.replaced.is_empty(), "{after:?}");
    assert_eq!(after.removed.len(), 3, "{after:?}");

    let replica = cluster.nb.replica();
    let found =
        takeover(cluster.engine.desired(), &replica, |row| is_upstreams(row, &Default::default()));
    let operations = removal(&found, &replica);
    cluster.nb.execute(&Transaction { operations }).unwrap();
    let done = adoption(&cluster);
    assert!(done.removed.is_empty() && done.claimed.is_empty(), "{done:?}");
    assert_eq!(done.left.len(), 2);
    assert_eq!(cluster.restart(), 0, "nothing of ours went with them");
}
