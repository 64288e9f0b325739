//! What work costs in a large cluster. Counters are asserted; times are only printed.

use std::{sync::Arc, time::Instant};

use kube_ovn::{
    api::{Gateway, Kind, NamedGateway},
    ovn::FEATURES,
    ovsdb::schema::{Table, nb},
    plan::diff,
    store::Stored,
};

use crate::support::{
    cluster::{Cluster, Cost, full_batch},
    objects::*,
};

struct Size {
    nodes: usize,
    subnets: usize,
    pods: usize,
}

fn subnet_name(n: usize) -> String {
    format!("net-{n}")
}

fn pod_objects(size: &Size, n: usize) -> [Arc<dyn Stored>; 2] {
    let subnet = n % size.subnets;
    let host = n / size.subnets + 2;
    let node = format!("node-{}", n % size.nodes);
    let name = format!("pod-{n}");
    let address = format!("10.{}.{}.{}", 16 + subnet, host / 250, host % 250);
    [
        shared(pod("default", &name, Some(&node))),
        shared(pod_ip("default", &name, &subnet_name(subnet), &address)),
    ]
}

fn objects(size: &Size) -> Vec<Arc<dyn Stored>> {
    let mut all = vec![
        shared(settings()),
        shared(vpc("ovn-cluster")),
        shared(subnet("join", "100.64.0.0/16")),
        shared(namespace("default")),
    ];
    for n in 0..size.nodes {
        let name = format!("node-{n}");
        all.push(shared(node(&name, &format!("172.18.{}.{}", n / 250, n % 250 + 1))));
        all.push(shared(node_ip(&name, &format!("100.64.{}.{}", n / 250, n % 250 + 2))));
    }
    for n in 0..size.subnets {
        let cidr = format!("10.{}.0.0/16", 16 + n);
        all.push(shared(subnet(&subnet_name(n), &cidr)));
    }
    all.extend((0..size.pods).flat_map(|n| pod_objects(size, n)));
    all
}

/// Owners that every object of a kind has.
fn features(kind: Kind) -> usize {
    FEATURES.iter().filter(|feature| feature.owner == kind).count()
}

fn timed<T>(what: &str, f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = f();
    println!("{what:<40} {:>9.1} ms", start.elapsed().as_secs_f64() * 1e3);
    result
}

fn measure(size: &Size) {
    println!("{} pods, {} subnets, {} nodes", size.pods, size.subnets, size.nodes);
    let mut cluster = Cluster::default();
    let reads: Vec<_> = timed("store", || {
        objects(size).into_iter().flat_map(|o| cluster.store.upsert(o)).collect()
    });
    let cost = timed("full compute", || cluster.refresh(&reads, kube_ovn::plan::Cause::Changed));
    let once = [Kind::Settings, Kind::Vpc, Kind::Namespace].map(features).iter().sum::<usize>();
    let subnets = features(Kind::Subnet) * (size.subnets + 1);
    let (nodes, pods) = (features(Kind::Node) * size.nodes, features(Kind::Pod) * size.pods);
    let records = features(Kind::Ip) * (size.nodes + size.pods);
    assert_eq!(cost.owners, once + subnets + nodes + pods + records);
    // Two policies per node (its address, its pods) and one per subnet: never nodes x subnets.
    let rows =
        |table: &Table| cluster.engine.desired().rows().filter(|k| *k.table == *table).count();
    assert_eq!(rows(&nb::LOGICAL_ROUTER_POLICY), 2 * size.nodes + size.subnets + 1);
    assert_eq!(rows(&nb::PORT_GROUP), 2 * size.nodes);
    let replica = cluster.nb.replica();
    let batch = cluster.pending.take(usize::MAX, |_| false);
    let plan = timed("first diff", || diff::plan(cluster.engine.desired(), &replica, &batch));
    assert!(plan.deferred.is_empty());
    timed("(test server: first transaction)", || cluster.nb.execute(&plan.transaction).unwrap());
    let replica = timed("(test server: replica)", || cluster.nb.replica());
    let full = full_batch(&cluster.engine);
    let plan = timed("restart: diff of everything", || {
        diff::plan(cluster.engine.desired(), &replica, &full)
    });
    assert!(plan.is_empty(), "{:?}", plan.transaction.operations.first());

    let one = |cluster: &mut Cluster, what: &str, objects: Vec<Arc<dyn Stored>>| -> Cost {
        timed(what, || {
            let reads: Vec<_> = objects.into_iter().flat_map(|o| cluster.store.upsert(o)).collect();
            let mut cost = cluster.refresh(&reads, kube_ovn::plan::Cause::Changed);
            let batch = cluster.pending.take(usize::MAX, |_| false);
            let plan = diff::plan(cluster.engine.desired(), &replica, &batch);
            cost.operations = plan.transaction.operations.len();
            cost
        })
    };
    let pod = one(&mut cluster, "one new pod", pod_objects(size, size.pods).into());
    // The pod and its record; a row, its place in the switch and in two groups.
    let owners = features(Kind::Pod) + features(Kind::Ip);
    assert_eq!(pod, Cost { owners, touches: 4, operations: 4, transactions: 0 });
    let mut edited = subnet(&subnet_name(0), "10.16.0.0/16");
    edited.private = true;
    let in_subnet = size.pods.div_ceil(size.subnets) + 1;
    let edit = one(&mut cluster, "one subnet becomes private", vec![shared(edited)]);
    // Its features and those of its pods: annotations and memberships follow from it.
    assert_eq!(edit.owners, features(Kind::Subnet) + features(Kind::Pod) * in_subnet);
    // Three ACLs, that of the node addresses, and the switch; the meter of the first drop that logs.
    assert_eq!(edit.operations, 7);
    let new = one(&mut cluster, "one new subnet", vec![shared(subnet("other", "10.250.0.0/16"))]);
    // Its features and the list of its Vpc.
    assert_eq!(new.owners, features(Kind::Subnet) + 1);
    let ready = {
        let mut changed = node("node-0", "172.18.0.1");
        changed.ready = false;
        one(&mut cluster, "a node stops being ready", vec![shared(changed)])
    };
    assert_eq!((ready.owners, ready.operations), (features(Kind::Node), 0));
    let node_cost = one(
        &mut cluster,
        "one new node",
        vec![shared(node("node-x", "172.18.9.9")), shared(node_ip("node-x", "100.64.9.9"))],
    );
    // Its own features and its record: no subnet runs again.
    assert_eq!(node_cost.owners, features(Kind::Node) + features(Kind::Ip));
    // Two groups, two policies, a port; router, join switch, the set of node addresses.
    assert_eq!(node_cost.operations, 2 + 2 + 1 + 3);
    let mut central = subnet(&subnet_name(1), "10.17.0.0/16");
    central.gateway_type = Some(kube_ovn::api::GatewayType::Centralized);
    central.gateway_nodes = vec![NamedGateway { node: "node-0".into(), egress: None }];
    let choice = Gateway { subnet: central.name.clone(), active: vec!["node-0".into()] };
    let in_subnet = (0..size.pods).filter(|n| n % size.subnets == 1).count();
    let switched =
        one(&mut cluster, "a subnet becomes centralized", vec![shared(central), shared(choice)]);
    // Its features and those of its own pods.
    assert_eq!(switched.owners, features(Kind::Subnet) + features(Kind::Pod) * in_subnet);
    // A policy in the router; each pod leaves the group of its node.
    assert_eq!(switched.touches, 2 + in_subnet);
    timed("oracle", || cluster.check_oracle());
    timed("one pod goes", || {
        let reads = cluster.store.remove(Kind::Pod, "default/pod-0");
        let cost = cluster.refresh(&reads, kube_ovn::plan::Cause::Deleted);
        assert_eq!((cost.owners, cost.touches), (0, 4));
    });
}

