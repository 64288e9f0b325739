//! How a pod contributes to policies: see [`crate::api::policy`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    api::{
        Index, Ip, Map, Namespace, Pod, Service, Settings, Subnet, Text,
        policy::{Gives, Selecting, Selection, pod_hints},
        service_bucket,
    },
    net::{Cidr, Family},
    ovsdb::{
        row::{Element, Fact, RowKey},
        schema::nb,
    },
    store::View,
};

use super::{
    acl, keys, placement,
    realm::{Realm, Realms},
};

/// A pod with all that selections look at.
pub struct Member<'a> {
    pub pod: &'a Pod,
    settings: &'a Settings,
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
        let namespace_labels = namespace.map(|n| &n.labels);
        Some(Member { pod, settings, namespace_labels, networks })
    }

    /// Ports of the pod: its networks that OVN makes.
    pub fn ports(&self) -> impl Iterator<Item = RowKey> {
        ports(self.networks.iter())
    }

    /// What the pod gives to all objects of a kind that select it. `feature` makes their rows.
    pub fn contributions<T: Selecting>(&self, view: &View<'a>, feature: &str) -> Vec<Given> {
        let mut keys: BTreeSet<&Text> = BTreeSet::new();
        for hint in pod_hints(self.pod, self.namespace_labels) {
            keys.extend(view.keys::<T>(Index::Selections, &hint));
        }
        if keys.is_empty() {
            return Vec::new();
        }
        let realms = Realms::read(view, self.settings);
        let mut by_namespace: BTreeMap<Option<&str>, Vec<Realm>> = BTreeMap::new();
        let mut all = Vec::new();
        for key in keys {
            let Some(object) = view.get::<T>(key) else { continue };
            let namespace = object.namespace();
            let of_policy =
                by_namespace.entry(namespace).or_insert_with(|| realms.of_policy(view, namespace));
            let selections = object.selections().iter();
            for selection in selections.filter(|s| s.matches(self.pod, self.namespace_labels)) {
                for realm in of_policy.iter() {
                    let here = |(_, subnet): &&(&Ip, &Subnet)| realms.holds(realm, subnet);
                    let rows = Rows {
                        feature,
                        key,
                        suffix: &realm.suffix,
                        networks: self.networks.iter().filter(here).collect(),
                    };
                    self.give(view, selection, &rows, &mut all);
                }
            }
        }
        all
    }

    fn give(&self, view: &View<'a>, selection: &Selection, rows: &Rows<'_>, all: &mut Vec<Given>) {
        let slot = &selection.slot;
        if selection.gives == Gives::Port {
            let ports = ports(rows.networks.iter().copied());
            all.extend(ports.map(|port| Given::Port(rows.group(slot), port)));
            return;
        }
        let addresses = rows.networks.iter().flat_map(|(ip, _)| ip.addresses.iter());
        let addresses: Vec<(Family, IpAddr)> = addresses
            .filter(|(_, address)| {
                let inside = |block: &Cidr| block.contains(**address);
                selection.within.as_ref().is_none_or(|blocks| blocks.iter().any(inside))
            })
            .map(|(family, address)| (family, *address))
            .collect();
        let mut add = |slot: &str, addresses: &[(Family, IpAddr)]| {
            let given = addresses.iter();
            all.extend(given.map(|(family, ip)| Given::Address(rows.set(slot, *family), *ip)));
        };
        match &selection.gives {
            Gives::AddressesOf(protocol, name) => {
                let ports = self.pod.ports.iter();
                for port in ports.filter(|p| p.protocol == *protocol && p.name == *name) {
                    add(&format!("{slot}/{}", port.number), &addresses);
                }
            }
            Gives::AddressesAndServices if !addresses.is_empty() => {
                add(slot, &addresses);
                add(slot, &self.cluster_ips(view));
            }
            Gives::Addresses | Gives::AddressesAndServices | Gives::Port => add(slot, &addresses),
        }
    }

    /// Cluster IPs behind which the pod may be. A pod on a switch without load balancers asks for
    /// them, and its node finds the endpoint: whoever may reach an endpoint may ask. (Ports are
    /// those of the Service then, as with upstream.) Nothing while all switches balance. A Service
    /// without a selector is nobody's; upstream took it for everybody's.
    fn cluster_ips(&self, view: &View<'a>) -> Vec<(Family, IpAddr)> {
        let all_balance =
            view.values::<Subnet>(Index::SubnetsWithoutBalancing, "").next().is_none();
        if all_balance && self.settings.enable_lb {
            return Vec::new();
        }
        let labels = &self.pod.labels;
        let selecting = labels.iter().flat_map(|(key, value)| {
            let bucket = service_bucket(&self.pod.namespace, key, value);
            view.list::<Service>(Index::ServicesBySelector, &bucket)
        });
        let selecting =
            selecting.filter(|s| s.selector.iter().all(|(k, v)| labels.get(k) == Some(v)));
        let ips = selecting.flat_map(|service| service.cluster_ips.iter());
        ips.map(|ip| (Family::of(*ip), *ip)).collect()
    }
}

/// Ports among networks: those of OVN subnets.
fn ports<'n, 'a: 'n>(
    networks: impl Iterator<Item = &'n (&'a Ip, &'a Subnet)>,
) -> impl Iterator<Item = RowKey> {
    let ours = networks.filter(|(ip, subnet)| subnet.is_ovn() && ip.mac.is_some());
    ours.map(|(ip, _)| keys::pod_port(&ip.name))
}

/// Rows of a policy in one realm, and the networks that a pod has there.
struct Rows<'r> {
    feature: &'r str,
    key: &'r str,
    suffix: &'r str,
    networks: Vec<&'r (&'r Ip, &'r Subnet)>,
}

impl Rows<'_> {
    fn group(&self, slot: &str) -> RowKey {
        let slot = format!("{slot}{}", self.suffix);
        RowKey::new(&nb::PORT_GROUP, self.feature, self.key, &slot)
    }

    fn set(&self, slot: &str, family: Family) -> RowKey {
        acl::set_key(self.feature, self.key, &format!("{slot}{}", self.suffix), family)
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
