//! What policies are made of: selectors that pods look themselves up by, rules, ports.
//!
//! A policy does not list its pods. Each selector in it is a [`Selection`]: who matches puts its
//! port or its addresses into the row named by the selection's slot. A pod finds the selections
//! that may match it by index ([`Selection::hints`], [`pod_hints`]), so an event of a pod costs
//! what concerns that pod, however many policies and pods there are.

use std::fmt::{self, Debug};

use crate::net::Cidr;

use super::{Index, Invalid, Kind, Map, Object, Operator, Pod, PodLife, Selector, Text};

/// Transport protocols of policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// `TCP` by default, as in Kubernetes; `None` for names that it does not know.
    pub fn parse(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("" | "TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some("SCTP") => Some(Protocol::Sctp),
            Some(_) => None,
        }
    }
}

/// As OVN writes it: `tcp`.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// A container port with a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPort {
    pub name: Text,
    pub protocol: Protocol,
    pub number: u16,
}

/// Ports that a rule admits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortMatch {
    /// Every port of the protocol.
    All(Protocol),
    One(Protocol, u16),
    /// Inclusive.
    Range(Protocol, u16, u16),
    /// A container port of the destination pod; it may have another number on each pod.
    Named(Protocol, Text),
}

/// Seen from the pods that the policy is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    pub fn name(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}

/// Namespaces in which a selection looks for pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    Namespace(Text),
    Namespaces(Selector),
}

/// What a pod that matches gives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gives {
    /// Its ports, to the port group `slot`.
    Port,
    /// Its addresses, to the address set `slot/<4|6>`.
    Addresses,
    /// The same, and the cluster IPs of its Services where those are not balanced on the switch.
    AddressesAndServices,
    /// Its addresses, to the address set `slot/<number>/<4|6>`, if it has a port of that name.
    AddressesOf(Protocol, Text),
}

/// One selector of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    pub scope: Scope,
    pub pods: Selector,
    /// Only addresses in these blocks, when given.
    pub within: Option<Vec<Cidr>>,
    /// Discriminator of the row that takes what is given. It names the selectors that fill the row,
    /// so a policy whose selectors change gets a new row, filled and put in place of the old one
    /// by one transaction: no packet meets new rules with old members.
    pub slot: Text,
    pub gives: Gives,
}

/// Objects that select pods.
pub trait Selecting: Object {
    fn selections(&self) -> &[Selection];
    /// Where the pods are that it is about; `None` is anywhere.
    fn namespace(&self) -> Option<&str>;
}

impl Selection {
    pub fn matches(&self, pod: &Pod, namespace_labels: Option<&Map>) -> bool {
        let scope = match &self.scope {
            Scope::Namespace(name) => *name == pod.namespace,
            // A namespace that is not known yet matches nothing.
            Scope::Namespaces(selector) => namespace_labels.is_some_and(|l| selector.matches(l)),
        };
        scope && self.pods.matches(&pod.labels)
    }

    /// Values of [`Index::Selections`]: a pod that matches has at least one of them among its
    /// [`pod_hints`].
    pub fn hints(&self) -> Vec<Text> {
        let labels = required(&self.pods);
        let texts: Vec<String> = match (&self.scope, labels) {
            (Scope::Namespace(name), Some(labels)) => {
                labels.into_iter().map(|label| format!("{name} {label}")).collect()
            }
            (Scope::Namespace(name), None) => vec![name.to_string()],
            (Scope::Namespaces(_), Some(labels)) => {
                labels.into_iter().map(|label| format!("pod {label}")).collect()
            }
            (Scope::Namespaces(selector), None) => match required(selector) {
                Some(labels) => labels.into_iter().map(|l| format!("namespace {l}")).collect(),
                None => vec![String::new()],
            },
        };
        texts.into_iter().map(Text::from).collect()
    }
}

/// `key=value` pairs of which a match has one; `None` when no value is required.
fn required(selector: &Selector) -> Option<Vec<String>> {
    if let Some((key, value)) = selector.labels.first_key_value() {
        return Some(vec![format!("{key}={value}")]);
    }
    let listed = selector.expressions.iter().find(|r| r.operator == Operator::In)?;
    Some(listed.values.iter().map(|value| format!("{}={value}", listed.key)).collect())
}

/// Values of [`Index::Selections`] under which every selection that matches the pod is found.
pub fn pod_hints(pod: &Pod, namespace_labels: Option<&Map>) -> Vec<String> {
    let mut hints = vec![String::new(), pod.namespace.to_string()];
    for (key, value) in &pod.labels {
        hints.push(format!("{} {key}={value}", pod.namespace));
        hints.push(format!("pod {key}={value}"));
    }
    let labels = namespace_labels.into_iter().flatten();
    hints.extend(labels.map(|(key, value)| format!("namespace {key}={value}")));
    hints
}

