//! What load balancers hang on. Each Service has rows of its own, and joins the group of its VPC;
//! the switches of the VPC join the group too. So a Service is attached to any number of switches
//! by one set element, and a switch takes any number of Services on with one.
//!
//! Upstream keeps six shared rows per VPC, in which every change of an endpoint rewrites a huge map
//! that each switch then takes in again. The names of those six are the first part of ours and
//! stand in the Vpc's status, so `lb-list` and `find Load_Balancer` still find them by name.

use serde_json::{Value, json};

use crate::{
    api::{
        Index, LoadBalancerSettings, Node, Protocol, Settings, Subnet, Text, Vpc,
        names::{Session, annotation},
    },
    ovsdb::{
        row::{Element, Fact, NAMED, RowBuilder, RowKey},
        schema::nb,
    },
    store::View,
};

use super::keys;

/// The group of a VPC. It is named by its identity.
pub fn group(vpc: &str) -> RowKey {
    RowKey::new(&nb::LOAD_BALANCER_GROUP, NAMED, vpc, "load-balancers")
}

/// The row. The Vpc wants it and each attached switch does, so that it never goes before them.
pub fn group_facts(vpc: &str, settings: &Settings) -> Vec<Fact> {
    if !settings.enable_lb {
        return Vec::new();
    }
    let key = group(vpc);
    let row = RowBuilder::new(&key)
        .set(nb::load_balancer_group::NAME, key.id.clone())
        .contributed(nb::load_balancer_group::LOAD_BALANCER);
    vec![row.fact()]
}

/// Whether the group of a VPC exists. Reads no content: an edited Vpc does not re-run its Services.
pub fn has_group(view: &View<'_>, vpc: &str) -> bool {
    view.keys::<Vpc>(Index::VpcsByName, vpc).next().is_some()
}

/// The switch of a subnet takes part, unless `spec.enableLb` is off. The join switch does not: what
/// nodes send is kube-proxy's.
pub fn switch_facts(subnet: &Subnet, settings: &Settings) -> Vec<Fact> {
    let wanted = settings.enable_lb
        && subnet.enable_lb.unwrap_or(true)
        && subnet.name != settings.node_switch;
    if !wanted {
        return Vec::new();
    }
    let mut facts = group_facts(&subnet.vpc, settings);
    facts.push(Fact::Member {
        row: keys::switch(&subnet.name),
        column: nb::logical_switch::LOAD_BALANCER_GROUP,
        element: Element::Row(group(&subnet.vpc)),
    });
    facts
}

/// Values that differ from node to node, of load balancers that prefer endpoints nearby.
pub fn variables(node: &str) -> RowKey {
    RowKey::new(&nb::CHASSIS_TEMPLATE_VAR, "node", node, "variables")
}

pub fn chassis(node: &Node) -> Option<&Text> {
    node.annotations.get(annotation::CHASSIS)
}

/// The row that Services put their values for the node into.
pub fn variables_facts(node: &Node, settings: &Settings) -> Vec<Fact> {
    let Some(chassis) = chassis(node).filter(|_| settings.enable_lb) else { return Vec::new() };
    let row = RowBuilder::new(&variables(&node.name))
        .set(nb::chassis_template_var::CHASSIS, chassis.clone())
        .contributed(nb::chassis_template_var::VARIABLES);
    vec![row.fact()]
}

/// Part of a Vpc's status: the names of its load balancers, blank when there are none.
pub fn status(vpc: &str, settings: &Settings) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for protocol in LoadBalancerSettings::PROTOCOLS {
        for session in LoadBalancerSettings::SESSIONS {
            let field = match session {
                Session::None => format!("{}LoadBalancer", protocol.name()),
                Session::ClientIp => format!("{}SessionLoadBalancer", protocol.name()),
            };
            let name = if settings.enable_lb {
                shared_name(vpc, settings, protocol, session)
            } else {
                "".into()
            };
            all.push((field, json!(&*name)));
        }
    }
    all
}

pub fn shared_name(vpc: &str, settings: &Settings, protocol: Protocol, session: Session) -> Text {
    settings.load_balancers.shared_name(vpc, &settings.cluster_router, protocol, session)
}
