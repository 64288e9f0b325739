//! The commit state machine against a database in memory: epochs, batches, bisection, drift, fuse.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kube_ovn::{
    api::{Kind, Settings, Subnet, SubnetAcl, parse::parse_network_policy},
    controller::commit::{AcceptPlan, Commit, Finished, Next, monitored},
    ovn::FEATURES,
    ovsdb::{
        client::OvsdbError,
        schema::nb,
        transaction::{Refusal, Transaction},
    },
    plan::{Cause, Engine},
    store::{Owner, Read, Store, Stored},
};

use serde_json::json;

use crate::support::{northbound::Server, objects::*};

struct Leader {
    store: Store,
    engine: Engine,
    commit: Commit,
    now: Instant,
}

impl Leader {
    fn new(accept: AcceptPlan) -> Self {
        Leader {
            store: Store::default(),
            engine: Engine::new(FEATURES),
            commit: Commit::new(accept),
            now: Instant::now(),
        }
    }

    fn connected(nb: &mut Server, objects: impl IntoIterator<Item = Arc<dyn Stored>>) -> Self {
        let mut leader = Leader::new(AcceptPlan::No);
        leader.put(objects);
        leader.connect(nb);
        leader
    }

    fn connect(&mut self, nb: &mut Server) {
        let update = nb.snapshot(&monitored());
        self.commit.connected(&self.engine, &update).unwrap();
    }

    fn put(&mut self, objects: impl IntoIterator<Item = Arc<dyn Stored>>) {
        let reads: Vec<Read> = objects.into_iter().flat_map(|o| self.store.upsert(o)).collect();
        self.refresh(&reads, Cause::Edited);
    }

    fn remove(&mut self, kind: Kind, key: &str, cause: Cause) {
        let reads = self.store.remove(kind, key);
        self.refresh(&reads, cause);
    }

    fn refresh(&mut self, reads: &[Read], cause: Cause) {
        let mut refresh = self.engine.refresh(&self.store, reads.iter().map(|r| (r, cause)));
        self.commit.add(&mut refresh);
    }

    fn next(&mut self) -> Next {
        self.commit.next(&self.engine, self.now)
    }

    fn transaction(&mut self) -> Transaction {
        match self.next() {
            Next::Send(transaction) => transaction,
            other => panic!("expected a transaction, got {other:?}"),
        }
    }

    /// One transaction to its end, as a server would carry it out: the update comes before the
    /// answer. `poison` makes the server refuse whatever names it.
    fn step(&mut self, nb: &mut Server, poison: &str) -> Option<Finished> {
        let Next::Send(transaction) = self.next() else { return None };
        let poisoned = !poison.is_empty() && format!("{transaction:?}").contains(poison);
        let result =
            if poisoned { Err("constraint violation".into()) } else { nb.execute(&transaction) };
        for update in nb.differences(&monitored()) {
            self.commit.updated(&self.engine, &update).unwrap();
        }
        let result = result.map_err(|error: String| OvsdbError::Refused {
            database: "OVN_Northbound",
            refusal: Refusal { error, details: String::new(), index: None },
        });
        Some(self.commit.finished(result, self.now))
    }

    fn run(&mut self, nb: &mut Server) -> usize {
        self.run_against(nb, "")
    }

    fn run_against(&mut self, nb: &mut Server, poison: &str) -> usize {
        for n in 0..500 {
            match self.step(nb, poison) {
                None => return n,
                Some(Finished::Deposed) => panic!("deposed"),
                Some(_) => {}
            }
        }
        panic!("it never ends; next is {:?}", self.next());
    }
}

fn pods(count: usize) -> Vec<Arc<dyn Stored>> {
    let pair = |i: usize| {
        let name = format!("p{i}");
        let ips = format!("10.16.{}.{},fd00:10:16::{:x}", 4 + i / 200, 1 + i % 200, 4096 + i);
        [
            shared(pod("default", &name, Some("node1"))),
            shared(pod_ip("default", &name, "ovn-default", &ips)),
        ]
    };
    (0..count).flat_map(pair).collect()
}

#[test]
fn the_first_transaction_takes_the_epoch_and_a_restart_writes_nothing_else() {
    let mut nb = Server::new(&nb::DATABASE);
    let mut leader = Leader::connected(&mut nb, small_cluster());
    assert_eq!(leader.run(&mut nb), 2, "the epoch, then everything");
    assert!(leader.commit.settled());
    assert!(nb.dump().contains("\"kube-ovn/epoch\"=\"1\""), "{}", nb.dump());
    let before = nb.dump();
    let mut next = Leader::connected(&mut nb, small_cluster());
    assert_eq!(next.run(&mut nb), 1, "only the epoch");
    assert_eq!(nb.dump(), before.replace("epoch\"=\"1\"", "epoch\"=\"2\""));
    assert_eq!(next.commit.counters.operations, 0);
    assert_eq!(next.commit.counters.drift, 0);
}

