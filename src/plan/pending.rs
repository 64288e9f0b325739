use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::{
    api::{Kind, Text},
    store::Owner,
};

use super::{Cause, Touch};

/// Touches that wait for a transaction, in the order in which their owners were first touched:
/// the removal of an old port is committed no later than the port that reuses its address.
#[derive(Debug, Default)]
pub struct Pending {
    /// May name owners that have gone already, with another one of their object.
    queue: VecDeque<Owner>,
    touches: BTreeMap<Owner, (Cause, BTreeSet<Touch>)>,
    /// Features with touches, by object.
    features: HashMap<(Kind, Text), BTreeSet<&'static str>>,
}

fn object(owner: &Owner) -> (Kind, Text) {
    (owner.kind, owner.key.clone())
}

/// Owners that go into one transaction.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    pub owners: Vec<(Owner, Cause, BTreeSet<Touch>)>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    pub fn len(&self) -> usize {
        self.owners.len()
    }

    pub fn touches(&self) -> BTreeSet<&Touch> {
        self.owners.iter().flat_map(|(_, _, t)| t).collect()
    }

    /// Two halves, for the bisection of a refused transaction. Owners of one object stay together
    /// unless there is no other object.
    pub fn halves(mut self) -> (Batch, Batch) {
        let middle = self.owners.len() / 2;
        let between = |at: &usize| object(&self.owners[*at].0) != object(&self.owners[at - 1].0);
        let after = (middle.max(1)..self.owners.len()).find(between);
        let at = after.or_else(|| (1..middle).rev().find(between)).unwrap_or(middle);
        let rest = self.owners.split_off(at);
        (self, Batch { owners: rest })
    }
}

impl Pending {
    pub fn add(&mut self, owner: Owner, cause: Cause, touches: BTreeSet<Touch>) {
        if touches.is_empty() {
            return;
        }
        if let Some((old, all)) = self.touches.get_mut(&owner) {
            *old = (*old).min(cause);
            all.extend(touches);
            return;
        }
        self.queue.push_back(owner.clone());
        self.features.entry(object(&owner)).or_default().insert(owner.feature);
        self.touches.insert(owner, (cause, touches));
    }

    fn remove(&mut self, owner: &Owner) -> Option<(Cause, BTreeSet<Touch>)> {
        let found = self.touches.remove(owner)?;
        if let Some(features) = self.features.get_mut(&object(owner)) {
            features.remove(owner.feature);
            if features.is_empty() {
                self.features.remove(&object(owner));
            }
        }
        Some(found)
    }

    /// Puts a batch back in front, in its order.
    pub fn restore(&mut self, batch: Batch) {
        for (owner, cause, touches) in batch.owners.into_iter().rev() {
            if let Some((old, all)) = self.touches.get_mut(&owner) {
                *old = (*old).min(cause);
                all.extend(touches);
                self.queue.retain(|o| *o != owner);
            } else {
                self.features.entry(object(&owner)).or_default().insert(owner.feature);
                self.touches.insert(owner.clone(), (cause, touches));
            }
            self.queue.push_front(owner);
        }
    }

    /// Takes up to `limit` objects off the front, each with all of its owners, skipping owners that
    /// `blocked` names: a port is never committed without the policies that its pod is under.
    pub fn take(&mut self, limit: usize, blocked: impl Fn(&Owner) -> bool) -> Batch {
        let mut batch = Batch::default();
        let mut kept = VecDeque::new();
        let mut objects = 0;
        while let Some(owner) = self.queue.pop_front() {
            if !self.touches.contains_key(&owner) {
                continue;
            }
            if objects >= limit {
                kept.push_back(owner);
                break;
            }
            if blocked(&owner) {
                kept.push_back(owner);
                continue;
            }
            objects += 1;
            let (kind, key) = object(&owner);
            let features = self.features.get(&(kind, key.clone())).cloned().unwrap_or_default();
            let owners =
                features.into_iter().map(|feature| Owner { feature, kind, key: key.clone() });
            for owner in owners.filter(|o| !blocked(o)).collect::<Vec<_>>() {
                if let Some((cause, touches)) = self.remove(&owner) {
                    batch.owners.push((owner, cause, touches));
                }
            }
        }
        kept.append(&mut self.queue);
        self.queue = kept;
        batch
    }

    pub fn contains(&self, owner: &Owner) -> bool {
        self.touches.contains_key(owner)
    }

    /// Owners with their touches, for the fuse.
    pub fn iter(&self) -> impl Iterator<Item = (&Owner, Cause, &BTreeSet<Touch>)> {
        self.touches.iter().map(|(owner, (cause, touches))| (owner, *cause, touches))
    }

    pub fn is_empty(&self) -> bool {
        self.touches.is_empty()
    }

    pub fn len(&self) -> usize {
        self.touches.len()
    }

    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.queue.iter()
    }
}
