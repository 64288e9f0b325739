//! Rates, delays and mirrors of ports: from annotations to rows of the vswitch database.

use std::collections::{BTreeMap, BTreeSet};

use kube_ovn::{
    api::{Map, Text},
    host::{
        HostOp, HostView, MirrorScope, MirrorView, Mirrored, NicView, Observed, OvsPort,
        OvsPortKind, PortShaping, desired_host, diff_host, parse_shaping,
    },
    node::{
        nics::nics,
        ovs_rows::{MONITORED, observe_ovs, plan_transaction},
        state::{Change, State},
    },
    ovsdb::{
        replica::Replica,
        schema::vswitch::{self, bridge, open_vswitch, port, qos},
        transaction::{Cell, NamedUuid, Operation, Transaction},
    },
};

use crate::support::{host_view::v4_node, northbound::Server, objects};

fn annotations(of: &[(&str, &str)]) -> Map {
    of.iter().map(|(k, v)| (format!("ovn.kubernetes.io/{k}").into(), (*v).into())).collect()
}

fn ids() -> BTreeMap<Text, Text> {
    [("iface-id", "web.shop"), ("pod", "shop/web")].map(|(k, v)| (k.into(), v.into())).into()
}

fn shaping(of: &[(&str, &str)]) -> PortShaping {
    let get = |key: &str| of.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
    parse_shaping(get, ids())
}

fn shown(of: &[(&str, &str)]) -> String {
    let found = shaping(of);
    let pairs = |map: &BTreeMap<Text, Text>| {
        map.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
    };
    let qos = found.qos.map_or("-".into(), |q| {
        let queue = q.queue.map_or("-".into(), |c| pairs(&c));
        format!("{} [{}] queue {queue}", q.kind, pairs(&q.other_config))
    });
    format!("{}/{} {qos}", found.policing_rate, found.policing_burst)
}

#[test]
fn annotations_become_rates() {
    assert_eq!(shown(&[]), "0/0 -");
    assert_eq!(shown(&[("egress_rate", "1")]), "1000/800 -");
    assert_eq!(
        shown(&[("ingress_rate", "3"), ("egress_rate", "30")]),
        "30000/24000 linux-htb [] queue max-rate=3000000"
    );
    // What is no whole number limits nothing.
    assert_eq!(shown(&[("ingress_rate", "1.5"), ("egress_rate", "fast")]), "0/0 -");
    assert_eq!(shown(&[("ingress_rate", "0"), ("egress_rate", "-1")]), "0/0 -");
    assert_eq!(
        shown(&[("egress_rate", "18446744073709551615")]).split('/').next(),
        Some("4294967000")
    );
}

#[test]
fn annotations_become_delays_and_losses() {
    assert_eq!(
        shown(&[("latency", "100"), ("jitter", "10"), ("limit", "1000"), ("loss", "0.5")]),
        "0/0 linux-netem [jitter=10000 latency=100000 limit=1000 loss=0.5] queue -"
    );
    assert_eq!(shown(&[("loss", "20")]), "0/0 linux-netem [loss=20] queue -");
    assert_eq!(shown(&[("loss", "101")]), "0/0 -");
    // One port has one queueing discipline, and a rate comes first.
    assert_eq!(
        shown(&[("latency", "100"), ("ingress_rate", "3")]),
        "0/0 linux-htb [] queue max-rate=3000000"
    );
}

/// br-int with the port of pod shop/web, ovn0, and a QoS row and mirror of somebody else.
struct Switch {
    server: Server,
    replica: Replica,
}

impl Switch {
    fn new() -> Self {
        let mut switch = Switch {
            server: Server::new(&vswitch::DATABASE),
            replica: Replica::new(&vswitch::DATABASE, MONITORED),
        };
        let named = NamedUuid::numbered(0);
        let insert = |table, named: Option<&NamedUuid>, column, cell| Operation::Insert {
            table,
            named: named.cloned(),
            row: BTreeMap::from([(column, cell)]),
        };
        let operations = vec![
            insert(&vswitch::BRIDGE, Some(&named), bridge::NAME, Cell::one("br-int")),
            insert(&vswitch::OPEN_VSWITCH, None, open_vswitch::BRIDGES, Cell::reference(&named)),
        ];
        switch.server.execute(&Transaction { operations }).unwrap();
        switch.sync();
        let ovs_port = |name: &str, ids: &[(&str, &str)]| {
            HostOp::SetOvsPort(OvsPort {
                bridge: "br-int".into(),
                name: name.into(),
                kind: OvsPortKind::System,
                mac: None,
                mtu_request: None,
                external_ids: ids.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            })
        };
        let pod = [
            ("iface-id", "web.shop"),
            ("pod_name", "web"),
            ("pod_namespace", "shop"),
            ("pod_netns", "/x"),
        ];
        switch.apply(&[ovs_port("web_h", &pod)]);
        switch.apply(&[ovs_port("ovn0", &[("iface-id", "node-node1")])]);
        switch
    }

    fn sync(&mut self) {
        self.server.sync(&mut self.replica);
    }

