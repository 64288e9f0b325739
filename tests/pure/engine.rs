//! The engine and the differ on the real features, against a database in memory.

use std::sync::Arc;

use kube_ovn::{
    api::{Kind, Text},
    ovn::FEATURES,
    ovsdb::schema::nb,
    plan::{Batch, Cause, Engine, Pending, diff},
    store::{Read, Store, Stored},
};

use crate::support::{northbound::Server, objects::*};

/// Controller without I/O: every step commits all that is pending.
struct Cluster {
    store: Store,
    engine: Engine,
    pending: Pending,
    nb: Server,
}

impl Cluster {
    fn new() -> Self {
        Cluster {
            store: Store::default(),
            engine: Engine::new(FEATURES),
            pending: Pending::default(),
            nb: Server::new(&nb::DATABASE),
        }
    }

    fn with(objects: impl IntoIterator<Item = Arc<dyn Stored>>) -> Self {
        let mut cluster = Cluster::new();
        cluster.put_all(objects);
        cluster
    }

    fn refresh(&mut self, reads: &[Read], cause: Cause) -> usize {
        let refresh = self.engine.refresh(&self.store, reads.iter().map(|r| (r, cause)));
        for (owner, cause, touches) in refresh.touched {
            self.pending.add(owner, cause, touches);
        }
        refresh.ran
    }

    fn put(&mut self, object: Arc<dyn Stored>) -> usize {
        let reads = self.store.upsert(object);
        let ran = self.refresh(&reads, Cause::Changed);
        self.commit();
        ran
    }

    fn put_all(&mut self, objects: impl IntoIterator<Item = Arc<dyn Stored>>) {
        let reads: Vec<Read> = objects.into_iter().flat_map(|o| self.store.upsert(o)).collect();
        self.refresh(&reads, Cause::Changed);
        self.commit();
    }

    fn remove(&mut self, kind: Kind, key: &str) {
        let reads = self.store.remove(kind, key);
        self.refresh(&reads, Cause::Deleted);
        self.commit();
    }

    fn commit(&mut self) {
        let replica = self.nb.replica();
        let batch = self.pending.take(usize::MAX, |_| false);
        let plan = diff::plan(self.engine.desired(), &replica, &batch);
        if !plan.is_empty() {
            self.nb.execute(&plan.transaction).unwrap_or_else(|e| {
                panic!("{e}\n{:#?}\n{}", plan.transaction, self.nb.dump());
            });
        }
        for (owner, touches) in plan.deferred {
            self.pending.add(owner, Cause::Changed, touches);
        }
        assert_eq!(self.engine.differences(&self.store), vec![], "oracle");
    }

    /// Everything touched again: a restart.
    fn operations_after_restart(&self) -> usize {
        let engine = Engine::from_store(FEATURES, &self.store);
        let batch = full_batch(&engine);
        diff::plan(engine.desired(), &self.nb.replica(), &batch).transaction.operations.len()
    }
}

fn full_batch(engine: &Engine) -> Batch {
    let owners = engine.owners().map(|(owner, derived)| {
        let touches = derived.facts.iter().map(kube_ovn::plan::touch_of).collect();
        (owner.clone(), Cause::Changed, touches)
    });
    Batch { owners: owners.collect() }
}

#[test]
fn any_order_gives_the_same_database() {
    let expected = Cluster::with(small_cluster()).nb.dump();
    let objects = small_cluster();
    let mut forward = Cluster::new();
    objects.iter().for_each(|o| {
        forward.put(o.clone());
    });
    assert_eq!(forward.nb.dump(), expected);
    let mut backward = Cluster::new();
    objects.iter().rev().for_each(|o| {
        backward.put(o.clone());
    });
    assert_eq!(backward.nb.dump(), expected);
    assert!(backward.pending.is_empty());
    assert_eq!(backward.operations_after_restart(), 0);
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
    assert_eq!(ran, 1, "only the pod itself");
    assert_eq!(cluster.engine.runs(), runs + 1);
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
    cluster.commit();
    assert_eq!(cluster.nb.dump(), expected);
    cluster.nb.vandalize("Logical_Switch", "subnet:ovn-default:switch");
    for (owner, cause, touches) in full_batch(&cluster.engine).owners {
        cluster.pending.add(owner, cause, touches);
    }
    cluster.commit();
    assert_eq!(cluster.nb.dump(), expected);
}

#[test]
fn a_port_is_never_committed_without_its_switch() {
    let mut cluster = Cluster::new();
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
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/small-cluster.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &dump).unwrap();
    }
    assert_eq!(dump, std::fs::read_to_string(path).unwrap_or_default());
}
