//! Static routes of logical routers.

use std::net::IpAddr;

use crate::{
    api::{StaticRoute, Text, Vpc},
    net::{Cidr, DualStack},
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::nb,
    },
};

use super::{VENDOR, keys};

/// A destination route. `id` tells routes of one router apart.
pub struct Route<'a> {
    pub vpc: &'a str,
    pub id: String,
    pub prefix: Cidr,
    pub next_hop: IpAddr,
    pub table: &'a str,
    pub ecmp_symmetric_reply: bool,
}

impl Route<'_> {
    /// The row and its place in the router.
    pub fn facts(self) -> Vec<Fact> {
        let key = RowKey::new(&nb::LOGICAL_ROUTER_STATIC_ROUTE, "vpc", self.vpc, &self.id);
        let options = self.ecmp_symmetric_reply.then_some(("ecmp_symmetric_reply", "true"));
        let row = RowBuilder::new(&key)
            .set(nb::logical_router_static_route::IP_PREFIX, self.prefix.network().to_string())
            .set(nb::logical_router_static_route::NEXTHOP, self.next_hop.to_string())
            .set(nb::logical_router_static_route::ROUTE_TABLE, self.table)
            .set(nb::logical_router_static_route::POLICY, "dst-ip")
            .map(nb::logical_router_static_route::OPTIONS, options)
            .map(nb::logical_router_static_route::EXTERNAL_IDS, [VENDOR]);
        let member = Fact::Member {
            row: keys::router(self.vpc),
            column: nb::logical_router::STATIC_ROUTES,
            element: Element::Row(key),
        };
        vec![row.fact(), member]
    }
}

/// Default routes of a table, unless the user gave one of that family. Several owners may ask for
/// the same ones.
pub fn default_route_facts(vpc: &Vpc, table: &Text, next_hops: &DualStack<IpAddr>) -> Vec<Fact> {
    let mut facts = Vec::new();
    for (family, next_hop) in next_hops.iter() {
        let prefix = family.default_route();
        let given = |r: &StaticRoute| r.prefix == prefix && r.table == *table && !r.by_source;
        if vpc.static_routes.iter().any(given) {
            continue;
        }
        let route = Route {
            vpc: &vpc.name,
            id: format!("default/{table}/{}", family.digit()),
            prefix,
            next_hop: *next_hop,
            table,
            ecmp_symmetric_reply: false,
        };
        facts.extend(route.facts());
    }
    facts
}
