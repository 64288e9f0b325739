use std::collections::BTreeMap;

use k8s_openapi::{
    api::networking::v1 as networking,
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::ResourceExt;

use crate::{
    api::{
        NetworkPolicy, Selector, Text,
        names::annotation,
        policy::{
            Direction, Enforcement, Gives, Peers, PolicyLog, PolicyRule, PortMatch, Protocol,
            Scope, Selection, fingerprint_of,
        },
        selectors::parse_selector,
    },
    net::Cidr,
};

use super::{
    findings::{Findings, reason},
    items, text,
};

/// A NetworkPolicy with its findings inside. An invalid peer or port is left out, which admits
/// less; an invalid podSelector selects every pod of the namespace.
pub fn parse_network_policy(raw: &networking::NetworkPolicy) -> NetworkPolicy {
    let spec = raw.spec.clone().unwrap_or_default();
    let mut found = Findings::new(reason::POLICY);
    let namespace = text(raw.metadata.namespace.as_ref());
    let subject = spec.pod_selector.as_ref();
    let subject =
        subject.and_then(|s| selector(&mut found, "spec.podSelector", s)).unwrap_or_default();
    let group: Text = format!("group/{}", fingerprint_of(&subject)).into();
    let own = |gives, slot: &str| Selection {
        scope: Scope::Namespace(namespace.clone()),
        pods: subject.clone(),
        within: None,
        slot: slot.into(),
        gives,
    };
    let isolates = isolation(&mut found, &spec);
    let mut selections = vec![own(Gives::Port, &group)];
    let mut rules_of = |direction: Direction| {
        let mut reader = Reader {
            found: &mut found,
            namespace: &namespace,
            group: &group,
            direction,
            selections: &mut selections,
            own: &own,
        };
        let rules = spec_rules(&spec, direction);
        isolates.contains(&direction).then(|| {
            rules
                .iter()
                .enumerate()
                .map(|(n, (peers, ports))| reader.rule(n, peers, ports))
                .collect()
        })
    };
    let (ingress, egress) = (rules_of(Direction::Ingress), rules_of(Direction::Egress));
    let annotations = raw.annotations();
    NetworkPolicy {
        name: raw.name_any().into(),
        group: group.clone(),
        ingress,
        egress,
        log: log(annotations),
        enforcement: enforcement(&mut found, annotations),
        selections,
        invalid: found.into_list(),
        namespace: namespace.clone(),
    }
}

type RawRule<'a> = (&'a [networking::NetworkPolicyPeer], &'a [networking::NetworkPolicyPort]);

fn spec_rules(spec: &networking::NetworkPolicySpec, direction: Direction) -> Vec<RawRule<'_>> {
    match direction {
        Direction::Ingress => {
            let rules = spec.ingress.iter().flatten();
            rules.map(|r| (all(&r.from), all(&r.ports))).collect()
        }
        Direction::Egress => {
            let rules = spec.egress.iter().flatten();
            rules.map(|r| (all(&r.to), all(&r.ports))).collect()
        }
    }
}

fn all<T>(list: &Option<Vec<T>>) -> &[T] {
    list.as_deref().unwrap_or_default()
}

/// `policyTypes`, and without it ingress, and egress if there are egress rules.
fn isolation(found: &mut Findings, spec: &networking::NetworkPolicySpec) -> Vec<Direction> {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        let egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
        return if egress { Direction::BOTH.to_vec() } else { vec![Direction::Ingress] };
    }
    let parse = |name: &String| match name.as_str() {
        "Ingress" => Some(Direction::Ingress),
        "Egress" => Some(Direction::Egress),
        other => {
            found.refuse("spec.policyTypes", other, "write Ingress or Egress");
            None
        }
    };
    types.iter().filter_map(parse).collect()
}

fn selector(found: &mut Findings, field: &str, raw: &LabelSelector) -> Option<Selector> {
    parse_selector(raw).map_err(|e| found.refuse(field, "", e)).ok()
}

