//! Indexes of a table of the replica: from a value to the rows that hold it.
//!
//! A value may have several rows for a moment even where the schema makes it unique (one update
//! deletes a row and inserts its successor, in any order), or for long (`Logical_Switch.name`).

use std::{collections::HashMap, hash::Hash, sync::Arc};

use crate::ovsdb::{
    datum::{Datum, Uuid},
    schema::{Column, Table},
};

/// Rows of one value, ascending.
#[derive(Debug)]
enum Slot {
    One(Uuid),
    Many(Vec<Uuid>),
}

impl Slot {
    fn as_slice(&self) -> &[Uuid] {
        match self {
            Slot::One(uuid) => std::slice::from_ref(uuid),
            Slot::Many(uuids) => uuids,
        }
    }
}

#[derive(Debug)]
struct Index<K>(HashMap<K, Slot>);

impl<K: Hash + Eq> Index<K> {
    fn insert(&mut self, key: K, uuid: Uuid) {
        let slot = match self.0.get(&key) {
            None => Slot::One(uuid),
            Some(slot) => {
                let mut all = slot.as_slice().to_vec();
                all.push(uuid);
                all.sort_unstable();
                all.dedup();
                Slot::Many(all)
            }
        };
        self.0.insert(key, slot);
    }

    fn remove(&mut self, key: &K, uuid: Uuid) {
        let Some(slot) = self.0.get_mut(key) else { return };
        let left: Vec<Uuid> = slot.as_slice().iter().filter(|u| **u != uuid).copied().collect();
        match left.as_slice() {
            [] => {
                self.0.remove(key);
            }
            [one] => *slot = Slot::One(*one),
            _ => *slot = Slot::Many(left),
        }
    }

    fn change(&mut self, before: Option<(Uuid, K)>, after: Option<(Uuid, K)>) {
        if before == after {
            return;
        }
        if let Some((uuid, key)) = before {
            self.remove(&key, uuid);
        }
        if let Some((uuid, key)) = after {
            self.insert(key, uuid);
        }
    }
}

/// Rows by one text: a column's only value, or a value of a map column.
#[derive(Debug)]
pub(super) struct TextIndex {
    pub(super) column: Column,
    index: Index<Arc<str>>,
}

impl TextIndex {
    pub(super) fn new(column: Column) -> Self {
        TextIndex { column, index: Index(HashMap::new()) }
    }

    pub(super) fn find(&self, text: &str) -> &[Uuid] {
        self.index.0.get(text).map(Slot::as_slice).unwrap_or_default()
    }

    pub(super) fn change(
        &mut self,
        before: Option<(Uuid, Option<Arc<str>>)>,
        after: Option<(Uuid, Option<Arc<str>>)>,
    ) {
        let keyed = |x: Option<(Uuid, Option<Arc<str>>)>| x.and_then(|(u, k)| Some((u, k?)));
        self.index.change(keyed(before), keyed(after));
    }

    pub(super) fn clear(&mut self) {
        self.index.0 = HashMap::new();
    }
}

/// Rows by the values of several columns.
#[derive(Debug)]
pub(super) struct ColumnIndex {
    pub(super) columns: Vec<Column>,
    index: Index<Vec<Arc<Datum>>>,
}

impl ColumnIndex {
    pub(super) fn new(table: &'static Table, group: &[u16]) -> Self {
        let columns = group.iter().map(|index| Column { table, index: *index }).collect();
        ColumnIndex { columns, index: Index(HashMap::new()) }
    }

    /// `None` too when `key` does not name exactly the columns of this index.
    pub(super) fn find(&self, key: &[(Column, Datum)]) -> Option<Uuid> {
        if key.len() != self.columns.len() {
            return None;
        }
        let value = |c: &Column| key.iter().find(|(k, _)| k == c).map(|(_, d)| Arc::new(d.clone()));
        let values: Option<Vec<_>> = self.columns.iter().map(value).collect();
        self.index.0.get(&values?)?.as_slice().first().copied()
    }

    pub(super) fn change(
        &mut self,
        before: Option<(Uuid, Vec<Arc<Datum>>)>,
        after: Option<(Uuid, Vec<Arc<Datum>>)>,
    ) {
        self.index.change(before, after);
    }

    pub(super) fn clear(&mut self) {
        self.index.0 = HashMap::new();
    }
}
