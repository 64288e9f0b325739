use std::net::IpAddr;

use crate::{
    api::Text,
    net::{Cidr, DualStack, Family, IpRange, Mac, RangeSet, ip_number},
};

use super::IpamError;

/// What the allocator has to know of a Subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetSpec {
    pub name: Text,
    pub cidrs: DualStack<Cidr>,
    pub gateways: DualStack<IpAddr>,
    /// `excludeIps`, both families; parts outside of the usable addresses do not count.
    pub excludes: Vec<IpRange>,
    /// Never given to a port.
    pub gateway_mac: Option<Mac>,
    pub node_addresses: NodeAddresses,
}

/// Whether addresses of nodes are left out (overlay subnets of the default VPC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeAddresses {
    Avoid,
    Allow,
}

impl SubnetSpec {
    /// From the texts of a Subnet's spec: `cidrBlock`, `gateway` (may be empty), `excludeIps`.
    pub fn parse(
        name: &str,
        cidr: &str,
        gateway: &str,
        excludes: &[&str],
    ) -> Result<Self, IpamError> {
        let invalid = |e: crate::net::NetError| IpamError::CidrInvalid {
            subnet: name.into(),
            reason: e.to_string(),
        };
        let gateways = match gateway {
            "" => DualStack::default(),
            text => DualStack::parse_addresses(text).map_err(invalid)?,
        };
        let spec = SubnetSpec {
            name: name.into(),
            cidrs: DualStack::parse_cidrs(cidr).map_err(invalid)?,
            gateways,
            excludes: excludes.iter().filter_map(|text| IpRange::parse(text).ok()).collect(),
            gateway_mac: None,
            node_addresses: NodeAddresses::Allow,
        };
        spec.check().map(|()| spec)
    }

    /// Families match their slots, prefixes leave room for a gateway and a port, gateways are
    /// inside.
    pub(super) fn check(&self) -> Result<(), IpamError> {
        let bad =
            |reason: String| Err(IpamError::CidrInvalid { subnet: self.name.clone(), reason });
        if self.cidrs.is_empty() {
            return bad("it has no CIDR".into());
        }
        for (family, cidr) in self.cidrs.iter() {
            if cidr.family() != family {
                return bad(format!("{cidr} is of the wrong family"));
            }
            if cidr.prefix == family.bits() {
                return bad(format!("{cidr} has a single address; use a shorter prefix"));
            }
        }
        for (family, gateway) in self.gateways.iter() {
            match self.cidrs.get(family) {
                Some(cidr) if cidr.contains(*gateway) => {}
                _ => return bad(format!("gateway {gateway} is outside of {}", self.cidrs)),
            }
        }
        Ok(())
    }
}

/// The usable addresses that `excludeIps` entries (`a` or `a..b`) name: ranges are cut to the
/// usable addresses, single network and broadcast addresses, reversed ranges and garbage drop out.
pub fn expand_excludes<'a>(cidr: Cidr, entries: impl IntoIterator<Item = &'a str>) -> RangeSet {
    let ranges: Vec<IpRange> = entries.into_iter().filter_map(|e| IpRange::parse(e).ok()).collect();
    RangeSet::of_family(cidr.family(), &ranges).intersection(&usable(cidr))
}

/// Addresses that may be assigned in a prefix.
pub(super) fn usable(cidr: Cidr) -> RangeSet {
    let mut set = RangeSet::new();
    set.insert_range(ip_number(cidr.first_usable()), ip_number(cidr.last_usable()));
    set
}

/// One port wants addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Pod key `namespace/name` (of the virtual machine when its address is kept), `node-<name>`.
    pub owner: Text,
    /// Name of the logical switch port.
    pub port: Text,
    pub subnet: Text,
    pub wish: Wish,
    pub mac: MacWish,
    /// Addresses that must not be given, even if the port holds them.
    pub skip: Vec<IpAddr>,
    pub conflicts: Conflicts,
}

impl Request {
    /// Any address and a MAC drawn from `seed`.
    pub fn any(owner: &str, port: &str, subnet: &str, seed: u64) -> Self {
        Request {
            owner: owner.into(),
            port: port.into(),
            subnet: subnet.into(),
            wish: Wish::Any,
            mac: MacWish::Random(seed),
            skip: Vec::new(),
            conflicts: Conflicts::Refuse,
        }
    }
}

/// Which addresses a port wants. Families that a wish leaves open come from what the port holds,
/// else from the default pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// What the port holds, else the lowest free of the default pool.
    Any,
    /// What the port holds, else the lowest free of the named pool.
    Pool(Text),
    Static(DualStack<IpAddr>),
    /// The element that the port holds, else the first that nobody else holds (`ip_pool` lists).
    FirstFree(Vec<DualStack<IpAddr>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacWish {
    /// What the port holds, else drawn from this seed until it is unique in the subnet.
    Random(u64),
    Static(Mac),
    /// No MAC: the port is not an OVN port.
    None,
}

/// What happens to a wished address or MAC that another port, or the gateway, holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflicts {
    Refuse,
    /// Live migration: both hold it.
    Share,
}

/// What a port holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    pub owner: Text,
    pub addresses: DualStack<IpAddr>,
    pub mac: Option<Mac>,
}

/// An allocation as an IP CR (or a Vip, EIP, node annotation) records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub owner: Text,
    pub port: Text,
    pub subnet: Text,
    pub addresses: DualStack<IpAddr>,
    pub mac: Option<Mac>,
}

/// Counts and their ranges (`a-b,c`) in one family. Addresses held inside of `excludeIps` are in
/// neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub available: u128,
    pub using: u128,
    pub available_ranges: String,
    pub using_ranges: String,
}

impl Usage {
    pub(super) fn of(family: Family, available: &RangeSet, using: &RangeSet) -> Self {
        Usage {
            available: available.count(),
            using: using.count(),
            available_ranges: available.text(family),
            using_ranges: using.text(family),
        }
    }
}
