//! A Vpc is a logical router with its static routes and policies.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    api::{Index, Kind, PolicyAction, Settings, StaticRoute, Subnet, Text, Vpc},
    net::{Cidr, Family},
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, Problem, View, Wanted},
};

use super::{
    VENDOR, keys,
    policy::{Action, Policy},
};

pub fn desired(view: &View<'_>, name: &str) -> Output {
    let (Some(vpc), Some(settings)) = (view.get::<Vpc>(name), view.get::<Settings>("")) else {
        return Output::default();
    };
    // A router that somebody else made stays theirs.
    if vpc.external {
        return Output::default();
    }
    let subnets: Vec<&Subnet> = view
        .list::<Subnet>(Index::SubnetsByVpc, name)
        .into_iter()
        .filter(|s| s.is_ovn() && !s.deleting)
        .collect();
    if vpc.deleting && subnets.is_empty() {
        return Output::default();
    }
    let router = keys::router(name);
    let mut output = Output::default();
    output.problems.extend(vpc.invalid.iter().map(|finding| Problem {
        kind: Kind::Vpc,
        key: vpc.name.clone(),
        reason: finding.reason,
        message: finding.message.clone(),
    }));
    output.facts.push(
        RowBuilder::new(&router)
            .set(nb::logical_router::NAME, name)
            .map(nb::logical_router::EXTERNAL_IDS, [VENDOR])
            // Merged, not overwritten: the IC controller and BFD keep keys of their own here.
            .merge(
                nb::logical_router::OPTIONS,
                [
                    ("mac_binding_age_threshold", "300"),
                    ("dynamic_neigh_routers", "true"),
                    ("always_learn_from_arp_request", "false"),
                ],
            )
            .contributed(nb::logical_router::PORTS)
            .contributed(nb::logical_router::POLICIES)
            .contributed(nb::logical_router::STATIC_ROUTES)
            .fact(),
    );
    for route in static_routes(view, vpc, settings, &subnets) {
        output.facts.extend(route_facts(name, &router, &route));
    }
    for policy in &vpc.policy_routes {
        output.facts.extend(policy_facts(name, &router, policy));
    }
    output.wanted.push(status(vpc, settings, &subnets));
    output
}

/// Routes of the spec, plus the default routes without which no policy of the router would ever
/// act: OVN drops a packet that matches no route before it looks at policies.
fn static_routes(
    view: &View<'_>,
    vpc: &Vpc,
    settings: &Settings,
    subnets: &[&Subnet],
) -> Vec<StaticRoute> {
    let mut routes = vpc.static_routes.clone();
    let is_default = vpc.name == settings.cluster_router;
    let join = view.get::<Subnet>(&settings.node_switch).filter(|_| is_default);
    let mut tables: Vec<Text> = subnets.iter().map(|s| s.route_table.clone()).collect();
    tables.push("".into());
    tables.sort();
    tables.dedup();
    for table in tables {
        for family in Family::BOTH {
            let prefix = family.default_route();
            let given = |r: &StaticRoute| r.prefix == prefix && r.table == table && !r.by_source;
            if vpc.static_routes.iter().any(given) {
                continue;
            }
            let gateway = match join {
                Some(join) => join.gateways.get(family),
                // A custom VPC: any connected next hop works, policies replace it.
                None => subnets.iter().find_map(|s| s.gateways.get(family)),
            };
            if let Some(next_hop) = gateway {
                routes.push(StaticRoute {
                    by_source: false,
                    prefix,
                    next_hop: *next_hop,
                    ecmp_symmetric_reply: false,
                    bfd_id: None,
                    table: table.clone(),
                });
            }
        }
    }
    routes
}

fn route_facts(vpc: &str, router: &RowKey, route: &StaticRoute) -> Vec<Fact> {
    // Source routes beat connected ones on stock OVN; they are written as policies below the
    // connected destinations instead (ovn-stock sheet, item 8).
    if route.by_source {
        let matching =
            format!("ip{}.src == {}", route.prefix.family().digit(), printed(route.prefix));
        let id = format!("source/{}/{}/{}", route.table, route.prefix, route.next_hop);
        return Policy {
            key: RowKey::new(&nb::LOGICAL_ROUTER_POLICY, "vpc", vpc, &id),
            router,
            priority: 28000 + i64::from(route.prefix.prefix),
            matching,
            action: Action::Reroute(vec![route.next_hop]),
            external_ids: vec![],
        }
        .facts();
    }
    let id = format!("route/{}/{}/{}", route.table, route.prefix, route.next_hop);
    let key = RowKey::new(&nb::LOGICAL_ROUTER_STATIC_ROUTE, "vpc", vpc, &id);
    let options: BTreeMap<&str, &str> = route
        .ecmp_symmetric_reply
        .then_some(("ecmp_symmetric_reply", "true"))
        .into_iter()
        .collect();
    let row = RowBuilder::new(&key)
        .set(nb::logical_router_static_route::IP_PREFIX, printed(route.prefix))
        .set(nb::logical_router_static_route::NEXTHOP, route.next_hop.to_string())
        .set(nb::logical_router_static_route::ROUTE_TABLE, route.table.clone())
        .set(nb::logical_router_static_route::POLICY, "dst-ip")
        .map(nb::logical_router_static_route::OPTIONS, options)
        .map(nb::logical_router_static_route::EXTERNAL_IDS, [VENDOR]);
    let member = Fact::Member {
        row: router.clone(),
        column: nb::logical_router::STATIC_ROUTES,
        element: Element::Row(key.clone()),
    };
    vec![row.fact(), member]
}

fn printed(prefix: Cidr) -> String {
    prefix.network().to_string()
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

fn status(vpc: &Vpc, settings: &Settings, subnets: &[&Subnet]) -> Wanted {
    let is_default = vpc.name == settings.cluster_router;
    let default_switch = if is_default {
        settings.default_subnet.to_string()
    } else {
        let named = vpc.default_subnet.as_ref().map(|s| s.to_string());
        let marked = || subnets.iter().find(|s| s.default).map(|s| s.name.to_string());
        named.or_else(marked).unwrap_or_default()
    };
    let names: Vec<&str> = subnets.iter().map(|s| &*s.name).collect();
    Wanted::Status {
        kind: Kind::Vpc,
        key: vpc.name.clone(),
        status: json!({
            "standby": true,
            "default": is_default,
            "router": &*vpc.name,
            "defaultLogicalSwitch": default_switch,
            "subnets": names,
        }),
    }
}
