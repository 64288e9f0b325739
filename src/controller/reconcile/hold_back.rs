//! Changes that are valid in themselves but must not take effect, at least not yet.
//!
//! * A CIDR that would leave recorded addresses outside, or take a range that another subnet has:
//!   the version in force stays, the condition says who is in the way, and the change is let in
//!   when they are gone. Meanwhile no address is given that the new range lacks, or the pods that
//!   replace the last ones would hold it back for ever.
//! * An edit of an address record: the pod has the recorded address, so the text is put right.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::json;

use super::{Reconciler, Step};
use crate::{
    api::{Ip, Kind, Settings, Subnet, Text, names::label},
    controller::ledger::witness,
    store::{
        EventType, Owner, Presence, Problem, Stored, Wanted, last_valid,
        watch::{Change, Seen, What},
    },
};

#[derive(Default)]
pub(super) struct HeldBack {
    /// The newest version of subnets that cannot become it.
    subnets: BTreeMap<Text, Change>,
    /// Records whose text was edited.
    records: BTreeSet<Text>,
}

impl Reconciler {
    /// `None` lets the change pass; otherwise what happens in its place.
    pub(super) fn hold_back(&mut self, change: &Change) -> Option<Option<Step>> {
        match (change.kind, &change.what) {
            (Kind::Subnet, What::Upsert(object, seen)) => {
                let new = object.as_any().downcast_ref::<Subnet>()?;
                let held = self.hold_back_subnet(change, new, seen);
                if held.is_none() {
                    self.held_back.subnets.remove(&change.key);
                }
                held
            }
            (Kind::Subnet, _) => {
                self.held_back.subnets.remove(&change.key);
                None
            }
            (Kind::Ip, What::Upsert(object, _)) => {
                let new = object.as_any().downcast_ref::<Ip>()?;
                self.keep_record(new).map(Some)
            }
            (Kind::Ip, What::Refused(_, seen)) => self.keep_unreadable(&change.key, seen).map(Some),
            (Kind::Ip, _) => {
                self.forget_edit(&change.key);
                None
            }
            _ => None,
        }
    }

    fn hold_back_subnet(
        &mut self,
        change: &Change,
        new: &Subnet,
        seen: &Seen,
    ) -> Option<Option<Step>> {
        let key = &change.key;
        let Some(current) = self.store.get::<Subnet>(key) else {
            // Whether addresses are in the way is known when all records are.
            let settings = self.store.get::<Settings>("")?;
            let status = seen.status.as_ref()?.value();
            let recorded = last_valid::other_range(new, &status, settings)?;
            self.held_back.subnets.insert(key.clone(), change.clone());
            return Some(Some(Step::Upsert(Arc::new(recorded))));
        };
        let refusal = self.ledger.subnet_refusal(&self.store, new)?;
        let (deleting, renumbering) = (new.deleting, refusal.next);
        let step = Subnet { deleting, renumbering, ..current.clone() };
        self.held_back.subnets.insert(key.clone(), change.clone());
        self.note_ledger_problem(Kind::Subnet, key, Some(refusal.problem));
        Some(Some(Step::Upsert(Arc::new(step))))
    }

    /// Why the newest version of a subnet is not in force.
    pub(super) fn held_back_problem(&self, kind: Kind, key: &Text) -> Option<Problem> {
        let change = self.held_back.subnets.get(key).filter(|_| kind == Kind::Subnet)?;
        let What::Upsert(object, _) = &change.what else { return None };
        let new = object.as_any().downcast_ref::<Subnet>()?;
        self.ledger.subnet_refusal(&self.store, new).map(|refusal| refusal.problem)
    }

