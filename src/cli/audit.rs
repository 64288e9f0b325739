//! `audit`: what Kubernetes asks for against what OVN and the nodes hold.

use std::{collections::BTreeMap, time::Duration};

use clap::{ArgMatches, Command};
use serde::Serialize;

use super::{
    Arguments, FOUND, Session, Tool, bundle_arg,
    cluster::{Cluster, each, text},
    desired::{World, northbound, world},
    differences::{Difference, describe, differences, full_batch},
    output::{Tone, count, emit},
    output_arg,
    sender::{port_of, rows},
};
use crate::{
    ovn::FEATURES,
    plan::Engine,
    store::{Problem, Store},
};

pub const TOOL: Tool = Tool {
    name: "audit",
    aliases: &[],
    about: "Compare what Kubernetes asks for with the northbound database and the nodes' switches",
    example: "audit\naudit -o json\naudit --bundle kube-ovn-support.tar.gz",
    arguments: Arguments::Own,
    command: |command: Command| command.arg(output_arg()).arg(bundle_arg()),
    run: |session, matches| Box::pin(run(session, matches)),
};

/// A change that is under way is no difference: what is wrong must be wrong twice.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Audit {
    /// Rows that are wanted.
    rows: usize,
    differences: Vec<Difference>,
    /// Switch interfaces of the nodes against the pods there.
    nodes: Vec<String>,
    /// Objects that are not honoured; they are no differences.
    refused: Vec<String>,
    problems: Vec<String>,
}

async fn run(session: &Session<'_>, _: &ArgMatches) -> anyhow::Result<u8> {
    let cluster = session.cluster().await?;
    let (world, rows, mut found) = compare(session, &cluster).await?;
    let mut nodes = interfaces(&cluster).await?;
    if cluster.is_live() && !(found.is_empty() && nodes.is_empty()) {
        tokio::time::sleep(SETTLE).await;
        let (_, _, again) = compare(session, &cluster).await?;
        found.retain(|difference| again.contains(difference));
        let again = interfaces(&cluster).await?;
        nodes.retain(|finding| again.contains(finding));
    }
    let audit = Audit {
        rows,
        differences: found,
        nodes,
        refused: refused(&world),
        problems: problems(&world.store),
    };
    emit(session.format, &audit, |audit| session_text(session, audit))?;
    let clean = audit.differences.is_empty() && audit.nodes.is_empty();
    Ok(if clean { 0 } else { FOUND })
}

async fn compare(
    session: &Session<'_>,
    cluster: &Cluster,
) -> anyhow::Result<(World, usize, Vec<Difference>)> {
    let world = world(cluster, session.engine).await?;
    let replica = northbound(cluster, session.engine).await?;
    let engine = Engine::from_store(FEATURES, &world.store);
    let found = differences(&engine, &replica, &full_batch(&engine, &replica));
    Ok((world, engine.desired().row_count(), found))
}

fn refused(world: &World) -> Vec<String> {
    let line = |((kind, key), why): (&(crate::api::Kind, crate::api::Text), &Vec<_>)| {
        let why: Vec<&str> = why.iter().map(|i: &crate::api::Invalid| i.message.as_str()).collect();
        format!("{} {key}: {}", kind.name(), why.join("; "))
    };
    world.refused.iter().map(line).collect()
}

pub fn problems(store: &Store) -> Vec<String> {
    let engine = Engine::from_store(FEATURES, store);
    let line = |p: &Problem| format!("{} {}: {}", p.kind.name(), p.key, p.message);
    engine.problems().into_iter().map(line).collect()
}

/// Pods and node ports against the switches.
async fn interfaces(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let pods = cluster.list("/api/v1/pods", "").await?;
    let mut findings = Vec::new();
    for place in cluster.places("ovs", "openvswitch").await? {
        let columns = "--columns=name,ofport,error,external_ids";
        let command = ["ovs-vsctl", "--format=json", columns, "list", "Interface"];
        let found = rows(&cluster.text(&place, &command).await?)?;
        let mut wanted = BTreeMap::new();
        for pod in pods.iter().filter(|pod| pod["spec"]["nodeName"] == place.node.as_str()) {
            if let Some(presence) = presence(pod) {
                wanted.insert(port_of(pod), presence);
            }
        }
        findings.extend(check_node(&place.node, &wanted, &found));
    }
    Ok(findings)
}

/// Whether a pod must have an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Must,
    May,
}

