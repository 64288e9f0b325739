//! What is published of subnets and pools from the ledger: counters, ranges, defaults, problems.
//! Counters are derived from what is held, never counted up.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Map, Value, json};

use super::Reconciler;
use crate::{
    api::{
        Gateway, Ip, IpPool, Kind, Node, Settings, Subnet, Text, crd, names,
        parse::{applied_nat_rules, subnet_defaults},
    },
    controller::ledger::{Action, Claimant, claimant_of},
    ipam::Usage,
    net::{DualStack, Family},
    ovn::{keys, validity},
    store::{Owner, Problem, Store, View, Wanted, last_valid},
};

impl Reconciler {
    /// Subnets and pools whose usage changed since the last tick.
    pub(super) fn publish_usage(&mut self) {
        let mut pools = self.ledger.take_pool_news();
        for subnet in self.ledger.take_changed() {
            pools.extend(self.ledger.ipam().pools_of(&subnet).cloned());
            self.publish_ledger(Kind::Subnet, &subnet);
        }
        for pool in pools {
            self.publish_ledger(Kind::IpPool, &pool);
        }
    }

    /// What the ledger knows of a subnet or pool.
    pub(super) fn publish_ledger(&mut self, kind: Kind, key: &Text) {
        let owner = Owner { feature: "ledger", kind, key: key.clone() };
        let mut problems: Vec<Problem> =
            self.ledger_problems.get(&(kind, key.clone())).cloned().into_iter().collect();
        let accepted = self.accepted.get(kind, key).and_then(|seen| seen.spec.as_ref());
        // Its own feature says the same, but only when what it wanted before is committed: until
        // then the subnet would be Ready, and nodes would act on it.
        let obstacle = obstacle(&self.store, kind, key);
        let accepted = accepted.filter(|_| obstacle.is_none());
        problems.extend(obstacle);
        let record = accepted.and_then(|s| last_valid::desired_record(kind, key, s.text()));
        let mut wanted: Vec<Wanted> = record.into_iter().collect();
        match kind {
            Kind::Subnet => {
                wanted.extend(self.usage(key));
                wanted.extend(self.defaults(key));
            }
            Kind::IpPool => {
                problems.extend(self.ledger.pool_problem(key).cloned());
                wanted.extend(self.pool_usage(key));
            }
            _ => {}
        }
        self.publisher.reconcile(&owner, wanted, problems);
    }

    /// Defaults of a subnet, written back to its spec.
    fn defaults(&self, name: &Text) -> Option<Wanted> {
        let settings = self.store.get::<Settings>("")?;
        let spec = self.seen.get(Kind::Subnet, name)?.spec.as_ref()?.value();
        let raw = crd::Subnet::new(name, serde_json::from_value(spec).ok()?);
        let spec = subnet_defaults(&raw, settings)?;
        Some(Wanted::Spec { kind: Kind::Subnet, key: name.clone(), spec })
    }

    /// Counters and ranges of a subnet, its DHCP rows, its querier, and the active gateway.
    fn usage(&self, subnet: &Text) -> Option<Wanted> {
        self.store.get::<Subnet>(subnet)?;
        let mut status = counters(&self.ledger.ipam().usage(subnet), "IPrange");
        for family in Family::BOTH {
            let key = keys::dhcp_options(subnet, family);
            let row = self.commit.replica().by_id(key.table, &key.id);
            let uuid = row.map(|row| row.uuid.to_string()).unwrap_or_default();
            status.insert(format!("dhcpV{}OptionsUUID", family.digit()), json!(uuid));
        }
        let querier = self.store.get::<Ip>(&names::mcast_querier_port(subnet));
        let querier = querier.filter(|ip| ip.managed && !ip.deleting);
        let address = querier.map(|ip| ip.addresses.to_string());
        status.insert("mcastQuerierIP".into(), json!(address.unwrap_or_default()));
        let mac = querier.and_then(|ip| ip.mac).map(|mac| mac.to_string());
        status.insert("mcastQuerierMAC".into(), json!(mac.unwrap_or_default()));
        let active = self.store.get::<Gateway>(subnet).map(|g| g.active.join(","));
        status.insert("activateGateway".into(), json!(active.unwrap_or_default()));
        if let Some(spec) = self.seen.get(Kind::Subnet, subnet).and_then(|s| s.spec.as_ref())
            && let Ok(spec) = serde_json::from_value::<crd::SubnetSpec>(spec.value())
        {
            let rules = applied_nat_rules(subnet, &spec);
            status.insert("natOutgoingPolicyRules".into(), json!(rules));
        }
        Some(Wanted::Status { kind: Kind::Subnet, key: subnet.clone(), status: status.into() })
    }

