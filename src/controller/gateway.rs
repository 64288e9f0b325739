//! The active node of a centralized gateway: sticky, recorded in status, an input of the features.

use std::collections::BTreeSet;

use crate::{
    api::{Gateway, GatewayType, Kind, Node, Subnet, Text},
    store::{EventType, Store, Wanted},
};

/// The choice for a subnet; `None` when it has no centralized gateway. `current` is what status
/// says: the active node keeps its role while it is listed, Ready and not silent. When all are
/// silent the fault is more likely on our side, and Ready alone counts.
pub fn choose(
    store: &Store,
    subnet: &Subnet,
    current: Option<&str>,
    silent: &BTreeSet<Text>,
) -> Option<Gateway> {
    if subnet.gateway_type != Some(GatewayType::Centralized) {
        return None;
    }
    let ready = |name: &Text| store.get::<Node>(name).is_some_and(|n| n.ready);
    let mut candidates: Vec<Text> = Vec::new();
    for named in subnet.gateway_nodes.iter().filter(|g| ready(&g.node)) {
        // One node may be named twice, with an egress address of each family.
        if !candidates.contains(&named.node) {
            candidates.push(named.node.clone());
        }
    }
    if candidates.iter().any(|node| !silent.contains(node)) {
        candidates.retain(|node| !silent.contains(node));
    }
    if !subnet.enable_ecmp {
        let kept = candidates.iter().find(|n| Some(&***n) == current).cloned();
        candidates = kept.or_else(|| candidates.first().cloned()).into_iter().collect();
    }
    Some(Gateway { subnet: subnet.name.clone(), active: candidates })
}

/// Events about a change of a subnet's gateway.
pub fn change_events(old: &Subnet, new: &Subnet) -> Vec<Wanted> {
    let event = |reason, message: String| Wanted::Event {
        kind: Kind::Subnet,
        key: new.name.clone(),
        reason,
        message,
        event: EventType::Normal,
    };
    let kind = |s: &Subnet| match s.gateway_type {
        Some(GatewayType::Distributed) => "distributed",
        Some(GatewayType::Centralized) => "centralized",
        None => "none",
    };
    let nodes = |s: &Subnet| {
        let nodes = s.gateway_nodes.iter().map(|g| match g.egress {
            Some(egress) => format!("{}:{egress}", g.node),
            None => g.node.to_string(),
        });
        nodes.collect::<Vec<_>>().join(",")
    };
    let mut events = Vec::new();
    if old.gateway_type != new.gateway_type {
        let message = format!("gatewayType changes from {} to {}", kind(old), kind(new));
        events.push(event("SubnetGatewayTypeChanged", message));
    }
    if old.gateway_nodes != new.gateway_nodes {
        let message = format!("gatewayNode changes from {:?} to {:?}", nodes(old), nodes(new));
        events.push(event("SubnetGatewayNodeChanged", message));
    }
    events
}
