use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;

use crate::{
    api::{
        AdminAction, AdminNetworkPolicy, AdminPeers, AdminPolicy, AdminRule,
        BaselineAdminNetworkPolicy, Invalid, Selector, Text,
        admin_raw::{self as raw, Namespaces, Pods, Subject},
        names::annotation,
        policy::{Direction, Gives, PortMatch, Protocol, Scope, Selection, fingerprint_of},
        selectors::parse_selector,
    },
    net::Cidr,
};

use super::{
    findings::{Findings, reason},
    items,
};

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
const OLD: &str = "is of network-policy-api before v0.1.2; install its CRDs v0.1.2 or later";
/// ACL priorities leave room for so many.
const MAX_RULES: usize = 100;

/// An AdminNetworkPolicy, or why it cannot be enforced at all; the last version that could stays in
/// force then.
pub fn parse_admin_network_policy(
    object: &raw::AdminNetworkPolicy,
) -> Result<AdminNetworkPolicy, Vec<Invalid>> {
    let mut found = Findings::new(reason::ADMIN_POLICY);
    let spec = &object.spec;
    if !(0..=1000).contains(&spec.priority) {
        found.refuse("spec.priority", spec.priority, "write 0 to 1000, 0 comes first");
    }
    let rules = (&spec.ingress[..], &spec.egress[..]);
    let actions = [AdminAction::Allow, AdminAction::Deny, AdminAction::Pass];
    let policy = policy(object, &spec.subject, rules, &actions, found)?;
    let policy = AdminNetworkPolicy { priority: spec.priority, policy };
    let mut found = Findings::new(reason::ADMIN_POLICY);
    for direction in Direction::BOTH {
        if policy.steps(direction) > AdminNetworkPolicy::STEPS && spec.priority >= 100 {
            let remedy = format!(
                "actions of its {} rules change more than {} times, which only priorities under \
                 100 have room for; choose one, or put rules of the same action together",
                direction.name(),
                AdminNetworkPolicy::STEPS - 1
            );
            found.refuse("spec.priority", spec.priority, remedy);
        }
    }
    found.or(policy)
}

/// A BaselineAdminNetworkPolicy, or why it cannot be enforced at all.
pub fn parse_baseline_admin_network_policy(
    object: &raw::BaselineAdminNetworkPolicy,
) -> Result<BaselineAdminNetworkPolicy, Vec<Invalid>> {
    let mut found = Findings::new(reason::ADMIN_POLICY);
    if object.name_any() != "default" {
        found.refuse("metadata.name", object.name_any(), "the only one is named default");
    }
    let rules = (&object.spec.ingress[..], &object.spec.egress[..]);
    let actions = [AdminAction::Allow, AdminAction::Deny];
    let policy = policy(object, &object.spec.subject, rules, &actions, found)?;
    Ok(BaselineAdminNetworkPolicy { policy })
}

fn policy(
    object: &impl ResourceExt,
    subject: &Subject,
    rules: (&[raw::Rule], &[raw::Rule]),
    actions: &[AdminAction],
    mut found: Findings,
) -> Result<AdminPolicy, Vec<Invalid>> {
    for (field, list) in [("spec.ingress", rules.0), ("spec.egress", rules.1)] {
        if list.len() > MAX_RULES {
            found.refuse(
                field,
                list.len(),
                format!("at most {MAX_RULES} rules; make two policies"),
            );
        }
    }
    let subject = subject_of(&mut found, subject);
    let Some(subject) = subject else { return Err(found.into_list()) };
    found.or(())?;
    let mut found = Findings::new(reason::ADMIN_POLICY);
    let group: Text = format!("group/{}", fingerprint_of(&subject)).into();
    let mut selections = vec![selection(&subject, &group, Gives::Port)];
    let mut nodes = Vec::new();
    let mut all = |direction, list: &[raw::Rule]| {
        let mut reader = Reader {
            found: &mut found,
            subject: &subject,
            group: &group,
            direction,
            actions,
            selections: &mut selections,
            nodes: &mut nodes,
        };
        let rules = list.iter().enumerate();
        rules.filter_map(|(index, rule)| reader.rule(index, rule)).collect::<Vec<_>>()
    };
    let (ingress, egress) = (all(Direction::Ingress, rules.0), all(Direction::Egress, rules.1));
    Ok(AdminPolicy {
        name: object.name_any().into(),
        group,
        ingress,
        egress,
        log: log(object.annotations()),
        selections,
        nodes,
        invalid: found.into_list(),
    })
}

