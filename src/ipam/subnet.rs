//! One subnet: its families, pools, ports and MACs.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use crate::{
    api::Text,
    net::{Cidr, DualStack, Family, IpRange, Mac, RangeSet, ip_number},
};

use super::{
    Allocation, IpamError, NodeAddresses, Record, Request, SubnetSpec, Usage,
    request::usable,
    space::{Layout, Space},
};

#[derive(Debug, Clone)]
pub(super) struct SubnetSpace {
    pub(super) spec: SubnetSpec,
    pub(super) pending: Option<Pending>,
    /// Entries of the IPPools as given.
    pools: BTreeMap<Text, Vec<IpRange>>,
    pub(super) spaces: DualStack<Space>,
    pub(super) ports: HashMap<Text, Allocation>,
    pub(super) macs: HashMap<Mac, Vec<Text>>,
}

/// What the subnet is to become.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) spec: SubnetSpec,
    /// What may be given without a wish.
    giveable: DualStack<RangeSet>,
}

impl Pending {
    pub fn new(spec: SubnetSpec) -> Self {
        let giveable = Family::BOTH.into_iter().map(|family| {
            let mut set = usable_by(&spec, family);
            set.remove_set(&RangeSet::of_family(family, &spec.excludes));
            (family, set)
        });
        Pending { giveable: giveable.collect(), spec }
    }

    pub fn giveable(&self, family: Family) -> Option<&RangeSet> {
        self.giveable.get(family)
    }

    /// Whether a port may ask for the address by name.
    pub fn admits(&self, ip: IpAddr) -> bool {
        usable_by(&self.spec, Family::of(ip)).contains(ip_number(ip))
    }
}

/// Addresses of ports: all but network, broadcast and gateway.
fn usable_by(spec: &SubnetSpec, family: Family) -> RangeSet {
    let mut set = spec.cidrs.get(family).map(|c| usable(*c)).unwrap_or_default();
    if let Some(gateway) = spec.gateways.get(family) {
        set.remove(ip_number(*gateway));
    }
    set
}

impl SubnetSpace {
    /// `spec` has been checked.
    pub fn new(spec: SubnetSpec, avoided: &DualStack<RangeSet>) -> Self {
        let mut subnet = SubnetSpace {
            spec,
            pending: None,
            pools: BTreeMap::new(),
            spaces: DualStack::default(),
            ports: HashMap::new(),
            macs: HashMap::new(),
        };
        subnet.rebuild(avoided);
        subnet
    }

    pub fn spec(&self) -> &SubnetSpec {
        &self.spec
    }

    pub fn ports(&self) -> impl Iterator<Item = (&Text, &Allocation)> {
        self.ports.iter()
    }

    pub fn port(&self, port: &str) -> Option<&Allocation> {
        self.ports.get(port)
    }

    pub fn holders(&self, ip: IpAddr) -> &[Text] {
        self.spaces.get(Family::of(ip)).map_or(&[], |s| s.holders(ip))
    }

    pub fn usage(&self) -> DualStack<Usage> {
        self.spaces.map(Space::usage)
    }

    pub fn pool_usage(&self, pool: &str) -> DualStack<Usage> {
        self.spaces.iter().filter_map(|(f, s)| Some((f, s.pool_usage(pool)?))).collect()
    }

    pub fn change(
        &mut self,
        spec: SubnetSpec,
        avoided: &DualStack<RangeSet>,
    ) -> Result<(), IpamError> {
        if spec == self.spec {
            return Ok(());
        }
        self.check_change(&spec)?;
        self.spec = spec;
        self.rebuild(avoided);
        Ok(())
    }

