use std::{cell::RefCell, collections::BTreeSet};

use crate::api::{Index, Kind, Object, Text};

use super::Store;

/// One thing that a feature looked at: an object (present or not), or the membership of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Read {
    Object(Kind, Text),
    Bucket(Kind, Index, Text),
}

/// A window on the store that remembers what was read through it. A change of any of that re-runs
/// the owner that read it, and nobody else.
pub struct View<'a> {
    store: &'a Store,
    reads: RefCell<BTreeSet<Read>>,
}

impl<'a> View<'a> {
    pub fn new(store: &'a Store) -> Self {
        View { store, reads: RefCell::default() }
    }

    pub fn get<T: Object>(&self, key: &str) -> Option<&'a T> {
        self.reads.borrow_mut().insert(Read::Object(T::KIND, key.into()));
        self.store.get(key)
    }

    /// Keys in a bucket. Only the membership is recorded, not the content of the members.
    pub fn keys<T: Object>(&self, index: Index, value: &str) -> impl Iterator<Item = &'a Text> {
        self.reads.borrow_mut().insert(Read::Bucket(T::KIND, index, value.into()));
        self.store.bucket(T::KIND, index, value).into_iter().flatten()
    }

    /// Values of a facet, each once; only their coming and going is recorded.
    pub fn values<T: Object>(&self, index: Index, bucket: &str) -> impl Iterator<Item = &'a Text> {
        self.reads.borrow_mut().insert(Read::Bucket(T::KIND, index, bucket.into()));
        self.store.facet(T::KIND, index, bucket)
    }

    /// Objects in a bucket; the membership and every member are recorded.
    pub fn list<T: Object>(&self, index: Index, value: &str) -> Vec<&'a T> {
        self.keys::<T>(index, value).filter_map(|key| self.get(key)).collect()
    }

    /// All objects of a kind; the membership and every member are recorded.
    pub fn all<T: Object>(&self) -> Vec<&'a T> {
        self.list(Index::All, "")
    }

    /// What was read, for the engine.
    pub fn into_reads(self) -> BTreeSet<Read> {
        self.reads.into_inner()
    }
}
