//! What the controller fills into a Subnet and writes back.

use std::net::IpAddr;

use kube::ResourceExt;
use serde_json::Value;

use crate::{
    api::{Settings, crd, is_ovn_provider, names::DEFAULT_PROVIDER},
    net::{Cidr, DualStack, IpRange, ip_from_number},
};

/// The spec with defaults filled in and texts in their canonical form: prefixes without host
/// bits, IPv4 before IPv6, addresses as RFC 5952 writes them. Texts that are not valid (or hold
/// upper-case letters, which users must correct) stay as they are for [`super::parse_subnet`] to
/// refuse. Applying it twice changes nothing.
pub fn defaulted_subnet_spec(raw: &crd::Subnet, settings: &Settings) -> crd::SubnetSpec {
    let name = raw.name_any();
    let mut spec = raw.spec.clone();
    if spec.provider.is_empty() {
        spec.provider = DEFAULT_PROVIDER.to_owned();
    }
    if spec.vpc.is_empty() && is_ovn_provider(&spec.provider) {
        spec.vpc = settings.cluster_router.to_string();
    }
    let default_vpc = spec.vpc == *settings.cluster_router;
    let join = name == *settings.node_switch;
    addresses(&mut spec);
    if default_vpc {
        spec.default &= name == *settings.default_subnet;
        if spec.gateway_type.is_empty() && !join {
            spec.gateway_type = "distributed".to_owned();
        }
    }
    if spec.gateway_type == "distributed" {
        spec.gateway_node.clear();
    }
    spec.enable_lb = if join { None } else { spec.enable_lb.or(Some(settings.enable_lb)) };
    if spec.vlan.is_empty() {
        spec.u2o_interconnection = false;
    }
    if !spec.u2o_interconnection {
        spec.u2o_interconnection_ip.clear();
    }
    spec
}

/// What to write back, as a merge patch of the spec: also what is cleared. `None` when all is there.
pub fn subnet_defaults(raw: &crd::Subnet, settings: &Settings) -> Option<Value> {
    let spec = defaulted_subnet_spec(raw, settings);
    if spec == raw.spec {
        return None;
    }
    let given = serde_json::to_value(&raw.spec).ok()?;
    let mut spec = serde_json::to_value(spec).ok()?;
    // Empty fields are left out of the text; only a null takes one away.
    for key in given.as_object()?.keys() {
        spec.as_object_mut()?.entry(key.clone()).or_insert(Value::Null);
    }
    Some(spec)
}

fn addresses(spec: &mut crd::SubnetSpec) {
    let Some(cidrs) = canonical_cidrs(&spec.cidr_block) else { return };
    spec.cidr_block = cidrs.to_string();
    spec.protocol = cidrs.protocol().to_owned();
    let Some(gateways) = gateways(&spec.gateway, &cidrs) else { return };
    spec.gateway = gateways.to_string();
    if let Some(excludes) = excludes(&spec.exclude_ips, &gateways) {
        spec.exclude_ips = excludes;
    }
}

pub(super) fn has_upper_case(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_uppercase())
}

pub(super) fn canonical_cidrs(text: &str) -> Option<DualStack<Cidr>> {
    if has_upper_case(text) {
        return None;
    }
    Some(DualStack::parse_cidrs(text).ok()?.map(|c| c.network()))
}

/// The given gateways, completed with the first usable address of a family that has none. `None`
/// when they do not fit.
fn gateways(text: &str, cidrs: &DualStack<Cidr>) -> Option<DualStack<IpAddr>> {
    if has_upper_case(text) {
        return None;
    }
    let mut gateways = if text.trim().is_empty() {
        DualStack::default()
    } else {
        DualStack::parse_addresses(text).ok()?
    };
    if gateways.families().any(|f| cidrs.get(f).is_none()) {
        return None;
    }
    for (family, cidr) in cidrs.iter() {
        if gateways.get(family).is_none() {
            gateways.set(family, Some(cidr.first_usable()));
        }
    }
    Some(gateways)
}

/// One entry of excludeIps: `ip` or `ip..ip`.
pub(super) fn exclude_range(entry: &str) -> Result<IpRange, &'static str> {
    if has_upper_case(entry) {
        return Err("holds upper-case letters; write IPv6 addresses in lower case");
    }
    // IpRange also reads CIDRs, which are not a form of this list.
    if entry.contains('/') {
        return Err("is a CIDR; write its first and last address as first..last");
    }
    IpRange::parse(entry).map_err(|_| "is no address and no range first..last; correct it")
}

/// Overlapping entries joined, the gateways added unless covered, in the order of their texts.
/// `None` when an entry is not valid.
fn excludes(entries: &[String], gateways: &DualStack<IpAddr>) -> Option<Vec<String>> {
    let mut ranges =
        entries.iter().map(|e| exclude_range(e)).collect::<Result<Vec<_>, _>>().ok()?;
    ranges.extend(gateways.iter().map(|(_, ip)| IpRange::single(*ip)));
    ranges.sort();
    let mut merged: Vec<IpRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.family == range.family && range.first <= last.last => {
                last.last = last.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    let mut texts: Vec<String> = merged.iter().map(range_text).collect();
    texts.sort();
    Some(texts)
}

fn range_text(range: &IpRange) -> String {
    let first = ip_from_number(range.family, range.first);
    if range.first == range.last {
        first.to_string()
    } else {
        format!("{first}..{}", ip_from_number(range.family, range.last))
    }
}
