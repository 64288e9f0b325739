//! Chapter 6.2 of the manual: a worker leaves the cluster, and comes back.

use crate::{
    cluster::retry,
    guard::undo,
    pods::Pod,
    story::{Story, story},
};

/// Where a node may be written down.
fn traces(s: &Story, node: &str, address: &str) -> Result<(), String> {
    let sb = ["ovn-sbctl", "--no-leader-only", "--bare", "--columns=hostname", "list", "chassis"];
    let chassis = s.cluster.exec_system("app=ovn-central,ovn-sb-leader=true", None, &sb)?;
    let ports = s.cluster.nbctl(&["lsp-list", "join"])?;
    let policies = s.cluster.nbctl(&["lr-policy-list", "ovn-cluster"])?;
    let records = s.cluster.kubectl(&["get", "ips.kubeovn.io", "-o", "name"])?;
    let found = [
        ("Chassis", chassis.lines().any(|line| line == node)),
        ("port", ports.contains(&format!("(node-{node})"))),
        ("policy", policies.lines().any(|l| l.split_whitespace().any(|w| w == address))),
        ("IP", records.lines().any(|l| l.ends_with(&format!("/node-{node}")))),
    ];
    let left: Vec<&str> = found.iter().filter(|(_, there)| *there).map(|(what, _)| *what).collect();
    if left.is_empty() { Ok(()) } else { Err(format!("{node} is still known: {left:?}")) }
}

#[test]
fn a_worker_leaves_and_comes_back() {
    story("manual-6-2", |s| {
        let nodes = s.cluster.nodes();
        let (node, address) = (nodes[2].name.as_str(), nodes[2].ip.as_str());
        assert!(traces(s, node, address).is_err(), "the node is known");
        s.start(&[Pod::new("here").on(&nodes[0].name), Pod::new("there").on(node)]);
        let gone = s.ip("there");
        let power = |verb: &str| {
            let status = s.cluster.program("packaging/sandbox/node").args([verb, node]).status();
            assert!(status.expect("power of a node").success(), "{verb} {node}");
        };
        let back = undo(|| {
            power("start");
            let ready = format!("node/{node}");
            retry(60, || s.cluster.kubectl(&["get", &ready]));
            s.cluster.kubectl(&["uncordon", node]).expect("pods may come");
            let wait = ["wait", "--for=condition=Ready", "--timeout=120s", &ready];
            s.cluster.kubectl(&wait).expect("the node is back");
        });
        let drain = ["drain", node, "--ignore-daemonsets", "--force", "--delete-emptydir-data"];
        s.cluster
            .kubectl(&[&drain[..], &["--grace-period=1", "--timeout=90s"]].concat())
            .expect("6.2.1: drained");
        s.step("6.2.1: drained");
        power("stop");
        s.cluster.kubectl(&["delete", "node", node]).expect("6.2.4: deleted");
        retry(90, || traces(s, node, address));
        s.step("6.2.5: no chassis, port, policy or record is left");
        retry(60, || match s.exec("here", &["ping", "-c", "1", "-W", "1", &gone]) {
            Ok(answer) => Err(answer),
            Err(_) => Ok(()),
        });
        drop(back);
        s.step("powered on again: Ready");
        retry(90, || match traces(s, node, address) {
            Err(known) if known.contains("Chassis") && known.contains("port") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        s.start(&[Pod::new("new").on(node)]);
        s.pings("here", &s.ip("new"));
        s.pings("new", address);
        s.pings("new", s.cluster.outside());
    });
}
