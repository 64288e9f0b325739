//! A SecurityGroup is a port group with ACLs and the sets of its ports' addresses; ports put
//! themselves into both (`security`).

use serde_json::json;

use crate::{
    api::{
        Kind, Remote, SecurityGroup, SecurityRule, SecurityRules, Traffic, Verdict, parse::reason,
    },
    net::{Family, field},
    ovsdb::{
        row::{Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, Problem, View, Wanted},
};

use super::security::{self, Direction, priority};

pub fn desired(view: &View<'_>, name: &str) -> Output {
    let Some(group) = view.get::<SecurityGroup>(name) else { return Output::default() };
    let key = security::ports(name);
    let port_group = security::group_name(view, name);
    let row = RowBuilder::new(&key)
        .set(nb::port_group::NAME, port_group.as_str())
        .map(nb::port_group::EXTERNAL_IDS, [("sg", name), ("type", "security_group")])
        .contributed(nb::port_group::PORTS)
        .contributed(nb::port_group::ACLS);
    let mut output = Output { facts: vec![row.fact()], ..Output::default() };
    for family in Family::BOTH {
        let set = RowBuilder::new(&security::addresses(name, family))
            .set(nb::address_set::NAME, security::set_name(view, name, family))
            .map(nb::address_set::EXTERNAL_IDS, [("sg", name)])
            .contributed(nb::address_set::ADDRESSES);
        output.facts.push(set.fact());
    }
    let group_row = (&key, port_group.as_str());
    for direction in Direction::BOTH {
        output.facts.extend(base(group_row, direction));
        if group.allow_same_group {
            output.facts.extend(same_group(view, name, group_row, direction));
        }
    }
    let ingress = rules(view, group_row, Direction::Ingress, &group.ingress);
    let egress = rules(view, group_row, Direction::Egress, &group.egress);
    output.wanted.push(Wanted::Status {
        kind: Kind::SecurityGroup,
        key: group.name.clone(),
        status: json!({
            "portGroup": port_group,
            "allowSameGroupTraffic": group.allow_same_group,
            "ingressMd5": digest(&ingress.texts),
            "egressMd5": digest(&egress.texts),
            "ingressLastSyncSuccess": ingress.problems.is_empty(),
            "egressLastSyncSuccess": egress.problems.is_empty(),
        }),
    });
    for applied in [ingress, egress] {
        output.facts.extend(applied.facts);
        output.problems.extend(applied.problems.into_iter().map(|message| Problem {
            kind: Kind::SecurityGroup,
            key: group.name.clone(),
            reason: reason::SECURITY_GROUP,
            message,
        }));
    }
    output
}

/// The rules of one direction as they stand in the database.
#[derive(Default)]
struct Applied {
    facts: Vec<Fact>,
    /// One line per ACL, for the hash in the status.
    texts: Vec<String>,
    problems: Vec<String>,
}

fn rules(
    view: &View<'_>,
    group: (&RowKey, &str),
    direction: Direction,
    of: &SecurityRules,
) -> Applied {
    let mut applied = Applied::default();
    applied.problems.extend(of.invalid.iter().map(|finding| finding.message.clone()));
    let (allow, drop): (Vec<&SecurityRule>, Vec<&SecurityRule>) =
        of.rules.iter().partition(|rule| rule.verdict == Verdict::Allow);
    for rule in allow.iter().chain(&drop).copied() {
        let rivals = rivals(rule, &drop);
        applied.problems.extend(rivals.iter().map(|rival| contradiction(direction, rule, rival)));
        if rivals.iter().any(|r| r.remote == rule.remote && r.traffic == rule.traffic) {
            continue;
        }
        let remote = match remote(view, rule) {
            Ok(remote) => remote,
            Err(message) => {
                applied.problems.push(message);
                if rule.verdict == Verdict::Allow {
                    continue;
                }
                None
            }
        };
        for family in &rule.families {
            let action = match rule.verdict {
                Verdict::Allow => "allow-related",
                Verdict::Drop => "drop",
            };
            let priority = priority::RULE - rule.priority;
            let mut parts = condition(direction, *family, remote.as_ref(), rule.traffic);
            let rest = rivals.iter().filter(|rival| rival.families.contains(family));
            let rest: Option<Vec<String>> =
                rest.map(|rival| beside(view, direction, *family, rival)).collect();
            let Some(rest) = rest else { continue };
            parts.extend(rest.iter().map(|rest| format!(" && ({rest})")));
            let id = format!("{}/{priority}/{parts}", direction.lport());
            applied.texts.push(format!("{id} {action}"));
            let matching = format!("{} == @{} && {parts}", direction.port(), group.1);
            let content = (matching, action);
            applied.facts.extend(security::acl(group, &id, direction, priority, content));
        }
    }
    applied
}

/// Rules that drop, at the same priority, some of what a rule allows. OVN leaves it open which of
/// the two counts; here it is the drop, and the user is told.
fn rivals<'a>(rule: &SecurityRule, drop: &[&'a SecurityRule]) -> Vec<&'a SecurityRule> {
    if rule.verdict == Verdict::Drop {
        return Vec::new();
    }
    let rivals = drop.iter().copied().filter(|rival| rival.priority == rule.priority);
    rivals.filter(|rival| rival.overlaps(rule)).collect()
}

