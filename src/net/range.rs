use std::{fmt, net::IpAddr};

use super::{Cidr, Family, NetError, ip_from_number, ip_number, parse_ip};

/// An inclusive range of addresses of one family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpRange {
    pub family: Family,
    pub first: u128,
    pub last: u128,
}

impl IpRange {
    pub fn new(family: Family, first: u128, last: u128) -> Self {
        IpRange { family, first, last }
    }

    pub fn single(ip: IpAddr) -> Self {
        IpRange { family: Family::of(ip), first: ip_number(ip), last: ip_number(ip) }
    }

    /// `ip`, `a..b` or a CIDR.
    pub fn parse(text: &str) -> Result<Self, NetError> {
        let bad = || NetError::Range(text.to_owned());
        if let Some((a, b)) = text.split_once("..") {
            let (a, b) = (parse_ip(a).map_err(|_| bad())?, parse_ip(b).map_err(|_| bad())?);
            if Family::of(a) != Family::of(b) || ip_number(a) > ip_number(b) {
                return Err(bad());
            }
            return Ok(IpRange { family: Family::of(a), first: ip_number(a), last: ip_number(b) });
        }
        if text.contains('/') {
            return Ok(text.parse::<Cidr>()?.into());
        }
        Ok(Self::single(parse_ip(text)?))
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        Family::of(ip) == self.family && (self.first..=self.last).contains(&ip_number(ip))
    }
}

impl From<Cidr> for IpRange {
    fn from(cidr: Cidr) -> Self {
        IpRange { family: cidr.family(), first: cidr.first_number(), last: cidr.last_number() }
    }
}

impl fmt::Debug for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `a` or `a-b`, as in `status.v4usingIPrange`.
impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first, self.last);
        write!(f, "{}", ip_from_number(self.family, first))?;
        if first != last {
            write!(f, "-{}", ip_from_number(self.family, last))?;
        }
        Ok(())
    }
}

/// A set of numbers kept as disjoint, non-adjacent inclusive ranges: `/64`s cost one entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// first -> last
    ranges: std::collections::BTreeMap<u128, u128>,
}

impl RangeSet {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Ranges in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u128, u128)> + '_ {
        self.ranges.iter().map(|(a, b)| (*a, *b))
    }

    /// Lowest member.
    pub fn first(&self) -> Option<u128> {
        self.ranges.keys().next().copied()
    }

    /// Lowest member not below `from`.
    pub fn first_from(&self, from: u128) -> Option<u128> {
        if self.contains(from) {
            return Some(from);
        }
        self.ranges.range(from..).next().map(|(a, _)| *a)
    }

    /// Last member of the range that holds `n`.
    pub fn end_of(&self, n: u128) -> Option<u128> {
        self.ranges.range(..=n).next_back().map(|(_, last)| *last).filter(|last| *last >= n)
    }

    /// Lowest member that is not in `other`; costs one step per range of `other` that is in the
    /// way, not per number.
    pub fn first_outside(&self, other: &RangeSet) -> Option<u128> {
        let mut n = self.first()?;
        while let Some(last) = other.end_of(n) {
            n = self.first_from(last.checked_add(1)?)?;
        }
        Some(n)
    }

    /// The members of `ranges` that belong to `family`.
    pub fn of_family<'a>(family: Family, ranges: impl IntoIterator<Item = &'a IpRange>) -> Self {
        let mut set = RangeSet::new();
        for range in ranges.into_iter().filter(|r| r.family == family) {
            set.insert_range(range.first, range.last);
        }
        set
    }

    pub fn contains(&self, n: u128) -> bool {
        self.ranges.range(..=n).next_back().is_some_and(|(_, last)| *last >= n)
    }

    /// Number of members; saturates at `u128::MAX` for the whole v6 space.
    pub fn count(&self) -> u128 {
        self.iter().fold(0u128, |sum, (a, b)| sum.saturating_add((b - a).saturating_add(1)))
    }

    pub fn insert(&mut self, n: u128) {
        self.insert_range(n, n);
    }

    pub fn insert_range(&mut self, first: u128, last: u128) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        if let Some((a, b)) = self.ranges.range(..=first).next_back().map(|(a, b)| (*a, *b))
            && b.saturating_add(1) >= first
        {
            first = a;
            last = last.max(b);
        }
        while let Some((a, b)) = self.ranges.range(first..).next().map(|(a, b)| (*a, *b))
            && a <= last.saturating_add(1)
        {
            last = last.max(b);
            self.ranges.remove(&a);
        }
        self.ranges.insert(first, last);
    }

    pub fn remove(&mut self, n: u128) -> bool {
        let had = self.contains(n);
        self.remove_range(n, n);
        had
    }

    pub fn remove_range(&mut self, first: u128, last: u128) {
        if first > last {
            return;
        }
        if let Some((a, b)) = self.ranges.range(..first).next_back().map(|(a, b)| (*a, *b))
            && b >= first
        {
            self.ranges.insert(a, first - 1);
            if b > last {
                self.ranges.insert(last + 1, b);
                return;
            }
        }
        while let Some((a, b)) = self.ranges.range(first..=last).next().map(|(a, b)| (*a, *b)) {
            self.ranges.remove(&a);
            if b > last {
                self.ranges.insert(last + 1, b);
                return;
            }
        }
    }

    pub fn remove_set(&mut self, other: &RangeSet) {
        for (a, b) in other.iter() {
            self.remove_range(a, b);
        }
    }

    pub fn insert_set(&mut self, other: &RangeSet) {
        for (a, b) in other.iter() {
            self.insert_range(a, b);
        }
    }

    /// Members of both sets.
    pub fn intersection(&self, other: &RangeSet) -> RangeSet {
        let mut out = RangeSet::new();
        for (a, b) in self.iter() {
            let start = other.ranges.range(..=a).next_back().map_or(a, |(f, _)| *f);
            for (c, d) in other.ranges.range(start..=b) {
                if *d >= a {
                    out.insert_range(a.max(*c), b.min(*d));
                }
            }
        }
        out
    }

    /// `a-b,c`, the text of the status range fields.
    pub fn text(&self, family: Family) -> String {
        let parts: Vec<String> =
            self.iter().map(|(a, b)| IpRange::new(family, a, b).to_string()).collect();
        parts.join(",")
    }
}
