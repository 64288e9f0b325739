//! `status`: one screen that says whether all is well.

use std::{collections::BTreeMap, time::Duration};

use clap::{Arg, ArgMatches, Command};
use serde::Serialize;
use serde_json::Value;

use super::{
    Arguments, FOUND, Session, Tool, bundle_arg,
    cluster::{Cluster, each, name, text},
    output::{Paint, Tone, count, emit, table},
    output_arg,
};
use crate::{
    api::names::{LEASE, annotation, label},
    ovn::FEATURES,
    plan::Engine,
};

pub const TOOL: Tool = Tool {
    name: "status",
    aliases: &[],
    about: "One screen: components, versions, leaders, what is applied, drift, problems by object",
    example: "status\nstatus --wait=120\nstatus -o json",
    arguments: Arguments::Own,
    command: |command: Command| {
        command.arg(output_arg()).arg(bundle_arg()).arg(
            Arg::new("wait")
                .long("wait")
                .value_name("SECONDS")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("300")
                .value_parser(clap::value_parser!(u64))
                .help("Until all is well, that long at most (300)"),
        )
    },
    run: |session, matches| Box::pin(run(session, matches)),
};

/// One Deployment or DaemonSet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Component {
    pub name: String,
    pub ready: u64,
    pub wanted: u64,
    /// Pods that run the newest template.
    pub updated: u64,
    pub version: String,
}

/// What the leading controller says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Controller {
    /// Holder of the lease.
    pub leader: String,
    /// Everything known is applied.
    pub settled: Option<bool>,
    pub rows: Option<u64>,
    pub transactions: Option<u64>,
    /// Rows of ours that others changed since the start; all were put right.
    pub drift: Option<u64>,
    /// Owners that a full recomputation had to correct.
    pub oracle_differences: Option<u64>,
    /// Pods and nodes without an address.
    pub waiting: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub healthy: bool,
    pub components: Vec<Component>,
    /// `nb`, `sb`, `northd` -> pod.
    pub leaders: BTreeMap<String, String>,
    pub controller: Controller,
    pub nodes: Vec<Node>,
    /// By object.
    pub problems: BTreeMap<String, Vec<String>>,
    /// What makes it unhealthy.
    pub findings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Node {
    pub name: String,
    pub ready: bool,
    /// What its agent found wrong with its switch, its tunnels or its way to the others.
    pub trouble: Vec<String>,
    /// Its address on the join subnet.
    pub address: String,
    pub chassis: String,
}

