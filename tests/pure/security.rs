//! What the order of transactions and the size of groups must not change about security groups.

use std::sync::Arc;

use kube_ovn::{
    api::*,
    net::Family,
    ovn::FEATURES,
    ovsdb::{
        datum::{Atom, Datum},
        replica::Replica,
        schema::nb,
    },
    plan::{Cause, diff},
    store::{Read, Stored},
};

use crate::support::{
    cluster::{Cluster, Cost},
    objects::*,
};

fn group(name: &str, ports: &[u16]) -> SecurityGroup {
    let rule = |(n, port): (usize, &u16)| SecurityRule {
        families: vec![Family::V4],
        priority: n as i64 + 1,
        remote: Remote::Address("10.0.0.0/8".into()),
        traffic: Traffic::Tcp(Some((*port, *port))),
        verdict: Verdict::Allow,
    };
    let rules = ports.iter().enumerate().map(rule).collect();
    SecurityGroup {
        name: name.into(),
        ingress: SecurityRules { rules, invalid: vec![] },
        allow_same_group: true,
        ..SecurityGroup::default()
    }
}

fn secured(name: &str, groups: &str, host: usize) -> [Arc<dyn Stored>; 2] {
    let mut pod = pod("default", name, Some("node1"));
    pod.annotations.insert("ovn.kubernetes.io/security_groups".into(), groups.into());
    let address = format!("10.16.{}.{}", host / 250, host % 250 + 4);
    [shared(pod), shared(pod_ip("default", name, "ovn-default", &address))]
}

/// Ports that name a group and are not in the one that drops all.
fn open_ports(replica: &Replica) -> Vec<String> {
    let closed = replica
        .rows(&nb::PORT_GROUP)
        .find(|r| text(r.get(nb::port_group::NAME)) == "ovn.sg.kubeovn_deny_all")
        .filter(
            |r| matches!(r.get(nb::port_group::ACLS), Some(Datum::Set(acls)) if acls.len() == 2),
        )
        .and_then(|r| r.get(nb::port_group::PORTS));
    let is_closed =
        |uuid| matches!(closed, Some(Datum::Set(all)) if all.contains(&Atom::Uuid(uuid)));
    let named = replica.rows(&nb::LOGICAL_SWITCH_PORT).filter(|r| {
        matches!(r.get(nb::logical_switch_port::EXTERNAL_IDS), Some(Datum::Map(ids))
            if ids.contains_key(&"security_groups".into()))
    });
    let open = named.filter(|r| !is_closed(r.uuid));
    open.map(|r| text(r.get(nb::logical_switch_port::NAME))).collect()
}

fn text(datum: Option<&Datum>) -> String {
    match datum {
        Some(Datum::Set(all)) => match all.iter().next() {
            Some(Atom::Text(text)) => text.to_string(),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

/// Upstream made the port first and closed it in a later round.
#[test]
fn no_transaction_leaves_a_secured_port_open() {
    for reversed in [false, true] {
        let mut objects = small_cluster();
        objects.push(shared(group("sg-a", &[22])));
        objects.extend(secured("s1", "sg-a", 0));
        objects.extend(secured("s2", "sg-a,nobody", 1));
        objects.extend(secured("s3", "nobody", 2));
        if reversed {
            objects.reverse();
        }
        let mut cluster = Cluster::default();
        let reads: Vec<Read> = objects.into_iter().flat_map(|o| cluster.store.upsert(o)).collect();
        cluster.refresh(&reads, Cause::Changed);
        let mut ports = 0;
        for _ in 0..200 {
            let replica = cluster.nb.replica();
            assert_eq!(open_ports(&replica), Vec::<String>::new());
            ports = replica.rows(&nb::LOGICAL_SWITCH_PORT).count();
            let batch = cluster.pending.take(1, |_| false);
            if batch.is_empty() {
                break;
            }
            let plan = diff::plan(cluster.engine.desired(), &replica, &batch);
            if !plan.is_empty() {
                cluster.nb.execute(&plan.transaction).unwrap();
            }
            for (owner, touches) in plan.deferred {
                cluster.pending.add(owner, Cause::Changed, touches);
            }
        }
        assert!(ports >= 7, "{ports} ports");
    }
}

/// Upstream deleted, added rules and added base rules in three transactions, and dropped the
/// traffic of members meanwhile.
#[test]
fn a_rule_changes_in_one_transaction_that_touches_nothing_else() {
    let mut cluster = Cluster::with(small_cluster());
    cluster.put(shared(group("sg-a", &[22, 80])));
    cluster.put_all(secured("s1", "sg-a", 0));
    let cost = cluster.put(shared(group("sg-a", &[22, 443])));
    assert_eq!((cost.owners, cost.transactions), (1, 1));
    // The old ACL goes, the new one comes, the group refers to it.
    assert_eq!(cost.operations, 3);
}

#[test]
fn a_port_costs_the_same_in_a_large_group() {
    let joining = |size: usize| -> Cost {
        let mut cluster = Cluster::with(small_cluster());
        cluster.put(shared(group("sg-a", &[22])));
        cluster.put_all((0..size).flat_map(|n| secured(&format!("s{n}"), "sg-a", n)));
        let joined = cluster.put_all(secured("new", "sg-a", size));
        let left = cluster.remove(Kind::Pod, "default/new");
        assert_eq!((left.owners, left.transactions), (0, 1));
        joined
    };
    let (small, large) = (joining(2), joining(500));
    assert_eq!(small, large);
    let own = FEATURES.iter().filter(|f| matches!(f.owner, Kind::Pod | Kind::Ip)).count();
    assert_eq!((large.owners, large.transactions), (own, 1), "the pod, its address, nobody else");
    // The port; switch, node group, gateway group, deny-all, group, set.
    assert_eq!(large.operations, 7);
}

/// A rule that changes does not run the ports of the group, nor those of groups that name it.
#[test]
fn ports_do_not_follow_from_rules() {
    let mut cluster = Cluster::with(small_cluster());
    cluster.put(shared(group("sg-a", &[22])));
    cluster.put_all((0..50).flat_map(|n| secured(&format!("s{n}"), "sg-a", n)));
    let cost = cluster.put(shared(group("sg-a", &[23])));
    assert_eq!(cost.owners, 1);
    cluster.check_oracle();
}
