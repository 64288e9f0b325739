//! While a policy changes, no packet passes that neither the old nor the new one admits, and none is
//! lost that both admit, whatever order and size the transactions have.

use kube_ovn::{
    api::{NetworkPolicy, parse::parse_network_policy},
    plan::{Cause, diff},
};
use serde_json::{Value, json};

use crate::support::{cluster::Cluster, objects::*};

fn policy(spec: Value) -> NetworkPolicy {
    let raw = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec});
    parse_network_policy(&serde_json::from_value(raw).unwrap())
}

fn rule(app: &str, port: u16) -> Value {
    json!({"podSelector": {"matchLabels": {"app": "s"}}, "ingress": [{
        "from": [{"podSelector": {"matchLabels": {"app": app}}}], "ports": [{"port": port}]}]})
}

fn cluster(spec: Value) -> Cluster {
    let mut objects = small_cluster();
    for (n, app) in ["a", "b", "s", "a", "b", "s"].into_iter().enumerate() {
        let name = format!("p{n}");
        let mut pod = pod("default", &name, Some("node1"));
        pod.labels.insert("app".into(), app.into());
        let address = format!("10.16.1.{n},fd00:10:16::1:{n}");
        objects.extend([shared(pod), shared(pod_ip("default", &name, "ovn-default", &address))]);
    }
    objects.push(shared(policy(spec)));
    Cluster::with(objects)
}

/// Lines of the rows of the policy.
fn rows(cluster: &Cluster) -> String {
    let dump = cluster.nb.dump();
    let mut all = String::new();
    let mut ours = false;
    for line in dump.lines() {
        if !line.starts_with(' ') {
            ours = line.contains(" network-policy:");
        }
        if ours {
            all += line;
            all += "\n";
        }
    }
    all
}

/// Changes the policy with one object per transaction, in both orders; what the database says of
/// the policy after each transaction must be all old or all new.
fn changes_at_once(old: Value, new: Value) {
    for backwards in [false, true] {
        let mut cluster = cluster(old.clone());
        let before = rows(&cluster);
        let reads = cluster.store.upsert(shared(policy(new.clone())));
        cluster.refresh(&reads, Cause::Changed);
        let mut waiting = Vec::new();
        while !cluster.pending.is_empty() {
            waiting.push(cluster.pending.take(1, |_| false));
        }
        if backwards {
            waiting.reverse();
        }
        let mut seen = vec![before];
        for _ in 0..2 {
            for batch in &waiting {
                let replica = cluster.nb.replica();
                let plan = diff::plan(cluster.engine.desired(), &replica, batch);
                if !plan.is_empty() {
                    cluster.nb.execute(&plan.transaction).unwrap();
                }
                let now = rows(&cluster);
                if seen.last() != Some(&now) {
                    seen.push(now);
                }
            }
        }
        assert!(seen.len() <= 2, "a state between:\n{}", seen[1..].join("\n----\n"));
        assert_eq!(seen.len(), 2, "nothing changed");
        cluster.check_oracle();
        assert_eq!(cluster.restart(), 0, "and nothing is left to do");
    }
}

#[test]
fn peers_and_ports_change_together() {
    changes_at_once(rule("a", 80), rule("b", 443));
}

#[test]
fn a_peer_joins_and_the_others_stay() {
    let mut new = rule("a", 80);
    new["ingress"][0]["from"] = json!([
        {"podSelector": {"matchLabels": {"app": "a"}}},
        {"podSelector": {"matchLabels": {"app": "b"}}}
    ]);
    changes_at_once(rule("a", 80), new);
}

#[test]
fn rules_change_places() {
    let rules = |first: (&str, u16), second: (&str, u16)| {
        let mut all = rule(first.0, first.1);
        all["ingress"] =
            json!([rule(first.0, first.1)["ingress"][0], rule(second.0, second.1)["ingress"][0]]);
        all
    };
    changes_at_once(rules(("a", 80), ("b", 443)), rules(("b", 443), ("a", 80)));
}

#[test]
fn subjects_and_rules_change_together() {
    let mut new = rule("s", 443);
    new["podSelector"] = json!({"matchLabels": {"app": "a"}});
    changes_at_once(rule("a", 80), new);
}

/// A new pod is in the groups of its policies from the transaction that makes its port.
#[test]
fn no_port_without_its_policy() {
    let mut cluster = cluster(rule("a", 80));
    for n in 100..140 {
        let name = format!("p{n}");
        let mut pod = pod("default", &name, Some("node1"));
        pod.labels.insert("app".into(), "s".into());
        let ip = pod_ip("default", &name, "ovn-default", &format!("10.16.2.{n}"));
        for object in [shared(pod), shared(ip)] {
            let reads = cluster.store.upsert(object);
            cluster.refresh(&reads, Cause::Changed);
        }
    }
    while !cluster.pending.is_empty() {
        let batch = cluster.pending.take(7, |_| false);
        let (replica, desired) = (cluster.nb.replica(), cluster.engine.desired());
        let plan = diff::plan(desired, &replica, &batch);
        assert!(plan.deferred.is_empty());
        cluster.nb.execute(&plan.transaction).unwrap();
        let dump = cluster.nb.dump();
        let group = dump.split("Port_Group network-policy:").nth(1).unwrap();
        let members = group.lines().find(|l| l.starts_with("  ports")).unwrap();
        for n in 100..140 {
            let port = format!("pod:p{n}.default:port");
            let exists = dump.contains(&format!("Logical_Switch_Port {port}\n"));
            assert_eq!(exists, members.contains(&format!("<{port}>")), "{port}");
        }
    }
}
