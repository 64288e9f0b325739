//! Identities of rows that more than one feature refers to, and the names that users see.

use crate::{
    api::{Index, Node, Subnet, Text, dotted, names},
    net::{Family, Mac},
    ovsdb::{row::RowKey, schema::nb},
    store::View,
};

pub fn router(vpc: &str) -> RowKey {
    RowKey::new(&nb::LOGICAL_ROUTER, "vpc", vpc, "router")
}

pub fn switch(subnet: &str) -> RowKey {
    RowKey::new(&nb::LOGICAL_SWITCH, "subnet", subnet, "switch")
}

/// DHCP options of a subnet in one family.
pub fn dhcp_options(subnet: &str, family: Family) -> RowKey {
    let id = format!("v{}", family.digit());
    RowKey::new(&nb::DHCP_OPTIONS, "subnet-dhcp", subnet, &id)
}

/// All overlay pods of the default VPC on a node: `node.<node>`.
pub fn node_ports(node: &str) -> RowKey {
    RowKey::new(&nb::PORT_GROUP, "node", node, "ports")
}

/// Pods of distributed subnets on a node: `distributed_gw.<node>`.
pub fn distributed_ports(node: &str) -> RowKey {
    RowKey::new(&nb::PORT_GROUP, "node-gateway", node, "ports")
}

/// Port of the default VPC's router on the external network.
pub fn external_router_port() -> RowKey {
    RowKey::new(&nb::LOGICAL_ROUTER_PORT, "external-gateway", "", "router-port")
}

/// InternalIPs of all nodes, one family.
pub fn node_addresses(family: Family) -> RowKey {
    RowKey::new(&nb::ADDRESS_SET, "global", "", names::node_address_set(family))
}

/// Every pod that a NetworkPolicy selects, for what no policy may take from them.
pub fn policy_pods() -> RowKey {
    RowKey::new(&nb::PORT_GROUP, "policy-exemption", "", "pods")
}

/// The port of a recorded pod address.
pub fn pod_port(ip: &str) -> RowKey {
    RowKey::new(&nb::LOGICAL_SWITCH_PORT, "pod", ip, "port")
}

/// A stable MAC for something that has no recorded one: derived from its name, so that a rebuilt
/// NB gives every pod the gateway MAC that its neighbour table already holds.
pub fn stable_mac(name: &str) -> Mac {
    Mac::local(hash(name))
}

/// 64 bits of SHA-256.
pub fn hash(text: &str) -> u64 {
    crate::api::policy::fingerprint(text)
}

/// Name of a node's port group, with a hash suffix when another node maps to the same name.
pub fn node_group_name(view: &View<'_>, node: &str) -> String {
    distinct(view, node, names::node_port_group(node))
}

/// Name of the group of a node's pods in distributed subnets, the same way.
pub fn distributed_group_name(view: &View<'_>, node: &str) -> String {
    distinct(view, node, names::distributed_port_group(node))
}

/// Dashes become dots, which is not injective: nodes that would share a name all get a suffix.
/// Were one of them spared, it and the newcomer would have to swap names, which no order of single
/// transactions allows.
fn distinct(view: &View<'_>, node: &str, name: String) -> String {
    if view.keys::<Node>(Index::NodesByDottedName, &dotted(node)).any(|n| &**n != node) {
        return format!("{name}.{:08x}", hash(node) as u32);
    }
    name
}

/// Families that any subnet has.
pub fn families(view: &View<'_>) -> Vec<Family> {
    let used: Vec<&Text> = view.values::<Subnet>(Index::SubnetFamilies, "").collect();
    let is_used =
        |family: &Family| used.iter().any(|digit| ***digit == *family.digit().to_string());
    Family::BOTH.into_iter().filter(is_used).collect()
}

/// Whether the node exists. Reads no content: a node that changes does not re-run its pods.
pub fn has_node(view: &View<'_>, node: &str) -> bool {
    view.keys::<Node>(Index::NodesByDottedName, &dotted(node)).any(|n| &**n == node)
}
