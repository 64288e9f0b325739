//! ACL rows, and the order in which they are evaluated.
//!
//! Towards a port (to-lport), the first of these that speaks about a packet counts:
//!
//! 1. AdminNetworkPolicy (tier 1: 30000 - 100 * priority - index of the rule)
//! 2. nodes to their pods, join ports to those of private subnets (tier 2: 3000)
//! 3. subnet ACL, for example 2500: `spec.acls` stand at the priority that the user wrote
//! 4. security group rule (2300 - its priority); address resolution, DHCP, VRRP (2005)
//! 5. same security group (2004)
//! 6. security group without a rule that speaks (2003: drop)
//! 7. NetworkPolicy, admitted, and its exemptions (2001)
//! 8. NetworkPolicy, isolated (2000: drop)
//! 9. allowEWTraffic (1900)
//! 10. subnet ACL, for example 1500
//! 11. private subnet (1001: inside, allowSubnets and addresses of nodes)
//! 12. subnet ACL, for example 1000, and the drop of a private subnet
//! 13. BaselineAdminNetworkPolicy (tier 3: 1800 - index of the rule)
//!
//! From a port two such lists are gone through, and a packet must get through both. Before load
//! balancing, where the destination may still be the address of a Service:
//!
//! 1. subnet ACL, for example 2500
//! 2. security group rule
//! 3. same security group
//! 4. security group without a rule that speaks
//! 5. allowEWTraffic
//! 6. subnet ACL, for example 1500
//!
//! And after it, where the destination is the backend:
//!
//! 1. AdminNetworkPolicy
//! 2. pods to their nodes
//! 3. NetworkPolicy, admitted
//! 4. NetworkPolicy, isolated
//! 5. BaselineAdminNetworkPolicy
//!
//! Of AdminNetworkPolicies the priorities 100 to 1000 follow under 20000, see `acl_priority`. `pass`
//! ends the tier, no verdict admits. `tests/system/policy_order.rs` asks OVN about every
//! two of these.

use std::net::IpAddr;

use crate::{
    api::policy::{Direction, PortMatch},
    net::Family,
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::{Column, nb},
    },
};

/// Tier of AdminNetworkPolicy.
pub const TIER_ADMIN: i64 = 1;
/// Tier of NetworkPolicy, security groups, subnet and node ACLs.
pub const TIER: i64 = 2;
/// Tier of BaselineAdminNetworkPolicy.
pub const TIER_BASELINE: i64 = 3;

/// Meter of ACLs that log: each may write so many lines a second on each node.
pub const LOG_METER: &str = "kube_ovn_acl_log";
pub const LOG_RATE: i64 = 20;

/// Priorities in [`TIER`].
pub mod priority {
    /// Nodes reach their pods, whatever policies say.
    pub const NODE: i64 = 3000;
    pub const POLICY_ALLOW: i64 = 2001;
    pub const POLICY_DROP: i64 = 2000;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    Off,
    /// At OVN's default severity (info).
    Info,
    Warning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    AllowRelated,
    AllowStateless,
    Drop,
    Pass,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::AllowRelated => "allow-related",
            Action::AllowStateless => "allow-stateless",
            Action::Drop => "drop",
            Action::Pass => "pass",
        }
    }
}

/// Where the ACL is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Egress: the destination may still be the address of a Service.
    BeforeBalancing,
    /// Egress: the destination is the backend.
    AfterBalancing,
}

pub struct Acl {
    pub key: RowKey,
    /// Name of the port group or switch.
    pub parent: String,
    pub direction: Direction,
    pub stage: Stage,
    pub tier: i64,
    pub priority: i64,
    pub matching: String,
    pub action: Action,
    /// In the log; OVN takes 63 characters.
    pub name: String,
    pub log: Log,
}

