//! AdminNetworkPolicy and BaselineAdminNetworkPolicy: a port group of the subject with one ACL per
//! rule, family and port, and an address set of each rule's peers. Pods and nodes fill both; only
//! networks come from here. An ACL stands whether its set is filled or not (upstream left it out
//! while the set was empty, and the policy never acted).

use std::collections::BTreeSet;

use crate::{
    api::{
        AdminAction, AdminNetworkPolicy, AdminPeers, AdminRule, Administrative,
        BaselineAdminNetworkPolicy, Index, NetworkPolicy, Node, Pod, Settings, Subnet, dotted,
        parse::reason,
        policy::{Direction, PortMatch, Protocol, port_bucket},
    },
    net::{Family, field},
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, Problem, View},
};

use super::{
    acl::{self, Acl, Action, Log, Stage},
    keys,
    realm::{Realm, Realms},
};

pub fn of_admin(view: &View<'_>, key: &str) -> Output {
    desired::<AdminNetworkPolicy>(view, key, acl::TIER_ADMIN)
}

pub fn of_baseline(view: &View<'_>, key: &str) -> Output {
    desired::<BaselineAdminNetworkPolicy>(view, key, acl::TIER_BASELINE)
}

/// A node gives its addresses to the rules that select it, and re-runs none of them.
pub fn of_node(view: &View<'_>, name: &str) -> Output {
    let (Some(node), Some(settings)) = (view.get::<Node>(name), view.get::<Settings>("")) else {
        return Output::default();
    };
    if !settings.enable_anp {
        return Output::default();
    }
    let realms = Realms::read(view, settings).of_policy(view, None);
    let mut facts = node_addresses::<AdminNetworkPolicy>(view, node, &realms);
    facts.extend(node_addresses::<BaselineAdminNetworkPolicy>(view, node, &realms));
    Output { facts, ..Output::default() }
}

fn node_addresses<T: Administrative>(view: &View<'_>, node: &Node, realms: &[Realm]) -> Vec<Fact> {
    let mut facts = Vec::new();
    for of in view.list::<T>(Index::AdminPoliciesOfNodes, "") {
        let policy = of.policy();
        for (_, slot) in policy.nodes.iter().filter(|(nodes, _)| nodes.matches(&node.labels)) {
            for realm in realms {
                let slot = format!("{slot}{}", realm.suffix);
                facts.extend(node.internal_ips.iter().map(|(family, address)| {
                    let set = acl::set_key(T::FEATURE, &policy.name, &slot, family);
                    acl::address_member(set, address)
                }));
            }
        }
    }
    facts
}

fn desired<T: Administrative>(view: &View<'_>, key: &str, tier: i64) -> Output {
    let (Some(of), Some(settings)) = (view.get::<T>(key), view.get::<Settings>("")) else {
        return Output::default();
    };
    if !settings.enable_anp {
        return Output::default();
    }
    let families = keys::families(view);
    let name = group_name(view, of);
    let mut output = Output { problems: problems(view, of), ..Output::default() };
    if !of.policy().log.is_empty() {
        output.facts.extend(acl::log_meter());
    }
    for realm in Realms::read(view, settings).of_policy(view, None) {
        let mut builder = Builder {
            view,
            of,
            tier,
            name: name.clone() + &realm.name_suffix(),
            suffix: realm.suffix,
            families: families.clone(),
            acls: vec![],
            facts: vec![],
        };
        for direction in Direction::BOTH {
            for (index, rule) in of.policy().rules(direction).iter().enumerate() {
                builder.rule(direction, index, rule);
            }
        }
        output.facts.extend(builder.finish());
    }
    output
}

/// What was refused, and who has the same priority: the API leaves it open which of the two
/// policies counts then, so both are enforced.
fn problems<T: Administrative>(view: &View<'_>, of: &T) -> Vec<Problem> {
    let policy = of.policy();
    let mut messages: Vec<String> =
        policy.invalid.iter().map(|finding| finding.message.clone()).collect();
    if let Some(priority) = of.priority() {
        let text = priority.to_string();
        let others = view.keys::<T>(Index::AdminPoliciesByPriority, &text);
        messages.extend(others.filter(|name| **name != policy.name).map(|name| {
            format!(
                "spec.priority {text:?}: AdminNetworkPolicy {:?} has it, too, and which of both \
                 counts is not determined; choose another",
                &**name
            )
        }));
    }
    let problem = |message| Problem {
        kind: T::KIND,
        key: policy.name.clone(),
        reason: reason::ADMIN_POLICY,
        message,
    };
    messages.into_iter().map(problem).collect()
}

