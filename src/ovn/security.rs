//! Security groups as ports see them: which ones a port names, and its places in their sets.
//!
//! A port that names a group is in the deny-all group from the transaction that makes it, whether
//! the group exists or not; groups only open what that one closes. Upstream left such a port
//! unfiltered until its next round, and for good when no group of it existed.

use std::net::IpAddr;

use crate::{
    api::{Index, Ip, Pod, SecurityGroup, Settings, Subnet, dotted, names},
    net::{Family, parse_ip},
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::View,
};

use super::{acl::TIER, keys};

/// Priorities of the manual (5.6) and the sheet.
pub mod priority {
    /// A rule has this minus its own priority, 1 to 200.
    pub const RULE: i64 = 2300;
    pub const BASE: i64 = 2005;
    pub const SAME_GROUP: i64 = 2004;
    pub const DENY_ALL: i64 = 2003;
}

/// Which way a rule looks, as seen from the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    pub fn lport(self) -> &'static str {
        match self {
            Direction::Ingress => "to-lport",
            Direction::Egress => "from-lport",
        }
    }

    /// Match field of the port itself.
    pub fn port(self) -> &'static str {
        match self {
            Direction::Ingress => "outport",
            Direction::Egress => "inport",
        }
    }

    /// End of the packet at which the other side is.
    pub fn remote(self) -> &'static str {
        match self {
            Direction::Ingress => "src",
            Direction::Egress => "dst",
        }
    }
}

/// Ports of a group.
pub fn ports(group: &str) -> RowKey {
    RowKey::new(&nb::PORT_GROUP, "security-group", group, "ports")
}

/// Addresses of a group's ports.
pub fn addresses(group: &str, family: Family) -> RowKey {
    let id = format!("v{}", family.digit());
    RowKey::new(&nb::ADDRESS_SET, "security-group", group, &id)
}

/// Whether the group exists. Reads no content: a rule that changes does not re-run the ports.
pub fn exists(view: &View<'_>, group: &str) -> bool {
    view.keys::<SecurityGroup>(Index::SecurityGroupsByDottedName, &dotted(group))
        .any(|name| &**name == group)
}

/// Name of a group's port group. Dashes become dots: groups that would share a name all get a
/// hash suffix.
pub fn group_name(view: &View<'_>, group: &str) -> String {
    let name = names::security_group_port_group(group);
    let dotted = dotted(group);
    let mut rivals = view.keys::<SecurityGroup>(Index::SecurityGroupsByDottedName, &dotted);
    if rivals.any(|other| &**other != group) {
        return format!("{name}.{:08x}", keys::hash(group) as u32);
    }
    name
}

/// Name of the set of addresses of a group's ports.
pub fn set_name(view: &View<'_>, group: &str, family: Family) -> String {
    format!("{}.associated.v{}", group_name(view, group), family.digit())
}

/// One ACL of a port group and its place there.
pub fn acl(
    (group, name): (&RowKey, &str),
    id: &str,
    direction: Direction,
    priority: i64,
    (matching, action): (String, &str),
) -> [Fact; 2] {
    let key = RowKey { table: &nb::ACL, id: format!("{}/{id}", group.id).into() };
    let row = RowBuilder::new(&key)
        .set(nb::acl::DIRECTION, direction.lport())
        .set(nb::acl::PRIORITY, priority)
        .set(nb::acl::TIER, TIER)
        .set(nb::acl::MATCH, matching)
        .set(nb::acl::ACTION, action)
        .map(nb::acl::EXTERNAL_IDS, [("parent", name)]);
    let member = Fact::Member {
        row: group.clone(),
        column: nb::port_group::ACLS,
        element: Element::Row(key),
    };
    [row.fact(), member]
}

/// The groups that one network of a pod names, in the order of the annotation. Upstream kept
/// blanks after commas as parts of the names.
pub fn groups_of<'a>(pod: &'a Pod, provider: &str) -> Vec<&'a str> {
    let mut groups: Vec<&str> = Vec::new();
    let text = pod.annotation(provider, "security_groups").map_or("", |text| text);
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if !groups.contains(&name) {
            groups.push(name);
        }
    }
    groups
}

/// `external_ids` of the port. Outside the default VPC a port says that it is not in the default
/// group.
pub fn port_ids(groups: &[&str], subnet: &Subnet, settings: &Settings) -> Vec<(String, String)> {
    let mut ids = Vec::new();
    if !groups.is_empty() {
        ids.push(("security_groups".to_owned(), groups.join("/")));
    }
    ids.extend(groups.iter().map(|group| (format!("associated_sg_{group}"), "true".to_owned())));
    if subnet.vpc != settings.cluster_router && !groups.contains(&names::DEFAULT_GROUP) {
        ids.push((format!("associated_sg_{}", names::DEFAULT_GROUP), "false".to_owned()));
    }
    ids
}

/// Places of a port in the groups that it names, and groups among them that do not exist.
pub fn memberships<'a>(
    view: &View<'_>,
    port: &RowKey,
    ip: &Ip,
    vips: &[&str],
    groups: &[&'a str],
) -> (Vec<Fact>, Vec<&'a str>) {
    if groups.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let (present, missing): (Vec<&str>, Vec<&str>) =
        groups.iter().partition(|group| exists(view, group));
    let mut facts = deny_all(port);
    let mut addresses: Vec<IpAddr> = ip.addresses.iter().map(|(_, ip)| *ip).collect();
    addresses.extend(vips.iter().filter_map(|vip| parse_ip(vip).ok()));
    for group in present {
        facts.push(in_group(ports(group), port));
        facts.extend(addresses.iter().map(|ip| Fact::Member {
            row: self::addresses(group, Family::of(*ip)),
            column: nb::address_set::ADDRESSES,
            element: Element::Atom(ip.to_string().into()),
        }));
    }
    (facts, missing)
}

fn in_group(group: RowKey, port: &RowKey) -> Fact {
    let element = Element::Row(port.clone());
    Fact::Member { row: group, column: nb::port_group::PORTS, element }
}

/// The group that drops all, whole, and the port in it. Every port brings the group along, so
/// that none is ever committed without it.
fn deny_all(port: &RowKey) -> Vec<Fact> {
    let group = ports(names::DENY_ALL_GROUP);
    let name = names::security_group_port_group(names::DENY_ALL_GROUP);
    let row = RowBuilder::new(&group)
        .set(nb::port_group::NAME, name.as_str())
        .map(
            nb::port_group::EXTERNAL_IDS,
            [("sg", names::DENY_ALL_GROUP), ("type", "security_group")],
        )
        .contributed(nb::port_group::PORTS)
        .contributed(nb::port_group::ACLS);
    let mut facts = vec![row.fact(), in_group(group.clone(), port)];
    for direction in Direction::BOTH {
        let matching = format!("{} == @{name} && ip", direction.port());
        let id = direction.lport();
        let content = (matching, "drop");
        facts.extend(acl((&group, &name), id, direction, priority::DENY_ALL, content));
    }
    facts
}
