//! Pure, one file per OVN feature: View -> facts. The registry is [`FEATURES`].

pub mod acl;
mod admin_policy;
mod external;
mod external_gateway;
mod global;
pub mod keys;
pub mod load_balancer;
pub mod members;
mod namespace;
mod network_policy;
pub mod networks;
mod node;
mod node_gateway;
pub mod placement;
mod pod;
mod pod_external;
mod pod_rate;
mod policy;
mod policy_exemption;
mod policy_member;
mod realm;
mod retained;
mod route;
pub mod security;
mod security_group;
mod service;
mod service_backends;
mod subnet;
mod subnet_acl;
mod subnet_dhcp;
mod subnet_gateway;
mod subnet_multicast;
mod subnet_vip;
mod unplugged;
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
    Feature { name: "subnet-dhcp", owner: Kind::Subnet, desired: subnet_dhcp::desired },
    Feature { name: "subnet-multicast", owner: Kind::Subnet, desired: subnet_multicast::desired },
    Feature { name: "subnet-vip", owner: Kind::Subnet, desired: subnet_vip::desired },
    Feature { name: "node", owner: Kind::Node, desired: node::desired },
    Feature { name: "node-gateway", owner: Kind::Node, desired: node_gateway::desired },
    Feature { name: "namespace", owner: Kind::Namespace, desired: namespace::desired },
    Feature {
        name: "security-group",
        owner: Kind::SecurityGroup,
        desired: security_group::desired,
    },
    Feature {
        name: "external-gateway",
        owner: Kind::ExternalGateway,
        desired: external_gateway::desired,
    },
    Feature { name: "pod", owner: Kind::Pod, desired: pod::desired },
    Feature {
        name: "network-policy",
        owner: Kind::NetworkPolicy,
        desired: network_policy::desired,
    },
    Feature { name: "policy-member", owner: Kind::Pod, desired: policy_member::desired },
    Feature { name: "policy-exemption", owner: Kind::Settings, desired: policy_exemption::of_all },
    Feature { name: "policy-gateway", owner: Kind::Subnet, desired: policy_exemption::of_subnet },
    Feature { name: "policy-node", owner: Kind::Node, desired: policy_exemption::of_node },
    Feature { name: "service", owner: Kind::Service, desired: service::desired },
    Feature { name: "retained", owner: Kind::Ip, desired: retained::desired },
    Feature {
        name: "admin-network-policy",
        owner: Kind::AdminNetworkPolicy,
        desired: admin_policy::of_admin,
    },
    Feature {
        name: "baseline-admin-network-policy",
        owner: Kind::BaselineAdminNetworkPolicy,
        desired: admin_policy::of_baseline,
    },
    Feature { name: "admin-policy-node", owner: Kind::Node, desired: admin_policy::of_node },
];

/// `vendor=kube-ovn`, the mark by which users and upstream's tools know our rows.
pub const VENDOR: (&str, &str) = ("vendor", crate::api::names::VENDOR);
