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
};

pub const TOOL: Tool = Tool {
    name: "perf",
    aliases: &[],
    about: "Measure latency and bandwidth of pods, hosts and a Service",
    example: "perf\nperf registry.example/kubeovn/test:v1.13.0\nperf --recovery",
    arguments: Arguments::Own,
    command: |command: Command| {
        command
            .arg(
                Arg::new("image")
                    .value_name("IMAGE")
                    .default_value("docker.io/kubeovn/test:v1.13.0")
                    .help("Image with qperf, iperf3 and /kube-ovn/test-server.sh"),
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
    let image = argument(matches, "image");
    let result = tokio::select! {
        result = measure(&cluster, image) => result.map(|()| 0),
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

/// Name, on the host's network, node (server or client), command.
const PODS: [(&str, Network, Side, &str); 4] = [
    ("test-client", Network::Own, Side::Client, "sleep infinity"),
    ("test-host-client", Network::Host, Side::Client, "sleep infinity"),
    ("test-server", Network::Own, Side::Server, "qperf & ./test-server.sh"),
    ("test-host-server", Network::Host, Side::Server, "qperf & ./test-server.sh"),
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

async fn measure(cluster: &Cluster, image: &str) -> anyhow::Result<()> {
    header(" Preparing Performance Test Resources ");
    let nodes = cluster.list("/api/v1/nodes", "").await?;
    let server = nodes.first().map(name).context("the cluster has no node")?;
    let client = nodes.get(1).map_or(server, name);
    remove(cluster).await;
    let path = format!("/api/v1/namespaces/{}/pods", cluster.namespace);
    for (pod, network, side, command) in PODS {
        let node = if side == Side::Server { server } else { client };
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
    unicast(cluster, &place("test-client"), &ip("test-server")).await?;
    header(" Start Host Network Performance Test ");
    unicast(cluster, &place("test-host-client"), &ip("test-host-server")).await?;
    header(" Start Service Network Performance Test ");
    let address = text(&made["spec"]["clusterIP"]).to_owned();
    // qperf takes random ports, which no port of a Service covers.
    balance(cluster, &address, &ip("test-server")).await?;
    unicast(cluster, &place("test-client"), &address).await?;
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

async fn unicast(cluster: &Cluster, from: &Place, to: &str) -> anyhow::Result<()> {
    let heads =
        ["Size", "TCP Latency", "TCP Bandwidth", "UDP Latency", "UDP Lost Rate", "UDP Bandwidth"];
    println!("{}", row(&heads.map(str::to_owned)));
    for (shown, size) in SIZES {
        let qperf = format!("qperf -t 5 {to} -ub -oo msg_size:{size} -vu tcp_lat udp_lat");
        let latency = cluster.ask(from, &["sh", "-c", &qperf]).await?;
        let latencies = parse_qperf(&String::from_utf8_lossy(&latency.stdout));
        let iperf = format!("iperf3 -c {to} -u -t 5 -i 1 -P 10 -b 1000G -l {size}");
        let udp = cluster.ask(from, &["sh", "-c", &iperf]).await?;
        let (udp, lost) = parse_iperf(&String::from_utf8_lossy(&udp.stdout));
        let iperf = format!("iperf3 -c {to} -t 5 -P 10 -l {size}");
        let tcp = cluster.ask(from, &["sh", "-c", &iperf]).await?;
        let (tcp, _) = parse_iperf(&String::from_utf8_lossy(&tcp.stdout));
        let [tcp_latency, udp_latency] = latencies;
        println!("{}", row(&[shown.to_owned(), tcp_latency, tcp, udp_latency, lost, udp]));
    }
    Ok(())
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

/// Bandwidth and lost share of the receiver's sum.
fn parse_iperf(text: &str) -> (String, String) {
    let sum = text.lines().rfind(|line| line.contains("[SUM]") && line.contains("receiver"));
    let words: Vec<&str> = sum.unwrap_or_default().split_whitespace().collect();
    let at = words.iter().position(|word| word.ends_with("bits/sec"));
    let bandwidth = at.and_then(|at| Some(format!("{} {}", words.get(at - 1)?, words.get(at)?)));
    let lost = words.iter().find(|word| word.starts_with('(') && word.ends_with("%)"));
    (bandwidth.unwrap_or_default(), lost.map_or(String::new(), |lost| (*lost).to_owned()))
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
        assert_eq!(parse_iperf(udp), ("8.42 Mbits/sec".into(), "(1.4%)".into()));
        let tcp =
            "[SUM]   0.00-5.00   sec  58.2 MBytes  97.7 Mbits/sec                  receiver\n";
        assert_eq!(parse_iperf(tcp).0, "97.7 Mbits/sec");
        assert_eq!(parse_iperf("nothing"), (String::new(), String::new()));
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
