//! Which ports need addresses, which records have to go: the allocation state machine. No I/O:
//! the loop carries out what [`Ledger::evaluate`] returns and reports back.
//!
//! Orders that make any crash harmless: an allocation is recorded in its IP CR before a feature
//! sees it; an address is free again only when its record is gone, and the record goes only when
//! the port has left the database.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use crate::{
    api::{
        Index, Ip, IpPool, Kind, Namespace, Node, Pod, PodLife, Settings, Subnet, Text, names,
        parse::{PoolWish, fixed_addresses, parse_pool_wish},
    },
    ipam::{Conflicts, Ipam, IpamError, MacWish, NodeAddresses, Record, Request, SubnetSpec, Wish},
    net::{DualStack, Mac},
    ovn::{placement, validity},
    store::{Owner, Problem, Store, View},
};

/// What has to be done to the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Create the IP CR.
    Record(Ip),
    /// Delete the IP CR (its finalizer keeps it until the port is gone).
    Delete(Text),
    /// Take the finalizer off: the port is gone.
    Finalize(Text),
}

/// Something that may hold an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claimant {
    /// `namespace/name`.
    Pod(Text),
    Node(Text),
}

#[derive(Debug, Default)]
pub struct Ledger {
    ipam: Ipam,
    /// To be looked at.
    stale: BTreeSet<Claimant>,
    /// Got no address; looked at again when anything that could help changes.
    waiting: BTreeMap<Claimant, Problem>,
    /// Claimants whose entry in `waiting` came, went or changed.
    news: BTreeSet<Claimant>,
    /// Ports with an API write under way.
    busy: HashSet<Text>,
    /// Records that are being deleted and wait for their port to leave the database.
    doomed: BTreeSet<Text>,
    /// Subnets whose usage changed since it was last published.
    changed: BTreeSet<Text>,
    pools: BTreeSet<Text>,
    /// Pods that no scheduler has placed yet. They are looked at when one has, which takes
    /// milliseconds, or when [`Ledger::overdue`] says that it takes long: recorded with its node
    /// at once, a pod costs one write less, and a third of all.
    unplaced: BTreeSet<Text>,
    /// Those of them that were not timed yet.
    untimed: Vec<Text>,
    /// Pods that get an address without a node.
    overdue: BTreeSet<Text>,
    /// Records that contradict each other, to be reported.
    conflicts: Vec<String>,
}

impl Ledger {
    pub fn ipam(&self) -> &Ipam {
        &self.ipam
    }

    /// Who waits for an address, and why.
    pub fn problems(&self) -> impl Iterator<Item = (&Claimant, &Problem)> {
        self.waiting.iter()
    }

    pub fn is_idle(&self) -> bool {
        let (stale, busy, doomed) = (&self.stale, &self.busy, &self.doomed);
        stale.is_empty() && busy.is_empty() && doomed.is_empty() && self.unplaced.is_empty()
    }

    /// Pods that began to wait for their node since the last call.
    pub fn take_untimed(&mut self) -> Vec<Text> {
        std::mem::take(&mut self.untimed)
    }

    /// The pod waited long enough: nothing may be able to run it, but its address can be chosen,
    /// and what is wrong with it be told.
    pub fn overdue(&mut self, pod: Text) {
        if self.unplaced.remove(&pod) {
            self.overdue.insert(pod.clone());
            self.stale.insert(Claimant::Pod(pod));
        }
    }

    /// Subnets to publish counters of.
    pub fn take_changed(&mut self) -> BTreeSet<Text> {
        std::mem::take(&mut self.changed)
    }

