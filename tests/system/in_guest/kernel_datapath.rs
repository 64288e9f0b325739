//! Which datapath a node has, how it changes, and what is left of it in the end.

use kube_ovn::{central::uninstall, kernel::generic};

use super::{
    guest_test,
    rig::{kind_of, vsctl},
};
use crate::{
    central::{block_on, eventually},
    central_ovs::{Node, stop},
};

fn datapath(node: &Node) -> String {
    node.external_ids().get("ovs-datapath").cloned().unwrap_or_default()
}

/// A port that Open vSwitch makes itself, as ovn0 is.
fn add_internal_port(node: &Node) {
    vsctl(
        node,
        &[
            "--may-exist",
            "add-port",
            "br-int",
            "ovn0",
            "--",
            "set",
            "Interface",
            "ovn0",
            "type=internal",
        ],
    );
}

guest_test! {
    fn auto_takes_the_module_changes_follow_and_nothing_is_left() {
        let node = Node::new("gd");
        assert!(generic::has_family(&node.place, generic::OVS_DATAPATH).unwrap());
        let auto = [("OVS_DATAPATH", "auto"), ("IFACE", "eth1")];
        let running = node.start(&auto);
        eventually("the kernel datapath", || datapath(&node) == "system");
        eventually("healthy", || node.is_healthy());
        eventually("br-int", || kind_of(&node, "br-int").is_some());
        add_internal_port(&node);
        eventually("ovn0", || kind_of(&node, "ovn0").is_some());
        assert_eq!(kind_of(&node, "ovs-system").as_deref(), Some("openvswitch"));
        assert_eq!(kind_of(&node, "ovn0").as_deref(), Some("openvswitch"));
        assert!(kind_of(&node, "br-phy").is_none());
        stop(running);
        assert!(kind_of(&node, "ovs-system").is_some(), "it forwards while no vswitchd runs");

        let running = node.start(&[("OVS_DATAPATH", "netdev"), ("IFACE", "eth1")]);
        eventually("the userspace datapath", || datapath(&node).starts_with("netdev"));
        eventually("ovn0 is a tap device", || kind_of(&node, "ovn0").as_deref() == Some("tun"));
        assert_eq!(kind_of(&node, "br-int").as_deref(), Some("tun"));
        assert!(kind_of(&node, "ovs-system").is_none());
        assert_eq!(vsctl(&node, &["get", "Bridge", "br-int", "datapath_type"]), "netdev");
        eventually("the peer reaches br-phy", || node.answers_peer());
        node.kill_all(running);

        let running = node.start(&auto);
        eventually("the kernel datapath again", || datapath(&node) == "system");
        eventually("ovn0 is the kernel's", || {
            kind_of(&node, "ovn0").as_deref() == Some("openvswitch")
        });
        assert!(kind_of(&node, "ovs-netdev").is_none() && kind_of(&node, "br-phy").is_none());
        assert_eq!(vsctl(&node, &["get", "Bridge", "br-int", "datapath_type"]), "system");
        eventually("the peer reaches eth1", || node.answers_peer());
        stop(running);

        let root = node.root.to_str().unwrap();
        let findings = block_on(uninstall::run(&node.paths, root, &node.place)).unwrap();
        assert_eq!(findings, Vec::<String>::new());
        for link in ["ovs-system", "br-int", "ovn0", "genev_sys_6081"] {
            assert_eq!(kind_of(&node, link), None, "{link}");
        }
        assert_eq!(node.pids(), Vec::<i32>::new());
    }
}
