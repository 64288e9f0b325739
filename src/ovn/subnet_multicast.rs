//! The multicast querier of a subnet with enableMulticastSnoop: a port that only holds its address;
//! the switch speaks with it (upstream lost the port to its own garbage collection).

use crate::{
    api::{Ip, Subnet, names},
    net::Mac,
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, View},
};

use super::{VENDOR, keys, validity};

pub fn desired(view: &View<'_>, name: &str) -> Output {
    let mut output = Output::default();
    let Some(subnet) = validity::valid_subnet(view, name).filter(|s| s.is_ovn()) else {
        return output;
    };
    let port = names::mcast_querier_port(name);
    let ip = view.get::<Ip>(&port).filter(|ip| ip.managed && !ip.deleting);
    let querier = ip.filter(|_| subnet.multicast_snoop).and_then(|ip| Some((ip, ip.mac?)));
    output.facts.extend(querier.into_iter().flat_map(|(ip, mac)| port_facts(subnet, ip, mac)));
    output
}

fn port_facts(subnet: &Subnet, ip: &Ip, mac: Mac) -> Vec<Fact> {
    let key = RowKey::new(&nb::LOGICAL_SWITCH_PORT, "subnet-multicast", &subnet.name, "querier");
    let ips: Vec<String> = ip.addresses.iter().map(|(_, a)| a.to_string()).collect();
    let row = RowBuilder::new(&key)
        .set(nb::logical_switch_port::NAME, ip.name.clone())
        .set(nb::logical_switch_port::ADDRESSES, format!("{mac} {}", ips.join(" ")))
        .map(
            nb::logical_switch_port::EXTERNAL_IDS,
            [
                VENDOR,
                ("ls", &*subnet.name),
                ("pod", format!("{}/{}", ip.namespace, ip.pod_name).as_str()),
            ],
        );
    let member = Fact::Member {
        row: keys::switch(&subnet.name),
        column: nb::logical_switch::PORTS,
        element: Element::Row(key),
    };
    let mut facts = vec![row.fact(), member];
    let mut set = |key: &str, value: String| {
        facts.push(Fact::Entry {
            row: keys::switch(&subnet.name),
            column: nb::logical_switch::OTHER_CONFIG,
            key: key.into(),
            value: value.as_str().into(),
        });
    };
    set("mcast_snoop", "true".into());
    set("mcast_querier", "true".into());
    set("mcast_eth_src", mac.to_string());
    // One address each: the switch does not read pairs (upstream wrote both into the first).
    if let Some(v4) = ip.addresses.v4 {
        set("mcast_ip4_src", v4.to_string());
    }
    if let Some(v6) = ip.addresses.v6 {
        set("mcast_ip6_src", v6.to_string());
    }
    facts
}
