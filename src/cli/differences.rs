//! Differences between wanted and found rows, in words.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    api::Kind,
    ovsdb::{
        datum::{Atom, Datum, Uuid},
        replica::{Replica, Row},
        row::{ID_KEY, RowKey},
        schema::{Table, nb},
        transaction::{Cell, Item, Mutation, Mutator, Operation, Target},
    },
    plan::{Batch, Cause, Engine, Touch, diff, touch_of},
    store::Owner,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Wanted, and not there.
    Missing,
    /// There, and wanted by nobody.
    Surplus,
    Differs,
}

/// One row that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Difference {
    pub what: What,
    pub table: String,
    /// `feature:owner:discriminator`; empty when the row has none.
    pub id: String,
    /// Name of the row, if it has one.
    pub name: String,
    /// What would have to change in it, one line per column and element.
    pub changes: Vec<String>,
}

/// Everything wanted, and everything of ours that nobody wants.
pub fn full_batch(engine: &Engine, replica: &Replica) -> Batch {
    let owners = engine.owners().map(|(owner, derived)| {
        let touches: BTreeSet<Touch> = derived.facts.iter().map(touch_of).collect();
        (owner.clone(), Cause::Changed, touches)
    });
    let mut batch = Batch { owners: owners.collect() };
    for table in nb::DATABASE.tables {
        let unwanted: BTreeSet<Touch> = replica
            .rows(table)
            .filter_map(|row| Some(RowKey { table, id: row.id()?.clone() }))
            .filter(|key| engine.desired().row(key).is_none())
            .map(Touch::Row)
            .collect();
        if !unwanted.is_empty() {
            let owner = Owner { feature: "orphan", kind: Kind::Settings, key: table.name.into() };
            batch.owners.push((owner, Cause::Changed, unwanted));
        }
    }
    // Owners come out of a hash table: an order of its own makes results comparable.
    batch.owners.sort_by(|a, b| a.0.cmp(&b.0));
    batch
}

/// What the batch would change.
pub fn differences(engine: &Engine, replica: &Replica, batch: &Batch) -> Vec<Difference> {
    let plan = diff::plan(engine.desired(), replica, batch);
    let names = Names::new(replica, &plan.transaction.operations);
    let mut found: BTreeMap<(String, String), Difference> = BTreeMap::new();
    for operation in &plan.transaction.operations {
        let Some(difference) = names.difference(operation) else { continue };
        let place = (difference.table.clone(), format!("{}{}", difference.id, difference.name));
        match found.get_mut(&place) {
            Some(known) => known.changes.extend(difference.changes),
            None => {
                found.insert(place, difference);
            }
        }
    }
    let mut all: Vec<Difference> = found.into_values().collect();
    all.sort();
    all
}

/// Names for references.
struct Names<'a> {
    replica: &'a Replica,
    /// `row0` -> identity of the row that the transaction inserts.
    inserted: BTreeMap<String, String>,
}

impl<'a> Names<'a> {
    fn new(replica: &'a Replica, operations: &[Operation]) -> Self {
        let inserted = operations.iter().filter_map(|operation| match operation {
            Operation::Insert { table, named: Some(named), row } => {
                let name = column_text(row, table, "name");
                let id = identity(row, table);
                Some((named.to_string(), if name.is_empty() { id } else { name }))
            }
            _ => None,
        });
        Names { replica, inserted: inserted.collect() }
    }

    fn difference(&self, operation: &Operation) -> Option<Difference> {
        match operation {
            Operation::Insert { table, row, .. } => Some(Difference {
                what: What::Missing,
                table: table.name.to_owned(),
                id: identity(row, table),
                name: column_text(row, table, "name"),
                changes: Vec::new(),
            }),
            Operation::Delete { table, target } => {
                Some(Difference { what: What::Surplus, ..self.existing(table, target)? })
            }
            Operation::Update { table, target, row } => {
                let mut found = self.existing(table, target)?;
                let old = self.row(table, target)?;
                found.changes = row
                    .iter()
                    .map(|(column, cell)| {
                        let before = old.get(*column).map(|d| self.datum(d)).unwrap_or_default();
                        format!("{}: {before} -> {}", column.name(), self.cell(cell))
                    })
                    .collect();
                Some(found)
            }
            Operation::Mutate { table, target, mutations } => {
                let mut found = self.existing(table, target)?;
                let old = self.row(table, target)?;
                found.changes = mutations.iter().flat_map(|m| self.mutation(old, m)).collect();
                Some(found)
            }
            Operation::Wait { .. } | Operation::Comment(_) => None,
        }
    }

