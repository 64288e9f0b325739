//! Pure address allocator: which port holds which addresses and MAC, per subnet and pool.
//!
//! It keeps no time, no randomness and no files: restart means a new [`Ipam`], [`Ipam::upsert_subnet`]
//! and [`Ipam::upsert_pool`] for every Subnet and IPPool, then [`Ipam::restore`] for every IP CR.
//! The caller keeps two orders, which together make any crash harmless (tests/pure/ipam_crash.rs):
//!
//! 1. an allocation is recorded in its IP CR before anybody uses the address;
//! 2. the IP CR is deleted before [`Ipam::release`].
//!
//! Rules (the manual's chapter on IPAM):
//!
//! * The address given without a wish is the lowest free one. A released address is not given
//!   again before all never-used ones of its pool are gone; then all released ones are free again.
//! * Network and broadcast (first and last address of a prefix with more than one host bit) and the
//!   gateway are never given; both addresses of a /31 or /127 are usable.
//! * A port that asks again gets what it holds. A port is in one subnet at a time.
//! * A call that fails changes nothing.
//!
//! Sets of addresses are ranges, so a /64 costs as much as a /30.

mod choose;
mod error;
mod request;
mod space;
mod subnet;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

pub use error::IpamError;
pub use request::{
    Allocation, Conflicts, MacWish, NodeAddresses, Record, Request, SubnetSpec, Usage, Wish,
    expand_excludes,
};

use crate::{
    api::Text,
    net::{DualStack, Family, IpRange, RangeSet, ip_number},
};

use subnet::{Pending, SubnetSpace};

/// The addresses of all subnets.
#[derive(Debug, Clone, Default)]
pub struct Ipam {
    subnets: BTreeMap<Text, SubnetSpace>,
    /// Pool -> subnet. Pool names are cluster-wide.
    pools: BTreeMap<Text, Text>,
    /// Port -> subnet.
    ports: HashMap<Text, Text>,
    /// Pod key -> ports, for release by pod.
    owners: BTreeMap<Text, BTreeSet<Text>>,
    /// Addresses of nodes, by family.
    avoided: DualStack<RangeSet>,
}

impl Ipam {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a subnet or changes it. Allocations stay; a change that would leave an allocated
    /// address or a pool entry outside is refused and nothing is changed.
    pub fn upsert_subnet(&mut self, spec: SubnetSpec) -> Result<(), IpamError> {
        spec.check()?;
        let name = spec.name.clone();
        match self.subnets.get_mut(&name) {
            Some(subnet) => subnet.change(spec, &self.avoided),
            None => {
                self.subnets.insert(name, SubnetSpace::new(spec, &self.avoided));
                Ok(())
            }
        }
    }

    /// Whether [`Ipam::upsert_subnet`] would be refused; changes nothing.
    pub fn check_subnet(&self, spec: &SubnetSpec) -> Result<(), IpamError> {
        spec.check()?;
        self.subnets.get(&spec.name).map_or(Ok(()), |subnet| subnet.check_change(spec))
    }

    /// The subnet is to become `next` when its last address outside of that is given back: what
    /// `next` lacks is not given any more. A port keeps what it holds, also when it asks again.
    pub fn set_pending(&mut self, subnet: &str, next: Option<SubnetSpec>) {
        if let Some(space) = self.subnets.get_mut(subnet) {
            space.pending = next.map(Pending::new);
        }
    }

    /// Forgets a subnet, its pools and its allocations; returns the ports that still held some.
    pub fn remove_subnet(&mut self, name: &str) -> Vec<Text> {
        let Some(subnet) = self.subnets.remove(name) else {
            return Vec::new();
        };
        self.pools.retain(|_, of| &**of != name);
        let held: Vec<(Text, Text)> =
            subnet.ports().map(|(port, a)| (port.clone(), a.owner.clone())).collect();
        for (port, owner) in &held {
            self.forget(port, owner);
        }
        held.into_iter().map(|(port, _)| port).collect()
    }

    /// Adds a pool or changes its addresses, which leave the pool they were in. Refused when an
    /// entry has no address in the subnet or when another pool holds one of its addresses.
    pub fn upsert_pool(
        &mut self,
        name: &str,
        subnet: &str,
        ranges: &[IpRange],
    ) -> Result<(), IpamError> {
        if let Some(of) = self.pools.get(name).filter(|of| &***of != subnet) {
            return Err(IpamError::PoolElsewhere { pool: name.into(), subnet: of.clone() });
        }
        let space = self
            .subnets
            .get_mut(subnet)
            .ok_or_else(|| IpamError::NoSubnet { subnet: subnet.into() })?;
        space.set_pool(name.into(), ranges, &self.avoided)?;
        self.pools.insert(name.into(), subnet.into());
        Ok(())
    }

    /// The pool's addresses go back to the default pool; allocations stay.
    pub fn remove_pool(&mut self, name: &str) {
        if let Some(subnet) = self.pools.remove(name).and_then(|s| self.subnets.get_mut(&s)) {
            subnet.remove_pool(name, &self.avoided);
        }
    }

    /// Node InternalIPs: subnets with [`NodeAddresses::Avoid`] do not give them without a wish.
    pub fn set_avoided(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut avoided = DualStack::default();
        for ip in addresses {
            let mut set: RangeSet = avoided.get(Family::of(ip)).cloned().unwrap_or_default();
            set.insert(ip_number(ip));
            avoided.set(Family::of(ip), Some(set));
        }
        if avoided == self.avoided {
            return;
        }
        self.avoided = avoided;
        for subnet in self.subnets.values_mut() {
            subnet.set_avoided(&self.avoided);
        }
    }

