//! Addresses of pods and virtual machines, network by network.

use crate::{
    api::{
        Index, Ip, Kind, Namespace, Pod, PodLife, Settings, Text, names, parse::parse_pod_networks,
    },
    ipam::{Conflicts, MacWish, Request},
    ovn::{
        networks::{Network, pod_networks},
        placement, validity,
    },
    store::{Problem, Store, View},
};

use super::{
    Action, Claimant, Ledger, claimant_of, is_kept, record_in,
    request::{attempts, mac_wish},
};

impl Ledger {
    pub(super) fn evaluate_pods(
        &mut self,
        store: &Store,
        claimant: &Claimant,
        seed: &mut impl FnMut() -> u64,
        actions: &mut Vec<Action>,
    ) {
        let waited = match claimant {
            Claimant::Pod(key) => self.unplaced.remove(key),
            _ => false,
        };
        let pods = users(store, claimant);
        let records = records(store, claimant);
        let Some(pod) = pods.iter().find(|p| p.life == PodLife::Alive).or(pods.first()) else {
            self.set_waiting(claimant.clone(), None);
            for ip in records.iter().filter(|ip| !ip.deleting) {
                if !is_kept(store, ip, &self.listed) {
                    self.delete(&ip.name, actions);
                }
            }
            self.delete_unseen(store, claimant, actions);
            return;
        };
        if pod.life == PodLife::Terminating || !pod.invalid.is_empty() {
            self.set_waiting(claimant.clone(), None);
            return;
        }
        let wanted = |ip: &Ip| {
            let provider = placement::provider_of(ip);
            // Unreadable networks take nothing away.
            pods.iter().any(|p| parse_pod_networks(p).map_or(true, |n| n.wants(provider)))
        };
        let view = View::new(store);
        let outdated = |ip: &Ip| pods.iter().all(|pod| placement::is_outdated(&view, pod, ip));
        for ip in records.iter().filter(|ip| !ip.deleting && !ip.reserved) {
            if self.leaving.remove(&ip.name) || !wanted(ip) || outdated(ip) {
                self.delete(&ip.name, actions);
            }
        }
        if let Claimant::Pod(key) = claimant
            && records.is_empty()
            && pod.node.is_none()
            && !self.overdue.contains(key)
        {
            self.unplaced.insert(key.clone());
            if !waited {
                self.untimed.push(key.clone());
            }
            return;
        }
        let problem = self.give_missing(store, claimant, pod, seed, actions);
        self.set_waiting(claimant.clone(), problem);
    }

    /// Allocates for every network that has no record; says what stands in the way of the first
    /// one that got nothing.
    fn give_missing(
        &mut self,
        store: &Store,
        claimant: &Claimant,
        pod: &Pod,
        seed: &mut impl FnMut() -> u64,
        actions: &mut Vec<Action>,
    ) -> Option<Problem> {
        let view = View::new(store);
        let problem = |message: String| Problem {
            kind: Kind::Pod,
            key: format!("{}/{}", pod.namespace, pod.name).into(),
            reason: "AcquireAddressFailed",
            message,
        };
        if view.get::<Namespace>(&pod.namespace).is_none() {
            return Some(problem(format!("namespace {:?} is not known yet", &*pod.namespace)));
        }
        let (networks, mut problems) = pod_networks(&view, pod);
        for network in networks {
            let port: Text =
                names::port_name(holder_name(claimant), &pod.namespace, &network.provider).into();
            if self.busy.contains(&port) {
                continue;
            }
            match view.get::<Ip>(&port).map(|ip| (ip, claimant_of(ip))) {
                Some((ip, holder)) if ip.managed && holder == *claimant => {}
                Some((ip, _)) => problems.push(problem(taken(ip))),
                None => match self.allocate_network(&view, (claimant, pod), &network, seed()) {
                    Ok(ip) => {
                        self.busy.insert(port);
                        actions.push(Action::Record(ip));
                    }
                    Err(message) => problems.push(problem(message)),
                },
            }
        }
        problems.into_iter().next()
    }

