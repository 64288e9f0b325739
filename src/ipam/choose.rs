//! What a request comes down to: reads the subnet, changes nothing.

use std::net::IpAddr;

use crate::net::{DualStack, Family, Mac, RangeSet, ip_number};

use super::{
    Allocation, Conflicts, IpamError, MacWish, Request, Wish,
    space::{DEFAULT_POOL, Exhausted, Space},
    subnet::SubnetSpace,
};

/// What one family of a request comes down to.
#[derive(Clone, Copy)]
enum Source<'a> {
    Exactly(IpAddr),
    Pool(&'a str),
}

impl SubnetSpace {
    pub(super) fn choose_addresses(
        &self,
        request: &Request,
        held: Option<&Allocation>,
    ) -> Result<DualStack<IpAddr>, IpamError> {
        let nothing = DualStack::default();
        match &request.wish {
            Wish::Any => self.choose(request, held, &nothing, DEFAULT_POOL),
            Wish::Pool(pool) => self.choose(request, held, &nothing, pool),
            Wish::Static(wanted) => self.choose(request, held, wanted, DEFAULT_POOL),
            Wish::FirstFree(list) => self.choose_first_free(request, held, list),
        }
    }

    fn choose_first_free(
        &self,
        request: &Request,
        held: Option<&Allocation>,
        list: &[DualStack<IpAddr>],
    ) -> Result<DualStack<IpAddr>, IpamError> {
        let holds = |wanted: &&DualStack<IpAddr>| {
            held.is_some_and(|h| wanted.iter().all(|(f, ip)| h.addresses.get(f) == Some(ip)))
        };
        let mut why = "the list of addresses is empty".to_owned();
        for wanted in list.iter().filter(holds).chain(list) {
            match self.choose(request, held, wanted, DEFAULT_POOL) {
                Ok(addresses) => return Ok(addresses),
                Err(error) => why = error.to_string(),
            }
        }
        Err(IpamError::NoAvailableAddress {
            subnet: self.spec.name.clone(),
            reason: format!("none of the {} listed addresses is free (last: {why})", list.len()),
        })
    }

    fn choose(
        &self,
        request: &Request,
        held: Option<&Allocation>,
        wanted: &DualStack<IpAddr>,
        pool: &str,
    ) -> Result<DualStack<IpAddr>, IpamError> {
        if let Some((_, ip)) = wanted.iter().find(|(f, _)| self.spaces.get(*f).is_none()) {
            self.check_inside(*ip)?;
        }
        let mut addresses = DualStack::default();
        for (family, space) in self.spaces.iter() {
            let source = wanted.get(family).map_or(Source::Pool(pool), |ip| Source::Exactly(*ip));
            let held = held.and_then(|h| h.addresses.get(family).copied());
            addresses.set(family, Some(self.choose_one(request, space, held, source)?));
        }
        Ok(addresses)
    }

    fn choose_one(
        &self,
        request: &Request,
        space: &Space,
        held: Option<IpAddr>,
        source: Source,
    ) -> Result<IpAddr, IpamError> {
        match source {
            Source::Exactly(ip) => {
                self.check_inside(ip)?;
                if request.skip.contains(&ip) {
                    return Err(self.conflict(ip, "the addresses to be skipped".into()));
                }
                if request.conflicts == Conflicts::Refuse {
                    self.check_free(space, ip, &request.port)?;
                }
                if held != Some(ip) && self.pending.as_ref().is_some_and(|p| !p.admits(ip)) {
                    return Err(self.leaving());
                }
                Ok(ip)
            }
            Source::Pool(pool) => {
                if let Some(ip) = held.filter(|ip| !request.skip.contains(ip)) {
                    return Ok(ip);
                }
                let mut skip = RangeSet::new();
                let family = space.family();
                request
                    .skip
                    .iter()
                    .filter(|ip| Family::of(**ip) == family)
                    .for_each(|ip| skip.insert(ip_number(*ip)));
                let within = self.pending.as_ref().and_then(|p| p.giveable(family));
                let next = match (&self.pending, within) {
                    (Some(_), None) => Err(Exhausted::Leaving),
                    _ => space.next(pool, &skip, within),
                };
                next.map(|n| space.address(n)).map_err(|why| self.exhausted(why, pool))
            }
        }
    }