    /// Contradictions found since the last call.
    pub fn take_conflicts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.conflicts)
    }

    /// Claimants to publish the problem of, or its end.
    pub fn take_news(&mut self) -> BTreeSet<Claimant> {
        std::mem::take(&mut self.news)
    }

    fn set_waiting(&mut self, claimant: Claimant, problem: Option<Problem>) {
        let changed = match problem {
            Some(problem) => {
                self.waiting.insert(claimant.clone(), problem.clone()) != Some(problem)
            }
            None => self.waiting.remove(&claimant).is_some(),
        };
        if changed {
            self.news.insert(claimant);
        }
    }

    fn wake_waiting(&mut self) {
        self.stale.extend(self.waiting.keys().cloned());
    }

    /// An object appeared or changed; `store` already holds it.
    pub fn upserted(&mut self, store: &Store, kind: Kind, key: &Text) -> Option<Problem> {
        match kind {
            Kind::Pod => {
                self.stale.insert(Claimant::Pod(key.clone()));
            }
            Kind::Node => {
                self.stale.insert(Claimant::Node(key.clone()));
                self.avoid_nodes(store);
            }
            Kind::Subnet => return self.subnet_changed(store, key),
            Kind::IpPool => return self.pool_changed(store, key),
            Kind::Ip => self.recorded(store, key),
            Kind::Namespace | Kind::Vpc | Kind::Settings => self.wake_waiting(),
            Kind::SecurityGroup
            | Kind::NetworkPolicy
            | Kind::Chassis
            | Kind::Gateway
            | Kind::ExternalGateway => {}
            Kind::Service | Kind::EndpointSlice => {}
        }
        None
    }

    /// An object is gone; `store` no longer holds it. `old` is what it was.
    pub fn removed(&mut self, store: &Store, kind: Kind, key: &Text) {
        match kind {
            Kind::Pod => {
                self.overdue.remove(key);
                self.set_waiting(Claimant::Pod(key.clone()), None);
                self.stale.insert(Claimant::Pod(key.clone()));
            }
            Kind::Node => {
                self.set_waiting(Claimant::Node(key.clone()), None);
                self.stale.insert(Claimant::Node(key.clone()));
                self.avoid_nodes(store);
            }
            Kind::Subnet => {
                self.ipam.remove_subnet(key);
                self.wake_waiting();
            }
            Kind::IpPool => {
                self.pools.remove(key);
                self.ipam.remove_pool(key);
                self.wake_waiting();
            }
            Kind::Ip => self.forgotten(key),
            _ => {}
        }
    }

    fn avoid_nodes(&mut self, store: &Store) {
        let addresses: Vec<IpAddr> = store
            .iter::<Node>()
            .flat_map(|n| n.internal_ips.iter().map(|(_, ip)| *ip).collect::<Vec<_>>())
            .collect();
        self.ipam.set_avoided(addresses);
    }

    fn subnet_changed(&mut self, store: &Store, name: &Text) -> Option<Problem> {
        let subnet = store.get::<Subnet>(name)?;
        let settings = store.get::<Settings>("")?;
        let overlay = subnet.vlan.is_none() && subnet.vpc == settings.cluster_router;
        let new = self.ipam.subnets().all(|s| s.name != *name);
        let spec = SubnetSpec {
            name: name.clone(),
            cidrs: subnet.cidrs,
            gateways: subnet.gateways,
            excludes: subnet.excludes.clone(),
            gateway_mac: None,
            node_addresses: if overlay { NodeAddresses::Avoid } else { NodeAddresses::Allow },
        };
        let problem = self.ipam.upsert_subnet(spec).err().map(|error| Problem {
            kind: Kind::Subnet,
            key: name.clone(),
            reason: "ValidateLogicalSwitchFailed",
            message: format!("spec.cidrBlock {}: {error}", subnet.cidrs),
        });
        if new {
            self.restore_subnet(store, name);
        }
        self.changed.insert(name.clone());
        self.wake_waiting();
        problem
    }

    /// Records that were seen before their subnet.
    fn restore_subnet(&mut self, store: &Store, name: &Text) {
        let ports = store.bucket(Kind::Ip, Index::IpsBySubnet, name);
        for port in ports.into_iter().flatten() {
            self.restore(store, port);
        }
        let pools: Vec<Text> = store
            .bucket(Kind::IpPool, Index::PoolsBySubnet, name)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        for pool in pools {
            self.pool_changed(store, &pool);
        }
    }

    fn pool_changed(&mut self, store: &Store, name: &Text) -> Option<Problem> {
        let pool = store.get::<IpPool>(name)?;
        self.pools.insert(name.clone());
        let result = self.ipam.upsert_pool(name, &pool.subnet, &pool.ranges);
        self.wake_waiting();
        result.err().map(|error| Problem {
            kind: Kind::IpPool,
            key: name.clone(),
            reason: "UpdateIPAMFailed",
            message: error.to_string(),
        })
    }

    fn restore(&mut self, store: &Store, port: &Text) {
        let Some(ip) = store.get::<Ip>(port) else { return };
        // Seen before its subnet: the subnet's arrival restores it.
        if self.ipam.subnets().all(|s| s.name != ip.subnet) {
            return;
        }
        let record = Record {
            owner: owner_of(ip),
            port: port.clone(),
            subnet: ip.subnet.clone(),
            addresses: ip.addresses,
            mac: ip.mac,
        };
        // Two records of one address: the first one keeps it, the other is reported.
        let conflicts = self.ipam.restore(&record);
        self.conflicts.extend(conflicts.into_iter().map(|e| format!("IP {port}: {e}")));
        self.changed.insert(ip.subnet.clone());
    }

    fn recorded(&mut self, store: &Store, port: &Text) {
        self.busy.remove(port);
        self.restore(store, port);
        let Some(ip) = store.get::<Ip>(port) else { return };
        if ip.deleting {
            self.doomed.insert(port.clone());
        } else {
            self.stale.insert(claimant_of(ip));
        }
    }

    /// Somebody else's record has the name: ours never came to be, theirs arrives by watch.
    pub fn abandoned(&mut self, port: &Text) {
        self.busy.remove(port);
        self.ipam.release(port);
    }

    /// The record is gone: only now is the address free.
    pub fn forgotten(&mut self, port: &Text) {
        self.busy.remove(port);
        self.doomed.remove(port);
        if let Some(subnet) = self.ipam.subnet_of(port).cloned() {
            self.changed.insert(subnet);
        }
        if let Some(allocation) = self.ipam.release(port) {
            let claimant = match port.strip_prefix("node-") {
                Some(node) if !allocation.owner.contains('/') => Claimant::Node(node.into()),
                _ => Claimant::Pod(allocation.owner),
            };
            self.stale.insert(claimant);
        }
        self.wake_waiting();
    }

    /// A write failed. What it left in the API is unknown, so the address stays held until the
    /// claimant is looked at again by the retry timer (a record that does exist arrives by watch).
    pub fn write_failed(&mut self, port: &Text, action: &Action) {
        self.busy.remove(port);
        if let Action::Finalize(port) = action {
            self.doomed.insert(port.clone());
        }
    }

    pub fn retry(&mut self, claimant: Claimant) {
        self.stale.insert(claimant);
    }

    pub fn problem(&self, claimant: &Claimant) -> Option<&Problem> {
        self.waiting.get(claimant)
    }

    /// Works through what changed, up to `limit` writes under way. `seed` is fresh randomness for
    /// MACs; `committed` says whether the facts of an owner are in the database.
    pub fn evaluate(
        &mut self,
        store: &Store,
        mut seed: impl FnMut() -> u64,
        committed: impl Fn(&Owner) -> bool,
        limit: usize,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let ready = |port: &Text| {
            let ip = store.get::<Ip>(port);
            ip.is_some_and(|ip| port_owner(ip).is_none_or(|owner| committed(&owner)))
        };
        for port in self.doomed.iter().filter(|p| ready(p)).cloned().collect::<Vec<_>>() {
            self.doomed.remove(&port);
            self.busy.insert(port.clone());
            actions.push(Action::Finalize(port));
        }
        while self.busy.len() < limit {
            let Some(claimant) = self.stale.pop_first() else { break };
            match &claimant {
                Claimant::Pod(key) => self.evaluate_pod(store, key, &mut seed, &mut actions),
                Claimant::Node(name) => self.evaluate_node(store, name, &mut seed, &mut actions),
            }
        }
        actions
    }

    fn delete(&mut self, port: &Text, actions: &mut Vec<Action>) {
        if self.busy.insert(port.clone()) {
            actions.push(Action::Delete(port.clone()));
        }
    }

    fn evaluate_pod(
        &mut self,
        store: &Store,
        key: &Text,
        seed: &mut impl FnMut() -> u64,
        actions: &mut Vec<Action>,
    ) {
        let waited = self.unplaced.remove(key);
        let pod = store.get::<Pod>(key);
        let uses = pod.filter(|p| !p.host_network && p.life != PodLife::Ended);
        let ports: Vec<Text> =
            store.bucket(Kind::Ip, Index::IpsByPod, key).into_iter().flatten().cloned().collect();
        let Some(pod) = uses else {
            self.set_waiting(Claimant::Pod(key.clone()), None);
            for port in ports {
                let kept = store.get::<Ip>(&port).is_some_and(|ip| ip.reserved || ip.deleting);
                if !kept {
                    self.delete(&port, actions);
                }
            }
            self.delete_unseen(store, key, actions);
            return;
        };
        let port: Text = names::port_name(&pod.name, &pod.namespace, "ovn").into();
        let known = ports.contains(&port) || self.busy.contains(&port);
        if known || pod.life == PodLife::Terminating || !pod.invalid.is_empty() {
            self.set_waiting(Claimant::Pod(key.clone()), None);
            return;
        }
        if pod.node.is_none() && !self.overdue.contains(key) {
            self.unplaced.insert(key.clone());
            if !waited {
                self.untimed.push(key.clone());
            }
            return;
        }
        match self.allocate_pod(store, pod, &port, seed()) {
            Ok(ip) => {
                self.set_waiting(Claimant::Pod(key.clone()), None);
                self.busy.insert(port);
                actions.push(Action::Record(ip));
            }
            Err(problem) => {
                self.set_waiting(Claimant::Pod(key.clone()), Some(problem));
            }
        }
    }

    /// An address whose record was never seen (its creation failed or nobody answered): the record
    /// is deleted to be sure before the address is free.
    fn delete_unseen(&mut self, store: &Store, key: &Text, actions: &mut Vec<Action>) {
        let Some((namespace, name)) = key.split_once('/') else { return };
        let port: Text = names::port_name(name, namespace, "ovn").into();
        if self.ipam.allocation(&port).is_some() && !store.contains(Kind::Ip, &port) {
            self.delete(&port, actions);
        }
    }

    /// A claimant that fails waits; what could help (an address, a subnet, its namespace) wakes it.
    fn allocate_pod(
        &mut self,
        store: &Store,
        pod: &Pod,
        port: &Text,
        seed: u64,
    ) -> Result<Ip, Problem> {
        let view = View::new(store);
        let key: Text = format!("{}/{}", pod.namespace, pod.name).into();
        let problem = |message: String| Problem {
            kind: Kind::Pod,
            key: key.clone(),
            reason: "AcquireAddressFailed",
            message,
        };
        if view.get::<Namespace>(&pod.namespace).is_none() {
            return Err(problem(format!("namespace {:?} is not known yet", &*pod.namespace)));
        }
        let subnets = placement::pod_subnets(&view, pod)?;
        let wish = wish(&view, pod).map_err(&problem)?;
        let mac =
            match pod.annotation("ovn", names::suffix::MAC_ADDRESS) {
                Some(text) => MacWish::Static(text.parse::<Mac>().map_err(|e| {
                    problem(format!("annotation ovn.kubernetes.io/mac_address: {e}"))
                })?),
                None => MacWish::Random(seed),
            };
        let mut last = None;
        for subnet in subnets {
            if let Some(found) = validity::conflict(&view, subnet) {
                last = Some(problem(format!("subnet {:?}: {}", &*subnet.name, found.message)));
                continue;
            }
            let request = Request {
                owner: key.clone(),
                port: port.clone(),
                subnet: subnet.name.clone(),
                wish: wish.clone(),
                mac,
                skip: Vec::new(),
                conflicts: Conflicts::Refuse,
            };
            match self.ipam.allocate(&request) {
                Ok(allocation) => {
                    self.changed.insert(subnet.name.clone());
                    return Ok(pod_record(pod, port, subnet, &allocation));
                }
                Err(error) => last = Some(problem(error.to_string())),
            }
        }
        Err(last.unwrap_or_else(|| problem("the namespace has no usable subnet".into())))
    }

    fn evaluate_node(
        &mut self,
        store: &Store,
        name: &Text,
        seed: &mut impl FnMut() -> u64,
        actions: &mut Vec<Action>,
    ) {
        let port: Text = names::node_port(name).into();
        let ip = store.get::<Ip>(&port);
        let Some(node) = store.get::<Node>(name) else {
            self.set_waiting(Claimant::Node(name.clone()), None);
            if ip.is_some_and(|ip| !ip.deleting) {
                self.delete(&port, actions);
            }
            return;
        };
        if ip.is_some() || self.busy.contains(&port) {
            return;
        }
        match self.allocate_node(store, node, &port, seed()) {
            Ok(ip) => {
                self.set_waiting(Claimant::Node(name.clone()), None);
                self.busy.insert(port);
                actions.push(Action::Record(ip));
            }
            Err(message) => {
                let problem = Problem {
                    kind: Kind::Node,
                    key: name.clone(),
                    reason: "AcquireAddressFailed",
                    message,
                };
                self.set_waiting(Claimant::Node(name.clone()), Some(problem));
            }
        }
    }

    fn allocate_node(
        &mut self,
        store: &Store,
        node: &Node,
        port: &Text,
        seed: u64,
    ) -> Result<Ip, String> {
        let settings = store.get::<Settings>("").ok_or("the settings are not known yet")?;
        let subnet = &settings.node_switch;
        // The annotations of an earlier life are kept while they fit.
        let annotation = |key: &str| node.annotations.get(key);
        let wanted = annotation(names::annotation::IP_ADDRESS)
            .and_then(|text| fixed_addresses(text).ok())
            .filter(|ips| !ips.is_empty());
        let mac = annotation(names::annotation::MAC_ADDRESS).and_then(|text| text.parse().ok());
        let any = Request::any(port, port, subnet, seed);
        let fixed = Request {
            wish: wanted.map_or(Wish::Any, Wish::Static),
            mac: mac.map_or(MacWish::Random(seed), MacWish::Static),
            ..any.clone()
        };
        let allocation = self
            .ipam
            .allocate(&fixed)
            .or_else(|_| self.ipam.allocate(&any))
            .map_err(|error: IpamError| error.to_string())?;
        self.changed.insert(subnet.clone());
        Ok(Ip {
            name: port.clone(),
            pod_name: node.name.clone(),
            namespace: "".into(),
            subnet: subnet.clone(),
            node: node.name.clone(),
            addresses: allocation.addresses,
            mac: allocation.mac,
            pod_type: "".into(),
            reserved: false,
            deleting: false,
        })
    }
}

