//! Chapters 3.11 and 3.1.5 of the manual: traffic of a pod on the node's mirror interface. What comes to the
//! pod is copied; what it sends is not, as with upstream.

use crate::{
    cluster::{Answer, retry},
    guard::undo,
    pods::Pod,
    story::{Story, story},
};

const FLAG: (&str, &str) = ("daemonset/kube-ovn-cni", "--enable-mirror");

/// Packets that have come to mirror0 of a node.
fn mirrored(s: &Story, node: &str) -> Result<u64, String> {
    let file = "/sys/class/net/mirror0/statistics/rx_packets";
    let count: Answer = s.cluster.enter(node, &["cat", file]);
    count?.trim().parse::<u64>().map_err(|e| e.to_string())
}

/// 40 echoes, and how many packets came to mirror0 of the node meanwhile.
fn echoes(s: &Story, node: &str, target: &str) -> Result<u64, String> {
    let before = mirrored(s, node)?;
    s.exec("a", &["ping", "-q", "-i", "0.05", "-c", "40", "-W", "2", target])?;
    Ok(mirrored(s, node)? - before)
}

#[test]
fn all_traffic_is_mirrored_with_the_flag() {
    story("manual-3-1-5", |s| {
        let nodes = s.cluster.nodes();
        let node = &nodes[1].name;
        s.start(&[Pod::new("a").on(&nodes[0].name), Pod::new("b").on(node)]);
        let target = s.ip("b");
        let _back = undo(|| s.cluster.set_flag(FLAG.0, FLAG.1, "false"));
        s.cluster.set_flag(FLAG.0, FLAG.1, "true");
        s.step("the agents mirror all");
        // Requests and answers of a pod that has no annotation.
        let passed = retry(60, || match echoes(s, node, &target)? {
            passed if passed >= 80 => Ok(passed),
            passed => Err(format!("{passed} packets of 40 echoes came to mirror0")),
        });
        s.step(&format!("40 echoes of a pod: {passed} packets on mirror0"));
    });
}

#[test]
fn traffic_of_a_pod_is_mirrored() {
    story("manual-3-11", |s| {
        let nodes = s.cluster.nodes();
        let node = &nodes[1].name;
        s.start(&[
            Pod::new("a").on(&nodes[0].name),
            Pod::new("mirror-pod").on(node).with("mirror", "true"),
            Pod::new("quiet").on(node),
        ]);
        let (pod, quiet) = (s.ip("mirror-pod"), s.ip("quiet"));
        s.pings("a", &quiet);
        let passed = retry(60, || match echoes(s, node, &pod)? {
            passed if passed >= 40 => Ok(passed),
            passed => Err(format!("{passed} of 40 packets came to mirror0")),
        });
        s.step(&format!("40 echoes of the pod: {passed} packets on mirror0"));
        retry(60, || match echoes(s, node, &quiet)? {
            passed if passed < 40 => Ok(()),
            passed => Err(format!("{passed} packets of another pod came to mirror0")),
        });
        s.step("those of another pod do not come there");
    });
}
