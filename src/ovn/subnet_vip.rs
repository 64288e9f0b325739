//! `spec.vips` of a subnet: each address is a virtual port. The pods that name it in their annotation
//! `port_vips` are its parents; the one that speaks for it last (gratuitous ARP, as VRRP sends) has
//! it. OVN: `type=virtual`, see ovn-nb(5).

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    api::{Index, Pod, PodLife, Settings, Subnet, names},
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, View},
};

use super::{VENDOR, keys, placement, placement::provider_of, validity};

pub fn desired(view: &View<'_>, name: &str) -> Output {
    let mut output = Output::default();
    let Some(subnet) = validity::valid_subnet(view, name).filter(|s| s.is_ovn()) else {
        return output;
    };
    let Some(settings) = view.get::<Settings>("") else { return output };
    let vips: BTreeSet<IpAddr> = subnet.vips.iter().filter_map(|text| text.parse().ok()).collect();
    for vip in vips {
        let parents = parents(view, subnet, vip, settings);
        output.facts.extend(virtual_port(subnet, vip, &parents));
    }
    output
}

/// Ports in the subnet of the pods that list the address. Compared as an address: upstream took
/// every port whose text contained it, so 10.16.0.1 had the ports of 10.16.0.10 too.
fn parents(view: &View<'_>, subnet: &Subnet, vip: IpAddr, settings: &Settings) -> Vec<String> {
    let lists =
        |pod: &Pod, provider: &str| pod.port_vips(provider).any(|text| text.parse() == Ok(vip));
    let mut names = BTreeSet::new();
    for pod in view.list::<Pod>(Index::PodsByVip, &vip.to_string()) {
        if pod.host_network || pod.life == PodLife::Ended || !pod.invalid.is_empty() {
            continue;
        }
        for ip in placement::pod_addresses(view, pod, settings) {
            let has_port = ip.subnet == subnet.name && ip.mac.is_some() && !ip.deleting;
            if has_port && lists(pod, provider_of(ip)) {
                names.insert(ip.name.to_string());
            }
        }
    }
    names.into_iter().collect()
}

fn virtual_port(subnet: &Subnet, vip: IpAddr, parents: &[String]) -> [Fact; 2] {
    let key =
        RowKey::new(&nb::LOGICAL_SWITCH_PORT, "subnet-vip", &subnet.name, &format!("vip/{vip}"));
    let mut options = vec![("virtual-ip", vip.to_string())];
    if !parents.is_empty() {
        options.push(("virtual-parents", parents.join(",")));
    }
    let row = RowBuilder::new(&key)
        .set(nb::logical_switch_port::NAME, names::virtual_port(&subnet.name, vip))
        .set(nb::logical_switch_port::TYPE, "virtual")
        .map(nb::logical_switch_port::OPTIONS, options)
        .map(nb::logical_switch_port::EXTERNAL_IDS, [VENDOR, ("ls", &*subnet.name)]);
    let member = Fact::Member {
        row: keys::switch(&subnet.name),
        column: nb::logical_switch::PORTS,
        element: Element::Row(key),
    };
    [row.fact(), member]
}
