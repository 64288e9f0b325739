//! A Vpc is a logical router with its static routes and policies.

use std::net::IpAddr;

use serde_json::json;

use crate::{
    api::{Index, Kind, PolicyAction, Settings, StaticRoute, Subnet, Vpc},
    net::field,
    ovsdb::{
        row::{Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, Presence, Problem, View, Wanted},
};

use super::{
    VENDOR, keys, load_balancer,
    policy::{Action, Policy},
    route::{Route, default_route_facts},
};

/// Source routes of the spec: below the gateways of subnets, above nothing.
const SOURCE_ROUTE: i64 = 28000;
/// Guards of the destinations that user routes name, above all source routes.
const ROUTED_DESTINATION: i64 = 28900;

pub fn desired(view: &View<'_>, name: &str) -> Output {
    let (Some(vpc), Some(settings)) = (view.get::<Vpc>(name), view.get::<Settings>("")) else {
        return Output::default();
    };
    let mut output = Output::default();
    // A router that somebody else made stays theirs.
    if vpc.external {
        output.facts = load_balancer::group_facts(name, settings);
        return output;
    }
    // The router outlives the Vpc's deletion as long as a subnet needs it.
    let leaving = vpc.deleting && view.keys::<Subnet>(Index::SubnetsByVpc, name).next().is_none();
    output.wanted.push(Wanted::Finalizer {
        kind: Kind::Vpc,
        key: vpc.name.clone(),
        presence: if leaving { Presence::Absent } else { Presence::Present },
    });
    if leaving {
        return output;
    }
    let router = keys::router(name);
    output.problems.extend(vpc.invalid.iter().map(|finding| Problem {
        kind: Kind::Vpc,
        key: vpc.name.clone(),
        reason: finding.reason,
        message: finding.message.clone(),
    }));
    output.facts.push(router_row(view, vpc, &router));
    output.facts.extend(load_balancer::group_facts(name, settings));
    if vpc.name == settings.cluster_router
        && let Some(join) = view.get::<Subnet>(&settings.node_switch)
    {
        output.facts.extend(default_route_facts(vpc, &"".into(), &join.gateways));
    }
    for route in &vpc.static_routes {
        output.facts.extend(route_facts(vpc, &router, route));
    }
    for policy in &vpc.policy_routes {
        output.facts.extend(policy_facts(name, &router, policy));
    }
    output.wanted.push(status(view, vpc, settings));
    output
}

fn router_row(view: &View<'_>, vpc: &Vpc, router: &RowKey) -> Fact {
    let mut options = vec![("mac_binding_age_threshold", "300"), ("dynamic_neigh_routers", "true")];
    // Underlay neighbours are learned from their own requests.
    if view.keys::<Subnet>(Index::U2oSubnetsByVpc, &vpc.name).next().is_none() {
        options.push(("always_learn_from_arp_request", "false"));
    }
    RowBuilder::new(router)
        .set(nb::logical_router::NAME, vpc.name.clone())
        .map(nb::logical_router::EXTERNAL_IDS, [VENDOR])
        // Merged, not overwritten: the IC controller and BFD keep keys of their own here.
        .merge(nb::logical_router::OPTIONS, options)
        .contributed(nb::logical_router::PORTS)
        .contributed(nb::logical_router::POLICIES)
        .contributed(nb::logical_router::NAT)
        .contributed(nb::logical_router::STATIC_ROUTES)
        .fact()
}

fn route_facts(vpc: &Vpc, router: &RowKey, route: &StaticRoute) -> Vec<Fact> {
    let id = format!("{}/{}/{}", route.table, route.prefix, route.next_hop);
    if route.by_source {
        return source_route(vpc, router, route, &id);
    }
    let mut facts = Route {
        vpc: &vpc.name,
        id: format!("route/{id}"),
        prefix: route.prefix,
        next_hop: route.next_hop,
        table: &route.table,
        ecmp_symmetric_reply: route.ecmp_symmetric_reply,
    }
    .facts();
    let family = route.prefix.family();
    let specific = route.prefix.prefix > 0;
    if specific && vpc.static_routes.iter().any(|r| r.by_source && r.prefix.family() == family) {
        facts.extend(
            Policy {
                key: policy_key(vpc, &format!("destination/{}", route.prefix)),
                router,
                priority: ROUTED_DESTINATION,
                matching: format!("{} == {}", field(family, "dst"), route.prefix),
                action: Action::Allow,
                external_ids: vec![],
            }
            .facts(),
        );
    }
    facts
}

/// Source routes beat connected ones on stock OVN. They are written as policies instead: a longer
/// source wins, and destinations inside the VPC or with a route of their own are left alone.
fn source_route(vpc: &Vpc, router: &RowKey, route: &StaticRoute, id: &str) -> Vec<Fact> {
    // Several next hops of one source share a policy, as equals.
    let same = |r: &&StaticRoute| r.by_source && r.prefix == route.prefix && r.table == route.table;
    let hops: Vec<IpAddr> = vpc.static_routes.iter().filter(same).map(|r| r.next_hop).collect();
    if hops.first() != Some(&route.next_hop) {
        return Vec::new();
    }
    Policy {
        key: policy_key(vpc, &format!("source/{id}")),
        router,
        priority: SOURCE_ROUTE + i64::from(route.prefix.prefix),
        matching: format!("{} == {}", field(route.prefix.family(), "src"), route.prefix),
        action: Action::Reroute(hops),
        external_ids: vec![],
    }
    .facts()
}

fn policy_key(vpc: &Vpc, id: &str) -> RowKey {
    RowKey::new(&nb::LOGICAL_ROUTER_POLICY, "vpc", &vpc.name, id)
}

fn policy_facts(vpc: &str, router: &RowKey, route: &crate::api::PolicyRoute) -> Vec<Fact> {
    let id = format!("policy/{}/{}", route.priority, route.matching);
    Policy {
        key: RowKey::new(&nb::LOGICAL_ROUTER_POLICY, "vpc", vpc, &id),
        router,
        priority: i64::from(route.priority),
        matching: route.matching.to_string(),
        action: match route.action {
            PolicyAction::Allow => Action::Allow,
            PolicyAction::Drop => Action::Drop,
            PolicyAction::Reroute => Action::Reroute(route.next_hops.clone()),
        },
        external_ids: vec![],
    }
    .facts()
}

fn status(view: &View<'_>, vpc: &Vpc, settings: &Settings) -> Wanted {
    let is_default = vpc.name == settings.cluster_router;
    let marked = || view.keys::<Subnet>(Index::DefaultSubnetsByVpc, &vpc.name).next();
    let default_switch = if is_default {
        Some(&settings.default_subnet)
    } else {
        vpc.default_subnet.as_ref().or_else(marked)
    };
    let active = view.keys::<Subnet>(Index::ActiveSubnetsByVpc, &vpc.name);
    let names: Vec<&str> = active.map(|name| &**name).collect();
    let mut status = json!({
        "standby": true,
        "default": is_default,
        "router": &*vpc.name,
        "defaultLogicalSwitch": default_switch.map_or("", |name| &**name),
        "subnets": names,
    });
    if let Some(fields) = status.as_object_mut() {
        fields.extend(load_balancer::status(&vpc.name, settings));
    }
    Wanted::Status { kind: Kind::Vpc, key: vpc.name.clone(), status }
}
