//! `perf`: latency and bandwidth of pods, hosts, a Service and multicast, and how long a database
//! takes to find a new leader.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};

use super::{
    Arguments, Session, Tool, argument,
    cluster::{Cluster, Database, is_ready, name, text},
    database_restore::wait,
    exec::{INTERRUPTED, Place},
    maintain::rolled_out,
    measure::Measured,
};

pub const TOOL: Tool = Tool {
    name: "perf",
    aliases: &[],
    about: "Measure latency and bandwidth of pods, hosts and a Service",
    example: "perf\nperf --seconds 1 --sizes 64,4k\nperf registry.example/kubeovn/test:v1.13.0\n\
              perf --recovery",
    arguments: Arguments::Own,
    command: |command: Command| {
        command
            .arg(Arg::new("image").value_name("IMAGE").help(
                "Measure with qperf, iperf3 and /kube-ovn/test-server.sh of this image, \
                         instead of what is on every node",
            ))
            .arg(
                Arg::new("seconds")
                    .long("seconds")
                    .default_value("5")
                    .value_parser(clap::value_parser!(u32).range(1..=3600))
                    .help("Length of each measurement"),
            )
            .arg(
                Arg::new("sizes")
                    .long("sizes")
                    .value_delimiter(',')
                    .value_parser(SIZES.map(|(shown, _)| shown))
                    .help("Only these sizes of messages"),
            )
            .arg(
                Arg::new("recovery")
                    .long("recovery")
                    .action(ArgAction::SetTrue)
                    .help("Also delete the pods that lead the databases: disturbs the cluster"),
            )
    },
    run: |session, matches| Box::pin(run(session, matches)),
};

const SIZES: [(&str, &str); 5] =
    [("64", "64"), ("128", "128"), ("512", "512"), ("1k", "1024"), ("4k", "4096")];
const SERVICE: &str = "test-server";
const LB: &str = "test-server";

fn header(title: &str) {
    println!("{title:=^100}");
}

async fn run(session: &Session<'_>, matches: &ArgMatches) -> anyhow::Result<u8> {
    let cluster = session.cluster().await?;
    cluster.must_be_live()?;
    let means = means(&cluster, argument(matches, "image")).await?;
    let sizes: Vec<String> = matches.get_many::<String>("sizes").map_or_else(
        || SIZES.map(|(shown, _)| shown.to_owned()).to_vec(),
        |all| all.cloned().collect(),
    );
    let seconds = matches.get_one::<u32>("seconds").copied().unwrap_or(5);
    let run = Run { means, sizes, seconds };
    let result = tokio::select! {
        result = measure(&cluster, &run) => result.map(|()| 0),
        _ = tokio::signal::ctrl_c() => Ok(INTERRUPTED),
    };
    header(" Remove Performance Test Resource ");
    remove(&cluster).await;
    let code = result?;
    if code == 0 && matches.get_flag("recovery") {
        for (role, label) in
            [("nb", "ovn-nb-leader"), ("sb", "ovn-sb-leader"), ("northd", "ovn-northd-leader")]
        {
            recovery(&cluster, role, label).await?;
        }
    }
    Ok(code)
}

/// What measures.
enum Means {
    /// `measure` of the image that every node has.
    Own(String),
    /// qperf and iperf3 of an image.
    Programs(String),
}

impl Means {
    fn image(&self) -> &str {
        let (Means::Own(image) | Means::Programs(image)) = self;
        image
    }

    fn command(&self, side: Side) -> &'static str {
        match (self, side) {
            (_, Side::Client) => "sleep infinity",
            (Means::Own(_), Side::Server) => "exec /kube-ovn/kubectl-ko measure serve",
            (Means::Programs(_), Side::Server) => "qperf & ./test-server.sh",
        }
    }
}

/// One call of the tool.
struct Run {
    means: Means,
    /// As they are shown.
    sizes: Vec<String>,
    seconds: u32,
}

async fn means(cluster: &Cluster, image: &str) -> anyhow::Result<Means> {
    if !image.is_empty() {
        return Ok(Means::Programs(image.to_owned()));
    }
    let agent = cluster.get(&cluster.workload("daemonsets/kube-ovn-cni")).await?;
    let agent = agent.context("there is no DaemonSet kube-ovn-cni, whose image is needed")?;
    Ok(Means::Own(text(&agent["spec"]["template"]["spec"]["containers"][0]["image"]).to_owned()))
}

