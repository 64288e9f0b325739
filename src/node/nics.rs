//! What pods and the node ask of their ports: limits and mirroring. Pure.

use std::collections::BTreeMap;

use super::{detach::is_pod_port, ovs_rows::IFACE_ID, state::State};
use crate::{
    api::{
        Node, Pod, Text,
        names::{provider_key, suffix},
    },
    host::{Mirrored, NicView, OVN0, OvsPort, parse_shaping},
};

const YES: &str = "true";

/// Ports of the integration bridge whose owner is known. A pod that the watch does not show (yet)
/// leaves its port as it is.
pub fn nics(state: &State, node: &str, ports: &BTreeMap<Text, OvsPort>) -> Vec<NicView> {
    let own = ports.get(OVN0).and_then(|port| of_node(state, node, port));
    let pods = ports.values().filter(|port| is_pod_port(&port.external_ids));
    own.into_iter().chain(pods.filter_map(|port| of_pod(state, port))).collect()
}

fn of_node(state: &State, node: &str, port: &OvsPort) -> Option<NicView> {
    const RATES: [&str; 2] = [suffix::INGRESS_RATE, suffix::EGRESS_RATE];
    let node = state.store.get::<Node>(node)?;
    let iface_id = port.external_ids.get(IFACE_ID)?;
    let get = |key: &str| node.annotations.get(&*provider_key("", key)).map(|t| &**t);
    // Upstream reads the two rates of a node, not more.
    let rates = |key: &str| get(key).filter(|_| RATES.contains(&key));
    Some(NicView {
        port: port.name.clone(),
        shaping: parse_shaping(rates, BTreeMap::from([(IFACE_ID.into(), iface_id.clone())])),
        mirrored: Mirrored::No,
    })
}

fn of_pod(state: &State, port: &OvsPort) -> Option<NicView> {
    let id = |key: &str| port.external_ids.get(key);
    let (name, namespace, iface_id) = (id("pod_name")?, id("pod_namespace")?, id(IFACE_ID)?);
    // A virtual machine's port has the machine's name.
    let pod = state.store.get::<Pod>(&format!("{namespace}/{name}")).or_else(|| {
        let mut pods = state.store.iter::<Pod>().filter(|p| p.namespace == *namespace);
        pods.find(|p| p.annotation("", suffix::VIRTUALMACHINE) == Some(name))
    })?;
    let provider = iface_id.strip_prefix(&format!("{name}.{namespace}"))?;
    let provider = provider.strip_prefix('.').unwrap_or(provider);
    let get = |key: &str| pod.annotation(provider, key).map(|t| &**t);
    let ids = BTreeMap::from([
        (IFACE_ID.into(), iface_id.clone()),
        ("pod".into(), format!("{namespace}/{name}").into()),
    ]);
    Some(NicView {
        port: port.name.clone(),
        shaping: parse_shaping(get, ids),
        mirrored: match get(suffix::MIRROR) {
            Some(YES) => Mirrored::Yes,
            _ => Mirrored::No,
        },
    })
}
