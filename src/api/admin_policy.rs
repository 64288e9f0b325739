//! AdminNetworkPolicy and BaselineAdminNetworkPolicy after validation.

use crate::net::Cidr;

use super::{
    Index, Invalid, Kind, Object, Selector, Text, dotted,
    policy::{Direction, PortMatch, Selecting, Selection, selection_buckets},
};

/// What both kinds are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminPolicy {
    pub name: Text,
    /// Slot of the port group of the subject.
    pub group: Text,
    pub ingress: Vec<AdminRule>,
    pub egress: Vec<AdminRule>,
    /// Annotation `log_acl_actions`.
    pub log: Vec<AdminAction>,
    pub selections: Vec<Selection>,
    /// Node peers and the slots of their address sets.
    pub nodes: Vec<(Selector, Text)>,
    /// What was wrong: a rule that denies is as wide as its right fields leave it, others match
    /// less.
    pub invalid: Vec<Invalid>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminRule {
    /// `<direction>/<index>/<fingerprint of the peers>`.
    pub slot: Text,
    pub name: Text,
    pub action: AdminAction,
    pub peers: AdminPeers,
    /// `None`: all traffic. An empty list matches nothing: every port of it was refused.
    pub ports: Option<Vec<PortMatch>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminPeers {
    /// Of an egress rule that denies, when a peer of it cannot be read.
    Everyone,
    /// The rule's set: these networks, and who adds itself.
    Set(Vec<Cidr>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminAction {
    Allow,
    Deny,
    Pass,
}

impl AdminPolicy {
    pub fn rules(&self, direction: Direction) -> &[AdminRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// Slot of the pods that have a named port: the subject, or the peers of an egress rule.
    pub fn named_slot(&self, rule: &AdminRule, direction: Direction, port: &str) -> String {
        let pods = match direction {
            Direction::Ingress => &self.group,
            Direction::Egress => &rule.slot,
        };
        format!("{pods}/{port}")
    }

    /// Name of the port group, before clashes are looked at. OVN wants a letter first.
    pub fn group_name(&self, prefix: &str) -> String {
        let name = dotted(&self.name);
        if name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            name
        } else {
            format!("{prefix}{name}")
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminNetworkPolicy {
    /// 0 to 1000, lower comes first.
    pub priority: i64,
    pub policy: AdminPolicy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaselineAdminNetworkPolicy {
    pub policy: AdminPolicy,
}

/// Both kinds.
pub trait Administrative: Selecting {
    /// Name of the feature that makes the rows.
    const FEATURE: &'static str;
    /// `anp` or `banp`, in names and external_ids.
    const SHORT: &'static str;
    fn policy(&self) -> &AdminPolicy;
    /// ACL priority of a rule.
    fn acl_priority(&self, direction: Direction, index: usize) -> i64;
    /// Priority, when it has one that others may have as well.
    fn priority(&self) -> Option<i64>;
}

impl Administrative for AdminNetworkPolicy {
    const FEATURE: &'static str = "admin-network-policy";
    const SHORT: &'static str = "anp";

    fn policy(&self) -> &AdminPolicy {
        &self.policy
    }

    /// Up to 99 the formula of upstream, which refused higher ones. Those share what is left, and
    /// rules of the same action that follow each other share a priority: which of them a packet
    /// meets makes no difference.
    fn acl_priority(&self, direction: Direction, index: usize) -> i64 {
        if self.priority < 100 {
            return 30_000 - 100 * self.priority - index as i64;
        }
        let rules = self.policy.rules(direction);
        let before = rules.get(..=index).map_or(0, changes);
        20_000 - Self::STEPS as i64 * (self.priority - 100) - before as i64
    }

    fn priority(&self) -> Option<i64> {
        Some(self.priority)
    }
}

impl Administrative for BaselineAdminNetworkPolicy {
    const FEATURE: &'static str = "baseline-admin-network-policy";
    const SHORT: &'static str = "banp";

    fn policy(&self) -> &AdminPolicy {
        &self.policy
    }

    fn acl_priority(&self, _: Direction, index: usize) -> i64 {
        1_800 - index as i64
    }

    fn priority(&self) -> Option<i64> {
        None
    }
}

impl AdminNetworkPolicy {
    /// ACL priorities that a policy of priority 100 to 1000 has for each direction.
    pub const STEPS: usize = 22;

    /// Groups of rules in a row that have the same action.
    pub fn steps(&self, direction: Direction) -> usize {
        changes(self.policy.rules(direction)) + 1
    }
}

/// How often the action changes.
fn changes(rules: &[AdminRule]) -> usize {
    rules.windows(2).filter(|pair| pair[0].action != pair[1].action).count()
}

fn buckets<T: Administrative>(of: &T) -> Vec<(Index, Text)> {
    let policy = of.policy();
    let mut all = selection_buckets(&policy.selections);
    all.push((Index::AdminPoliciesByGroupName, policy.group_name(T::SHORT).into()));
    if let Some(priority) = of.priority() {
        all.push((Index::AdminPoliciesByPriority, priority.to_string().into()));
    }
    if !policy.nodes.is_empty() {
        all.push((Index::AdminPoliciesOfNodes, "".into()));
    }
    all
}

impl Object for AdminNetworkPolicy {
    const KIND: Kind = Kind::AdminNetworkPolicy;

    fn key(&self) -> Text {
        self.policy.name.clone()
    }

    fn buckets(&self) -> Vec<(Index, Text)> {
        buckets(self)
    }
}

impl Object for BaselineAdminNetworkPolicy {
    const KIND: Kind = Kind::BaselineAdminNetworkPolicy;

    fn key(&self) -> Text {
        self.policy.name.clone()
    }

    fn buckets(&self) -> Vec<(Index, Text)> {
        buckets(self)
    }
}

impl Selecting for AdminNetworkPolicy {
    fn selections(&self) -> &[Selection] {
        &self.policy.selections
    }

    fn namespace(&self) -> Option<&str> {
        None
    }
}

impl Selecting for BaselineAdminNetworkPolicy {
    fn selections(&self) -> &[Selection] {
        &self.policy.selections
    }

    fn namespace(&self) -> Option<&str> {
        None
    }
}
