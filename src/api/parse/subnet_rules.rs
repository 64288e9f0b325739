//! The rules for one Subnet, numbered as in the admission sheet. Each returns the parsed value
//! and notes what is wrong.

use std::net::IpAddr;

use crate::{
    api::{NamedGateway, Settings, crd},
    net::{Cidr, DualStack, Family, IpRange, ip_number, parse_ip},
};

use super::{
    findings::Findings,
    items,
    subnet_default::{exclude_range, has_upper_case},
};

const UPPER: &str = "holds upper-case letters; write IPv6 addresses in lower case";

fn lower(found: &mut Findings, field: &str, value: &str) -> bool {
    let upper = has_upper_case(value);
    if upper {
        found.refuse(field, value, UPPER);
    }
    !upper
}

fn address(found: &mut Findings, field: &str, value: &str) -> Option<IpAddr> {
    if !lower(found, field, value) {
        return None;
    }
    found.take(field, value, parse_ip(value))
}

/// Rules 2, 3 and 5.
pub fn cidr_block(found: &mut Findings, spec: &crd::SubnetSpec) -> Option<DualStack<Cidr>> {
    let (field, value) = ("spec.cidrBlock", spec.cidr_block.as_str());
    if !lower(found, field, value) {
        return None;
    }
    let cidrs = found.take(field, value, DualStack::parse_cidrs(value))?;
    let mut fine = true;
    for (family, cidr) in cidrs.iter() {
        if cidr.prefix == family.bits() {
            let remedy = format!("/{} holds a single address; use a shorter prefix", cidr.prefix);
            found.refuse(field, value, remedy);
            fine = false;
        }
        if let Some((kind, _)) = special_ranges().find(|(_, special)| special.overlaps(*cidr)) {
            found.refuse(field, value, format!("overlaps the {kind} range; choose another range"));
            fine = false;
        }
    }
    fine.then(|| cidrs.map(|c| c.network()))
}

/// Ranges that never hold pods (RFC 1122, RFC 4291).
fn special_ranges() -> impl Iterator<Item = (&'static str, Cidr)> {
    [
        ("broadcast", "255.255.255.255/32"),
        ("multicast", "224.0.0.0/4"),
        ("loopback", "127.0.0.0/8"),
        ("zero", "0.0.0.0/32"),
        ("link-local", "169.254.0.0/16"),
        ("unspecified", "::/128"),
        ("loopback", "::1/128"),
        ("multicast", "ff00::/8"),
        ("link-local", "fe80::/10"),
    ]
    .into_iter()
    .filter_map(|(kind, text)| Some((kind, text.parse().ok()?)))
}

/// Rule 1.
pub fn gateway(
    found: &mut Findings,
    spec: &crd::SubnetSpec,
    cidrs: &DualStack<Cidr>,
) -> Option<DualStack<IpAddr>> {
    let (field, value) = ("spec.gateway", spec.gateway.as_str());
    if !lower(found, field, value) {
        return None;
    }
    let gateways = found.take(field, value, DualStack::parse_addresses(value))?;
    let mut fine = true;
    for (family, ip) in gateways.iter() {
        match cidrs.get(family) {
            Some(cidr) if !cidr.contains(*ip) => {
                let remedy = format!("lies outside spec.cidrBlock {cidr}; choose an address in it");
                found.refuse(field, value, remedy);
                fine = false;
            }
            Some(cidr) if cidr.is_network_or_broadcast(*ip) => {
                let remedy = format!(
                    "is the first or last address of {cidr}; choose another, for example {}",
                    cidr.first_usable()
                );
                found.refuse(field, value, remedy);
                fine = false;
            }
            Some(_) => {}
            None => {
                let remedy = format!("spec.cidrBlock {cidrs} has no range of that family");
                found.refuse(field, value, remedy);
                fine = false;
            }
        }
    }
    fine.then_some(gateways)
}

