//! Everything that must agree at rest: pods, IP objects, logical ports, links and OVS ports of the
//! nodes, rules; and the controller's own recomputation.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;

use crate::cluster::{Cluster, map_value, ovs_rows, text};

/// Rules and sets of ours on a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rules {
    node: String,
    rules: usize,
    sets: usize,
}

/// Counts that pods must not change.
pub fn rules(cluster: &Cluster) -> Result<Vec<Rules>, String> {
    let count = |node: &str, script: &str| -> Result<usize, String> {
        let shown = cluster.enter(node, &["sh", "-c", script])?;
        shown.trim().parse().map_err(|e| format!("{node}: {shown:?}: {e}"))
    };
    let nodes = cluster.nodes();
    let counted = nodes.into_iter().map(|node| {
        let rules = "for v in iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy; do
            $v-save 2>/dev/null; done | grep -ciE '^-A.*ovn' || true";
        let sets = "ipset list -n | grep -c '^ovn' || true";
        let (rules, sets) = (count(&node.name, rules)?, count(&node.name, sets)?);
        Ok(Rules { node: node.name, rules, sets })
    });
    counted.collect()
}

/// What disagrees; empty when all is well. The cluster must be at rest.
pub fn disagreements(cluster: &Cluster) -> Result<Vec<String>, String> {
    let pods = networked_pods(cluster);
    let mut findings = Vec::new();
    addresses(cluster, &pods, &mut findings);
    ports(cluster, &pods, &mut findings)?;
    for node in cluster.nodes() {
        interfaces(cluster, &node.name, &pods, &mut findings)?;
    }
    for (metric, wanted) in
        [("kube_ovn_oracle_differences", 0.0), ("kube_ovn_waiting", 0.0), ("kube_ovn_settled", 1.0)]
    {
        let metrics = cluster.controller_metrics()?;
        if metrics.get(metric) != Some(&wanted) {
            findings.push(format!("{metric} is {:?}, not {wanted}", metrics.get(metric)));
        }
    }
    Ok(findings)
}