    fn row(&self, table: &'static Table, target: &Target) -> Option<&'a Row> {
        match target {
            Target::Uuid(uuid) => self.replica.get(table, *uuid),
            _ => None,
        }
    }

    fn existing(&self, table: &'static Table, target: &Target) -> Option<Difference> {
        let row = self.row(table, target)?;
        let name = table.column("name").and_then(|column| row.text(column));
        Some(Difference {
            what: What::Differs,
            table: table.name.to_owned(),
            id: row.id().map(|id| id.to_string()).unwrap_or_default(),
            name: name.map(|name| name.to_string()).unwrap_or_default(),
            changes: Vec::new(),
        })
    }

    /// A mutation element by element; replacing a map entry is one change.
    fn mutation(&self, old: &Row, mutation: &Mutation) -> Vec<String> {
        let column = mutation.column.name();
        match (&mutation.operand, mutation.mutator) {
            (Cell::Set(items), Mutator::Insert) => {
                items.iter().map(|i| format!("{column}: + {}", self.item(i))).collect()
            }
            (Cell::Set(items), Mutator::Delete) => {
                let entry = |item: &Item| match (item, old.get(mutation.column)) {
                    (Item::Atom(key), Some(Datum::Map(map))) => {
                        // A key that has no value yet is only about to be set.
                        let value = map.get(key)?;
                        Some(format!("{column}: - {}={}", plain(key), plain(value)))
                    }
                    _ => Some(format!("{column}: - {}", self.item(item))),
                };
                items.iter().filter_map(entry).collect()
            }
            (Cell::Map(entries), _) => {
                let entry = |(key, value): (&Atom, &Item)| {
                    format!("{column}: + {}={}", plain(key), self.item(value))
                };
                entries.iter().map(entry).collect()
            }
        }
    }

    fn item(&self, item: &Item) -> String {
        match item {
            Item::Atom(Atom::Uuid(uuid)) => self.reference(*uuid),
            Item::Atom(atom) => plain(atom),
            Item::Reference(named) => {
                self.inserted.get(&named.to_string()).cloned().unwrap_or_default()
            }
        }
    }

    fn reference(&self, uuid: Uuid) -> String {
        let tables = nb::DATABASE.tables.iter();
        let row = tables.filter_map(|table| self.replica.get(table, uuid)).next();
        row.map_or_else(|| uuid.to_string(), shown)
    }

    fn datum(&self, datum: &Datum) -> String {
        match datum {
            Datum::Set(all) => {
                let all: Vec<String> =
                    all.iter().map(|atom| self.item(&Item::Atom(atom.clone()))).collect();
                format!("[{}]", all.join(", "))
            }
            Datum::Map(all) => {
                let all: Vec<String> =
                    all.iter().map(|(k, v)| format!("{}={}", plain(k), plain(v))).collect();
                format!("{{{}}}", all.join(", "))
            }
        }
    }

    fn cell(&self, cell: &Cell) -> String {
        match cell {
            Cell::Set(all) => {
                let all: Vec<String> = all.iter().map(|item| self.item(item)).collect();
                format!("[{}]", all.join(", "))
            }
            Cell::Map(all) => {
                let all = all.iter().map(|(k, v)| format!("{}={}", plain(k), self.item(v)));
                format!("{{{}}}", all.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// Name of a row, else its identity, else its UUID.
pub fn shown(row: &Row) -> String {
    let name = row.table().column("name").and_then(|column| row.text(column));
    let name = name.filter(|name| !name.is_empty()).or_else(|| row.id());
    name.map_or_else(|| row.uuid.to_string(), |name| name.to_string())
}

/// An atom without quotes.
pub fn plain(atom: &Atom) -> String {
    match atom {
        Atom::Text(text) => text.to_string(),
        Atom::Integer(n) => n.to_string(),
        Atom::Real(real) => real.0.to_string(),
        Atom::Boolean(flag) => flag.to_string(),
        Atom::Uuid(uuid) => uuid.to_string(),
    }
}

type Cells = BTreeMap<crate::ovsdb::schema::Column, Cell>;

fn column_text(row: &Cells, table: &'static Table, column: &str) -> String {
    let cell = table.column(column).and_then(|column| row.get(&column));
    match cell {
        Some(Cell::Set(items)) => match items.first() {
            Some(Item::Atom(atom)) => plain(atom),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

fn identity(row: &Cells, table: &'static Table) -> String {
    let cell = table.column("external_ids").and_then(|column| row.get(&column));
    match cell {
        Some(Cell::Map(all)) => match all.get(&Atom::Text(ID_KEY.into())) {
            Some(Item::Atom(atom)) => plain(atom),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

/// Differences as text, one row with its changes below.
pub fn describe(all: &[Difference]) -> String {
    let mut text = String::new();
    for difference in all {
        let sign = match difference.what {
            What::Missing => "+",
            What::Surplus => "-",
            What::Differs => "~",
        };
        let name = if difference.name.is_empty() { &difference.id } else { &difference.name };
        text.push_str(&format!("{sign} {} {name}", difference.table));
        if !difference.id.is_empty() && difference.id != *name {
            text.push_str(&format!("  ({})", difference.id));
        }
        text.push('\n');
        for change in &difference.changes {
            text.push_str(&format!("    {change}\n"));
        }
    }
    text
}