/// Namespaces and pods in them.
type Who = (Selector, Selector);

fn selection((namespaces, pods): &Who, slot: &str, gives: Gives) -> Selection {
    Selection {
        scope: Scope::Namespaces(namespaces.clone()),
        pods: pods.clone(),
        within: None,
        slot: slot.into(),
        gives,
    }
}

fn selector(found: &mut Findings, field: &str, raw: &LabelSelector) -> Option<Selector> {
    parse_selector(raw).map_err(|e| found.refuse(field, "", e)).ok()
}

fn namespaces(found: &mut Findings, field: &str, raw: &Namespaces) -> Option<Who> {
    if raw.namespace_selector.is_some()
        || raw.same_labels.is_some()
        || raw.not_same_labels.is_some()
    {
        found.refuse(field, "namespaceSelector, sameLabels, notSameLabels", OLD);
        return None;
    }
    let selector_of = LabelSelector {
        match_labels: raw.match_labels.clone(),
        match_expressions: raw.match_expressions.clone(),
    };
    Some((selector(found, field, &selector_of)?, Selector::default()))
}

fn pods(found: &mut Findings, field: &str, raw: &Pods) -> Option<Who> {
    if raw.namespaces.is_some() {
        found.refuse(field, "namespaces", OLD);
        return None;
    }
    let mut part = |name: &str, raw: &Option<LabelSelector>| {
        let field = format!("{field}.{name}");
        selector(found, &field, raw.as_ref().unwrap_or(&LabelSelector::default()))
    };
    let namespaces = part("namespaceSelector", &raw.namespace_selector);
    Some((namespaces?, part("podSelector", &raw.pod_selector)?))
}

fn subject_of(found: &mut Findings, raw: &Subject) -> Option<Who> {
    match (&raw.namespaces, &raw.pods) {
        (Some(raw), None) => namespaces(found, "spec.subject.namespaces", raw),
        (None, Some(raw)) => pods(found, "spec.subject.pods", raw),
        _ => {
            found.refuse("spec.subject", "", "write either namespaces or pods");
            None
        }
    }
}

/// `allow`, `drop` and `pass` of the manual, and the names that OVN has for them: upstream compared
/// with those, so that the documented `allow` had no effect.
fn log(annotations: &BTreeMap<String, String>) -> Vec<AdminAction> {
    let list = annotations.get(annotation::LOG_ACL_ACTIONS).map_or("", String::as_str);
    let mut actions: Vec<AdminAction> = items(list)
        .filter_map(|item| match item {
            "allow" | "allow-related" => Some(AdminAction::Allow),
            "drop" => Some(AdminAction::Deny),
            "pass" => Some(AdminAction::Pass),
            _ => None,
        })
        .collect();
    actions.sort();
    actions.dedup();
    actions
}

/// Reads the rules of one direction and collects their selections.
struct Reader<'a> {
    found: &'a mut Findings,
    subject: &'a Who,
    group: &'a Text,
    direction: Direction,
    actions: &'a [AdminAction],
    selections: &'a mut Vec<Selection>,
    nodes: &'a mut Vec<(Selector, Text)>,
}

/// Peers of one rule.
#[derive(Debug, Default)]
struct Listed {
    pods: Vec<Who>,
    nodes: Vec<Selector>,
    networks: Vec<Cidr>,
}