#[test]
fn a_deposed_leader_cannot_write() {
    let mut nb = Server::new(&nb::DATABASE);
    let mut old = Leader::connected(&mut nb, small_cluster());
    old.run(&mut nb);
    let mut new = Leader::connected(&mut nb, small_cluster());
    new.run(&mut nb);
    let before = nb.dump();
    old.put([shared(subnet("extra", "10.20.0.0/16"))]);
    let transaction = old.transaction();
    assert_eq!(nb.execute(&transaction), Err("timed out".into()));
    let refusal = Refusal { error: "timed out".into(), details: String::new(), index: Some(0) };
    let refused = OvsdbError::Refused { database: "OVN_Northbound", refusal };
    assert_eq!(old.commit.finished(Err(refused), old.now), Finished::Deposed);
    assert_eq!(nb.dump(), before);
}

#[test]
fn a_leader_that_reconnects_and_finds_a_later_epoch_stops() {
    let mut nb = Server::new(&nb::DATABASE);
    let mut old = Leader::connected(&mut nb, small_cluster());
    old.run(&mut nb);
    Leader::connected(&mut nb, small_cluster()).run(&mut nb);
    old.connect(&mut nb);
    assert!(matches!(old.next(), Next::Deposed));
}

#[test]
fn a_leader_that_reconnects_keeps_its_epoch() {
    let mut nb = Server::new(&nb::DATABASE);
    let mut leader = Leader::connected(&mut nb, small_cluster());
    leader.run(&mut nb);
    leader.commit.disconnected();
    assert!(matches!(leader.next(), Next::Idle));
    leader.connect(&mut nb);
    assert_eq!(leader.run(&mut nb), 0);
}

#[test]
fn an_emptied_database_is_filled_again() {
    let mut nb = Server::new(&nb::DATABASE);
    let mut leader = Leader::connected(&mut nb, small_cluster());
    leader.run(&mut nb);
    let expected = nb.dump();
    let mut fresh = Server::new(&nb::DATABASE);
    leader.connect(&mut fresh);
    leader.run(&mut fresh);
    assert_eq!(fresh.dump(), expected.replace("epoch\"=\"1\"", "epoch\"=\"2\""));
}

#[test]
fn an_answer_that_never_came_is_compared_and_not_repeated() {
    let mut nb = Server::new(&nb::DATABASE);
    let mut leader = Leader::connected(&mut nb, small_cluster());
    leader.step(&mut nb, "");
    let transaction = leader.transaction();
    nb.execute(&transaction).unwrap();
    let lost = OvsdbError::Lost { database: "OVN_Northbound", reason: "reset".into() };
    assert_eq!(leader.commit.finished(Err(lost), leader.now), Finished::Again);
    leader.commit.disconnected();
    leader.connect(&mut nb);
    assert_eq!(leader.run(&mut nb), 0, "it was executed");
    assert!(leader.commit.settled());
}

#[test]
fn many_owners_go_in_batches() {
    let mut nb = Server::new(&nb::DATABASE);
    let mut leader = Leader::connected(&mut nb, small_cluster());
    leader.run(&mut nb);
    leader.put(pods(450));
    assert_eq!(leader.run(&mut nb), 3);
    assert_eq!(leader.commit.take_completed().iter().filter(|o| o.feature == "pod").count(), 452);
}

#[test]
fn a_refused_batch_is_bisected_and_only_the_bad_owner_waits() {
    let mut nb = Server::new(&nb::DATABASE);
    let mut leader = Leader::connected(&mut nb, small_cluster());
    leader.run(&mut nb);
    leader.put(pods(64));
    leader.run_against(&mut nb, "\"p7.default\"");
    assert_eq!(nb.dump().matches("Logical_Switch_Port pod:p").count(), 63);
    let bad = Owner { feature: "pod", kind: Kind::Pod, key: "default/p7".into() };
    let refusals: Vec<&Owner> = leader.commit.refusals().map(|(owner, _)| owner).collect();
    assert_eq!(refusals, vec![&bad]);
    assert!(!leader.commit.is_committed(&bad));
    assert!(matches!(leader.next(), Next::Idle), "back-off");
    // Others are not held up, and the owner is tried again later.
    leader.put([shared(subnet("extra", "10.20.0.0/16"))]);
    assert_eq!(leader.run(&mut nb), 1);
    leader.now += Duration::from_secs(2);
    assert_eq!(leader.run(&mut nb), 1);
    assert!(leader.commit.is_committed(&bad));
    assert_eq!(leader.commit.refusals().count(), 0, "its object is told that all is well");
}

