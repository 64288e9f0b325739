//! Identities of rows that more than one feature refers to, and the names that users see.

use std::collections::BTreeMap;

use crate::{
    api::{Index, Node, Subnet, Text, dotted},
    net::Mac,
    ovsdb::{row::RowKey, schema::nb},
    store::View,
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

/// All nodes by dotted name, to see which names of port groups clash.
pub struct NodeNames<'a>(BTreeMap<String, Vec<&'a Text>>);

impl<'a> NodeNames<'a> {
    pub fn read(view: &View<'a>) -> Self {
        let mut names: BTreeMap<String, Vec<&Text>> = BTreeMap::new();
        for node in view.keys::<Node>(Index::All, "") {
            names.entry(dotted(node)).or_default().push(node);
        }
        NodeNames(names)
    }

    pub fn iter(&self) -> impl Iterator<Item = &'a Text> {
        self.0.values().flatten().copied()
    }

    fn of(&self, dotted: &str) -> &[&'a Text] {
        self.0.get(dotted).map_or(&[], Vec::as_slice)
    }
}

/// Name of the port group of (subnet, node). Dashes become dots, which is not injective: pairs that
/// would get the same name all get a hash suffix. Were one of them spared, it and the newcomer
/// would have to swap names, which no order of single transactions allows.
pub fn subnet_node_group_name(
    view: &View<'_>,
    subnet: &str,
    node: &str,
    nodes: &NodeNames<'_>,
) -> String {
    let name = format!("{}.{}", dotted(subnet), dotted(node));
    let another_pair = |(dot, _): (usize, &str)| {
        let others = nodes.of(&name[dot + 1..]);
        !others.is_empty()
            && view
                .keys::<Subnet>(Index::SubnetsByDottedName, &name[..dot])
                .any(|s| others.iter().any(|n| (&**s, &***n) != (subnet, node)))
    };
    // Those names belong to the groups of nodes.
    if name.starts_with("node.") || name.match_indices('.').any(another_pair) {
        return format!("{name}.{:08x}", hash(&format!("{subnet}/{node}")) as u32);
    }
    name
}

/// Name of a node's port group, with a hash suffix when another node maps to the same name.
pub fn node_group_name(view: &View<'_>, node: &str) -> String {
    let dotted = dotted(node);
    let name = format!("node.{dotted}");
    if view.keys::<Node>(Index::NodesByDottedName, &dotted).any(|n| &**n != node) {
        return format!("{name}.{:08x}", hash(node) as u32);
    }
    name
}

/// Whether the node exists. Reads no content: a node that changes does not re-run its pods.
pub fn has_node(view: &View<'_>, node: &str) -> bool {
    view.keys::<Node>(Index::NodesByDottedName, &dotted(node)).any(|n| &**n == node)
}
