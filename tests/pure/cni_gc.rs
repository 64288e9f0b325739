//! CNI GC and what a starting node agent removes: everything that nobody needs, nothing that lives.

use std::{collections::BTreeSet, sync::Arc};

use kube_ovn::{
    api::{Kind, PodOwner, Text},
    host::{INTEGRATION_BRIDGE, OvsPort, OvsPortKind},
    net::{Link, LinkState},
    node::{
        garbage::{Proof, garbage, has_pod},
        state::{Change, State},
    },
};

use crate::support::objects::pod;

fn port(name: &str, pod: &str, provider: &str) -> OvsPort {
    let id = match provider {
        "ovn" => format!("{pod}.shop"),
        other => format!("{pod}.shop.{other}"),
    };
    let ids = [
        ("iface-id", id.as_str()),
        ("pod_name", pod),
        ("pod_namespace", "shop"),
        ("pod_netns", &format!("/var/run/netns/{name}")),
    ];
    OvsPort {
        bridge: INTEGRATION_BRIDGE.into(),
        name: name.into(),
        kind: OvsPortKind::System,
        mac: None,
        mtu_request: None,
        external_ids: ids.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
    }
}

fn link(name: &str, kind: &str) -> Link {
    Link {
        index: 1,
        name: name.into(),
        mac: None,
        mtu: 1400,
        state: LinkState::Up,
        tx_queue_length: 1000,
        kind: kind.into(),
        alias: None,
    }
}

fn set(names: &[&str]) -> BTreeSet<Text> {
    names.iter().map(|name| Text::from(*name)).collect()
}

#[test]
fn gc_removes_what_the_runtime_does_not_know_of_its_network() {
    let second = "net1.shop.ovn";
    let ports = [
        port("00000000000a_h", "kept", "ovn"),
        port("00000000000b_h", "gone", "ovn"),
        port("0000000_net1_h", "kept", second),
        port("00000000000c_h", "busy", "ovn"),
        port("00000000000d_h", "linkless", "ovn"),
    ];
    let mut links: Vec<Link> =
        ports.iter().filter(|p| !p.name.contains('d')).map(|p| link(&p.name, "veth")).collect();
    links.extend([link("00000000000e_h", "veth"), link("00000000000f_h", "bridge")]);
    links.extend([link("veth12345678", "veth"), link("0000000_net2_h", "veth")]);
    let valid = set(&["00000000000a_h"]);
    let proof = Proof::Runtime { provider: "ovn", valid: &valid };
    let spared = set(&["00000000000c_h"]);
    let found = garbage(&ports, &links, &spared, &proof);
    assert_eq!(found, set(&["00000000000b_h", "00000000000d_h", "00000000000e_h"]));
    // Another network has its own list.
    let proof = Proof::Runtime { provider: second, valid: &BTreeSet::new() };
    let found = garbage(&ports, &links, &spared, &proof);
    assert_eq!(found, set(&["0000000_net1_h", "00000000000d_h"]));
    // What the runtime knows stays, with or without a link.
    let valid = set(&["00000000000a_h", "00000000000b_h", "00000000000d_h", "00000000000e_h"]);
    let proof = Proof::Runtime { provider: "ovn", valid: &valid };
    assert_eq!(garbage(&ports, &links, &spared, &proof), set(&[]));
}

/// A later sandbox of the pod took the iface-id: the port is nobody's, and DEL or the end of its
/// namespace removes it.
#[test]
fn gc_leaves_a_port_whose_network_is_not_known() {
    let mut old = port("00000000000a_h", "a", "ovn");
    old.external_ids.remove("iface-id");
    let links = [link("00000000000a_h", "veth")];
    let proof = Proof::Runtime { provider: "ovn", valid: &BTreeSet::new() };
    assert!(garbage(&[old], &links, &BTreeSet::new(), &proof).is_empty());
}

#[test]
fn without_a_list_pod_and_namespace_must_both_be_gone() {
    let ports: Vec<OvsPort> =
        ["a", "b", "c", "d"].map(|pod| port(&format!("00000000000{pod}_h"), pod, "ovn")).into();
    let links: Vec<Link> = ports.iter().map(|p| link(&p.name, "veth")).collect();
    let alive =
        |port: &OvsPort| ["a", "b"].contains(&&**port.external_ids.get("pod_name").unwrap());
    let there = |path: &str| path.ends_with("a_h") || path.ends_with("c_h");
    let proof = Proof::Absence { pod: &alive, netns: &there };
    let spared = BTreeSet::new();
    assert_eq!(garbage(&ports, &links, &spared, &proof), set(&["00000000000d_h"]));
    // A namespace of another place cannot be seen from here.
    let mut elsewhere = ports[3].clone();
    elsewhere.external_ids.insert("pod_netns".into(), "/proc/12/ns/net".into());
    assert!(garbage(&[elsewhere], &links, &spared, &proof).is_empty());
    // A veth without a port may be about to get one.
    assert!(garbage(&[], &links, &spared, &proof).is_empty());
    // A reboot takes links and namespaces, whoever knows the pod.
    assert_eq!(garbage(&ports, &[], &spared, &proof).len(), 4);
}

#[test]
fn a_pod_is_missed_only_when_all_are_known() {
    let mut state = State::default();
    let nic = port("00000000000a_h", "a", "ovn");
    assert!(has_pod(&state, &nic), "not listed yet");
    state.take_in(Change::Synced(Kind::Pod));
    assert!(!has_pod(&state, &nic));
    state.take_in(Change::Upsert(Arc::new(pod("other", "a", None))));
    assert!(!has_pod(&state, &nic));
    state.take_in(Change::Upsert(Arc::new(pod("shop", "a", None))));
    assert!(has_pod(&state, &nic));
    // The port of a virtual machine is called by it, not by its pod.
    let mut launcher = pod("shop", "virt-launcher-vm1-abcde", None);
    launcher.owner = Some(PodOwner {
        api_version: "kubevirt.io/v1".into(),
        kind: "VirtualMachineInstance".into(),
        name: "vm1".into(),
        uid: "u".into(),
    });
    let nic = port("00000000000b_h", "vm1", "ovn");
    assert!(!has_pod(&state, &nic));
    state.take_in(Change::Upsert(Arc::new(launcher)));
    assert!(has_pod(&state, &nic));
}
