//! Private subnets: ACLs on the switch, tier 2.

use crate::{
    api::{Settings, Subnet, names},
    net::{Cidr, field},
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, View},
};

use super::{keys, validity::valid_subnet};

const TIER: i64 = 2;

pub fn desired(view: &View<'_>, name: &str) -> Output {
    let (Some(subnet), Some(settings)) = (valid_subnet(view, name), view.get::<Settings>(""))
    else {
        return Output::default();
    };
    if !subnet.private || !subnet.is_ovn() {
        return Output::default();
    }
    let mut facts = acl(subnet, 1000, "ip".into(), "drop");
    for (family, cidr) in subnet.cidrs.iter() {
        let (src, dst) = (field(family, "src"), field(family, "dst"));
        let both = |a: Cidr, b: Cidr| format!("{src} == {a} && {dst} == {b}");
        facts.extend(acl(subnet, 1001, both(*cidr, *cidr), "allow-related"));
        for allowed in subnet.allow_subnets.iter().filter(|c| c.family() == family) {
            let pair = format!("({}) || ({})", both(*cidr, *allowed), both(*allowed, *cidr));
            facts.extend(acl(subnet, 1001, pair, "allow-related"));
        }
        // Nodes reach their pods (probes) whatever the subnet says. They come with their own
        // address, which upstream left out, or with that of their join port.
        let nodes = format!("{src} == ${}", names::node_address_set(family));
        facts.extend(acl(subnet, 3000, nodes, "allow-related"));
        let join = view.get::<Subnet>(&settings.node_switch);
        if let Some(join) = join.and_then(|j| j.cidrs.get(family)) {
            facts.extend(acl(subnet, 3000, format!("{src} == {join}"), "allow-related"));
        }
    }
    Output { facts, ..Output::default() }
}

fn acl(subnet: &Subnet, priority: i64, matching: String, action: &str) -> Vec<Fact> {
    let key = RowKey::new(&nb::ACL, "subnet-acl", &subnet.name, &format!("{priority}/{matching}"));
    let mut row = RowBuilder::new(&key)
        .set(nb::acl::DIRECTION, "to-lport")
        .set(nb::acl::PRIORITY, priority)
        .set(nb::acl::TIER, TIER)
        .set(nb::acl::MATCH, matching)
        .set(nb::acl::ACTION, action)
        .map(nb::acl::EXTERNAL_IDS, [("parent", &*subnet.name)]);
    if action == "drop" {
        // OVN logs at most 63 characters of it.
        let name: String = if subnet.name.len() > 63 {
            subnet.name.chars().take(60).chain("...".chars()).collect()
        } else {
            subnet.name.to_string()
        };
        row =
            row.set(nb::acl::LOG, true).set(nb::acl::SEVERITY, "warning").set(nb::acl::NAME, name);
    }
    let member = Fact::Member {
        row: keys::switch(&subnet.name),
        column: nb::logical_switch::ACLS,
        element: Element::Row(key),
    };
    vec![row.fact(), member]
}
