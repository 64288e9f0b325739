//! Two nodes with the kernel datapath, pods of one switch on both, Geneve between them.

use std::fs;

use kube_ovn::kernel::process::send_signal;
use nix::sys::signal::Signal;

use super::{
    guest_test,
    rig::{Fabric, Pod, kind_of, vsctl},
};
use crate::{
    central::eventually,
    central_ovs::{Node, stop},
};

fn pid(file: &std::path::Path) -> Option<i32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// kill -9, and wait for another one.
fn kill_daemon(file: &std::path::Path) {
    let before = pid(file).unwrap();
    send_signal(before, Signal::SIGKILL).unwrap();
    eventually("another daemon", || pid(file).is_some_and(|now| now != before));
}

fn id(node: &Node, key: &str) -> Option<String> {
    node.external_ids().get(key).cloned()
}

fn restoring(node: &Node) -> bool {
    vsctl(node, &["get", "Open_vSwitch", ".", "other_config"]).contains("flow-restore-wait")
}

guest_test! {
    fn pods_talk_through_every_restart() {
        let fabric = Fabric::new();
        let (a, a_running) = fabric.node("ga", 1);
        let (b, b_running) = fabric.node("gb", 2);
        let one = Pod::new(&a, "one", "10.50.0.11");
        let two = Pod::new(&b, "two", "10.50.0.12");
        let addresses = |pod: &Pod| format!("{} {}", pod.mac, pod.address);
        fabric.nbctl(&[
            "ls-add", "s", "--", "lsp-add", "s", "one", "--", "lsp-set-addresses", "one",
            &addresses(&one), "--", "lsp-add", "s", "two", "--", "lsp-set-addresses", "two",
            &addresses(&two),
        ]);
        eventually("the first echo over the tunnel", || one.reaches(&two));
        assert_eq!(kind_of(&a, "genev_sys_6081").as_deref(), Some("geneve"));
        assert_eq!(kind_of(&a, "ovs-system").as_deref(), Some("openvswitch"));
        let quiet = one.ping(&two, 50);
        assert_eq!(quiet.lost, 0, "{quiet:?}");
        assert_eq!(one.send_megabyte(&two), 1 << 20);
        assert_eq!(two.send_megabyte(&one), 1 << 20);

        // ovn-controller dies: its rules stay until the next one has its own.
        eventually("rules are recorded", || {
            id(&a, "kube-ovn-rules").is_some()
                && id(&a, "ovn-ofctrl-wait-before-clear").as_deref() == Some("8000")
        });
        let echoes = one.start_ping(&two, 150, "0.2");
        kill_daemon(&a.paths.ovn_run.join("ovn-controller.pid"));
        let echoes = echoes.end();
        println!("ovn-controller killed: {echoes:?}");
        assert!(echoes.loss() <= 10, "{echoes:?}");
        assert!(one.reaches(&two));

        // ovs-vswitchd dies: the kernel forwards meanwhile, but for the moment in which the new one
        // takes the tunnel's port out of the datapath and puts it back.
        let before: u64 = id(&a, "kube-ovn-rules").unwrap().parse().unwrap();
        let echoes = one.start_ping(&two, 200, "0.2");
        kill_daemon(&a.paths.run.join("ovs-vswitchd.pid"));
        let echoes = echoes.end();
        println!("ovs-vswitchd killed: {echoes:?}");
        assert!(echoes.loss() <= 20, "{echoes:?}");
        eventually("flow restore ends", || !restoring(&a));
        assert!(one.reaches(&two));

        // The container restarts.
        let echoes = one.start_ping(&two, 300, "0.2");
        stop(a_running);
        let a_running = a.start(&[("KUBE_NODE_NAME", "ga"), ("POD_IP", "10.99.0.2")]);
        let echoes = echoes.end();
        println!("container restarted: {echoes:?}");
        assert!(echoes.loss() <= 20, "{echoes:?}");
        eventually("flow restore ends", || !restoring(&a));
        eventually("rules are recorded again", || {
            id(&a, "ovn-ofctrl-wait-before-clear").is_some()
        });
        let after: u64 = id(&a, "kube-ovn-rules").unwrap().parse().unwrap();
        assert!(after * 10 >= before * 9, "{before} rules before, {after} after");
        assert!(one.reaches(&two));
        let quiet = one.ping(&two, 50);
        assert_eq!(quiet.lost, 0, "{quiet:?}");
        stop(a_running);
        stop(b_running);
    }
}
