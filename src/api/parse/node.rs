use k8s_openapi::api::core::v1 as core;
use kube::ResourceExt;

use crate::{
    api::Node,
    net::{DualStack, Family, parse_ip},
};

use super::{annotations::ours, map, text};

/// A node. The first InternalIP of each family counts; texts that are no address are passed over.
pub fn parse_node(raw: &core::Node) -> Node {
    let status = raw.status.as_ref();
    let mut internal_ips = DualStack::default();
    let addresses = status.and_then(|s| s.addresses.as_ref()).into_iter().flatten();
    for address in addresses.filter(|a| a.type_ == "InternalIP") {
        if let Ok(ip) = parse_ip(&address.address)
            && internal_ips.get(Family::of(ip)).is_none()
        {
            internal_ips.set(Family::of(ip), Some(ip));
        }
    }
    let conditions = || status.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    Node {
        name: raw.name_any().into(),
        uid: text(raw.metadata.uid.as_ref()),
        labels: map(raw.metadata.labels.as_ref()),
        annotations: ours(raw.metadata.annotations.as_ref()),
        internal_ips,
        created: raw.creation_timestamp().map_or(0, |t| t.0.as_second()),
        ready: conditions().any(|c| c.type_ == "Ready" && c.status == "True"),
        userspace: conditions().any(|c| {
            c.type_ == "OpenvSwitchDatapath" && c.reason.as_deref() == Some("UserspaceDatapath")
        }),
    }
}