    fn apply(&mut self, ops: &[HostOp]) {
        if let Some(transaction) = plan_transaction(&self.replica, ops).unwrap() {
            self.server.execute(&transaction).unwrap();
        }
        self.sync();
    }

    /// Plans and applies until nothing is left to do; the operations of each round.
    fn settle(&mut self, view: &HostView) -> Vec<Vec<HostOp>> {
        let mut rounds = Vec::new();
        loop {
            let observed = Observed { ovs: observe_ovs(&self.replica), ..Observed::default() };
            let ops: Vec<HostOp> = diff_host(&desired_host(view), &observed)
                .into_iter()
                .filter(|op| {
                    matches!(
                        op,
                        HostOp::SetShaping { .. }
                            | HostOp::AwaitNoNetem(_)
                            | HostOp::SweepQueues
                            | HostOp::SetMirror(_)
                            | HostOp::SetOvsPort(OvsPort { .. })
                    )
                })
                .filter(|op| !matches!(op, HostOp::SetOvsPort(p) if &*p.name == "ovn0"))
                .collect();
            if ops.is_empty() {
                return rounds;
            }
            assert!(rounds.len() < 4, "does not settle: {ops:?}\n{}", self.server.dump());
            self.apply(&ops);
            rounds.push(ops);
        }
    }

    fn rows(&self, table: &str) -> Vec<String> {
        let dump = self.server.dump();
        let mut parts: Vec<String> = Vec::new();
        for line in dump.lines() {
            if line.starts_with("  ") {
                parts.last_mut().unwrap().push_str(line);
            } else {
                parts.push(line.to_owned());
            }
        }
        parts.retain(|p| p.starts_with(&format!("{table} ")));
        parts
    }
}

fn view(shaping: PortShaping, mirrored: Mirrored) -> HostView {
    let mut view = v4_node();
    view.nics = vec![NicView { port: "web_h".into(), shaping, mirrored }];
    view
}

#[test]
fn limits_change_and_go_while_the_pod_runs() {
    let mut switch = Switch::new();
    let of = |text: &[(&str, &str)]| view(shaping(text), Mirrored::No);
    assert!(switch.settle(&of(&[])).is_empty());
    switch.settle(&of(&[("ingress_rate", "3"), ("egress_rate", "1")]));
    let qos = switch.rows("QoS");
    assert_eq!(qos.len(), 1, "{}", switch.server.dump());
    for part in ["\"iface-id\"=\"web.shop\"", "\"pod\"=\"shop/web\"", "linux-htb"] {
        assert!(qos[0].contains(part), "{qos:?}");
    }
    assert!(switch.rows("Queue")[0].contains("\"max-rate\"=\"3000000\""));
    assert!(switch.rows("Interface").iter().any(|r| r.contains("ingress_policing_rate = 1000")));
    // In place: the queue that carries packets stays.
    let queue = switch.rows("Queue")[0].split(' ').nth(1).unwrap().to_owned();
    switch.settle(&of(&[("ingress_rate", "30"), ("egress_rate", "1")]));
    assert!(switch.rows("Queue")[0].contains(&queue));
    assert!(switch.rows("Queue")[0].contains("\"max-rate\"=\"30000000\""));
    // From a rate to a delay, and back to nothing: no row is left over.
    switch.settle(&of(&[("latency", "100")]));
    assert!(switch.rows("QoS")[0].contains("\"latency\"=\"100000\""));
    assert!(switch.rows("Queue").is_empty(), "{}", switch.server.dump());
    switch.settle(&of(&[]));
    assert!(switch.rows("QoS").is_empty(), "{}", switch.server.dump());
    assert!(!switch.rows("Interface").iter().any(|r| r.contains("ingress_policing_rate = 1000")));
}

#[test]
fn netem_that_is_as_wanted_is_not_written_again_bug_12() {
    let mut switch = Switch::new();
    let delayed = view(shaping(&[("latency", "100"), ("loss", "0.5")]), Mirrored::No);
    assert_eq!(switch.settle(&delayed).len(), 1);
    let writes = switch.server.transactions;
    assert!(switch.settle(&delayed).is_empty());
    assert_eq!(switch.server.transactions, writes);
}

/// ovs-vswitchd gives the kernel the first values of a netem discipline only.
#[test]
fn other_netem_values_come_by_way_of_no_discipline() {
    let mut switch = Switch::new();
    let of = |text: &[(&str, &str)]| view(shaping(text), Mirrored::No);
    switch.settle(&of(&[("latency", "100"), ("egress_rate", "1")]));
    let rounds = switch.settle(&of(&[("latency", "200"), ("egress_rate", "1")]));
    let without =
        |op: &HostOp| matches!(op, HostOp::SetShaping { shaping, .. } if shaping.qos.is_none());
    let [first, second, ..] = &rounds[..] else { panic!("{rounds:?}") };
    assert!(matches!(&first[..], [op] if without(op)), "{rounds:?}");
    let awaited = HostOp::AwaitNoNetem("web_h".into());
    let at = |wanted: &dyn Fn(&HostOp) -> bool| second.iter().position(wanted);
    let set = at(&|op| matches!(op, HostOp::SetShaping { .. }) && !without(op));
    assert!(at(&|op| *op == awaited).unwrap() < set.unwrap(), "{rounds:?}");
    assert_eq!(switch.rows("QoS").len(), 1, "{}", switch.server.dump());
    assert!(switch.rows("QoS")[0].contains("\"latency\"=\"200000\""));
    // The policing of the same port is never interrupted.
    assert!(rounds.iter().flatten().all(
        |op| !matches!(op, HostOp::SetShaping { shaping, .. } if shaping.policing_rate != 1000)
    ));
}

