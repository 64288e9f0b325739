use kube::ResourceExt;

use crate::{
    api::{Remote, SecurityGroup, SecurityRule, SecurityRules, Traffic, Verdict, crd},
    net::{Cidr, Family, parse_ip},
};

use super::findings::{Findings, reason};

/// A SecurityGroup; findings about its rules are part of it.
pub fn parse_security_group(raw: &crd::SecurityGroup) -> SecurityGroup {
    SecurityGroup {
        name: raw.name_any().into(),
        ingress: rules("spec.ingressRules", &raw.spec.ingress_rules),
        egress: rules("spec.egressRules", &raw.spec.egress_rules),
        allow_same_group: raw.spec.allow_same_group_traffic,
    }
}

fn rules(field: &str, raw: &[crd::SecurityRule]) -> SecurityRules {
    let mut found = Findings::new(reason::SECURITY_GROUP);
    let rules = raw.iter().enumerate();
    let rules = rules.filter_map(|(n, r)| rule(&mut found, &format!("{field}[{n}]"), r)).collect();
    SecurityRules { rules, invalid: found.into_list() }
}

/// A rule that allows, whole or not at all; one that drops, with the widest meaning that its
/// wrong fields can have.
fn rule(found: &mut Findings, field: &str, raw: &crd::SecurityRule) -> Option<SecurityRule> {
    // Every other word drops: deny and drop are both in use.
    let verdict = if raw.policy == "allow" { Verdict::Allow } else { Verdict::Drop };
    let family = family(found, field, raw);
    let priority = (1..=200).contains(&raw.priority).then_some(raw.priority);
    if priority.is_none() {
        found.refuse(&format!("{field}.priority"), raw.priority, "write 1 to 200, 1 comes first");
    }
    let remote = remote(found, field, raw, family);
    let traffic = traffic(found, field, raw);
    match verdict {
        Verdict::Allow => Some(SecurityRule {
            families: vec![family?],
            priority: priority?,
            remote: remote?,
            traffic: traffic?,
            verdict,
        }),
        Verdict::Drop => Some(SecurityRule {
            families: family.map_or(Family::BOTH.to_vec(), |family| vec![family]),
            priority: priority.unwrap_or(0),
            remote: remote.unwrap_or(Remote::Anywhere),
            traffic: traffic.unwrap_or(Traffic::Any),
            verdict,
        }),
    }
}

fn family(found: &mut Findings, field: &str, raw: &crd::SecurityRule) -> Option<Family> {
    match raw.ip_version.as_str() {
        "ipv4" => Some(Family::V4),
        "ipv6" => Some(Family::V6),
        other => {
            found.refuse(&format!("{field}.ipVersion"), other, "write ipv4 or ipv6");
            None
        }
    }
}

fn remote(
    found: &mut Findings,
    field: &str,
    raw: &crd::SecurityRule,
    family: Option<Family>,
) -> Option<Remote> {
    match raw.remote_type.as_str() {
        "address" => address(found, &format!("{field}.remoteAddress"), raw, family),
        "securityGroup" if raw.remote_security_group.is_empty() => {
            let remedy = "name the group, or set remoteType to address";
            found.refuse(&format!("{field}.remoteSecurityGroup"), "", remedy);
            None
        }
        "securityGroup" => Some(Remote::Group(raw.remote_security_group.as_str().into())),
        other => {
            found.refuse(&format!("{field}.remoteType"), other, "write address or securityGroup");
            None
        }
    }
}

/// An address of the rule's family: upstream wrote `ip4.src == fd00::/8` and OVN refused it.
fn address(
    found: &mut Findings,
    field: &str,
    raw: &crd::SecurityRule,
    family: Option<Family>,
) -> Option<Remote> {
    let text = raw.remote_address.trim();
    let (of, written) = match (text.parse::<Cidr>(), parse_ip(text)) {
        // OVN takes no set bits behind the prefix.
        (Ok(range), _) => (range.family(), range.network().to_string()),
        (_, Ok(ip)) => (Family::of(ip), ip.to_string()),
        _ => {
            found.refuse(field, text, "is no address and no CIDR");
            return None;
        }
    };
    if of != family? {
        found.refuse(field, text, format!("is not of ipVersion {}", raw.ip_version));
        return None;
    }
    Some(Remote::Address(written))
}

/// Upstream let an unknown protocol mean all of them, which opened more than was written.
fn traffic(found: &mut Findings, field: &str, raw: &crd::SecurityRule) -> Option<Traffic> {
    match raw.protocol.to_ascii_lowercase().as_str() {
        "" | "all" => Some(Traffic::Any),
        "icmp" => Some(Traffic::Icmp),
        "tcp" => ports(found, field, raw).map(Traffic::Tcp),
        "udp" => ports(found, field, raw).map(Traffic::Udp),
        _ => {
            let remedy = "write all, icmp, tcp or udp";
            found.refuse(&format!("{field}.protocol"), &raw.protocol, remedy);
            None
        }
    }
}

/// The outer `None` leaves an allowing rule out; a dropping one with wrong ports has all of them.
fn ports(found: &mut Findings, field: &str, raw: &crd::SecurityRule) -> Option<Option<(u16, u16)>> {
    let port = |number: i64| u16::try_from(number).ok().filter(|port| *port > 0);
    let range = match (port(raw.port_range_min), port(raw.port_range_max)) {
        (Some(min), Some(max)) if min <= max => Some((min, max)),
        _ => None,
    };
    if range.is_none() {
        let value = format!("{}..{}", raw.port_range_min, raw.port_range_max);
        let remedy = "write 1 to 65535, portRangeMin not above portRangeMax";
        found.refuse(&format!("{field}.portRangeMin"), value, remedy);
        if raw.policy == "allow" {
            return None;
        }
    }
    Some(range)
}
