use k8s_openapi::api::core::v1 as core;
use kube::ResourceExt;

use crate::api::{
    Pod, PodLife, PodOwner,
    policy::{NamedPort, Protocol},
};

use super::{
    annotations::{annotation_findings, ours},
    filled, map, text,
};

/// A pod. Findings about its annotations are part of it; those of hostNetwork pods concern
/// nobody.
pub fn parse_pod(raw: &core::Pod) -> Pod {
    let spec = raw.spec.as_ref();
    let host_network = spec.and_then(|s| s.host_network).unwrap_or(false);
    let annotations = ours(raw.metadata.annotations.as_ref());
    let invalid = if host_network { Vec::new() } else { annotation_findings(&annotations) };
    Pod {
        namespace: text(raw.metadata.namespace.as_ref()),
        name: raw.name_any().into(),
        uid: text(raw.metadata.uid.as_ref()),
        node: spec.and_then(|s| filled(s.node_name.as_deref()?)),
        host_network,
        life: life(raw),
        labels: map(raw.metadata.labels.as_ref()),
        annotations,
        owner: owner(raw),
        ports: named_ports(raw),
        invalid,
    }
}

/// Named ports of the containers that run beside each other: the ordinary ones, and init containers
/// that are restarted (side-cars).
fn named_ports(raw: &core::Pod) -> Vec<NamedPort> {
    let Some(spec) = &raw.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let named = ports.filter_map(|port| {
        Some(NamedPort {
            name: filled(port.name.as_deref()?)?,
            protocol: Protocol::parse(port.protocol.as_deref())?,
            number: u16::try_from(port.container_port).ok().filter(|n| *n > 0)?,
        })
    });
    let mut all: Vec<NamedPort> = named.collect();
    all.sort();
    all.dedup();
    all
}

/// Whether the pod's network is in use. A terminating pod keeps its network until it has ended or
/// is gone, however long that takes: on a node that cannot be reached its containers may run on.
fn life(raw: &core::Pod) -> PodLife {
    let restart = raw.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    let status = raw.status.as_ref();
    let ended = match status.and_then(|s| s.phase.as_deref()) {
        Some("Succeeded") => restart != "Always",
        // Final, whatever the restart policy: what kubelets refuse (OutOfcpu), evict or end when
        // the node shuts down stays as an object for days. Upstream knew evicted ones only, and the
        // others kept their addresses.
        Some("Failed") => true,
        _ => false,
    };
    if ended {
        PodLife::Ended
    } else if raw.metadata.deletion_timestamp.is_some() {
        PodLife::Terminating
    } else {
        PodLife::Alive
    }
}

/// The controlling owner, else the first one named.
fn owner(raw: &core::Pod) -> Option<PodOwner> {
    let owners = raw.owner_references();
    let owner = owners.iter().find(|o| o.controller == Some(true)).or_else(|| owners.first())?;
    Some(PodOwner {
        api_version: owner.api_version.as_str().into(),
        kind: owner.kind.as_str().into(),
        name: owner.name.as_str().into(),
        uid: owner.uid.as_str().into(),
    })
}
