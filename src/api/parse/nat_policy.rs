//! `status.natOutgoingPolicyRules`: the rules that nodes apply, with the names of their sets.

use crate::api::{Text, crd};

/// What the controller publishes of `spec.natOutgoingPolicyRules`; empty when natOutgoing is off.
pub fn applied_nat_rules(subnet: &str, spec: &crd::SubnetSpec) -> Vec<crd::NatRuleStatus> {
    let rules = spec.nat_outgoing_policy_rules.iter().enumerate();
    rules
        .filter(|_| spec.nat_outgoing)
        .map(|(index, rule)| crd::NatRuleStatus {
            rule_id: rule_id(subnet, index, rule),
            action: rule.action.clone(),
            matching: rule.matching.clone(),
        })
        .collect()
}

/// Identities alone: they change with any part of the rules.
pub(super) fn rule_ids(subnet: &str, spec: &crd::SubnetSpec) -> Vec<Text> {
    applied_nat_rules(subnet, spec).into_iter().map(|rule| rule.rule_id.into()).collect()
}

/// 12 hex digits of SHA-256 over name, index and JSON of the rule, as upstream has it: the name
/// of a set must be the same whoever writes it.
fn rule_id(subnet: &str, index: usize, rule: &crd::NatRule) -> String {
    use sha2::Digest;
    let json = serde_json::to_string(rule).unwrap_or_default();
    let digest = sha2::Sha256::digest(format!("{subnet}{index}{json}").as_bytes());
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