#[test]
fn ten_thousand_pods_on_a_hundred_nodes() {
    measure(&Size { nodes: 100, subnets: 200, pods: 10_000 });
}

#[test]
fn ten_thousand_pods_on_a_thousand_nodes() {
    measure(&Size { nodes: 1_000, subnets: 200, pods: 10_000 });
}

/// Ten endpoints of Service `n`; `edition` changes the last one.
fn endpoints(n: usize, edition: usize) -> Arc<dyn Stored> {
    let address = |i: usize| {
        let host = if i == 9 { 250 + edition } else { i + 1 };
        format!("10.16.{}.{}", n % 256, host)
    };
    shared(slice("default", &format!("svc-{n}"), (0..10).map(address)))
}

#[test]
fn two_thousand_services_of_ten_endpoints() {
    const SERVICES: usize = 2_000;
    println!("{SERVICES} Services of 10 endpoints");
    let mut cluster = Cluster::with(objects(&Size { nodes: 10, subnets: 200, pods: 0 }));
    let all: Vec<Arc<dyn Stored>> = (0..SERVICES)
        .flat_map(|n| {
            let address = format!("10.96.{}.{}", n / 250, n % 250 + 1);
            [shared(service("default", &format!("svc-{n}"), &address)), endpoints(n, 0)]
        })
        .collect();
    let first = timed("all of them (with test server)", || cluster.put_all(all));
    // A row each, and the group.
    assert_eq!((first.owners, first.operations), (SERVICES, SERVICES + 1));
    let reads = cluster.store.upsert(endpoints(7, 1));
    let change = timed("one endpoint", || cluster.refresh(&reads, kube_ovn::plan::Cause::Changed));
    let change = cluster.commit(change);
    // One entry of one row, whatever the number of Services and of switches.
    assert_eq!(change, Cost { owners: 1, touches: 1, operations: 1, transactions: 1 });
    let text = cluster.nb.dump();
    assert!(text.contains("10.16.7.251:8080"), "the change has arrived");
    let new = service("default", "new", "10.97.0.1");
    let new = timed("one Service (with test server)", || cluster.put(shared(new)));
    // Its row, its place in the group.
    assert_eq!(new, Cost { owners: 1, touches: 2, operations: 2, transactions: 1 });
    let subnet = subnet("other", "10.250.0.0/16");
    let attach = timed("one subnet (with test server)", || cluster.put(shared(subnet)));
    // A switch is attached to all Services by one element.
    assert!(attach.operations < 10 + 4 * 10, "{attach:?}");
    timed("oracle", || cluster.check_oracle());
}
