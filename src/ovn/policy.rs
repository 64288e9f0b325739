//! Logical router policies, the one way in which subnets, nodes and gateways steer traffic.

use std::net::IpAddr;

use crate::ovsdb::{
    row::{Element, Fact, RowBuilder, RowKey},
    schema::nb,
};

use super::VENDOR;

/// Priorities of the sheet (controller-core, router policies).
pub mod priority {
    /// Destination inside the VPC: routed, never sent to a gateway.
    pub const LOCAL_DESTINATION: i64 = 31000;
    /// Destination is a node.
    pub const NODE: i64 = 30000;
    /// Source is a pod with a gateway of its own.
    pub const POD_GATEWAY: i64 = 29250;
    /// Source is a subnet: its gateway.
    pub const GATEWAY: i64 = 29000;
}

pub enum Action {
    Allow,
    Drop,
    /// Every next hop is its own set element: a comma string is refused by northd.
    Reroute(Vec<IpAddr>),
}

pub struct Policy<'a> {
    pub key: RowKey,
    pub router: &'a RowKey,
    pub priority: i64,
    pub matching: String,
    pub action: Action,
    pub external_ids: Vec<(String, String)>,
}

impl Policy<'_> {
    /// The row and its place in the router. A reroute without next hops gives nothing: northd
    /// builds no flow for it.
    pub fn facts(self) -> Vec<Fact> {
        let (action, next_hops) = match self.action {
            Action::Allow => ("allow", vec![]),
            Action::Drop => ("drop", vec![]),
            Action::Reroute(hops) if hops.is_empty() => return Vec::new(),
            Action::Reroute(hops) => ("reroute", hops),
        };
        let mut ids = self.external_ids;
        ids.push((VENDOR.0.to_owned(), VENDOR.1.to_owned()));
        let row = RowBuilder::new(&self.key)
            .set(nb::logical_router_policy::PRIORITY, self.priority)
            .set(nb::logical_router_policy::MATCH, self.matching)
            .set(nb::logical_router_policy::ACTION, action)
            .atoms(nb::logical_router_policy::NEXTHOPS, next_hops.iter().map(|hop| hop.to_string()))
            .map(nb::logical_router_policy::EXTERNAL_IDS, ids);
        let member = Fact::Member {
            row: self.router.clone(),
            column: nb::logical_router::POLICIES,
            element: Element::Row(self.key),
        };
        vec![row.fact(), member]
    }
}
