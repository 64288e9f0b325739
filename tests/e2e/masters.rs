//! Three masters: a cluster of its own, in a folder of its own.

use std::{path::PathBuf, time::Instant};

use crate::{
    churn::kill,
    cluster::{Cluster, bracketed, retry},
    story::say,
};

/// Removes the cluster whatever happens.
struct Ended(Cluster);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.program("cleanup.sh").arg("--sandbox").status();
    }
}

/// The databases have one leader, which the Service follows.
fn writes(cluster: &Cluster) -> Result<(), String> {
    cluster.nbctl(&["--timeout=3", "set", "NB_Global", ".", "external_ids:e2e=1"]).map(|_| ())
}

#[test]
#[ignore = "makes a second cluster, 5 minutes and 3 GB; run with --ignored"]
fn any_of_three_masters_may_die() {
    let cluster = Cluster::at(PathBuf::from("/var/lib/kube-ovn-sandbox-masters"));
    let ended = Ended(cluster);
    let cluster = &ended.0;
    cluster.install(&["--masters", "3"]);
    retry(60, || writes(cluster));
    for node in cluster.nodes() {
        let begun = Instant::now();
        kill(cluster, &node.name, "ovsdb-server ").expect("kill the databases of a master");
        retry(60, || writes(cluster));
        say(&format!(
            "   {:5.1} s  databases of {} killed, writable",
            begun.elapsed().as_secs_f64(),
            node.name
        ));
        let ready =
            ["-n", "kube-system", "rollout", "status", "deployment/ovn-central", "--timeout=120s"];
        cluster.kubectl(&ready).expect("the member comes back");
    }
    let begun = Instant::now();
    let leader = cluster.leader();
    let pod = cluster.objects(&["-n", "kube-system", "pod", &leader]).remove(0);
    kill(cluster, pod["spec"]["nodeName"].as_str().unwrap(), "start-controller").unwrap();
    // Its container may be back first and take its own lease again: who leads does not matter.
    retry(60, || cluster.settled_metric("kube_ovn_rows"));
    say(&format!(
        "   {:5.1} s  the leading controller killed, everything applied again",
        begun.elapsed().as_secs_f64()
    ));
    let pod = cluster.kubectl(&[
        "-n",
        "kube-ovn-demo",
        "get",
        "pod",
        "server",
        "-o",
        "jsonpath={.status.podIP}",
    ]);
    let url = format!("http://{}/", bracketed(&pod.unwrap()));
    let answer = cluster.kubectl(&[
        "-n",
        "kube-ovn-demo",
        "exec",
        "client",
        "--",
        "wget",
        "-qO-",
        "-T",
        "3",
        &url,
    ]);
    assert!(answer.unwrap().contains("hello"), "pods talk all the time");
}
