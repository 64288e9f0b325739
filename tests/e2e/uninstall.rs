//! cleanup.sh leaves nothing on nodes; install.sh then works again. Last of all stories by name.

use std::collections::BTreeSet;

use crate::{
    cluster::{Cluster, retry, text},
    pods::{Pod, page_of},
    story::{say, story},
};

/// What a node without Kube-OVN shows: links, addresses, rules but kube-proxy's, sets, files.
const LOOK: &str = "
ip -o link show | sed -E 's/^[0-9]+: ([^:@]+).*/link \\1/'
ip -o addr show | awk '{print \"address\", $2, $4}'
ip rule show | sed 's/^/rule /'; ip route show table all type unicast | grep -v cache | sed 's/^/route /'
for v in iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy; do
    $v-save 2>/dev/null | grep -E '^-A' | grep -v KUBE- | sed \"s/^/$v /\"; done
ipset list -n | sed 's/^/set /'
find /etc/cni /opt/cni/bin /etc/origin /etc/openvswitch /etc/ovn /run/ovn /run/openvswitch \
    /var/log/kube-ovn /var/log/openvswitch /var/log/ovn /usr/local/bin -type f -o -type s 2>/dev/null | sed 's/^/file /'
for p in /proc/[0-9]*/comm; do cat $p 2>/dev/null; done | grep -E 'ovs|ovn' | sed 's/^/process /'
true";

fn look(cluster: &Cluster, node: &str) -> BTreeSet<String> {
    let shown = cluster.enter(node, &["bash", "-c", LOOK]).expect("a look at the node");
    shown.lines().map(str::to_owned).collect()
}

/// A node that never had it: the rootfs, its NICs, and what a new network namespace holds.
fn is_pristine(line: &str) -> bool {
    let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
    match kind {
        // tunl0, sit0 and the like are in every namespace of kernels that have the protocol.
        "link" => {
            rest.starts_with("eth")
                || rest == "lo"
                || rest.ends_with('0') && !rest.starts_with("ovn")
        }
        "address" => rest.starts_with("eth") || rest.starts_with("lo "),
        "rule" => {
            rest.contains("lookup local")
                || rest.contains("lookup main")
                || rest.contains("lookup default")
        }
        "route" => rest.contains("dev eth") || rest.contains("dev lo"),
        "file" => rest.starts_with("/opt/cni/bin/") && !rest.ends_with("/kube-ovn"),
        _ => false,
    }
}

#[test]
fn cleanup_leaves_nodes_as_they_were_and_install_works_again() {
    story("zz-again", |s| {
        let nodes = s.cluster.nodes();
        let daemonset =
            s.cluster.objects(&["-n", "kube-system", "daemonset", "kube-ovn-cni"]).remove(0);
        let image = text(&daemonset["spec"]["template"]["spec"]["containers"][0]["image"]);
        let status = s.cluster.program("cleanup.sh").status().unwrap();
        assert!(status.success(), "cleanup.sh says what resists, see above");
        s.step("cleanup.sh");
        for node in &nodes {
            let left: Vec<String> =
                look(s.cluster, &node.name).into_iter().filter(|l| !is_pristine(l)).collect();
            assert!(left.is_empty(), "left on {}: {left:#?}", node.name);
            let tunnels = s.cluster.enter(&node.name, &["ip", "-o", "addr", "show", "dev", "eth1"]);
            assert!(tunnels.unwrap().contains("inet"), "eth1 of {} has its address", node.name);
        }
        let kinds = s.cluster.kubectl(&["get", "crd", "-o", "name"]).unwrap();
        assert!(!kinds.contains("kubeovn.io"), "{kinds}");
        let objects =
            s.cluster.kubectl(&["get", "all,clusterroles,clusterrolebindings", "-A", "-o", "name"]);
        let ours: Vec<String> = objects
            .unwrap()
            .lines()
            .map(str::to_owned)
            .filter(|l| l.contains("ovn") && !l.contains("e2e") && !l.contains("demo"))
            .collect();
        assert!(ours.is_empty(), "{ours:#?}");
        s.step("nothing is left");
        let install = s
            .cluster
            .program("install.sh")
            .env("IMAGE", &image)
            .env("IMAGE_PULL_POLICY", "Never")
            .env("IFACE", "eth1")
            .status()
            .unwrap();
        assert!(install.success(), "install.sh fails, see above");
        s.step("install.sh");
        s.start(&[Pod::new("a").on(&nodes[0].name), Pod::new("b").on(&nodes[1].name)]);
        let target = s.ip("b");
        s.fetches("a", &page_of(&target), "b");
        s.fetches("a", &page_of(s.cluster.outside()), "outside");
        retry(120, || crate::audit::agreement(s.cluster));
        say("   all agrees");
    });
}
