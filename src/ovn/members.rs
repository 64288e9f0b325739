//! How a pod contributes to policies: see [`crate::api::policy`].

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    api::{
        Index, Ip, Map, Namespace, Pod, Settings, Subnet, Text,
        policy::{Gives, Selecting, Selection, pod_hints},
    },
    net::Family,
    ovsdb::{
        row::{Element, Fact, RowKey},
        schema::nb,
    },
    store::View,
};

use super::{acl, keys, placement};

/// A pod with all that selections look at.
pub struct Member<'a> {
    pub pod: &'a Pod,
    namespace_labels: Option<&'a Map>,
    pub networks: Vec<(&'a Ip, &'a Subnet)>,
}

impl<'a> Member<'a> {
    /// `None` for a pod that has no address of ours.
    pub fn read(view: &View<'a>, key: &str) -> Option<Self> {
        let (pod, settings) = (view.get::<Pod>(key)?, view.get::<Settings>("")?);
        let networks = placement::pod_networks(view, pod, settings);
        if networks.is_empty() {
            return None;
        }
        let namespace = view.get::<Namespace>(&pod.namespace);
        Some(Member { pod, namespace_labels: namespace.map(|n| &n.labels), networks })
    }

    /// Ports of the pod: its networks that OVN makes.
    pub fn ports(&self) -> impl Iterator<Item = RowKey> + '_ {
        let ours = self.networks.iter().filter(|(ip, subnet)| subnet.is_ovn() && ip.mac.is_some());
        ours.map(|(ip, _)| keys::pod_port(&ip.name))
    }

    fn addresses(&self) -> impl Iterator<Item = (Family, &'a IpAddr)> + '_ {
        self.networks.iter().flat_map(|(ip, _)| ip.addresses.iter())
    }

    /// What the pod gives to all objects of a kind that select it. `feature` makes their rows.
    pub fn contributions<T: Selecting>(&self, view: &View<'a>, feature: &str) -> Vec<Given> {
        let mut keys: BTreeSet<&Text> = BTreeSet::new();
        for hint in pod_hints(self.pod, self.namespace_labels) {
            keys.extend(view.keys::<T>(Index::Selections, &hint));
        }
        let mut all = Vec::new();
        for key in keys {
            let Some(object) = view.get::<T>(key) else { continue };
            for selection in object.selections() {
                if selection.matches(self.pod, self.namespace_labels) {
                    self.give(selection, (feature, key), &mut all);
                }
            }
        }
        all
    }

    fn give(&self, selection: &Selection, owner: (&str, &str), all: &mut Vec<Given>) {
        let (feature, key) = owner;
        let slot = &selection.slot;
        if selection.gives == Gives::Port {
            let group = RowKey::new(&nb::PORT_GROUP, feature, key, slot);
            all.extend(self.ports().map(|port| Given::Port(group.clone(), port)));
            return;
        }
        let mut add = |slot: &str| {
            for (family, address) in self.addresses() {
                let inside = |blocks: &Vec<_>| {
                    blocks.iter().any(|b: &crate::net::Cidr| b.contains(*address))
                };
                if selection.within.as_ref().is_none_or(inside) {
                    all.push(Given::Address(acl::set_key(feature, key, slot, family), *address));
                }
            }
        };
        match &selection.gives {
            Gives::AddressesOf(protocol, name) => {
                let ports = self.pod.ports.iter();
                for port in ports.filter(|p| p.protocol == *protocol && p.name == *name) {
                    add(&format!("{slot}/{}", port.number));
                }
            }
            Gives::Addresses | Gives::Port => add(slot),
        }
    }
}

/// One thing that a pod puts into a row of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// A port, into a port group.
    Port(RowKey, RowKey),
    /// An address, into an address set.
    Address(RowKey, IpAddr),
}

impl Given {
    pub fn fact(self) -> Fact {
        match self {
            Given::Port(group, port) => member(group, port),
            Given::Address(set, address) => acl::address_member(set, &address),
        }
    }
}

/// A port as member of a port group.
pub fn member(group: RowKey, port: RowKey) -> Fact {
    Fact::Member { row: group, column: nb::port_group::PORTS, element: Element::Row(port) }
}
