//! `diagnose`: everything that must be there, and whether packets get through.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches, Command};
use serde_json::{Value, json};

use super::{
    Arguments, FOUND, Session, Tool, Usage, argument,
    cluster::{Cluster, Database, each, text},
    database_restore::wait,
    exec::{INTERRUPTED, Place},
    output::Tone,
    status,
};

pub const TOOL: Tool = Tool {
    name: "diagnose",
    aliases: &[],
    about: "Check resources, databases, components and leaders, then connectivity by the pingers",
    example: "diagnose all\ndiagnose node node1\ndiagnose subnet ovn-default\n\
              diagnose IPPorts tcp-172.18.0.2-53,udp-172.18.0.3-53",
    arguments: Arguments::Own,
    command: |command: Command| {
        command
            .arg(
                Arg::new("what")
                    .value_name("WHAT")
                    .default_value("all")
                    .value_parser(["all", "node", "subnet", "IPPorts"]),
            )
            .arg(Arg::new("of").value_name("NODE|SUBNET|PROTO-IP-PORT,..."))
    },
    run: |session, matches| Box::pin(run(session, matches)),
};

const CRDS: &[&str] = &[
    "vpcs",
    "vpc-nat-gateways",
    "vpc-egress-gateways",
    "subnets",
    "ips",
    "vlans",
    "provider-networks",
    "security-groups",
    "vips",
    "vpc-dnses",
    "switch-lb-rules",
    "ippools",
    "ovn-eips",
    "ovn-fips",
    "ovn-dnat-rules",
    "ovn-snat-rules",
    "iptables-eips",
    "iptables-fip-rules",
    "iptables-snat-rules",
    "iptables-dnat-rules",
];

/// What is looked at beyond the basics.
enum Scope {
    All,
    Node(String),
    Subnet(String),
    Ports(String),
}

fn scope(matches: &ArgMatches) -> Result<Scope, Usage> {
    let of = argument(matches, "of").to_owned();
    let wants = |what: &str| match of.is_empty() {
        true => Err(Usage(format!("diagnose {} wants {what}", argument(matches, "what")))),
        false => Ok(of.clone()),
    };
    Ok(match argument(matches, "what") {
        "node" => Scope::Node(wants("the name of a node")?),
        "subnet" => Scope::Subnet(wants("the name of a subnet")?),
        "IPPorts" => {
            let list = wants("PROTO-IP-PORT,...")?;
            for target in list.split(',') {
                super::probe::parse_target(target).map_err(Usage)?;
            }
            Scope::Ports(list)
        }
        _ => Scope::All,
    })
}

async fn run(session: &Session<'_>, matches: &ArgMatches) -> anyhow::Result<u8> {
    let scope = scope(matches)?;
    let cluster = session.cluster().await?;
    cluster.must_be_live()?;
    let made = Made { cluster: cluster.clone() };
    let result = tokio::select! {
        result = diagnose(session, &cluster, &scope) => result,
        _ = tokio::signal::ctrl_c() => Ok(INTERRUPTED),
    };
    made.remove(&scope).await;
    result
}