/// Rule 4. Ranges are cut to the usable addresses; what lies outside them is left out.
pub fn excludes(
    found: &mut Findings,
    spec: &crd::SubnetSpec,
    cidrs: &DualStack<Cidr>,
) -> Vec<IpRange> {
    let mut ranges = Vec::new();
    for entry in &spec.exclude_ips {
        let Some(range) = found.take("spec.excludeIps", entry, exclude_range(entry)) else {
            continue;
        };
        let Some(cidr) = cidrs.get(range.family) else { continue };
        let first = range.first.max(ip_number(cidr.first_usable()));
        let last = range.last.min(ip_number(cidr.last_usable()));
        if first <= last {
            ranges.push(IpRange::new(range.family, first, last));
        }
    }
    ranges
}

/// Rule 6.
pub fn allow_subnets(found: &mut Findings, spec: &crd::SubnetSpec) -> Vec<Cidr> {
    let field = "spec.allowSubnets";
    let mut cidrs = Vec::new();
    for entry in &spec.allow_subnets {
        if lower(found, field, entry) {
            cidrs.extend(found.take(field, entry, entry.parse::<Cidr>()).map(Cidr::network));
        }
    }
    cidrs
}

/// Rules 7, 8, 9, 10, 13 and 14: single values against each other.
pub fn relations(found: &mut Findings, name: &str, spec: &crd::SubnetSpec, settings: &Settings) {
    let known = |value: &str, words: &[&str]| value.is_empty() || words.contains(&value);
    if !known(&spec.gateway_type, &["distributed", "centralized"]) {
        found.refuse("spec.gatewayType", &spec.gateway_type, "write distributed or centralized");
    }
    if !known(&spec.protocol, &["IPv4", "IPv6", "Dual"]) {
        found.refuse("spec.protocol", &spec.protocol, "leave it out, cidrBlock decides");
    }
    if spec.vpc == name {
        let remedy = "a VPC and its subnet must not share a name; rename one";
        found.refuse("spec.vpc", &spec.vpc, remedy);
    }
    // IP objects carry the name as a label key and value.
    if name.len() > 63 {
        found.refuse("metadata.name", name, "is longer than 63 characters; choose a shorter name");
    }
    if spec.vpc == *settings.cluster_router {
        api_server(found, spec, settings);
    }
    if spec.logical_gateway && spec.u2o_interconnection {
        let remedy = "excludes spec.logicalGateway; turn one of them off";
        found.refuse("spec.u2oInterconnection", true, remedy);
    }
    if spec.u2o_features.overlay_only_routing && !spec.u2o_interconnection {
        let remedy = "needs spec.u2oInterconnection and spec.vlan; set both or turn it off";
        found.refuse("spec.u2oFeatures.overlayOnlyRouting", true, remedy);
    }
}

/// The API server's Service has the first address of the Service range, always; the environment
/// may name another way to it.
fn api_server(found: &mut Findings, spec: &crd::SubnetSpec, settings: &Settings) {
    let Ok(cidrs) = DualStack::parse_cidrs(&spec.cidr_block) else { return };
    let services = settings.service_cidrs.iter().map(|(_, range)| range.first_usable());
    for api in services.chain(settings.api_server) {
        if cidrs.contains(api) {
            let remedy = format!("holds {api}, the API server's address; choose another range");
            found.refuse("spec.cidrBlock", &spec.cidr_block, remedy);
        }
    }
}

/// Rule 11.
pub fn egress_gateways(
    found: &mut Findings,
    spec: &crd::SubnetSpec,
    cidrs: &DualStack<Cidr>,
) -> Vec<IpAddr> {
    let (field, value) = ("spec.externalEgressGateway", spec.external_egress_gateway.as_str());
    if value.trim().is_empty() {
        return Vec::new();
    }
    if spec.nat_outgoing {
        found.refuse(field, value, "excludes spec.natOutgoing; turn natOutgoing off");
    }
    for (field, number) in [
        ("spec.policyRoutingTableID", spec.policy_routing_table_id),
        ("spec.policyRoutingPriority", spec.policy_routing_priority),
    ] {
        if number == 0 {
            found.refuse(field, number, "must be given with spec.externalEgressGateway");
        }
    }
    let mut ips = Vec::new();
    for item in value.split(',') {
        let Some(ip) = address(found, field, item.trim()) else { continue };
        if !cidrs.is_dual() && cidrs.get(Family::of(ip)).is_none() {
            found.refuse(field, value, format!("{ip} is of another family than {cidrs}"));
        }
        ips.push(ip);
    }
    if ips.len() > 2 {
        found.refuse(field, value, "names more than two addresses; keep one per family");
    }
    ips
}

