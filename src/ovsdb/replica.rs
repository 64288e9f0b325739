//! A copy of the monitored columns of a database, kept current by `update2`/`update3`
//! notifications (ovsdb-server(7), section 4.1.13 to 4.1.15), with indexes.
//!
//! Pure: the owner hands in what the client received. Values that consecutive rows share (a
//! type, a flag, an empty map) are stored once.

mod index;
mod table;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, value::RawValue};

use super::{
    datum::{Datum, Uuid},
    json::DecodeError,
    row::{ID_KEY, NAMED},
    schema::{Column, Database, Table},
};
use table::TableReplica;

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

    /// `external_ids:kube-ovn/id`, if that column is monitored. In a table that has no such
    /// column, the name, if it is one of ours ([`NAMED`]).
    pub fn id(&self) -> Option<&Arc<str>> {
        if let Some(ids) = self.table.column("external_ids") {
            return self.entry(ids, ID_KEY);
        }
        let ours = |name: &&Arc<str>| name.split(':').next() == Some(NAMED);
        self.text(self.table.column("name")?).filter(ours)
    }
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
