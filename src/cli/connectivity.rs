//! `connectivity`: who reaches whom, with latencies. Sources are the nodes and one pod on each;
//! targets are the same, the API server's Service, DNS, and what is given for the outside.

use std::collections::BTreeMap;

use anyhow::bail;
use clap::{Arg, ArgMatches, Command};
use serde::Serialize;
use serde_json::Value;

use super::{
    Arguments, FOUND, Session, Tool, Usage, argument,
    cluster::{Cluster, each, name, text},
    exec::Place,
    output::{Format, Tone, count, emit, table},
    output_arg,
    probe::{Outcome, parse_outcomes, parse_target},
    sender::{self, port_of},
};

pub const TOOL: Tool = Tool {
    name: "connectivity",
    aliases: &[],
    about: "Probe every pair of nodes and pods, Services, DNS and the outside, with latency",
    example: "connectivity\nconnectivity --outside icmp-1.1.1.1,tcp-1.1.1.1-443\n\
              connectivity --pods default/a,default/b -o junit > report.xml",
    arguments: Arguments::Own,
    command: |command: Command| {
        command
            .arg(output_arg().value_parser(["text", "json", "yaml", "junit"]))
            .arg(
                Arg::new("pods")
                    .long("pods")
                    .value_name("NAMESPACE/POD,...")
                    .help("These pods instead of one of each node"),
            )
            .arg(
                Arg::new("outside")
                    .long("outside")
                    .value_name("TARGET,...")
                    .help("Further targets: icmp-IP, tcp-IP-PORT, dns-SERVER-NAME"),
            )
            .arg(
                Arg::new("domain")
                    .long("cluster-domain")
                    .value_name("NAME")
                    .default_value("cluster.local")
                    .help("Domain of the cluster's DNS"),
            )
    },
    run: |session, matches| Box::pin(run(session, matches)),
};

/// Where probes start.
struct Source {
    label: String,
    at: Place,
    /// Network namespace of a pod; none for the node itself.
    netns: Option<String>,
}

/// What is probed: label, and target as the probe takes it.
type Targets = Vec<(String, String)>;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Probed {
    pub from: String,
    pub to: String,
    pub target: String,
    pub milliseconds: Option<f64>,
    pub error: String,
}

async fn run(session: &Session<'_>, matches: &ArgMatches) -> anyhow::Result<u8> {
    let cluster = session.cluster().await?;
    cluster.must_be_live()?;
    let pods = chosen(&cluster, argument(matches, "pods")).await?;
    let sources = sources(&cluster, &pods).await?;
    let domain = argument(matches, "domain");
    let targets = targets(&cluster, &pods, argument(matches, "outside"), domain).await?;
    let all = probe_all(&cluster, &sources, &targets).await?;
    let failed = all.iter().filter(|probed| probed.milliseconds.is_none()).count();
    if argument(matches, "output") == "junit" {
        print!("{}", junit(&all));
    } else {
        emit(session.format, &all, |all| matrix(session, all))?;
    }
    if session.format == Format::Text && failed > 0 {
        eprintln!("{} failed", count(failed, "probe"));
    }
    Ok(if failed == 0 { 0 } else { FOUND })
}

fn own_network(pod: &Value) -> bool {
    pod["spec"]["hostNetwork"] != true
        && text(&pod["status"]["phase"]) == "Running"
        && pod["metadata"]["deletionTimestamp"].is_null()
}

