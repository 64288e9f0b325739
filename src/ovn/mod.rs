//! Pure, one file per OVN feature: View -> facts. The registry is [`FEATURES`].

mod global;
pub mod keys;
mod namespace;
mod node;
mod node_gateway;
pub mod placement;
mod pod;
mod policy;
mod route;
pub mod security;
mod security_group;
mod subnet;
mod subnet_acl;
mod subnet_gateway;
pub mod validity;
mod vpc;

use crate::{api::Kind, store::Feature};

/// Every feature of the controller. Adding one: a file here, a line here, cases in `tests/cases`.
pub static FEATURES: &[Feature] = &[
    Feature { name: "global", owner: Kind::Settings, desired: global::desired },
    Feature { name: "vpc", owner: Kind::Vpc, desired: vpc::desired },
    Feature { name: "subnet", owner: Kind::Subnet, desired: subnet::desired },
    Feature { name: "subnet-gateway", owner: Kind::Subnet, desired: subnet_gateway::desired },
    Feature { name: "subnet-acl", owner: Kind::Subnet, desired: subnet_acl::desired },
    Feature { name: "node", owner: Kind::Node, desired: node::desired },
    Feature { name: "node-gateway", owner: Kind::Node, desired: node_gateway::desired },
    Feature { name: "namespace", owner: Kind::Namespace, desired: namespace::desired },
    Feature {
        name: "security-group",
        owner: Kind::SecurityGroup,
        desired: security_group::desired,
    },
    Feature { name: "pod", owner: Kind::Pod, desired: pod::desired },
];

/// `vendor=kube-ovn`, the mark by which users and upstream's tools know our rows.
pub const VENDOR: (&str, &str) = ("vendor", crate::api::names::VENDOR);
