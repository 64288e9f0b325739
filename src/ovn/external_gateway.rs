//! The external gateway of the default VPC: a switch with a localnet port, and a router port that
//! lives on the gateway nodes (OVN's distributed gateway port, ovn-nb(5)).

use std::collections::BTreeMap;

use crate::{
    api::{
        ExternalGateway, Invalid, Kind, Placement, Settings, Subnet, Text,
        names::{self, label},
    },
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, Problem, View, Wanted},
};

use super::{VENDOR, external::gateway_chassis, keys};

pub fn desired(view: &View<'_>, key: &str) -> Output {
    let (Some(gateway), Some(settings)) =
        (view.get::<ExternalGateway>(key), view.get::<Settings>(""))
    else {
        return Output::default();
    };
    if !settings.external.enabled {
        return Output::default();
    }
    let mut output = Output { wanted: labels(view, gateway), ..Output::default() };
    if !gateway.enabled {
        return output;
    }
    let problem = |message: String| Problem {
        kind: Kind::Vpc,
        key: settings.cluster_router.clone(),
        reason: "ExternalGatewayFailed",
        message: format!("ConfigMap {key}: {message}"),
    };
    let wrong = |i: &Invalid| problem(i.message.clone());
    output.problems.extend(gateway.invalid.iter().map(wrong));
    if !gateway.invalid.is_empty() {
        return output;
    }
    let chassis = gateway_chassis(view, gateway);
    if chassis.is_empty() {
        output.problems.push(problem(
            "no gateway node has a chassis; name nodes in external-gw-nodes or label them \
             ovn.kubernetes.io/external-gw=true, and see that ovs-ovn runs there"
                .into(),
        ));
        return output;
    }
    output.facts.extend(switch(view, settings));
    output.facts.extend(router_port(gateway, settings, &chassis));
    output
}

/// Named nodes get the label by which the agents (and other features) know gateway nodes.
fn labels(view: &View<'_>, gateway: &ExternalGateway) -> Vec<Wanted> {
    let Placement::Centralized(nodes) = &gateway.placement else { return Vec::new() };
    let value = if gateway.enabled { "true" } else { "false" };
    let nodes = nodes.iter().filter(|node| keys::has_node(view, node));
    nodes
        .map(|node| Wanted::Labels {
            kind: Kind::Node,
            key: node.clone(),
            values: BTreeMap::from([(label::EXTERNAL_GW.into(), Some(value.into()))]),
        })
        .collect()
}

/// The switch of the external network: a Subnet of that name, or one of our own.
fn switch(view: &View<'_>, settings: &Settings) -> Vec<Fact> {
    let external = &settings.external;
    let subnet = view.get::<Subnet>(&external.switch).filter(|s| s.is_ovn());
    let port = RowKey::new(&nb::LOGICAL_SWITCH_PORT, "external-gateway", "", "router-port");
    let localnet = RowKey::new(&nb::LOGICAL_SWITCH_PORT, "external-gateway", "", "localnet");
    let parent = match subnet {
        Some(_) => keys::switch(&external.switch),
        None => RowKey::new(&nb::LOGICAL_SWITCH, "external-gateway", "", "switch"),
    };
    let member = |port: &RowKey| Fact::Member {
        row: parent.clone(),
        column: nb::logical_switch::PORTS,
        element: Element::Row(port.clone()),
    };
    let (vpc, name) = (&*settings.cluster_router, &*external.switch);
    let mut facts = vec![
        RowBuilder::new(&port)
            .set(nb::logical_switch_port::NAME, names::switch_port(vpc, name))
            .set(nb::logical_switch_port::TYPE, "router")
            .set(nb::logical_switch_port::ADDRESSES, "router")
            .map(nb::logical_switch_port::OPTIONS, [("router-port", names::router_port(vpc, name))])
            .map(nb::logical_switch_port::EXTERNAL_IDS, [("ls", name), VENDOR])
            .fact(),
        member(&port),
    ];
    if subnet.is_none() {
        facts.push(
            RowBuilder::new(&parent)
                .set(nb::logical_switch::NAME, name)
                .map(nb::logical_switch::EXTERNAL_IDS, [VENDOR])
                .contributed(nb::logical_switch::PORTS)
                .fact(),
        );
    }
    // The localnet port of a subnet on a vlan belongs to that subnet.
    if subnet.is_none_or(|s| s.vlan.is_none()) {
        let tag = (external.vlan > 0).then_some(i64::from(external.vlan));
        let row = RowBuilder::new(&localnet)
            .set(nb::logical_switch_port::NAME, names::localnet_port(name))
            .set(nb::logical_switch_port::TYPE, "localnet")
            .set(nb::logical_switch_port::ADDRESSES, "unknown")
            .atoms(nb::logical_switch_port::TAG, tag)
            .map(nb::logical_switch_port::OPTIONS, [("network_name", &*external.network)])
            .map(nb::logical_switch_port::EXTERNAL_IDS, [("ls", name), VENDOR]);
        facts.extend([row.fact(), member(&localnet)]);
    }
    facts
}

fn router_port(gateway: &ExternalGateway, settings: &Settings, chassis: &[Text]) -> Vec<Fact> {
    let vpc = &settings.cluster_router;
    let name = names::router_port(vpc, &settings.external.switch);
    let key = keys::external_router_port();
    let mac = gateway.mac.unwrap_or_else(|| keys::stable_mac(&format!("router-port:{name}")));
    let networks = gateway.addresses.iter().map(|(_, cidr)| cidr.to_string());
    let mut facts = vec![
        RowBuilder::new(&key)
            .set(nb::logical_router_port::NAME, name.as_str())
            .set(nb::logical_router_port::MAC, mac.to_string())
            .atoms(nb::logical_router_port::NETWORKS, networks)
            .map(nb::logical_router_port::EXTERNAL_IDS, [("lr", &**vpc), VENDOR])
            .contributed(nb::logical_router_port::GATEWAY_CHASSIS)
            .fact(),
        Fact::Member {
            row: keys::router(vpc),
            column: nb::logical_router::PORTS,
            element: Element::Row(key.clone()),
        },
    ];
    for (index, chassis) in chassis.iter().enumerate() {
        let row = RowKey::new(&nb::GATEWAY_CHASSIS, "external-gateway", "", chassis);
        let priority = 100 - i64::try_from(index).unwrap_or(100).min(100);
        facts.push(
            RowBuilder::new(&row)
                .set(nb::gateway_chassis::NAME, names::gateway_chassis(&name, chassis))
                .set(nb::gateway_chassis::CHASSIS_NAME, chassis.clone())
                .set(nb::gateway_chassis::PRIORITY, priority)
                .map(nb::gateway_chassis::EXTERNAL_IDS, [("lrp", name.as_str()), VENDOR])
                .fact(),
        );
        facts.push(Fact::Member {
            row: key.clone(),
            column: nb::logical_router_port::GATEWAY_CHASSIS,
            element: Element::Row(row),
        });
    }
    facts
}
