//! Addresses of nodes, of IP objects made by hand, and of multicast queriers.

use crate::{
    api::{
        Ip, Kind, Node, Settings, Subnet, Text, names, names::annotation, parse::fixed_addresses,
        parse::reason,
    },
    ipam::{Conflicts, MacWish, Request, Wish},
    ovn::validity,
    store::{Problem, Store, View},
};

use super::{Action, Claimant, Ledger, claimant_of, record_in};

impl Ledger {
    pub(super) fn evaluate_node(
        &mut self,
        store: &Store,
        name: &Text,
        seed: &mut impl FnMut() -> u64,
        actions: &mut Vec<Action>,
    ) {
        let claimant = Claimant::Node(name.clone());
        let port: Text = names::node_port(name).into();
        let ip = store.get::<Ip>(&port);
        let Some(node) = store.get::<Node>(name) else {
            self.set_waiting(claimant.clone(), None);
            if ip.is_some_and(|ip| !ip.deleting) {
                self.delete(&port, actions);
            }
            self.delete_unseen(store, &claimant, actions);
            return;
        };
        if let Some(ip) = ip.filter(|ip| !ip.deleting)
            && let Some(problem) = leaves_join(store, node, ip)
        {
            self.delete(&port, actions);
            self.set_waiting(claimant, Some(problem));
            return;
        }
        if ip.is_some() || self.busy.contains(&port) {
            return;
        }
        let outcome = self.allocate_node(store, node, &port, seed());
        self.recorded_or_waiting(claimant, outcome, actions);
    }

    fn allocate_node(
        &mut self,
        store: &Store,
        node: &Node,
        port: &Text,
        seed: u64,
    ) -> Result<Ip, Problem> {
        let problem = |message: String| Problem {
            kind: Kind::Node,
            key: node.name.clone(),
            reason: "AcquireAddressFailed",
            message,
        };
        let settings = store.get::<Settings>("");
        let settings = settings.ok_or_else(|| problem("the settings are not known yet".into()))?;
        let join = store.get::<Subnet>(&settings.node_switch).ok_or_else(|| {
            problem(format!("NoSubnet: the join subnet {:?} is missing", &*settings.node_switch))
        })?;
        if join.deleting {
            let name = &*join.name;
            return Err(problem(format!("NoSubnet: the join subnet {name:?} is being deleted")));
        }
        // The annotations of an earlier life are kept while they fit.
        let wanted = node.annotations.get(annotation::IP_ADDRESS);
        let wanted = wanted.and_then(|t| fixed_addresses(t).ok()).filter(|ips| !ips.is_empty());
        let mac = node.annotations.get(annotation::MAC_ADDRESS).and_then(|t| t.parse().ok());
        let any = Request::any(port, port, &join.name, seed);
        let fixed = Request {
            wish: wanted.map_or(Wish::Any, Wish::Static),
            mac: mac.map_or(MacWish::Random(seed), MacWish::Static),
            ..any.clone()
        };
        let allocation = self.ipam.allocate(&fixed).or_else(|_| self.ipam.allocate(&any));
        let allocation = allocation.map_err(|error| problem(error.to_string()))?;
        Ok(Ip {
            name: port.clone(),
            pod_name: node.name.clone(),
            node: node.name.clone(),
            ..record_in(join, &allocation)
        })
    }

    fn recorded_or_waiting(
        &mut self,
        claimant: Claimant,
        outcome: Result<Ip, Problem>,
        actions: &mut Vec<Action>,
    ) {
        let problem = match outcome {
            Ok(ip) => {
                self.changed.insert(ip.subnet.clone());
                self.busy.insert(ip.name.clone());
                actions.push(Action::Record(ip));
                None
            }
            Err(problem) => Some(problem),
        };
        self.set_waiting(claimant, problem);
    }

    /// An IP object made by hand gets its address like a pod, conflicts included (upstream skipped
    /// that check, and held a chosen address under a wrong name).
    pub(super) fn evaluate_reservation(
        &mut self,
        store: &Store,
        port: &Text,
        seed: u64,
        actions: &mut Vec<Action>,
    ) {
        let claimant = Claimant::Reservation(port.clone());
        let Some(ip) = store.get::<Ip>(port).filter(|ip| !ip.managed && !ip.deleting) else {
            self.set_waiting(claimant, None);
            return;
        };
        if self.busy.contains(port) {
            return;
        }
        let problem = match self.reserve(store, ip, seed) {
            Ok(filled) => {
                self.changed.insert(filled.subnet.clone());
                self.busy.insert(port.clone());
                actions.push(Action::Adopt(filled));
                None
            }
            Err(message) => {
                Some(Problem { kind: Kind::Ip, key: port.clone(), reason: reason::IP, message })
            }
        };
        self.set_waiting(claimant, problem);
    }