/// Name of the port group. Port groups of all features share one name space; where an
/// administrator's policy would clash with another one, it takes a hash suffix.
fn group_name<T: Administrative>(view: &View<'_>, of: &T) -> String {
    let policy = of.policy();
    let name = policy.group_name(T::SHORT);
    let twins = view.keys::<T>(Index::AdminPoliciesByGroupName, &name).count() > 1;
    // The baseline policy is named default.
    let baseline = T::SHORT == "anp"
        && view
            .keys::<BaselineAdminNetworkPolicy>(Index::AdminPoliciesByGroupName, &name)
            .next()
            .is_some();
    let taken = view.keys::<NetworkPolicy>(Index::PoliciesByGroupName, &name).next().is_some();
    let reserved = ["node.", "ovn.sg."].iter().any(|prefix| name.starts_with(prefix));
    let of_subnet_and_node = |(dot, _): (usize, &str)| {
        let mut nodes = view.keys::<Node>(Index::NodesByDottedName, &name[dot + 1..]);
        nodes.next().is_some()
            && view.keys::<Subnet>(Index::SubnetsByDottedName, &name[..dot]).next().is_some()
    };
    if twins || baseline || taken || reserved || name.match_indices('.').any(of_subnet_and_node) {
        let id = format!("{}/{}", T::SHORT, policy.name);
        return format!("{name}.{:08x}", keys::hash(&id) as u32);
    }
    name
}

struct Builder<'v, 'a, T> {
    view: &'v View<'a>,
    of: &'a T,
    tier: i64,
    /// Of the port group; names of the address sets begin with it.
    name: String,
    /// Of identities of rows, see [`realm`](super::realm).
    suffix: String,
    families: Vec<Family>,
    acls: Vec<RowKey>,
    facts: Vec<Fact>,
}

impl<T: Administrative> Builder<'_, '_, T> {
    fn finish(mut self) -> Vec<Fact> {
        let policy = self.of.policy();
        let slot = format!("{}{}", policy.group, self.suffix);
        let key = RowKey::new(&nb::PORT_GROUP, T::FEATURE, &policy.name, &slot);
        let group = RowBuilder::new(&key)
            .set(nb::port_group::NAME, self.name)
            .map(nb::port_group::EXTERNAL_IDS, [(T::SHORT, &*policy.name)])
            .elements(nb::port_group::ACLS, self.acls.into_iter().map(Element::Row))
            .contributed(nb::port_group::PORTS);
        self.facts.push(group.fact());
        self.facts
    }

    fn rule(&mut self, direction: Direction, index: usize, rule: &AdminRule) {
        for family in Family::BOTH {
            let name = self.set_name(direction, index, rule, family);
            let set = self.set(direction, &rule.slot, family, &name);
            if let AdminPeers::Set(networks) = &rule.peers {
                for network in networks.iter().filter(|n| n.family() == family) {
                    self.facts.push(Fact::Member {
                        row: set.clone(),
                        column: nb::address_set::ADDRESSES,
                        element: Element::Atom(network.to_string().into()),
                    });
                }
            }
        }
        for family in self.families.clone() {
            self.rule_of_family((direction, index, family), rule);
        }
    }

    fn rule_of_family(&mut self, place: (Direction, usize, Family), rule: &AdminRule) {
        let (direction, index, family) = place;
        let mut matching = acl::of_group(direction, &self.name);
        matching += &match rule.peers {
            AdminPeers::Everyone => format!(" && ip{}", family.digit()),
            AdminPeers::Set(_) => {
                let set = self.set_name(direction, index, rule, family);
                format!(" && ip && {} == ${set}", acl::peer_field(direction, family))
            }
        };
        let Some(ports) = &rule.ports else {
            return self.acl(place, rule, ("all", matching));
        };
        for port in ports {
            if let PortMatch::Named(protocol, name) = port {
                self.named_port(place, rule, (*protocol, name), &matching);
            } else if let Some(port) = acl::port_match(port) {
                self.acl(place, rule, (&port, format!("{matching} && {port}")));
            }
        }
    }

