use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What was wrong with a text that should have been an address, prefix, range or MAC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    #[error("{0:?} is not an IP address")]
    Ip(String),
    #[error("{0:?} is not a CIDR (expected for example 10.16.0.0/16)")]
    Cidr(String),
    #[error("{0:?} is not a MAC address (expected for example 00:00:00:53:6b:b6)")]
    Mac(String),
    #[error("{0:?} is not an address range (expected a..b with a not above b, one family)")]
    Range(String),
    #[error("{0:?} names two addresses of one family")]
    TwoOfOneFamily(String),
    #[error("{0:?} must be written v4,v6")]
    Order(String),
}

/// Address family. Everything that exists once per family is indexed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// `4` or `6`, as in `ip4.dst` and `ovn40subnets`.
    pub fn digit(self) -> char {
        match self {
            Family::V4 => '4',
            Family::V6 => '6',
        }
    }

    /// Address length in bits.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// `0.0.0.0/0` or `::/0`.
    pub fn default_route(self) -> Cidr {
        match self {
            Family::V4 => Cidr { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: 0 },
            Family::V6 => Cidr { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), prefix: 0 },
        }
    }
}

/// An address as a number; families do not mix, keep the [`Family`] beside it.
pub fn ip_number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The inverse of [`ip_number`]. A v6 number under 2^32 stays v6 (upstream printed it as v4).
pub fn ip_from_number(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(number as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// Parses one address; surrounding blanks are ignored.
pub fn parse_ip(text: &str) -> Result<IpAddr, NetError> {
    text.trim().parse().map_err(|_| NetError::Ip(text.to_owned()))
}

/// An address with a prefix length. Host bits may be set (`10.16.0.1/16` names an interface
/// address); [`Cidr::network`] clears them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Cidr {
    /// `None` when the prefix is longer than the family has bits.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        (prefix <= Family::of(address).bits()).then_some(Cidr { address, prefix })
    }

    /// A single host (`/32`, `/128`).
    pub fn host(address: IpAddr) -> Self {
        Cidr { address, prefix: Family::of(address).bits() }
    }

    pub fn family(self) -> Family {
        Family::of(self.address)
    }

    fn mask(self) -> u128 {
        let bits = self.family().bits();
        let host = bits - self.prefix;
        let all = if bits == 32 { u128::from(u32::MAX) } else { u128::MAX };
        if host == 128 { 0 } else { (all >> host) << host }
    }

    /// The same prefix with host bits cleared.
    pub fn network(self) -> Self {
        Cidr { address: ip_from_number(self.family(), self.first_number()), prefix: self.prefix }
    }

    /// Number of the network address.
    pub fn first_number(self) -> u128 {
        ip_number(self.address) & self.mask()
    }

    /// Number of the last address (v4 broadcast).
    pub fn last_number(self) -> u128 {
        let all = if self.family() == Family::V4 { u128::from(u32::MAX) } else { u128::MAX };
        self.first_number() | (all & !self.mask())
    }

    pub fn contains(self, ip: IpAddr) -> bool {
        Family::of(ip) == self.family() && ip_number(ip) & self.mask() == self.first_number()
    }

    pub fn contains_cidr(self, other: Cidr) -> bool {
        other.prefix >= self.prefix && self.contains(other.address)
    }

    pub fn overlaps(self, other: Cidr) -> bool {
        self.contains_cidr(other) || other.contains_cidr(self)
    }

    /// First assignable address: the second of the prefix, the first of a /31 or /127, the only
    /// one of a host prefix.
    pub fn first_usable(self) -> IpAddr {
        let wide = self.family().bits() - self.prefix > 1;
        ip_from_number(self.family(), self.first_number() + u128::from(wide))
    }

    /// Last assignable address; network and broadcast (and the last v6 address) are never used.
    pub fn last_usable(self) -> IpAddr {
        let wide = self.family().bits() - self.prefix > 1;
        ip_from_number(self.family(), self.last_number() - u128::from(wide))
    }

    /// `true` for the addresses that are never assigned to a port.
    pub fn is_network_or_broadcast(self, ip: IpAddr) -> bool {
        let n = ip_number(ip);
        self.contains(ip)
            && self.family().bits() - self.prefix > 1
            && (n == self.first_number() || n == self.last_number())
    }

    /// Blocks around the prefix, of 0, 8, 16 ... (IPv6: 0, 16, 32 ...) bits, the widest first. The
    /// last is the home of the prefix: the longest such block that holds it. Two prefixes overlap
    /// only if they have the same home or one's home is a block around the other's.
    pub fn blocks(self) -> Vec<Cidr> {
        let step = self.family().bits() / if self.family() == Family::V4 { 4 } else { 8 };
        let block = |level| Cidr { address: self.address, prefix: level * step }.network();
        (0..=self.prefix / step).map(block).collect()
    }

    /// `ip/prefix` with another address of the same prefix length.
    pub fn with_address(self, address: IpAddr) -> Self {
        Cidr { address, prefix: self.prefix }
    }
}

impl FromStr for Cidr {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let bad = || NetError::Cidr(text.to_owned());
        let (address, prefix) = text.trim().split_once('/').ok_or_else(bad)?;
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let address = address.parse().map_err(|_| bad())?;
        Cidr::new(address, prefix.parse().map_err(|_| bad())?).ok_or_else(bad)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