async fn diagnose(session: &Session<'_>, cluster: &Cluster, scope: &Scope) -> anyhow::Result<u8> {
    resources(cluster).await?;
    databases(cluster).await?;
    let mut findings = proxies(cluster).await?;
    let status = status::observe(session, cluster).await?;
    for component in &status.components {
        let good = component.ready >= component.wanted;
        let mark = if good { "ready" } else { "NOT ready" };
        println!("{} {mark}: {}/{}", component.name, component.ready, component.wanted);
    }
    for (role, pod) in &status.leaders {
        if !pod.is_empty() && !pod.contains(',') {
            println!("ovn-{role} leader check ok");
        }
    }
    findings.extend(status.findings);
    let pingers = cluster.places("kube-ovn-pinger", "pinger").await?;
    if pingers.is_empty() {
        println!("no pinger runs: 'kubectl ko connectivity' probes without one");
    }
    match scope {
        Scope::All => {
            errors_of_controller(cluster).await?;
            let ports = node_ports(cluster).await?;
            for at in &pingers {
                node(cluster, at, &job(&ports)).await?;
            }
        }
        Scope::Node(wanted) => {
            let at = pingers.iter().find(|at| at.node == *wanted);
            let at = at.with_context(|| format!("no pinger runs on node {wanted}"))?;
            let ports = node_ports(cluster).await?;
            node(cluster, at, &job(&ports)).await?;
        }
        Scope::Subnet(subnet) => of_subnet(cluster, subnet, &pingers).await?,
        Scope::Ports(list) => {
            for at in &pingers {
                title(&format!("node {}", at.node));
                ping(cluster, at, &[format!("--target-ip-ports={list}")]).await?;
            }
        }
    }
    for finding in &findings {
        println!("{}", session.paint.tone(Tone::Bad, &format!("! {finding}")));
    }
    Ok(if findings.is_empty() { 0 } else { FOUND })
}

fn title(text: &str) {
    println!("### {text}");
}

async fn exists(cluster: &Cluster, what: &str, path: &str) -> anyhow::Result<bool> {
    let found = cluster.get(path).await?.is_some();
    println!("{what}: {}", if found { "ok" } else { "MISSING" });
    Ok(found)
}

async fn resources(cluster: &Cluster) -> anyhow::Result<()> {
    for crd in CRDS {
        let path =
            format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd}.kubeovn.io");
        if cluster.get(&path).await?.is_none() {
            bail!("the custom resource {crd}.kubeovn.io is missing; run install.sh again");
        }
    }
    println!("custom resources: {} of {} ok", CRDS.len(), CRDS.len());
    let ns = &cluster.namespace;
    if !exists(cluster, "service kube-dns", "/api/v1/namespaces/kube-system/services/kube-dns")
        .await?
    {
        println!("warning: no service kube-dns; DNS cannot be checked");
    }
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    for (what, path) in [
        ("service kubernetes", "/api/v1/namespaces/default/services/kubernetes".to_owned()),
        ("service account ovn", format!("/api/v1/namespaces/{ns}/serviceaccounts/ovn")),
        ("cluster role system:ovn", format!("{rbac}/clusterroles/system:ovn")),
        ("cluster role binding ovn", format!("{rbac}/clusterrolebindings/ovn")),
    ] {
        if !exists(cluster, what, &path).await? {
            bail!("{what} is missing; run install.sh again");
        }
    }
    Ok(())
}

async fn databases(cluster: &Cluster) -> anyhow::Result<()> {
    let nb = cluster.leader(Database::Northbound).await?;
    let sb = cluster.leader(Database::Southbound).await?;
    for command in [
        &["ovn-nbctl", "--no-leader-only", "show"][..],
        &["ovn-nbctl", "--no-leader-only", "lr-policy-list", "ovn-cluster"],
        &["ovn-nbctl", "--no-leader-only", "lr-route-list", "ovn-cluster"],
        &["ovn-nbctl", "--no-leader-only", "ls-lb-list", "ovn-default"],
        &["ovn-nbctl", "--no-leader-only", "list", "address_set"],
        &["ovn-nbctl", "--no-leader-only", "list", "acl"],
    ] {
        print!("{}", cluster.text(&nb, command).await?);
    }
    print!("{}", cluster.text(&sb, &["ovn-sbctl", "show"]).await?);
    for (database, at) in [(Database::Southbound, sb), (Database::Northbound, nb)] {
        let socket = database.control_socket();
        let command = ["ovs-appctl", "-t", &socket, "cluster/status", database.schema()];
        print!("{}", String::from_utf8_lossy(&cluster.ask(&at, &command).await?.stdout));
        let rpc = "ovsdb-server/get-db-storage-status";
        print!(
            "{}",
            cluster.text(&at, &["ovs-appctl", "-t", &socket, rpc, database.schema()]).await?
        );
    }
    Ok(())
}

