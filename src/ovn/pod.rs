//! A pod is a port on its subnet's switch. The pod puts itself into the groups it belongs to, so
//! that a pod event costs the same whatever the size of the groups.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    api::{GatewayType, Ip, Kind, Pod, PodLife, Settings, Subnet, Text, names, parse::reason},
    net::{DualStack, Family, field},
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, Problem, View, Wanted},
};

use super::{
    VENDOR, keys, placement,
    placement::provider_of,
    pod_external::{External, external},
    pod_rate,
    policy::{Action, Policy, priority},
    security, unplugged,
};

const PROVIDER: &str = "ovn";

pub fn desired(view: &View<'_>, key: &str) -> Output {
    let (Some(pod), Some(settings)) = (view.get::<Pod>(key), view.get::<Settings>("")) else {
        return Output::default();
    };
    if pod.host_network || pod.life == PodLife::Ended {
        return Output::default();
    }
    if !pod.invalid.is_empty() {
        let problems = pod.invalid.iter().map(|finding| Problem {
            kind: Kind::Pod,
            key: key.into(),
            reason: finding.reason,
            message: finding.message.clone(),
        });
        return Output { problems: problems.collect(), ..Output::default() };
    }
    let mut output = Output::default();
    let ips = placement::pod_addresses(view, pod, settings);
    let given = ips.iter().map(|ip| provider_of(ip)).collect();
    output.wanted.extend(unplugged::unplugged(pod, &given));
    for ip in ips {
        // An address that is on its way out makes no port.
        let Some(subnet) = view.get::<Subnet>(&ip.subnet).filter(|_| !ip.deleting) else {
            continue;
        };
        if let Some(message) = placement::unusable(ip, subnet, settings) {
            let (kind, key) = (Kind::Pod, key.into());
            output.problems.push(Problem { kind, key, reason: reason::POD, message });
            continue;
        }
        if subnet.is_ovn() {
            output.facts.extend(port_facts(pod, ip, subnet, settings));
            output.facts.extend(secured(view, pod, ip, &mut output.problems));
            output.facts.extend(pod_rate::egress_rate(view, pod, ip, provider_of(ip)));
            let routed = subnet.vpc == settings.cluster_router && subnet.is_overlay();
            if routed && ip.mac.is_some() {
                let ways = ways_out(view, pod, ip, subnet, settings);
                output.facts.extend(memberships(view, pod, ip, subnet, &ways.next_hops));
                output.facts.extend(ways.facts);
                output.problems.extend(ways.problems);
            }
        }
        output.wanted.push(annotations(pod, ip, subnet, settings));
        output.wanted.extend(record_node(pod, ip));
    }
    output
}

/// An address is recorded before its pod is scheduled; the node follows.
fn record_node(pod: &Pod, ip: &Ip) -> Vec<Wanted> {
    let Some(node) = pod.node.as_ref().filter(|node| **node != ip.node) else { return Vec::new() };
    let labels = BTreeMap::from([(Text::from(names::label::NODE_NAME), Some(node.clone()))]);
    vec![
        Wanted::Spec {
            kind: Kind::Ip,
            key: ip.name.clone(),
            spec: serde_json::json!({ "nodeName": &**node }),
        },
        Wanted::Labels { kind: Kind::Ip, key: ip.name.clone(), values: labels },
    ]
}

fn port_key(ip: &Ip) -> RowKey {
    keys::pod_port(&ip.name)
}

/// Places in security groups, and a problem for each group that does not exist.
fn secured(view: &View<'_>, pod: &Pod, ip: &Ip, problems: &mut Vec<Problem>) -> Vec<Fact> {
    if ip.mac.is_none() {
        return Vec::new();
    }
    let provider = provider_of(ip);
    let groups = security::groups_of(pod, provider);
    // Addresses that port security lets the pod send from are addresses of the group.
    let vips: Vec<&str> = if flag(pod, provider, "port_security") {
        pod.port_vips(provider).collect()
    } else {
        vec![]
    };
    let (facts, missing) = security::memberships(view, &port_key(ip), ip, &vips, &groups);
    problems.extend(missing.into_iter().map(|group| Problem {
        kind: Kind::Pod,
        key: format!("{}/{}", pod.namespace, pod.name).into(),
        reason: reason::POD,
        message: format!(
            "{provider}.kubernetes.io/security_groups {group:?}: there is no such SecurityGroup \
             and it allows nothing; create it or correct the name"
        ),
    }));
    facts
}

fn flag(pod: &Pod, provider: &str, suffix: &str) -> bool {
    pod.annotation(provider, suffix).is_some_and(|v| &**v == "true")
}

fn port_facts(pod: &Pod, ip: &Ip, subnet: &Subnet, settings: &Settings) -> Vec<Fact> {
    let Some(mac) = ip.mac else { return Vec::new() };
    let provider = provider_of(ip);
    let ips: Vec<String> = ip.addresses.iter().map(|(_, a)| a.to_string()).collect();
    let address = format!("{mac} {}", ips.join(" "));
    let mut addresses = vec![address.clone()];
    if flag(pod, provider, "layer2_forward") {
        addresses.push("unknown".into());
    }
    let vips: Vec<&str> = pod.port_vips(provider).collect();
    let mut security = Vec::new();
    if flag(pod, provider, "port_security") {
        security.push([&[address.as_str()], &vips[..]].concat().join(" "));
    }
    let mut ids = vec![
        (VENDOR.0.to_owned(), VENDOR.1.to_owned()),
        ("ls".to_owned(), subnet.name.to_string()),
        ("pod".to_owned(), format!("{}/{}", ip.namespace, ip.pod_name)),
    ];
    ids.extend(security::port_ids(&security::groups_of(pod, provider), subnet, settings));
    if !vips.is_empty() {
        ids.push(("vips".to_owned(), vips.join(",")));
        ids.push(("attach-vips".to_owned(), "true".to_owned()));
    }
    let key = port_key(ip);
    let row = RowBuilder::new(&key)
        .set(nb::logical_switch_port::NAME, ip.name.clone())
        .set(nb::logical_switch_port::TYPE, "")
        .atoms(nb::logical_switch_port::ADDRESSES, addresses)
        .atoms(nb::logical_switch_port::PORT_SECURITY, security)
        .elements(nb::logical_switch_port::DHCPV4_OPTIONS, dhcp(subnet, ip, Family::V4))
        .elements(nb::logical_switch_port::DHCPV6_OPTIONS, dhcp(subnet, ip, Family::V6))
        .map(nb::logical_switch_port::EXTERNAL_IDS, ids);
    let member = Fact::Member {
        row: keys::switch(&subnet.name),
        column: nb::logical_switch::PORTS,
        element: Element::Row(key),
    };
    vec![row.fact(), member]
}

