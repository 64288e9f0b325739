//! Raw Kubernetes objects -> the validated ones of [`super::object`]. Pure, and total: whatever
//! the object holds, the answer is a value or a list of findings.

mod admin_policy;
mod annotations;
mod conflict;
mod dhcp;
mod external;
mod findings;
mod in_force;
mod ip;
mod namespace;
mod nat_policy;
mod network_policy;
mod networks;
mod node;
mod pod;
mod security_group;
mod service;
mod subnet;
mod subnet_acls;
mod subnet_default;
mod subnet_rules;
mod vpc;
mod workload;

pub use admin_policy::{parse_admin_network_policy, parse_baseline_admin_network_policy};
pub use annotations::{PoolWish, fixed_addresses, is_ours, parse_pool_wish};
pub use conflict::{conflicts, node_conflicts, precedes, vpc_conflicts};
pub use external::parse_external_gateway;
pub use findings::reason;
pub use in_force::{accepted_subnet, parse_accepted_subnet};
pub use ip::{parse_ip, parse_ippool};
pub use namespace::parse_namespace;
pub use nat_policy::applied_nat_rules;
pub use network_policy::parse_network_policy;
pub use networks::{NetworkRequest, PodNetworks, parse_pod_networks};
pub use node::parse_node;
pub use pod::parse_pod;
pub use security_group::parse_security_group;
pub use service::{SESSION_SECONDS, parse_endpoint_slice, parse_service, parse_service_cidr};
pub use subnet::parse_subnet;
pub use subnet_default::{defaulted_subnet_spec, subnet_defaults};
pub use vpc::parse_vpc;
pub use workload::{
    parse_attachment, parse_stateful_set, parse_virtual_machine, parse_virtual_machine_instance,
};

use std::collections::BTreeMap;

use super::{Map, Text};

fn text(value: Option<&String>) -> Text {
    value.map(String::as_str).unwrap_or_default().into()
}

/// `None` for an empty text.
fn filled(value: &str) -> Option<Text> {
    (!value.is_empty()).then(|| value.into())
}

fn texts(values: &[String]) -> Vec<Text> {
    values.iter().map(|v| v.as_str().into()).collect()
}

fn map(values: Option<&BTreeMap<String, String>>) -> Map {
    values.into_iter().flatten().map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect()
}

/// Items of a comma list, trimmed, blanks left out.
fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}