impl Reader<'_> {
    /// `None` for a rule whose action is not known: nothing says what it would have done.
    fn rule(&mut self, index: usize, raw: &raw::Rule) -> Option<AdminRule> {
        let (peers, end) = match self.direction {
            Direction::Ingress => (&raw.from, "from"),
            Direction::Egress => (&raw.to, "to"),
        };
        let field = format!("spec.{}[{index}]", self.direction.name());
        let action = self.action(&field, &raw.action)?;
        let mut listed = Listed::default();
        let mut readable = !peers.is_empty();
        if peers.is_empty() {
            self.found.refuse(&format!("{field}.{end}"), "[]", "name at least one peer");
        }
        for (n, peer) in peers.iter().enumerate() {
            readable &= self.peer(&format!("{field}.{end}[{n}]"), peer, &mut listed).is_some();
        }
        let ports = raw.ports.as_ref().and_then(|ports| {
            let read = ports.iter().enumerate();
            let read: Vec<Option<Vec<PortMatch>>> =
                read.map(|(n, port)| self.port(&format!("{field}.ports[{n}]"), port)).collect();
            // A rule that denies denies every port when one of its ports cannot be read.
            let widened = action == AdminAction::Deny && read.iter().any(Option::is_none);
            (!widened).then(|| read.into_iter().flatten().flatten().collect())
        });
        // A Deny whose peers cannot be read means all that they could be: to the subject any pod,
        // never the node that probes it, for only pods are peers there; from it anybody.
        let widened = action == AdminAction::Deny && !readable;
        let everyone = widened && self.direction == Direction::Egress;
        if widened && !everyone {
            listed.pods = vec![Who::default()];
        }
        let slot = format!("{}/{index}/{}", self.direction.name(), fingerprint_of(&listed));
        let rule = AdminRule {
            slot: slot.into(),
            name: raw.name.as_str().into(),
            action,
            peers: if everyone {
                AdminPeers::Everyone
            } else {
                AdminPeers::Set(listed.networks.clone())
            },
            ports,
        };
        self.select(&rule, listed);
        Some(rule)
    }

    fn action(&mut self, field: &str, name: &str) -> Option<AdminAction> {
        let action = match name {
            "Allow" => AdminAction::Allow,
            "Deny" => AdminAction::Deny,
            "Pass" => AdminAction::Pass,
            _ => {
                self.found.refuse(&format!("{field}.action"), name, "write Allow, Deny or Pass");
                return None;
            }
        };
        if !self.actions.contains(&action) {
            let remedy = "there is nothing after a baseline policy; write Allow or Deny";
            self.found.refuse(&format!("{field}.action"), name, remedy);
            return None;
        }
        Some(action)
    }

    /// Everything that fills the sets of the rule.
    fn select(&mut self, rule: &AdminRule, listed: Listed) {
        let named = rule.ports.iter().flatten().filter_map(|port| match port {
            PortMatch::Named(protocol, name) => Some((*protocol, name.clone())),
            _ => None,
        });
        let mut add = |who: &Who, slot: &str, gives: Gives| {
            let selection = selection(who, slot, gives);
            if !self.selections.contains(&selection) {
                self.selections.push(selection);
            }
        };
        let everybody = || vec![Who::default()];
        for (protocol, name) in named {
            let port = format!("{protocol}/{name}");
            let gives = || Gives::AddressesOf(protocol, name.clone());
            match self.direction {
                Direction::Ingress => add(self.subject, &format!("{}/{port}", self.group), gives()),
                Direction::Egress => {
                    let everyone = rule.peers == AdminPeers::Everyone;
                    let peers = if everyone { everybody() } else { listed.pods.clone() };
                    for who in &peers {
                        add(who, &format!("{}/{port}", rule.slot), gives());
                    }
                }
            }
        }
        for who in &listed.pods {
            add(who, &rule.slot, Gives::Addresses);
        }
        self.nodes.extend(listed.nodes.into_iter().map(|nodes| (nodes, rule.slot.clone())));
    }

    /// `None` for a peer that cannot be read.
    fn peer(&mut self, field: &str, peer: &raw::Peer, listed: &mut Listed) -> Option<()> {
        let given = [
            peer.namespaces.is_some(),
            peer.pods.is_some(),
            peer.nodes.is_some(),
            peer.networks.is_some(),
            peer.domain_names.is_some(),
        ];
        if given.iter().filter(|given| **given).count() != 1 {
            self.found.refuse(field, "", "write one of namespaces, pods, nodes, networks");
            return None;
        }
        let egress_only = peer.nodes.is_some() || peer.networks.is_some();
        if egress_only && self.direction == Direction::Ingress {
            self.found.refuse(
                field,
                "nodes, networks",
                "are peers of egress rules; use namespaces",
            );
            return None;
        }
        if let Some(raw) = &peer.namespaces {
            listed.pods.push(namespaces(self.found, &format!("{field}.namespaces"), raw)?);
        }
        if let Some(raw) = &peer.pods {
            listed.pods.push(pods(self.found, &format!("{field}.pods"), raw)?);
        }
        if let Some(raw) = &peer.nodes {
            listed.nodes.push(selector(self.found, &format!("{field}.nodes"), raw)?);
        }
        if let Some(names) = &peer.domain_names {
            let remedy = "names are not resolved; list their addresses as networks";
            self.found.refuse(&format!("{field}.domainNames"), names.join(","), remedy);
            return None;
        }
        let mut readable = Some(());
        for network in peer.networks.iter().flatten() {
            let field = format!("{field}.networks");
            match self.found.take(&field, network, network.parse::<Cidr>()) {
                Some(cidr) => listed.networks.push(cidr.network()),
                None => readable = None,
            }
        }
        readable
    }

    /// `None` for a port that cannot be read.
    fn port(&mut self, field: &str, port: &raw::Port) -> Option<Vec<PortMatch>> {
        let found = &mut *self.found;
        match (&port.port_number, &port.named_port, &port.port_range) {
            (Some(one), None, None) => {
                let field = format!("{field}.portNumber");
                let protocol = protocol(found, &field, one.protocol.as_deref());
                let number = number(found, &format!("{field}.port"), one.port);
                Some(vec![PortMatch::One(protocol?, number?)])
            }
            (None, Some(name), None) if !name.is_empty() => {
                let name: Text = name.as_str().into();
                Some(PROTOCOLS.map(|protocol| PortMatch::Named(protocol, name.clone())).to_vec())
            }
            (None, None, Some(range)) => {
                let field = format!("{field}.portRange");
                let protocol = protocol(found, &field, range.protocol.as_deref());
                let start = number(found, &format!("{field}.start"), range.start);
                let end = number(found, &format!("{field}.end"), range.end);
                let (protocol, start, end) = (protocol?, start?, end?);
                if start > end {
                    found.refuse(&format!("{field}.end"), end, "write one not below start");
                    return None;
                }
                Some(vec![PortMatch::Range(protocol, start, end)])
            }
            _ => {
                found.refuse(field, "", "write one of portNumber, namedPort, portRange");
                None
            }
        }
    }
}

fn protocol(found: &mut Findings, field: &str, name: Option<&str>) -> Option<Protocol> {
    let protocol = Protocol::parse(name);
    if protocol.is_none() {
        let field = format!("{field}.protocol");
        found.refuse(&field, name.unwrap_or_default(), "write TCP, UDP or SCTP");
    }
    protocol
}

fn number(found: &mut Findings, field: &str, value: i64) -> Option<u16> {
    let number = u16::try_from(value).ok().filter(|number| *number > 0);
    if number.is_none() {
        found.refuse(field, value, "write a port from 1 to 65535");
    }
    number
}
