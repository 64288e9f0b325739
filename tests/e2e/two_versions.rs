//! Upgrade: install.sh again with another version of the image, while pods talk.

use crate::{
    audit::agreement,
    cluster::{retry, text},
    echoes::Echoes,
    pods::Pod,
    story::story,
};

/// Lost echoes over the whole upgrade, in thousandths. Each node's Open vSwitch is exchanged once,
/// and with the datapath in user space its packets stop while no process runs it: 1 to 2 % measured
/// with a build beside it, 0.6 s in a row.
const BOUND: u64 = 200;

#[test]
fn an_upgrade_rolls_through_while_pods_talk() {
    story("upgrade", |s| {
        let (cluster, nodes) = (s.cluster, s.cluster.nodes());
        let agent = cluster.objects(&["-n", "kube-system", "daemonset", "kube-ovn-cni"]).remove(0);
        let old = text(&agent["spec"]["template"]["spec"]["containers"][0]["image"]);
        let new = match old.strip_suffix("-next") {
            Some(first) => first.to_owned(),
            None => format!("{old}-next"),
        };
        for node in &nodes {
            let tag = ["ctr", "-n", "k8s.io", "images", "tag", "--force", &old, &new];
            cluster.enter(&node.name, &tag).expect("another name of the image");
        }
        s.start(&[
            Pod::new("a").on(&nodes[0].name),
            Pod::new("b").on(&nodes[1].name),
            Pod::new("c").on(&nodes[1].name),
        ]);
        let (b, c) = (s.ip("b"), s.ip("c"));
        let over_nodes = Echoes::start(s, "a", &b, 10);
        let on_a_node = Echoes::start(s, "b", &c, 10);
        let status = cluster
            .program("install.sh")
            .env("IMAGE", &new)
            .env("IMAGE_PULL_POLICY", "Never")
            .env("IFACE", "eth1")
            .env("KUBECTL_KO_DIR", cluster.dir.join("bin"))
            .status()
            .unwrap();
        assert!(status.success(), "install.sh fails, see above");
        s.step("install.sh with another version");
        let workloads = [
            "deployments/ovn-central",
            "daemonsets/ovs-ovn",
            "deployments/kube-ovn-controller",
            "daemonsets/kube-ovn-cni",
            "deployments/kube-ovn-monitor",
            "daemonsets/kube-ovn-pinger",
        ];
        for workload in workloads {
            let status = ["-n", "kube-system", "rollout", "status", workload, "--timeout=90s"];
            cluster.kubectl(&status).unwrap_or_else(|e| panic!("{workload}: {e}"));
        }
        retry(90, || {
            let pods = cluster.objects(&["-n", "kube-system", "pods", "-l", "component=network"]);
            let image = |pod: &serde_json::Value| text(&pod["spec"]["containers"][0]["image"]);
            let others: Vec<String> = pods.iter().map(image).filter(|i| *i != new).collect();
            match (pods.len(), others.as_slice()) {
                (0, _) => Err("no pod of Kube-OVN".to_owned()),
                (_, []) => Ok(()),
                (_, others) => Err(format!("not {new}: {others:?}")),
            }
        });
        s.step("the new version everywhere");
        for (what, echoes) in [("over nodes", over_nodes), ("on one node", on_a_node)] {
            let report = echoes.end();
            s.step(&format!("{what}: {}", report.told()));
            assert!(report.permille() <= BOUND && report.sent > 500, "{what}: {report:?}");
        }
        retry(90, || agreement(cluster));
        s.start(&[Pod::new("d").on(&nodes[0].name)]);
        s.pings("d", &b);
    });
}