/// What the annotations of a pod (or the pools of its namespace) ask for.
fn wish(view: &View<'_>, pod: &Pod) -> Result<Wish, String> {
    if let Some(text) = pod.annotation("ovn", names::suffix::IP_ADDRESS) {
        let ips = fixed_addresses(text)
            .map_err(|error| format!("annotation ovn.kubernetes.io/ip_address: {error}"))?;
        return Ok(Wish::Static(ips));
    }
    if let Some(text) = pod.annotation("ovn", names::suffix::IP_POOL) {
        let pool = parse_pool_wish(text)
            .map_err(|error| format!("annotation ovn.kubernetes.io/ip_pool: {error}"))?;
        return match pool {
            PoolWish::Pool(name) => Ok(Wish::Pool(name)),
            PoolWish::Addresses(all) => listed(pod, all),
        };
    }
    // A namespace with pools never falls back to other addresses.
    Ok(match placement::namespace_pools(view, &pod.namespace).into_iter().next() {
        Some(pool) => Wish::Pool(pool),
        None => Wish::Any,
    })
}

/// A StatefulSet's pod takes the element at its ordinal, any other pod the first free one.
fn listed(pod: &Pod, all: Vec<DualStack<IpAddr>>) -> Result<Wish, String> {
    let stateful = pod.owner.as_ref().filter(|o| &*o.kind == "StatefulSet");
    let ordinal = stateful.and_then(|_| pod.name.rsplit_once('-')?.1.parse::<usize>().ok());
    match ordinal {
        None => Ok(Wish::FirstFree(all)),
        Some(n) => all.get(n).map(|ips| Wish::Static(*ips)).ok_or_else(|| {
            format!(
                "NoAvailableAddress: annotation ovn.kubernetes.io/ip_pool has {} entries, the pod \
                 has ordinal {n}; add entries or scale down",
                all.len()
            )
        }),
    }
}