/// Waits until the controller has recomputed everything after this moment: what it said of its
/// differences before proves nothing of what came since.
fn recomputed(cluster: &Cluster) -> Result<(), String> {
    let figure = |metric: &str| -> Result<f64, String> {
        let metrics = cluster.controller_metrics()?;
        metrics.get(metric).copied().ok_or(format!("no metric {metric}"))
    };
    let first = figure("kube_ovn_oracle_runs")?;
    for _ in 0..60 {
        let runs = figure("kube_ovn_oracle_runs")?;
        // A controller that started meanwhile counts from 0.
        if runs > first || (1.0..first).contains(&runs) {
            return match figure("kube_ovn_oracle_differences")? {
                0.0 => Ok(()),
                found => Err(format!("a full recomputation corrected {found} owners")),
            };
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Err("the controller has not recomputed everything for a minute".into())
}

/// No disagreement, or all of them as an error.
pub fn agreement(cluster: &Cluster) -> Result<(), String> {
    let findings = disagreements(cluster)?;
    let shown: Vec<&String> = findings.iter().take(20).collect();
    if findings.is_empty() {
        recomputed(cluster)
    } else {
        Err(format!("{} findings: {shown:#?}", findings.len()))
    }
}

struct Networked {
    node: String,
    /// Empty while there is none.
    ip: String,
}

/// Pods with a network of their own, by the name of their port.
fn networked_pods(cluster: &Cluster) -> BTreeMap<String, Networked> {
    let pods = cluster.objects(&["pods", "-A"]);
    let own = pods.iter().filter(|p| {
        let ended = ["Succeeded", "Failed"].contains(&&*text(&p["status"]["phase"]));
        p["spec"]["hostNetwork"] != true && !ended
    });
    own.map(|p| {
        let port =
            format!("{}.{}", text(&p["metadata"]["name"]), text(&p["metadata"]["namespace"]));
        (port, Networked { node: text(&p["spec"]["nodeName"]), ip: text(&p["status"]["podIP"]) })
    })
    .collect()
}

fn differences<'a>(
    what: &str,
    found: impl IntoIterator<Item = &'a String>,
    pods: &BTreeMap<String, Networked>,
    wanted: impl Fn(&Networked) -> bool,
) -> Vec<String> {
    let found: BTreeSet<&String> = found.into_iter().collect();
    let wanted: BTreeSet<&String> = pods.iter().filter(|p| wanted(p.1)).map(|p| p.0).collect();
    let leaked = found.difference(&wanted).map(|name| format!("{what} {name}: leaked"));
    let missing = wanted.difference(&found).map(|name| format!("{what} {name}: missing"));
    leaked.chain(missing).collect()
}

/// Pods against IP objects; no address twice.
fn addresses(cluster: &Cluster, pods: &BTreeMap<String, Networked>, findings: &mut Vec<String>) {
    let mut holders: BTreeMap<&str, &str> = BTreeMap::new();
    for (port, pod) in pods {
        if pod.ip.is_empty() {
            findings.push(format!("pod {port}: no address"));
        } else if let Some(other) = holders.insert(&pod.ip, port) {
            findings.push(format!("{} belongs to {other} and to {port}", pod.ip));
        }
    }
    let mut recorded: BTreeMap<String, String> = BTreeMap::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for ip in cluster.objects(&["ips.kubeovn.io"]) {
        let address = text(&ip["spec"]["ipAddress"]);
        for one in address.split(',') {
            if !seen.insert(one.to_owned()) {
                findings.push(format!("{one} is in two IP objects"));
            }
        }
        if !text(&ip["spec"]["namespace"]).is_empty() {
            recorded.insert(text(&ip["metadata"]["name"]), address);
        }
    }
    findings.extend(differences("IP", recorded.keys(), pods, |_| true));
    for (port, pod) in pods {
        let recorded = recorded.get(port).map_or("", |a| a.split(',').next().unwrap_or(a));
        if recorded != pod.ip {
            findings.push(format!("{port}: the pod has {:?}, its IP {recorded:?}", pod.ip));
        }
    }
}

/// Pods against logical switch ports.
fn ports(
    cluster: &Cluster,
    pods: &BTreeMap<String, Networked>,
    findings: &mut Vec<String>,
) -> Result<(), String> {
    let columns = "--columns=name,addresses,external_ids";
    let table = cluster.nbctl(&["--format=json", columns, "list", "Logical_Switch_Port"])?;
    let rows = ovs_rows(&table);
    let ours = rows.iter().filter(|row| map_value(&row["external_ids"], "pod").is_some());
    let mut found: BTreeMap<String, &Value> = BTreeMap::new();
    for row in ours.filter(|row| !text(&row["name"]).starts_with("node-")) {
        found.insert(text(&row["name"]), &row["addresses"]);
    }
    findings.extend(differences("logical port", found.keys(), pods, |_| true));
    for (port, pod) in pods {
        let addresses = found.get(port).map(|a| a.to_string()).unwrap_or_default();
        if !addresses.contains(&format!(" {}", pod.ip)) {
            findings.push(format!("{port}: the pod has {}, its port {addresses}", pod.ip));
        }
    }
    Ok(())
}

/// Links and OVS ports of a node against its pods.
fn interfaces(
    cluster: &Cluster,
    node: &str,
    pods: &BTreeMap<String, Networked>,
    findings: &mut Vec<String>,
) -> Result<(), String> {
    let links = cluster.enter(node, &["ip", "-o", "link", "show", "type", "veth"])?;
    let links: BTreeSet<String> = links
        .lines()
        .filter_map(|l| l.split_whitespace().nth(1)?.split(['@', ':']).next())
        .filter(|name| name.ends_with("_h"))
        .map(str::to_owned)
        .collect();
    let table = cluster.vsctl(
        node,
        &["--format=json", "--columns=name,external_ids,error", "list", "Interface"],
    )?;
    let mut ports: BTreeSet<String> = BTreeSet::new();
    let mut bound: BTreeSet<String> = BTreeSet::new();
    for row in ovs_rows(&table).iter().filter(|row| text(&row["name"]).ends_with("_h")) {
        let name = text(&row["name"]);
        match map_value(&row["external_ids"], "iface-id") {
            Some(id) if bound.insert(id.clone()) => {}
            other => findings.push(format!("{node}: OVS port {name} has iface-id {other:?}")),
        }
        if let Some(error) = row["error"].as_str().filter(|e| !e.is_empty()) {
            findings.push(format!("{node}: OVS port {name}: {error}"));
        }
        ports.insert(name);
    }
    for name in links.symmetric_difference(&ports) {
        let side =
            if links.contains(name) { "a link, no OVS port" } else { "an OVS port, no link" };
        findings.push(format!("{node}: {name} is {side}"));
    }
    let of_node = |pod: &Networked| pod.node == node;
    let what = format!("{node}: interface of");
    findings.extend(differences(&what, bound.iter(), pods, of_node));
    Ok(())
}
