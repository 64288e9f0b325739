//! Policy routing: ip rules of ours, and routes of ours beside the main table. Both carry
//! [`POLICY_PROTOCOL`], so those of an earlier life of the agent are known, and those of the
//! administrator are never touched.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::RouteProtocol as Protocol,
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use super::{Error, Netlink, link::address_family, missing_is_fine};
use crate::net::{Cidr, Family, POLICY_PROTOCOL, PolicyRule};

impl Netlink {
    /// Rules that carry [`POLICY_PROTOCOL`], both families.
    pub fn policy_rules(&mut self) -> Result<Vec<PolicyRule>, Error> {
        let mut rules = Vec::new();
        for family in Family::BOTH {
            let mut message = RuleMessage::default();
            message.header.family = address_family(family);
            let rows = self.dump("rules", RouteNetlinkMessage::GetRule(message))?;
            rules.extend(rows.into_iter().filter_map(|row| parse_rule(row, family)));
        }
        Ok(rules)
    }

    /// An existing one is fine.
    pub fn add_rule(&mut self, rule: &PolicyRule) -> Result<(), Error> {
        let request = RouteNetlinkMessage::NewRule(rule_message(rule));
        match self.request(&describe(rule), request, NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.is_existing() => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// A missing one is fine.
    pub fn remove_rule(&mut self, rule: &PolicyRule) -> Result<(), Error> {
        let request = RouteNetlinkMessage::DelRule(rule_message(rule));
        missing_is_fine(self.request(&describe(rule), request, 0).map(|_| ()))
    }
}

fn describe(rule: &PolicyRule) -> String {
    format!("rule from {} lookup {} priority {}", rule.source, rule.table, rule.priority)
}

fn rule_message(rule: &PolicyRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(rule.source.family());
    message.header.src_len = rule.source.prefix;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Source(rule.source.address),
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(Protocol::from(POLICY_PROTOCOL)),
    ];
    message
}

fn parse_rule(row: RouteNetlinkMessage, family: Family) -> Option<PolicyRule> {
    let RouteNetlinkMessage::NewRule(message) = row else { return None };
    let header = message.header;
    let (mut source, mut priority, mut table) = (None::<IpAddr>, 0, u32::from(header.table));
    let mut ours = false;
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Source(address) => source = Some(address),
            RuleAttribute::Priority(n) => priority = n,
            RuleAttribute::Table(n) => table = n,
            RuleAttribute::Protocol(p) => ours = u8::from(p) == POLICY_PROTOCOL,
            _ => {}
        }
    }
    let source = Cidr::new(source.unwrap_or(family.default_route().address), header.src_len)?;
    ours.then_some(PolicyRule { source, priority, table })
}
