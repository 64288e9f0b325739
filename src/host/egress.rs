//! External egress gateways: subnets that leave the cluster through a gateway beside the node.
//! One table per subnet with a default route, and rules that send sources there.

use std::{collections::BTreeSet, net::IpAddr};

use super::{HostOp, HostView, OVN0, Observed, SubnetView};
use crate::{
    api::{GatewayType, PolicyRouting},
    net::{Cidr, Family, POLICY_PROTOCOL, Place, PolicyRule, Route, RouteProtocol},
};

/// What the node routes by source. Gateways get their link when the node's addresses are known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EgressRouting {
    /// Table and next hop of its default route.
    pub gateways: BTreeSet<(u32, IpAddr)>,
    pub rules: BTreeSet<PolicyRule>,
}

/// Distributed: one rule per pod here. Centralized: the whole block, on every node that
/// `gatewayNode` lists. Upstream kept centralized ones by (gateway, priority, table), so one of
/// two subnets that share all three was lost; and its loop applied the rules to subnets with
/// natOutgoing too (its bug 21).
pub(super) fn desired_egress(view: &HostView) -> EgressRouting {
    let mut routing = EgressRouting::default();
    for (seen, policy) in view.subnets.iter().filter_map(|s| Some((s, usable(view, s)?))) {
        let subnet = &seen.subnet;
        for gateway in &policy.gateways {
            let family = Family::of(*gateway);
            let sources: Vec<Cidr> = match subnet.gateway_type {
                Some(GatewayType::Distributed) => view
                    .local_pods
                    .iter()
                    .filter(|pod| pod.subnet == subnet.name)
                    .filter_map(|pod| Some(Cidr::host(*pod.addresses.get(family)?)))
                    .collect(),
                Some(GatewayType::Centralized) => {
                    let here = subnet.gateway_nodes.iter().any(|g| g.node == view.node);
                    subnet
                        .cidrs
                        .get(family)
                        .filter(|_| here)
                        .map(|c| c.network())
                        .into_iter()
                        .collect()
                }
                None => Vec::new(),
            };
            if sources.is_empty() {
                continue;
            }
            routing.gateways.insert((policy.table, *gateway));
            routing.rules.extend(sources.into_iter().map(|source| PolicyRule {
                source,
                priority: policy.priority,
                table: policy.table,
            }));
        }
    }
    routing
}

fn usable<'a>(view: &HostView, seen: &'a SubnetView) -> Option<&'a PolicyRouting> {
    let subnet = &seen.subnet;
    let here = subnet.vpc == view.cluster_router && subnet.is_overlay() && !subnet.deleting;
    subnet.policy_routing.as_ref().filter(|_| here && !subnet.nat_outgoing)
}

/// Next hops that no link of the node reaches directly, for the log.
pub fn unreachable_gateways(wanted: &EgressRouting, observed: &Observed) -> Vec<IpAddr> {
    let hops = wanted.gateways.iter().map(|(_, gateway)| *gateway);
    hops.filter(|gateway| link_towards(*gateway, observed).is_none()).collect()
}

fn link_towards(gateway: IpAddr, observed: &Observed) -> Option<&crate::api::Text> {
    let near = observed.addresses.iter().filter(|a| *a.link != *OVN0 && a.cidr.contains(gateway));
    near.max_by_key(|a| a.cidr.prefix).map(|a| &a.link)
}

/// Created before referred to, deleted after: routes, rules, old rules, old routes.
pub(super) fn diff_egress(wanted: &EgressRouting, observed: &Observed) -> Vec<HostOp> {
    let routes: Vec<Route> = wanted
        .gateways
        .iter()
        .filter_map(|(table, gateway)| {
            let link = link_towards(*gateway, observed)?;
            let mut route = Route::via(Family::of(*gateway).default_route(), *gateway, link);
            route.table = *table;
            route.protocol = RouteProtocol::Other(POLICY_PROTOCOL);
            Some(route)
        })
        .collect();
    let place = || Place::Host;
    let mut ops: Vec<HostOp> = Vec::new();
    let missing = routes.iter().filter(|r| !observed.policy_routes.contains(r));
    ops.extend(missing.map(|r| HostOp::ReplaceRoute { place: place(), route: r.clone() }));
    let seen: BTreeSet<&PolicyRule> = observed.policy_rules.iter().collect();
    let missing = wanted.rules.iter().filter(|r| !seen.contains(r));
    ops.extend(missing.map(|r| HostOp::AddRule(r.clone())));
    let surplus = seen.into_iter().filter(|r| !wanted.rules.contains(r));
    ops.extend(surplus.map(|r| HostOp::RemoveRule(r.clone())));
    let key = |r: &Route| (r.destination, r.metric, r.table);
    let surplus =
        observed.policy_routes.iter().filter(|r| !routes.iter().any(|w| key(w) == key(r)));
    ops.extend(surplus.map(|r| HostOp::RemoveRoute { place: place(), route: r.clone() }));
    ops
}
