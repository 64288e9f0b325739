//! Which addresses are in use, heard from more than the records when a controller begins to lead.
//!
//! A record that somebody edited while nobody led (or that lost its finalizer, or is gone) must not
//! free the address that its pod goes on using. Three witnesses know it: the record, the port in
//! the northbound database, and the annotations that the pod was set up by. The port is what
//! packets meet, so it counts; but when record and annotations agree it is the port that somebody
//! changed, or that an old backup brought back. A record against annotations alone stands: users
//! may write annotations of their pods, and must not take an address by that.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use crate::{
    api::{
        Ip, Kind, Map, Node, Pod, PodLife, Settings, Text,
        names::{self, label, provider_key, suffix},
    },
    ipam::Record,
    net::{DualStack, Mac},
    ovn::placement,
    ovsdb::{
        datum::{Atom, Datum},
        replica::{Replica, Row},
        schema::nb,
    },
    store::{Store, watch::SeenMap},
};

use super::{Claimant, claimant_of};

/// What a witness says of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Testimony {
    /// Not said by annotations of networks that are not OVN's.
    pub subnet: Option<Text>,
    pub addresses: DualStack<IpAddr>,
    pub mac: Option<Mac>,
}

/// What follows for the ledger.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Records to be put right: they exist, and should say this.
    pub restored: Vec<Ip>,
    /// Addresses in use without a record.
    pub held: Vec<Record>,
    /// Contradictions that nobody can resolve.
    pub conflicts: Vec<String>,
}

/// Ports of ours in the database, by name, which is that of their record.
pub fn ports(replica: &Replica) -> HashMap<Text, Testimony> {
    use nb::logical_switch_port as port;
    let testimony = |row: &Row| {
        row.id()?;
        let Datum::Set(texts) = row.get(port::ADDRESSES)? else { return None };
        let mut said = texts.iter().filter_map(|atom| match atom {
            Atom::Text(text) => parse_port_addresses(text),
            _ => None,
        });
        let (mac, addresses) = said.next()?;
        let subnet = row.entry(port::EXTERNAL_IDS, "ls").map(|name| Text::from(&**name));
        let name = Text::from(&**row.text(port::NAME)?);
        Some((name, Testimony { subnet, addresses, mac: Some(mac) }))
    };
    replica.rows(&nb::LOGICAL_SWITCH_PORT).filter_map(testimony).collect()
}

/// `<mac> <address>...`.
pub fn parse_port_addresses(text: &str) -> Option<(Mac, DualStack<IpAddr>)> {
    let mut words = text.split_whitespace();
    let mac = words.next()?.parse().ok()?;
    let addresses: Vec<&str> = words.collect();
    let addresses = DualStack::parse_addresses(&addresses.join(",")).ok()?;
    Some((mac, addresses))
}

/// Somebody who uses a port now.
struct User {
    claimant: Claimant,
    namespace: Text,
    name: Text,
    pod_type: &'static str,
    annotated: Option<Testimony>,
}

/// Hears all witnesses. `seen` tells of records that cannot be read.
pub fn hear(store: &Store, seen: &SeenMap, ports: &HashMap<Text, Testimony>) -> Heard {
    let mut heard = Heard::default();
    let Some(settings) = store.get::<Settings>("") else { return heard };
    let mut rights: BTreeMap<Text, (Ip, Claimant)> = BTreeMap::new();
    for (port, user) in users(store, settings) {
        let record = store.get::<Ip>(&port);
        let truth = judge(record, ports.get(&port), user.annotated.as_ref());
        let right = truth.and_then(|truth| right_record(&port, &user, &truth, record, seen));
        if let Some(right) = right.filter(|right| record != Some(right)) {
            rights.insert(port, (right, user.claimant));
        }
    }
    let mut holders: HashMap<IpAddr, Vec<&Ip>> = HashMap::new();
    let records = store.iter::<Ip>().filter(|ip| ip.managed && !rights.contains_key(&ip.name));
    for ip in records.chain(rights.values().map(|(right, _)| right)) {
        ip.addresses.iter().for_each(|(_, a)| holders.entry(*a).or_default().push(ip));
    }
    for (port, (right, claimant)) in &rights {
        let others = right.addresses.iter().flat_map(|(_, a)| holders.get(a).into_iter().flatten());
        let other = others.into_iter().find(|ip| ip.subnet == right.subnet && ip.name != *port);
        if let Some(other) = other {
            heard.conflicts.push(format!(
                "IP {port}: its port uses {}, which IP {} has; delete one of their pods",
                right.addresses, other.name
            ));
        } else if store.contains(Kind::Ip, port) || seen.get(Kind::Ip, port).is_some() {
            heard.restored.push(right.clone());
        } else {
            heard.held.push(Record {
                owner: claimant.holder(),
                port: port.clone(),
                subnet: right.subnet.clone(),
                addresses: right.addresses,
                mac: right.mac,
            });
        }
    }
    heard
}