    fn pool_usage(&self, pool: &Text) -> Option<Wanted> {
        self.store.get::<IpPool>(pool)?;
        let status = counters(&self.ledger.ipam().pool_usage(pool), "IPRange");
        // The same fields, in other letters than a Subnet's.
        let status: Map<String, Value> = status
            .into_iter()
            .map(|(k, v)| {
                (k.replacen("available", "Available", 1).replacen("using", "Using", 1), v)
            })
            .collect();
        Some(Wanted::Status { kind: Kind::IpPool, key: pool.clone(), status: status.into() })
    }

    /// Whose address an action is about.
    pub(super) fn claimant(&self, action: &Action) -> Claimant {
        match action {
            Action::Record(ip) => claimant_of(ip),
            Action::Adopt(ip) => Claimant::Reservation(ip.name.clone()),
            Action::Delete(port) | Action::Finalize(port) => {
                let known = self.store.get::<Ip>(port).map(claimant_of);
                let held = known.or_else(|| self.ledger.claimant_of_port(port));
                held.unwrap_or_else(|| Claimant::Reservation(port.clone()))
            }
        }
    }

    /// The object that the record goes with.
    pub(super) fn owner_reference(&self, claimant: &Claimant) -> Option<OwnerReference> {
        let reference = |api_version: String, kind: &str, name: &Text, uid: &Text| OwnerReference {
            api_version,
            kind: kind.into(),
            name: name.to_string(),
            uid: uid.to_string(),
            ..OwnerReference::default()
        };
        match claimant {
            Claimant::Node(name) => {
                let node = self.store.get::<Node>(name)?;
                Some(reference("v1".into(), "Node", name, &node.uid))
            }
            Claimant::Querier(name) => {
                let subnet = self.store.get::<Subnet>(name)?;
                let version = format!("{}/{}", names::GROUP, names::VERSION);
                Some(reference(version, "Subnet", name, &subnet.uid))
            }
            _ => None,
        }
    }
}

/// What stands against the object as it is: what another one is in the way of is not in force, and
/// nodes, which go by the record, must not act on it.
pub fn obstacle(store: &Store, kind: Kind, key: &str) -> Option<Problem> {
    let subnet = store.get::<Subnet>(key).filter(|_| kind == Kind::Subnet)?;
    validity::conflict(&View::new(store), subnet)
}

/// `v4availableIPs`, `v4usingIPrange` ... of both families; zero and empty for one that is missing.
fn counters(usage: &DualStack<Usage>, range: &str) -> Map<String, Value> {
    let mut status = Map::new();
    for family in Family::BOTH {
        let v = family.digit();
        let of = usage.get(family);
        status.insert(
            format!("v{v}availableIPs"),
            crd::Count(of.map_or(0, |u| u.available)).stored(),
        );
        status.insert(format!("v{v}usingIPs"), crd::Count(of.map_or(0, |u| u.using)).stored());
        let text = |t: Option<&String>| json!(t.cloned().unwrap_or_default());
        status.insert(format!("v{v}available{range}"), text(of.map(|u| &u.available_ranges)));
        status.insert(format!("v{v}using{range}"), text(of.map(|u| &u.using_ranges)));
    }
    status
}