/// kube-proxy, unless something else does its work.
async fn proxies(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    if std::env::var("WITHOUT_KUBE_PROXY").is_ok_and(|v| v == "true") {
        return Ok(Vec::new());
    }
    let mut findings = Vec::new();
    for at in cluster.places("kube-ovn-cni", "cni-server").await? {
        let node = cluster.get(&format!("/api/v1/nodes/{}", at.node)).await?.unwrap_or_default();
        let mut addresses = each(&node["status"]["addresses"]);
        let Some(ip) = addresses.find(|a| a["type"] == "InternalIP") else { continue };
        let target = format!("http-{}-10256-/healthz", text(&ip["address"]));
        let ended = cluster.ask(&at, &["/kube-ovn/kubectl-ko", "probe", &target]).await?;
        if ended.code != 0 {
            findings.push(format!(
                "kube-proxy of node {} does not answer (WITHOUT_KUBE_PROXY=true if there is none)",
                at.node
            ));
        }
    }
    if findings.is_empty() {
        println!("kube-proxy ready");
    }
    Ok(findings)
}

async fn errors_of_controller(cluster: &Cluster) -> anyhow::Result<()> {
    title("kube-ovn-controller, recent errors");
    for at in cluster.places("kube-ovn-controller", "kube-ovn-controller").await? {
        let log = cluster.log(&at.pod, &at.container, "100").await?;
        log.lines().filter(|line| is_error(line)).for_each(|line| println!("{line}"));
    }
    Ok(())
}

/// Of our log, and of klog's.
fn is_error(line: &str) -> bool {
    let klog = line.strip_prefix('E').is_some_and(|rest| {
        rest.get(..4).is_some_and(|date| date.bytes().all(|b| b.is_ascii_digit()))
    });
    klog || line.split_whitespace().take(3).any(|word| word == "ERROR")
}

/// Switch and logs of a node, then what its pinger finds.
async fn node(cluster: &Cluster, at: &Place, arguments: &[String]) -> anyhow::Result<()> {
    title(&format!("node {}", at.node));
    let switch = cluster.switch(&at.node).await?;
    for command in [
        &["tail", "/var/log/ovn/ovn-controller.log"][..],
        &["tail", "/var/log/openvswitch/ovs-vswitchd.log"],
        &["ovs-vsctl", "show"],
    ] {
        let ended = cluster.ask(&switch, command).await?;
        print!("{}", String::from_utf8_lossy(&ended.stdout));
    }
    ping(cluster, at, arguments).await
}

fn job(node_ports: &str) -> Vec<String> {
    vec![
        "--external-address=1.1.1.1,2606:4700:4700::1111".to_owned(),
        format!("--target-ip-ports={node_ports}"),
    ]
}

/// One round of the pinger of a node.
async fn ping(cluster: &Cluster, at: &Place, arguments: &[String]) -> anyhow::Result<()> {
    let mut command = vec!["/kube-ovn/kube-ovn-pinger".to_owned(), "--mode=job".to_owned()];
    command.extend_from_slice(arguments);
    let ended = cluster.ask(at, &command).await?;
    print!("{}{}", String::from_utf8_lossy(&ended.stdout), ended.stderr);
    Ok(())
}

const NODE_PORT: &str = "test-node-port";
const NODE_PORT_PATIENCE: Duration = Duration::from_secs(10);