    /// Nothing that is held, and no pool, may be left outside.
    pub fn check_change(&self, spec: &SubnetSpec) -> Result<(), IpamError> {
        let subnet = spec.name.clone();
        let mut in_the_way = Vec::new();
        for (family, space) in self.spaces.iter() {
            let mut kept = spec.cidrs.get(family).map(|c| usable(*c)).unwrap_or_default();
            // A gateway that was in somebody's hands all the time harms nobody more.
            if spec.gateways.get(family) != self.spec.gateways.get(family) {
                kept = usable_by(spec, family);
            }
            for (n, ports) in space.held().filter(|(n, _)| !kept.contains(*n)) {
                in_the_way.extend(ports.iter().map(|p| (space.address(n), p.clone())));
            }
        }
        if !in_the_way.is_empty() {
            return Err(IpamError::InTheWay { subnet, in_the_way });
        }
        for (pool, entries) in &self.pools {
            if let Some(entry) = entries.iter().find(|e| !touches(&spec.cidrs, e)) {
                let (pool, entry) = (pool.clone(), entry.to_string());
                return Err(IpamError::PoolInTheWay { subnet, pool, entry });
            }
        }
        Ok(())
    }

    pub fn set_pool(
        &mut self,
        name: Text,
        entries: &[IpRange],
        avoided: &DualStack<RangeSet>,
    ) -> Result<(), IpamError> {
        if self.pools.get(&name).is_some_and(|known| known == entries) {
            return Ok(());
        }
        // Entries of the next range may be there before it.
        let next = self.pending.as_ref().map(|p| p.spec.cidrs).unwrap_or_default();
        let outside = |e: &&IpRange| !touches(&self.spec.cidrs, e) && !touches(&next, e);
        if let Some(entry) = entries.iter().find(outside) {
            return Err(IpamError::AddressOutOfRange {
                subnet: self.spec.name.clone(),
                address: entry.to_string(),
                reason: format!("it is outside of {} (entry of IPPool {name})", self.spec.cidrs),
            });
        }
        for (other, theirs) in self.pools.iter().filter(|(other, _)| **other != name) {
            for family in Family::BOTH {
                let both = RangeSet::of_family(family, entries)
                    .intersection(&RangeSet::of_family(family, theirs));
                if !both.is_empty() {
                    return Err(IpamError::PoolConflict {
                        subnet: self.spec.name.clone(),
                        pool: name,
                        other: other.clone(),
                        ranges: both.text(family),
                    });
                }
            }
        }
        self.pools.insert(name, entries.to_vec());
        self.rebuild(avoided);
        Ok(())
    }

    pub fn remove_pool(&mut self, name: &str, avoided: &DualStack<RangeSet>) {
        if self.pools.remove(name).is_some() {
            self.rebuild(avoided);
        }
    }

    pub fn set_avoided(&mut self, avoided: &DualStack<RangeSet>) {
        for family in Family::BOTH {
            let avoided = self.avoided(family, avoided);
            if let Some(space) = self.space_mut(family) {
                space.set_avoided(&avoided);
            }
        }
    }

    fn avoided(&self, family: Family, avoided: &DualStack<RangeSet>) -> RangeSet {
        match self.spec.node_addresses {
            NodeAddresses::Avoid => avoided.get(family).cloned().unwrap_or_default(),
            NodeAddresses::Allow => RangeSet::new(),
        }
    }

    fn rebuild(&mut self, avoided: &DualStack<RangeSet>) {
        let mut spaces = DualStack::default();
        for (family, cidr) in self.spec.cidrs.iter() {
            let layout = Layout {
                cidr: *cidr,
                gateway: self.spec.gateways.get(family).map(|g| ip_number(*g)),
                excludes: self.spec.excludes.clone(),
                avoided: self.avoided(family, avoided),
                pools: self
                    .pools
                    .iter()
                    .map(|(name, entries)| (name.clone(), RangeSet::of_family(family, entries)))
                    .collect(),
            };
            let space = match self.spaces.get(family).cloned() {
                Some(mut space) => {
                    space.rebuild(&layout);
                    space
                }
                None => Space::new(&layout),
            };
            spaces.set(family, Some(space));
        }
        self.spaces = spaces;
    }