async fn run(session: &Session<'_>, matches: &ArgMatches) -> anyhow::Result<u8> {
    let cluster = session.cluster().await?;
    let patience = matches.get_one::<u64>("wait").copied();
    let end = patience.map(|s| tokio::time::Instant::now() + Duration::from_secs(s));
    let status = loop {
        let observed = observe(session, &cluster).await;
        let over = end.is_none_or(|end| tokio::time::Instant::now() >= end);
        match observed {
            Ok(status) if status.healthy || over => break status,
            Err(error) if over => return Err(error),
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    };
    emit(session.format, &status, |status| screen(status, session.paint))?;
    Ok(if status.healthy { 0 } else { FOUND })
}

const DEPLOYMENTS: &[&str] =
    &["ovn-central", "kube-ovn-controller", "kube-ovn-monitor", "ovn-ic-controller"];
const DAEMONS: &[&str] = &["ovs-ovn", "kube-ovn-cni", "kube-ovn-pinger", "kube-ovn-speaker"];
const REQUIRED: &[&str] = &["ovn-central", "kube-ovn-controller", "ovs-ovn", "kube-ovn-cni"];

/// Asks for everything.
pub async fn observe(session: &Session<'_>, cluster: &Cluster) -> anyhow::Result<Status> {
    let mut components = Vec::new();
    let mut findings = Vec::new();
    let workloads: Vec<(String, &str)> = [("deployments", DEPLOYMENTS), ("daemonsets", DAEMONS)]
        .into_iter()
        .flat_map(|(kind, all)| all.iter().map(move |name| (format!("{kind}/{name}"), *name)))
        .collect();
    for (path, workload) in workloads {
        match cluster.get(&cluster.workload(&path)).await? {
            Some(object) => components.push(component(&object)),
            None if REQUIRED.contains(&workload) => findings.push(format!("{workload} is missing")),
            None => {}
        }
    }
    let leaders = leaders(cluster).await?;
    let controller = controller(cluster).await?;
    let nodes = cluster.list("/api/v1/nodes", "").await?;
    let nodes: Vec<Node> = nodes.iter().map(node).collect();
    let mut problems = problems(cluster).await?;
    findings.extend(judged(&components, &leaders, &controller, &nodes));
    if findings.is_empty() && problems.is_empty() {
        problems = recomputed(session, cluster).await?;
    }
    findings.extend(problems.keys().map(|object| format!("{object} has a problem")));
    let healthy = findings.is_empty();
    Ok(Status { healthy, components, leaders, controller, nodes, problems, findings })
}

fn component(object: &Value) -> Component {
    let status = &object["status"];
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let image = &object["spec"]["template"]["spec"]["containers"][0]["image"];
    let version = text(image).rsplit_once(':').map_or("", |(_, tag)| tag);
    let daemon = object["spec"].get("replicas").is_none();
    let (wanted, ready, updated) = match daemon {
        true => (
            number(&status["desiredNumberScheduled"]),
            number(&status["numberReady"]),
            number(&status["updatedNumberScheduled"]),
        ),
        false => (
            number(&object["spec"]["replicas"]),
            number(&status["readyReplicas"]),
            number(&status["updatedReplicas"]),
        ),
    };
    Component { name: name(object).to_owned(), ready, wanted, updated, version: version.to_owned() }
}

async fn leaders(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, String>> {
    let pods = cluster.system_pods("app=ovn-central").await?;
    let roles =
        [("nb", label::NB_LEADER), ("sb", label::SB_LEADER), ("northd", label::NORTHD_LEADER)];
    let mut all = BTreeMap::new();
    for (role, key) in roles {
        let leading = |pod: &&Value| pod["metadata"]["labels"][key] == "true";
        let ready = |pod: &&Value| super::cluster::is_ready(pod, "ovn-central");
        let names: Vec<&str> = pods.iter().filter(leading).filter(ready).map(name).collect();
        all.insert(role.to_owned(), names.join(","));
    }
    Ok(all)
}

async fn controller(cluster: &Cluster) -> anyhow::Result<Controller> {
    let path =
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases/{LEASE}", cluster.namespace);
    let lease = cluster.get(&path).await?.unwrap_or_default();
    let holder = text(&lease["spec"]["holderIdentity"]);
    // client-go appends `_<uuid>`.
    let leader = holder.split('_').next().unwrap_or_default().to_owned();
    let mut found = Controller { leader: leader.clone(), ..Controller::default() };
    if leader.is_empty() {
        return Ok(found);
    }
    // SECURE_SERVING wants a token, which the API server does not pass on: no figures then.
    let Ok(page) = cluster.page(&leader, 10660, "/metrics").await else { return Ok(found) };
    let figures = parse_metrics(&page);
    let figure = |name: &str| figures.get(name).map(|value| *value as u64);
    found.settled = figure("kube_ovn_settled").map(|value| value == 1);
    found.rows = figure("kube_ovn_rows");
    found.transactions = figure("kube_ovn_transactions");
    found.drift = figure("kube_ovn_drift");
    found.oracle_differences = figure("kube_ovn_oracle_differences");
    found.waiting = figure("kube_ovn_waiting");
    Ok(found)
}

/// Samples without labels of a metrics page.
pub fn parse_metrics(page: &str) -> BTreeMap<String, f64> {
    let samples = page.lines().filter(|line| !line.starts_with('#') && !line.contains('{'));
    let sample = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    samples.filter_map(sample).collect()
}

fn node(object: &Value) -> Node {
    let annotations = &object["metadata"]["annotations"];
    let is = |kind: &str, status: &str| {
        let mut conditions = each(&object["status"]["conditions"]);
        conditions.find(|c| c["type"] == kind && c["status"] == status)
    };
    let trouble = [("OpenvSwitchDatapath", "False"), ("NetworkUnavailable", "True")];
    let trouble = trouble.iter().filter_map(|(kind, status)| is(kind, status));
    Node {
        name: name(object).to_owned(),
        ready: is("Ready", "True").is_some(),
        trouble: trouble.map(|c| text(&c["message"]).to_owned()).collect(),
        address: text(&annotations[annotation::IP_ADDRESS]).to_owned(),
        chassis: text(&annotations[annotation::CHASSIS]).to_owned(),
    }
}

/// Lists of objects whose conditions tell what is wrong with them.
const CONDITIONED: &[&str] = &[
    "/apis/kubeovn.io/v1/vpcs",
    "/apis/kubeovn.io/v1/subnets",
    "/apis/kubeovn.io/v1/ippools",
    "/apis/kubeovn.io/v1/security-groups",
    "/apis/kubeovn.io/v1/provider-networks",
    "/apis/kubeovn.io/v1/vpc-egress-gateways",
    "/apis/policy.networking.k8s.io/v1alpha1/adminnetworkpolicies",
    "/apis/policy.networking.k8s.io/v1alpha1/baselineadminnetworkpolicies",
];

/// What the controller's own engine says of all objects, those without conditions as well. Asked
/// last, when all else is well: it needs every list.
async fn recomputed(
    session: &Session<'_>,
    cluster: &Cluster,
) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let world = super::desired::world(cluster, session.engine).await?;
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for ((kind, key), why) in &world.refused {
        let lines = all.entry(format!("{} {key}", kind.name())).or_default();
        lines.extend(why.iter().map(|invalid| format!("{}: {}", invalid.reason, invalid.message)));
    }
    for problem in Engine::from_store(FEATURES, &world.store).problems() {
        let lines = all.entry(format!("{} {}", problem.kind.name(), problem.key)).or_default();
        let line = format!("{}: {}", problem.reason, problem.message);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    Ok(all)
}

/// Conditions of our objects that say what is wrong, and fresh Warning Events of our programs.
async fn problems(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in CONDITIONED {
        let kind = path.rsplit('/').next().unwrap_or_default();
        let kind = kind
            .strip_suffix("ies")
            .map_or_else(|| kind.trim_end_matches('s').to_owned(), |policy| format!("{policy}y"));
        for object in cluster.list(path, "").await? {
            let lines = bad_conditions(&object);
            if !lines.is_empty() {
                all.insert(format!("{kind} {}", name(&object)), lines);
            }
        }
    }
    for event in cluster.list("/api/v1/events", "").await? {
        let about = &event["involvedObject"];
        if is_problem(&event) && is_fresh(&event) {
            let (kind, ns) = (text(&about["kind"]), text(&about["namespace"]));
            let slash = if ns.is_empty() { "" } else { "/" };
            let object = format!("{kind} {ns}{slash}{}", text(&about["name"]));
            let line = format!("{}: {}", text(&event["reason"]), text(&event["message"]));
            let lines = all.entry(object).or_default();
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    Ok(all)
}

/// Kinds whose conditions tell what is wrong at this moment: their Events may be history.
const SPEAKING: [&str; 6] = [
    "Vpc",
    "Subnet",
    "IPPool",
    "SecurityGroup",
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
];

/// A warning of ours about an object that has no other way to tell. An object of a kind without
/// effect harms nothing.
fn is_problem(event: &Value) -> bool {
    let source =
        format!("{}{}", text(&event["reportingComponent"]), text(&event["source"]["component"]));
    event["type"] == "Warning"
        && source.contains("kube-ovn")
        && event["reason"] != "NotSupported"
        && !SPEAKING.contains(&text(&event["involvedObject"]["kind"]))
}

/// Events are repeated while their cause lasts.
const FRESH: Duration = Duration::from_secs(120);

fn is_fresh(event: &Value) -> bool {
    let times =
        [&event["series"]["lastObservedTime"], &event["lastTimestamp"], &event["eventTime"]];
    let last = times.into_iter().filter_map(|time| text(time).parse().ok()).max();
    let now = k8s_openapi::jiff::Timestamp::now();
    last.is_some_and(|last: k8s_openapi::jiff::Timestamp| {
        now.duration_since(last).as_secs() <= FRESH.as_secs() as i64
    })
}

fn bad_conditions(object: &Value) -> Vec<String> {
    let bad = |c: &&Value| match text(&c["type"]) {
        "Error" => c["status"] == "True",
        "Ready" | "Validated" => c["status"] == "False",
        _ => false,
    };
    each(&object["status"]["conditions"])
        .filter(bad)
        .map(|c| format!("{}: {}", text(&c["reason"]), text(&c["message"])))
        .collect()
}

fn judged(
    components: &[Component],
    leaders: &BTreeMap<String, String>,
    controller: &Controller,
    nodes: &[Node],
) -> Vec<String> {
    let mut findings = Vec::new();
    for c in components.iter().filter(|c| c.ready < c.wanted || c.updated < c.wanted) {
        findings.push(format!(
            "{}: {} of {} ready, {} of the newest version",
            c.name, c.ready, c.wanted, c.updated
        ));
    }
    for (role, pods) in leaders {
        match pods.split(',').filter(|pod| !pod.is_empty()).count() {
            0 => findings.push(format!("ovn-{role} has no leader")),
            1 => {}
            _ => findings.push(format!("ovn-{role} has several leaders: {pods}")),
        }
    }
    if controller.leader.is_empty() {
        findings.push("no kube-ovn-controller leads".to_owned());
    }
    if controller.settled == Some(false) {
        findings.push("the controller has not applied everything yet".to_owned());
    }
    if let Some(waiting @ 1..) = controller.waiting {
        findings.push(format!("{} without an address", count(waiting as usize, "pod or node")));
    }
    if let Some(wrong @ 1..) = controller.oracle_differences {
        findings.push(format!("a recomputation corrected {}", count(wrong as usize, "owner")));
    }
    for node in nodes {
        let trouble = node.trouble.iter().map(|what| format!("node {}: {what}", node.name));
        findings.extend(trouble);
        if !node.ready {
            findings.push(format!("node {} is not ready", node.name));
        } else if node.address.is_empty() || node.chassis.is_empty() {
            findings.push(format!("node {} has no network yet", node.name));
        }
    }
    findings
}

fn screen(status: &Status, paint: Paint) -> String {
    let rows = status.components.iter().map(|c| {
        let good = c.ready >= c.wanted && c.updated >= c.wanted;
        let mark = if good { "ok" } else { "NOT READY" };
        vec![
            c.name.clone(),
            format!("{}/{}", c.ready, c.wanted),
            c.version.clone(),
            mark.to_owned(),
        ]
    });
    let mut text = table(&["COMPONENT", "READY", "VERSION", "STATE"], &rows.collect::<Vec<_>>());
    let leaders: Vec<String> =
        status.leaders.iter().map(|(role, pod)| format!("{role} {pod}")).collect();
    text.push_str(&format!("\nleaders     {}\n", leaders.join(", ")));
    let c = &status.controller;
    let figure = |value: Option<u64>| value.map_or("?".to_owned(), |value| value.to_string());
    let settled = match c.settled {
        Some(true) => "everything applied",
        Some(false) => "NOT everything applied",
        None => "no figures",
    };
    text.push_str(&format!(
        "controller  {}: {settled}, {} rows, {} transactions, drift {} (healed), recomputation \
         differs in {}, waiting {}\n",
        if c.leader.is_empty() { "no leader" } else { &c.leader },
        figure(c.rows),
        figure(c.transactions),
        figure(c.drift),
        figure(c.oracle_differences),
        figure(c.waiting)
    ));
    let ready = status.nodes.iter().filter(|node| node.ready && !node.chassis.is_empty()).count();
    text.push_str(&format!("nodes       {ready} of {} in the network\n", status.nodes.len()));
    for (object, lines) in &status.problems {
        text.push_str(&paint.tone(Tone::Note, &format!("{object}\n")));
        lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    if status.healthy {
        return text + &paint.tone(Tone::Good, "all is well") + "\n";
    }
    for finding in &status.findings {
        text.push_str(&paint.tone(Tone::Bad, &format!("! {finding}")));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_of_objects_with_conditions_are_history() {
        let event = |kind: &str, reason: &str| {
            json!({"type": "Warning", "reason": reason, "reportingComponent": "kube-ovn-controller",
                "involvedObject": {"kind": kind}})
        };
        assert!(is_problem(&event("Pod", "AcquireAddressFailed")));
        assert!(!is_problem(&event("Vpc", "ExternalGatewayFailed")), "its condition says it");
        assert!(!is_problem(&event("SwitchLBRule", "NotSupported")));
        let normal = json!({"type": "Normal", "reportingComponent": "kube-ovn-controller"});
        assert!(!is_problem(&normal));
    }

    fn good() -> (Vec<Component>, BTreeMap<String, String>, Controller, Vec<Node>) {
        let component = Component {
            name: "ovs-ovn".into(),
            ready: 3,
            wanted: 3,
            updated: 3,
            version: "v1".into(),
        };
        let leaders = ["nb", "sb", "northd"].map(|role| (role.to_owned(), "p".to_owned()));
        let controller =
            Controller { leader: "c".into(), settled: Some(true), ..Controller::default() };
        let node = Node {
            name: "n".into(),
            ready: true,
            trouble: Vec::new(),
            address: "100.64.0.2".into(),
            chassis: "x".into(),
        };
        (vec![component], leaders.into(), controller, vec![node])
    }

    #[test]
    fn what_is_wrong_is_said() {
        let (mut components, mut leaders, mut controller, mut nodes) = good();
        assert!(judged(&components, &leaders, &controller, &nodes).is_empty());
        components[0].ready = 2;
        leaders.insert("nb".into(), "a,b".into());
        leaders.insert("sb".into(), String::new());
        controller.settled = Some(false);
        controller.waiting = Some(2);
        nodes[0].chassis.clear();
        let findings = judged(&components, &leaders, &controller, &nodes);
        assert_eq!(findings.len(), 6, "{findings:?}");
    }

    #[test]
    fn nodes_whose_tunnels_cannot_work_are_named() {
        let conditions = json!([
            {"type": "Ready", "status": "True"},
            {"type": "OpenvSwitchDatapath", "status": "False", "reason": "DatapathFailed",
             "message": "netdev, tunnels do not work: no NIC"},
            {"type": "NetworkUnavailable", "status": "False", "message": "succeeded"}]);
        let broken =
            node(&json!({"metadata": {"name": "n9"}, "status": {"conditions": conditions}}));
        assert_eq!(broken.trouble, ["netdev, tunnels do not work: no NIC"]);
        let (components, leaders, controller, mut nodes) = good();
        nodes[0].trouble = broken.trouble;
        let findings = judged(&components, &leaders, &controller, &nodes);
        assert_eq!(findings, ["node n: netdev, tunnels do not work: no NIC"]);
    }

    #[test]
    fn conditions_and_metrics() {
        let subnet = json!({"status": {"conditions": [
            {"type": "Ready", "status": "False", "reason": "R", "message": "m"},
            {"type": "Error", "status": "Unknown"}]}});
        assert_eq!(bad_conditions(&subnet), ["R: m"]);
        let page = "# HELP x\nkube_ovn_rows 42\nother{a=\"b\"} 1\n";
        assert_eq!(parse_metrics(page), BTreeMap::from([("kube_ovn_rows".to_owned(), 42.0)]));
    }
}