async fn served(cluster: &Cluster, at: &Place, target: &str) {
    let command = ["/kube-ovn/kubectl-ko", "probe", target];
    while !cluster.ask(at, &command).await.is_ok_and(|ended| ended.code == 0) {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A Service that answers on every node, as targets `tcp-<node>-<port>`.
async fn node_ports(cluster: &Cluster) -> anyhow::Result<String> {
    let path = format!("/api/v1/namespaces/{}/services", cluster.namespace);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": NODE_PORT, "labels": {"app": "conn-check"}},
        "spec": {"type": "NodePort", "selector": {"app": "kube-ovn-pinger"},
                 "ports": [{"port": 60001, "targetPort": 8080, "protocol": "TCP"}]},
    });
    cluster.delete(&format!("{path}/{NODE_PORT}")).await?;
    let made = cluster.create(&path, &service).await?;
    let port = made["spec"]["ports"][0]["nodePort"].as_u64().context("no node port")?;
    // Programs on the nodes take a second or two to hear of it; probed before, it looks broken.
    let agents = cluster.places("kube-ovn-cni", "cni-server").await?;
    for at in &agents {
        let node = cluster.get(&format!("/api/v1/nodes/{}", at.node)).await?.unwrap_or_default();
        let mut own = each(&node["status"]["addresses"]).filter(|a| a["type"] == "InternalIP");
        let Some(ip) = own.next() else { continue };
        let target = format!("tcp-{}-{port}", text(&ip["address"]));
        let served = served(cluster, at, &target);
        // The pingers say what does not answer.
        let _ = tokio::time::timeout(NODE_PORT_PATIENCE, served).await;
    }
    let nodes = cluster.list("/api/v1/nodes", "").await?;
    let addresses = nodes.iter().flat_map(|node| each(&node["status"]["addresses"]));
    let internal = addresses.filter(|a| a["type"] == "InternalIP");
    let targets: Vec<String> =
        internal.map(|a| format!("tcp-{}-{port}", text(&a["address"]))).collect();
    Ok(targets.join(","))
}

fn server_name(subnet: &str) -> String {
    format!("{subnet}-conn-check-server")
}

/// Servers in the subnet on every node, and every pinger against them.
async fn of_subnet(cluster: &Cluster, subnet: &str, pingers: &[Place]) -> anyhow::Result<()> {
    let path = format!("/apis/kubeovn.io/v1/subnets/{subnet}");
    if cluster.get(&path).await?.is_none() {
        bail!("there is no subnet {subnet:?}");
    }
    let own = cluster.get(&cluster.workload("daemonsets/kube-ovn-pinger")).await?;
    let own = own.context("there is no DaemonSet kube-ovn-pinger, whose image is needed")?;
    let image = text(&own["spec"]["template"]["spec"]["containers"][0]["image"]);
    let name = server_name(subnet);
    let daemons = format!("/apis/apps/v1/namespaces/{}/daemonsets", cluster.namespace);
    cluster.delete(&format!("{daemons}/{name}")).await?;
    cluster.create(&daemons, &servers(&name, subnet, image, &cluster.namespace)).await?;
    let workload = format!("daemonsets/{name}");
    let started =
        wait("the servers of the subnet start", || super::maintain::rolled_out(cluster, &workload));
    if let Err(error) = started.await {
        println!("warning: {error:#}");
    }
    let agents = cluster.get(&cluster.workload("daemonsets/kube-ovn-cni")).await?;
    if !agents.is_some_and(|daemonset| answers_probes(&daemonset)) {
        println!("{NODES_DO_NOT_ANSWER}");
    }
    for at in pingers {
        title(&format!("from node {}", at.node));
        // Upstream left the last flag out, and so never made the TCP and UDP checks.
        let arguments = [
            format!("--ds-namespace={}", cluster.namespace),
            format!("--ds-name={name}"),
            "--enable-verbose-conn-check=true".to_owned(),
        ];
        ping(cluster, at, &arguments).await?;
    }
    Ok(())
}

const NODES_DO_NOT_ANSWER: &str = "warning: DaemonSet kube-ovn-cni runs without \
    --enable-verbose-conn-check=true, so nodes do not answer TCP and UDP probes: those to nodes \
    fail below and say nothing about the network; add the flag to its arguments to have them \
    answered (pods of the subnet and echoes to nodes are probed all the same)";

/// Whether agents listen on the ports of the connectivity check. The last of several flags counts.
fn answers_probes(daemonset: &Value) -> bool {
    let containers = each(&daemonset["spec"]["template"]["spec"]["containers"]);
    let arguments = containers.flat_map(|c| each(&c["args"]).chain(each(&c["command"])));
    let flags = arguments.filter_map(|word| {
        let rest = text(word).trim_start_matches('-').strip_prefix("enable-verbose-conn-check")?;
        Some(rest.is_empty() || rest == "=true")
    });
    flags.last().unwrap_or(false)
}