/// The port's DHCP options of a family, in a subnet with enableDHCP.
fn dhcp(subnet: &Subnet, ip: &Ip, family: Family) -> Option<Element> {
    let served = subnet.dhcp.is_some() && ip.addresses.get(family).is_some();
    served.then(|| Element::Row(keys::dhcp_options(&subnet.name, family)))
}

/// A port's own ways out of the default VPC: its external addresses, or a gateway that it names.
fn ways_out(view: &View<'_>, pod: &Pod, ip: &Ip, subnet: &Subnet, settings: &Settings) -> External {
    if provider_of(ip) != PROVIDER {
        return External::default();
    }
    let mut ways = external(view, pod, ip, settings);
    for (family, gateway) in north_gateways(pod, ip).iter() {
        if ways.next_hops.get(family).is_none() {
            ways.next_hops.set(family, Some(*gateway));
        }
    }
    let hops = ways.next_hops;
    for (family, hop) in hops.iter() {
        if let Some(address) = ip.addresses.get(family) {
            ways.facts.extend(own_gateway_facts(ip, subnet, *address, *hop));
        }
    }
    ways
}

/// Groups of the default VPC that the port is in while the pod is on a node.
fn memberships(
    view: &View<'_>,
    pod: &Pod,
    ip: &Ip,
    subnet: &Subnet,
    gateways: &DualStack<IpAddr>,
) -> Vec<Fact> {
    let Some(node) = pod.node.as_ref().filter(|n| keys::has_node(view, n)) else {
        return Vec::new();
    };
    let mut groups = vec![keys::node_ports(node)];
    // A port whose families all have a gateway of their own does not follow the subnet's policy.
    let follows = ip.addresses.families().any(|f| gateways.get(f).is_none());
    if subnet.gateway_type == Some(GatewayType::Distributed) && follows {
        groups.push(keys::distributed_ports(node));
    }
    let member = |row| Fact::Member {
        row,
        column: nb::port_group::PORTS,
        element: Element::Row(port_key(ip)),
    };
    groups.into_iter().map(member).collect()
}

/// Annotation `ovn.kubernetes.io/north_gateway`, for the default network of the pod.
fn north_gateways(pod: &Pod, ip: &Ip) -> DualStack<IpAddr> {
    pod.annotation(PROVIDER, "north_gateway")
        .filter(|_| provider_of(ip) == PROVIDER)
        .and_then(|text| DualStack::parse_addresses(text).ok())
        .unwrap_or_default()
}

fn own_gateway_facts(ip: &Ip, subnet: &Subnet, address: IpAddr, gateway: IpAddr) -> Vec<Fact> {
    let family = Family::of(address);
    let id = format!("north-gateway/{}", family.digit());
    Policy {
        key: RowKey::new(&nb::LOGICAL_ROUTER_POLICY, "pod", &ip.name, &id),
        router: &keys::router(&subnet.vpc),
        priority: priority::POD_GATEWAY,
        matching: format!("{} == {address}", field(family, "src")),
        action: Action::Reroute(vec![gateway]),
        external_ids: vec![("subnet".into(), subnet.name.to_string())],
    }
    .facts()
}

fn annotations(pod: &Pod, ip: &Ip, subnet: &Subnet, settings: &Settings) -> Wanted {
    let provider = provider_of(ip);
    let mut values: BTreeMap<Text, Option<Text>> = BTreeMap::new();
    let mut put = |key: &str, value: Option<String>| {
        values.insert(format!("{provider}.kubernetes.io/{key}").into(), value.map(Text::from));
    };
    put("ip_address", Some(ip.addresses.to_string()));
    put("mac_address", ip.mac.map(|m| m.to_string()));
    put("cidr", Some(subnet.cidrs.to_string()));
    put("gateway", Some(subnet.gateways.to_string()));
    put("logical_switch", subnet.is_ovn().then(|| subnet.name.to_string()));
    if !subnet.is_ovn() {
        put("pod_nic_type", None);
    } else if pod.annotation(provider, "pod_nic_type").is_none() {
        put("pod_nic_type", Some(settings.pod_nic_type.to_string()));
    }
    if subnet.is_ovn() && (subnet.is_overlay() || subnet.u2o_interconnection) {
        put("logical_router", Some(subnet.vpc.to_string()));
    }
    if let Some(machine) = placement::virtual_machine(pod, settings) {
        put("virtualmachine", Some(machine.to_string()));
    }
    put("allocated", Some("true".into()));
    // Written once the port is committed; until the pod is bound its groups are not known.
    if pod.node.is_some() && subnet.is_ovn() {
        put("routed", Some("true".into()));
    }
    let key = format!("{}/{}", pod.namespace, pod.name).into();
    Wanted::Annotations { kind: Kind::Pod, key, values }
}
