//! A SecurityGroup after validation.

use crate::net::Family;

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
