//! Dumps of the kernel for the planner.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    apply::{Executor, Sockets},
    ovs_rows::observe_ovs,
};
use crate::{
    api::Text,
    host::{HostState, Observed, TxChecksum},
    kernel::{self, Netlink, ethtool, ipset, iptables, sysctl},
    net::{DualStack, Family, Link, LinkAddress, Place, Route},
};

/// Links, addresses and main-table routes of one namespace.
#[derive(Debug, Clone, Default)]
pub struct KernelDump {
    pub links: Vec<Link>,
    pub addresses: Vec<LinkAddress>,
    pub routes: Vec<Route>,
}

/// Dumps `place`; blocks for under a millisecond.
pub fn dump(place: &Place) -> Result<KernelDump, kernel::Error> {
    dump_by(&mut Netlink::open(place)?)
}

fn dump_by(socket: &mut Netlink) -> Result<KernelDump, kernel::Error> {
    let links = socket.links()?;
    let addresses = socket.addresses_of(&links)?;
    let routes = socket.routes_of(&links)?;
    Ok(KernelDump { links, addresses, routes })
}

/// The host end of a pod NIC, and what the pod's namespace holds if the pod's end is in it. A pod
/// that starts has none, so usually this is two requests and no dump, however many pods there are.
pub(super) fn observe_pair(
    sockets: &mut Sockets,
    pod: &Place,
    host_end: &str,
    ifname: &str,
) -> Result<(Option<Link>, KernelDump), kernel::Error> {
    let host_link = sockets.of(&Place::Host)?.link(host_end)?;
    let socket = sockets.of(pod)?;
    let inside = match socket.link(ifname)? {
        Some(_) => dump_by(socket)?,
        None => KernelDump::default(),
    };
    Ok((host_link, inside))
}

pub(super) fn interrupted(path: &Text, error: tokio::task::JoinError) -> kernel::Error {
    kernel::Error::Namespace { path: Arc::clone(path), source: std::io::Error::other(error) }
}

/// What `ipset save` and `iptables-save` printed. Reading it forks, so it is kept and read anew
/// only now and then and after every change of ours.
#[derive(Debug, Clone, Default)]
pub struct Firewall {
    pub ipsets: Option<Text>,
    pub iptables: DualStack<Text>,
}

/// Runs the listing programs; a family that cannot be read is left alone.
pub fn observe_firewall(executor: &Executor, families: &[Family]) -> Firewall {
    let ipsets = ipset::save()
        .map(Text::from)
        .inspect_err(|error| tracing::warn!(%error, "ipsets cannot be read"))
        .ok();
    let mut tables = DualStack::default();
    for family in families {
        let saved = executor.backend().and_then(|backend| iptables::save(backend, *family));
        match saved {
            Ok(text) => tables.set(*family, Some(text.into())),
            Err(error) => tracing::warn!(%error, "iptables cannot be read"),
        }
    }
    Firewall { ipsets, iptables: tables }
}

/// Everything that the host planner compares `wanted` with.
pub fn observe_host(
    executor: &Executor,
    wanted: &HostState,
    firewall: &Firewall,
) -> Result<Observed, kernel::Error> {
    let kernel = dump(&Place::Host)?;
    let mut socket = Netlink::open(&Place::Host)?;
    let policy_routes = socket.policy_routes_of(&kernel.links)?;
    let policy_rules = socket.policy_rules()?;
    let names: BTreeSet<&str> = kernel.links.iter().map(|l| &*l.name).collect();
    let mut tx_checksum = BTreeMap::new();
    for (name, link) in &wanted.links {
        if link.tx_checksum.is_none() || !names.contains(&**name) {
            continue;
        }
        if let Ok(on) = ethtool::has_tx_checksum(&Place::Host, name) {
            let state = if on { TxChecksum::On } else { TxChecksum::Off };
            tx_checksum.insert(name.clone(), state);
        }
    }
    let mut sysctls = BTreeMap::new();
    for name in wanted.sysctls.keys() {
        if let Some(value) = sysctl::read(name)? {
            sysctls.insert(name.clone(), value.into());
        }
    }
    Ok(Observed {
        links: kernel.links,
        addresses: kernel.addresses,
        routes: kernel.routes,
        policy_routes,
        policy_rules,
        tx_checksum,
        sysctls,
        ipsets: firewall.ipsets.clone(),
        iptables: firewall.iptables.clone(),
        ovs: executor.vswitch().read(observe_ovs),
    })
}
