//! The active node of a centralized gateway: sticky, recorded in status, an input of the features.

use crate::api::{Gateway, GatewayType, Node, Subnet, Text};

use crate::store::Store;

/// The choice for a subnet; `None` when it has no centralized gateway. `current` is what status
/// says: the active node keeps its role while it is listed and Ready.
pub fn choose(store: &Store, subnet: &Subnet, current: Option<&str>) -> Option<Gateway> {
    if subnet.gateway_type != Some(GatewayType::Centralized) {
        return None;
    }
    let ready = |name: &Text| store.get::<Node>(name).is_some_and(|n| n.ready);
    let mut candidates: Vec<Text> =
        subnet.gateway_nodes.iter().map(|g| g.node.clone()).filter(ready).collect();
    if !subnet.enable_ecmp {
        let kept = candidates.iter().find(|n| Some(&***n) == current).cloned();
        candidates = kept.or_else(|| candidates.first().cloned()).into_iter().collect();
    }
    Some(Gateway { subnet: subnet.name.clone(), active: candidates })
}
