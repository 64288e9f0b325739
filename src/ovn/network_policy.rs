//! A NetworkPolicy is a port group of the pods it selects with a drop of all that its rules do not
//! admit, and an address set for the peers of each rule. Pods fill both, see `policy_member`; only
//! address blocks come from here. One transaction replaces rules together with their members.

use std::collections::BTreeSet;

use crate::{
    api::{
        Index, Kind, NetworkPolicy, Node, Pod, Settings, Subnet, dotted,
        names::policy_port_group,
        policy::{
            Direction, Enforcement, Peers, PolicyLog, PolicyRule, PortMatch, Protocol, port_bucket,
        },
    },
    net::{Family, field},
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, Problem, View},
};

use super::{
    acl::{self, Acl, Action, Log, Stage, priority},
    keys,
    realm::Realms,
};

const FEATURE: &str = "network-policy";

pub fn desired(view: &View<'_>, key: &str) -> Output {
    let (Some(policy), Some(settings)) = (view.get::<NetworkPolicy>(key), view.get::<Settings>(""))
    else {
        return Output::default();
    };
    if !settings.enable_np {
        return Output::default();
    }
    let families = keys::families(view);
    let name = group_name(view, policy, key);
    let realms = Realms::read(view, settings);
    let mut output = Output { problems: problems(policy, key), ..Output::default() };
    for realm in realms.of_policy(view, Some(&policy.namespace)) {
        let mut builder = Builder {
            view,
            policy,
            key,
            name: name.clone() + &realm.name_suffix(),
            suffix: realm.suffix,
            families: families.clone(),
            acls: vec![],
            facts: vec![],
        };
        for direction in Direction::BOTH {
            if let Some(rules) = policy.rules(direction) {
                builder.isolate(direction);
                for (index, rule) in rules.iter().enumerate() {
                    builder.rule(direction, index, rule);
                }
            }
        }
        output.facts.extend(builder.finish());
    }
    output
}

fn problems(policy: &NetworkPolicy, key: &str) -> Vec<Problem> {
    let problem = |finding: &crate::api::Invalid| Problem {
        kind: Kind::NetworkPolicy,
        key: key.into(),
        reason: finding.reason,
        message: finding.message.clone(),
    };
    policy.invalid.iter().map(problem).collect()
}

/// `IPv4`, as in names of address sets.
fn protocol_name(family: Family) -> String {
    format!("IPv{}", family.digit())
}

/// Name of the port group. Dashes become dots, which is not injective; of names that clash, with
/// those of other policies or with the groups of nodes, all but the nodes' get a hash suffix.
fn group_name(view: &View<'_>, policy: &NetworkPolicy, key: &str) -> String {
    let name = policy_port_group(&policy.name, &policy.namespace);
    let twins = || view.keys::<NetworkPolicy>(Index::PoliciesByGroupName, &name).count() > 1;
    let of_subnet_and_node = |(dot, _): (usize, &str)| {
        let mut nodes = view.keys::<Node>(Index::NodesByDottedName, &name[dot + 1..]);
        nodes.next().is_some()
            && view.keys::<Subnet>(Index::SubnetsByDottedName, &name[..dot]).next().is_some()
    };
    let reserved = ["node.", "ovn.sg."].iter().any(|prefix| name.starts_with(prefix));
    if reserved || twins() || name.match_indices('.').any(of_subnet_and_node) {
        return format!("{name}.{:08x}", keys::hash(key) as u32);
    }
    name
}

struct Builder<'v, 'a> {
    view: &'v View<'a>,
    policy: &'a NetworkPolicy,
    key: &'v str,
    /// Of the port group; names of the address sets begin with it.
    name: String,
    /// Of identities of rows, see [`realm`](super::realm).
    suffix: String,
    families: Vec<Family>,
    acls: Vec<RowKey>,
    facts: Vec<Fact>,
}

impl Builder<'_, '_> {
    fn finish(mut self) -> Vec<Fact> {
        let slot = format!("{}{}", self.policy.group, self.suffix);
        let key = RowKey::new(&nb::PORT_GROUP, FEATURE, self.key, &slot);
        let owner = format!("{}/{}", self.policy.namespace, named(&self.policy.name));
        let group = RowBuilder::new(&key)
            .set(nb::port_group::NAME, self.name)
            .map(nb::port_group::EXTERNAL_IDS, [("np", owner)])
            .elements(nb::port_group::ACLS, self.acls.into_iter().map(Element::Row))
            .contributed(nb::port_group::PORTS);
        self.facts.push(group.fact());
        self.facts
    }

    fn acl(&mut self, direction: Direction, id: &str, what: (i64, Action), text: (String, String)) {
        let (matching, name) = text;
        let (priority, action) = what;
        let log = match (action, self.policy.log) {
            (Action::Drop, PolicyLog::Drops | PolicyLog::DropsAndAllows) => Log::Warning,
            (_, PolicyLog::DropsAndAllows) => Log::Info,
            _ => Log::Off,
        };
        let id = format!("{}/acl/{id}{}", direction.name(), self.suffix);
        let acl = Acl {
            key: RowKey::new(&nb::ACL, FEATURE, self.key, &id),
            parent: self.name.clone(),
            direction,
            stage: Stage::AfterBalancing,
            tier: acl::TIER,
            priority,
            matching,
            action,
            name,
            log,
        };
        self.facts.push(acl.row());
        self.acls.push(acl.key);
    }

