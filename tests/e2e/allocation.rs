//! Live allocation: pods of three namespaces come and go in random order, with fixed, pooled and
//! any addresses, while the controller is killed. No address is given twice, none leaks, and the
//! counters are right.
//!
//! The pods are never scheduled (no scheduler has their name), so the API server and the controller
//! do all the work: kubelets could not run 500 of them on one machine. `E2E_ALLOCATIONS=500` is the
//! full size; the default keeps the story short.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    churn::kill,
    cluster::{Cluster, retry, text},
    story::{Story, say, story},
};

/// SplitMix64: the same order on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

const SUBNET: &str = "e2e-allocation";

fn manifest(namespace: &str, n: usize) -> Value {
    let mut annotations = json!({"ovn.kubernetes.io/logical_switch": SUBNET});
    match n % 5 {
        // 10.73.4.0 and up: nobody else asks for these.
        0 => {
            let ip = format!("10.73.{}.{}", 4 + n / 200, n % 200 + 10);
            annotations["ovn.kubernetes.io/ip_address"] = ip.into();
        }
        1 => annotations["ovn.kubernetes.io/ip_pool"] = "e2e-allocation".into(),
        _ => {}
    }
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("p{n}"), "namespace": namespace, "annotations": annotations},
        "spec": {"schedulerName": "nobody", "terminationGracePeriodSeconds": 0, "containers": [
            {"name": "idle", "image": "kube-ovn-sandbox/test:1", "imagePullPolicy": "Never"}]}})
}

fn namespace_of<'a>(s: &'a Story, others: &'a [String], n: usize) -> &'a str {
    match n % 3 {
        0 => &s.ns,
        k => &others[k - 1],
    }
}

fn records(cluster: &Cluster) -> BTreeMap<String, String> {
    let label = format!("ovn.kubernetes.io/subnet={SUBNET}");
    let ips = cluster.objects(&["ips.kubeovn.io", "-l", &label]);
    ips.iter().map(|ip| (text(&ip["metadata"]["name"]), text(&ip["spec"]["ipAddress"]))).collect()
}

/// Every pod has one record, every record a pod, no address twice, counters as counted.
fn agreement(s: &Story, wanted: &BTreeSet<String>) -> Result<(), String> {
    let records = records(s.cluster);
    let names: BTreeSet<String> = records.keys().cloned().collect();
    if names != *wanted {
        let missing = wanted.difference(&names).take(5).collect::<Vec<_>>();
        let leaked = names.difference(wanted).take(5).collect::<Vec<_>>();
        return Err(format!("{} records: missing {missing:?}, leaked {leaked:?}", names.len()));
    }
    let addresses: BTreeSet<&String> = records.values().collect();
    if addresses.len() != records.len() {
        return Err(format!("{} records, {} addresses", records.len(), addresses.len()));
    }
    let status = s.cluster.objects(&["subnet", SUBNET]).remove(0)["status"].clone();
    let (using, free) = (&status["v4usingIPs"], &status["v4availableIPs"]);
    // A /16 without network, broadcast and gateway.
    let left = 65_533 - records.len();
    if *using != json!(records.len()) || *free != json!(left) {
        return Err(format!("using {using} available {free}, counted {}", records.len()));
    }
    Ok(())
}

#[test]
fn random_allocations_survive_kills_without_double_or_leak() {
    let size = std::env::var("E2E_ALLOCATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(90);
    story("allocation", |s| {
        let others: Vec<String> = ["b", "c"].map(|n| format!("{}-{n}", s.ns)).into();
        for name in &others {
            s.extra("namespace", name);
            s.cluster.apply(&[json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name}})]);
            retry(20, || s.cluster.kubectl(&["-n", name, "get", "serviceaccount", "default"]));
        }
        s.subnet(SUBNET, json!({"cidrBlock": "10.73.0.0/16"}));
        s.extra("ippool", "e2e-allocation");
        s.cluster.apply(&[json!({"apiVersion": "kubeovn.io/v1", "kind": "IPPool",
            "metadata": {"name": "e2e-allocation"},
            "spec": {"subnet": SUBNET, "ips": ["10.73.200.0..10.73.201.255"]}})]);
        s.wait_condition(SUBNET, "Ready", "True");
        let mut random = Random(7);
        let mut alive: BTreeSet<usize> = BTreeSet::new();
        let port = |n: usize| format!("p{n}.{}", namespace_of(s, &others, n));
        let rounds = 6;
        for round in 0..rounds {
            let fresh: Vec<usize> = (0..size).filter(|n| !alive.contains(n)).collect();
            let fresh: Vec<usize> =
                fresh.into_iter().filter(|_| round + 1 == rounds || random.below(3) > 0).collect();
            let pods: Vec<Value> =
                fresh.iter().map(|n| manifest(namespace_of(s, &others, *n), *n)).collect();
            retry(60, || s.try_apply(&pods));
            alive.extend(fresh);
            strike(s);
            let gone: Vec<usize> = match round + 1 == rounds {
                true => Vec::new(),
                false => alive.iter().copied().filter(|_| random.below(2) == 0).collect(),
            };
            for namespace in 0..3 {
                let names: Vec<String> =
                    gone.iter().filter(|n| **n % 3 == namespace).map(|n| format!("p{n}")).collect();
                if names.is_empty() {
                    continue;
                }
                let ns = namespace_of(s, &others, namespace);
                let mut args = vec![
                    "-n",
                    ns,
                    "delete",
                    "pod",
                    "--wait=false",
                    "--force",
                    "--grace-period=0",
                    "--ignore-not-found",
                ];
                args.extend(names.iter().map(String::as_str));
                retry(60, || s.cluster.kubectl(&args));
            }
            alive.retain(|n| !gone.contains(n));
            s.step(&format!("round {round}: {} pods, {} went", alive.len(), gone.len()));
        }
        let wanted: BTreeSet<String> = alive.iter().map(|n| port(*n)).collect();
        retry(120, || agreement(s, &wanted));
        s.step(&format!("{} records, no double, no leak, counters right", wanted.len()));
        for namespace in [&s.ns, &others[0], &others[1]] {
            s.cluster
                .kubectl(&[
                    "-n",
                    namespace,
                    "delete",
                    "pods",
                    "--all",
                    "--force",
                    "--grace-period=0",
                ])
                .expect("delete all pods");
        }
        retry(120, || agreement(s, &BTreeSet::new()));
        s.step("all gone, every address is free");
    });
}

/// Kills the controller wherever it runs.
fn strike(s: &Story) {
    for node in s.cluster.nodes() {
        if let Ok(killed) = kill(s.cluster, &node.name, "start-controller") {
            say(&format!("   killed {} on {}", killed.trim(), node.name));
        }
    }
}