    /// Addresses and MAC for a port, in every family of the subnet.
    pub fn allocate(&mut self, request: &Request) -> Result<Allocation, IpamError> {
        let subnet = self
            .subnets
            .get_mut(&request.subnet)
            .ok_or_else(|| IpamError::NoSubnet { subnet: request.subnet.clone() })?;
        let before = self.ports.get(&request.port).filter(|s| **s != request.subnet).cloned();
        let allocation = subnet.allocate(request)?;
        if let Some(old) = before.and_then(|s| self.subnets.get_mut(&s))
            && let Some(gone) = old.release(&request.port)
        {
            self.forget(&request.port, &gone.owner);
        }
        self.remember(&request.port, &request.owner, &request.subnet);
        Ok(allocation)
    }

    /// Records what an IP CR says. Whatever contradicts the rules comes back: an address of
    /// another port is then held by both, so that it is free only after both are gone; an address
    /// outside the subnet is not recorded.
    #[must_use]
    pub fn restore(&mut self, record: &Record) -> Vec<IpamError> {
        if let Some(known) = self.allocation(&record.port)
            && known.owner != record.owner
        {
            return vec![IpamError::PortTaken {
                port: record.port.clone(),
                owner: known.owner.clone(),
            }];
        }
        if !self.subnets.contains_key(&record.subnet) {
            return vec![IpamError::NoSubnet { subnet: record.subnet.clone() }];
        }
        if self.ports.get(&record.port).is_some_and(|s| *s != record.subnet) {
            self.release(&record.port);
        }
        let Some(subnet) = self.subnets.get_mut(&record.subnet) else {
            return Vec::new();
        };
        let findings = subnet.restore(record);
        if subnet.port(&record.port).is_some() {
            self.remember(&record.port, &record.owner, &record.subnet);
        } else {
            self.forget(&record.port, &record.owner);
        }
        findings
    }

    /// Gives everything back that a port holds; `None` when it holds nothing.
    pub fn release(&mut self, port: &str) -> Option<Allocation> {
        let subnet = self.ports.get(port)?;
        let gone = self.subnets.get_mut(subnet)?.release(port)?;
        self.forget(port, &gone.owner);
        Some(gone)
    }

    /// Gives back what all ports of a pod hold.
    pub fn release_owner(&mut self, owner: &str) -> Vec<Allocation> {
        let ports = self.owners.get(owner).cloned().unwrap_or_default();
        ports.iter().filter_map(|port| self.release(port)).collect()
    }

    /// Ports that hold addresses for an owner.
    pub fn ports_of(&self, owner: &str) -> impl Iterator<Item = &Text> {
        self.owners.get(owner).into_iter().flatten()
    }

    /// What a port holds.
    pub fn allocation(&self, port: &str) -> Option<&Allocation> {
        self.subnets.get(self.ports.get(port)?)?.port(port)
    }

    /// The subnet in which a port holds addresses.
    pub fn subnet_of(&self, port: &str) -> Option<&Text> {
        self.ports.get(port)
    }

    /// Ports that hold an address of a subnet; more than one only after [`Conflicts::Share`] or a
    /// restore of contradicting records.
    pub fn holders(&self, subnet: &str, ip: IpAddr) -> &[Text] {
        self.subnets.get(subnet).map_or(&[], |s| s.holders(ip))
    }

    /// Counts and ranges of a subnet, by family; empty when it is unknown.
    pub fn usage(&self, subnet: &str) -> DualStack<Usage> {
        self.subnets.get(subnet).map(SubnetSpace::usage).unwrap_or_default()
    }

    /// Counts and ranges of a pool, by family; empty when it is unknown. The default pool of a
    /// subnet is not a pool of this kind, see [`Ipam::default_pool_usage`].
    pub fn pool_usage(&self, pool: &str) -> DualStack<Usage> {
        let subnet = self.pools.get(pool).and_then(|s| self.subnets.get(s));
        subnet.map(|s| s.pool_usage(pool)).unwrap_or_default()
    }

    /// The subnet of a pool.
    pub fn subnet_of_pool(&self, pool: &str) -> Option<&Text> {
        self.pools.get(pool)
    }

    /// Pools of a subnet.
    pub fn pools_of<'a>(&'a self, subnet: &'a str) -> impl Iterator<Item = &'a Text> {
        self.pools.iter().filter(move |(_, of)| &***of == subnet).map(|(pool, _)| pool)
    }

    /// Counts and ranges of the addresses of a subnet that are in no named pool.
    pub fn default_pool_usage(&self, subnet: &str) -> DualStack<Usage> {
        self.subnets.get(subnet).map(|s| s.pool_usage("")).unwrap_or_default()
    }

    /// Subnets and pools, for comparison with what should be there.
    pub fn subnets(&self) -> impl Iterator<Item = &SubnetSpec> {
        self.subnets.values().map(SubnetSpace::spec)
    }

    /// Every port with its subnet and allocation, in no order.
    pub fn allocations(&self) -> impl Iterator<Item = (&Text, &Text, &Allocation)> {
        self.ports.iter().filter_map(|(port, s)| Some((port, s, self.subnets.get(s)?.port(port)?)))
    }

    fn remember(&mut self, port: &Text, owner: &Text, subnet: &Text) {
        if self.ports.get(port) != Some(subnet) {
            self.ports.insert(port.clone(), subnet.clone());
            self.owners.entry(owner.clone()).or_default().insert(port.clone());
        }
    }

    fn forget(&mut self, port: &str, owner: &Text) {
        self.ports.remove(port);
        if let Some(ports) = self.owners.get_mut(owner) {
            ports.remove(port);
            if ports.is_empty() {
                self.owners.remove(owner);
            }
        }
    }
}