/// Ports in use, with whoever uses them.
fn users(store: &Store, settings: &Settings) -> BTreeMap<Text, User> {
    let mut users = BTreeMap::new();
    for pod in store.iter::<Pod>().filter(|p| !p.host_network && p.life != PodLife::Ended) {
        let machine = placement::virtual_machine(pod, settings);
        let name = machine.unwrap_or(&pod.name);
        let key: Text = format!("{}/{name}", pod.namespace).into();
        let (claimant, pod_type) = match machine {
            Some(_) => (Claimant::Machine(key), "VirtualMachine"),
            None if pod.stateful_set().is_some() => (Claimant::Pod(key), "StatefulSet"),
            None => (Claimant::Pod(key), ""),
        };
        for provider in providers(&pod.annotations) {
            let port: Text = names::port_name(name, &pod.namespace, provider).into();
            let annotated = annotated(&pod.annotations, provider);
            let (claimant, namespace) = (claimant.clone(), pod.namespace.clone());
            let name = name.clone();
            // Of the pods of one machine those that are set up know.
            if annotated.is_some() || !users.contains_key::<Text>(&port) {
                users.insert(port, User { claimant, namespace, name, pod_type, annotated });
            }
        }
    }
    for node in store.iter::<Node>() {
        let user = User {
            claimant: Claimant::Node(node.name.clone()),
            namespace: "".into(),
            name: node.name.clone(),
            pod_type: "",
            annotated: annotated(&node.annotations, names::DEFAULT_PROVIDER),
        };
        users.insert(names::node_port(&node.name).into(), user);
    }
    users
}

/// The default network, whose port may be there before its annotations, and all that are annotated.
fn providers(annotations: &Map) -> impl Iterator<Item = &str> {
    let mark = provider_key("", suffix::ALLOCATED).replacen(names::DEFAULT_PROVIDER, "", 1);
    let marked = annotations.keys().filter_map(move |key| key.strip_suffix(mark.as_str()));
    let others = marked.filter(|provider| *provider != names::DEFAULT_PROVIDER);
    std::iter::once(names::DEFAULT_PROVIDER).chain(others)
}

/// What was published after the port was made; a wish of the user has no mark beside it.
fn annotated(annotations: &Map, provider: &str) -> Option<Testimony> {
    let get = |name| annotations.get(provider_key(provider, name).as_str());
    get(suffix::ALLOCATED).filter(|mark| &***mark == "true")?;
    Some(Testimony {
        subnet: get(suffix::LOGICAL_SWITCH).cloned(),
        addresses: DualStack::parse_addresses(get(suffix::IP_ADDRESS)?).ok()?,
        mac: get(suffix::MAC_ADDRESS).and_then(|text| text.parse().ok()),
    })
}

fn agrees(record: &Ip, said: &Testimony) -> bool {
    record.addresses == said.addresses
        && said.subnet.as_ref().is_none_or(|subnet| *subnet == record.subnet)
        && (said.mac.is_none() || said.mac == record.mac)
}

/// What is in use; `None`: nobody knows better than the record.
fn judge(
    record: Option<&Ip>,
    port: Option<&Testimony>,
    annotated: Option<&Testimony>,
) -> Option<Testimony> {
    let own = |ip: &Ip| Testimony {
        subnet: Some(ip.subnet.clone()),
        addresses: ip.addresses,
        mac: ip.mac,
    };
    // One without an address says nothing.
    let record = record.filter(|ip| !ip.addresses.is_empty());
    match (record, port, annotated) {
        (Some(ip), _, Some(said)) if agrees(ip, said) => Some(own(ip)),
        (_, Some(port), _) => Some(port.clone()),
        (Some(ip), None, Some(_)) => Some(own(ip)),
        (Some(_), None, None) => None,
        (None, None, said) => said.cloned(),
    }
}

/// The record as it should be.
fn right_record(
    port: &Text,
    user: &User,
    truth: &Testimony,
    record: Option<&Ip>,
    seen: &SeenMap,
) -> Option<Ip> {
    let known = record.cloned().or_else(|| unreadable(port, seen));
    let subnet = truth.subnet.clone().or_else(|| Some(known.as_ref()?.subnet.clone()))?;
    let mut right = known.unwrap_or_else(|| Ip {
        name: port.clone(),
        pod_name: "".into(),
        namespace: "".into(),
        subnet: subnet.clone(),
        node: "".into(),
        addresses: truth.addresses,
        mac: truth.mac,
        pod_type: "".into(),
        reserved: false,
        managed: true,
        deleting: false,
    });
    // The type also says what outlives the pod: it is left alone where it fits.
    if claimant_of(&right) != user.claimant {
        right.namespace = user.namespace.clone();
        right.pod_name = user.name.clone();
        right.pod_type = user.pod_type.into();
    }
    right.subnet = subnet;
    right.addresses = truth.addresses;
    right.mac = truth.mac.or(right.mac);
    right.managed = true;
    Some(right)
}

/// A record that is there and cannot be read, as far as it can.
fn unreadable(port: &Text, seen: &SeenMap) -> Option<Ip> {
    let seen = seen.get(Kind::Ip, port)?;
    let spec = seen.spec.as_ref().map(|spec| spec.value()).unwrap_or_default();
    let text = |field: &str| Text::from(spec.get(field).and_then(|v| v.as_str()).unwrap_or(""));
    Some(Ip {
        name: port.clone(),
        pod_name: text("podName"),
        namespace: text("namespace"),
        subnet: text("subnet"),
        node: text("nodeName"),
        addresses: DualStack::default(),
        mac: None,
        pod_type: text("podType"),
        reserved: seen.labels.get(label::IP_RESERVED).is_some_and(|v| &**v == "true"),
        managed: true,
        deleting: seen.deleting,
    })
}
