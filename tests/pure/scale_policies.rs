//! What policies cost in a large cluster. Counters are asserted; times are only printed.

use std::{sync::Arc, time::Instant};

use kube_ovn::{
    api::{Kind, NetworkPolicy, Subnet, parse::parse_network_policy},
    ovn::FEATURES,
    ovsdb::schema::nb,
    plan::{Cause, diff},
    store::Stored,
};
use serde_json::json;

use crate::support::{cluster::Cluster, objects::*};

fn policy(namespace: &str, name: &str, spec: serde_json::Value) -> NetworkPolicy {
    let raw = json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec});
    parse_network_policy(&serde_json::from_value(raw).unwrap())
}

fn pod_objects(namespace: &str, n: usize) -> [Arc<dyn Stored>; 2] {
    let name = format!("pod-{n}");
    let mut pod = pod(namespace, &name, Some(&format!("node-{}", n % 20)));
    pod.labels.insert("app".into(), format!("app-{}", n % 10).into());
    let address = format!("10.16.{}.{}", n / 250, n % 250 + 2);
    [shared(pod), shared(pod_ip(namespace, &name, "ovn-default", &address))]
}

fn base() -> Vec<Arc<dyn Stored>> {
    let default: Subnet = subnet("ovn-default", "10.16.0.0/16");
    let mut all = vec![
        shared(settings()),
        shared(vpc("ovn-cluster")),
        shared(subnet("join", "100.64.0.0/16")),
        shared(default),
    ];
    for n in 0..20 {
        let name = format!("node-{n}");
        all.push(shared(node(&name, &format!("172.18.0.{}", n + 1))));
        all.push(shared(node_ip(&name, &format!("100.64.0.{}", n + 2))));
    }
    all
}

fn timed<T>(what: &str, f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = f();
    println!("{what:<48} {:>9.1} ms", start.elapsed().as_secs_f64() * 1e3);
    result
}

/// Ten policies that each select all pods as subjects and as peers.
#[test]
fn a_pod_event_costs_its_policies_and_not_their_members() {
    const POLICIES: usize = 10;
    let mut cost = Vec::new();
    for pods in [100, 1_000] {
        let mut objects = base();
        objects.push(shared(namespace("default")));
        objects.extend((0..pods).flat_map(|n| pod_objects("default", n)));
        for n in 0..POLICIES {
            let spec = json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]});
            objects.push(shared(policy("default", &format!("all-{n}"), spec)));
        }
        let mut cluster = Cluster::default();
        cluster.put_all(objects);
        let new = timed(&format!("one new pod beside {pods}, in this server"), || {
            cluster.put_all(pod_objects("default", pods))
        });
        assert_eq!(new.owners, of(Kind::Pod) + of(Kind::Ip));
        // Port, switch, two groups as without policies; the group of all selected pods, and of each
        // policy the group and the set of its peers.
        assert_eq!(new.operations, 4 + 1 + 2 * POLICIES);
        let mut moved = pod("default", "pod-0", Some("node-0"));
        moved.labels.insert("app".into(), "other".into());
        let labels = cluster.put(shared(moved));
        assert_eq!((labels.owners, labels.operations), (of(Kind::Pod), 0));
        cost.push(new);
        cluster.check_oracle();
    }
    assert_eq!(cost[0], cost[1], "whatever the size");
}

/// Features of a kind: what one object of it costs when nobody else reads it.
fn of(kind: Kind) -> usize {
    FEATURES.iter().filter(|f| f.owner == kind).count()
}

#[test]
fn one_pod_event_beside_ten_thousand() {
    let mut objects = base();
    objects.push(shared(namespace("default")));
    objects.extend((0..10_000).flat_map(|n| pod_objects("default", n)));
    for n in 0..10 {
        let spec = json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]});
        objects.push(shared(policy("default", &format!("all-{n}"), spec)));
    }
    let mut cluster = Cluster::default();
    let reads: Vec<_> = objects.into_iter().flat_map(|o| cluster.store.upsert(o)).collect();
    timed("10 policies x 10,000 pods: full compute", || cluster.refresh(&reads, Cause::Changed));
    let event = pod_objects("default", 10_000);
    let reads: Vec<_> = event.into_iter().flat_map(|o| cluster.store.upsert(o)).collect();
    let cost =
        timed("10 policies x 10,000 pods: one new pod", || cluster.refresh(&reads, Cause::Changed));
    assert_eq!((cost.owners, cost.touches), (of(Kind::Pod) + of(Kind::Ip), 4 + 1 + 2 * 10));
}

#[test]
fn a_thousand_policies_and_ten_thousand_pods_start_cold() {
    let mut objects = base();
    for n in 0..100 {
        objects.push(shared(namespace(&format!("ns-{n}"))));
    }
    for n in 0..10_000 {
        objects.extend(pod_objects(&format!("ns-{}", n / 100), n));
    }
    for n in 0..1_000 {
        let (namespace, app) = (format!("ns-{}", n / 10), format!("app-{}", n % 10));
        let from = format!("app-{}", (n + 1) % 10);
        let spec = json!({
            "podSelector": {"matchLabels": {"app": app}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": from}}}],
                "ports": [{"port": 80}]}],
        });
        objects.push(shared(policy(&namespace, &format!("p-{n}"), spec)));
    }
    let mut cluster = Cluster::default();
    let reads: Vec<_> =
        timed("store", || objects.into_iter().flat_map(|o| cluster.store.upsert(o)).collect());
    let cost = timed("1,000 policies x 10,000 pods: full compute", || {
        cluster.refresh(&reads, Cause::Changed)
    });
    assert!(cost.owners < 10_000 * (of(Kind::Pod) + of(Kind::Ip)) + 2_000, "{}", cost.owners);
    let replica = cluster.nb.replica();
    let batch = cluster.pending.take(usize::MAX, |_| false);
    let plan = timed("first diff", || diff::plan(cluster.engine.desired(), &replica, &batch));
    assert!(plan.deferred.is_empty());
    let desired = cluster.engine.desired();
    let sets = desired.rows().filter(|key| *key.table == nb::ADDRESS_SET).count();
    println!("{} rows, {sets} of them address sets", desired.row_count());
    // A policy that changes re-runs itself and the pods that it may concern.
    let spec = json!({"podSelector": {"matchLabels": {"app": "app-0"}}, "ingress": []});
    let reads = cluster.store.upsert(shared(policy("ns-0", "p-0", spec)));
    let edit = timed("one policy changes", || cluster.refresh(&reads, Cause::Changed));
    assert_eq!(edit.owners, 1 + 10 + 10, "its subjects and its peers");
}
