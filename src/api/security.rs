//! A SecurityGroup after validation.

use std::fmt;

use crate::net::{Cidr, Family};

use super::{Index, Invalid, Kind, Object, Text, dotted};

/// Rules for the ports that name the group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityGroup {
    pub name: Text,
    pub ingress: SecurityRules,
    pub egress: SecurityRules,
    /// Ports of the group reach each other.
    pub allow_same_group: bool,
}

/// The rules of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityRules {
    pub rules: Vec<SecurityRule>,
    /// What was wrong: such a rule is left out when it would allow, and is as wide as its right
    /// fields leave it when it would drop. So a typing error never opens anything.
    pub invalid: Vec<Invalid>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityRule {
    /// Both for a drop rule without a valid ipVersion.
    pub families: Vec<Family>,
    /// 1 to 200, lower comes first; 0 for a drop rule without a valid priority.
    pub priority: i64,
    pub remote: Remote,
    pub traffic: Traffic,
    pub verdict: Verdict,
}

impl SecurityRule {
    /// Whether a packet may match both. Who is in a group is not known here: it may be anybody.
    pub fn overlaps(&self, other: &SecurityRule) -> bool {
        self.families.iter().any(|family| other.families.contains(family))
            && self.remote.overlaps(&other.remote)
            && self.traffic.overlaps(other.traffic)
    }
}

/// `ipv4 tcp 22..22 10.0.0.0/8`, without the verdict and the priority.
impl fmt::Display for SecurityRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for family in &self.families {
            write!(f, "ipv{} ", family.digit())?;
        }
        match self.traffic {
            Traffic::Any => f.write_str("all"),
            Traffic::Icmp => f.write_str("icmp"),
            Traffic::Tcp(None) => f.write_str("tcp"),
            Traffic::Udp(None) => f.write_str("udp"),
            Traffic::Tcp(Some((min, max))) => write!(f, "tcp {min}..{max}"),
            Traffic::Udp(Some((min, max))) => write!(f, "udp {min}..{max}"),
        }?;
        match &self.remote {
            Remote::Anywhere => Ok(()),
            Remote::Address(address) => write!(f, " {address}"),
            Remote::Group(group) => write!(f, " of group {group}"),
        }
    }
}

impl Remote {
    fn overlaps(&self, other: &Remote) -> bool {
        match (self.block(), other.block()) {
            (Some(one), Some(other)) => one.overlaps(other),
            _ => true,
        }
    }

    fn block(&self) -> Option<Cidr> {
        let Remote::Address(text) = self else { return None };
        text.parse().ok().or_else(|| text.parse().ok().map(Cidr::host))
    }
}

impl Traffic {
    fn overlaps(self, other: Traffic) -> bool {
        let meet = |one: Option<(u16, u16)>, other: Option<(u16, u16)>| match (one, other) {
            (Some(one), Some(other)) => one.0 <= other.1 && other.0 <= one.1,
            _ => true,
        };
        match (self, other) {
            (Traffic::Any, _) | (_, Traffic::Any) => true,
            (Traffic::Tcp(one), Traffic::Tcp(other)) | (Traffic::Udp(one), Traffic::Udp(other)) => {
                meet(one, other)
            }
            (one, other) => one == other,
        }
    }
}

/// The other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    Anywhere,
    /// An address without a prefix length when it was written so.
    Address(String),
    Group(Text),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    Any,
    Icmp,
    /// First and last port; none for a drop rule without valid ones.
    Tcp(Option<(u16, u16)>),
    Udp(Option<(u16, u16)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Drop,
}

impl Object for SecurityGroup {
    const KIND: Kind = Kind::SecurityGroup;

    fn key(&self) -> Text {
        self.name.clone()
    }

    fn buckets(&self) -> Vec<(Index, Text)> {
        vec![(Index::SecurityGroupsByDottedName, dotted(&self.name).into())]
    }

    fn facets(&self) -> Vec<(Index, Text, Text)> {
        vec![(Index::Presence, "".into(), "".into())]
    }
}

/// One entry of a Subnet's `spec.acls`, as it goes to OVN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetAcl {
    /// `from-lport` or `to-lport`.
    pub direction: Text,
    pub priority: i64,
    pub matching: Text,
    pub action: Text,
}