    /// A claimant that fails waits; what could help (an address, a subnet, its namespace) wakes it.
    fn allocate_network(
        &mut self,
        view: &View<'_>,
        (claimant, pod): (&Claimant, &Pod),
        network: &Network<'_>,
        seed: u64,
    ) -> Result<Ip, String> {
        let name = holder_name(claimant);
        let port: Text = names::port_name(name, &pod.namespace, &network.provider).into();
        let mac = mac_wish(pod, network, seed)?;
        let mut last = None;
        for attempt in attempts(view, pod, network)? {
            for subnet in attempt.subnets {
                if let Some(found) = validity::conflict(view, subnet) {
                    last = Some(format!("subnet {:?}: {}", &*subnet.name, found.message));
                    continue;
                }
                let request = Request {
                    owner: claimant.holder(),
                    port: port.clone(),
                    subnet: subnet.name.clone(),
                    wish: attempt.wish.clone(),
                    mac: if subnet.is_ovn() { mac } else { MacWish::None },
                    skip: Vec::new(),
                    conflicts: Conflicts::Refuse,
                };
                match self.ipam.allocate(&request) {
                    Ok(allocation) => {
                        self.changed.insert(subnet.name.clone());
                        return Ok(Ip {
                            name: port,
                            pod_name: name.into(),
                            namespace: pod.namespace.clone(),
                            node: pod.node.clone().unwrap_or_else(|| "".into()),
                            pod_type: pod_type(claimant, pod).into(),
                            ..record_in(subnet, &allocation)
                        });
                    }
                    Err(error) => last = Some(error.to_string()),
                }
            }
        }
        Err(last.unwrap_or_else(|| "the pod has no usable subnet".into()))
    }
}

/// Pods that use the network of the claimant.
fn users<'a>(store: &'a Store, claimant: &Claimant) -> Vec<&'a Pod> {
    let Some(settings) = store.get::<Settings>("") else { return Vec::new() };
    let uses = |p: &&Pod| !p.host_network && p.life != PodLife::Ended;
    match claimant {
        Claimant::Machine(key) => {
            let pods = store.bucket(Kind::Pod, Index::PodsByMachine, key).into_iter().flatten();
            let pods = pods.filter_map(|pod| store.get::<Pod>(pod)).filter(uses);
            pods.filter(|p| placement::virtual_machine(p, settings).is_some()).collect()
        }
        Claimant::Pod(key) => {
            let pod = store.get::<Pod>(key).filter(uses);
            let own = pod.filter(|p| placement::virtual_machine(p, settings).is_none());
            own.into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// Whether a pod uses the network of the claimant.
pub(super) fn is_used(store: &Store, claimant: &Claimant) -> bool {
    !users(store, claimant).is_empty()
}

/// What is recorded for the claimant.
fn records<'a>(store: &'a Store, claimant: &Claimant) -> Vec<&'a Ip> {
    let (Claimant::Pod(key) | Claimant::Machine(key)) = claimant else { return Vec::new() };
    let ports = store.bucket(Kind::Ip, Index::IpsByPod, key).into_iter().flatten();
    let ips = ports.filter_map(|port| store.get::<Ip>(port));
    ips.filter(|ip| ip.managed && claimant_of(ip) == *claimant).collect()
}

/// Name of the pod or machine.
fn holder_name(claimant: &Claimant) -> &str {
    let (Claimant::Pod(key) | Claimant::Machine(key)) = claimant else { return "" };
    key.split_once('/').map_or(key, |(_, name)| name)
}

fn pod_type(claimant: &Claimant, pod: &Pod) -> &'static str {
    match claimant {
        Claimant::Machine(_) => "VirtualMachine",
        _ if pod.stateful_set().is_some() => "StatefulSet",
        _ => "",
    }
}

/// The name of a port can belong to one pod or one machine only.
fn taken(ip: &Ip) -> String {
    if ip.managed {
        return format!(
            "AddressConflict: the name of IP {:?} belongs to {}; rename the pod or the virtual \
             machine",
            &*ip.name,
            claimant_of(ip).holder()
        );
    }
    format!(
        "IP {:?} was made by hand and has no address yet; see its events, or delete it",
        &*ip.name
    )
}
