//! Annotations `eip` and `snat` of pods in the default VPC (manual 3.8.4): OVN NAT on the cluster
//! router. They act as soon as they change; upstream waits until `routed` is removed.
//!
//! Upstream adds source routes for these pods, which on stock OVN beat the routes to other subnets
//! (32 bits of source outweigh 16 of destination); the policy alone does it all.

use std::net::IpAddr;

use crate::{
    api::{
        ExternalGateway, Ip, Kind, Placement, Pod, Settings, Subnet, names::annotation,
        parse::reason,
    },
    net::DualStack,
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::{Problem, View},
};

use super::{VENDOR, external::gateway_chassis, keys};

/// What the annotations of one port give.
#[derive(Default)]
pub struct External {
    pub facts: Vec<Fact>,
    pub problems: Vec<Problem>,
    /// Where the port's packets go, by family.
    pub next_hops: DualStack<IpAddr>,
}

#[derive(Clone, Copy)]
enum Nat {
    /// `eip`: both directions.
    Floating,
    /// `snat`: from inside only.
    Source,
}

/// For the default NIC of a pod in an overlay subnet of the default VPC.
pub fn external(view: &View<'_>, pod: &Pod, ip: &Ip, settings: &Settings) -> External {
    let mut found = External::default();
    for (key, nat) in [(annotation::EIP, Nat::Floating), (annotation::SNAT, Nat::Source)] {
        let Some(text) = pod.annotations.get(key).filter(|t| !t.trim().is_empty()) else {
            continue;
        };
        let problem = |message: String| Problem {
            kind: Kind::Pod,
            key: format!("{}/{}", pod.namespace, pod.name).into(),
            reason: reason::POD,
            message: format!("annotation {key}={text}: {message}"),
        };
        let gateway = match usable(view, settings) {
            Ok(gateway) => gateway,
            Err(message) => {
                found.problems.push(problem(message));
                continue;
            }
        };
        let outside = match DualStack::<IpAddr>::parse_addresses(text) {
            Ok(addresses) => addresses,
            Err(error) => {
                found.problems.push(problem(error.to_string()));
                continue;
            }
        };
        let hops = next_hops(view, gateway, settings);
        for (family, outside) in outside.iter() {
            let (Some(inside), Some(hop)) = (ip.addresses.get(family), hops.get(family)) else {
                found.problems.push(problem(format!(
                    "{outside} needs a pod address and an external gateway of its family"
                )));
                continue;
            };
            found.facts.extend(nat_facts(ip, nat, (*outside, *inside), gateway, settings));
            found.next_hops.set(family, Some(*hop));
        }
    }
    found
}

fn usable<'a>(view: &View<'a>, settings: &Settings) -> Result<&'a ExternalGateway, String> {
    let config = &settings.external.config;
    if !settings.external.enabled {
        return Err("--enable-eip-snat is off".into());
    }
    let gateway = view.get::<ExternalGateway>(config).filter(|g| g.enabled);
    let gateway = gateway
        .ok_or_else(|| format!("ConfigMap {config} does not enable the external gateway"))?;
    if let Some(first) = gateway.invalid.first() {
        return Err(format!("ConfigMap {config}: {}", first.message));
    }
    // Its router port would never be there, and the pod's port must not wait for that.
    if gateway_chassis(view, gateway).is_empty() {
        return Err(format!("no node of ConfigMap {config} has a chassis"));
    }
    Ok(gateway)
}

fn next_hops(view: &View<'_>, gateway: &ExternalGateway, settings: &Settings) -> DualStack<IpAddr> {
    if !gateway.next_hops.is_empty() {
        return gateway.next_hops;
    }
    view.get::<Subnet>(&settings.external.switch).map(|s| s.gateways).unwrap_or_default()
}

fn nat_facts(
    ip: &Ip,
    nat: Nat,
    (outside, inside): (IpAddr, IpAddr),
    gateway: &ExternalGateway,
    settings: &Settings,
) -> Vec<Fact> {
    let family = crate::net::Family::of(inside).digit();
    let (id, kind) = match nat {
        Nat::Floating => (format!("eip/{family}"), "dnat_and_snat"),
        Nat::Source => (format!("snat/{family}"), "snat"),
    };
    let key = RowKey::new(&nb::NAT, "pod", &ip.name, &id);
    // A distributed address is answered on the pod's own node, with the pod's MAC.
    let here = matches!((nat, &gateway.placement), (Nat::Floating, Placement::Distributed));
    let row = RowBuilder::new(&key)
        .set(nb::nat::TYPE, kind)
        .set(nb::nat::EXTERNAL_IP, outside.to_string())
        .set(nb::nat::LOGICAL_IP, inside.to_string())
        .atoms(nb::nat::LOGICAL_PORT, here.then(|| ip.name.clone()))
        .atoms(nb::nat::EXTERNAL_MAC, ip.mac.filter(|_| here).map(|mac| mac.to_string()))
        // With several gateway ports OVN does not guess.
        .elements(nb::nat::GATEWAY_PORT, [Element::Row(keys::external_router_port())])
        .map(nb::nat::EXTERNAL_IDS, [VENDOR]);
    let member = Fact::Member {
        row: keys::router(&settings.cluster_router),
        column: nb::logical_router::NAT,
        element: Element::Row(key),
    };
    vec![row.fact(), member]
}
