//! Whom a round asks; pure.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use k8s_openapi::api::core::v1 as core;

use crate::net::{Family, parse_ip};

/// A pod or a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Of the pod or the node.
    pub name: String,
    pub address: IpAddr,
    pub node: String,
    /// First InternalIP or hostIP of the node.
    pub node_address: String,
}

/// Addresses of a pod.
pub fn addresses_of(pod: &core::Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let many = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let one = status.pod_ip.as_deref().filter(|_| status.pod_ips.is_none());
    many.chain(one).filter_map(|text| parse_ip(text).ok()).collect()
}

/// Families among addresses.
pub fn families_of(addresses: &[IpAddr]) -> Vec<Family> {
    let all = [Family::V4, Family::V6];
    all.into_iter().filter(|f| addresses.iter().any(|ip| Family::of(*ip) == *f)).collect()
}

/// Pods that shall answer, with addresses of the wanted families. Pods on their way in or out
/// lose packets in a healthy network, so they are no targets.
pub fn pods(pods: &[core::Pod], families: &[Family]) -> Vec<Peer> {
    let mut peers = Vec::new();
    for pod in pods {
        let status = pod.status.clone().unwrap_or_default();
        let leaving = pod.metadata.deletion_timestamp.is_some();
        if leaving || status.phase.as_deref() != Some("Running") {
            continue;
        }
        let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
        for address in
            addresses_of(pod).into_iter().filter(|ip| families.contains(&Family::of(*ip)))
        {
            peers.push(Peer {
                name: pod.metadata.name.clone().unwrap_or_default(),
                address,
                node: node.clone(),
                node_address: status.host_ip.clone().unwrap_or_default(),
            });
        }
    }
    peers.sort_by(|a, b| (&a.node, &a.name, a.address).cmp(&(&b.node, &b.name, b.address)));
    peers
}

/// Every InternalIP of the wanted families.
pub fn nodes(nodes: &[core::Node], families: &[Family]) -> Vec<Peer> {
    let mut peers = Vec::new();
    for node in nodes {
        let name = node.metadata.name.clone().unwrap_or_default();
        let all = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
        for address in all.filter(|a| a.type_ == "InternalIP") {
            let Ok(ip) = parse_ip(&address.address) else { continue };
            if families.contains(&Family::of(ip)) {
                peers.push(Peer {
                    name: name.clone(),
                    address: ip,
                    node: name.clone(),
                    node_address: address.address.clone(),
                });
            }
        }
    }
    peers.sort_by(|a, b| (&a.name, a.address).cmp(&(&b.name, b.address)));
    peers
}

/// Pods of a DaemonSet as a label selector: its matchLabels. Expressions are kept.
pub fn selector(set: &k8s_openapi::api::apps::v1::DaemonSet) -> String {
    let selector = set.spec.clone().unwrap_or_default().selector;
    let labels: BTreeMap<String, String> = selector.match_labels.unwrap_or_default();
    let equal = labels.iter().map(|(k, v)| format!("{k}={v}"));
    let expressions = selector.match_expressions.unwrap_or_default();
    let others = expressions.iter().map(|e| {
        let values = e.values.clone().unwrap_or_default().join(",");
        match e.operator.as_str() {
            "In" => format!("{} in ({values})", e.key),
            "NotIn" => format!("{} notin ({values})", e.key),
            "DoesNotExist" => format!("!{}", e.key),
            _ => e.key.clone(),
        }
    });
    equal.chain(others).collect::<Vec<_>>().join(",")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
        })
    }
}

/// An entry of `--target-ip-ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortCheck {
    pub transport: Transport,
    pub address: IpAddr,
    pub port: u16,
}

/// Parses `tcp-10.16.0.9-80,udp-fd00::1-53`. Bad entries come back as texts to warn of.
pub fn parse_port_checks(list: &[String]) -> (Vec<PortCheck>, Vec<String>) {
    let mut checks = Vec::new();
    let mut wrong = Vec::new();
    for entry in list {
        match parse_port_check(entry) {
            Some(check) => checks.push(check),
            None => wrong.push(entry.clone()),
        }
    }
    (checks, wrong)
}

fn parse_port_check(entry: &str) -> Option<PortCheck> {
    let mut parts = entry.split('-');
    let (protocol, address, port) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    Some(PortCheck {
        transport: match protocol.trim().to_ascii_lowercase().as_str() {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            _ => return None,
        },
        address: parse_ip(address.trim_matches(['[', ']', ' '])).ok()?,
        port: port.trim().parse().ok().filter(|port| *port != 0)?,
    })
}

/// Round trips of one target.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Echoes {
    pub sent: u32,
    pub received: u32,
    /// Mean of those received, milliseconds.
    pub mean_ms: f64,
}

impl Echoes {
    pub fn lost(&self) -> u32 {
        self.sent.saturating_sub(self.received)
    }

    /// Of the milliseconds of each echo; `None` is lost.
    pub fn of(times: &[Option<f64>]) -> Self {
        let received: Vec<f64> = times.iter().copied().flatten().collect();
        // The sum of nothing is -0.
        let mean = match received.len() {
            0 => 0.0,
            count => received.iter().sum::<f64>() / count as f64,
        };
        Echoes { sent: times.len() as u32, received: received.len() as u32, mean_ms: mean }
    }
}