/// What a dropping rule is not about; nothing, if it is about everything. OVN negates no protocol,
/// so of a rule about all of them only what is from elsewhere or to another port stays.
fn beside(
    view: &View<'_>,
    direction: Direction,
    family: Family,
    drop: &SecurityRule,
) -> Option<String> {
    let mut terms = Vec::new();
    let end = field(family, direction.remote());
    match remote(view, drop).unwrap_or_default() {
        // OVN takes no != of a prefix without bits.
        Some(End::Address(address)) if !address.ends_with("/0") => {
            terms.push(format!("{end} != {address}"));
        }
        Some(End::Sets(group)) => {
            terms.push(format!("{end} != ${group}.associated.v{}", family.digit()));
        }
        Some(End::Address(_)) | None => {}
    }
    let ports = match drop.traffic {
        Traffic::Tcp(range) => range.map(|range| ("tcp", range)),
        Traffic::Udp(range) => range.map(|range| ("udp", range)),
        Traffic::Any | Traffic::Icmp => None,
    };
    if let Some((protocol, (min, max))) = ports {
        // Nor a comparison that says nothing.
        terms.extend((min > 1).then(|| format!("{protocol}.dst < {min}")));
        terms.extend((max < u16::MAX).then(|| format!("{protocol}.dst > {max}")));
    }
    (!terms.is_empty()).then(|| terms.join(" || "))
}

fn contradiction(direction: Direction, allow: &SecurityRule, drop: &SecurityRule) -> String {
    let rules = match direction {
        Direction::Ingress => "spec.ingressRules",
        Direction::Egress => "spec.egressRules",
    };
    format!(
        "{rules} of priority {}: one allows {allow}, another drops {drop}; what both are about is \
         dropped; give them different priorities",
        allow.priority
    )
}

/// The other end: an address, or the address sets of a group by family; `None` is anywhere.
enum End {
    Address(String),
    Sets(String),
}

fn remote(view: &View<'_>, rule: &SecurityRule) -> Result<Option<End>, String> {
    match &rule.remote {
        Remote::Anywhere => Ok(None),
        Remote::Address(text) => Ok(Some(End::Address(text.clone()))),
        Remote::Group(group) if security::exists(view, group) => {
            Ok(Some(End::Sets(security::group_name(view, group))))
        }
        Remote::Group(group) => {
            let effect = match rule.verdict {
                Verdict::Allow => "allows nothing",
                Verdict::Drop => "drops from everywhere",
            };
            Err(format!(
                "remoteSecurityGroup {:?} does not exist and the rule of priority {} {effect}; \
                 create the group or correct the name",
                &**group, rule.priority
            ))
        }
    }
}

/// `ip4 && ip4.src == 10.0.0.0/8 && 22 <= tcp.dst <= 22`.
fn condition(
    direction: Direction,
    family: Family,
    remote: Option<&End>,
    traffic: Traffic,
) -> String {
    let digit = family.digit();
    let mut parts = vec![format!("ip{digit}")];
    let end = field(family, direction.remote());
    match remote {
        None => {}
        Some(End::Address(address)) => parts.push(format!("{end} == {address}")),
        Some(End::Sets(group)) => parts.push(format!("{end} == ${group}.associated.v{digit}")),
    }
    let ports = |protocol: &str, range: Option<(u16, u16)>| match range {
        Some((min, max)) => format!("{min} <= {protocol}.dst <= {max}"),
        None => protocol.to_owned(),
    };
    match traffic {
        Traffic::Any => {}
        Traffic::Icmp => parts.push(format!("icmp{digit}")),
        Traffic::Tcp(range) => parts.push(ports("tcp", range)),
        Traffic::Udp(range) => parts.push(ports("udp", range)),
    }
    parts.join(" && ")
}

/// What every port needs to have a network at all: ARP, neighbour discovery, DHCP, VRRP.
fn base(group: (&RowKey, &str), direction: Direction) -> Vec<Fact> {
    let [nd, v4, v6] = match direction {
        Direction::Ingress => [
            "130, 134, 135, 136",
            "udp.src == 67 && udp.dst == 68",
            "udp.src == 547 && udp.dst == 546",
        ],
        Direction::Egress => [
            "130, 133, 135, 136",
            "udp.src == 68 && udp.dst == 67",
            "udp.src == 546 && udp.dst == 547",
        ],
    };
    let parts = [
        ("arp", "arp".to_owned()),
        ("nd", format!("icmp6.type == {{{nd}}} && icmp6.code == 0 && ip.ttl == 255")),
        ("dhcp4", format!("{v4} && ip4")),
        ("dhcp6", format!("{v6} && ip6")),
        ("vrrp", "ip.proto == 112".to_owned()),
    ];
    let facts = parts.into_iter().flat_map(|(id, part)| {
        let id = format!("{}/{id}", direction.lport());
        let matching = format!("{} == @{} && {part}", direction.port(), group.1);
        security::acl(group, &id, direction, priority::BASE, (matching, "allow-related"))
    });
    facts.collect()
}

fn same_group(
    view: &View<'_>,
    name: &str,
    group: (&RowKey, &str),
    direction: Direction,
) -> Vec<Fact> {
    let facts = Family::BOTH.into_iter().flat_map(|family| {
        let end = field(family, direction.remote());
        let set = security::set_name(view, name, family);
        let digit = family.digit();
        let matching =
            format!("{} == @{} && ip{digit} && {end} == ${set}", direction.port(), group.1);
        let id = format!("{}/same-group/{digit}", direction.lport());
        security::acl(group, &id, direction, priority::SAME_GROUP, (matching, "allow-related"))
    });
    facts.collect()
}

/// 32 hexadecimal digits, as long as upstream's MD5; readers only compare it with itself.
fn digest(lines: &[String]) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(lines.join("\n"));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
