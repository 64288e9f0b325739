use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::store::Owner;

use super::{Cause, Touch};

/// Touches that wait for a transaction, in the order in which their owners were first touched:
/// the removal of an old port is committed no later than the port that reuses its address.
#[derive(Debug, Default)]
pub struct Pending {
    queue: VecDeque<Owner>,
    touches: BTreeMap<Owner, (Cause, BTreeSet<Touch>)>,
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

    /// Two halves, for the bisection of a refused transaction.
    pub fn halves(mut self) -> (Batch, Batch) {
        let rest = self.owners.split_off(self.owners.len() / 2);
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
        self.touches.insert(owner, (cause, touches));
    }

    /// Puts a batch back in front, in its order.
    pub fn restore(&mut self, batch: Batch) {
        for (owner, cause, touches) in batch.owners.into_iter().rev() {
            if let Some((old, all)) = self.touches.get_mut(&owner) {
                *old = (*old).min(cause);
                all.extend(touches);
                self.queue.retain(|o| *o != owner);
            } else {
                self.touches.insert(owner.clone(), (cause, touches));
            }
            self.queue.push_front(owner);
        }
    }

    /// Takes up to `limit` owners off the front, skipping those that `blocked` names.
    pub fn take(&mut self, limit: usize, blocked: impl Fn(&Owner) -> bool) -> Batch {
        let mut batch = Batch::default();
        let mut kept = VecDeque::new();
        while let Some(owner) = self.queue.pop_front() {
            if batch.owners.len() >= limit {
                kept.push_back(owner);
                break;
            }
            if blocked(&owner) {
                kept.push_back(owner);
                continue;
            }
            if let Some((cause, touches)) = self.touches.remove(&owner) {
                batch.owners.push((owner, cause, touches));
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
