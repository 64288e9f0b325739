//! Rules between objects. An object that breaks one gets nothing; the others work on.

use crate::{
    api::{Index, Invalid, Ip, Kind, Node, Settings, Subnet, Text, Vpc, names, parse},
    store::{Problem, View},
};

/// Why a subnet cannot be built although its own fields are right: its VPC is missing or does not
/// fit, or an older subnet stands in its way. Upstream wrote a condition and built both.
///
/// Reads only what could conflict, so that a new subnet re-runs its neighbours and nobody else.
pub fn conflict(view: &View<'_>, subnet: &Subnet) -> Option<Problem> {
    let settings = view.get::<Settings>("")?;
    let mut found = parse::vpc_conflicts(subnet, settings, vpcs(view, subnet, settings));
    if found.is_empty() {
        found = parse::conflicts(subnet, rivals(view, subnet));
    }
    if found.is_empty() {
        found = parse::node_conflicts(subnet, settings, older_nodes(view, subnet));
    }
    found.into_iter().next().map(|Invalid { reason, message }| Problem {
        kind: Kind::Subnet,
        key: subnet.name.clone(),
        reason,
        message,
    })
}

/// The subnet's VPC and those that bind one of its namespaces.
fn vpcs<'a>(view: &View<'a>, subnet: &Subnet, settings: &Settings) -> Vec<&'a Vpc> {
    let mut vpcs: Vec<&Vpc> = view.get(&subnet.vpc).into_iter().collect();
    if subnet.vpc == settings.cluster_router {
        for namespace in &subnet.namespaces {
            vpcs.extend(view.list::<Vpc>(Index::VpcsByNamespace, namespace));
        }
    }
    vpcs.sort_by_key(|vpc| &vpc.name);
    vpcs.dedup_by_key(|vpc| &vpc.name);
    vpcs
}

fn rivals<'a>(view: &View<'a>, subnet: &Subnet) -> Vec<&'a Subnet> {
    let mut names: Vec<&Text> = Vec::new();
    for (index, value) in subnet.neighbourhood() {
        names.extend(view.keys::<Subnet>(index, &value));
    }
    if let Some(routing) = &subnet.policy_routing {
        let table = routing.table.to_string();
        names.extend(view.keys::<Subnet>(Index::SubnetsByEgressTable, &table));
    }
    names.sort();
    names.dedup();
    names.into_iter().filter(|n| **n != subnet.name).filter_map(|n| view.get(n)).collect()
}

/// Nodes near the subnet that were there before it: a node that comes later must not take the
/// network from running pods, so then it is the node that is told.
fn older_nodes<'a>(view: &View<'a>, subnet: &Subnet) -> Vec<&'a Node> {
    let homes = subnet.cidrs.iter().filter_map(|(_, cidr)| cidr.blocks().pop());
    let near = homes.flat_map(|home| view.list::<Node>(Index::NodesInside, &home.to_string()));
    near.filter(|node| node.created < subnet.created).collect()
}

/// Recorded addresses that keep a subnet. They are looked at only while the subnet is being
/// deleted: read always, every new pod would re-run its subnet. Its own querier is no obstacle
/// (upstream waited for it for ever).
pub fn users<'a>(view: &View<'a>, subnet: &Subnet) -> impl Iterator<Item = &'a Text> {
    let querier = names::mcast_querier_port(&subnet.name);
    view.keys::<Ip>(Index::IpsBySubnet, &subnet.name).filter(move |name| ***name != *querier)
}

/// Whether a recorded address of the subnet exists.
pub fn in_use(view: &View<'_>, subnet: &Subnet) -> bool {
    users(view, subnet).next().is_some()
}

/// The subnet, if it exists, nothing stands against it, and it is not deleted for good: it works
/// on while an address of it is in use.
pub fn valid_subnet<'a>(view: &View<'a>, name: &str) -> Option<&'a Subnet> {
    view.get::<Subnet>(name)
        .filter(|s| conflict(view, s).is_none() && (!s.deleting || in_use(view, s)))
}
