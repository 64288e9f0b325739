//! Identities of rows that more than one feature refers to, and the names that users see.

use crate::{
    net::Mac,
    ovsdb::{row::RowKey, schema::nb},
};

pub fn router(vpc: &str) -> RowKey {
    RowKey::new(&nb::LOGICAL_ROUTER, "vpc", vpc, "router")
}

pub fn switch(subnet: &str) -> RowKey {
    RowKey::new(&nb::LOGICAL_SWITCH, "subnet", subnet, "switch")
}

/// All overlay pods of the default VPC on a node: `node.<node>`.
pub fn node_ports(node: &str) -> RowKey {
    RowKey::new(&nb::PORT_GROUP, "node", node, "ports")
}

/// Pods of a distributed subnet on a node: `<subnet>.<node>`.
pub fn subnet_node_ports(subnet: &str, node: &str) -> RowKey {
    RowKey::new(&nb::PORT_GROUP, "subnet-gateway", subnet, node)
}

/// `<vpc>-<subnet>`.
pub fn router_port_name(vpc: &str, subnet: &str) -> String {
    format!("{vpc}-{subnet}")
}

/// `<subnet>-<vpc>`.
pub fn switch_port_name(vpc: &str, subnet: &str) -> String {
    format!("{subnet}-{vpc}")
}

/// A stable MAC for something that has no recorded one: derived from its name, so that a rebuilt
/// NB gives every pod the gateway MAC that its neighbour table already holds.
pub fn stable_mac(name: &str) -> Mac {
    Mac::local(hash(name))
}

/// 64 bits of SHA-256.
pub fn hash(text: &str) -> u64 {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(text.as_bytes());
    digest.iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b))
}

/// Port group names of (subnet, node). Dashes become dots, which is not injective: when another
/// pair would get the same name, all but the first pair in order get a hash suffix.
pub fn subnet_node_group_name(
    subnet: &str,
    node: &str,
    subnets: &[&str],
    nodes: &[&str],
) -> String {
    let dotted = |t: &str| t.replace('-', ".");
    let name = format!("{}.{}", dotted(subnet), dotted(node));
    let clash = subnets.iter().any(|s| {
        let Some(rest) = name.strip_prefix(&dotted(s)).and_then(|r| r.strip_prefix('.')) else {
            return false;
        };
        nodes.iter().any(|n| (*s, *n) < (subnet, node) && dotted(n) == rest)
    });
    // A subnet called `node` would share the name of the node groups.
    if clash || subnet == "node" {
        return format!("{name}.{:08x}", hash(&format!("{subnet}/{node}")) as u32);
    }
    name
}

/// Name of a node's port group, with a hash suffix when an earlier node maps to the same name.
pub fn node_group_name(node: &str, nodes: &[&str]) -> String {
    let dotted = |t: &str| t.replace('-', ".");
    let name = format!("node.{}", dotted(node));
    if nodes.iter().any(|n| *n < node && dotted(n) == dotted(node)) {
        return format!("{name}.{:08x}", hash(node) as u32);
    }
    name
}
