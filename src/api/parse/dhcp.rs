use crate::api::{Dhcp, Map, crd};

use super::findings::Findings;

/// DHCP options of a subnet with enableDHCP.
pub(super) fn dhcp(found: &mut Findings, spec: &crd::SubnetSpec) -> Option<Dhcp> {
    let v4 = options(found, "spec.dhcpV4Options", &spec.dhcp_v4_options);
    let v6 = options(found, "spec.dhcpV6Options", &spec.dhcp_v6_options);
    spec.enable_dhcp.then_some(Dhcp { v4, v6 })
}

/// Router advertisement options of a subnet with enableIPv6RA.
pub(super) fn router_advertisement(found: &mut Findings, spec: &crd::SubnetSpec) -> Option<Map> {
    let given = options(found, "spec.ipv6RAConfigs", &spec.ipv6_ra_configs);
    spec.enable_ipv6_ra.then_some(given)
}

/// `key=value,key=value`. A value in braces is a list; its items may be parted by `;` or `,`, and
/// OVN wants commas (`dns_server={8.8.8.8;1.1.1.1}`, and without braces `dns_server=8.8.8.8;1.1.1.1`).
fn options(found: &mut Findings, field: &str, text: &str) -> Map {
    let mut options = Map::new();
    for part in split_outside_braces(text) {
        let part = part.trim();
        if part.is_empty() {
            continue;
        }
        match part.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() && !value.trim().is_empty() => {
                options.insert(key.trim().into(), value_text(value.trim()).into());
            }
            _ => found.refuse(field, part, "write key=value; lists as key={a;b}"),
        }
    }
    options
}

fn value_text(value: &str) -> String {
    if !value.contains(';') && !value.starts_with('{') {
        return value.to_owned();
    }
    let inner = value.trim_start_matches('{').trim_end_matches('}');
    let items: Vec<&str> =
        inner.split([';', ',']).map(str::trim).filter(|item| !item.is_empty()).collect();
    format!("{{{}}}", items.join(","))
}

fn split_outside_braces(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}