/// The pods asked for, else a running one of each node, a pinger if there is one.
async fn chosen(cluster: &Cluster, wish: &str) -> anyhow::Result<Vec<Value>> {
    let pods = cluster.list("/api/v1/pods", "").await?;
    let key = |pod: &Value| format!("{}/{}", text(&pod["metadata"]["namespace"]), name(pod));
    if !wish.is_empty() {
        let find = |wanted: &str| {
            let found = pods.iter().find(|pod| key(pod) == wanted && own_network(pod));
            let missing = || format!("{wanted}: no running pod with a network of its own");
            found.cloned().ok_or_else(|| anyhow::anyhow!(missing()))
        };
        return wish.split(',').map(|wanted| find(wanted.trim())).collect();
    }
    let mut of_node: BTreeMap<String, &Value> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| own_network(pod)) {
        let pinger = pod["metadata"]["labels"]["app"] == "kube-ovn-pinger";
        let node = text(&pod["spec"]["nodeName"]).to_owned();
        if pinger || !of_node.contains_key(&node) {
            of_node.insert(node, pod);
        }
    }
    Ok(of_node.into_values().cloned().collect())
}

async fn sources(cluster: &Cluster, pods: &[Value]) -> anyhow::Result<Vec<Source>> {
    let agents = cluster.places("kube-ovn-cni", "cni-server").await?;
    if agents.is_empty() {
        bail!("no ready kube-ovn-cni pod in {}", cluster.namespace);
    }
    let mut all: Vec<Source> = agents
        .iter()
        .map(|at| Source { label: format!("node {}", at.node), at: at.clone(), netns: None })
        .collect();
    for pod in pods {
        let node = text(&pod["spec"]["nodeName"]);
        let Some(at) = agents.iter().find(|at| at.node == node) else { continue };
        let switch = cluster.switch(node).await?;
        let interface = sender::interface(cluster, &switch, &port_of(pod)).await?;
        all.push(Source { label: label(pod), at: at.clone(), netns: Some(interface.netns) });
    }
    Ok(all)
}

fn label(pod: &Value) -> String {
    format!("pod {}/{}", text(&pod["metadata"]["namespace"]), name(pod))
}

async fn targets(
    cluster: &Cluster,
    pods: &[Value],
    outside: &str,
    domain: &str,
) -> anyhow::Result<Targets> {
    let mut all = Targets::new();
    for node in cluster.list("/api/v1/nodes", "").await? {
        for address in each(&node["status"]["addresses"]).filter(|a| a["type"] == "InternalIP") {
            let target = format!("icmp-{}", text(&address["address"]));
            all.push((format!("node {}", name(&node)), target));
        }
    }
    for pod in pods {
        for ip in each(&pod["status"]["podIPs"]) {
            all.push((label(pod), format!("icmp-{}", text(&ip["ip"]))));
        }
    }
    if let Some(service) = cluster.get("/api/v1/namespaces/default/services/kubernetes").await? {
        for ip in each(&service["spec"]["clusterIPs"]) {
            all.push(("API Service".to_owned(), format!("tcp-{}-443", text(ip))));
        }
    }
    if let Some(service) = cluster.get("/api/v1/namespaces/kube-system/services/kube-dns").await? {
        for ip in each(&service["spec"]["clusterIPs"]) {
            let target = format!("dns-{}-kubernetes.default.svc.{domain}", text(ip));
            all.push(("DNS".to_owned(), target));
        }
    }
    for target in outside.split(',').filter(|target| !target.is_empty()) {
        parse_target(target).map_err(Usage)?;
        all.push(("outside".to_owned(), target.to_owned()));
    }
    Ok(all)
}

async fn probe_all(
    cluster: &Cluster,
    sources: &[Source],
    targets: &Targets,
) -> anyhow::Result<Vec<Probed>> {
    let runs = sources.iter().map(|source| async move {
        let mut command: Vec<String> = Vec::new();
        if let Some(netns) = &source.netns {
            command.extend(["nsenter".to_owned(), format!("--net={netns}")]);
        }
        command.extend(["/kube-ovn/kubectl-ko", "probe"].map(str::to_owned));
        command.extend(targets.iter().map(|(_, target)| target.clone()));
        let ended = cluster.ask(&source.at, &command).await;
        (source, ended)
    });
    let mut all = Vec::new();
    for (source, ended) in futures::future::join_all(runs).await {
        let (outcomes, reason) = match ended {
            Ok(ended) => {
                (parse_outcomes(&String::from_utf8_lossy(&ended.stdout)), ended.stderr.clone())
            }
            Err(error) => (Vec::new(), format!("{error:#}")),
        };
        for (to, target) in targets {
            let outcome = outcomes.iter().find(|outcome| outcome.target == *target).cloned();
            let outcome = outcome.unwrap_or_else(|| Outcome {
                target: target.clone(),
                milliseconds: None,
                error: format!("not probed: {}", reason.trim()),
            });
            let Outcome { target, milliseconds, error } = outcome;
            all.push(Probed {
                from: source.label.clone(),
                to: to.clone(),
                target,
                milliseconds,
                error,
            });
        }
    }
    Ok(all)
}

