//! The way out of a centralized subnet of the default VPC: chosen nodes for all its pods. That of
//! distributed subnets belongs to the nodes, see `node_gateway`.

use std::net::IpAddr;

use crate::{
    api::{Gateway, GatewayType, Ip, Kind, Settings, Subnet, Text},
    net::{Family, field},
    ovsdb::{
        row::{Fact, RowKey},
        schema::nb,
    },
    store::{Output, Problem, View},
};

use super::{
    keys,
    policy::{Action, Policy, priority},
    validity::valid_subnet,
};

pub fn desired(view: &View<'_>, name: &str) -> Output {
    let (Some(subnet), Some(settings)) = (valid_subnet(view, name), view.get::<Settings>(""))
    else {
        return Output::default();
    };
    if !subnet.is_ovn()
        || subnet.vpc != settings.cluster_router
        || subnet.name == settings.node_switch
        || !subnet.is_overlay()
    {
        return Output::default();
    }
    match subnet.gateway_type {
        Some(GatewayType::Centralized) => centralized(view, subnet),
        Some(GatewayType::Distributed) | None => Output::default(),
    }
}

/// The join address of a node, once it is recorded.
fn join_address(view: &View<'_>, node: &str, family: Family) -> Option<IpAddr> {
    view.get::<Ip>(&format!("node-{node}"))?.addresses.get(family).copied()
}

fn policy_key(subnet: &Subnet, id: &str) -> RowKey {
    RowKey::new(&nb::LOGICAL_ROUTER_POLICY, "subnet-gateway", &subnet.name, id)
}

/// One policy per family towards the nodes that the gateway state machine has chosen.
fn centralized(view: &View<'_>, subnet: &Subnet) -> Output {
    let problem = |reason, message: String| Problem {
        kind: Kind::Subnet,
        key: subnet.name.clone(),
        reason,
        message,
    };
    let mut output = Output::default();
    if subnet.gateway_nodes.is_empty() {
        output.problems.push(problem(
            "NoReadyGateway",
            "spec.gatewayNode is empty; name at least one node for the centralized gateway".into(),
        ));
        return output;
    }
    let active: &[Text] = view.get::<Gateway>(&subnet.name).map_or(&[], |g| &g.active);
    if active.is_empty() {
        let names: Vec<&str> = subnet.gateway_nodes.iter().map(|g| &*g.node).collect();
        output.problems.push(problem(
            "NoActiveGatewayFound",
            format!("no node of spec.gatewayNode {names:?} is Ready; traffic leaves when one is"),
        ));
        return output;
    }
    let router = keys::router(&subnet.vpc);
    for (family, cidr) in subnet.cidrs.iter() {
        let hops: Vec<(&Text, IpAddr)> = active
            .iter()
            .filter_map(|node| join_address(view, node, family).map(|ip| (node, ip)))
            .collect();
        let mut ids = vec![("subnet".to_owned(), subnet.name.to_string())];
        ids.extend(hops.iter().map(|(node, ip)| (node.to_string(), ip.to_string())));
        let facts: Vec<Fact> = Policy {
            key: policy_key(subnet, &format!("centralized/{}", family.digit())),
            router: &router,
            priority: priority::GATEWAY,
            matching: format!("{} == {cidr}", field(family, "src")),
            action: Action::Reroute(hops.iter().map(|(_, ip)| *ip).collect()),
            external_ids: ids,
        }
        .facts();
        output.facts.extend(facts);
    }
    output
}
