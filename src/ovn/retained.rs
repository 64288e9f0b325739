//! The port of an address that waits for the next pod of its StatefulSet or virtual machine
//! (manual 3.4.3): the next one finds it as it was. It is in no group: nobody speaks through it.

use crate::{
    api::{Index, Ip, Pod, PodLife, Subnet},
    ovsdb::{
        row::{Element, Fact, RowBuilder},
        schema::nb,
    },
    store::{Output, View},
};

use super::{VENDOR, keys};

pub fn desired(view: &View<'_>, name: &str) -> Output {
    let mut output = Output::default();
    let Some(ip) = view.get::<Ip>(name).filter(|ip| ip.managed && !ip.reserved && !ip.deleting)
    else {
        return output;
    };
    let (Some(mac), false) = (ip.mac, in_use(view, ip)) else { return output };
    let Some(subnet) = view.get::<Subnet>(&ip.subnet).filter(|s| s.is_ovn()) else {
        return output;
    };
    let key = keys::pod_port(&ip.name);
    let ips: Vec<String> = ip.addresses.iter().map(|(_, a)| a.to_string()).collect();
    let pod = format!("{}/{}", ip.namespace, ip.pod_name);
    let row = RowBuilder::new(&key)
        .set(nb::logical_switch_port::NAME, ip.name.clone())
        .set(nb::logical_switch_port::TYPE, "")
        .set(nb::logical_switch_port::ADDRESSES, format!("{mac} {}", ips.join(" ")))
        .map(
            nb::logical_switch_port::EXTERNAL_IDS,
            [VENDOR, ("ls", &*subnet.name), ("pod", pod.as_str())],
        );
    let member = Fact::Member {
        row: keys::switch(&subnet.name),
        column: nb::logical_switch::PORTS,
        element: Element::Row(key),
    };
    output.facts = vec![row.fact(), member];
    output
}

/// Whether a pod makes the port itself. Records of other types have no port without their pod.
fn in_use(view: &View<'_>, ip: &Ip) -> bool {
    let key = format!("{}/{}", ip.namespace, ip.pod_name);
    let uses = |p: &&Pod| !p.host_network && p.life != PodLife::Ended;
    match &*ip.pod_type {
        "StatefulSet" => view.get::<Pod>(&key).filter(uses).is_some(),
        "VirtualMachine" => view.list::<Pod>(Index::PodsByMachine, &key).iter().any(uses),
        _ => true,
    }
}
