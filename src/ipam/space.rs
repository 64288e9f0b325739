//! The addresses of one family of one subnet.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    api::Text,
    net::{Cidr, Family, IpRange, RangeSet, ip_from_number, ip_number},
};

use super::{Usage, request::usable};

/// Name of the pool of everything that is in no named pool; sorts before all names.
pub(super) const DEFAULT_POOL: &str = "";

/// Addresses of one pool that nobody holds and that may be given without a wish.
#[derive(Debug, Clone, Default)]
struct Pool {
    members: RangeSet,
    /// Never used since the last time all were.
    free: RangeSet,
    /// Given back; used when `free` is empty.
    released: RangeSet,
}

/// What decides which addresses exist and which are withheld.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub cidr: Cidr,
    pub gateway: Option<u128>,
    pub excludes: Vec<IpRange>,
    pub avoided: RangeSet,
    /// Disjoint, named.
    pub pools: BTreeMap<Text, RangeSet>,
}

#[derive(Debug, Clone)]
pub(super) struct Space {
    family: Family,
    usable: RangeSet,
    gateway: Option<u128>,
    /// Excluded addresses and the gateway.
    reserved: RangeSet,
    /// Like `reserved`, without an entry that is just the gateway: held addresses in it are not
    /// counted.
    uncounted: RangeSet,
    avoided: RangeSet,
    pools: BTreeMap<Text, Pool>,
    holders: BTreeMap<u128, Vec<Text>>,
    /// usable - reserved - held
    available: RangeSet,
    /// held - uncounted
    using: RangeSet,
}

/// Why there is no address to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exhausted {
    NoPool,
    NoneLeft,
    OnlyAvoided,
    /// Only addresses that leave with the range.
    Leaving,
}

impl Space {
    pub fn new(layout: &Layout) -> Self {
        let mut space = Space {
            family: layout.cidr.family(),
            usable: RangeSet::new(),
            gateway: None,
            reserved: RangeSet::new(),
            uncounted: RangeSet::new(),
            avoided: RangeSet::new(),
            pools: BTreeMap::new(),
            holders: BTreeMap::new(),
            available: RangeSet::new(),
            using: RangeSet::new(),
        };
        space.rebuild(layout);
        space
    }

    /// Applies a changed layout: everything but the holders and the released addresses is derived
    /// again, so results cannot depend on the order of changes.
    pub fn rebuild(&mut self, layout: &Layout) {
        let mut released = RangeSet::new();
        for pool in self.pools.values() {
            released.insert_set(&pool.released);
        }
        self.usable = usable(layout.cidr);
        self.gateway = layout.gateway;
        let gateway_entry = |r: &&IpRange| layout.gateway == Some(r.first) && r.first == r.last;
        let counted_out = layout.excludes.iter().filter(|r| !gateway_entry(r));
        self.uncounted = RangeSet::of_family(self.family, counted_out).intersection(&self.usable);
        self.reserved = self.uncounted.clone();
        if let Some(gateway) = layout.gateway.filter(|g| self.usable.contains(*g)) {
            self.reserved.insert(gateway);
        }
        self.avoided = layout.avoided.clone();

        let mut held = RangeSet::new();
        for n in self.holders.keys() {
            held.insert(*n);
        }
        self.available = self.usable.clone();
        self.available.remove_set(&self.reserved);
        self.available.remove_set(&held);
        self.using = held;
        self.using.remove_set(&self.uncounted);

        let mut giveable = self.available.clone();
        giveable.remove_set(&self.avoided);
        let mut rest = self.usable.clone();
        self.pools.clear();
        for (name, members) in &layout.pools {
            let members = members.intersection(&self.usable);
            rest.remove_set(&members);
            self.pools.insert(name.clone(), Pool::new(members, &giveable, &released));
        }
        self.pools.insert(DEFAULT_POOL.into(), Pool::new(rest, &giveable, &released));
    }