impl Acl {
    /// The row; its parent must refer to it, or OVSDB drops it.
    pub fn row(&self) -> Fact {
        let direction = match self.direction {
            Direction::Ingress => "to-lport",
            Direction::Egress => "from-lport",
        };
        let mut row = RowBuilder::new(&self.key)
            .set(nb::acl::DIRECTION, direction)
            .set(nb::acl::PRIORITY, self.priority)
            .set(nb::acl::TIER, self.tier)
            .set(nb::acl::MATCH, self.matching.as_str())
            .set(nb::acl::ACTION, self.action.name())
            .set(nb::acl::LOG, self.log != Log::Off)
            .map(nb::acl::EXTERNAL_IDS, [("parent", self.parent.as_str())]);
        let late = self.direction == Direction::Egress && self.stage == Stage::AfterBalancing;
        row = row.map(nb::acl::OPTIONS, late.then_some(("apply-after-lb", "true")));
        row = match self.name.as_str() {
            "" => row.atoms(nb::acl::NAME, [] as [&str; 0]),
            name => row.set(nb::acl::NAME, short(name)),
        };
        let severity = (self.log == Log::Warning).then_some("warning");
        row = row.atoms(nb::acl::SEVERITY, severity);
        row.atoms(nb::acl::METER, (self.log != Log::Off).then_some(LOG_METER)).fact()
    }

    /// The row and its place in a port group or switch that others contribute to as well.
    pub fn facts(self, parent: RowKey, column: Column) -> Vec<Fact> {
        let row = self.row();
        vec![row, Fact::Member { row: parent, column, element: Element::Row(self.key) }]
    }
}

/// Log lines of each ACL and node are limited, so that an attack does not become one on the disk.
pub fn log_meter() -> Vec<Fact> {
    let band = RowKey::new(&nb::METER_BAND, "policy-exemption", "", "log-band");
    let meter = RowKey::new(&nb::METER, "policy-exemption", "", "log");
    vec![
        RowBuilder::new(&band)
            .set(nb::meter_band::ACTION, "drop")
            .set(nb::meter_band::RATE, LOG_RATE)
            .set(nb::meter_band::BURST_SIZE, 0)
            .fact(),
        RowBuilder::new(&meter)
            .set(nb::meter::NAME, LOG_METER)
            .set(nb::meter::UNIT, "pktps")
            .set(nb::meter::FAIR, true)
            .elements(nb::meter::BANDS, [Element::Row(band)])
            .fact(),
    ]
}

/// A name that OVN can log.
pub fn short(name: &str) -> String {
    if name.chars().count() <= 63 {
        return name.to_owned();
    }
    name.chars().take(60).chain("...".chars()).collect()
}

/// `outport == @group` or `inport == @group`: packets to, or of, a member.
pub fn of_group(direction: Direction, group: &str) -> String {
    match direction {
        Direction::Ingress => format!("outport == @{group}"),
        Direction::Egress => format!("inport == @{group}"),
    }
}

/// The address of the other end: `ip4.src` of what comes in, `ip4.dst` of what goes out.
pub fn peer_field(direction: Direction, family: Family) -> String {
    let end = match direction {
        Direction::Ingress => "src",
        Direction::Egress => "dst",
    };
    crate::net::field(family, end)
}

/// `80 <= tcp.dst <= 90`; `None` of a named port, which has no number of its own.
pub fn port_match(port: &PortMatch) -> Option<String> {
    match port {
        PortMatch::All(protocol) => Some(protocol.to_string()),
        PortMatch::One(protocol, number) => Some(format!("{protocol}.dst == {number}")),
        PortMatch::Range(protocol, first, last) => {
            Some(format!("{first} <= {protocol}.dst <= {last}"))
        }
        PortMatch::Named(..) => None,
    }
}

/// Suffix of the identity of an address set of one family.
pub fn set_key(feature: &str, owner: &str, slot: &str, family: Family) -> RowKey {
    RowKey::new(&nb::ADDRESS_SET, feature, owner, &format!("{slot}/{}", family.digit()))
}

pub fn address_member(set: RowKey, address: &IpAddr) -> Fact {
    Fact::Member {
        row: set,
        column: nb::address_set::ADDRESSES,
        element: Element::Atom(address.to_string().into()),
    }
}
