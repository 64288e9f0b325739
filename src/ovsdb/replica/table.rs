//! The rows of one table and how updates change them.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use serde_json::Value;

use super::{
    Change, ChangeKind, ReplicaError, Row,
    index::{ColumnIndex, TextIndex},
};
use crate::ovsdb::{
    datum::{Datum, Uuid},
    json::parse_datum,
    schema::{Column, Table},
};

/// The monitored columns of one table and its rows.
#[derive(Debug)]
pub(super) struct TableReplica {
    pub(super) table: &'static Table,
    /// What a row holds in a column that an insert does not name; `None` = not monitored.
    defaults: Box<[Option<Arc<Datum>>]>,
    /// The value decoded last, per column.
    recent: Box<[Option<Arc<Datum>>]>,
    pub(super) rows: HashMap<Uuid, Row>,
    pub(super) by_id: Option<TextIndex>,
    pub(super) by_name: Option<TextIndex>,
    /// Unique column groups other than the name alone.
    pub(super) unique: Vec<ColumnIndex>,
}

impl TableReplica {
    pub(super) fn new(table: &'static Table, columns: &[Column]) -> Self {
        let monitored = |index: usize| {
            columns.iter().any(|c| c.table == table && usize::from(c.index) == index)
        };
        let defaults: Box<[_]> = table
            .columns
            .iter()
            .enumerate()
            .map(|(i, schema)| monitored(i).then(|| Arc::new(schema.default_datum())))
            .collect();
        let indexed = |name: &str| table.column(name).filter(|c| columns.contains(c));
        let name = indexed("name");
        let unique = table
            .indexes
            .iter()
            .filter(|group| group.iter().all(|i| monitored(usize::from(*i))))
            .filter(|group| Some(**group) != name.as_ref().map(|c| std::slice::from_ref(&c.index)))
            .map(|group| ColumnIndex::new(table, group))
            .collect();
        TableReplica {
            table,
            recent: defaults.clone(),
            defaults,
            rows: HashMap::new(),
            // Identities lie in the name where there is no other place for them.
            by_id: match table.column("external_ids") {
                Some(_) => indexed("external_ids").map(TextIndex::new),
                None => name.map(TextIndex::new),
            },
            by_name: name.map(TextIndex::new),
            unique,
        }
    }

    pub(super) fn clear(&mut self) {
        self.rows = HashMap::new();
        self.recent = self.defaults.clone();
        for index in [&mut self.by_id, &mut self.by_name].into_iter().flatten() {
            index.clear();
        }
        self.unique.iter_mut().for_each(ColumnIndex::clear);
    }

    pub(super) fn refuse(&self, row: &str, reason: &'static str) -> ReplicaError {
        ReplicaError::Row { table: self.table.name, row: row.to_owned(), reason }
    }

    pub(super) fn apply(
        &mut self,
        uuid: Uuid,
        update: &Value,
        changes: &mut Vec<Change>,
    ) -> Result<(), ReplicaError> {
        let refuse = |t: &Self, reason| t.refuse(&uuid.to_string(), reason);
        let kind = update.as_object().and_then(|o| o.iter().next());
        let Some((kind, columns)) = kind else {
            return Err(refuse(self, "empty row update"));
        };
        match (kind.as_str(), columns) {
            ("delete", _) => self.delete(uuid, changes),
            ("initial" | "insert", Value::Object(columns)) => {
                let mut row = Row { uuid, table: self.table, columns: self.defaults.clone() };
                for (name, value) in columns {
                    if let Some((column, datum)) = self.parse(name, value)? {
                        self.store(&mut row, column, datum);
                    }
                }
                self.put(row, changes);
            }
            ("modify", Value::Object(columns)) => {
                let Some(mut row) = self.rows.get(&uuid).cloned() else {
                    return Err(refuse(self, "modified before it was inserted"));
                };
                for (name, value) in columns {
                    if let Some((column, diff)) = self.parse(name, value)? {
                        let datum = amend(column, row.get(column), diff);
                        self.store(&mut row, column, datum);
                    }
                }
                self.put(row, changes);
            }
            _ => return Err(refuse(self, "unknown kind of row update")),
        }
        Ok(())
    }

    /// `_uuid` and `_version` are no columns; a server may send them.
    fn parse(&self, name: &str, value: &Value) -> Result<Option<(Column, Datum)>, ReplicaError> {
        match self.table.column(name) {
            Some(column) => Ok(Some((column, parse_datum(column, value)?))),
            None if name.starts_with('_') => Ok(None),
            None => Err(self.refuse(name, "unknown column")),
        }
    }

    fn store(&mut self, row: &mut Row, column: Column, datum: Datum) {
        let index = usize::from(column.index);
        let (Some(slot), Some(recent)) = (row.columns.get_mut(index), self.recent.get_mut(index))
        else {
            return;
        };
        let shared = match recent {
            Some(known) if **known == datum => known.clone(),
            _ => Arc::new(datum),
        };
        *recent = Some(shared.clone());
        *slot = Some(shared);
    }

    fn put(&mut self, row: Row, changes: &mut Vec<Change>) {
        let uuid = row.uuid;
        let before = self.rows.get(&uuid);
        if before == Some(&row) {
            return;
        }
        let before = before.cloned();
        self.index(before.as_ref(), Some(&row));
        let kind = match self.rows.entry(uuid) {
            Entry::Occupied(mut found) => {
                found.insert(row);
                ChangeKind::Modify
            }
            Entry::Vacant(slot) => {
                slot.insert(row);
                ChangeKind::Insert
            }
        };
        changes.push(Change { table: self.table, uuid, kind, before });
    }

    pub(super) fn delete(&mut self, uuid: Uuid, changes: &mut Vec<Change>) {
        let Some(before) = self.rows.remove(&uuid) else { return };
        self.index(Some(&before), None);
        let (table, kind) = (self.table, ChangeKind::Delete);
        changes.push(Change { table, uuid, kind, before: Some(before) });
    }

    fn index(&mut self, before: Option<&Row>, after: Option<&Row>) {
        if let Some(index) = &mut self.by_id {
            let key = |row: &Row| row.id().cloned();
            index.change(before.map(|r| (r.uuid, key(r))), after.map(|r| (r.uuid, key(r))));
        }
        if let Some(index) = &mut self.by_name {
            let key = |row: &Row| row.text(index.column).cloned();
            index.change(before.map(|r| (r.uuid, key(r))), after.map(|r| (r.uuid, key(r))));
        }
        for index in &mut self.unique {
            let key =
                |row: &Row| index.columns.iter().filter_map(|c| row.shared(*c).cloned()).collect();
            index.change(before.map(|r| (r.uuid, key(r))), after.map(|r| (r.uuid, key(r))));
        }
    }
}

/// The value after a `modify`: a column of at most one element is replaced. Of a set, the
/// elements of `diff` change sides. Of a map, an entry of `diff` is inserted if its key is new,
/// deleted if it is there with the same value, replaced otherwise.
fn amend(column: Column, old: Option<&Datum>, diff: Datum) -> Datum {
    if column.schema().is_single() {
        return diff;
    }
    match (old, diff) {
        (Some(Datum::Set(old)), Datum::Set(diff)) => {
            Datum::Set(old.symmetric_difference(&diff).cloned().collect())
        }
        (Some(Datum::Map(old)), Datum::Map(diff)) => {
            let mut map = old.clone();
            for (key, value) in diff {
                if map.get(&key) == Some(&value) {
                    map.remove(&key);
                } else {
                    map.insert(key, value);
                }
            }
            Datum::Map(map)
        }
        (_, diff) => diff,
    }
}