    pub fn allocate(&mut self, request: &Request) -> Result<Allocation, IpamError> {
        let held = self.ports.get(&request.port);
        if let Some(held) = held.filter(|h| h.owner != request.owner) {
            let (port, owner) = (request.port.clone(), held.owner.clone());
            return Err(IpamError::PortTaken { port, owner });
        }
        let allocation = Allocation {
            owner: request.owner.clone(),
            addresses: self.choose_addresses(request, held)?,
            mac: self.choose_mac(request, held)?,
        };
        // Nothing has been changed up to here, nothing can fail from here on.
        self.put(&request.port, allocation.clone());
        Ok(allocation)
    }

    pub fn restore(&mut self, record: &Record) -> Vec<IpamError> {
        let mut findings = Vec::new();
        let mut addresses = DualStack::default();
        for (family, ip) in record.addresses.iter() {
            match self.check_inside(*ip) {
                Ok(space) => {
                    findings.extend(self.check_free(space, *ip, &record.port).err());
                    addresses.set(family, Some(*ip));
                }
                Err(finding) => findings.push(finding),
            }
        }
        if let Some(mac) = record.mac {
            findings.extend(self.check_mac_free(mac, &record.port).err());
        }
        if addresses.is_empty() {
            self.release(&record.port);
        } else {
            let owner = record.owner.clone();
            self.put(&record.port, Allocation { owner, addresses, mac: record.mac });
        }
        findings
    }

    pub fn release(&mut self, port: &str) -> Option<Allocation> {
        let gone = self.ports.remove(port)?;
        for (_, ip) in gone.addresses.iter() {
            self.let_go(*ip, port);
        }
        if let Some(mac) = gone.mac {
            self.let_go_mac(mac, port);
        }
        Some(gone)
    }

    /// Makes `allocation` what `port` holds; only differences are touched.
    fn put(&mut self, port: &Text, allocation: Allocation) {
        let old = self.ports.insert(port.clone(), allocation.clone());
        let (old, old_mac) = old.map_or((DualStack::default(), None), |o| (o.addresses, o.mac));
        for family in Family::BOTH {
            let (was, is) = (old.get(family), allocation.addresses.get(family));
            if was == is {
                continue;
            }
            if let Some(ip) = is {
                self.hold(*ip, port);
            }
            if let Some(ip) = was {
                self.let_go(*ip, port);
            }
        }
        if old_mac != allocation.mac {
            if let Some(mac) = allocation.mac {
                self.macs.entry(mac).or_default().push(port.clone());
            }
            if let Some(mac) = old_mac {
                self.let_go_mac(mac, port);
            }
        }
    }

    fn space_mut(&mut self, family: Family) -> Option<&mut Space> {
        match family {
            Family::V4 => self.spaces.v4.as_mut(),
            Family::V6 => self.spaces.v6.as_mut(),
        }
    }

    fn hold(&mut self, ip: IpAddr, port: &Text) {
        if let Some(space) = self.space_mut(Family::of(ip)) {
            space.hold(ip_number(ip), port);
        }
    }

    fn let_go(&mut self, ip: IpAddr, port: &str) {
        if let Some(space) = self.space_mut(Family::of(ip)) {
            space.let_go(ip_number(ip), port);
        }
    }

    fn let_go_mac(&mut self, mac: Mac, port: &str) {
        if let Some(ports) = self.macs.get_mut(&mac) {
            ports.retain(|p| &**p != port);
            if ports.is_empty() {
                self.macs.remove(&mac);
            }
        }
    }
}

/// Does a pool entry have an address in the subnet?
fn touches(cidrs: &DualStack<Cidr>, entry: &IpRange) -> bool {
    cidrs.get(entry.family).is_some_and(|cidr| {
        !RangeSet::of_family(entry.family, [entry]).intersection(&usable(*cidr)).is_empty()
    })
}
