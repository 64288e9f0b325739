//! Which ports need addresses, which records have to go: the allocation state machine. No I/O:
//! the loop carries out what [`Ledger::evaluate`] returns and reports back.
//!
//! Orders that make any crash harmless: an allocation is recorded in its IP CR before a feature
//! sees it; an address is free again only when its record is gone, and the record goes only when
//! the port has left the database.

mod others;
mod pods;
mod request;
mod retention;
pub mod witness;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use crate::{
    api::{Index, Ip, IpPool, Kind, Node, Pod, Renumbering, Settings, Subnet, Text, names},
    ipam::{Allocation, Ipam, IpamError, NodeAddresses, Record, SubnetSpec},
    net::IpRange,
    ovn::{keys, placement, validity},
    ovsdb::row::RowKey,
    store::{Owner, Problem, Store, View},
};

pub use retention::{Claimant, claimant_of, is_kept};

/// What has to be done to the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Create the IP CR.
    Record(Ip),
    /// Fill in an IP CR made by hand and take it over.
    Adopt(Ip),
    /// Delete the IP CR (its finalizer keeps it until the port is gone).
    Delete(Text),
    /// Take the finalizer off: the port is gone.
    Finalize(Text),
}

impl Action {
    /// Name of the IP CR.
    pub fn port(&self) -> &Text {
        match self {
            Action::Record(ip) | Action::Adopt(ip) => &ip.name,
            Action::Delete(port) | Action::Finalize(port) => port,
        }
    }
}

/// Why a changed subnet is held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub problem: Problem,
    /// The range that is waited for; `None`: it will not be had by waiting.
    pub next: Option<Renumbering>,
}

#[derive(Debug, Default)]
pub struct Ledger {
    ipam: Ipam,
    /// To be looked at.
    stale: BTreeSet<Claimant>,
    /// To be looked at again at the next turn: the database still holds a port of theirs.
    early: BTreeSet<Claimant>,
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
    /// Pools that contradict their subnet or another pool.
    refused_pools: BTreeMap<Text, Problem>,
    news_of_pools: BTreeSet<Text>,
    /// Kinds of which everything is known, see [`is_kept`].
    listed: BTreeSet<Kind>,
    /// Ports of pods that went while their subnet moves away from their address: a successor of
    /// the same name gets another.
    leaving: BTreeSet<Text>,
    /// Pods of virtual machines, by machine: all that had a part in its port.
    machines: BTreeMap<Text, BTreeSet<Text>>,
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
        let done = stale.is_empty() && busy.is_empty() && doomed.is_empty();
        done && self.early.is_empty() && self.unplaced.is_empty()
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