    /// The space of an address that can be assigned in this subnet.
    pub(super) fn check_inside(&self, ip: IpAddr) -> Result<&Space, IpamError> {
        let out = |reason: String| IpamError::AddressOutOfRange {
            subnet: self.spec.name.clone(),
            address: ip.to_string(),
            reason,
        };
        if !self.spec.cidrs.contains(ip) {
            return Err(out(format!("it is outside of {}", self.spec.cidrs)));
        }
        let space = self.spaces.get(Family::of(ip)).filter(|s| s.is_usable(ip_number(ip)));
        space.ok_or_else(|| out("it is the network or broadcast address".into()))
    }

    pub(super) fn check_free(
        &self,
        space: &Space,
        ip: IpAddr,
        port: &str,
    ) -> Result<(), IpamError> {
        if space.is_gateway(ip_number(ip)) {
            return Err(self.conflict(ip, "the gateway".into()));
        }
        match space.holders(ip).iter().find(|p| &***p != port) {
            Some(other) => Err(self.conflict(ip, self.describe(other))),
            None => Ok(()),
        }
    }

    pub(super) fn check_mac_free(&self, mac: Mac, port: &str) -> Result<(), IpamError> {
        let others = self.macs.get(&mac).map_or(&[][..], Vec::as_slice);
        let holder = if self.spec.gateway_mac == Some(mac) {
            Some("the gateway".to_owned())
        } else {
            others.iter().find(|p| &***p != port).map(|p| self.describe(p))
        };
        match holder {
            Some(holder) => {
                Err(IpamError::MacConflict { subnet: self.spec.name.clone(), mac, holder })
            }
            None => Ok(()),
        }
    }

    pub(super) fn choose_mac(
        &self,
        request: &Request,
        held: Option<&Allocation>,
    ) -> Result<Option<Mac>, IpamError> {
        match request.mac {
            MacWish::None => Ok(None),
            MacWish::Static(mac) => {
                if request.conflicts == Conflicts::Refuse {
                    self.check_mac_free(mac, &request.port)?;
                }
                Ok(Some(mac))
            }
            MacWish::Random(seed) => Ok(held.and_then(|h| h.mac).or_else(|| {
                let draws = (0u64..).map(|i| Mac::local(scatter(seed.wrapping_add(i))));
                draws
                    .into_iter()
                    .find(|m| !self.macs.contains_key(m) && self.spec.gateway_mac != Some(*m))
            })),
        }
    }

    fn describe(&self, port: &str) -> String {
        match self.ports.get(port) {
            Some(a) => format!("port {port} of {}", a.owner),
            None => format!("port {port}"),
        }
    }

    fn conflict(&self, address: IpAddr, holder: String) -> IpamError {
        IpamError::AddressConflict { subnet: self.spec.name.clone(), address, holder }
    }

    fn leaving(&self) -> IpamError {
        let next = self.pending.as_ref().map(|p| p.spec.cidrs).unwrap_or_default();
        IpamError::Leaving { subnet: self.spec.name.clone(), now: self.spec.cidrs, next }
    }

    fn exhausted(&self, why: Exhausted, pool: &str) -> IpamError {
        let subnet = self.spec.name.clone();
        let place = match pool {
            DEFAULT_POOL => "outside of the IPPools".to_owned(),
            name => format!("in IPPool {name}"),
        };
        let reason = match why {
            Exhausted::Leaving => return self.leaving(),
            Exhausted::OnlyAvoided => return IpamError::OnlyAvoided { subnet },
            Exhausted::NoPool if pool != DEFAULT_POOL => format!("no address is {place}"),
            Exhausted::NoPool | Exhausted::NoneLeft => format!("no free address is left {place}"),
        };
        IpamError::NoAvailableAddress { subnet, reason }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): neighbouring seeds give unrelated values.
fn scatter(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
