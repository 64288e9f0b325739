//! What no NetworkPolicy takes from a pod. All of it is there only while there are policies: an ACL
//! makes a switch track connections. Probes of the own node are also kept from security groups:
//! upstream let them pass as long as any NetworkPolicy existed anywhere, and the pods of a group
//! stopped being ready when the last one was deleted.
//!
//! The node's DNS cache (`--node-local-dns-ip`) is no exemption: the manual (7.23.3) asks for rules
//! that admit it, and what an isolated pod may ask is for its policies to say. Requests are tracked
//! here, so that the rule about egress is enough; upstream did not track them, and answers needed a
//! rule of their own.
//!
//! Upstream wrote the exemption of the gateway without naming ports, so that it admitted traffic
//! of every port of the switch; here it concerns the pods that policies select.

use std::collections::BTreeSet;

use crate::{
    api::{
        Index, Ip, NetworkPolicy, Node, SecurityGroup, ServiceCidr, Settings, policy::Direction,
    },
    net::{Cidr, Family, address_set_name, field},
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, View},
};

use super::{
    acl::{self, Acl, Action, Log, Stage, priority},
    keys,
    validity::valid_subnet,
};

/// Name of the port group of every pod that a policy selects. No Kubernetes name has `_`.
const GROUP: &str = "network_policy_pods";

fn in_force(view: &View<'_>, settings: &Settings) -> bool {
    settings.enable_np && view.values::<NetworkPolicy>(Index::Presence, "").next().is_some()
}

/// Whether nodes need their exemption: something may keep them from their pods.
fn for_nodes(view: &View<'_>, settings: &Settings) -> bool {
    in_force(view, settings) || view.values::<SecurityGroup>(Index::Presence, "").next().is_some()
}

/// An exemption, before it has a row.
struct Exemption {
    direction: Direction,
    priority: i64,
    action: Action,
    matching: String,
}

impl Exemption {
    fn acl(self, key: (&str, &str), parent: &str) -> Acl {
        let (feature, owner) = key;
        let id = format!("{}/{}", self.direction.name(), self.matching);
        Acl {
            key: RowKey::new(&nb::ACL, feature, owner, &id),
            parent: parent.to_owned(),
            direction: self.direction,
            stage: Stage::AfterBalancing,
            tier: acl::TIER,
            priority: self.priority,
            matching: self.matching,
            action: self.action,
            name: String::new(),
            log: Log::Off,
        }
    }
}

/// The group of all selected pods, and what holds for all of them.
pub fn of_all(view: &View<'_>, key: &str) -> Output {
    let Some(settings) = view.get::<Settings>(key).filter(|s| in_force(view, s)) else {
        return Output::default();
    };
    let mut all = vec![dhcp(Family::V4), dhcp(Family::V6)];
    if settings.enable_lb {
        let mut ranges: BTreeSet<Cidr> =
            settings.service_cidrs.iter().map(|(_, range)| range.network()).collect();
        let others = view.values::<ServiceCidr>(Index::ServiceRanges, "");
        ranges.extend(others.filter_map(|range| range.parse::<Cidr>().ok()));
        all.extend(ranges.into_iter().map(own_service));
    }
    let acls: Vec<Acl> = all.into_iter().map(|e| e.acl(("policy-exemption", ""), GROUP)).collect();
    let mut facts: Vec<Fact> = acls.iter().map(Acl::row).collect();
    let group = RowBuilder::new(&keys::policy_pods())
        .set(nb::port_group::NAME, GROUP)
        .map(nb::port_group::EXTERNAL_IDS, [super::VENDOR])
        .elements(nb::port_group::ACLS, acls.into_iter().map(|acl| Element::Row(acl.key)))
        .contributed(nb::port_group::PORTS);
    facts.push(group.fact());
    facts.extend(acl::log_meter());
    Output { facts, ..Output::default() }
}

/// A pod may ask for an address; the answers of OVN pass anyway. Upstream dropped the question.
fn dhcp(family: Family) -> Exemption {
    let ports = match family {
        Family::V4 => "ip4 && udp.src == 68 && udp.dst == 67",
        Family::V6 => "ip6 && udp.src == 546 && udp.dst == 547",
    };
    Exemption {
        direction: Direction::Egress,
        priority: priority::POLICY_ALLOW,
        action: Action::AllowRelated,
        matching: format!("{} && {ports}", acl::of_group(Direction::Egress, GROUP)),
    }
}

/// A pod that reaches itself through its Service comes back with the address of the Service as
/// source. No policy may keep a pod from itself.
/// That of an external address is a cluster IP, too, see `service`.
fn own_service(services: Cidr) -> Exemption {
    Exemption {
        direction: Direction::Ingress,
        priority: priority::POLICY_ALLOW,
        action: Action::AllowRelated,
        matching: format!(
            "{} && {} == {services}",
            acl::of_group(Direction::Ingress, GROUP),
            field(services.family(), "src")
        ),
    }
}

/// Selected pods of the subnet and its gateway reach each other.
pub fn of_subnet(view: &View<'_>, name: &str) -> Output {
    let (Some(subnet), Some(settings)) = (valid_subnet(view, name), view.get::<Settings>(""))
    else {
        return Output::default();
    };
    // Pods have no place in the join subnet.
    if !subnet.is_ovn() || subnet.name == settings.node_switch || !in_force(view, settings) {
        return Output::default();
    }
    let mut facts = Vec::new();
    for (family, gateway) in subnet.gateways.iter() {
        for direction in Direction::BOTH {
            let exemption = Exemption {
                direction,
                priority: priority::POLICY_ALLOW,
                action: Action::AllowStateless,
                matching: format!(
                    "{} && {} == {gateway}",
                    acl::of_group(direction, GROUP),
                    acl::peer_field(direction, family)
                ),
            };
            let acl = exemption.acl(("policy-gateway", &subnet.name), &subnet.name);
            facts.extend(acl.facts(keys::switch(&subnet.name), nb::logical_switch::ACLS));
        }
    }
    Output { facts, ..Output::default() }
}

/// A node reaches the pods that run on it, for its probes, and they it.
pub fn of_node(view: &View<'_>, name: &str) -> Output {
    let (Some(node), Some(settings)) = (view.get::<Node>(name), view.get::<Settings>("")) else {
        return Output::default();
    };
    if !for_nodes(view, settings) {
        return Output::default();
    }
    let group = keys::node_group_name(view, name);
    let join = view.get::<Ip>(&format!("node-{name}"));
    let mut facts = Vec::new();
    for family in [Family::V4, Family::V6] {
        // Packets through ovn0 carry the node's own address.
        let own = node.internal_ips.get(family);
        let Some(address) = own.or_else(|| join.and_then(|j| j.addresses.get(family))) else {
            continue;
        };
        let pods = address_set_name(&group, family);
        for direction in Direction::BOTH {
            let other = match direction {
                Direction::Ingress => "dst",
                Direction::Egress => "src",
            };
            let exemption = Exemption {
                direction,
                priority: priority::NODE,
                action: Action::AllowRelated,
                matching: format!(
                    "{} == {address} && {} == ${pods}",
                    acl::peer_field(direction, family),
                    field(family, other)
                ),
            };
            let acl = exemption.acl(("policy-node", name), &group);
            facts.extend(acl.facts(keys::node_ports(name), nb::port_group::ACLS));
        }
    }
    Output { facts, ..Output::default() }
}