/// Name, on the host's network, node (server or client).
const PODS: [(&str, Network, Side); 4] = [
    ("test-client", Network::Own, Side::Client),
    ("test-host-client", Network::Host, Side::Client),
    ("test-server", Network::Own, Side::Server),
    ("test-host-server", Network::Host, Side::Server),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Network {
    Own,
    Host,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

async fn measure(cluster: &Cluster, run: &Run) -> anyhow::Result<()> {
    header(" Preparing Performance Test Resources ");
    let nodes = cluster.list("/api/v1/nodes", "").await?;
    let server = nodes.first().map(name).context("the cluster has no node")?;
    let client = nodes.get(1).map_or(server, name);
    remove(cluster).await;
    let path = format!("/api/v1/namespaces/{}/pods", cluster.namespace);
    for (pod, network, side) in PODS {
        let node = if side == Side::Server { server } else { client };
        let (image, command) = (run.means.image(), run.means.command(side));
        cluster.create(&path, &manifest(pod, network, node, image, command)).await?;
        println!("pod/{pod} created");
    }
    let services = format!("/api/v1/namespaces/{}/services", cluster.namespace);
    let made = cluster.create(&services, &service()).await?;
    let pods = wait_ready(cluster).await?;
    let of = |wanted: &str| pods.iter().find(|pod| name(pod) == wanted);
    let ip =
        |pod: &str| of(pod).map(|pod| text(&pod["status"]["podIP"]).to_owned()).unwrap_or_default();
    let place = |pod: &str| Place {
        namespace: cluster.namespace.clone(),
        pod: pod.to_owned(),
        container: pod.to_owned(),
        node: String::new(),
    };
    header(" Start Pod Network Unicast Performance Test ");
    unicast(cluster, &place("test-client"), &ip("test-server"), run).await?;
    header(" Start Host Network Performance Test ");
    unicast(cluster, &place("test-host-client"), &ip("test-host-server"), run).await?;
    header(" Start Service Network Performance Test ");
    let address = text(&made["spec"]["clusterIP"]).to_owned();
    if matches!(run.means, Means::Programs(_)) {
        // qperf takes random ports, which no port of a Service covers.
        balance(cluster, &address, &ip("test-server")).await?;
    }
    unicast(cluster, &place("test-client"), &address, run).await?;
    Ok(())
}

fn manifest(pod: &str, network: Network, node: &str, image: &str, command: &str) -> Value {
    let mut labels = json!({"app": "PerfTest"});
    if pod == SERVICE {
        labels["env"] = json!("server");
    }
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "labels": labels},
        "spec": {
            "hostNetwork": network == Network::Host, "nodeName": node,
            "terminationGracePeriodSeconds": 0, "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": pod, "image": image, "imagePullPolicy": "IfNotPresent",
                            "command": ["sh", "-c", command]}],
        },
    })
}

fn service() -> Value {
    let ports: Vec<Value> = [("TCP", 19765), ("UDP", 19765), ("TCP", 5201), ("UDP", 5201)]
        .into_iter()
        .map(|(protocol, port)| {
            let name = format!("{}-{port}", protocol.to_lowercase());
            json!({"name": name, "protocol": protocol, "port": port, "targetPort": port})
        })
        .collect();
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE},
           "spec": {"selector": {"env": "server"}, "ports": ports}})
}

async fn wait_ready(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    wait("the test pods get ready (can the image be had?)", || async {
        let pods = cluster.system_pods("app=PerfTest").await?;
        Ok(pods.len() == PODS.len() && pods.iter().all(|pod| is_ready(pod, name(pod))))
    })
    .await?;
    cluster.system_pods("app=PerfTest").await
}

async fn balance(cluster: &Cluster, vip: &str, backend: &str) -> anyhow::Result<()> {
    let at = cluster.leader(Database::Northbound).await?;
    let nbctl = ["ovn-nbctl", "--no-leader-only"];
    cluster.text(&at, &[&nbctl[..], &["lb-add", LB, vip, backend]].concat()).await?;
    cluster.text(&at, &[&nbctl[..], &["ls-lb-add", "ovn-default", LB]].concat()).await?;
    Ok(())
}

