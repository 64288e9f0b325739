//! ACLs on a subnet's switch: `spec.acls`, `allowEWTraffic`, private subnets. All in tier 2; their order
//! among others is in `acl`.

use crate::{
    api::{Settings, Subnet, names},
    net::{Cidr, field},
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, View},
};

use super::{
    acl::{LOG_METER, TIER, log_meter},
    keys,
    validity::valid_subnet,
};

/// Priority of `allowEWTraffic`.
const EAST_WEST: i64 = 1900;

pub fn desired(view: &View<'_>, name: &str) -> Output {
    let (Some(subnet), Some(settings)) = (valid_subnet(view, name), view.get::<Settings>(""))
    else {
        return Output::default();
    };
    if !subnet.is_ovn() {
        return Output::default();
    }
    let mut facts = given(subnet);
    if subnet.private {
        facts.extend(private(view, subnet, settings));
    }
    Output { facts, ..Output::default() }
}

/// `spec.acls` word by word, and what `allowEWTraffic` adds to them; alone it does nothing.
fn given(subnet: &Subnet) -> Vec<Fact> {
    let mut facts = Vec::new();
    for acl in &subnet.acls {
        let direction = Direction::of(&acl.direction);
        let rule = (acl.priority, &*acl.matching, &*acl.action);
        facts.extend(switch_acl(subnet, Origin::Spec, direction, rule));
    }
    if subnet.acls.is_empty() || !subnet.allow_ew_traffic {
        return facts;
    }
    for (family, cidr) in subnet.cidrs.iter() {
        let inside =
            format!("{} == {cidr} && {} == {cidr}", field(family, "src"), field(family, "dst"));
        for direction in [Direction::FromPort, Direction::ToPort] {
            let rule = (EAST_WEST, inside.as_str(), "allow");
            facts.extend(switch_acl(subnet, Origin::EastWest, direction, rule));
        }
    }
    facts
}

fn private(view: &View<'_>, subnet: &Subnet, settings: &Settings) -> Vec<Fact> {
    let mut facts = acl(subnet, 1000, "ip".into(), "drop");
    facts.extend(log_meter());
    for (family, cidr) in subnet.cidrs.iter() {
        let (src, dst) = (field(family, "src"), field(family, "dst"));
        let both = |a: Cidr, b: Cidr| format!("{src} == {a} && {dst} == {b}");
        facts.extend(acl(subnet, 1001, both(*cidr, *cidr), "allow-related"));
        for allowed in subnet.allow_subnets.iter().filter(|c| c.family() == family) {
            let pair = format!("({}) || ({})", both(*cidr, *allowed), both(*allowed, *cidr));
            facts.extend(acl(subnet, 1001, pair, "allow-related"));
        }
        // Nodes reach their pods (probes) whatever the subnet says. They come with the address of
        // their join port, or with their own, which upstream left out: that one passes the subnet
        // as its neighbours do, and no policy or security group of a pod.
        let nodes = format!("{src} == ${}", names::node_address_set(family));
        facts.extend(acl(subnet, 1001, nodes, "allow-related"));
        let join = view.get::<Subnet>(&settings.node_switch);
        if let Some(join) = join.and_then(|j| j.cidrs.get(family)) {
            facts.extend(acl(subnet, 3000, format!("{src} == {join}"), "allow-related"));
        }
    }
    facts
}

/// One ACL of a private subnet.
fn acl(subnet: &Subnet, priority: i64, matching: String, action: &str) -> Vec<Fact> {
    switch_acl(subnet, Origin::Private, Direction::ToPort, (priority, &matching, action))
}

/// Which field of the subnet an ACL comes from; part of its identity, as a user may write in
/// `spec.acls` what `private` means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Private,
    Spec,
    EastWest,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    FromPort,
    ToPort,
}

impl Direction {
    fn of(text: &str) -> Self {
        if text == "from-lport" { Direction::FromPort } else { Direction::ToPort }
    }

    fn text(self) -> &'static str {
        match self {
            Direction::FromPort => "from-lport",
            Direction::ToPort => "to-lport",
        }
    }
}

fn switch_acl(
    subnet: &Subnet,
    origin: Origin,
    direction: Direction,
    (priority, matching, action): (i64, &str, &str),
) -> Vec<Fact> {
    let prefix = match origin {
        Origin::Private => String::new(),
        Origin::Spec => format!("spec/{}/", direction.text()),
        Origin::EastWest => format!("east-west/{}/", direction.text()),
    };
    let id = format!("{prefix}{priority}/{matching}");
    let key = RowKey::new(&nb::ACL, "subnet-acl", &subnet.name, &id);
    let mut ids = vec![("parent", &*subnet.name)];
    if origin != Origin::Private {
        ids.push(("subnet", &*subnet.name));
    }
    let mut row = RowBuilder::new(&key)
        .set(nb::acl::DIRECTION, direction.text())
        .set(nb::acl::PRIORITY, priority)
        .set(nb::acl::TIER, TIER)
        .set(nb::acl::MATCH, matching)
        .set(nb::acl::ACTION, action)
        .map(nb::acl::EXTERNAL_IDS, ids);
    if origin == Origin::Private && action == "drop" {
        // OVN logs at most 63 characters of it.
        let name: String = if subnet.name.len() > 63 {
            subnet.name.chars().take(60).chain("...".chars()).collect()
        } else {
            subnet.name.to_string()
        };
        row = row
            .set(nb::acl::LOG, true)
            .set(nb::acl::SEVERITY, "warning")
            .set(nb::acl::METER, LOG_METER)
            .set(nb::acl::NAME, name);
    }
    let member = Fact::Member {
        row: keys::switch(&subnet.name),
        column: nb::logical_switch::ACLS,
        element: Element::Row(key),
    };
    vec![row.fact(), member]
}
