//! Every process is killed while pods come and go; afterwards all must agree.

use std::time::Duration;

use serde_json::json;

use crate::{
    audit::{agreement, rules},
    cluster::{Cluster, is_ready, retry, text},
    story::{Story, story},
};

/// Kills (-9) the processes of a node whose command line holds `pattern`; says how many.
pub fn kill(cluster: &Cluster, node: &str, pattern: &str) -> Result<String, String> {
    // A node has its own process numbers: nothing outside of it can be met. Only programs are
    // looked at, not the shells and probes that name them.
    let script = format!(
        "n=0; for f in /proc/[0-9]*/cmdline; do
            p=${{f#/proc/}}; p=${{p%/cmdline}}; [ $p != $$ ] || continue
            line=$(tr '\\0' ' ' <$f 2>/dev/null) || continue
            case $line in sh\\ * | *healthcheck* | *kube-ovn-sandbox* | runc\\ *) ;;
                *\"{pattern}\"*) kill -9 $p && n=$((n + 1)) ;; esac
        done; [ $n -gt 0 ] && echo $n"
    );
    cluster.enter(node, &["sh", "-c", &script])
}

struct Victim {
    name: &'static str,
    how: How,
}

enum How {
    /// A component that the node itself supervises.
    Component,
    /// A program in a pod.
    Program(&'static str),
}

const VICTIMS: [Victim; 9] = [
    Victim { name: "controller", how: How::Program("start-controller") },
    Victim { name: "agent", how: How::Program("start-cniserver") },
    Victim { name: "ovs-vswitchd", how: How::Program("ovs-vswitchd ") },
    Victim { name: "ovn-controller", how: How::Program("ovn-controller ") },
    Victim { name: "ovsdb-server", how: How::Program("ovsdb-server ") },
    Victim { name: "ovn-northd", how: How::Program("ovn-northd ") },
    Victim { name: "kube-apiserver", how: How::Component },
    Victim { name: "containerd", how: How::Component },
    Victim { name: "kubelet", how: How::Component },
];

impl Victim {
    /// node1 has all of them: databases, controller and API server run there. One that is down
    /// since an earlier strike is waited for.
    fn strike(&self, cluster: &Cluster) {
        retry(30, || match self.how {
            How::Program(pattern) => kill(cluster, "node1", pattern),
            How::Component => {
                let mut command = cluster.program("packaging/sandbox/cluster");
                let ended =
                    command.args(["restart-component", "node1", self.name, "KILL"]).status();
                if ended.is_ok_and(|status| status.success()) {
                    Ok("1".into())
                } else {
                    Err(self.name.into())
                }
            }
        });
    }
}

fn scale(s: &Story, replicas: usize) {
    let count = format!("--replicas={replicas}");
    retry(60, || s.kubectl(&["scale", "deployment/churn", &count]));
}

/// Waits, a minute at most, until no more than `MOVING` pods come or go. The kills meet as many of
/// them as before, but two cores are not buried: with 200 under way at once,
/// the kernel itself stood still for minutes (locks of network namespaces and cgroups).
fn pace(s: &Story) {
    const MOVING: usize = 60;
    for _ in 0..60 {
        let listed = s.kubectl(&["get", "pods", "--no-headers"]);
        let moving = |text: String| text.lines().filter(|l| !l.contains(" 1/1 ")).count();
        if listed.is_ok_and(|text| moving(text) <= MOVING) {
            return;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn wait_scaled(s: &Story, replicas: usize) {
    retry(420, || {
        let pods = s.cluster.objects(&["-n", &s.ns, "pods"]);
        let ready = pods.iter().filter(|p| is_ready(p)).count();
        if ready == replicas && pods.len() == replicas {
            return Ok(());
        }
        let waiting = pods.iter().filter(|p| !is_ready(p)).take(5);
        let waiting: Vec<String> = waiting.map(|p| text(&p["metadata"]["name"])).collect();
        Err(format!("{ready} ready of {} pods, {replicas} wanted; e.g. {waiting:?}", pods.len()))
    });
}

fn deployment(s: &Story) -> serde_json::Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "churn", "namespace": s.ns},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "churn"}}, "template": {
            "metadata": {"labels": {"app": "churn"}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "idle", "image": "kube-ovn-sandbox/test:1", "imagePullPolicy": "Never",
                "command": ["/bin/sh", "-c", "exec httpd -f -p 80 -h /www"]}]}}}})
}

#[test]
fn kills_during_churn_leave_nothing_behind() {
    let pods = std::env::var("E2E_PODS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    story("churn", |s| {
        retry(60, || agreement(s.cluster));
        let before = rules(s.cluster).unwrap();
        s.step("at rest before");
        s.cluster.apply(&[deployment(s)]);
        // Up and down, so that the kills meet ADDs and DELs alike.
        for (round, victim) in VICTIMS.iter().enumerate() {
            let replicas = if round % 2 == 0 { pods } else { pods / 4 };
            scale(s, replicas);
            std::thread::sleep(Duration::from_secs(3));
            pace(s);
            victim.strike(s.cluster);
            s.step(&format!("towards {replicas} pods: kill -9 {}", victim.name));
        }
        scale(s, pods);
        wait_scaled(s, pods);
        s.step(&format!("all {pods} pods are ready"));
        retry(90, || agreement(s.cluster));
        s.step("all agrees");
        scale(s, 2);
        wait_scaled(s, 2);
        s.step("scaled down to 2");
        retry(90, || agreement(s.cluster));
        retry(30, || {
            let now = rules(s.cluster)?;
            if now == before { Ok(()) } else { Err(format!("rules {before:?}, now {now:?}")) }
        });
        s.step("all agrees, no rule more or less");
        let two = s.cluster.objects(&["-n", &s.ns, "pods"]);
        let [from, to] = [&two[0], &two[1]];
        let target = text(&to["status"]["podIP"]);
        s.pings(&text(&from["metadata"]["name"]), &target);
    });
}