fn port(variable: &str, default: u16) -> u16 {
    std::env::var(variable).ok().and_then(|port| port.parse().ok()).unwrap_or(default)
}

fn servers(name: &str, subnet: &str, image: &str, namespace: &str) -> Value {
    let (tcp, udp) = (port("TCP_CONN_CHECK_PORT", 8100), port("UDP_CONN_CHECK_PORT", 8101));
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name},
                             "annotations": {"ovn.kubernetes.io/logical_switch": subnet}},
                "spec": {
                    "serviceAccountName": "kube-ovn-app", "automountServiceAccountToken": true,
                    "terminationGracePeriodSeconds": 0,
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{
                        "name": "conn-check-server", "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["/kube-ovn/kube-ovn-pinger"],
                        "args": [format!("--ds-namespace={namespace}"), format!("--ds-name={name}"),
                                 "--enable-verbose-conn-check=true",
                                 format!("--tcp-conn-check-port={tcp}"),
                                 format!("--udp-conn-check-port={udp}")],
                        "securityContext": {"capabilities": {"add": ["NET_RAW"]}},
                        "env": [{"name": "POD_NAME", "valueFrom": field("metadata.name")},
                                {"name": "POD_IP", "valueFrom": field("status.podIP")},
                                {"name": "HOST_IP", "valueFrom": field("status.hostIP")},
                                {"name": "NODE_NAME", "valueFrom": field("spec.nodeName")}],
                        "readinessProbe": {"tcpSocket": {"port": tcp}, "periodSeconds": 2},
                    }],
                },
            },
        },
    })
}

/// What a diagnosis may have made in the cluster.
struct Made {
    cluster: Cluster,
}

impl Made {
    async fn remove(&self, scope: &Scope) {
        let namespace = &self.cluster.namespace;
        let path = match scope {
            Scope::Subnet(subnet) => {
                self.cluster.workload(&format!("daemonsets/{}", server_name(subnet)))
            }
            Scope::Ports(_) => return,
            Scope::All | Scope::Node(_) => {
                format!("/api/v1/namespaces/{namespace}/services/{NODE_PORT}")
            }
        };
        if let Err(error) = self.cluster.delete(&path).await {
            eprintln!("kubectl ko: {error:#}; delete it by hand");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_both_kinds_of_log() {
        assert!(is_error("E1124 10:00:00.000 x"));
        assert!(is_error("2026-11-24T10:00:00Z ERROR commit: x"));
        assert!(!is_error("2026-11-24T10:00:00Z INFO ERRORS none"));
        assert!(!is_error("Everything"));
    }

    #[test]
    fn agents_answer_probes_with_their_flag_only() {
        let with = |args: &[&str]| {
            let containers = json!([{"name": "cni-server", "args": args}]);
            answers_probes(&json!({"spec": {"template": {"spec": {"containers": containers}}}}))
        };
        assert!(!with(&["--enable-metrics=true"]));
        assert!(with(&["--enable-verbose-conn-check=true"]));
        assert!(with(&["--enable-verbose-conn-check"]));
        assert!(!with(&["--enable-verbose-conn-check=true", "--enable-verbose-conn-check=false"]));
    }

    /// The pod of upstream's checker lacked /var/log/kube-ovn and its pinger died.
    #[test]
    fn servers_are_in_the_subnet() {
        let made = servers("s-conn-check-server", "s", "image", "kube-system");
        let template = &made["spec"]["template"];
        let annotations = &template["metadata"]["annotations"];
        assert_eq!(annotations["ovn.kubernetes.io/logical_switch"], "s");
        let args = template["spec"]["containers"][0]["args"].to_string();
        assert!(args.contains("--tcp-conn-check-port=8100"), "{args}");
    }
}
