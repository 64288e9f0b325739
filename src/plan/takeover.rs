//! What a take-over makes of the rows that carry no identity of ours: those that become ours by
//! natural key, those that go with the claim of their parent, those that nobody needs any more.

use std::collections::HashSet;

use crate::ovsdb::{
    datum::{Atom, Datum, Uuid},
    replica::{Replica, Row},
    row::{RowKey, Value},
    schema::{Column, Table, nb},
    transaction::{Cell, Mutation, Operation, Target},
};

use super::{Desired, adopt, diff::holders};

/// Rows without an identity of ours, each in one of the groups.
#[derive(Debug, Default)]
pub struct Takeover<'r> {
    /// They get an identity and stay, with their UUID.
    pub claimed: Vec<(RowKey, &'r Row)>,
    /// Children of claimed rows that the wanted ones replace in the same transaction.
    pub replaced: Vec<&'r Row>,
    /// The predecessor's, and replaced by nothing of the same name.
    pub orphans: Vec<&'r Row>,
    /// Made by others.
    pub left: Vec<&'r Row>,
}

/// Sorts the rows. `is_predecessors` tells the marks of the software that wrote the database.
pub fn takeover<'r>(
    desired: &Desired,
    replica: &'r Replica,
    is_predecessors: impl Fn(&Row) -> bool,
) -> Takeover<'r> {
    let mut found = Takeover::default();
    let mut claimed = HashSet::new();
    let mut children = HashSet::new();
    for key in desired.rows().filter(|key| !key.is_singleton()) {
        let Some(row) = adopt::find(desired, replica, key) else { continue };
        if row.id().is_some() {
            continue;
        }
        claimed.insert(row.uuid);
        children.extend(replaced_in(desired, key, row));
        found.claimed.push((key.clone(), row));
    }
    for table in nb::DATABASE.tables.iter().filter(|table| is_ours_to_judge(table)) {
        for row in replica.rows(table) {
            if row.id().is_some() || claimed.contains(&row.uuid) {
                continue;
            } else if children.contains(&row.uuid) && !table.is_root {
                found.replaced.push(row);
            } else if is_predecessors(row) {
                found.orphans.push(row);
            } else {
                found.left.push(row);
            }
        }
    }
    // What hangs below a row that goes, goes with it.
    let going: HashSet<Uuid> = found.orphans.iter().map(|row| row.uuid).collect();
    let mut below: HashSet<Uuid> = found.orphans.iter().flat_map(|row| references(row)).collect();
    below.retain(|uuid| !going.contains(uuid));
    found.left.retain(|row| row.table().is_root || !below.contains(&row.uuid));
    found.claimed.sort_by(|a, b| (a.0.table.name, &a.0.id).cmp(&(b.0.table.name, &b.0.id)));
    for group in [&mut found.replaced, &mut found.orphans, &mut found.left] {
        group.sort_by_key(|row| (row.table().name, row.uuid));
    }
    found
}

/// Connections, certificates and the row of the database itself are the administrator's.
fn is_ours_to_judge(table: &Table) -> bool {
    !matches!(table.name, "NB_Global" | "Connection" | "SSL")
}

/// References of a claimed row in columns that our rows fill.
fn replaced_in(desired: &Desired, key: &RowKey, row: &Row) -> Vec<Uuid> {
    let columns = desired.row(key).into_iter().flat_map(|columns| columns.iter());
    let filled = columns.filter(|(_, value)| matches!(value, Value::Contributed | Value::Set(_)));
    filled.filter_map(|(column, _)| row.get(*column)).flat_map(Datum::uuids).collect()
}

fn references(row: &Row) -> Vec<Uuid> {
    let columns = row.table().all_columns();
    columns.filter_map(|column| row.get(column)).flat_map(Datum::uuids).collect()
}

/// Removes the orphans: from the rows that hold them, and where nothing has to hold them,
/// themselves.
pub fn removal(found: &Takeover<'_>, replica: &Replica) -> Vec<Operation> {
    let going: HashSet<Uuid> = found.orphans.iter().map(|row| row.uuid).collect();
    let mut operations = Vec::new();
    for orphan in &found.orphans {
        for column in holders(orphan.table()) {
            let holding = replica.rows(column.table).filter(|row| {
                let refers = |datum: &Datum| datum.uuids().any(|uuid| uuid == orphan.uuid);
                !going.contains(&row.uuid) && row.get(column).is_some_and(refers)
            });
            operations.extend(holding.map(|row| let_go(column, row, orphan.uuid)));
        }
        if orphan.table().is_root {
            let (table, target) = (orphan.table(), Target::Uuid(orphan.uuid));
            operations.push(Operation::Delete { table, target });
        }
    }
    operations
}

fn let_go(column: Column, holder: &Row, child: Uuid) -> Operation {
    let mutation = Mutation::delete(column, Cell::one(Atom::Uuid(child)));
    Operation::Mutate {
        table: column.table,
        target: Target::Uuid(holder.uuid),
        mutations: vec![mutation],
    }
}