/// Index entries of an object that selects pods.
pub fn selection_buckets(selections: &[Selection]) -> Vec<(Index, Text)> {
    let mut buckets: Vec<(Index, Text)> =
        selections.iter().flat_map(Selection::hints).map(|h| (Index::Selections, h)).collect();
    buckets.sort();
    buckets.dedup();
    buckets
}

/// Bucket of [`Index::PortNumbers`]; of one namespace or of all.
pub fn port_bucket(namespace: Option<&str>, protocol: Protocol, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{namespace} {protocol}/{name}"),
        None => format!("{protocol}/{name}"),
    }
}

/// Numbers that a pod gives to port names.
pub fn port_facets(pod: &Pod) -> Vec<(Index, Text, Text)> {
    if pod.host_network || pod.life == PodLife::Ended {
        return Vec::new();
    }
    let of = |port: &NamedPort| {
        [Some(&*pod.namespace), None].map(|namespace| {
            let bucket = port_bucket(namespace, port.protocol, &port.name);
            (Index::PortNumbers, bucket.into(), port.number.to_string().into())
        })
    };
    pod.ports.iter().flat_map(of).collect()
}

/// 64 bits of SHA-256.
pub fn fingerprint(text: &str) -> u64 {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(text.as_bytes());
    digest.iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b))
}

/// A short name for a value, the same wherever it is equal.
pub fn fingerprint_of(value: &impl Debug) -> String {
    format!("{:016x}", fingerprint(&format!("{value:?}")))
}

/// Who a rule is about, beside the pods that select themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// `from` and `to` are empty or missing.
    Everyone,
    /// Blocks without their exceptions.
    Listed(Vec<Cidr>),
}

/// An ingress or egress rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// `<direction>/<index>/<fingerprint of the peers>`.
    pub slot: Text,
    pub peers: Peers,
    /// `None`: all traffic. An empty list admits nothing: every port of it was refused.
    pub ports: Option<Vec<PortMatch>>,
}

impl PolicyRule {
    /// Whether the rule needs the set of all its peers. Named ports of destinations have sets of
    /// their own.
    pub fn uses_peers(&self, direction: Direction) -> bool {
        let all_named = self
            .ports
            .as_ref()
            .is_some_and(|p| p.iter().all(|p| matches!(p, PortMatch::Named(..))));
        self.peers != Peers::Everyone && !(direction == Direction::Egress && all_named)
    }
}

/// Annotations `enable_log` and `log_acl_actions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyLog {
    Off,
    Drops,
    DropsAndAllows,
}

/// Annotation `network_policy_enforcement`, of which the manual of v1.14 says nothing: lax takes
/// away as little of the isolation as the word can mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcement {
    /// What no rule admits is dropped.
    Standard,
    /// ICMP is not.
    Lax,
}

/// A networking.k8s.io/v1 NetworkPolicy. What is wrong in it is left out: a rule admits less, an
/// isolated direction stays isolated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    pub namespace: Text,
    pub name: Text,
    /// Slot of the port group of the selected pods.
    pub group: Text,
    /// `None`: the direction is not isolated.
    pub ingress: Option<Vec<PolicyRule>>,
    pub egress: Option<Vec<PolicyRule>>,
    pub log: PolicyLog,
    pub enforcement: Enforcement,
    pub selections: Vec<Selection>,
    pub invalid: Vec<Invalid>,
}

impl NetworkPolicy {
    pub fn rules(&self, direction: Direction) -> Option<&[PolicyRule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// Namespace of the pods whose ports a rule of the direction names; `None` is all.
    pub fn named_in(&self, direction: Direction) -> Option<&str> {
        (direction == Direction::Ingress).then_some(&*self.namespace)
    }

    /// Slot of the pods that have a named port: the selected pods, or the peers of an egress rule.
    pub fn named_slot(
        group: &str,
        rule: &str,
        direction: Direction,
        protocol: Protocol,
        name: &str,
    ) -> String {
        let pods = match direction {
            Direction::Ingress => group,
            Direction::Egress => rule,
        };
        format!("{pods}/{protocol}/{name}")
    }
}

impl Object for NetworkPolicy {
    const KIND: Kind = Kind::NetworkPolicy;

    fn key(&self) -> Text {
        format!("{}/{}", self.namespace, self.name).into()
    }

    fn buckets(&self) -> Vec<(Index, Text)> {
        let name = super::names::policy_port_group(&self.name, &self.namespace);
        let mut buckets = vec![(Index::PoliciesByGroupName, name.into())];
        buckets.extend(selection_buckets(&self.selections));
        buckets
    }

    fn facets(&self) -> Vec<(Index, Text, Text)> {
        vec![(Index::Presence, "".into(), "".into())]
    }
}

impl Selecting for NetworkPolicy {
    fn selections(&self) -> &[Selection] {
        &self.selections
    }

    fn namespace(&self) -> Option<&str> {
        Some(&self.namespace)
    }
}