fn pod_record(pod: &Pod, port: &Text, subnet: &Subnet, allocation: &crate::ipam::Allocation) -> Ip {
    let stateful = pod.owner.as_ref().is_some_and(|o| &*o.kind == "StatefulSet");
    Ip {
        name: port.clone(),
        pod_name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        subnet: subnet.name.clone(),
        node: pod.node.clone().unwrap_or_else(|| "".into()),
        addresses: allocation.addresses,
        mac: allocation.mac,
        pod_type: if stateful { "StatefulSet".into() } else { "".into() },
        reserved: false,
        deleting: false,
    }
}

fn owner_of(ip: &Ip) -> Text {
    if ip.namespace.is_empty() {
        ip.name.clone()
    } else {
        format!("{}/{}", ip.namespace, ip.pod_name).into()
    }
}

/// Who an IP CR belongs to.
pub fn claimant_of(ip: &Ip) -> Claimant {
    if ip.namespace.is_empty() {
        Claimant::Node(ip.pod_name.clone())
    } else {
        Claimant::Pod(format!("{}/{}", ip.namespace, ip.pod_name).into())
    }
}

/// The engine's owner of the port of an IP CR.
fn port_owner(ip: &Ip) -> Option<Owner> {
    Some(match claimant_of(ip) {
        Claimant::Pod(key) => Owner { feature: "pod", kind: Kind::Pod, key },
        Claimant::Node(key) => Owner { feature: "node", kind: Kind::Node, key },
    })
}
