//! From what the watches report to changes of the node's state. Pure.

use crate::{
    api::{Kind, crd},
    host::{NatAction, NatPolicyRule},
    net::{Cidr, DualStack},
    node::state::{Change, SubnetStatus},
    store::watch::{Refused, Update, What},
};

/// Changes that an update stands for.
pub fn changes(update: Update) -> Vec<Change> {
    let change = match update {
        Update::Synced(kind) => return vec![Change::Synced(kind)],
        Update::Change(change) => change,
    };
    match change.what {
        // A node agent goes by what the controller accepted.
        What::Refused(Refused { last_valid: Some(object), .. }, seen)
        | What::Upsert(object, seen) => {
            let status = (change.kind == Kind::Subnet).then(|| {
                let raw = seen.status.as_ref().map(|json| json.value());
                let typed = raw.and_then(|raw| serde_json::from_value(raw).ok());
                Change::SubnetStatus(change.key, parse_status(&typed.unwrap_or_default()))
            });
            status.into_iter().chain([Change::Upsert(object)]).collect()
        }
        // Not valid, and never recorded as such: what is in force stays.
        What::Refused(..) => Vec::new(),
        What::Deleted | What::AbsentAfterRelist => {
            vec![Change::Remove(change.kind, change.key)]
        }
    }
}

/// The parts of a Subnet's status that concern nodes. The controller writes it, so what cannot be
/// read counts as absent.
pub fn parse_status(status: &crd::SubnetStatus) -> SubnetStatus {
    let gateways = status.activate_gateway.split(',').map(str::trim);
    SubnetStatus {
        active_gateways: gateways.filter(|n| !n.is_empty()).map(Into::into).collect(),
        u2o_addresses: DualStack::parse_addresses(&status.u2o_interconnection_ip)
            .unwrap_or_default(),
        nat_policy: status.nat_outgoing_policy_rules.iter().filter_map(parse_rule).collect(),
    }
}

fn parse_rule(rule: &crd::NatRuleStatus) -> Option<NatPolicyRule> {
    Some(NatPolicyRule {
        id: rule.rule_id.as_str().into(),
        action: match rule.action.as_str() {
            "nat" => NatAction::Nat,
            "forward" => NatAction::Forward,
            _ => return None,
        },
        sources: parse_list(&rule.matching.src_ips)?,
        destinations: parse_list(&rule.matching.dst_ips)?,
    })
}

/// Addresses and prefixes; one bad item spoils the rule, for a wider match would be wrong.
fn parse_list(text: &str) -> Option<Vec<Cidr>> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| item.parse().ok().or_else(|| Some(Cidr::host(item.parse().ok()?)))).collect()
}
