//! Routes over ovn0.

use super::{HostOp, HostView, JoinPort, OVN0, SubnetView};
use crate::{
    api::Text,
    net::{Family, Place, Route, RouteProtocol},
};

/// The join block itself, and one route per subnet that OVN routes: through the join gateway,
/// with the node's InternalIP as source, so that answers of pods find the node. Service addresses
/// get none: kube-proxy picks the way.
pub(super) fn desired_routes(view: &HostView, join: &JoinPort) -> Vec<Route> {
    let link: Text = OVN0.into();
    let mut routes = Vec::new();
    for (family, address) in join.addresses.iter() {
        let mut direct = Route::direct(address.network(), &link);
        direct.protocol = RouteProtocol::Kernel;
        match family {
            Family::V4 => direct.source = Some(address.address),
            Family::V6 => direct.metric = 256,
        }
        routes.push(direct);
        let Some(gateway) = join.gateways.get(family) else { continue };
        let blocks = view.subnets.iter().filter(|s| is_routed(view, s));
        let blocks = blocks.filter_map(|s| s.subnet.cidrs.get(family)).map(|c| c.network());
        let mut blocks: Vec<_> = blocks
            // The join block is on the link; a block with the node in it would cut the node off.
            .filter(|c| *c != address.network())
            .filter(|c| view.internal_ips.get(family).is_none_or(|ip| !c.contains(*ip)))
            .collect();
        blocks.sort_unstable();
        blocks.dedup();
        routes.extend(blocks.into_iter().map(|block| {
            let mut route = Route::via(block, *gateway, &link);
            route.source = view.internal_ips.get(family).copied();
            route
        }));
    }
    routes
}

/// Default VPC, and overlay or an underlay that is connected to it.
fn is_routed(view: &HostView, seen: &SubnetView) -> bool {
    let subnet = &seen.subnet;
    subnet.vpc == view.cluster_router
        && (subnet.is_overlay() || (subnet.u2o_interconnection && subnet.enable_lb != Some(true)))
}

/// Operations from the seen routes to the wanted ones of ovn0.
///
/// A destination that another link serves already belongs to the administrator of the node: ours
/// gives way. Only routes with a gateway are deleted, by all their fields (upstream's bug 22
/// deleted by destination and hit the other link's route).
pub(super) fn diff_routes(wanted: &[Route], seen: &[Route]) -> Vec<HostOp> {
    let foreign =
        |route: &Route| seen.iter().any(|s| *s.link != *OVN0 && s.destination == route.destination);
    let wanted: Vec<&Route> = wanted.iter().filter(|r| !foreign(r)).collect();
    let place = || Place::Host;
    let add = wanted
        .iter()
        .filter(|r| !seen.contains(r))
        .map(|r| HostOp::ReplaceRoute { place: place(), route: (**r).clone() });
    // Replacing takes away the old one of the same destination and metric. Where the wanted one
    // stands already, nothing is replaced and the other has to go by itself: while the join subnet
    // moves, its next block is routed through the old gateway.
    let replaced = |route: &Route| {
        let key = |r: &Route| (r.destination, r.metric, r.table);
        wanted.iter().any(|w| key(w) == key(route) && (*w == route || !seen.contains(w)))
    };
    let remove = seen
        .iter()
        .filter(|r| *r.link == *OVN0 && r.gateway.is_some() && !replaced(r))
        .map(|r| HostOp::RemoveRoute { place: place(), route: r.clone() });
    add.chain(remove).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_beside_the_wanted_one_of_its_block_goes() {
        let link: Text = OVN0.into();
        let block = "100.64.0.0/16".parse().unwrap();
        let direct = Route::direct(block, &link);
        let stale = Route::via(block, "100.51.0.1".parse().unwrap(), &link);
        let remove = HostOp::RemoveRoute { place: Place::Host, route: stale.clone() };
        let both = [stale.clone(), direct.clone()];
        assert_eq!(diff_routes(std::slice::from_ref(&direct), &both), vec![remove]);
        let replace = HostOp::ReplaceRoute { place: Place::Host, route: direct.clone() };
        assert_eq!(diff_routes(std::slice::from_ref(&direct), &[stale]), vec![replace]);
        let stands = std::slice::from_ref(&direct);
        assert_eq!(diff_routes(stands, stands), vec![]);
    }
}
