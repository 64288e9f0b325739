//! Where an address means one pod and no other. VPCs may use the same ranges, and what policies
//! match is addresses: were all peers of a rule in one address set, a pod of one VPC would let the
//! pod of another one in that has the same address.
//!
//! The default VPC and all custom ones whose ranges no other VPC has are one realm, named "". Every
//! other VPC is a realm by itself. A policy has groups and sets for each realm in which pods are
//! that it may be about; pods put themselves into those of their own realm. Packets do not get
//! from one VPC into another with their addresses unchanged, so nobody is missed. As long as no
//! ranges overlap there is one realm, and all this costs nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    api::{Index, Ip, Settings, Subnet, Text, Vpc},
    net::Cidr,
    store::View,
};

use super::keys;

/// Subnets whose realm has a name.
pub struct Realms(BTreeMap<Text, Text>);

/// One realm of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realm {
    name: Text,
    /// Appended to identities of rows. The first realm of a policy has none: as long as it has
    /// only one, whichever, its rows are named as ever.
    pub suffix: String,
}

impl Realm {
    /// Appended to names in the database.
    pub fn name_suffix(&self) -> String {
        if self.suffix.is_empty() {
            String::new()
        } else {
            format!(".{:08x}", keys::hash(&self.suffix) as u32)
        }
    }
}

impl Realms {
    pub fn read(view: &View<'_>, settings: &Settings) -> Self {
        if view.keys::<Vpc>(Index::All, "").count() < 2 {
            return Realms(BTreeMap::new());
        }
        let mut ranges: Vec<(Cidr, &str, &str)> = view
            .values::<Subnet>(Index::SubnetRanges, "")
            .filter_map(|value| {
                let mut words = value.split(' ');
                let (vpc, subnet) = (words.next()?, words.next()?);
                Some((words.next()?.parse().ok()?, vpc, subnet))
            })
            .collect();
        let shared = overlapping(&mut ranges);
        let own = |vpc: &str| vpc != &*settings.cluster_router && shared.contains(vpc);
        let named = ranges.iter().filter(|(_, vpc, _)| own(vpc));
        Realms(named.map(|(_, vpc, subnet)| ((*subnet).into(), (*vpc).into())).collect())
    }

    fn of(&self, subnet: &str) -> Text {
        self.0.get(subnet).cloned().unwrap_or_else(|| "".into())
    }

    /// Realms of the pods that a policy may be about: those of a namespace, or all.
    pub fn of_policy(&self, view: &View<'_>, namespace: Option<&str>) -> Vec<Realm> {
        let mut names: BTreeSet<Text> = match namespace {
            // There is only one.
            _ if self.0.is_empty() => BTreeSet::new(),
            Some(namespace) => {
                let subnets = view.values::<Ip>(Index::SubnetsOfNamespace, namespace);
                subnets.map(|subnet| self.of(subnet)).collect()
            }
            None => self.0.values().cloned().chain(["".into()]).collect(),
        };
        if names.is_empty() {
            names.insert("".into());
        }
        let named = names.into_iter().enumerate();
        named
            .map(|(n, name)| {
                let suffix = if n == 0 { String::new() } else { format!("@{name}") };
                Realm { name, suffix }
            })
            .collect()
    }

    /// Whether what a pod has in the subnet belongs to the realm. Networks that are not OVN's have
    /// none: packets come from them by way of others, if at all.
    pub fn holds(&self, realm: &Realm, subnet: &Subnet) -> bool {
        !subnet.is_ovn() || self.0.get(&subnet.name).map_or("", |name| name) == &*realm.name
    }
}

/// VPCs with a range that overlaps one of another VPC.
fn overlapping<'a>(ranges: &mut [(Cidr, &'a str, &'a str)]) -> BTreeSet<&'a str> {
    // A block comes before those in it, so what is open at any time is one inside the other.
    ranges.sort_by_key(|(range, ..)| (range.family(), range.first_number(), range.prefix));
    let mut shared = BTreeSet::new();
    let mut open: Vec<(Cidr, &str)> = Vec::new();
    for (range, vpc, _) in ranges.iter() {
        open.retain(|(outer, _)| outer.contains_cidr(*range));
        for (_, other) in open.iter().filter(|(_, other)| other != vpc) {
            shared.extend([*other, *vpc]);
        }
        open.push((*range, vpc));
    }
    shared
}
