//! Delays of pods as the kernel makes them.

use std::collections::BTreeMap;

use kube_ovn::{
    host::{
        HostOp, Mirrored, NicView, Observed, PortShaping, desired_host, diff_host, parse_shaping,
    },
    kernel::{Netlink, netns},
    net::Place,
    node::{apply::Executor, ovs_rows::observe_ovs, vswitch::Vswitch},
};

use super::{
    guest_test,
    rig::{Pod, kind_of},
};
use crate::{
    central::{block_on, eventually},
    central_ovs::{Node, stop},
    ovsdb_server::{ovn_run, run},
    support::host_view::v4_node,
};

fn shaping(latency: Option<&str>) -> PortShaping {
    let ids =
        BTreeMap::from([("iface-id".into(), "two".into()), ("pod".into(), "shop/two".into())]);
    parse_shaping(|key| latency.filter(|_| key == "latency"), ids)
}

/// Plans and applies as the node agent does until nothing is left to do.
async fn settle(executor: &Executor, port: &str, shaping: PortShaping) {
    let mut view = v4_node();
    view.nics = vec![NicView { port: port.into(), shaping, mirrored: Mirrored::No }];
    for _ in 0..5 {
        let ovs = executor.vswitch().read(observe_ovs);
        let mut ops = diff_host(&desired_host(&view), &Observed { ovs, ..Observed::default() });
        ops.retain(|op| {
            matches!(op, HostOp::SetShaping { .. } | HostOp::SweepQueues | HostOp::AwaitNoNetem(_))
        });
        if ops.is_empty() {
            return;
        }
        assert!(executor.apply_each(ops).await.is_empty());
    }
    panic!("does not settle");
}

guest_test! {
    fn other_values_reach_the_kernel() {
        let node = Node::new("gn");
        let running = node.start(&[("OVS_DATAPATH", "system"), ("IFACE", "eth1")]);
        eventually("br-int", || kind_of(&node, "br-int").is_some());
        let (one, two) = (Pod::new(&node, "one", "10.51.0.1"), Pod::new(&node, "two", "10.51.0.2"));
        let mut command = ovn_run("ovs-ofctl");
        let bridge = format!("unix:{}", node.paths.run.join("br-int.mgmt").display());
        command.args(["add-flow", &bridge, "actions=NORMAL"]);
        run(command);
        eventually("echoes", || one.reaches(&two));
        let is_netem = || {
            let kind = Netlink::open(&node.place).unwrap().root_qdisc(&two.port).unwrap();
            kind.as_deref() == Some("netem")
        };
        let set = |latency: Option<&'static str>| {
            let work = || {
                block_on(async {
                    let vswitch = Vswitch::connect(&node.paths.socket());
                    vswitch.connected().await;
                    settle(&Executor::new(vswitch), &two.port, shaping(latency)).await;
                });
            };
            let Place::Namespace(_) = &node.place else { panic!("a namespace") };
            netns::enter(&node.place, work).unwrap();
        };
        let plain = one.ping(&two, 10).fastest;
        for latency in ["1000", "3000", "2000"] {
            set(Some(latency));
            eventually("netem", is_netem);
            let wanted: f64 = latency.parse().unwrap();
            let mut seen = f64::NAN;
            eventually("the delay", || {
                seen = one.ping(&two, 3).fastest;
                (wanted..wanted + 900.0).contains(&seen)
            });
            println!("latency {latency}: {seen} ms, {plain} ms without");
        }
        set(None);
        eventually("no netem", || !is_netem());
        assert!(one.ping(&two, 5).fastest < 900.0);
        stop(running);
    }
}