fn presence(pod: &serde_json::Value) -> Option<Presence> {
    let ended = matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed");
    if pod["spec"]["hostNetwork"] == true || ended {
        return None;
    }
    // Until its sandbox exists, and while it ends, both are right.
    let started = !text(&pod["status"]["podIP"]).is_empty();
    let stays = pod["metadata"]["deletionTimestamp"].is_null();
    Some(if started && stays { Presence::Must } else { Presence::May })
}

fn check_node(
    node: &str,
    wanted: &BTreeMap<String, Presence>,
    found: &[super::sender::Row],
) -> Vec<String> {
    let mut findings = Vec::new();
    let mut bound: BTreeMap<String, String> = BTreeMap::new();
    for row in found {
        let interface = text(&row["name"]);
        let pairs: Vec<_> = each(&row["external_ids"][1]).collect();
        let id = |key: &str| {
            let pair = pairs.iter().find(|pair| pair[0] == key);
            pair.map(|pair| text(&pair[1]).to_owned())
        };
        if let Some(error) = row["error"].as_str().filter(|error| !error.is_empty()) {
            findings.push(format!("{node}: interface {interface}: {error}"));
        }
        // Ports of pods say whose they are; ovn0 and uplinks do not.
        let (Some(port), Some(_)) = (id("iface-id"), id("pod_name")) else { continue };
        // Of further networks: `<pod>.<ns>.<provider>`.
        let known = wanted.keys().any(|w| port == *w || port.starts_with(&format!("{w}.")));
        if !known {
            findings
                .push(format!("{node}: interface {interface} is of {port}, which is not there"));
        }
        if let Some(other) = bound.insert(port.clone(), interface.to_owned()) {
            findings.push(format!("{node}: {interface} and {other} are both of {port}"));
        }
    }
    for (port, _) in wanted.iter().filter(|(_, presence)| **presence == Presence::Must) {
        if !bound.contains_key(port) {
            findings.push(format!("{node}: pod {port} has no interface"));
        }
    }
    findings
}

fn session_text(session: &Session<'_>, audit: &Audit) -> String {
    let mut out = String::new();
    for (title, lines) in
        [("Not honoured", &audit.refused), ("Problems", &audit.problems), ("Nodes", &audit.nodes)]
    {
        if !lines.is_empty() {
            out.push_str(&session.paint.tone(Tone::Title, title));
            out.push('\n');
            lines.iter().for_each(|line| out.push_str(&format!("  {line}\n")));
        }
    }
    out.push_str(&describe(&audit.differences));
    let total = audit.differences.len() + audit.nodes.len();
    let tone = if total == 0 { Tone::Good } else { Tone::Bad };
    let summary = format!("{} compared, {}", count(audit.rows, "row"), count(total, "difference"));
    out + &session.paint.tone(tone, &summary) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(name: &str, port: &str) -> super::super::sender::Row {
        let ids = json!(["map", [["iface-id", port], ["pod_name", "x"]]]);
        json!({"name": name, "error": ["set", []], "external_ids": ids})
            .as_object()
            .cloned()
            .unwrap_or_default()
    }

    #[test]
    fn interfaces_without_pods_and_pods_without_interfaces() {
        let wanted = BTreeMap::from([
            ("a.default".to_owned(), Presence::Must),
            ("b.default".to_owned(), Presence::Must),
            ("c.default".to_owned(), Presence::May),
        ]);
        let found = [row("x_h", "a.default"), row("y_h", "gone.default"), row("z_h", "a.default")];
        let findings = check_node("n1", &wanted, &found);
        assert_eq!(findings.len(), 3, "{findings:?}");
        let attached = [row("x_h", "a.default"), row("w_h", "a.default.net1.ns.ovn")];
        let one = BTreeMap::from([("a.default".to_owned(), Presence::Must)]);
        assert!(check_node("n1", &one, &attached).is_empty());
    }

    #[test]
    fn pods_that_start_or_end_may_lack_an_interface() {
        let mut pod = json!({"metadata": {}, "spec": {}, "status": {"phase": "Pending"}});
        assert_eq!(presence(&pod), Some(Presence::May));
        pod["status"] = json!({"phase": "Running", "podIP": "10.16.0.2"});
        assert_eq!(presence(&pod), Some(Presence::Must));
        pod["status"]["phase"] = json!("Failed");
        assert_eq!(presence(&pod), None);
    }
}