async fn unicast(cluster: &Cluster, from: &Place, to: &str, run: &Run) -> anyhow::Result<()> {
    let heads =
        ["Size", "TCP Latency", "TCP Bandwidth", "UDP Latency", "UDP Lost Rate", "UDP Bandwidth"];
    println!("{}", row(&heads.map(str::to_owned)));
    for (shown, size) in SIZES.iter().filter(|(shown, _)| run.sizes.iter().any(|s| s == shown)) {
        let [tcp_latency, tcp, udp_latency, lost, udp] = match run.means {
            Means::Own(_) => by_ourselves(cluster, from, to, (size, run.seconds)).await?,
            Means::Programs(_) => by_programs(cluster, from, to, (size, run.seconds)).await?,
        };
        println!("{}", row(&[(*shown).to_owned(), tcp_latency, tcp, udp_latency, lost, udp]));
    }
    Ok(())
}

/// A Service, or a server that has just started, may not answer at the first try.
const TRIES: usize = 5;

/// Latency and bandwidth of TCP; latency, lost share and bandwidth of UDP.
type Cells = [String; 5];

async fn by_ourselves(
    cluster: &Cluster,
    from: &Place,
    to: &str,
    (size, seconds): (&str, u32),
) -> anyhow::Result<Cells> {
    let seconds = seconds.to_string();
    let command =
        ["/kube-ovn/kubectl-ko", "measure", "client", to, "--size", size, "--seconds", &seconds];
    let mut said = cluster.ask(from, &command).await?;
    for _ in 1..TRIES {
        if said.code == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        said = cluster.ask(from, &command).await?;
    }
    if said.code != 0 {
        bail!("measure from {} to {to}: {}", from.pod, said.stderr.trim());
    }
    let found: Measured = serde_json::from_slice(&said.stdout).context("read a measurement")?;
    Ok([
        format!("{:.1} us", found.tcp_latency_us),
        bits(found.tcp_bits),
        format!("{:.1} us", found.udp_latency_us),
        format!("({:.2}%)", found.udp_lost * 100.0),
        bits(found.udp_bits),
    ])
}

/// As iperf3 writes it.
fn bits(rate: f64) -> String {
    let units = [(1e9, "Gbits/sec"), (1e6, "Mbits/sec"), (1e3, "Kbits/sec")];
    let (scale, unit) =
        units.into_iter().find(|(scale, _)| rate >= *scale).unwrap_or((1.0, "bits/sec"));
    format!("{:.3} {unit}", rate / scale)
}

async fn by_programs(
    cluster: &Cluster,
    from: &Place,
    to: &str,
    (size, seconds): (&str, u32),
) -> anyhow::Result<Cells> {
    let qperf = format!("qperf -t {seconds} {to} -ub -oo msg_size:{size} -vu tcp_lat udp_lat");
    let [tcp_latency, udp_latency] = asked(cluster, from, &qperf, parse_qperf).await?;
    let iperf = format!("iperf3 -c {to} -u -t {seconds} -i 1 -P 10 -b 1000G -l {size}");
    let [udp, lost] = asked(cluster, from, &iperf, parse_iperf).await?;
    let iperf = format!("iperf3 -c {to} -t {seconds} -P 10 -l {size}");
    let [tcp] = asked(cluster, from, &iperf, |text| {
        let [rate, _] = parse_iperf(text);
        [rate]
    })
    .await?;
    Ok([tcp_latency, tcp, udp_latency, lost, udp])
}

/// Runs a program until its report holds everything: iperf3's server refuses while the test before
/// is not quite over. An empty cell would say nothing; the reason does.
async fn asked<const N: usize>(
    cluster: &Cluster,
    from: &Place,
    script: &str,
    parse: impl Fn(&str) -> [String; N],
) -> anyhow::Result<[String; N]> {
    let mut last = String::new();
    for _ in 0..TRIES {
        let ended = cluster.ask(from, &["sh", "-c", script]).await?;
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        let cells = parse(&said);
        if cells.iter().all(|cell| !cell.is_empty()) {
            return Ok(cells);
        }
        last = format!("{said}{}", ended.stderr);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    bail!("{script} in {}: {}", from.pod, last.trim())
}

fn row(cells: &[String; 6]) -> String {
    let text: String = cells.iter().map(|cell| format!("{cell:<15} ")).collect();
    text.trim_end().to_owned()
}

/// `latency  =  82.8 us`, of TCP and of UDP.
fn parse_qperf(text: &str) -> [String; 2] {
    let mut found = text.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "latency").then(|| value.trim().to_owned())
    });
    [found.next().unwrap_or_default(), found.next().unwrap_or_default()]
}

