//! The external gateway of the default VPC: its ConfigMap, and the bridge on gateway nodes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube_ovn::{
    api::{ExternalGateway, Placement, Text, parse::parse_external_gateway},
    host::{ExternalView, HostOp, HostView, Observed, SeenBridge, desired_host, diff_host},
    node::{
        gateway::KnownGateways,
        ovs_rows::{MONITORED, observe_ovs, plan_transaction},
    },
    ovsdb::{
        replica::Replica,
        schema::vswitch::{self, open_vswitch},
        transaction::Cell,
    },
};
use serde_json::json;

use crate::support::{
    host_view::{ip, v4_node},
    northbound::Server,
};

fn config(data: &[(&str, &str)]) -> ExternalGateway {
    let data: BTreeMap<&str, &str> = data.iter().copied().collect();
    let raw: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": "ovn-external-gw-config", "namespace": "kube-system"}, "data": data,
    }))
    .unwrap();
    parse_external_gateway(&raw)
}

#[test]
fn the_manuals_configuration_is_understood() {
    let found = config(&[
        ("enable-external-gw", "true"),
        ("external-gw-nodes", "kube-ovn-worker, b"),
        ("external-gw-nic", "eth1"),
        ("external-gw-addr", "172.56.0.1/16"),
        ("nic-ip", "172.56.0.254/16"),
        ("nic-mac", "16:52:f3:13:6a:25"),
    ]);
    assert_eq!(&*found.key, "kube-system/ovn-external-gw-config");
    let nodes = vec!["kube-ovn-worker".into(), "b".into()];
    assert_eq!((found.enabled, found.placement), (true, Placement::Centralized(nodes)));
    assert_eq!((&*found.nic, found.next_hops.v4), ("eth1", Some(ip("172.56.0.1"))));
    assert_eq!(found.addresses.to_string(), "172.56.0.254/16");
    assert!(found.invalid.is_empty(), "{:?}", found.invalid);
    assert_eq!(config(&[("type", "distributed")]).placement, Placement::Distributed);
    assert!(!config(&[("enable-external-gw", "false")]).enabled);
}

fn view(nic: &str) -> HostView {
    let mut view = v4_node();
    view.external = Some(ExternalView { network: "external".into(), nic: nic.into() });
    view
}

/// Operations about bridges and mappings.
fn ops(view: &HostView, observed: &Observed) -> Vec<HostOp> {
    let mut all = diff_host(&desired_host(view), observed);
    all.retain(|op| match op {
        HostOp::SetBridge(_) | HostOp::RemoveBridge(_) | HostOp::RemoveOvsPort { .. } => true,
        HostOp::SetOvsPort(port) => &*port.bridge == "br-external",
        HostOp::SetExternalIds(ids) => ids.contains_key("ovn-bridge-mappings"),
        _ => false,
    });
    all
}

fn seen(bridges: &[(&str, &[&str], Option<&str>)], mappings: &str) -> Observed {
    let mut observed = Observed::default();
    for (name, ports, mark) in bridges {
        let ports = ports.iter().map(|p| (*p).into()).collect();
        let bridge = SeenBridge { ports, mark: mark.map(Into::into) };
        observed.ovs.bridges.insert((*name).into(), bridge);
    }
    observed.ovs.external_ids.insert("ovn-bridge-mappings".into(), mappings.into());
    observed
}

fn mapping(ops: &[HostOp]) -> Option<Option<Text>> {
    ops.iter().find_map(|op| match op {
        HostOp::SetExternalIds(ids) => ids.get("ovn-bridge-mappings").cloned(),
        _ => None,
    })
}