/// Rule 12.
pub fn vips(found: &mut Findings, spec: &crd::SubnetSpec, cidrs: &DualStack<Cidr>) {
    let field = "spec.vips";
    for entry in &spec.vips {
        let Some(ip) = address(found, field, entry) else { continue };
        if !cidrs.contains(ip) {
            found.refuse(field, entry, format!("lies outside spec.cidrBlock {cidrs}; remove it"));
        }
    }
}

/// Rule 15.
pub fn nat_rules(found: &mut Findings, spec: &crd::SubnetSpec) {
    for (index, rule) in spec.nat_outgoing_policy_rules.iter().enumerate() {
        let field = |end: &str| format!("spec.natOutgoingPolicyRules[{index}].match.{end}");
        let sources = nat_family(found, &field("srcIPs"), &rule.matching.src_ips);
        let destinations = nat_family(found, &field("dstIPs"), &rule.matching.dst_ips);
        if let (Some(source), Some(destination)) = (sources, destinations)
            && source != destination
        {
            let remedy = "is of another family than srcIPs; write one rule per family";
            found.refuse(&field("dstIPs"), &rule.matching.dst_ips, remedy);
        }
    }
}

/// Family of a list; `None` for an empty or a refused one.
fn nat_family(found: &mut Findings, field: &str, list: &str) -> Option<Family> {
    if list.is_empty() {
        return None;
    }
    if items(list).next().is_none() {
        found.refuse(field, list, "names no address; add one or remove the field");
        return None;
    }
    let mut family = None;
    for item in items(list) {
        let parsed = match item.parse::<Cidr>() {
            Ok(cidr) => cidr.family(),
            Err(_) => Family::of(address(found, field, item)?),
        };
        if family.is_some_and(|f| f != parsed) {
            found.refuse(field, list, "mixes IPv4 and IPv6; write one rule per family");
            return None;
        }
        family = Some(parsed);
    }
    family
}

/// Rule 16.
pub fn u2o_ip(
    found: &mut Findings,
    spec: &crd::SubnetSpec,
    cidrs: &DualStack<Cidr>,
    gateways: &DualStack<IpAddr>,
) {
    let (field, value) = ("spec.u2oInterconnectionIP", spec.u2o_interconnection_ip.as_str());
    if value.is_empty() {
        return;
    }
    for item in value.split(',') {
        let Some(ip) = address(found, field, item.trim()) else { continue };
        if !cidrs.contains(ip) {
            let remedy = format!("lies outside spec.cidrBlock {cidrs}; choose an address in it");
            found.refuse(field, value, remedy);
        } else if gateways.iter().any(|(_, g)| *g == ip) {
            found.refuse(field, value, "is the gateway; choose another address");
        }
    }
}

/// `node[:egressIP],...`.
pub fn gateway_nodes(found: &mut Findings, spec: &crd::SubnetSpec) -> Vec<NamedGateway> {
    let mut nodes = Vec::new();
    for item in items(&spec.gateway_node) {
        let (node, egress) = item.split_once(':').unwrap_or((item, ""));
        let egress = match egress.trim() {
            "" => None,
            ip => match address(found, "spec.gatewayNode", ip) {
                Some(ip) => Some(ip),
                None => continue,
            },
        };
        nodes.push(NamedGateway { node: node.trim().into(), egress });
    }
    nodes
}