/// Bandwidth of the receiver's sum, and its lost share (`(0%)` where none is told: TCP).
fn parse_iperf(text: &str) -> [String; 2] {
    let sum = text.lines().rfind(|line| line.contains("[SUM]") && line.contains("receiver"));
    let words: Vec<&str> = sum.unwrap_or_default().split_whitespace().collect();
    let at = words.iter().position(|word| word.ends_with("bits/sec"));
    let bandwidth = at.and_then(|at| Some(format!("{} {}", words.get(at - 1)?, words.get(at)?)));
    let lost = words.iter().find(|word| word.starts_with('(') && word.ends_with("%)"));
    [bandwidth.unwrap_or_default(), lost.map_or("(0%)", |lost| lost).to_owned()]
}

async fn recovery(cluster: &Cluster, role: &str, label: &str) -> anyhow::Result<()> {
    let path = format!("/api/v1/namespaces/{}/pods", cluster.namespace);
    let leaders = cluster.system_pods(&format!("app=ovn-central,{label}=true")).await?;
    let Some(leader) = leaders.first() else { bail!("no ovn-central pod has {label}=true") };
    println!("Delete ovn central {role} pod");
    cluster.delete(&format!("{path}/{}", name(leader))).await?;
    let begun = tokio::time::Instant::now();
    wait("ovn-central gets available again", || async {
        let pods = cluster.system_pods("app=ovn-central").await?;
        let gone = !pods.iter().any(|pod| name(pod) == name(leader));
        Ok(gone && rolled_out(cluster, "deployments/ovn-central").await?)
    })
    .await?;
    header(&format!(" OVN {role} Recovery takes {:.3} s ", begun.elapsed().as_secs_f64()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    Ok(())
}

async fn remove(cluster: &Cluster) {
    let ns = &cluster.namespace;
    let mut paths: Vec<String> =
        PODS.iter().map(|(pod, ..)| format!("/api/v1/namespaces/{ns}/pods/{pod}")).collect();
    paths.push(format!("/api/v1/namespaces/{ns}/services/{SERVICE}"));
    for path in &paths {
        if let Err(error) = cluster.delete(path).await {
            eprintln!("kubectl ko: {error:#}; delete it by hand");
        }
    }
    if let Ok(at) = cluster.leader(Database::Northbound).await {
        let command = ["ovn-nbctl", "--no-leader-only", "--if-exists", "lb-del", LB];
        let _ = cluster.ask(&at, &command).await;
    }
    let gone = wait("the test pods end", || async {
        Ok(cluster.system_pods("app=PerfTest").await?.is_empty())
    });
    if let Err(error) = gone.await {
        eprintln!("kubectl ko: {error:#}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        let qperf = "tcp_lat:\n    latency   =  82.8 us\n    msg_size  =  64\nudp_lat:\n    \
                     latency   =  67.6 us\n";
        assert_eq!(parse_qperf(qperf), ["82.8 us", "67.6 us"]);
        let udp = "[SUM]   0.00-5.00   sec  5.01 MBytes  8.42 Mbits/sec  0.003 ms  12/82213 (1.4%)  \
                   receiver\n";
        assert_eq!(parse_iperf(udp), ["8.42 Mbits/sec", "(1.4%)"]);
        let tcp =
            "[SUM]   0.00-5.00   sec  58.2 MBytes  97.7 Mbits/sec                  receiver\n";
        assert_eq!(parse_iperf(tcp), ["97.7 Mbits/sec", "(0%)"]);
        assert_eq!(parse_iperf("nothing")[0], "");
        assert_eq!(bits(97_650_000.0), "97.650 Mbits/sec");
        assert_eq!(bits(12.0), "12.000 bits/sec");
    }

    #[test]
    fn the_server_is_what_the_service_selects() {
        let pod = manifest("test-server", Network::Own, "n", "i", "c");
        assert_eq!(pod["metadata"]["labels"]["env"], "server");
        assert_eq!(service()["spec"]["ports"].as_array().map(Vec::len), Some(4));
        let client = manifest("test-client", Network::Host, "n", "i", "c");
        assert!(client["metadata"]["labels"]["env"].is_null());
    }
}
