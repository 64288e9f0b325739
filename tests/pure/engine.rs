//! The engine and the differ on the real features, against a database in memory.

use kube_ovn::{
    api::{Kind, Text},
    ovn::FEATURES,
};

use crate::support::{
    cluster::{Cluster, Cost, full_batch},
    objects::*,
};

#[test]
fn any_order_gives_the_same_database() {
    let expected = Cluster::with(small_cluster()).nb.dump();
    let objects = small_cluster();
    let mut forward = Cluster::default();
    objects.iter().for_each(|o| {
        forward.put(o.clone());
    });
    assert_eq!(forward.nb.dump(), expected);
    let mut backward = Cluster::default();
    objects.iter().rev().for_each(|o| {
        backward.put(o.clone());
    });
    assert_eq!(backward.nb.dump(), expected);
    assert!(backward.pending.is_empty());
    assert_eq!(backward.restart(), 0);
}

#[test]
fn deleting_everything_leaves_nothing() {
    let mut cluster = Cluster::with(small_cluster());
    assert!(cluster.nb.owned() > 20);
    for object in small_cluster() {
        cluster.remove(object.kind(), &object.key());
    }
    assert_eq!(cluster.nb.owned(), 0, "{}", cluster.nb.dump());
}

#[test]
fn a_pod_costs_one_owner_whatever_the_cluster_holds() {
    let mut cluster = Cluster::with(small_cluster());
    for i in 0..60 {
        let name = format!("p{i}");
        cluster.put_all([
            shared(pod("default", &name, Some("node1"))),
            shared(pod_ip(
                "default",
                &name,
                "ovn-default",
                &format!("10.16.1.{i},fd00:10:16::1:{i:x}"),
            )),
        ]);
    }
    let runs = cluster.engine.runs();
    let operations = cluster.nb.operations;
    let ran = cluster.put(shared(pod("default", "p7", Some("node2"))));
    let of_pods = FEATURES.iter().filter(|f| f.owner == Kind::Pod).count();
    assert_eq!(ran.owners, of_pods, "only the pod itself");
    assert_eq!(cluster.engine.runs(), runs + of_pods as u64);
    // It leaves two groups and joins two.
    assert_eq!(cluster.nb.operations - operations, 4);
}

#[test]
fn a_row_that_somebody_deleted_comes_back() {
    let mut cluster = Cluster::with(small_cluster());
    let expected = cluster.nb.dump();
    cluster.nb.vandalize("Logical_Switch_Port", "pod:a.default:port");
    assert_ne!(cluster.nb.dump(), expected);
    for (owner, cause, touches) in full_batch(&cluster.engine).owners {
        cluster.pending.add(owner, cause, touches);
    }
    cluster.commit(Cost::default());
    assert_eq!(cluster.nb.dump(), expected);
    cluster.nb.vandalize("Logical_Switch", "subnet:ovn-default:switch");
    for (owner, cause, touches) in full_batch(&cluster.engine).owners {
        cluster.pending.add(owner, cause, touches);
    }
    cluster.commit(Cost::default());
    assert_eq!(cluster.nb.dump(), expected);
}

#[test]
fn a_port_is_never_committed_without_its_switch() {
    let mut cluster = Cluster::default();
    cluster.put_all([shared(settings()), shared(vpc("ovn-cluster")), shared(namespace("default"))]);
    cluster.put(shared(pod("default", "a", Some("node1"))));
    cluster.put(shared(pod_ip("default", "a", "late", "10.17.0.2")));
    assert!(!cluster.nb.dump().contains("a.default"));
    cluster.put(shared(subnet("late", "10.17.0.0/16")));
    assert!(cluster.nb.dump().contains("\"a.default\""), "{}", cluster.nb.dump());
}

#[test]
fn the_later_of_two_overlapping_subnets_is_refused() {
    let mut cluster = Cluster::with(small_cluster());
    let before = cluster.nb.dump();
    cluster.put(shared(subnet("zz", "10.16.128.0/17")));
    assert_eq!(cluster.nb.dump(), before);
    let problems: Vec<Text> = cluster.engine.problems().iter().map(|p| p.key.clone()).collect();
    assert_eq!(problems, vec![Text::from("zz")]);
    cluster.remove(Kind::Subnet, "zz");
    assert_eq!(cluster.nb.dump(), before);
}

#[test]
fn show_the_small_cluster() {
    let dump = Cluster::with(small_cluster()).nb.dump();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/base/small-cluster.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &dump).unwrap();
    }
    assert_eq!(dump, std::fs::read_to_string(path).unwrap_or_default());
}