fn log(annotations: &BTreeMap<String, String>) -> PolicyLog {
    if annotations.get(annotation::ENABLE_LOG).map(String::as_str) != Some("true") {
        return PolicyLog::Off;
    }
    let actions = annotations.get(annotation::LOG_ACL_ACTIONS).map_or("", String::as_str);
    match items(actions).any(|action| action == "allow") {
        true => PolicyLog::DropsAndAllows,
        false => PolicyLog::Drops,
    }
}

fn enforcement(found: &mut Findings, annotations: &BTreeMap<String, String>) -> Enforcement {
    let field = annotation::NETWORK_POLICY_ENFORCEMENT;
    match annotations.get(field).map(|v| v.trim()) {
        Some("lax") => Enforcement::Lax,
        None | Some("" | "standard") => Enforcement::Standard,
        Some(other) => {
            found.refuse(field, other, "write standard or lax; standard is assumed");
            Enforcement::Standard
        }
    }
}

/// Reads the rules of one direction and collects their selections.
struct Reader<'a> {
    found: &'a mut Findings,
    namespace: &'a Text,
    group: &'a Text,
    direction: Direction,
    selections: &'a mut Vec<Selection>,
    /// A selection of the pods that the policy is about.
    own: &'a dyn Fn(Gives, &str) -> Selection,
}

/// Peers of one rule.
#[derive(Debug, Default)]
struct Listed {
    pods: Vec<(Scope, Selector)>,
    blocks: Vec<Cidr>,
}