    /// Changes only which addresses are avoided; costs as much as the difference.
    pub fn set_avoided(&mut self, avoided: &RangeSet) {
        let mut now_allowed = self.avoided.clone();
        now_allowed.remove_set(avoided);
        self.avoided = avoided.clone();
        let now_allowed = now_allowed.intersection(&self.available);
        for pool in self.pools.values_mut() {
            pool.free.remove_set(avoided);
            pool.released.remove_set(avoided);
            pool.free.insert_set(&now_allowed.intersection(&pool.members));
        }
    }

    pub fn family(&self) -> Family {
        self.family
    }

    pub fn is_usable(&self, n: u128) -> bool {
        self.usable.contains(n)
    }

    pub fn is_gateway(&self, n: u128) -> bool {
        self.gateway == Some(n)
    }

    pub fn address(&self, n: u128) -> IpAddr {
        ip_from_number(self.family, n)
    }

    pub fn holders(&self, ip: IpAddr) -> &[Text] {
        self.holders.get(&ip_number(ip)).map_or(&[], Vec::as_slice)
    }

    /// Held addresses in ascending order.
    pub fn held(&self) -> impl Iterator<Item = (u128, &[Text])> {
        self.holders.iter().map(|(n, ports)| (*n, ports.as_slice()))
    }

    /// The address that the pool gives next, within a set if there is one; [`Space::hold`] takes
    /// it.
    pub fn next(
        &self,
        pool: &str,
        skip: &RangeSet,
        within: Option<&RangeSet>,
    ) -> Result<u128, Exhausted> {
        let pool =
            self.pools.get(pool).filter(|p| !p.members.is_empty()).ok_or(Exhausted::NoPool)?;
        let first = |set: &RangeSet| match within {
            Some(within) => set.intersection(within).first_outside(skip),
            None => set.first_outside(skip),
        };
        first(&pool.free).or_else(|| first(&pool.released)).ok_or_else(|| {
            let left = self.available.intersection(&pool.members);
            match within {
                _ if left.is_empty() => Exhausted::NoneLeft,
                Some(within) if left.intersection(within).is_empty() => Exhausted::Leaving,
                _ => Exhausted::OnlyAvoided,
            }
        })
    }

    pub fn hold(&mut self, n: u128, port: &Text) {
        let ports = self.holders.entry(n).or_default();
        if ports.contains(port) {
            return;
        }
        ports.push(port.clone());
        if ports.len() > 1 {
            return;
        }
        self.available.remove(n);
        if !self.uncounted.contains(n) {
            self.using.insert(n);
        }
        if let Some(pool) = self.pool_of(n) {
            pool.take(n);
        }
    }

    pub fn let_go(&mut self, n: u128, port: &str) {
        let Some(ports) = self.holders.get_mut(&n) else {
            return;
        };
        ports.retain(|p| &**p != port);
        if !ports.is_empty() {
            return;
        }
        self.holders.remove(&n);
        self.using.remove(n);
        if self.reserved.contains(n) || !self.usable.contains(n) {
            return;
        }
        self.available.insert(n);
        if !self.avoided.contains(n)
            && let Some(pool) = self.pool_of(n)
        {
            pool.released.insert(n);
        }
    }

    pub fn usage(&self) -> Usage {
        Usage::of(self.family, &self.available, &self.using)
    }

    pub fn pool_usage(&self, pool: &str) -> Option<Usage> {
        let members = &self.pools.get(pool)?.members;
        let available = self.available.intersection(members);
        Some(Usage::of(self.family, &available, &self.using.intersection(members)))
    }

    fn pool_of(&mut self, n: u128) -> Option<&mut Pool> {
        self.pools.values_mut().find(|p| p.members.contains(n))
    }
}

impl Pool {
    fn new(members: RangeSet, giveable: &RangeSet, released: &RangeSet) -> Self {
        let mut free = giveable.intersection(&members);
        let released = released.intersection(&free);
        free.remove_set(&released);
        Pool { members, free, released }
    }

    /// Takes `n` out. When a released address is taken because none other is left, all released
    /// ones become free again, as a whole and lowest first.
    fn take(&mut self, n: u128) {
        let was_free = self.free.remove(n);
        if !was_free && self.released.remove(n) && self.free.is_empty() {
            self.free = std::mem::take(&mut self.released);
        }
    }
}