#[test]
fn the_bridge_takes_the_nic_and_joins_the_other_mappings() {
    let first = ops(&view("eth1"), &seen(&[("br-int", &[], None)], "pn:br-pn"));
    assert!(matches!(&first[0], HostOp::SetBridge(b) if &*b.name == "br-external"), "{first:?}");
    assert_eq!(mapping(&first), Some(Some("external:br-external,pn:br-pn".into())));
    let made = ("br-external", &["br-external"][..], Some("external"));
    let second = ops(&view("eth1"), &seen(&[made], "external:br-external"));
    assert!(matches!(&second[..], [HostOp::SetOvsPort(p)] if &*p.name == "eth1"), "{second:?}");
    let whole = ("br-external", &["br-external", "eth1", "patch-x"][..], Some("external"));
    assert_eq!(ops(&view("eth1"), &seen(&[whole], "external:br-external")), []);
    // Another NIC takes the place of the first; the patch port is ovn-controller's.
    let moved = ops(&view("eth2"), &seen(&[whole], "external:br-external"));
    assert!(
        matches!(&moved[..], [HostOp::SetOvsPort(_), HostOp::RemoveOvsPort { port, .. }] if &**port == "eth1"),
        "{moved:?}"
    );
    // A NIC that serves another bridge is left there; upstream deletes that bridge.
    let taken =
        [("br-external", &["br-external"][..], Some("external")), ("br-pn", &["eth1"][..], None)];
    assert_eq!(ops(&view("eth1"), &seen(&taken, "external:br-external")), []);
}

#[test]
fn the_bridge_goes_with_the_label_bug_10() {
    let bridges =
        [("br-external", &["eth1"][..], Some("external")), ("br-pn", &["eth2"][..], None)];
    let gone = ops(&v4_node(), &seen(&bridges, "external:br-external,pn:br-pn"));
    assert!(matches!(&gone[0], HostOp::RemoveBridge(name) if &**name == "br-external"), "{gone:?}");
    assert_eq!(mapping(&gone), Some(Some("pn:br-pn".into())));
    assert_eq!(ops(&v4_node(), &seen(&[("br-pn", &["eth2"], None)], "pn:br-pn")), []);
}

#[test]
fn the_bridge_is_made_as_add_br_makes_it() {
    let mut server = Server::new(&vswitch::DATABASE);
    server.insert_foreign(&vswitch::OPEN_VSWITCH, &[(open_vswitch::OVS_VERSION, Cell::one("3.5"))]);
    let mut replica = Replica::new(&vswitch::DATABASE, MONITORED);
    server.sync(&mut replica);
    let mut rounds = 0;
    loop {
        let observed = Observed { ovs: observe_ovs(&replica), ..Observed::default() };
        let left = ops(&view("eth1"), &observed);
        if left.is_empty() {
            break;
        }
        rounds += 1;
        assert!(rounds < 4, "{left:?}\n{}", server.dump());
        let transaction = plan_transaction(&replica, &left).unwrap().unwrap();
        server.execute(&transaction).unwrap();
        server.sync(&mut replica);
    }
    let bridges = observe_ovs(&replica).bridges;
    let bridge = &bridges["br-external"];
    assert_eq!(bridge.ports.iter().map(|p| &**p).collect::<Vec<_>>(), ["br-external", "eth1"]);
    let left = ops(&v4_node(), &Observed { ovs: observe_ovs(&replica), ..Observed::default() });
    server.execute(&plan_transaction(&replica, &left).unwrap().unwrap()).unwrap();
    server.sync(&mut replica);
    assert!(observe_ovs(&replica).bridges.is_empty(), "{}", server.dump());
}

#[test]
fn gateways_are_known_per_subnet_and_until_they_fail() {
    let known = KnownGateways::default();
    let (a, b): (Text, Text) = ("a".into(), "b".into());
    let gateways = [ip("10.16.0.1"), ip("fd00::1")];
    assert!(!known.all_fresh(&a, &gateways), "nobody has been heard yet");
    assert!(!known.all_fresh(&a, &[]), "no gateway is no proof");
    known.heard(&a, &gateways);
    assert!(known.all_fresh(&a, &gateways));
    assert!(!known.all_fresh(&b, &gateways), "another VPC may have the same addresses");
    known.forget(&a, &gateways[..1]);
    assert!(!known.all_fresh(&a, &gateways));
}