impl Reader<'_> {
    fn rule(
        &mut self,
        index: usize,
        peers: &[networking::NetworkPolicyPeer],
        ports: &[networking::NetworkPolicyPort],
    ) -> PolicyRule {
        let (direction, ends) = match self.direction {
            Direction::Ingress => ("ingress", "from"),
            Direction::Egress => ("egress", "to"),
        };
        let mut listed = Listed::default();
        for (n, peer) in peers.iter().enumerate() {
            let field = format!("spec.{direction}[{index}].{ends}[{n}]");
            self.peer(&field, peer, &mut listed);
        }
        listed.blocks.sort();
        listed.blocks.dedup();
        let mut matches = Vec::new();
        for (n, port) in ports.iter().enumerate() {
            let field = format!("spec.{direction}[{index}].ports[{n}]");
            matches.extend(self.port(&field, port));
        }
        matches.sort();
        matches.dedup();
        let slot = format!("{direction}/{index}/{}", fingerprint_of(&(peers.is_empty(), &listed)));
        let everyone = peers.is_empty();
        let rule = PolicyRule {
            peers: if everyone { Peers::Everyone } else { Peers::Listed(listed.blocks.clone()) },
            ports: (!ports.is_empty()).then_some(matches),
            slot: slot.into(),
        };
        self.select(&rule, listed);
        rule
    }

    fn select(&mut self, rule: &PolicyRule, listed: Listed) {
        let gives = |gives: Gives, slot: &str, within: Option<&[Cidr]>, who: (Scope, Selector)| {
            let (scope, pods) = who;
            Selection { scope, pods, within: within.map(<[_]>::to_vec), slot: slot.into(), gives }
        };
        if rule.uses_peers(self.direction) {
            let peers = match self.direction {
                Direction::Ingress => Gives::Addresses,
                Direction::Egress => Gives::AddressesAndServices,
            };
            let all = listed.pods.iter().cloned();
            self.selections.extend(all.map(|who| gives(peers.clone(), &rule.slot, None, who)));
        }
        for port in rule.ports.iter().flatten() {
            let PortMatch::Named(protocol, name) = port else { continue };
            let slot =
                NetworkPolicy::named_slot(self.group, &rule.slot, self.direction, *protocol, name);
            let named = Gives::AddressesOf(*protocol, name.clone());
            if self.direction == Direction::Ingress {
                let own = (self.own)(named, &slot);
                if !self.selections.contains(&own) {
                    self.selections.push(own);
                }
                continue;
            }
            let anybody = || (Scope::Namespaces(Selector::default()), Selector::default());
            if rule.peers == Peers::Everyone {
                self.selections.push(gives(named, &slot, None, anybody()));
                continue;
            }
            for who in &listed.pods {
                self.selections.push(gives(named.clone(), &slot, None, who.clone()));
            }
            if !listed.blocks.is_empty() {
                self.selections.push(gives(named, &slot, Some(&listed.blocks), anybody()));
            }
        }
    }

    fn peer(&mut self, field: &str, peer: &networking::NetworkPolicyPeer, listed: &mut Listed) {
        let (namespaces, pods) = (&peer.namespace_selector, &peer.pod_selector);
        if let Some(block) = &peer.ip_block {
            if namespaces.is_some() || pods.is_some() {
                let remedy = "stands beside a selector; write two peers";
                return self.found.refuse(&format!("{field}.ipBlock"), &block.cidr, remedy);
            }
            return listed.blocks.extend(self.block(field, block));
        }
        if namespaces.is_none() && pods.is_none() {
            let remedy = "names nobody; write ipBlock, namespaceSelector or podSelector";
            return self.found.refuse(field, "{}", remedy);
        }
        let scope = match namespaces {
            None => Scope::Namespace(self.namespace.clone()),
            Some(raw) => {
                let field = format!("{field}.namespaceSelector");
                let Some(selector) = selector(self.found, &field, raw) else { return };
                Scope::Namespaces(selector)
            }
        };
        let pods = match pods {
            None => Selector::default(),
            Some(raw) => {
                let field = format!("{field}.podSelector");
                let Some(selector) = selector(self.found, &field, raw) else { return };
                selector
            }
        };
        listed.pods.push((scope, pods));
    }

    /// The block without its exceptions; nothing when one of them cannot be read.
    fn block(&mut self, field: &str, block: &networking::IPBlock) -> Vec<Cidr> {
        let name = format!("{field}.ipBlock.cidr");
        let cidr = self.found.take(&name, &block.cidr, block.cidr.parse::<Cidr>());
        let mut holes = Vec::new();
        let mut readable = true;
        for except in block.except.iter().flatten() {
            let name = format!("{field}.ipBlock.except");
            match self.found.take(&name, except, except.parse::<Cidr>()) {
                Some(hole) => holes.push(hole.network()),
                None => readable = false,
            }
        }
        cidr.filter(|_| readable).map(|cidr| cidr.without(&holes)).unwrap_or_default()
    }

    fn port(&mut self, field: &str, port: &networking::NetworkPolicyPort) -> Option<PortMatch> {
        let Some(protocol) = Protocol::parse(port.protocol.as_deref()) else {
            let name = port.protocol.as_deref().unwrap_or_default();
            self.found.refuse(&format!("{field}.protocol"), name, "write TCP, UDP or SCTP");
            return None;
        };
        let found = &mut *self.found;
        let mut number = |part: &str, value: i32| match u16::try_from(value) {
            Ok(number) if number > 0 => Some(number),
            _ => {
                found.refuse(&format!("{field}.{part}"), value, "write a port from 1 to 65535");
                None
            }
        };
        match (&port.port, port.end_port) {
            (None, None) => Some(PortMatch::All(protocol)),
            (Some(IntOrString::String(name)), None) => {
                Some(PortMatch::Named(protocol, name.as_str().into()))
            }
            (Some(IntOrString::Int(first)), None) => {
                number("port", *first).map(|first| PortMatch::One(protocol, first))
            }
            (Some(IntOrString::Int(first)), Some(last)) => {
                let (first, last) = (number("port", *first)?, number("endPort", last)?);
                if first > last {
                    found.refuse(&format!("{field}.endPort"), last, "write one not below port");
                    return None;
                }
                Some(PortMatch::Range(protocol, first, last))
            }
            (_, Some(last)) => {
                found.refuse(&format!("{field}.endPort"), last, "give port as a number");
                None
            }
        }
    }
}
