//! From what is seen to what is wanted, in an order that never refers to what is not there.

use std::collections::BTreeMap;

use super::{
    HostOp, HostState, Observed, OvsPort, WantedLink, egress::diff_egress, external::diff_external,
    ipset::diff_sets, iptables::diff_tables, routes::diff_routes, shaping::diff_shaping,
};
use crate::{
    api::Text,
    net::{Dad, Link, LinkChange, Place, Scope},
};

/// Operations from what is seen to what is wanted: created before referred to, deleted after.
/// Links that OVS has yet to make are left for the next round.
pub fn diff_host(wanted: &HostState, observed: &Observed) -> Vec<HostOp> {
    let mut ops = diff_ovs(wanted, observed);
    ops.extend(diff_shaping(wanted, observed));
    ops.extend(diff_external(wanted, observed));
    ops.extend(diff_sysctls(wanted, observed));
    for (name, link) in &wanted.links {
        if let Some(seen) = observed.links.iter().find(|l| l.name == *name) {
            ops.extend(diff_link(link, seen, observed));
        }
    }
    if let Some(routes) = &wanted.routes
        && observed.links.iter().any(|l| *l.name == *super::OVN0)
    {
        ops.extend(diff_routes(routes, &observed.routes));
    }
    if let Some(egress) = &wanted.egress {
        ops.extend(diff_egress(egress, observed));
    }
    ops.extend(diff_firewall(wanted, observed));
    ops
}

fn diff_ovs(wanted: &HostState, observed: &Observed) -> Vec<HostOp> {
    let ids: BTreeMap<Text, Option<Text>> = wanted
        .external_ids
        .iter()
        .filter(|(key, value)| observed.ovs.external_ids.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), Some(value.clone())))
        .collect();
    let ids = (!ids.is_empty()).then_some(HostOp::SetExternalIds(ids));
    let ports = wanted
        .ports
        .iter()
        .filter(|port| observed.ovs.ports.get(&port.name).is_none_or(|seen| !covers(seen, port)))
        .map(|port| HostOp::SetOvsPort(port.clone()));
    ids.into_iter().chain(ports).collect()
}

/// Everything that `port` names is so in `seen`.
pub(super) fn covers(seen: &OvsPort, port: &OvsPort) -> bool {
    seen.bridge == port.bridge
        && seen.kind == port.kind
        && (port.mac.is_none() || seen.mac == port.mac)
        && (port.mtu_request.is_none() || seen.mtu_request == port.mtu_request)
        && port.external_ids.iter().all(|(key, value)| seen.external_ids.get(key) == Some(value))
}

fn diff_sysctls(wanted: &HostState, observed: &Observed) -> Vec<HostOp> {
    wanted
        .sysctls
        .iter()
        .filter(|(name, value)| observed.sysctls.get(*name).is_some_and(|seen| seen != *value))
        .map(|(name, value)| HostOp::WriteSysctl { name: name.clone(), value: value.clone() })
        .collect()
}

fn diff_link(wanted: &WantedLink, seen: &Link, observed: &Observed) -> Vec<HostOp> {
    let (place, link) = (Place::Host, seen.name.clone());
    let mut ops = Vec::new();
    let change = LinkChange {
        mac: wanted.mac.filter(|mac| seen.mac != Some(*mac)),
        mtu: None,
        tx_queue_length: wanted.tx_queue_length.filter(|n| seen.tx_queue_length != *n),
        alias: None,
        state: wanted.state.filter(|state| seen.state != *state),
    };
    if !change.is_empty() {
        ops.push(HostOp::SetLink { place: place.clone(), link: link.clone(), change });
    }
    // An unknown value is no reason to write: the next observation has it.
    if let (Some(checksum), Some(now)) = (wanted.tx_checksum, observed.tx_checksum.get(&link))
        && checksum != *now
    {
        ops.push(HostOp::TxChecksumOff { place: place.clone(), link: link.clone() });
    }
    let Some(addresses) = &wanted.addresses else { return ops };
    let on_link: Vec<_> = observed.addresses.iter().filter(|a| a.link == link).collect();
    let missing = addresses.iter().filter(|c| !on_link.iter().any(|a| a.cidr == **c)).copied();
    let local = |a: &&&crate::net::LinkAddress| a.scope == Scope::Link && a.cidr.address.is_ipv6();
    let link_local = wanted.link_local.filter(|_| !on_link.iter().any(|a| local(&a)));
    ops.extend(missing.chain(link_local).map(|cidr| HostOp::AddAddress {
        place: place.clone(),
        link: link.clone(),
        cidr,
        dad: Dad::Skip,
    }));
    let surplus = on_link.iter().filter(|a| !addresses.contains(&a.cidr) && !local(a));
    ops.extend(surplus.map(|a| HostOp::RemoveAddress {
        place: place.clone(),
        link: link.clone(),
        cidr: a.cidr,
    }));
    ops
}

fn diff_firewall(wanted: &HostState, observed: &Observed) -> Vec<HostOp> {
    let Some(firewall) = &wanted.firewall else { return Vec::new() };
    let Some(listing) = &observed.ipsets else { return Vec::new() };
    let sets = diff_sets(&firewall.ipsets, listing);
    let tables = firewall.tables.iter().filter_map(|(family, tables)| {
        let batch = diff_tables(tables, observed.iptables.get(family)?);
        (!batch.is_empty()).then_some(HostOp::RestoreIptables { family, batch })
    });
    let sets_op = |batch: String| (!batch.is_empty()).then_some(HostOp::RestoreIpsets(batch));
    sets_op(sets.before).into_iter().chain(tables).chain(sets_op(sets.after)).collect()
}
