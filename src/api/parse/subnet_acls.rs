//! `spec.acls` of a Subnet.

use crate::api::{SubnetAcl, crd};

use super::findings::Findings;

const DIRECTIONS: [&str; 2] = ["from-lport", "to-lport"];
const ACTIONS: [&str; 5] = ["allow-related", "allow-stateless", "allow", "drop", "reject"];

/// The rules. A wrong one refuses the Subnet as a whole: left out alone, a drop rule with a typing
/// error would leave its traffic open.
pub fn subnet_acls(found: &mut Findings, raw: &[crd::Acl]) -> Vec<SubnetAcl> {
    let mut acls: Vec<SubnetAcl> = Vec::new();
    for (index, acl) in raw.iter().enumerate() {
        let field = |end: &str| format!("spec.acls[{index}].{end}");
        if !DIRECTIONS.contains(&acl.direction.as_str()) {
            found.refuse(&field("direction"), &acl.direction, "write from-lport or to-lport");
        }
        if !(0..=32767).contains(&acl.priority) {
            found.refuse(&field("priority"), acl.priority, "OVN takes 0 to 32767");
        }
        if !ACTIONS.contains(&acl.action.as_str()) {
            found.refuse(&field("action"), &acl.action, format!("write {}", ACTIONS.join(", ")));
        }
        let matching = acl.matching.trim();
        if let Some(remedy) = unbalanced(matching) {
            found.refuse(&field("match"), &acl.matching, remedy);
        }
        let acl = SubnetAcl {
            direction: acl.direction.as_str().into(),
            priority: acl.priority,
            matching: matching.into(),
            action: acl.action.as_str().into(),
        };
        let place = |a: &&SubnetAcl| {
            (&a.direction, a.priority, &a.matching) == (&acl.direction, acl.priority, &acl.matching)
        };
        match acls.iter().find(place) {
            None => acls.push(acl),
            Some(before) if before.action == acl.action => {}
            Some(before) => {
                let remedy = format!(
                    "an entry of the same direction, priority and match says {:?}; remove one",
                    &*before.action
                );
                found.refuse(&field("action"), &acl.action, remedy);
            }
        }
    }
    acls
}

/// What OVN would refuse later without a word to the user: it builds no flow for such an ACL.
fn unbalanced(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("write an OVN match expression");
    }
    let mut open = Vec::new();
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' => open.push(')'),
            '{' => open.push('}'),
            ')' | '}' if open.pop() != Some(c) => return Some("close brackets in order"),
            _ => {}
        }
    }
    if quoted {
        return Some("close the quotation mark");
    }
    (!open.is_empty()).then_some("close every bracket")
}
