//! Which attachments nobody needs any more. Pure.
//!
//! Live pods are never touched: what has a request under way stays, and of the two ways to know
//! better each needs proof. The runtime's list (CNI GC) is one. Without it a NIC goes only when its
//! pod is not in the API *and* its namespace is gone from where the runtime keeps it: a pod object
//! may vanish (forced deletion) long before its sandbox, and a missing file alone may just not be
//! mounted here.

use std::collections::BTreeSet;

use crate::{
    api::{
        Kind, Pod, Text,
        names::{DEFAULT_PROVIDER, port_name},
    },
    host::OvsPort,
    net::Link,
};

use super::{ovs_rows::IFACE_ID, state::State};

/// Where runtimes keep the namespaces of pods, as both spell it.
const NETNS_FOLDERS: [&str; 2] = ["/var/run/netns/", "/run/netns/"];

/// How it is known what is needed.
pub enum Proof<'a> {
    /// The attachments of one network that the runtime still has, by their host ends.
    Runtime { provider: &'a str, valid: &'a BTreeSet<Text> },
    /// Pods and namespaces.
    Absence { pod: &'a (dyn Fn(&OvsPort) -> bool + Sync), netns: &'a (dyn Fn(&str) -> bool + Sync) },
}

/// Host ends of attachments to remove, of `ports` (of pods) and `links` (of the host); none of
/// `spared`: those with a request under way, and ports that came while the links were listed.
pub fn garbage(
    ports: &[OvsPort],
    links: &[Link],
    spared: &BTreeSet<Text>,
    proof: &Proof<'_>,
) -> BTreeSet<Text> {
    let present: BTreeSet<&str> = links.iter().map(|l| &*l.name).collect();
    let needless = |port: &&OvsPort| match proof {
        Proof::Runtime { valid, .. } if valid.contains(&port.name) => false,
        // A veth dies with its namespace, so its absence proves that the sandbox is gone.
        _ if !present.contains(&*port.name) => true,
        Proof::Runtime { provider, .. } => provider_of(port) == *provider,
        Proof::Absence { pod, netns } => {
            let path = port.external_ids.get("pod_netns").map_or("", |path| path);
            let kept_there = NETNS_FOLDERS.iter().any(|folder| path.starts_with(folder));
            kept_there && !pod(port) && !netns(path)
        }
    };
    let mut found: BTreeSet<Text> =
        ports.iter().filter(needless).map(|port| port.name.clone()).collect();
    if let Proof::Runtime { provider: DEFAULT_PROVIDER, valid } = proof {
        let known: BTreeSet<&str> = ports.iter().map(|port| &*port.name).collect();
        let left = links.iter().filter(|l| &*l.kind == "veth" && is_first_nic(&l.name));
        let left = left.filter(|l| !known.contains(&*l.name) && !valid.contains(&l.name));
        found.extend(left.map(|l| l.name.clone()));
    }
    found.retain(|name| !spared.contains(name));
    found
}

/// The name of a host end of `eth0`, which only the default network has: an ADD that was killed
/// leaves it without a port. (Of others it could not be told whose they are.)
fn is_first_nic(name: &str) -> bool {
    let id = name.strip_suffix("_h");
    id.is_some_and(|id| id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The provider in a port's iface-id.
fn provider_of(port: &OvsPort) -> &str {
    let get = |key: &str| port.external_ids.get(key).map_or("", |text| text);
    // A later sandbox may have taken the iface-id over: then it is not known.
    let id = get(IFACE_ID);
    let own = port_name(get("pod_name"), get("pod_namespace"), DEFAULT_PROVIDER);
    match id.strip_prefix(own.as_str()) {
        Some("") => DEFAULT_PROVIDER,
        Some(rest) => rest.strip_prefix('.').unwrap_or(""),
        None => "",
    }
}

/// Whether the API knows the pod of a port, or one of its virtual machine. Before all pods are
/// listed every one may be there.
pub fn has_pod(state: &State, port: &OvsPort) -> bool {
    let get = |key: &str| port.external_ids.get(key).map_or("", |text| text);
    let (namespace, name) = (get("pod_namespace"), get("pod_name"));
    let is_it = |pod: &Pod| {
        let machine = pod.machine().is_some_and(|machine| &**machine == name);
        &*pod.namespace == namespace && (&*pod.name == name || machine)
    };
    !state.synced.contains(&Kind::Pod) || state.store.iter::<Pod>().any(is_it)
}