#[test]
fn drift_heals_and_is_counted() {
    let mut nb = Server::new(&nb::DATABASE);
    let mut leader = Leader::connected(&mut nb, small_cluster());
    leader.run(&mut nb);
    let expected = nb.dump();
    assert_eq!(leader.commit.counters.drift, 0, "own writes are no drift");
    nb.vandalize("Logical_Switch_Port", "pod:a.default:port");
    for update in nb.differences(&monitored()) {
        leader.commit.updated(&leader.engine, &update).unwrap();
    }
    leader.run(&mut nb);
    assert_eq!(nb.dump(), expected);
    assert!(leader.commit.counters.drift > 0);
}

#[test]
fn mass_deletion_without_deletes_waits_for_the_operator() {
    let mut nb = Server::new(&nb::DATABASE);
    let mut leader = Leader::connected(&mut nb, small_cluster());
    leader.run(&mut nb);
    leader.put(pods(120));
    leader.run(&mut nb);
    let before = nb.dump();
    for i in 0..120 {
        leader.remove(Kind::Pod, &format!("default/p{i}"), Cause::Changed);
    }
    leader.run(&mut nb);
    assert_eq!(nb.dump(), before);
    assert!(leader.commit.held_back().is_some_and(|v| v.rows == 120));
    // Everything else goes on.
    leader.put([shared(subnet("extra", "10.20.0.0/16"))]);
    leader.run(&mut nb);
    assert!(nb.dump().contains("Logical_Switch subnet:extra"));
    // The same plan at the next start, accepted.
    let mut accepting = Leader::new(AcceptPlan::Yes);
    accepting.put(small_cluster());
    accepting.connect(&mut nb);
    accepting.run(&mut nb);
    assert_eq!(nb.dump().matches("Logical_Switch_Port pod:").count(), 2);
    // It was accepted once. An owner that waits does not keep the fuse out for ever.
    accepting.put(pods(120));
    accepting.run(&mut nb);
    accepting.put([shared(pod("default", "waits", Some("node1")))]);
    accepting.put([shared(pod_ip("default", "waits", "missing", "10.99.0.1"))]);
    accepting.run(&mut nb);
    for i in 0..120 {
        accepting.remove(Kind::Pod, &format!("default/p{i}"), Cause::Changed);
    }
    accepting.run(&mut nb);
    assert!(accepting.commit.held_back().is_some_and(|v| v.rows == 120));
}

fn policy(n: usize, ports: usize) -> Arc<dyn Stored> {
    let from = json!([{"podSelector": {"matchLabels": {"app": format!("a-{n}")}}}]);
    let ports: Vec<_> = (0..ports).map(|p| json!({"port": 80 + p})).collect();
    let raw = json!({"metadata": {"name": format!("p-{n}"), "namespace": "default"},
        "spec": {"podSelector": {}, "ingress": [{"from": from, "ports": ports}]}});
    shared(parse_network_policy(&serde_json::from_value(raw).unwrap()))
}

/// A controller that starts when `left` of 60 policies are left: what it holds back, and how many
/// transactions it needs.
fn restarted(nb: &mut Server, left: usize, ports: usize) -> (Option<usize>, usize) {
    let mut next = Leader::new(AcceptPlan::No);
    next.put(small_cluster().into_iter().chain((0..left).map(|n| policy(n, ports))));
    next.connect(nb);
    let transactions = next.run(nb);
    (next.commit.held_back().map(|verdict| verdict.rows), transactions)
}

fn with_60_policies(ports: usize) -> Server {
    let mut nb = Server::new(&nb::DATABASE);
    let mut leader = Leader::connected(&mut nb, small_cluster());
    leader.run(&mut nb);
    leader.put((0..60).map(|n| policy(n, ports)));
    leader.run(&mut nb);
    nb
}

fn rows_of_policies(nb: &Server) -> usize {
    nb.dump().lines().filter(|l| l.contains("network-policy:")).count()
}

