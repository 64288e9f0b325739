use std::{fmt, net::IpAddr};

use super::{Cidr, Family, NetError, parse_ip};

/// One value per address family; at least one is present in a parsed value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DualStack<T> {
    pub v4: Option<T>,
    pub v6: Option<T>,
}

impl<T> Default for DualStack<T> {
    fn default() -> Self {
        DualStack { v4: None, v6: None }
    }
}

impl<T> DualStack<T> {
    pub fn get(&self, family: Family) -> Option<&T> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    pub fn set(&mut self, family: Family, value: Option<T>) {
        match family {
            Family::V4 => self.v4 = value,
            Family::V6 => self.v6 = value,
        }
    }

    /// Present values, v4 first.
    pub fn iter(&self) -> impl Iterator<Item = (Family, &T)> {
        Family::BOTH.into_iter().filter_map(|f| self.get(f).map(|v| (f, v)))
    }

    pub fn families(&self) -> impl Iterator<Item = Family> + '_ {
        self.iter().map(|(f, _)| f)
    }

    pub fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    pub fn is_dual(&self) -> bool {
        self.v4.is_some() && self.v6.is_some()
    }

    pub fn map<U>(&self, mut f: impl FnMut(&T) -> U) -> DualStack<U> {
        DualStack { v4: self.v4.as_ref().map(&mut f), v6: self.v6.as_ref().map(&mut f) }
    }

    /// `IPv4`, `IPv6` or `Dual`, the manual's `protocol`.
    pub fn protocol(&self) -> &'static str {
        match (self.v4.is_some(), self.v6.is_some()) {
            (true, true) => "Dual",
            (false, true) => "IPv6",
            _ => "IPv4",
        }
    }

    fn insert(&mut self, family: Family, value: T, text: &str) -> Result<(), NetError> {
        if self.get(family).is_some() {
            return Err(NetError::TwoOfOneFamily(text.to_owned()));
        }
        self.set(family, Some(value));
        Ok(())
    }
}

impl DualStack<IpAddr> {
    /// `v4`, `v6` or a comma pair in either order.
    pub fn parse_addresses(text: &str) -> Result<Self, NetError> {
        let mut pair = DualStack::default();
        for part in text.split(',') {
            let ip = parse_ip(part)?;
            pair.insert(Family::of(ip), ip, text)?;
        }
        Ok(pair)
    }
}

impl DualStack<Cidr> {
    /// `v4`, `v6` or a comma pair in either order; host bits are kept.
    pub fn parse_cidrs(text: &str) -> Result<Self, NetError> {
        let mut pair = DualStack::default();
        for part in text.split(',') {
            let cidr: Cidr = part.parse()?;
            pair.insert(cidr.family(), cidr, text)?;
        }
        Ok(pair)
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.get(Family::of(ip)).is_some_and(|c| c.contains(ip))
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        Family::BOTH.into_iter().any(|f| match (self.get(f), other.get(f)) {
            (Some(a), Some(b)) => a.overlaps(*b),
            _ => false,
        })
    }
}

/// The manual's comma form, v4 first.
impl<T: fmt::Display> fmt::Display for DualStack<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (_, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            value.fmt(f)?;
        }
        Ok(())
    }
}

impl<T> FromIterator<(Family, T)> for DualStack<T> {
    fn from_iter<I: IntoIterator<Item = (Family, T)>>(iter: I) -> Self {
        let mut pair = DualStack::default();
        for (family, value) in iter {
            pair.set(family, Some(value));
        }
        pair
    }
}
