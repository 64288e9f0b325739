//! A Subnet is a logical switch, and, where OVN routes it, a router port with the gateway address.

use crate::{
    api::{Kind, Map, Settings, Subnet, Vpc, names},
    net::field,
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, Presence, Problem, View, Wanted},
};

use super::{
    VENDOR, keys, load_balancer,
    policy::{Action, Policy, priority},
    route::default_route_facts,
    validity,
};

pub fn desired(view: &View<'_>, name: &str) -> Output {
    let (Some(subnet), Some(settings)) = (view.get::<Subnet>(name), view.get::<Settings>(""))
    else {
        return Output::default();
    };
    let leaving = subnet.deleting && !validity::in_use(view, subnet);
    // Also of a subnet that is refused: it may have had addresses when it was valid.
    let finalizer = Wanted::Finalizer {
        kind: Kind::Subnet,
        key: subnet.name.clone(),
        presence: if leaving { Presence::Absent } else { Presence::Present },
    };
    let mut output = Output { wanted: vec![finalizer], ..Output::default() };
    // A deleted subnet keeps its switch while an address of it is in use.
    if leaving {
        return output;
    }
    output.problems.extend(subnet.deleting.then(|| in_the_way(view, subnet)));
    if let Some(problem) = validity::conflict(view, subnet) {
        output.problems.push(problem);
        return output;
    }
    if !subnet.is_ovn() {
        return output;
    }
    output.facts.push(
        RowBuilder::new(&keys::switch(name))
            .set(nb::logical_switch::NAME, name)
            .map(nb::logical_switch::EXTERNAL_IDS, [VENDOR])
            .contributed(nb::logical_switch::PORTS)
            .contributed(nb::logical_switch::ACLS)
            .contributed(nb::logical_switch::QOS_RULES)
            // Nothing of ours: rows of upstream leave the switch when it is taken over.
            .contributed(nb::logical_switch::LOAD_BALANCER)
            .contributed(nb::logical_switch::LOAD_BALANCER_GROUP)
            .contributed(nb::logical_switch::OTHER_CONFIG)
            .fact(),
    );
    output.facts.extend(load_balancer::switch_facts(subnet, settings));
    if subnet.is_overlay() {
        output.facts.extend(router_port(subnet));
        output.facts.extend(local_destinations(subnet));
        output.facts.extend(default_routes(view, subnet, settings));
    }
    output
}

/// Who keeps a deleted subnet: the first three, or every pod that goes would be an Event.
fn in_the_way(view: &View<'_>, subnet: &Subnet) -> Problem {
    let mut users = validity::users(view, subnet);
    let mut shown: Vec<&str> = users.by_ref().take(3).map(|name| &**name).collect();
    if users.next().is_some() {
        shown.push("...");
    }
    Problem {
        kind: Kind::Subnet,
        key: subnet.name.clone(),
        reason: "SubnetInUse",
        message: format!(
            "deleted, but these IPs are in use: {}; delete their pods or the IPs (kubectl get ip -l \
             {}={})",
            shown.join(", "),
            names::label::SUBNET,
            subnet.name
        ),
    }
}

/// Default routes of the routing table that the subnet uses: OVN drops a packet that matches no
/// route before it looks at policies, so without one no policy would ever act. The main table of
/// the default VPC has its routes from the Vpc.
fn default_routes(view: &View<'_>, subnet: &Subnet, settings: &Settings) -> Vec<Fact> {
    let Some(vpc) = view.get::<Vpc>(&subnet.vpc).filter(|v| !v.external) else { return Vec::new() };
    let next_hops = if subnet.vpc != settings.cluster_router {
        // Any connected next hop will do, policies replace it. Of several subnets the first wins.
        subnet.gateways
    } else if subnet.route_table.is_empty() {
        return Vec::new();
    } else {
        view.get::<Subnet>(&settings.node_switch).map_or(subnet.gateways, |join| join.gateways)
    };
    default_route_facts(vpc, &subnet.route_table, &next_hops)
}

fn router_port(subnet: &Subnet) -> Vec<Fact> {
    let (vpc, name) = (&*subnet.vpc, &*subnet.name);
    let lrp_name = names::router_port(vpc, name);
    let lrp = RowKey::new(&nb::LOGICAL_ROUTER_PORT, "subnet", name, "router-port");
    let lsp = RowKey::new(&nb::LOGICAL_SWITCH_PORT, "subnet", name, "router-port");
    let networks = subnet.gateways.iter().filter_map(|(family, gateway)| {
        subnet.cidrs.get(family).map(|cidr| cidr.with_address(*gateway).to_string())
    });
    let options: Vec<(&str, String)> = if subnet.route_table.is_empty() {
        vec![]
    } else {
        vec![("route_table", subnet.route_table.to_string())]
    };
    let router_port = RowBuilder::new(&lrp)
        .set(nb::logical_router_port::NAME, lrp_name.as_str())
        .initial(
            nb::logical_router_port::MAC,
            // Of the subnet alone: pods keep their gateway's address when it moves to another VPC.
            keys::stable_mac(&format!("router-port:{name}")).to_string(),
        )
        .atoms(nb::logical_router_port::NETWORKS, networks)
        .map(nb::logical_router_port::OPTIONS, options)
        .map(nb::logical_router_port::IPV6_RA_CONFIGS, router_advertisement(subnet))
        .map(nb::logical_router_port::EXTERNAL_IDS, [("lr", vpc), VENDOR]);
    let switch_port = RowBuilder::new(&lsp)
        .set(nb::logical_switch_port::NAME, names::switch_port(vpc, name))
        .set(nb::logical_switch_port::TYPE, "router")
        .set(nb::logical_switch_port::ADDRESSES, "router")
        .map(nb::logical_switch_port::OPTIONS, [("router-port", lrp_name.as_str())])
        .map(nb::logical_switch_port::EXTERNAL_IDS, [("ls", name), VENDOR]);
    vec![
        router_port.fact(),
        switch_port.fact(),
        Fact::Member {
            row: keys::router(vpc),
            column: nb::logical_router::PORTS,
            element: Element::Row(lrp),
        },
        Fact::Member {
            row: keys::switch(name),
            column: nb::logical_switch::PORTS,
            element: Element::Row(lsp),
        },
    ]
}

/// Advertisements of a subnet with enableIPv6RA.
fn router_advertisement(subnet: &Subnet) -> Map {
    match &subnet.router_advertisement {
        Some(given) if subnet.cidrs.v6.is_some() && given.is_empty() => Map::from(
            [
                ("address_mode", "dhcpv6_stateful"),
                ("max_interval", "30"),
                ("min_interval", "5"),
                ("send_periodic", "true"),
            ]
            .map(|(k, v)| (k.into(), v.into())),
        ),
        Some(given) if subnet.cidrs.v6.is_some() => given.clone(),
        _ => Map::new(),
    }
}

/// 31000: what is inside the VPC is never sent to a gateway.
fn local_destinations(subnet: &Subnet) -> Vec<Fact> {
    let router = keys::router(&subnet.vpc);
    let mut facts = Vec::new();
    for (family, cidr) in subnet.cidrs.iter() {
        let id = format!("local/{}", family.digit());
        facts.extend(
            Policy {
                key: RowKey::new(&nb::LOGICAL_ROUTER_POLICY, "subnet", &subnet.name, &id),
                router: &router,
                priority: priority::LOCAL_DESTINATION,
                matching: format!("{} == {cidr}", field(family, "dst")),
                action: Action::Allow,
                external_ids: vec![("subnet".into(), subnet.name.to_string())],
            }
            .facts(),
        );
    }
    facts
}
