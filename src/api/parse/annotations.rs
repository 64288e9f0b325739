//! Annotations that users write on pods.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    api::{Invalid, Map, Text, names::suffix},
    net::{Cidr, DualStack, Family, Mac, NetError, parse_ip},
};

use super::{
    findings::{Findings, reason},
    items,
};

const DOMAIN: &str = ".kubernetes.io/";

/// Provider and suffix of `<provider>.kubernetes.io/<suffix>`.
fn split(key: &str) -> Option<(&str, &str)> {
    key.split_once(DOMAIN)
}

/// Whether an annotation concerns us: the default provider's, a provider network's, a known
/// suffix of a `<nad>.<ns>[.ovn]` provider, or one of multus and KubeVirt. Annotations of
/// Kubernetes itself such as `kubectl.kubernetes.io/...` or `node.alpha.kubernetes.io/ttl` are not.
pub fn is_ours(key: &str) -> bool {
    if let Some((provider, name)) = split(key) {
        return provider == "ovn"
            || provider.ends_with(".provider-network")
            || (provider.contains('.') && suffix::ALL.contains(&name));
    }
    key.starts_with("k8s.v1.cni.cncf.io/")
        || key.starts_with("v1.multus-cni.io/")
        || key == crate::api::names::annotation::MIGRATION_JOB_NAME
}

pub(super) fn ours(annotations: Option<&BTreeMap<String, String>>) -> Map {
    annotations
        .into_iter()
        .flatten()
        .filter(|(key, _)| is_ours(key))
        .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
        .collect()
}

/// Addresses of an `ip_address` annotation, in either order. An item may carry a prefix length
/// (`10.16.0.5/16`), which is passed over: upstream's check let it pass and its allocation failed.
pub fn fixed_addresses(text: &str) -> Result<DualStack<IpAddr>, NetError> {
    let bare: Vec<&str> = text
        .split(',')
        .map(|item| if item.parse::<Cidr>().is_ok() { item.split('/').next() } else { Some(item) })
        .map(Option::unwrap_or_default)
        .collect();
    DualStack::parse_addresses(&bare.join(","))
}

/// Content of an `ip_pool` annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolWish {
    /// Name of an IPPool.
    Pool(Text),
    /// Candidates in order; a StatefulSet's pods take the one at their ordinal.
    Addresses(Vec<DualStack<IpAddr>>),
}

/// `pool`, `ip,ip,...`, `ip;ip;...` or `v4,v6;v4,v6`. Exactly two comma items of different family
/// are one dual-stack candidate.
pub fn parse_pool_wish(text: &str) -> Result<PoolWish, NetError> {
    let text = text.trim();
    if !is_list(text) {
        return Ok(PoolWish::Pool(text.into()));
    }
    let groups: Vec<&str> = if text.contains(';') {
        text.split(';').map(str::trim).filter(|g| !g.is_empty()).collect()
    } else {
        let all: Vec<&str> = items(text).collect();
        let pair = match all[..] {
            [a, b] => Family::of(parse_ip(a)?) != Family::of(parse_ip(b)?),
            _ => false,
        };
        if pair { vec![text] } else { all }
    };
    groups
        .into_iter()
        .map(DualStack::parse_addresses)
        .collect::<Result<_, _>>()
        .map(PoolWish::Addresses)
}

/// Whether the text lists addresses rather than naming a pool.
fn is_list(text: &str) -> bool {
    text.contains([';', ',']) || parse_ip(text).is_ok()
}

/// Everything wrong with the annotations of a pod, for every provider in them (upstream checked
/// the default one, the others failed later without a word on the annotation).
pub(super) fn annotation_findings(annotations: &Map) -> Vec<Invalid> {
    let mut found = Findings::new(reason::POD);
    // An empty annotation is an absent one.
    for (key, value) in annotations.iter().filter(|(_, value)| !value.trim().is_empty()) {
        let Some((provider, name)) = split(key) else { continue };
        let cidr = || annotations.get(format!("{provider}{DOMAIN}{}", suffix::CIDR).as_str());
        match name {
            suffix::IP_ADDRESS => fixed(&mut found, key, value, cidr()),
            suffix::IP_POOL => pool(&mut found, key, value, cidr()),
            suffix::MAC_ADDRESS => {
                let mac = found.take(key, value, value.parse::<Mac>());
                if mac.is_some_and(|mac| !mac.is_unicast()) {
                    found.refuse(
                        key,
                        value,
                        "is no address of one interface; clear bit 01 of octet 1",
                    );
                }
            }
            suffix::INGRESS_RATE | suffix::EGRESS_RATE if value.parse::<u64>().is_err() => {
                found.refuse(key, value, "write a whole number of Mbit/s");
            }
            suffix::CIDR if DualStack::parse_cidrs(value).is_err() => {
                found.refuse(
                    key,
                    value,
                    "is no CIDR and no pair; remove it, the controller sets it",
                );
            }
            _ => {}
        }
    }
    found.into_list()
}

/// Ranges of a `cidr` annotation; a broken one has its own finding.
fn ranges(cidr: Option<&Text>) -> Option<DualStack<Cidr>> {
    DualStack::parse_cidrs(cidr?).ok()
}

fn fixed(found: &mut Findings, key: &str, value: &str, cidr: Option<&Text>) {
    let Ok(addresses) = fixed_addresses(value) else {
        found.refuse(key, value, "write an address, or v4,v6");
        return;
    };
    let Some(ranges) = ranges(cidr) else { return };
    for (_, ip) in addresses.iter().filter(|(_, ip)| !ranges.contains(**ip)) {
        found.refuse(key, value, format!("{ip} lies outside {ranges}; choose an address in it"));
    }
}

fn pool(found: &mut Findings, key: &str, value: &str, cidr: Option<&Text>) {
    let candidates = match parse_pool_wish(value) {
        Ok(PoolWish::Addresses(candidates)) => candidates,
        Ok(PoolWish::Pool(_)) => return,
        Err(error) => return found.refuse(key, value, error),
    };
    let Some(ranges) = ranges(cidr) else { return };
    for candidate in candidates.iter().filter(|c| !c.iter().any(|(_, ip)| ranges.contains(*ip))) {
        let remedy = format!("{candidate} lies outside {ranges}; choose addresses in it");
        found.refuse(key, value, remedy);
    }
}
