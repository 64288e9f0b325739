//! Chapter 3.8 of the manual: EIP and SNAT of pods, on one gateway node, on two, on all.

use serde_json::{Value, json};

use crate::{
    cluster::{retry, text},
    echoes::Echoes,
    guard::{Undo, undo},
    pods::Pod,
    story::{Story, story},
};

const CONFIG: [&str; 4] = ["-n", "kube-system", "configmap", "ovn-external-gw-config"];
/// The world outside in the external network.
const OUTSIDE: &str = "172.30.2.1";

fn config(kind: &str, nodes: &str, enabled: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "ovn-external-gw-config", "namespace": "kube-system"},
        "data": {"enable-external-gw": enabled, "external-gw-nodes": nodes, "type": kind,
            "external-gw-nic": "eth2", "external-gw-addr": "172.30.2.1/24",
            "nic-ip": "172.30.2.200/24"}})
}

/// Switches the external gateway on; the result takes it away again.
fn gateway<'a>(s: &'a Story, kind: &str, nodes: &str) -> Undo<'a> {
    s.cluster.apply(&[config(kind, nodes, "true")]);
    let nodes = nodes.to_owned();
    undo(move || {
        s.cluster.apply(&[config("centralized", &nodes, "false")]);
        for node in s.cluster.nodes() {
            retry(60, || {
                let bridges = s.cluster.vsctl(&node.name, &["list-br"])?;
                if bridges.contains("br-external") { Err(bridges) } else { Ok(()) }
            });
        }
        let delete = [&["delete", "--ignore-not-found"], &CONFIG[..]].concat();
        s.cluster.kubectl(&delete).expect("the configuration goes");
        for node in s.cluster.nodes() {
            let label = ["label", "node", &node.name, "ovn.kubernetes.io/external-gw-"];
            s.cluster.kubectl(&label).expect("the label goes");
        }
    })
}

fn answers_outside(s: &Story, address: &str) {
    let ping = ["ping", "-c", "1", "-W", "1", address];
    retry(90, || s.cluster.enter("fabric", &ping));
    s.step(&format!("{address} answers the outside"));
}

#[test]
fn pods_have_external_addresses() {
    story("manual-3-8", |s| {
        let nodes = s.cluster.nodes();
        s.cluster.outside_tells_addresses();
        let bridged = gateway(s, "centralized", &nodes[1].name);
        s.start(&[
            Pod::new("a").on(&nodes[0].name).with("eip", "172.30.2.210"),
            Pod::new("b").on(&nodes[2].name).with("snat", "172.30.2.211"),
        ]);
        answers_outside(s, "172.30.2.210");
        s.pings("a", OUTSIDE);
        s.becomes_seen_as("a", OUTSIDE, "172.30.2.210");
        s.becomes_seen_as("b", OUTSIDE, "172.30.2.211");
        // East-west stays: on stock OVN a source route would break it.
        s.pings("a", &s.ip("b"));
        s.kubectl(&["annotate", "--overwrite", "pod", "a", "ovn.kubernetes.io/eip=172.30.2.220"])
            .unwrap();
        s.kubectl(&["annotate", "pod", "a", "ovn.kubernetes.io/routed-"]).unwrap();
        answers_outside(s, "172.30.2.220");
        s.step("another address, without a restart of the pod");
        retry(30, || {
            let key = r"jsonpath={.metadata.annotations.ovn\.kubernetes\.io/routed}";
            match s.kubectl(&["get", "pod", "a", "-o", key])? {
                back if back == "true" => Ok(()),
                other => Err(format!("routed is {other:?}")),
            }
        });
        s.step("annotation routed is back");
        s.kubectl(&["annotate", "pod", "a", "ovn.kubernetes.io/eip-"]).unwrap();
        retry(90, || {
            let ping = ["ping", "-c", "1", "-W", "1", "172.30.2.220"];
            match s.cluster.enter("fabric", &ping) {
                Ok(_) => Err("still answers".to_owned()),
                Err(_) => Ok(()),
            }
        });
        s.step("and gone");
        drop(bridged);
        s.step("the bridge goes with the configuration");
    });
}

#[test]
fn an_external_address_moves_to_the_second_gateway_node() {
    story("eip-failover", |s| {
        let nodes = s.cluster.nodes();
        let _bridged = gateway(s, "centralized", &format!("{},{}", nodes[1].name, nodes[2].name));
        s.start(&[Pod::new("a").on(&nodes[0].name).with("eip", "172.30.2.212")]);
        answers_outside(s, "172.30.2.212");
        s.pings("a", OUTSIDE);
        let eth1 = |state: &str| {
            s.cluster.enter(&nodes[1].name, &["ip", "link", "set", "eth1", state]).expect("eth1")
        };
        let echoes = Echoes::start(s, "a", OUTSIDE, 50);
        let healed = undo(|| drop(eth1("up")));
        eth1("down");
        answers_outside(s, "172.30.2.212");
        retry(90, || s.exec("a", &["ping", "-c", "1", "-W", "1", OUTSIDE]));
        s.step(&format!("gateway node cut off: {}", echoes.end().told()));
        drop(healed);
    });
}

#[test]
fn distributed_external_addresses_live_on_the_pods_node() {
    story("eip-distributed", |s| {
        let nodes = s.cluster.nodes();
        s.cluster.outside_tells_addresses();
        let _bridged = gateway(s, "distributed", "");
        for node in &nodes {
            let label = ["label", "node", &node.name, "--overwrite"];
            let label = [&label[..], &["ovn.kubernetes.io/external-gw=true"]].concat();
            s.cluster.kubectl(&label).expect("a label");
        }
        s.start(&[Pod::new("a").on(&nodes[2].name).with("eip", "172.30.2.213")]);
        let _ = s.cluster.enter("fabric", &["ip", "neigh", "flush", "to", "172.30.2.213"]);
        answers_outside(s, "172.30.2.213");
        let annotations = &s.pod("a")["metadata"]["annotations"];
        let mac = text(&annotations["ovn.kubernetes.io/mac_address"]);
        let neighbour =
            s.cluster.enter("fabric", &["ip", "neigh", "show", "to", "172.30.2.213"]).unwrap();
        assert!(neighbour.contains(&mac), "the outside knows the pod's own MAC {mac}: {neighbour}");
        s.becomes_seen_as("a", OUTSIDE, "172.30.2.213");
    });
}