    /// Lets in what nothing stands against any more.
    pub(super) fn let_in(&mut self) {
        if !self.unsynced.is_empty() {
            return;
        }
        for change in self.held_back.subnets.values().cloned().collect::<Vec<_>>() {
            let What::Upsert(object, _) = &change.what else { continue };
            let Some(new) = object.as_any().downcast_ref::<Subnet>() else { continue };
            if let Some(refusal) = self.ledger.subnet_refusal(&self.store, new) {
                self.note_ledger_problem(Kind::Subnet, &change.key, Some(refusal.problem));
                continue;
            }
            self.held_back.subnets.remove(&change.key);
            self.accepted.note(&change);
            self.apply(vec![Step::Upsert(Arc::clone(object))]);
        }
    }

    /// The record as it was, with what users may change.
    fn keep_record(&mut self, new: &Ip) -> Option<Step> {
        let old = self.store.get::<Ip>(&new.name).filter(|old| old.managed)?;
        let identity = |ip: &Ip| {
            let texts = [&ip.subnet, &ip.namespace, &ip.pod_name, &ip.pod_type].map(Text::clone);
            (texts, ip.addresses, ip.mac, ip.managed)
        };
        if identity(old) == identity(new) {
            self.forget_edit(&new.name);
            return None;
        }
        let kept = Ip {
            node: new.node.clone(),
            reserved: new.reserved,
            deleting: new.deleting,
            ..old.clone()
        };
        self.put_right(&kept);
        Some(Step::Upsert(Arc::new(kept) as Arc<dyn Stored>))
    }

    /// The same of a text that cannot be read any more.
    fn keep_unreadable(&mut self, name: &Text, seen: &Seen) -> Option<Step> {
        let old = self.store.get::<Ip>(name).filter(|old| old.managed)?;
        let reserved = seen.labels.get(label::IP_RESERVED).is_some_and(|v| &**v == "true");
        let kept = Ip { reserved, deleting: seen.deleting, ..old.clone() };
        self.put_right(&kept);
        Some(Step::Upsert(Arc::new(kept) as Arc<dyn Stored>))
    }

    /// Records that contradict what is in use, at the begin of leadership.
    pub(super) fn hear_witnesses(&mut self) {
        let ports = witness::ports(self.commit.replica());
        let heard = witness::hear(&self.store, &self.seen, &ports);
        self.ledger.take_heard(&heard);
        let restored = heard.restored.into_iter().map(|ip| {
            tracing::warn!(ip = &*ip.name, addresses = %ip.addresses, "record put right");
            self.put_right(&ip);
            Step::Upsert(Arc::new(ip) as Arc<dyn Stored>)
        });
        let steps = restored.collect();
        self.apply(steps);
    }

    fn put_right(&mut self, kept: &Ip) {
        let (kind, key) = (Kind::Ip, kept.name.clone());
        let spec = json!({
            "podName": &*kept.pod_name,
            "namespace": &*kept.namespace,
            "subnet": &*kept.subnet,
            "podType": &*kept.pod_type,
            "ipAddress": kept.addresses.to_string(),
            "v4IpAddress": kept.addresses.v4.map(|a| a.to_string()).unwrap_or_default(),
            "v6IpAddress": kept.addresses.v6.map(|a| a.to_string()).unwrap_or_default(),
            "macAddress": kept.mac.map(|m| m.to_string()).unwrap_or_default(),
        });
        let event = Wanted::Event {
            kind,
            key: key.clone(),
            reason: "RecordRestored",
            message: "the spec and the finalizer of an address record cannot be changed; delete \
                      the IP to have another address given"
                .to_owned(),
            event: EventType::Warning,
        };
        let presence = Presence::Present;
        let wanted = vec![
            Wanted::Spec { kind, key: key.clone(), spec },
            Wanted::Finalizer { kind, key: key.clone(), presence },
            event,
        ];
        self.publisher.reconcile(&record_owner(&key), wanted, Vec::new());
        self.held_back.records.insert(key);
    }

    fn forget_edit(&mut self, key: &Text) {
        if self.held_back.records.remove(key) {
            self.publisher.reconcile(&record_owner(key), Vec::new(), Vec::new());
        }
    }
}

fn record_owner(key: &Text) -> Owner {
    Owner { feature: "record", kind: Kind::Ip, key: key.clone() }
}