    fn acl(&mut self, place: (Direction, usize, Family), rule: &AdminRule, what: (&str, String)) {
        let ((direction, index, family), (id, matching)) = (place, what);
        let policy = self.of.policy();
        let (way, digit) = (direction.name(), family.digit());
        let id = format!("{way}/acl/{index}/{digit}/{id}{}", self.suffix);
        let log = match (policy.log.contains(&rule.action), rule.action) {
            (false, _) => Log::Off,
            (true, AdminAction::Deny) => Log::Warning,
            (true, _) => Log::Info,
        };
        let acl = Acl {
            key: RowKey::new(&nb::ACL, T::FEATURE, &policy.name, &id),
            parent: self.name.clone(),
            direction,
            stage: Stage::AfterBalancing,
            tier: self.tier,
            priority: self.of.acl_priority(direction, index),
            matching,
            action: match rule.action {
                AdminAction::Allow => Action::AllowRelated,
                AdminAction::Deny => Action::Drop,
                AdminAction::Pass => Action::Pass,
            },
            name: format!(
                "{}/{}/{}/IPv{}/{index}",
                T::SHORT,
                policy.name,
                direction.name(),
                family.digit()
            ),
            log,
        };
        self.facts.push(acl.row());
        self.acls.push(acl.key);
    }

    /// `<group>.<direction>.<index>.<rule name>.<IPv4|IPv6>`.
    fn set_name(
        &self,
        direction: Direction,
        index: usize,
        rule: &AdminRule,
        family: Family,
    ) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
        // Upstream kept what OVN does not take, and the rule had no effect.
        let name: String = dotted(&rule.name).chars().map(plain).collect();
        let name = if name.is_empty() { name } else { format!("{name}.") };
        format!("{}.{}.{index}.{name}IPv{}", self.name, direction.name(), family.digit())
    }

    fn set(&mut self, direction: Direction, slot: &str, family: Family, name: &str) -> RowKey {
        let policy = self.of.policy();
        let slot = format!("{slot}{}", self.suffix);
        let key = acl::set_key(T::FEATURE, &policy.name, &slot, family);
        let owner = format!("{}/{}", policy.name, direction.name());
        let row = RowBuilder::new(&key)
            .set(nb::address_set::NAME, name)
            .map(nb::address_set::EXTERNAL_IDS, [(T::SHORT, owner)])
            .contributed(nb::address_set::ADDRESSES);
        self.facts.push(row.fact());
        key
    }

    /// A name may mean another number on each pod: for each number that pods give to it, the set
    /// of those among the destinations and a rule to them. Upstream left such rules out, so that a
    /// Deny had no effect.
    fn named_port(
        &mut self,
        place: (Direction, usize, Family),
        rule: &AdminRule,
        port: (Protocol, &str),
        matching: &str,
    ) {
        let ((direction, index, family), (protocol, name)) = (place, port);
        let bucket = port_bucket(None, protocol, name);
        let numbers: BTreeSet<&str> =
            self.view.values::<Pod>(Index::PortNumbers, &bucket).map(|n| &**n).collect();
        let slot = self.of.policy().named_slot(rule, direction, &format!("{protocol}/{name}"));
        for number in numbers {
            let of_rule = match direction {
                // The subject, whatever the rule.
                Direction::Ingress => String::new(),
                Direction::Egress => format!("{index}."),
            };
            let set = format!(
                "{}.{}.named.{of_rule}{protocol}.{}.{number}.IPv{}",
                self.name,
                direction.name(),
                dotted(name),
                family.digit()
            );
            self.set(direction, &format!("{slot}/{number}"), family, &set);
            let matching = format!(
                "{matching} && {} == ${set} && {protocol}.dst == {number}",
                field(family, "dst")
            );
            self.acl(place, rule, (&format!("{protocol}/{name}/{number}"), matching));
        }
    }
}