    /// What no rule of any policy admits is dropped. ARP is not IP; neighbour discovery is
    /// admitted by OVN itself.
    fn isolate(&mut self, direction: Direction) {
        let members = acl::of_group(direction, &self.name);
        let matching = match self.policy.enforcement {
            Enforcement::Standard => format!("{members} && ip"),
            Enforcement::Lax => format!("{members} && ip && !icmp"),
        };
        let name = format!("{}/{}", self.policy.namespace, self.policy.name);
        let what = (priority::POLICY_DROP, Action::Drop);
        self.acl(direction, "drop", what, (matching, name));
    }

    fn rule(&mut self, direction: Direction, index: usize, rule: &PolicyRule) {
        for family in self.families.clone() {
            let mut matching = format!("{} && ip", acl::of_group(direction, &self.name));
            let everyone = rule.peers == Peers::Everyone;
            if everyone {
                matching += &family.digit().to_string();
            } else if rule.uses_peers(direction) {
                let set = self.peers(direction, index, rule, family);
                matching += &format!(" && {} == ${set}", acl::peer_field(direction, family));
            }
            let Some(ports) = &rule.ports else {
                self.allow(direction, index, family, ("all", matching));
                continue;
            };
            for port in ports {
                if let PortMatch::Named(protocol, name) = port {
                    self.named_port((direction, index, family), rule, (*protocol, name), &matching);
                } else if let Some(port) = acl::port_match(port) {
                    let matching = format!("{matching} && {port}");
                    self.allow(direction, index, family, (&port, matching));
                }
            }
        }
    }

    fn allow(&mut self, direction: Direction, index: usize, family: Family, what: (&str, String)) {
        let (id, matching) = what;
        let name = format!(
            "np/{}.{}/{}/{}/{index}",
            named(&self.policy.name),
            self.policy.namespace,
            direction.name(),
            protocol_name(family)
        );
        let id = format!("{index}/{}/{id}", family.digit());
        self.acl(direction, &id, (priority::POLICY_ALLOW, Action::AllowRelated), (matching, name));
    }

    /// The set of a rule's peers. Pods add themselves.
    fn peers(
        &mut self,
        direction: Direction,
        index: usize,
        rule: &PolicyRule,
        family: Family,
    ) -> String {
        let name =
            format!("{}.{}.allow.{}.{index}", self.name, direction.name(), protocol_name(family));
        let set = self.set(direction, &rule.slot, family, &name);
        if let Peers::Listed(blocks) = &rule.peers {
            for block in blocks.iter().filter(|b| b.family() == family) {
                self.facts.push(Fact::Member {
                    row: set.clone(),
                    column: nb::address_set::ADDRESSES,
                    element: Element::Atom(block.to_string().into()),
                });
            }
        }
        name
    }

    fn set(&mut self, direction: Direction, slot: &str, family: Family, name: &str) -> RowKey {
        let slot = format!("{slot}{}", self.suffix);
        let key = acl::set_key(FEATURE, self.key, &slot, family);
        let owner =
            format!("{}/{}/{}", self.policy.namespace, named(&self.policy.name), direction.name());
        let row = RowBuilder::new(&key)
            .set(nb::address_set::NAME, name)
            .map(nb::address_set::EXTERNAL_IDS, [("np", owner)])
            .contributed(nb::address_set::ADDRESSES);
        self.facts.push(row.fact());
        key
    }

    /// A name may mean another number on each pod: for each number that pods in reach give to it,
    /// the set of those pods and a rule to them. A name that no pod has admits nothing.
    fn named_port(
        &mut self,
        place: (Direction, usize, Family),
        rule: &PolicyRule,
        port: (Protocol, &str),
        matching: &str,
    ) {
        let ((direction, index, family), (protocol, name)) = (place, port);
        let slot =
            NetworkPolicy::named_slot(&self.policy.group, &rule.slot, direction, protocol, name);
        let bucket = port_bucket(self.policy.named_in(direction), protocol, name);
        let numbers: BTreeSet<&str> =
            self.view.values::<Pod>(Index::PortNumbers, &bucket).map(|n| &**n).collect();
        for number in numbers {
            let of_rule = match direction {
                // The selected pods, whatever the rule.
                Direction::Ingress => String::new(),
                Direction::Egress => format!("{index}."),
            };
            let set = format!(
                "{}.{}.named.{}.{of_rule}{protocol}.{}.{number}",
                self.name,
                direction.name(),
                protocol_name(family),
                dotted(name)
            );
            self.set(direction, &format!("{slot}/{number}"), family, &set);
            let matching = format!(
                "{matching} && {} == ${set} && {protocol}.dst == {number}",
                field(family, "dst")
            );
            let id = format!("{protocol}/{name}/{number}");
            self.allow(direction, index, family, (&id, matching));
        }
    }
}

/// Upstream puts `np` before names that do not begin with a letter.
fn named(policy: &str) -> String {
    if policy.starts_with(|c: char| c.is_ascii_alphabetic()) {
        policy.to_owned()
    } else {
        format!("np{policy}")
    }
}
