//! A copy of the monitored columns of a database, kept current by `update2`/`update3`
//! notifications (ovsdb-server(7), section 4.1.13 to 4.1.15), with indexes.
//!
//! Pure: the owner hands in what the client received. Values that consecutive rows share (a
//! type, a flag, an empty map) are stored once.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
};

use serde_json::{Value, value::RawValue};

use super::{
    datum::{Datum, Uuid},
    index::{ColumnIndex, TextIndex},
    json::{DecodeError, parse_datum},
    row::ID_KEY,
    schema::{Column, Database, Table},
};

/// Table updates as the server sent them.
#[derive(Debug, Clone)]
pub struct Update {
    pub scope: Scope,
    /// `<table-updates2>`: table -> row UUID -> `{"initial"|"insert"|"modify"|"delete": ..}`.
    pub tables: Arc<RawValue>,
    /// The transaction up to which the replica is then current. A standalone database has none.
    pub transaction: Option<Uuid>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole content: rows that it does not name are gone.
    Snapshot,
    /// Differences from the state before.
    Delta,
}

/// What happened to one row.
#[derive(Debug, Clone)]
pub struct Change {
    pub table: &'static Table,
    pub uuid: Uuid,
    pub kind: ChangeKind,
    /// The row before, of a modification and of a deletion.
    pub before: Option<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Insert,
    Modify,
    Delete,
}

/// The update does not fit. The replica must be replaced by a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    #[error("{0}")]
    Value(#[from] DecodeError),
    #[error("table {table}, row {row}: {reason}")]
    Row { table: &'static str, row: String, reason: &'static str },
    #[error("table {0} is not monitored")]
    Table(String),
    #[error("malformed update: {0}")]
    Malformed(String),
}

/// A row: its UUID and the monitored columns. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub uuid: Uuid,
    table: &'static Table,
    columns: Box<[Option<Arc<Datum>>]>,
}

impl Row {
    /// The value of a column, if the column is monitored and of this row's table.
    pub fn get(&self, column: Column) -> Option<&Datum> {
        self.shared(column).map(|d| &**d)
    }

    fn shared(&self, column: Column) -> Option<&Arc<Datum>> {
        if column.table != self.table {
            return None;
        }
        self.columns.get(usize::from(column.index))?.as_ref()
    }

    pub fn table(&self) -> &'static Table {
        self.table
    }

    /// The only text of a scalar or optional text column.
    pub fn text(&self, column: Column) -> Option<&Arc<str>> {
        self.get(column)?.text()
    }

    /// A value of a text map.
    pub fn entry(&self, column: Column, key: &str) -> Option<&Arc<str>> {
        self.get(column)?.entry(key)
    }

    /// `external_ids:kube-ovn/id`, if that column is monitored.
    pub fn id(&self) -> Option<&Arc<str>> {
        self.entry(self.table.column("external_ids")?, ID_KEY)
    }
}

/// The monitored columns of one table and its rows.
#[derive(Debug)]
struct TableReplica {
    table: &'static Table,
    /// What a row holds in a column that an insert does not name; `None` = not monitored.
    defaults: Box<[Option<Arc<Datum>>]>,
    /// The value decoded last, per column.
    recent: Box<[Option<Arc<Datum>>]>,
    rows: HashMap<Uuid, Row>,
    by_id: Option<TextIndex>,
    by_name: Option<TextIndex>,
    /// Unique column groups other than the name alone.
    unique: Vec<ColumnIndex>,
}

/// A database as the server showed it.
#[derive(Debug)]
pub struct Replica {
    database: &'static Database,
    tables: Vec<TableReplica>,
    transaction: Option<Uuid>,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Current,
    /// Differences are ignored until a snapshot comes.
    Void,
}

impl Replica {
    /// An empty replica of these columns.
    pub fn new(
        database: &'static Database,
        monitored: &[(&'static Table, &'static [Column])],
    ) -> Self {
        let tables = monitored.iter().map(|(t, c)| TableReplica::new(t, c)).collect();
        Replica { database, tables, transaction: None, standing: Standing::Current }
    }