/// Rows are sources, columns are targets; failures are told below.
fn matrix(session: &Session<'_>, all: &[Probed]) -> String {
    let mut columns: Vec<(&str, &str)> = Vec::new();
    let mut rows: Vec<(&str, Vec<String>)> = Vec::new();
    for probed in all {
        if !columns.contains(&(probed.to.as_str(), probed.target.as_str())) {
            columns.push((&probed.to, &probed.target));
        }
        if rows.last().is_none_or(|(from, _)| *from != probed.from) {
            rows.push((&probed.from, Vec::new()));
        }
        if let Some((_, cells)) = rows.last_mut() {
            cells.push(probed.milliseconds.map_or("FAILED".to_owned(), |ms| format!("{ms:.2}")));
        }
    }
    let heads: Vec<String> = (1..=columns.len()).map(|n| n.to_string()).collect();
    let mut head = vec!["FROM (ms)"];
    head.extend(heads.iter().map(String::as_str));
    let lines: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(from, cells)| std::iter::once(from.to_owned()).chain(cells).collect())
        .collect();
    let mut out = table(&head, &lines);
    for (n, (to, target)) in columns.iter().enumerate() {
        out.push_str(&format!("  {} = {to} ({target})\n", n + 1));
    }
    let failed: Vec<&Probed> = all.iter().filter(|p| p.milliseconds.is_none()).collect();
    for p in &failed {
        let line = format!("{} to {} ({}): {}\n", p.from, p.to, p.target, p.error);
        out.push_str(&session.paint.tone(Tone::Bad, &line));
    }
    let tone = if failed.is_empty() { Tone::Good } else { Tone::Bad };
    let summary = format!("{}, {} failed", count(all.len(), "probe"), failed.len());
    out + &session.paint.tone(tone, &summary) + "\n"
}

/// The XML that CI servers read.
pub fn junit(all: &[Probed]) -> String {
    let escaped = |text: &str| {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    };
    let failed = all.iter().filter(|p| p.milliseconds.is_none()).count();
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuite name=\"connectivity\" tests=\"{}\" failures=\"{failed}\">\n",
        all.len()
    );
    for p in all {
        let seconds = p.milliseconds.unwrap_or_default() / 1000.0;
        let (from, to) = (escaped(&p.from), escaped(&format!("{} {}", p.to, p.target)));
        let head = format!("  <testcase classname=\"{from}\" name=\"{to}\" time=\"{seconds:.6}\"");
        match p.milliseconds {
            Some(_) => xml.push_str(&format!("{head}/>\n")),
            None => xml.push_str(&format!(
                "{head}><failure message=\"{}\"/></testcase>\n",
                escaped(&p.error)
            )),
        }
    }
    xml + "</testsuite>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junit_counts_and_escapes() {
        let probed = |milliseconds, error: &str| Probed {
            from: "pod a/b".into(),
            to: "x".into(),
            target: "icmp-10.0.0.1".into(),
            milliseconds,
            error: error.into(),
        };
        let xml = junit(&[probed(Some(1.5), ""), probed(None, "a < \"b\"")]);
        assert!(xml.contains("tests=\"2\" failures=\"1\""), "{xml}");
        assert!(xml.contains("time=\"0.001500\"/>"), "{xml}");
        assert!(xml.contains("a &lt; &quot;b&quot;"), "{xml}");
    }
}