/// Each has a group, ACLs and sets; the controller was killed while users deleted them.
#[test]
fn policies_deleted_while_no_controller_ran_go_at_the_next_start() {
    let mut nb = with_60_policies(0);
    let full = rows_of_policies(&nb);
    // That many at once are a reason to ask.
    assert!(restarted(&mut nb, 0, 0).0.is_some_and(|rows| (60..80).contains(&rows)));
    assert_eq!(rows_of_policies(&nb), full);
    for left in [30, 10, 0] {
        assert_eq!(restarted(&mut nb, left, 0).0, None, "{left} left");
        assert_eq!(nb.dump().matches("Port_Group network-policy:").count(), left);
    }
    assert_eq!(rows_of_policies(&nb), 0);
}

/// 11 rows each, more than fit in one transaction together: an ACL that goes without the group that
/// holds it is refused by the database.
#[test]
fn rows_that_hold_each_other_go_in_one_transaction() {
    let mut nb = with_60_policies(8);
    let (held, transactions) = restarted(&mut nb, 0, 8);
    assert_eq!((held, rows_of_policies(&nb)), (None, 0));
    assert!(transactions < 10, "{transactions} transactions, most of them refused");
}

#[test]
fn an_edit_that_takes_many_rows_of_its_object_is_no_accident() {
    let acl = |n: usize| SubnetAcl {
        direction: "to-lport".into(),
        priority: 1000 + n as i64,
        matching: format!("ip4.src == 192.0.2.{n}").into(),
        action: "drop".into(),
    };
    let with = |count| shared(Subnet { acls: (0..count).map(acl).collect(), ..extra() });
    fn extra() -> Subnet {
        subnet("extra", "10.20.0.0/16")
    }
    let mut nb = Server::new(&nb::DATABASE);
    let mut leader = Leader::connected(&mut nb, small_cluster());
    leader.put([with(100)]);
    leader.run(&mut nb);
    assert_eq!(nb.dump().matches("ACL subnet-acl:extra").count(), 100);
    leader.put([with(1)]);
    leader.run(&mut nb);
    assert!(leader.commit.held_back().is_none());
    assert_eq!(nb.dump().matches("ACL subnet-acl:extra").count(), 1, "revoked rules are gone");
    // The pods of a subnet are not the subnet: their ports wait.
    leader.put(pods(120));
    leader.run(&mut nb);
    let foreign = Subnet {
        provider: "macvlan.default".into(),
        ..subnet("ovn-default", "10.16.0.0/16,fd00:10:16::/64")
    };
    leader.put([shared(foreign)]);
    leader.run(&mut nb);
    let held = leader.commit.held_back().cloned();
    let ports = nb.dump().matches("Logical_Switch_Port pod:p").count();
    assert_eq!((held.map(|v| v.rows >= 120), ports), (Some(true), 120));
}

#[test]
fn mass_deletion_by_users_is_carried_out() {
    let mut nb = Server::new(&nb::DATABASE);
    let mut leader = Leader::connected(&mut nb, small_cluster());
    leader.run(&mut nb);
    leader.put(pods(120));
    leader.run(&mut nb);
    for i in 0..120 {
        leader.remove(Kind::Pod, &format!("default/p{i}"), Cause::Deleted);
    }
    leader.run(&mut nb);
    assert_eq!(nb.dump().matches("Logical_Switch_Port pod:").count(), 2);
}

#[test]
fn a_feature_switched_off_by_its_flag_goes_without_the_operator() {
    let services = |n: usize| {
        (0..n).map(|i| shared(service("default", &format!("s{i}"), &format!("10.96.1.{}", i + 1))))
    };
    let mut nb = Server::new(&nb::DATABASE);
    let mut leader = Leader::connected(&mut nb, small_cluster());
    leader.put(services(120));
    leader.run(&mut nb);
    assert_eq!(nb.dump().matches("Load_Balancer service:").count(), 120);
    let off = || shared(Settings { enable_lb: false, ..settings() });
    // Without the word of the flag so many rows would wait.
    for (switched_off, left) in [(false, 120), (true, 0)] {
        let mut next = Leader::new(AcceptPlan::No);
        if switched_off {
            next.commit.switch_off("service");
        }
        next.put(small_cluster());
        next.put([off()]);
        next.put(services(120));
        next.connect(&mut nb);
        next.run(&mut nb);
        assert_eq!(nb.dump().matches("Load_Balancer service:").count(), left);
    }
    assert!(!nb.dump().contains("Load_Balancer_Group"));
    assert!(nb.dump().contains("Logical_Switch_Port pod:"));
}
