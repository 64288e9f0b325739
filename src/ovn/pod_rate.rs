//! The egress rate of pods on nodes with a userspace datapath. There the policing of the interface
//! that the agent sets has no effect (measured: 270 Mbit/s under a limit of 30), an OVN meter has.

use crate::{
    api::{Index, Ip, Node, Pod, names::suffix},
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::View,
};

use super::{VENDOR, keys};

const PRIORITY: i64 = 100;

/// The rate row of a port, if its pod asks for one and its node needs it. `rate` is in Mbit/s.
pub fn egress_rate(view: &View<'_>, pod: &Pod, ip: &Ip, provider: &str) -> Vec<Fact> {
    let rate = pod.annotation(provider, suffix::EGRESS_RATE);
    let rate = rate.and_then(|text| text.trim().parse::<i64>().ok()).filter(|n| *n > 0);
    // OVN takes up to 4294967295 kbit/s.
    let (Some(rate), Some(node)) = (rate.map(|n| n.min(4_294_967)), &pod.node) else {
        return Vec::new();
    };
    if !view.keys::<Node>(Index::UserspaceNodes, node).any(|n| n == node) {
        return Vec::new();
    }
    let key = RowKey::new(&nb::QOS, "pod", &ip.name, "egress-rate");
    let row = RowBuilder::new(&key)
        .set(nb::qos::DIRECTION, "from-lport")
        .set(nb::qos::PRIORITY, PRIORITY)
        .set(nb::qos::MATCH, format!("inport == {:?}", &*ip.name))
        .map(nb::qos::EXTERNAL_IDS, [VENDOR]);
    let bandwidth = [("rate", rate * 1000), ("burst", rate * 100)];
    let row = row.map(nb::qos::BANDWIDTH, bandwidth);
    let member = Fact::Member {
        row: keys::switch(&ip.subnet),
        column: nb::logical_switch::QOS_RULES,
        element: Element::Row(key),
    };
    vec![row.fact(), member]
}
