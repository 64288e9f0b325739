//! A node is a port on the join switch, a route to its own address, and a group of its pods.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    api::{Index, Ip, Kind, Node, Settings, Subnet, Text},
    net::{Cidr, Family, address_set_name, field},
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, Problem, View, Wanted},
};

use super::{
    VENDOR, keys, load_balancer,
    policy::{Action, Policy, priority},
};

pub fn desired(view: &View<'_>, name: &str) -> Output {
    let (Some(node), Some(settings)) = (view.get::<Node>(name), view.get::<Settings>("")) else {
        return Output::default();
    };
    let mut output = Output::default();
    let group = keys::node_group_name(view, name);
    output.facts.push(
        RowBuilder::new(&keys::node_ports(name))
            .set(nb::port_group::NAME, group.as_str())
            .map(
                nb::port_group::EXTERNAL_IDS,
                [("node", name.to_owned()), ("np", format!("node/{name}"))],
            )
            .contributed(nb::port_group::PORTS)
            .contributed(nb::port_group::ACLS)
            .fact(),
    );
    output.facts.extend(node.internal_ips.iter().map(|(family, ip)| Fact::Member {
        row: keys::node_addresses(family),
        column: nb::address_set::ADDRESSES,
        element: Element::Atom(ip.to_string().into()),
    }));
    output.facts.extend(load_balancer::variables_facts(node, settings));
    output.problems.extend(address_conflicts(view, settings, node));
    // A record that is being deleted waits for its port to leave.
    let ip = view.get::<Ip>(&format!("node-{name}")).filter(|ip| !ip.deleting);
    let (Some(ip), Some(join)) = (ip, view.get::<Subnet>(&settings.node_switch)) else {
        return output;
    };
    output.facts.extend(port(node, ip, join));
    output.facts.extend(own_addresses(settings, node, ip));
    output.facts.extend(local_dns(settings, node, ip, &group));
    output.wanted.push(annotations(node, ip, join));
    output
}

fn port(node: &Node, ip: &Ip, join: &Subnet) -> Vec<Fact> {
    let Some(mac) = ip.mac else { return Vec::new() };
    let addresses: Vec<String> = ip.addresses.iter().map(|(_, a)| a.to_string()).collect();
    let key = RowKey::new(&nb::LOGICAL_SWITCH_PORT, "node", &node.name, "port");
    let row = RowBuilder::new(&key)
        .set(nb::logical_switch_port::NAME, ip.name.clone())
        .set(nb::logical_switch_port::ADDRESSES, format!("{mac} {}", addresses.join(" ")))
        .map(nb::logical_switch_port::EXTERNAL_IDS, [("ls", &*join.name), VENDOR]);
    let member = Fact::Member {
        row: keys::switch(&join.name),
        column: nb::logical_switch::PORTS,
        element: Element::Row(key),
    };
    vec![row.fact(), member]
}

/// 30000: the node's own address is reached through its join port, whatever gateway a pod has.
fn own_addresses(settings: &Settings, node: &Node, ip: &Ip) -> Vec<Fact> {
    let router = keys::router(&settings.cluster_router);
    let mut facts = Vec::new();
    for (family, internal) in node.internal_ips.iter() {
        let Some(hop) = ip.addresses.get(family) else { continue };
        let id = format!("address/{}", family.digit());
        facts.extend(
            Policy {
                key: RowKey::new(&nb::LOGICAL_ROUTER_POLICY, "node", &node.name, &id),
                router: &router,
                priority: priority::NODE,
                matching: format!("{} == {internal}", field(family, "dst")),
                action: Action::Reroute(vec![*hop]),
                external_ids: ids(node, family),
            }
            .facts(),
        );
    }
    facts
}

fn ids(node: &Node, family: Family) -> Vec<(String, String)> {
    vec![
        ("node".into(), node.name.to_string()),
        ("address-family".into(), family.digit().to_string()),
    ]
}

/// 30000: the node's pods ask the DNS cache of their own node.
fn local_dns(settings: &Settings, node: &Node, ip: &Ip, group: &str) -> Vec<Fact> {
    let router = keys::router(&settings.cluster_router);
    let mut facts = Vec::new();
    for dns in &settings.node_local_dns {
        let family = Family::of(*dns);
        let Some(hop) = ip.addresses.get(family) else { continue };
        let set = address_set_name(group, family);
        let (src, dst) = (field(family, "src"), field(family, "dst"));
        let mut external_ids = ids(node, family);
        external_ids.push(("isLocalDnsCache".into(), "true".into()));
        let id = format!("local-dns/{dns}");
        facts.extend(
            Policy {
                key: RowKey::new(&nb::LOGICAL_ROUTER_POLICY, "node", &node.name, &id),
                router: &router,
                priority: priority::NODE,
                matching: format!("{src} == ${set} && {dst} == {dns}"),
                action: Action::Reroute(vec![*hop]),
                external_ids,
            }
            .facts(),
        );
    }
    facts
}

/// An overlay subnet that holds a node's address makes that node unreachable for its pods.
fn address_conflicts(view: &View<'_>, settings: &Settings, node: &Node) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (_, ip) in node.internal_ips.iter() {
        // A younger subnet is refused, and told so itself.
        let subnets = overlay_around(view, settings, *ip).into_iter();
        for subnet in subnets.filter(|s| s.created <= node.created) {
            problems.push(Problem {
                kind: Kind::Node,
                key: node.name.clone(),
                reason: "NodeAddressConflictWithSubnet",
                message: format!(
                    "InternalIP {ip} lies in spec.cidrBlock {} of subnet {:?}; choose another range \
                     for the subnet",
                    subnet.cidrs, &*subnet.name
                ),
            });
        }
    }
    problems
}

/// Overlay subnets of the default VPC that hold the address. Reads only subnets near it.
fn overlay_around<'a>(view: &View<'a>, settings: &Settings, ip: IpAddr) -> Vec<&'a Subnet> {
    let mut found: Vec<&Subnet> = Vec::new();
    for block in Cidr::host(ip).blocks() {
        let home = format!("{}/ {block}", settings.cluster_router);
        found.extend(view.list::<Subnet>(Index::SubnetsAtHome, &home));
    }
    found.retain(|s| s.cidrs.contains(ip));
    found.sort_by_key(|s| &s.name);
    found.dedup_by_key(|s| &s.name);
    found
}

fn annotations(node: &Node, ip: &Ip, join: &Subnet) -> Wanted {
    let mut values: BTreeMap<Text, Option<Text>> = BTreeMap::new();
    let mut put = |key: &str, value: String| {
        values.insert(format!("ovn.kubernetes.io/{key}").into(), Some(value.into()));
    };
    put("ip_address", ip.addresses.to_string());
    if let Some(mac) = ip.mac {
        put("mac_address", mac.to_string());
    }
    put("cidr", join.cidrs.to_string());
    put("gateway", join.gateways.to_string());
    put("logical_switch", join.name.to_string());
    put("port_name", ip.name.to_string());
    put("allocated", "true".into());
    Wanted::Annotations { kind: Kind::Node, key: node.name.clone(), values }
}
