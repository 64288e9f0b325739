//! What a pod asks the allocator for, network by network.

use std::net::IpAddr;

use crate::{
    api::{
        IpPool, Pod, StatefulSet, Subnet, Text,
        names::suffix,
        parse::{PoolWish, fixed_addresses, parse_pool_wish},
    },
    ipam::{MacWish, Wish},
    net::{DualStack, Mac},
    ovn::{networks::Network, placement},
    store::View,
};

/// One thing to try: a wish, in some subnets.
pub struct Attempt<'a> {
    pub wish: Wish,
    pub subnets: Vec<&'a Subnet>,
}

/// What to try, in order. Annotations of the pod first, then the network selection element, then
/// the pools of the namespace: a namespace with pools never falls back to other addresses.
pub fn attempts<'a>(
    view: &View<'a>,
    pod: &Pod,
    network: &Network<'a>,
) -> Result<Vec<Attempt<'a>>, String> {
    let provider = &*network.provider;
    let annotation = |name| pod.annotation(provider, name).filter(|text| !text.trim().is_empty());
    let bad = |name: &str, error: &dyn std::fmt::Display| {
        format!("annotation {provider}.kubernetes.io/{name}: {error}")
    };
    if let Some(text) = annotation(suffix::IP_ADDRESS) {
        let ips = fixed_addresses(text).map_err(|e| bad(suffix::IP_ADDRESS, &e))?;
        return Ok(vec![fixed(ips, &network.subnets)]);
    }
    if let Some(text) = annotation(suffix::IP_POOL) {
        return match parse_pool_wish(text).map_err(|e| bad(suffix::IP_POOL, &e))? {
            PoolWish::Pool(name) => pooled(view, &name, &network.subnets).map(|a| vec![a]),
            PoolWish::Addresses(all) => {
                let subnets = around(&all, &network.subnets);
                Ok(vec![Attempt { wish: listed(view, pod, all)?, subnets }])
            }
        };
    }
    if let Some(request) = network.request.as_ref().filter(|r| !r.addresses.is_empty()) {
        return Ok(vec![fixed(request.addresses, &network.subnets)]);
    }
    let pools = match provider {
        "ovn" => placement::namespace_pools(view, &pod.namespace),
        _ => Vec::new(),
    };
    let any = Attempt { wish: Wish::Any, subnets: network.subnets.clone() };
    if pools.is_empty() {
        return Ok(vec![any]);
    }
    let fitting: Vec<Attempt> =
        pools.iter().filter_map(|p| pooled(view, p, &network.subnets).ok()).collect();
    if !fitting.is_empty() {
        return Ok(fitting);
    }
    // A subnet that the pod itself names is meant, pools or not.
    if pod.annotation(provider, suffix::LOGICAL_SWITCH).is_some() {
        return Ok(vec![any]);
    }
    let names: Vec<&str> = pools.iter().map(|p| &**p).collect();
    Err(format!(
        "NoAvailableAddress: none of the IPPools of namespace {:?} ({}) is in one of its subnets; \
         bind a pool of those subnets",
        &*pod.namespace,
        names.join(", ")
    ))
}

/// Wanted MAC: annotation, network selection element, else any.
pub fn mac_wish(pod: &Pod, network: &Network<'_>, seed: u64) -> Result<MacWish, String> {
    let provider = &*network.provider;
    let annotation = pod.annotation(provider, suffix::MAC_ADDRESS);
    if let Some(text) = annotation.filter(|text| !text.trim().is_empty()) {
        let mac = text.parse::<Mac>();
        return mac
            .map(MacWish::Static)
            .map_err(|e| format!("annotation {provider}.kubernetes.io/mac_address: {e}"));
    }
    let requested = network.request.as_ref().and_then(|r| r.mac);
    Ok(requested.map_or(MacWish::Random(seed), MacWish::Static))
}

fn fixed<'a>(ips: DualStack<IpAddr>, subnets: &[&'a Subnet]) -> Attempt<'a> {
    Attempt { wish: Wish::Static(ips), subnets: around(&[ips], subnets) }
}

/// The subnets that hold one of the candidates, all when none does: a refusal then says where the
/// address would have to lie.
fn around<'a>(candidates: &[DualStack<IpAddr>], subnets: &[&'a Subnet]) -> Vec<&'a Subnet> {
    let holds =
        |s: &&&Subnet| candidates.iter().any(|ips| ips.iter().all(|(_, ip)| s.cidrs.contains(*ip)));
    let fitting: Vec<&Subnet> = subnets.iter().filter(holds).copied().collect();
    if fitting.is_empty() { subnets.to_vec() } else { fitting }
}

fn pooled<'a>(view: &View<'a>, name: &Text, subnets: &[&'a Subnet]) -> Result<Attempt<'a>, String> {
    let Some(pool) = view.get::<IpPool>(name) else {
        return Err(format!("IPPool {:?} does not exist or is not valid; create it", &**name));
    };
    let subnets: Vec<&Subnet> = subnets.iter().filter(|s| s.name == pool.subnet).copied().collect();
    if subnets.is_empty() {
        return Err(format!(
            "IPPool {:?} is in subnet {:?}, which is none of the pod's; name that subnet in \
             annotation logical_switch",
            &**name, &*pool.subnet
        ));
    }
    Ok(Attempt { wish: Wish::Pool(name.clone()), subnets })
}

/// A StatefulSet's pod takes the element at its position (the first ordinal has the first one), any
/// other pod the first free one.
fn listed(view: &View<'_>, pod: &Pod, all: Vec<DualStack<IpAddr>>) -> Result<Wish, String> {
    let Some(set) = pod.stateful_set() else { return Ok(Wish::FirstFree(all)) };
    let ordinal = pod.name.rsplit_once('-').and_then(|(_, n)| n.parse::<usize>().ok());
    let Some(ordinal) = ordinal else { return Ok(Wish::FirstFree(all)) };
    let start = view.get::<StatefulSet>(&format!("{}/{set}", pod.namespace)).map_or(0, |s| s.start);
    let position = ordinal.checked_sub(usize::try_from(start).unwrap_or(usize::MAX));
    position.and_then(|n| all.get(n)).map(|ips| Wish::Static(*ips)).ok_or_else(|| {
        format!(
            "NoAvailableAddress: annotation ip_pool has {} entries and the pod has ordinal \
             {ordinal} of a set that begins with {start}; add entries or scale down",
            all.len()
        )
    })
}
