//! Who wants a thing: nearly always one owner, so a sorted vector of exactly that size. A leaf of
//! a `BTreeMap` has room for eleven; with ten thousand pods that was most of the engine's memory
//! (15 KB a pod, 8 KB now).

use crate::store::Owner;

/// A value of each owner, ordered by owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims<T>(Vec<(Owner, T)>);

impl<T> Default for Claims<T> {
    fn default() -> Self {
        Claims(Vec::new())
    }
}

impl<T> Claims<T> {
    /// The claim of the lowest owner counts where only one can.
    pub fn first(&self) -> Option<&T> {
        self.0.first().map(|(_, value)| value)
    }

    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.0.iter().map(|(owner, _)| owner)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, owner: &Owner, value: T) {
        match self.0.binary_search_by(|(o, _)| o.cmp(owner)) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, (owner.clone(), value));
            }
        }
    }

    pub(super) fn remove(&mut self, owner: &Owner) {
        if let Ok(at) = self.0.binary_search_by(|(o, _)| o.cmp(owner)) {
            self.0.remove(at);
        }
    }
}
