//! Addresses and gateways of subnets as metrics. Names and labels are upstream's.

use std::net::IpAddr;

use prometheus::Registry;

use crate::{
    api::{Gateway, GatewayType, Ip, Subnet},
    ipam::Ipam,
    net::{DualStack, Family as Protocol, field},
    store::Store,
    telemetry::{Family, Recorder, Sample, Snapshot},
};

const COUNTS: &[&str] = &["subnet_name", "protocol", "subnet_cidr"];

pub static AVAILABLE: Family =
    Family::gauge("subnet_available_ip_count", "Free addresses of a subnet", COUNTS);
pub static USED: Family =
    Family::gauge("subnet_used_ip_count", "Addresses in use of a subnet", COUNTS);
pub static CENTRALIZED: Family = Family::gauge(
    "centralized_subnet_info",
    "The way out of a subnet with a centralized gateway; always 1",
    &["subnet_name", "enable_ecmp", "gateway_node", "active_gateway", "match", "nexthops"],
);
pub static IPAM: Family = Family::gauge(
    "subnet_ipam_info",
    "Ranges of a subnet; always 1",
    &["subnet_name", "cidr", "free", "reserved", "available", "using"],
);
pub static ASSIGNED: Family = Family::gauge(
    "subnet_ip_assign_info",
    "An address and who has it; always 1",
    &["subnet_name", "ip", "pod_name"],
);
pub static FAMILIES: &[Family] = &[AVAILABLE, USED, CENTRALIZED, IPAM, ASSIGNED];

/// 1 to 512 ms.
const MILLISECONDS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
pub static LATENCY: Family = Family::histogram(
    "ovs_client_request_latency_milliseconds",
    "Time that a database took for a transaction",
    &["db", "method", "code"],
    MILLISECONDS,
);

/// Ranges of a fragmented subnet would fill a page; the status of the Subnet has them whole.
const LONGEST_LABEL: usize = 1024;

/// Handles of the reconcile loop.
#[derive(Clone)]
pub struct Figures {
    snapshot: Snapshot,
    recorder: Recorder,
}

impl Figures {
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Figures {
            snapshot: Snapshot::register(registry, FAMILIES)?,
            recorder: Recorder::register(registry, &[LATENCY])?,
        })
    }

    pub fn show_subnets(&self, store: &Store, ipam: &Ipam) {
        self.snapshot.replace(samples(store, ipam));
    }

    /// A transaction of the northbound database is answered.
    pub fn note_transaction<T, E>(&self, milliseconds: f64, result: &Result<T, E>) {
        let code = if result.is_ok() { "0" } else { "1" };
        self.recorder.observe(&LATENCY, &["ovn-nb", "transact", code], milliseconds);
    }
}

fn cut(text: &str) -> &str {
    let end = text.char_indices().nth(LONGEST_LABEL).map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or(text)
}

/// Of every subnet that is in force.
pub fn samples(store: &Store, ipam: &Ipam) -> Vec<Sample> {
    let mut all = Vec::new();
    for subnet in store.iter::<Subnet>() {
        counts(&mut all, subnet, ipam);
        if subnet.gateway_type == Some(GatewayType::Centralized) {
            centralized(&mut all, subnet, store);
        }
    }
    for (port, subnet, allocation) in ipam.allocations() {
        for (_, ip) in allocation.addresses.iter() {
            all.push(ASSIGNED.sample(&[subnet, &ip.to_string(), port], 1.0));
        }
    }
    all
}

fn counts(all: &mut Vec<Sample>, subnet: &Subnet, ipam: &Ipam) {
    let usage = ipam.usage(&subnet.name);
    let Some(available) = usage.iter().map(|(_, u)| u.available).min() else { return };
    // Of a dual-stack subnet the IPv4 side counts, as upstream.
    let used = usage.iter().map(|(_, u)| u.using).next().unwrap_or_default();
    let protocol = match (subnet.cidrs.v4.is_some(), subnet.cidrs.v6.is_some()) {
        (true, true) => "Dual",
        (true, false) => "IPv4",
        _ => "IPv6",
    };
    let cidr = subnet.cidrs.to_string();
    let labels = [&*subnet.name, protocol, &cidr];
    all.push(AVAILABLE.sample(&labels, available as f64));
    all.push(USED.sample(&labels, used as f64));
    let spec = ipam.subnets().find(|spec| spec.name == subnet.name);
    for (family, of) in usage.iter() {
        let Some(cidr) = subnet.cidrs.get(family) else { continue };
        let excludes = spec.iter().flat_map(|spec| &spec.excludes);
        let reserved: Vec<String> =
            excludes.filter(|r| r.family == family).map(ToString::to_string).collect();
        let (cidr, reserved) = (cidr.to_string(), reserved.join(","));
        let (free, using) = (cut(&of.available_ranges), cut(&of.using_ranges));
        all.push(IPAM.sample(&[&subnet.name, &cidr, free, cut(&reserved), free, using], 1.0));
    }
}

fn centralized(all: &mut Vec<Sample>, subnet: &Subnet, store: &Store) {
    let active = store.get::<Gateway>(&subnet.name).map(|g| g.active.clone()).unwrap_or_default();
    let nodes: Vec<&str> = subnet.gateway_nodes.iter().map(|g| &*g.node).collect();
    let hops = |family: Protocol| -> Vec<String> {
        let address = |node: &str| -> Option<DualStack<IpAddr>> {
            Some(store.get::<Ip>(&format!("node-{node}"))?.addresses)
        };
        let hops = active.iter().filter_map(|node| address(node)?.get(family).copied());
        hops.map(|ip| ip.to_string()).collect()
    };
    for (family, cidr) in subnet.cidrs.iter() {
        let labels = [
            &*subnet.name,
            if subnet.enable_ecmp { "true" } else { "false" },
            &nodes.join(","),
            &active.join(","),
            &format!("{} == {cidr}", field(family, "src")),
            &hops(family).join(","),
        ];
        all.push(CENTRALIZED.sample(&labels, 1.0));
    }
}
