//! What operators watch: pinger, monitor, metrics.

use std::collections::BTreeMap;

use crate::{
    cluster::{Cluster, retry, text},
    story::story,
};

/// Samples of a metrics text: name with labels -> value.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|l| !l.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

fn sum(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    let of = |full: &str| full.split('{').next() == Some(name);
    samples.iter().filter(|(full, _)| of(full)).map(|(_, v)| v).sum()
}

/// Metrics of one ready pod of an application.
fn metrics(cluster: &Cluster, node: &str, address: &str, port: u16) -> Result<String, String> {
    let url = format!("http://{}:{port}/metrics", crate::cluster::bracketed(address));
    cluster.enter(node, &["wget", "-qO-", "-T", "5", &url])
}

#[test]
fn pingers_on_all_nodes_see_a_network_without_loss() {
    story("pinger", |s| {
        let nodes = s.cluster.nodes();
        let pods = retry(60, || {
            let pods =
                s.cluster.objects(&["-n", "kube-system", "pods", "-l", "app=kube-ovn-pinger"]);
            let ready = pods.iter().filter(|p| crate::cluster::is_ready(p)).count();
            if ready == nodes.len() { Ok(pods) } else { Err(format!("{ready} pingers ready")) }
        });
        s.step("a pinger is ready on every node");
        for pod in &pods {
            let (node, ip) = (text(&pod["spec"]["nodeName"]), text(&pod["status"]["podIP"]));
            let lost = |all: &BTreeMap<String, f64>| {
                sum(all, "pinger_pod_ping_lost_total") + sum(all, "pinger_node_ping_lost_total")
            };
            let before = samples(&retry(20, || metrics(s.cluster, &node, &ip, 8080)));
            retry(60, || {
                let all = samples(&metrics(s.cluster, &node, &ip, 8080)?);
                let asked = sum(&all, "pinger_pod_ping_count_total")
                    - sum(&before, "pinger_pod_ping_count_total");
                let good = [
                    "pinger_ovs_up",
                    "pinger_ovn_controller_up",
                    "pinger_apiserver_healthy",
                    "pinger_internal_dns_healthy",
                ]
                .map(|name| sum(&all, name));
                if asked >= 3.0 * nodes.len() as f64
                    && good == [1.0; 4]
                    && lost(&all) == lost(&before)
                    && sum(&all, "pinger_inconsistent_port_binding") == 0.0
                    && sum(&all, "kube_ovn_dp_total") >= 1.0
                {
                    Ok(())
                } else {
                    Err(format!("{node}: {asked} echoes, {good:?}, {} lost", lost(&all)))
                }
            });
        }
        s.step("no loss between pods, nodes, API server, DNS");
        let job = ["/kube-ovn/kube-ovn-pinger", "--mode=job", "--exit-code=1"];
        let said = s.cluster.exec_system("app=kube-ovn-pinger", None, &job);
        // Results are log lines on standard error; kubectl gives them with a failure only.
        said.expect("one round as a job passes");
        s.step("one round as a job");
    });
}