    /// Every object of the kind is in the store.
    pub fn listed(&mut self, kind: Kind) {
        self.listed.insert(kind);
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
            Kind::Pod => self.pod_changed(store, key),
            Kind::Node => {
                self.stale.insert(Claimant::Node(key.clone()));
                self.avoid_nodes(store);
            }
            Kind::Subnet => return self.subnet_changed(store, key),
            Kind::IpPool => self.pool_changed(store, key),
            Kind::Ip => self.recorded(store, key),
            Kind::StatefulSet => self.set_changed(store, key),
            Kind::VirtualMachine | Kind::VirtualMachineInstance => {
                self.stale.insert(Claimant::Machine(key.clone()));
            }
            Kind::Namespace | Kind::Vpc | Kind::Settings | Kind::Attachment => self.wake_waiting(),
            _ => {}
        }
        None
    }

    /// An object is gone; `store` no longer holds it.
    pub fn removed(&mut self, store: &Store, kind: Kind, key: &Text) {
        match kind {
            Kind::Pod => {
                self.overdue.remove(key);
                self.note_leaving(store, key);
                self.leave(Claimant::Pod(key.clone()));
                let machines = self.machines.iter().filter(|(_, pods)| pods.contains(key));
                let machines: Vec<Text> = machines.map(|(machine, _)| machine.clone()).collect();
                self.stale.extend(machines.into_iter().map(Claimant::Machine));
            }
            Kind::Node => {
                self.leave(Claimant::Node(key.clone()));
                self.avoid_nodes(store);
            }
            Kind::Subnet => {
                self.ipam.remove_subnet(key);
                self.leave(Claimant::Querier(key.clone()));
                self.wake_waiting();
            }
            Kind::IpPool => {
                let subnet = self.ipam.subnet_of_pool(key).cloned();
                self.changed.extend(subnet);
                self.ipam.remove_pool(key);
                self.pool_changed(store, key);
            }
            Kind::Ip => self.record_gone(store, key),
            Kind::StatefulSet => self.set_changed(store, key),
            Kind::VirtualMachine | Kind::VirtualMachineInstance => {
                self.stale.insert(Claimant::Machine(key.clone()));
            }
            _ => {}
        }
    }

    fn leave(&mut self, claimant: Claimant) {
        self.set_waiting(claimant.clone(), None);
        self.stale.insert(claimant);
    }

    fn note_leaving(&mut self, store: &Store, pod: &Text) {
        let own = Claimant::Pod(pod.clone());
        let ports = store.bucket(Kind::Ip, Index::IpsByPod, pod).into_iter().flatten();
        let ips =
            ports.filter_map(|port| store.get::<Ip>(port)).filter(|ip| claimant_of(ip) == own);
        let leaving = ips.filter(|ip| {
            let subnet = store.get::<Subnet>(&ip.subnet).filter(|s| s.renumbering.is_some());
            subnet.is_some_and(|s| !s.keeps(&ip.addresses))
        });
        self.leaving.extend(leaving.map(|ip| ip.name.clone()));
    }

    fn pod_changed(&mut self, store: &Store, key: &Text) {
        let machine = store.get::<Pod>(key).zip(store.get::<Settings>("")).and_then(|(pod, s)| {
            let machine = placement::virtual_machine(pod, s)?;
            Some(Text::from(format!("{}/{machine}", pod.namespace)))
        });
        match machine {
            Some(machine) => {
                self.machines.entry(machine.clone()).or_default().insert(key.clone());
                self.stale.insert(Claimant::Machine(machine));
            }
            None => {
                self.stale.insert(Claimant::Pod(key.clone()));
            }
        }
    }

    /// Pods that are gone are looked at again: the set may have no place for them any more.
    fn set_changed(&mut self, store: &Store, key: &Text) {
        let ports = store.bucket(Kind::Ip, Index::IpsByStatefulSet, key).into_iter().flatten();
        let claimants = ports.filter_map(|port| store.get::<Ip>(port)).map(claimant_of);
        self.stale.extend(claimants);
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
        let spec = subnet_spec(store, subnet)?;
        let new = self.ipam.subnets().all(|s| s.name != *name);
        let next = subnet.renumbering.as_ref().map(|next| SubnetSpec {
            cidrs: next.cidrs,
            gateways: next.gateways,
            excludes: next.excludes.clone(),
            ..spec.clone()
        });
        let problem = self.ipam.upsert_subnet(spec).err().map(|e| refused(subnet, &e));
        self.ipam.set_pending(name, next);
        self.wake_holders(store, subnet);
        if new {
            self.restore_subnet(store, name);
        }
        let querier = names::mcast_querier_port(name);
        if subnet.multicast_snoop || store.contains(Kind::Ip, &querier) {
            self.stale.insert(Claimant::Querier(name.clone()));
        }
        self.changed.insert(name.clone());
        self.wake_waiting();
        problem
    }

    /// Those who hold addresses of a subnet that moves: what is kept for later goes at once, nodes
    /// and queriers ask for another address.
    fn wake_holders(&mut self, store: &Store, subnet: &Subnet) {
        let join = store.get::<Settings>("").is_some_and(|s| s.node_switch == subnet.name);
        if !join && subnet.renumbering.is_none() {
            return;
        }
        let ports = store.bucket(Kind::Ip, Index::IpsBySubnet, &subnet.name).into_iter().flatten();
        let ips = ports.filter_map(|port| store.get::<Ip>(port)).filter(|ip| ip.managed);
        self.stale.extend(ips.map(claimant_of));
    }

    /// Why a subnet cannot become what it is to be: recorded addresses would lie outside, or other
    /// subnets have the range.
    pub fn subnet_refusal(&self, store: &Store, subnet: &Subnet) -> Option<Refusal> {
        let view = View::new(store);
        let current = store.get::<Subnet>(&subnet.name);
        let moves = current.filter(|c| c.cidrs != subnet.cidrs);
        if moves.is_some_and(|current| validity::conflict(&view, current).is_none()) {
            // Whoever has a range keeps it, whatever the age of the subnet that is edited.
            let newest = Subnet { created: i64::MAX, ..subnet.clone() };
            if let Some(problem) = validity::conflict(&view, &newest) {
                return Some(Refusal { problem, next: None });
            }
        }
        let spec = subnet_spec(store, subnet)?;
        let error = self.ipam.check_subnet(&spec).err()?;
        let next = Some(subnet.as_renumbering());
        Some(Refusal { problem: refused(subnet, &error), next })
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

    /// Takes a pool as it is now; one that is refused is tried again when another one changes.
    fn pool_changed(&mut self, store: &Store, name: &Text) {
        self.take_pool(store, name);
        for refused in self.refused_pools.keys().cloned().collect::<Vec<_>>() {
            self.take_pool(store, &refused);
        }
        self.wake_waiting();
    }

    fn take_pool(&mut self, store: &Store, name: &Text) {
        self.news_of_pools.insert(name.clone());
        let Some(pool) = store.get::<IpPool>(name) else {
            self.refused_pools.remove(name);
            return;
        };
        self.changed.insert(pool.subnet.clone());
        match self.ipam.upsert_pool(name, &pool.subnet, &pool.ranges) {
            Ok(()) => {
                self.refused_pools.remove(name);
            }
            Err(error) => {
                let problem = Problem {
                    kind: Kind::IpPool,
                    key: name.clone(),
                    reason: "UpdateIPAMFailed",
                    message: error.to_string(),
                };
                self.refused_pools.insert(name.clone(), problem);
            }
        }
    }

    /// Why the pool as it is now is not in force.
    pub fn pool_problem(&self, name: &str) -> Option<&Problem> {
        self.refused_pools.get(name)
    }

    /// Pools to publish the state of.
    pub fn take_pool_news(&mut self) -> BTreeSet<Text> {
        std::mem::take(&mut self.news_of_pools)
    }

    fn restore(&mut self, store: &Store, port: &Text) {
        let Some(ip) = store.get::<Ip>(port) else { return };
        // One made by hand has nothing yet; it is given its address in its turn.
        if !ip.managed {
            if !ip.deleting {
                self.stale.insert(Claimant::Reservation(port.clone()));
            }
            return;
        }
        // Seen before its subnet: the subnet's arrival restores it.
        if self.ipam.subnets().all(|s| s.name != ip.subnet) {
            return;
        }
        let record = Record {
            owner: claimant_of(ip).holder(),
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
        if ip.managed {
            self.set_waiting(Claimant::Reservation(port.clone()), None);
        }
        if ip.deleting {
            self.doomed.insert(port.clone());
        } else {
            self.stale.insert(claimant_of(ip));
        }
    }

    /// Somebody else's record has the name: ours never came to be, theirs arrives by watch, unless
    /// it cannot be read.
    pub fn abandoned(&mut self, port: &Text, claimant: &Claimant) {
        self.busy.remove(port);
        self.ipam.release(port);
        let Owner { kind, key, .. } = claimant.owner();
        let message = format!(
            "IP {port:?} is there already and is not valid, or was made just now; see its \
             conditions and Events, correct it or delete it"
        );
        let reason = "AcquireAddressFailed";
        self.set_waiting(claimant.clone(), Some(Problem { kind, key, reason, message }));
    }

    /// What the witnesses said is taken in; the store gets the restored records next.
    pub fn take_heard(&mut self, heard: &witness::Heard) {
        for ip in &heard.restored {
            self.ipam.release(&ip.name);
        }
        for record in &heard.held {
            let free = |ip: IpAddr| self.ipam.holders(&record.subnet, ip).is_empty();
            if record.addresses.iter().all(|(_, ip)| free(*ip)) {
                let conflicts = self.ipam.restore(record);
                let port = &record.port;
                self.conflicts.extend(conflicts.into_iter().map(|e| format!("port {port}: {e}")));
                self.changed.insert(record.subnet.clone());
            }
        }
        self.conflicts.extend(heard.conflicts.iter().cloned());
    }

    /// A record that went without our doing (its finalizer was taken off) leaves the address with
    /// those who use it: they get it recorded again.
    fn record_gone(&mut self, store: &Store, port: &Text) {
        let finalized = self.busy.contains(port) && !self.doomed.contains(port);
        let claimant = self.claimant_of_port(port).filter(|claimant| match claimant {
            Claimant::Pod(_) | Claimant::Machine(_) => pods::is_used(store, claimant),
            Claimant::Node(node) => store.contains(Kind::Node, node),
            _ => false,
        });
        match claimant {
            Some(claimant) if !finalized => {
                self.busy.remove(port);
                self.doomed.remove(port);
                self.stale.insert(claimant);
            }
            _ => self.forgotten(port),
        }
    }

    /// The record is gone: only now is the address free.
    pub fn forgotten(&mut self, port: &Text) {
        self.busy.remove(port);
        self.doomed.remove(port);
        self.leaving.remove(port);
        self.set_waiting(Claimant::Reservation(port.clone()), None);
        if let Some(subnet) = self.ipam.subnet_of(port).cloned() {
            self.changed.insert(subnet);
        }
        if let Some(allocation) = self.ipam.release(port) {
            let claimant = Claimant::of_holder(&allocation.owner);
            // Its other networks may still have ports.
            if let Claimant::Machine(machine) = &claimant
                && self.ipam.ports_of(&allocation.owner).next().is_none()
            {
                self.machines.remove(machine);
            }
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

    /// Whose port it is, as far as the allocator knows.
    pub fn claimant_of_port(&self, port: &str) -> Option<Claimant> {
        self.ipam.allocation(port).map(|held| Claimant::of_holder(&held.owner))
    }

    pub fn retry(&mut self, claimant: Claimant) {
        self.stale.insert(claimant);
    }

    pub fn problem(&self, claimant: &Claimant) -> Option<&Problem> {
        self.waiting.get(claimant)
    }

    /// Works through what changed, up to `limit` writes under way. `seed` is fresh randomness for
    /// MACs.
    pub fn evaluate(
        &mut self,
        store: &Store,
        mut seed: impl FnMut() -> u64,
        northbound: &Northbound<'_>,
        limit: usize,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        // The port of a pod that was deleted while nobody led has no owner that could be asked.
        let ready = |port: &Text| {
            let ip = store.get::<Ip>(port);
            ip.is_some_and(|ip| self.port_owners(ip).iter().all(northbound.committed))
                && !(northbound.holds)(&keys::pod_port(port))
        };
        for port in self.doomed.iter().filter(|p| ready(p)).cloned().collect::<Vec<_>>() {
            self.doomed.remove(&port);
            self.busy.insert(port.clone());
            actions.push(Action::Finalize(port));
        }
        self.stale.append(&mut self.early);
        while self.busy.len() < limit {
            let Some(claimant) = self.stale.pop_first() else { break };
            match &claimant {
                Claimant::Pod(_) | Claimant::Machine(_) => {
                    self.evaluate_pods(store, &claimant, &mut seed, &mut actions);
                }
                Claimant::Node(name) => self.evaluate_node(store, name, &mut seed, &mut actions),
                Claimant::Reservation(port) => {
                    self.evaluate_reservation(store, port, seed(), &mut actions);
                }
                Claimant::Querier(subnet) => {
                    self.evaluate_querier(store, subnet, seed(), &mut actions);
                }
            }
        }
        self.drop_early(store, northbound, &mut actions);
        actions
    }

    /// An address without a record is free when its record is known to be absent: not before its
    /// port has left the database.
    fn drop_early(&mut self, store: &Store, northbound: &Northbound<'_>, all: &mut Vec<Action>) {
        all.retain(|action| {
            let Action::Delete(port) = action else { return true };
            let early =
                !store.contains(Kind::Ip, port) && (northbound.holds)(&keys::pod_port(port));
            if early {
                self.busy.remove(port);
                self.early.extend(self.claimant_of_port(port));
            }
            !early
        });
    }

    /// The engine's owners of the port of an IP CR, today's and former ones.
    fn port_owners(&self, ip: &Ip) -> Vec<Owner> {
        let of = |feature, kind, key: &Text| Owner { feature, kind, key: key.clone() };
        let retained = of("retained", Kind::Ip, &ip.name);
        match claimant_of(ip) {
            Claimant::Pod(key) => vec![of("pod", Kind::Pod, &key), retained],
            Claimant::Node(key) => vec![of("node", Kind::Node, &key)],
            Claimant::Machine(key) => {
                let pods = self.machines.get(&key).into_iter().flatten();
                pods.map(|pod| of("pod", Kind::Pod, pod)).chain([retained]).collect()
            }
            Claimant::Querier(key) => vec![of("subnet-multicast", Kind::Subnet, &key)],
            Claimant::Reservation(_) => Vec::new(),
        }
    }

    fn delete(&mut self, port: &Text, actions: &mut Vec<Action>) {
        if self.busy.insert(port.clone()) {
            actions.push(Action::Delete(port.clone()));
        }
    }

    /// Addresses whose record was never seen (its creation failed or nobody answered): the record
    /// is deleted to be sure before the address is free.
    fn delete_unseen(&mut self, store: &Store, claimant: &Claimant, actions: &mut Vec<Action>) {
        let holder = claimant.holder();
        let held = self.ipam.ports_of(&holder);
        let unseen: Vec<Text> =
            held.filter(|port| !store.contains(Kind::Ip, port)).cloned().collect();
        for port in unseen {
            self.delete(&port, actions);
        }
    }
}

/// What the database says before an address is freed.
pub struct Northbound<'a> {
    /// Whether the facts of an owner are in it.
    pub committed: &'a dyn Fn(&Owner) -> bool,
    /// Whether it may hold the row.
    pub holds: &'a dyn Fn(&RowKey) -> bool,
}

fn subnet_spec(store: &Store, subnet: &Subnet) -> Option<SubnetSpec> {
    let settings = store.get::<Settings>("")?;
    let overlay = subnet.vlan.is_none() && subnet.vpc == settings.cluster_router;
    // Virtual addresses are given to no pod that did not ask for one by name.
    let vips = subnet.vips.iter().filter_map(|text| IpRange::parse(text).ok());
    Some(SubnetSpec {
        name: subnet.name.clone(),
        cidrs: subnet.cidrs,
        gateways: subnet.gateways,
        excludes: subnet.excludes.iter().copied().chain(vips).collect(),
        gateway_mac: None,
        node_addresses: if overlay { NodeAddresses::Avoid } else { NodeAddresses::Allow },
    })
}

fn refused(subnet: &Subnet, error: &IpamError) -> Problem {
    Problem {
        kind: Kind::Subnet,
        key: subnet.name.clone(),
        reason: "ValidateLogicalSwitchFailed",
        message: format!("spec.cidrBlock {}: {error}", subnet.cidrs),
    }
}

/// An IP CR to be made, without name, holder and type.
fn record_in(subnet: &Subnet, allocation: &Allocation) -> Ip {
    Ip {
        name: "".into(),
        pod_name: "".into(),
        namespace: "".into(),
        subnet: subnet.name.clone(),
        node: "".into(),
        addresses: allocation.addresses,
        mac: allocation.mac,
        pod_type: "".into(),
        reserved: false,
        managed: true,
        deleting: false,
    }
}
