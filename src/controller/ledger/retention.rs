//! Whose a record is, and whether it outlives its pod.

use std::collections::BTreeSet;

use crate::{
    api::{
        Ip, Kind, Namespace, Settings, StatefulSet, Subnet, Text, VirtualMachine,
        VirtualMachineInstance, names,
    },
    ovn::placement,
    store::{Owner, Store, View},
};

/// Something that may hold an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claimant {
    /// `namespace/name`.
    Pod(Text),
    /// A virtual machine, `namespace/name`: its pods, old and new, share its addresses.
    Machine(Text),
    Node(Text),
    /// An IP object made by hand that waits for its address; by its name.
    Reservation(Text),
    /// The multicast querier of a subnet.
    Querier(Text),
}

/// First part of a machine's name as owner in the allocator; no namespace has capitals.
const MACHINE: &str = "VirtualMachine/";
const SUBNET: &str = "Subnet/";

/// Who an IP object belongs to.
pub fn claimant_of(ip: &Ip) -> Claimant {
    let key = || format!("{}/{}", ip.namespace, ip.pod_name).into();
    if ip.namespace.is_empty() {
        Claimant::Node(ip.pod_name.clone())
    } else if *ip.name == names::mcast_querier_port(&ip.subnet) {
        Claimant::Querier(ip.subnet.clone())
    } else if &*ip.pod_type == "VirtualMachine" {
        Claimant::Machine(key())
    } else {
        Claimant::Pod(key())
    }
}

impl Claimant {
    /// Its name in the allocator, which users meet in messages about conflicts.
    pub fn holder(&self) -> Text {
        match self {
            Claimant::Pod(key) => key.clone(),
            Claimant::Machine(key) => format!("{MACHINE}{key}").into(),
            Claimant::Node(name) => names::node_port(name).into(),
            Claimant::Reservation(name) => name.clone(),
            Claimant::Querier(subnet) => format!("{SUBNET}{subnet}").into(),
        }
    }

    /// The inverse of [`Claimant::holder`].
    pub fn of_holder(holder: &str) -> Self {
        if let Some(key) = holder.strip_prefix(MACHINE) {
            Claimant::Machine(key.into())
        } else if let Some(subnet) = holder.strip_prefix(SUBNET) {
            Claimant::Querier(subnet.into())
        } else if holder.contains('/') {
            Claimant::Pod(holder.into())
        } else {
            Claimant::Node(holder.strip_prefix("node-").unwrap_or(holder).into())
        }
    }

    /// Under which name problems and wishes of the claimant are published.
    pub fn owner(&self) -> Owner {
        let (kind, key) = match self {
            Claimant::Pod(key) => (Kind::Pod, key),
            Claimant::Machine(key) => (Kind::VirtualMachine, key),
            Claimant::Node(key) => (Kind::Node, key),
            Claimant::Reservation(key) => (Kind::Ip, key),
            Claimant::Querier(key) => (Kind::Subnet, key),
        };
        Owner { feature: "allocate", kind, key: key.clone() }
    }
}

/// Whether the record stays although no pod uses it: it was reserved, or the StatefulSet or virtual
/// machine that it belongs to will ask for it again. `listed` are the kinds whose objects are all
/// known; what is not known keeps its address.
pub fn is_kept(store: &Store, ip: &Ip, listed: &BTreeSet<Kind>) -> bool {
    if ip.reserved {
        return true;
    }
    match &*ip.pod_type {
        "StatefulSet" => set_keeps(store, ip),
        "VirtualMachine" => machine_keeps(store, ip, listed),
        _ => false,
    }
}

fn set_keeps(store: &Store, ip: &Ip) -> bool {
    let Some(name) = ip.stateful_set() else { return false };
    let set = store.get::<StatefulSet>(&format!("{}/{name}", ip.namespace));
    let Some(set) = set.filter(|s| !s.deleting && s.position(&ip.pod_name).is_some()) else {
        return false;
    };
    still_inside(store, ip) && (placement::provider_of(ip) != "ovn" || still_bound(store, ip, set))
}

fn machine_keeps(store: &Store, ip: &Ip, listed: &BTreeSet<Kind>) -> bool {
    let kept = store.get::<Settings>("").is_some_and(|s| s.keep_vm_ip);
    let key = format!("{}/{}", ip.namespace, ip.pod_name);
    let known = [Kind::VirtualMachine, Kind::VirtualMachineInstance];
    let machine = store.get::<VirtualMachine>(&key).is_some_and(|m| !m.deleting);
    let instance = store.get::<VirtualMachineInstance>(&key).is_some_and(|m| !m.deleting);
    let all_known = known.iter().all(|kind| listed.contains(kind));
    kept && (!all_known || machine || instance) && still_inside(store, ip)
}

/// Whether the addresses are those of the subnet as it is, and as it is to become.
fn still_inside(store: &Store, ip: &Ip) -> bool {
    let Some(subnet) = store.get::<Subnet>(&ip.subnet) else { return true };
    subnet.keeps(&ip.addresses)
}

/// Whether the next pod of the set would be placed in the same subnet.
fn still_bound(store: &Store, ip: &Ip, set: &StatefulSet) -> bool {
    if let Some(subnet) = &set.subnet {
        return *subnet == ip.subnet;
    }
    let Some(namespace) = store.get::<Namespace>(&ip.namespace) else { return true };
    let view = View::new(store);
    placement::namespace_subnets(&view, namespace).iter().any(|s| s.name == ip.subnet)
}