#[test]
fn rows_of_a_pod_that_is_gone_are_swept_and_foreign_ones_stay() {
    let mut switch = Switch::new();
    let foreign = [(qos::TYPE, Cell::one("linux-htb"))];
    switch.server.insert_foreign(&vswitch::QOS, &foreign);
    switch.sync();
    switch.settle(&view(shaping(&[("ingress_rate", "3")]), Mirrored::No));
    assert_eq!(switch.rows("QoS").len(), 2);
    let (bridge, name) = ("br-int".into(), "web_h".into());
    switch.apply(&[HostOp::RemoveOvsPort { bridge, port: name }]);
    let mut view = v4_node();
    view.nics = vec![];
    let rounds = switch.settle(&view);
    assert!(rounds.iter().flatten().all(|op| *op == HostOp::SweepQueues), "{rounds:?}");
    assert_eq!((switch.rows("QoS").len(), switch.rows("Queue").len()), (1, 0));
}

#[test]
fn mirrors_follow_annotations_and_those_of_others_stay_bug_2() {
    let mut switch = Switch::new();
    let with = |scope, mirrored| {
        let mut view = view(shaping(&[]), mirrored);
        view.mirror =
            Some(MirrorView { link: "mirror0".into(), kind: OvsPortKind::Internal, scope });
        view
    };
    switch.settle(&with(MirrorScope::Pods, Mirrored::No));
    assert_eq!(switch.rows("Mirror").len(), 1, "{}", switch.server.dump());
    let dst = |switch: &Switch| observe_ovs(&switch.replica).mirror.unwrap().towards;
    assert!(dst(&switch).is_empty());
    switch.settle(&with(MirrorScope::Pods, Mirrored::Yes));
    assert_eq!(dst(&switch), BTreeSet::from(["web_h".into()]));
    // A restart with the same wish writes nothing.
    assert!(switch.settle(&with(MirrorScope::Pods, Mirrored::Yes)).is_empty());
    // The global mirror has them all.
    switch.settle(&with(MirrorScope::All, Mirrored::Yes));
    assert!(switch.rows("Mirror")[0].contains("select_all = true"), "{:?}", switch.rows("Mirror"));
    assert!(dst(&switch).is_empty());
    let name = switch.replica.by_name(&vswitch::PORT, "mirror0").and_then(|r| r.text(port::NAME));
    assert!(name.is_some());
}

#[test]
fn wishes_of_pods_nodes_and_attachments_are_found_by_their_ports() {
    let mut state = State::default();
    let mut pod = objects::pod("shop", "web", Some("node1"));
    pod.annotations = annotations(&[("egress_rate", "1"), ("mirror", "true")]);
    pod.annotations.insert("nad.shop.ovn.kubernetes.io/ingress_rate".into(), "5".into());
    let mut node = objects::node("node1", "172.18.0.2");
    node.annotations = annotations(&[("ingress_rate", "100"), ("latency", "7")]);
    state.take_in(Change::Upsert(objects::shared(pod)));
    state.take_in(Change::Upsert(objects::shared(node)));
    let port = |name: &str, ids: &[(&str, &str)]| {
        let external_ids = ids.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let bridge = "br-int".into();
        let (kind, name): (_, Text) = (OvsPortKind::System, name.into());
        (name.clone(), OvsPort { bridge, name, kind, mac: None, mtu_request: None, external_ids })
    };
    let of = |pod, iface| {
        [("pod_name", pod), ("pod_namespace", "shop"), ("pod_netns", "/x"), ("iface-id", iface)]
    };
    let ports = BTreeMap::from([
        port("a_h", &of("web", "web.shop")),
        port("b_h", &of("web", "web.shop.nad.shop.ovn")),
        port("c_h", &of("unknown", "unknown.shop")),
        port("ovn0", &[("iface-id", "node-node1")]),
        port("patch", &[]),
    ]);
    let found = nics(&state, "node1", &ports);
    let names: Vec<&str> = found.iter().map(|n| &*n.port).collect();
    assert_eq!(names, ["ovn0", "a_h", "b_h"], "a pod that is not seen keeps its limits");
    let queue = |n: &NicView| n.shaping.qos.as_ref().and_then(|q| q.queue.clone());
    assert_eq!(queue(&found[0]).unwrap()["max-rate"], "100000000".into());
    assert_eq!((found[1].shaping.policing_rate, found[1].mirrored), (1000, Mirrored::Yes));
    assert_eq!(queue(&found[2]).unwrap()["max-rate"], "5000000".into());
    assert_eq!(found[2].mirrored, Mirrored::No);
}