    pub fn database(&self) -> &'static Database {
        self.database
    }

    /// The transaction up to which the content is current.
    pub fn transaction(&self) -> Option<Uuid> {
        self.transaction
    }

    /// `false` after an error or [`Replica::clear`], until the next snapshot.
    pub fn is_current(&self) -> bool {
        self.standing == Standing::Current
    }

    /// Forgets all rows and waits for a snapshot.
    pub fn clear(&mut self) {
        self.transaction = None;
        self.standing = Standing::Void;
        for table in &mut self.tables {
            table.clear();
        }
    }

    /// Applies an update and says which rows changed, in no particular order. A snapshot
    /// reports only what differs from the content before. After an error the content is
    /// unspecified and further differences are ignored until the next snapshot.
    pub fn apply(&mut self, update: &Update) -> Result<Vec<Change>, ReplicaError> {
        if update.scope == Scope::Delta && self.standing == Standing::Void {
            return Ok(Vec::new());
        }
        let changes = self.amend_tables(update);
        self.standing = if changes.is_ok() { Standing::Current } else { Standing::Void };
        changes
    }

    fn amend_tables(&mut self, update: &Update) -> Result<Vec<Change>, ReplicaError> {
        let malformed = |e: serde_json::Error| ReplicaError::Malformed(e.to_string());
        let tables: BTreeMap<String, BTreeMap<String, &RawValue>> =
            serde_json::from_str(update.tables.get()).map_err(malformed)?;
        let mut changes = Vec::new();
        let mut seen = Vec::new();
        for (name, rows) in tables {
            let position = self.tables.iter().position(|t| t.table.name == name);
            let Some(table) = position.and_then(|p| self.tables.get_mut(p)) else {
                return Err(ReplicaError::Table(name));
            };
            for (text, raw) in rows {
                let uuid: Uuid = text.parse().map_err(|_| table.refuse(&text, "bad UUID"))?;
                let value: Value = serde_json::from_str(raw.get()).map_err(malformed)?;
                if update.scope == Scope::Snapshot {
                    seen.push(uuid);
                }
                table.apply(uuid, &value, &mut changes)?;
            }
        }
        if update.scope == Scope::Snapshot {
            self.retain(seen, &mut changes);
        }
        self.transaction = update.transaction;
        Ok(changes)
    }

    /// Deletes what a snapshot did not name.
    fn retain(&mut self, seen: Vec<Uuid>, changes: &mut Vec<Change>) {
        let seen: std::collections::HashSet<Uuid> = seen.into_iter().collect();
        for table in &mut self.tables {
            let gone: Vec<Uuid> =
                table.rows.keys().filter(|u| !seen.contains(u)).copied().collect();
            for uuid in gone {
                table.delete(uuid, changes);
            }
        }
    }

    fn table(&self, table: &'static Table) -> Option<&TableReplica> {
        self.tables.iter().find(|t| t.table == table)
    }

    /// All rows of a table, in no particular order.
    pub fn rows(&self, table: &'static Table) -> impl Iterator<Item = &Row> {
        self.table(table).into_iter().flat_map(|t| t.rows.values())
    }

    pub fn len(&self, table: &'static Table) -> usize {
        self.table(table).map_or(0, |t| t.rows.len())
    }

    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(|t| t.rows.is_empty())
    }

    pub fn get(&self, table: &'static Table, uuid: Uuid) -> Option<&Row> {
        self.table(table)?.rows.get(&uuid)
    }

    /// The only row of a singleton table (`NB_Global`).
    pub fn singleton(&self, table: &'static Table) -> Option<&Row> {
        self.rows(table).next()
    }

    /// The row whose `external_ids:kube-ovn/id` is `id`; of several the one with the lowest
    /// UUID.
    pub fn by_id(&self, table: &'static Table, id: &str) -> Option<&Row> {
        self.all_by_id(table, id).next()
    }

    /// All rows that carry this `external_ids:kube-ovn/id`: more than one after somebody copied
    /// a row.
    pub fn all_by_id<'a>(
        &'a self,
        table: &'static Table,
        id: &str,
    ) -> impl Iterator<Item = &'a Row> + use<'a> {
        let table = self.table(table);
        let uuids = table.and_then(|t| t.by_id.as_ref()).map(|i| i.find(id)).unwrap_or_default();
        uuids.iter().filter_map(move |u| table?.rows.get(u))
    }

    /// The row with this `name`; of several the one with the lowest UUID.
    pub fn by_name(&self, table: &'static Table, name: &str) -> Option<&Row> {
        self.all_by_name(table, name).next()
    }

    /// All rows with this `name`, which the schema need not make unique (`Logical_Switch`).
    pub fn all_by_name<'a>(
        &'a self,
        table: &'static Table,
        name: &str,
    ) -> impl Iterator<Item = &'a Row> + use<'a> {
        let table = self.table(table);
        let uuids =
            table.and_then(|t| t.by_name.as_ref()).map(|i| i.find(name)).unwrap_or_default();
        uuids.iter().filter_map(move |u| table?.rows.get(u))
    }

    /// The row that holds `key` in the columns of a unique index of the schema (for instance
    /// `BFD`: `logical_port`, `dst_ip`). The columns may be given in any order.
    pub fn by_unique(&self, table: &'static Table, key: &[(Column, Datum)]) -> Option<&Row> {
        let table = self.table(table)?;
        if let [(column, datum)] = key
            && column.name() == "name"
            && let (Some(index), Some(text)) = (&table.by_name, datum.text())
        {
            return table.rows.get(index.find(text).first()?);
        }
        let uuid = table.unique.iter().find_map(|index| index.find(key))?;
        table.rows.get(&uuid)
    }
}

impl TableReplica {
    fn new(table: &'static Table, columns: &[Column]) -> Self {
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
            by_id: indexed("external_ids").map(TextIndex::new),
            by_name: name.map(TextIndex::new),
            unique,
        }
    }

    fn clear(&mut self) {
        self.rows = HashMap::new();
        self.recent = self.defaults.clone();
        for index in [&mut self.by_id, &mut self.by_name].into_iter().flatten() {
            index.clear();
        }
        self.unique.iter_mut().for_each(ColumnIndex::clear);
    }

    fn refuse(&self, row: &str, reason: &'static str) -> ReplicaError {
        ReplicaError::Row { table: self.table.name, row: row.to_owned(), reason }
    }

    fn apply(
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

    fn delete(&mut self, uuid: Uuid, changes: &mut Vec<Change>) {
        let Some(before) = self.rows.remove(&uuid) else { return };
        self.index(Some(&before), None);
        let (table, kind) = (self.table, ChangeKind::Delete);
        changes.push(Change { table, uuid, kind, before: Some(before) });
    }

    fn index(&mut self, before: Option<&Row>, after: Option<&Row>) {
        if let Some(index) = &mut self.by_id {
            let key = |row: &Row| row.entry(index.column, ID_KEY).cloned();
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
