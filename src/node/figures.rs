//! Kernel settings and subnet traffic of this node as metrics. Names and labels are upstream's.

use std::time::Duration;

use super::apply::Executor;
use crate::{
    api::Text,
    host::{Direction, SubnetCounter, parse_counters},
    kernel::{iptables, sysctl},
    net::Family as Protocol,
    telemetry::{Family, Sample, Snapshot},
};

const HOST: &[&str] = &["hostname"];
const TRAFFIC: &[&str] = &["hostname", "subnet_name", "cidr", "direction", "protocol"];

pub static PACKETS: Family = Family::counter(
    "ovn_subnet_gateway_packets",
    "Packets of a subnet that passed this node's gateway",
    TRAFFIC,
);
pub static BYTES: Family = Family::counter(
    "ovn_subnet_gateway_packet_bytes",
    "Bytes of a subnet that passed this node's gateway",
    TRAFFIC,
);
pub static PORT_RANGE: Family = Family::gauge(
    "ip_local_port_range",
    "net.ipv4.ip_local_port_range; always 1",
    &["hostname", "start", "end"],
);
pub static CHECKSUM_ERRORS: Family =
    Family::gauge("checksum_err_count", "UDP datagrams received with a wrong checksum", HOST);
pub static SEARCH_DOMAIN: Family = Family::gauge(
    "dns_search_domain",
    "Search list of resolv.conf; always 1",
    &["hostname", "additional"],
);
pub static TCP_MEMORY: Family = Family::gauge(
    "tcp_mem",
    "net.ipv4.tcp_mem; always 1",
    &["hostname", "minimum", "pressure", "maximum"],
);
pub static TW_RECYCLE: Family = Family::gauge("tcp_tw_recycle", "net.ipv4.tcp_tw_recycle", HOST);
pub static MTU_PROBING: Family = Family::gauge("tcp_mtu_probing", "net.ipv4.tcp_mtu_probing", HOST);
pub static LIBERAL: Family =
    Family::gauge("nf_conntrack_tcp_be_liberal", "net.netfilter.nf_conntrack_tcp_be_liberal", HOST);
pub static BRIDGE_CALL: Family =
    Family::gauge("bridge_nf_call_iptables", "net.bridge.bridge-nf-call-iptables", HOST);
pub static ROUTES: Family = Family::gauge("max_size", "net.ipv6.route.max_size", HOST);

/// All families of this file.
pub static FAMILIES: &[Family] = &[
    PACKETS,
    BYTES,
    PORT_RANGE,
    CHECKSUM_ERRORS,
    SEARCH_DOMAIN,
    TCP_MEMORY,
    TW_RECYCLE,
    MTU_PROBING,
    LIBERAL,
    BRIDGE_CALL,
    ROUTES,
];

/// Settings that are one number.
static NUMBERS: &[(&str, &Family)] = &[
    ("net.ipv4.tcp_tw_recycle", &TW_RECYCLE),
    ("net.ipv4.tcp_mtu_probing", &MTU_PROBING),
    ("net.netfilter.nf_conntrack_tcp_be_liberal", &LIBERAL),
    ("net.bridge.bridge-nf-call-iptables", &BRIDGE_CALL),
    ("net.ipv6.route.max_size", &ROUTES),
];

/// Usual scrapes come every 15 s; upstream reads (and forks) every 3 s.
const PERIOD: Duration = Duration::from_secs(10);

/// Refreshes the samples for ever.
pub async fn show_node(node: Text, executor: Executor, snapshot: Snapshot) {
    loop {
        let (node, executor) = (node.clone(), executor.clone());
        if let Ok(samples) = tokio::task::spawn_blocking(move || observe(&node, &executor)).await {
            snapshot.replace(samples);
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn observe(node: &str, executor: &Executor) -> Vec<Sample> {
    let mut all = Vec::new();
    for (name, family) in NUMBERS {
        let value = sysctl::read(name).ok().flatten().and_then(|text| text.parse().ok());
        all.extend(value.map(|value| family.sample(&[node], value)));
    }
    for (name, family) in
        [("net.ipv4.ip_local_port_range", &PORT_RANGE), ("net.ipv4.tcp_mem", &TCP_MEMORY)]
    {
        let text = sysctl::read(name).ok().flatten().unwrap_or_default();
        all.extend(words(family, node, &text));
    }
    let snmp = std::fs::read_to_string("/proc/net/snmp").unwrap_or_default();
    all.extend(checksum_errors(&snmp).map(|n| CHECKSUM_ERRORS.sample(&[node], n)));
    let resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    all.push(SEARCH_DOMAIN.sample(&[node, &search_list(&resolv)], 1.0));
    for family in [Protocol::V4, Protocol::V6] {
        let listing = executor.backend().and_then(|backend| iptables::save(backend, family));
        let counters = listing.map(|text| parse_counters(&text)).unwrap_or_default();
        all.extend(counters.iter().flat_map(|c| traffic(node, family, c)));
    }
    all
}

/// The words of a setting as labels.
fn words(family: &'static Family, node: &str, text: &str) -> Option<Sample> {
    let words: Vec<&str> = std::iter::once(node).chain(text.split_whitespace()).collect();
    (words.len() == family.labels.len()).then(|| family.sample(&words, 1.0))
}

/// `InCsumErrors` of section Udp of /proc/net/snmp.
pub fn checksum_errors(snmp: &str) -> Option<f64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let column = lines.next()?.split_whitespace().position(|name| name == "InCsumErrors")?;
    lines.next()?.split_whitespace().nth(column)?.parse().ok()
}

fn search_list(resolv: &str) -> String {
    let mut list = resolv.lines().filter_map(|line| line.trim().strip_prefix("search "));
    list.next_back().map(|l| l.split_whitespace().collect::<Vec<_>>().join(",")).unwrap_or_default()
}

/// TRAP: label subnet_name is `<subnet>/<direction>/<protocol>`, which users' queries know.
pub fn traffic(node: &str, family: Protocol, counter: &SubnetCounter) -> [Sample; 2] {
    let direction = match counter.direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let protocol = match family {
        Protocol::V4 => "IPv4",
        Protocol::V6 => "IPv6",
    };
    let name = format!("{}/{direction}/{protocol}", counter.subnet);
    let labels = [node, &name, &counter.cidr, direction, protocol];
    [PACKETS.sample(&labels, counter.packets as f64), BYTES.sample(&labels, counter.bytes as f64)]
}
