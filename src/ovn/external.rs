//! What the external gateway and the pods that use it agree on.

use crate::{
    api::{ExternalGateway, Index, Node, Placement, Text, names::annotation},
    store::View,
};

/// Chassis of the gateway nodes, the preferred one first.
pub fn gateway_chassis(view: &View<'_>, gateway: &ExternalGateway) -> Vec<Text> {
    let of = |node: &Node| node.annotations.get(annotation::CHASSIS).cloned();
    match &gateway.placement {
        Placement::Centralized(nodes) => {
            nodes.iter().filter_map(|name| of(view.get::<Node>(name)?)).collect()
        }
        Placement::Distributed => {
            let nodes = view.list::<Node>(Index::ExternalGatewayNodes, "");
            nodes.into_iter().filter_map(of).collect()
        }
    }
}
