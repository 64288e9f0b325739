//! The bridge of the external network on gateway nodes (manual 3.8.2, `external-gw-nic`).

use std::collections::BTreeMap;

use super::{Datapath, HostOp, HostState, HostView, Observed, OvsPort, OvsPortKind, WantedLink};
use crate::{api::Text, net::LinkState};

/// `Bridge.external_ids` key of the bridge; upstream marked nothing and never found it again (its
/// bug 10). The value is the network.
pub const EXTERNAL_BRIDGE_MARK: &str = "kube-ovn-external-network";
const MAPPINGS: &str = "ovn-bridge-mappings";

/// The external network as this node carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalView {
    /// Network name in `ovn-bridge-mappings`, the switch of the external network.
    pub network: Text,
    pub nic: Text,
}

/// A bridge with its mapping and one NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalBridge {
    pub name: Text,
    pub network: Text,
    pub nic: Text,
    pub datapath: Datapath,
}

/// Bridges as far as this file needs them: name -> its ports, and the value of the mark.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenBridge {
    pub ports: std::collections::BTreeSet<Text>,
    pub mark: Option<Text>,
}

pub(super) fn desired_external(view: &HostView, state: &mut HostState) {
    let Some(external) = &view.external else { return };
    let name: Text = format!("br-{}", external.network).into();
    let up = WantedLink { state: Some(LinkState::Up), ..WantedLink::default() };
    state.links.entry(external.nic.clone()).or_insert(up);
    state.external_bridge = Some(ExternalBridge {
        name,
        network: external.network.clone(),
        nic: external.nic.clone(),
        datapath: view.datapath,
    });
}

pub(super) fn diff_external(wanted: &HostState, observed: &Observed) -> Vec<HostOp> {
    let bridges = &observed.ovs.bridges;
    let wanted = wanted.external_bridge.as_ref();
    let mut ops = Vec::new();
    let mut mappings = parse_mappings(observed.ovs.external_ids.get(MAPPINGS));
    if let Some(bridge) = wanted {
        match bridges.get(&bridge.name) {
            None => ops.push(HostOp::SetBridge(bridge.clone())),
            Some(seen) if seen.ports.contains(&bridge.nic) => {}
            // Upstream deletes the bridge that holds the NIC, whosesoever it is.
            Some(_) if bridges.values().any(|other| other.ports.contains(&bridge.nic)) => {}
            Some(_) => ops.push(HostOp::SetOvsPort(nic_port(bridge))),
        }
        mappings.insert(bridge.network.clone(), bridge.name.clone());
    }
    for (name, seen) in bridges {
        let Some(network) = seen.mark.as_ref() else { continue };
        if wanted.is_some_and(|w| w.name == *name) {
            let old = seen.ports.iter().filter(|p| {
                wanted.is_some_and(|w| w.nic != **p) && **p != *name && !p.starts_with("patch-")
            });
            ops.extend(
                old.map(|p| HostOp::RemoveOvsPort { bridge: name.clone(), port: p.clone() }),
            );
            continue;
        }
        if mappings.get(network) == Some(name) {
            mappings.remove(network);
        }
        ops.push(HostOp::RemoveBridge(name.clone()));
    }
    // Other networks have their entries in the same text.
    let text = render_mappings(&mappings);
    if observed.ovs.external_ids.get(MAPPINGS).map_or("", |t| &**t) != &*text
        && (wanted.is_some() || !ops.is_empty())
    {
        let value = (!text.is_empty()).then_some(text);
        ops.push(HostOp::SetExternalIds(BTreeMap::from([(MAPPINGS.into(), value)])));
    }
    ops
}

fn nic_port(bridge: &ExternalBridge) -> OvsPort {
    OvsPort {
        bridge: bridge.name.clone(),
        name: bridge.nic.clone(),
        kind: OvsPortKind::System,
        mac: None,
        mtu_request: None,
        external_ids: BTreeMap::new(),
    }
}

/// `network:bridge,...`.
fn parse_mappings(text: Option<&Text>) -> BTreeMap<Text, Text> {
    let entries = text.into_iter().flat_map(|t| t.split(','));
    entries.filter_map(|e| e.trim().split_once(':')).map(|(n, b)| (n.into(), b.into())).collect()
}

fn render_mappings(mappings: &BTreeMap<Text, Text>) -> Text {
    let entries: Vec<String> = mappings.iter().map(|(n, b)| format!("{n}:{b}")).collect();
    entries.join(",").into()
}