    fn reserve(&mut self, store: &Store, ip: &Ip, seed: u64) -> Result<Ip, String> {
        let view = View::new(store);
        let subnet = view.get::<Subnet>(&ip.subnet).ok_or_else(|| {
            format!(
                "NoSubnet: spec.subnet {:?} does not exist or is not valid; create it",
                &*ip.subnet
            )
        })?;
        if let Some(found) = validity::conflict(&view, subnet) {
            return Err(format!("subnet {:?}: {}", &*subnet.name, found.message));
        }
        let claimant = claimant_of(ip);
        let known = match &claimant {
            Claimant::Node(node) => *names::node_port(node) == *ip.name,
            Claimant::Pod(_) | Claimant::Machine(_) => {
                let provider = if subnet.is_ovn() { "ovn" } else { &*subnet.provider };
                [provider, &*subnet.provider]
                    .iter()
                    .any(|p| *names::port_name(&ip.pod_name, &ip.namespace, p) == *ip.name)
            }
            _ => true,
        };
        if !known {
            return Err(format!(
                "the name must be <spec.podName>.<spec.namespace>, with the provider of the subnet \
                 for a further network: {:?}",
                names::port_name(&ip.pod_name, &ip.namespace, &subnet.provider)
            ));
        }
        let mac = match ip.mac {
            Some(mac) => MacWish::Static(mac),
            None if subnet.is_ovn() => MacWish::Random(seed),
            None => MacWish::None,
        };
        let request = Request {
            owner: claimant.holder(),
            port: ip.name.clone(),
            subnet: ip.subnet.clone(),
            wish: if ip.addresses.is_empty() { Wish::Any } else { Wish::Static(ip.addresses) },
            mac,
            skip: Vec::new(),
            conflicts: Conflicts::Refuse,
        };
        let allocation = self.ipam.allocate(&request).map_err(|error| error.to_string())?;
        Ok(Ip { addresses: allocation.addresses, mac: allocation.mac, managed: true, ..ip.clone() })
    }

    /// The querier of a subnet with enableMulticastSnoop speaks with an address of the subnet.
    pub(super) fn evaluate_querier(
        &mut self,
        store: &Store,
        name: &Text,
        seed: u64,
        actions: &mut Vec<Action>,
    ) {
        let claimant = Claimant::Querier(name.clone());
        let port: Text = names::mcast_querier_port(name).into();
        let ip = store.get::<Ip>(&port).filter(|ip| ip.managed);
        let subnet = store.get::<Subnet>(name).filter(|s| s.multicast_snoop && s.is_ovn());
        let Some(subnet) = subnet.filter(|s| !s.deleting) else {
            self.set_waiting(claimant.clone(), None);
            if ip.is_some_and(|ip| !ip.deleting) {
                self.delete(&port, actions);
            }
            self.delete_unseen(store, &claimant, actions);
            return;
        };
        if let Some(ip) = ip.filter(|ip| !ip.deleting && !subnet.keeps(&ip.addresses)) {
            self.delete(&ip.name, actions);
            return;
        }
        if ip.is_some() || self.busy.contains(&port) {
            return;
        }
        // A subnet that is refused has no querier; it wakes when the obstacle goes.
        if let Some(found) = validity::conflict(&View::new(store), subnet) {
            self.set_waiting(claimant, Some(found));
            return;
        }
        let request = Request::any(&claimant.holder(), &port, name, seed);
        let outcome = self.ipam.allocate(&request).map_err(|error| Problem {
            kind: Kind::Subnet,
            key: name.clone(),
            reason: "AcquireAddressFailed",
            message: format!("the multicast querier has no address: {error}"),
        });
        let outcome = outcome.map(|allocation| Ip {
            name: port.clone(),
            pod_name: port,
            namespace: "default".into(),
            ..record_in(subnet, &allocation)
        });
        self.recorded_or_waiting(claimant, outcome, actions);
    }
}

/// Why the node gets another join address: the subnet goes, moves, or has one family more.
fn leaves_join(store: &Store, node: &Node, ip: &Ip) -> Option<Problem> {
    let settings = store.get::<Settings>("")?;
    // Without the subnet it is not known what comes: all stays until there is one.
    let join = store.get::<Subnet>(&settings.node_switch)?;
    let families = join.cidrs.families().eq(ip.addresses.families());
    if families && !join.deleting && join.keeps(&ip.addresses) {
        return None;
    }
    Some(Problem {
        kind: Kind::Node,
        key: node.name.clone(),
        reason: "AcquireAddressFailed",
        message: format!(
            "its join address {} leaves with the range of subnet {:?}; the node gets another one",
            ip.addresses, &*join.name
        ),
    })
}
