//! An OVSDB database in memory, for tests of the translation: executes our transactions by the
//! rules of RFC 7047 that matter (atomicity, references, garbage collection, unique indexes,
//! column types) and shows the result as a monitor would. The system tests check the same
//! transactions against a real ovsdb-server.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use kube_ovn::ovsdb::{
    datum::{Atom, Datum, Uuid},
    json::render_datum,
    replica::{Replica, Scope, Update},
    row::ID_KEY,
    schema::{Column, ColumnSchema, Database, Strength, Table},
    transaction::{
        Cell, Condition, Item, Mutation, Mutator, NamedUuid, Operation, Target, Transaction,
    },
};

/// Table and row.
type Place = (&'static str, Uuid);
type Rows = BTreeMap<Place, BTreeMap<u16, Datum>>;

pub struct Server {
    database: &'static Database,
    rows: Rows,
    /// What [`Server::sync`] reported last.
    published: Rows,
    /// Rows written since the last commit.
    dirty: BTreeSet<(&'static str, Uuid)>,
    next: u128,
    pub transactions: usize,
    pub operations: usize,
}

impl Server {
    pub fn new(database: &'static Database) -> Self {
        let mut server = Server {
            database,
            rows: Rows::new(),
            published: Rows::new(),
            dirty: BTreeSet::new(),
            next: 1,
            transactions: 0,
            operations: 0,
        };
        if let Some(global) = server.table("NB_Global") {
            let uuid = server.fresh();
            server.rows.insert((global.name, uuid), defaults(global));
        }
        server
    }

    fn fresh(&mut self) -> Uuid {
        self.next += 1;
        Uuid(self.next)
    }

    fn table(&self, name: &str) -> Option<&'static Table> {
        self.database.tables.iter().find(|t| t.name == name).copied()
    }

    /// A replica of everything, as a new monitor gets it.
    pub fn replica(&self) -> Replica {
        let mut replica = Replica::new(self.database, monitored(self.database));
        self.report(&mut replica, Scope::Snapshot, "initial", self.rows.iter());
        replica
    }

    /// Reports to a replica what has changed since the last call, as a running monitor does.
    pub fn sync(&mut self, replica: &mut Replica) {
        let published = std::mem::take(&mut self.published);
        let gone = published.iter().filter(|(k, row)| self.rows.get(k) != Some(row));
        self.report(replica, Scope::Delta, "delete", gone);
        let fresh = self.rows.iter().filter(|(k, row)| published.get(k) != Some(row));
        self.report(replica, Scope::Delta, "insert", fresh);
        self.published = self.rows.clone();
    }

    fn report<'a>(
        &self,
        replica: &mut Replica,
        scope: Scope,
        kind: &str,
        rows: impl Iterator<Item = (&'a (&'static str, Uuid), &'a BTreeMap<u16, Datum>)>,
    ) {
        let update = self.update(monitored(self.database), scope, kind, rows);
        replica.apply(&update).unwrap();
    }

    /// What a monitor of these columns would send.
    fn update<'a>(
        &self,
        monitored: &[(&'static Table, &'static [Column])],
        scope: Scope,
        kind: &str,
        rows: impl Iterator<Item = (&'a (&'static str, Uuid), &'a BTreeMap<u16, Datum>)>,
    ) -> Update {
        let mut tables = serde_json::Map::new();
        for ((name, uuid), columns) in rows {
            let Some((table, wanted)) = monitored.iter().find(|(t, _)| t.name == *name) else {
                continue;
            };
            let row: serde_json::Map<String, serde_json::Value> = columns
                .iter()
                .filter(|(i, _)| wanted.iter().any(|c| c.index == **i))
                .map(|(i, d)| (table.columns[usize::from(*i)].name.to_owned(), render_datum(d)))
                .collect();
            let row = if kind == "delete" { serde_json::Value::Null } else { row.into() };
            let slot = tables.entry(*name).or_insert_with(|| serde_json::json!({}));
            slot[uuid.to_string()] = serde_json::json!({ kind: row });
        }
        let raw = serde_json::value::to_raw_value(&tables).unwrap();
        Update { scope, tables: raw.into(), transaction: None }
    }

    /// Everything, as a client with these columns gets it after connecting.
    pub fn snapshot(&mut self, monitored: &[(&'static Table, &'static [Column])]) -> Update {
        self.published = self.rows.clone();
        self.update(monitored, Scope::Snapshot, "initial", self.rows.iter())
    }

    /// What changed since the last snapshot or differences. A modified row is reported as deleted
    /// and made anew, in two updates.
    pub fn differences(
        &mut self,
        monitored: &[(&'static Table, &'static [Column])],
    ) -> [Update; 2] {
        let published = std::mem::take(&mut self.published);
        let gone = published.iter().filter(|(k, row)| self.rows.get(k) != Some(row));
        let gone = self.update(monitored, Scope::Delta, "delete", gone);
        let fresh = self.rows.iter().filter(|(k, row)| published.get(k) != Some(row));
        let fresh = self.update(monitored, Scope::Delta, "insert", fresh);
        self.published = self.rows.clone();
        [gone, fresh]
    }

    /// Executes all operations or none.
    pub fn execute(&mut self, transaction: &Transaction) -> Result<(), String> {
        let names: BTreeMap<NamedUuid, Uuid> = transaction
            .operations
            .iter()
            .filter_map(|op| match op {
                Operation::Insert { named: Some(name), .. } => Some(name.clone()),
                _ => None,
            })
            .map(|name| (name, self.fresh()))
            .collect();
        let before = self.rows.clone();
        self.transactions += 1;
        self.operations += transaction.operations.len();
        let result = transaction
            .operations
            .iter()
            .try_for_each(|op| self.operate(op, &names))
            .and_then(|()| self.commit());
        if result.is_err() {
            self.rows = before;
        }
        result
    }

    fn operate(&mut self, op: &Operation, names: &BTreeMap<NamedUuid, Uuid>) -> Result<(), String> {
        match op {
            Operation::Insert { table, named, row } => {
                let uuid = match named {
                    Some(name) => names[name],
                    None => self.fresh(),
                };
                let mut columns = defaults(table);
                for (column, cell) in row {
                    columns.insert(column.index, datum(cell, names)?);
                }
                self.dirty.insert((table.name, uuid));
                self.rows.insert((table.name, uuid), columns);
            }
            Operation::Update { table, target, row } => {
                for uuid in self.targets(table, target, names) {
                    self.dirty.insert((table.name, uuid));
                    for (column, cell) in row {
                        let value = datum(cell, names)?;
                        self.rows.get_mut(&(table.name, uuid)).unwrap().insert(column.index, value);
                    }
                }
            }
            Operation::Mutate { table, target, mutations } => {
                let all = self.targets(table, target, names);
                if all.is_empty() {
                    return Err(format!("mutate of {}: no row", table.name));
                }
                for uuid in all {
                    self.dirty.insert((table.name, uuid));
                    for m in mutations {
                        let operand = datum(&m.operand, names)?;
                        let slot = self.rows.get_mut(&(table.name, uuid)).unwrap();
                        let current = slot.get_mut(&m.column.index).unwrap();
                        mutate(current, m.mutator, operand);
                    }
                }
            }
            Operation::Delete { table, target } => {
                for uuid in self.targets(table, target, names) {
                    self.rows.remove(&(table.name, uuid));
                }
            }
            Operation::Wait { table, condition } => {
                let met =
                    self.rows.iter().any(|((t, _), row)| *t == table.name && holds(condition, row));
                if !met {
                    return Err("timed out".into());
                }
            }
            Operation::Comment(_) => {}
        }
        Ok(())
    }

    fn targets(
        &self,
        table: &'static Table,
        target: &Target,
        names: &BTreeMap<NamedUuid, Uuid>,
    ) -> Vec<Uuid> {
        let rows = self.rows.iter().filter(|((t, _), _)| *t == table.name);
        match target {
            Target::Uuid(u) if self.rows.contains_key(&(table.name, *u)) => vec![*u],
            Target::Uuid(_) => vec![],
            Target::New(n) => vec![names[n]],
            Target::Where(all) => rows
                .filter(|(_, row)| all.iter().all(|c| holds(c, row)))
                .map(|((_, x), _)| *x)
                .collect(),
        }
    }

    /// References, garbage collection, types and unique indexes.
    fn commit(&mut self) -> Result<(), String> {
        loop {
            let (strong, weak_fixed) = self.references()?;
            let garbage: Vec<_> = self
                .rows
                .keys()
                .filter(|(t, u)| !self.table(t).unwrap().is_root && !strong.contains(&(*t, *u)))
                .copied()
                .collect();
            for row in &garbage {
                self.rows.remove(row);
            }
            if garbage.is_empty() && !weak_fixed {
                break;
            }
        }
        self.check_types()
    }

    fn references(&mut self) -> Result<(BTreeSet<Place>, bool), String> {
        let mut strong = BTreeSet::new();
        let mut dangling = Vec::new();
        for ((name, uuid), columns) in &self.rows {
            let table = self.table(name).unwrap();
            for (index, datum) in columns {
                let Some((target, strength)) = table.columns[usize::from(*index)].key.reference
                else {
                    continue;
                };
                let target = self.table(target).unwrap();
                for referred in datum.uuids() {
                    let exists = self.rows.contains_key(&(target.name, referred));
                    match (exists, strength) {
                        (true, Strength::Strong) => {
                            strong.insert((target.name, referred));
                        }
                        (false, Strength::Strong) => {
                            return Err(format!(
                                "referential integrity: {name}.{} -> {}",
                                table.columns[usize::from(*index)].name,
                                target.name
                            ));
                        }
                        (false, Strength::Weak) => dangling.push((*name, *uuid, *index, referred)),
                        (true, Strength::Weak) => {}
                    }
                }
            }
        }
        let fixed = !dangling.is_empty();
        for (name, uuid, index, referred) in dangling {
            if let Some(Datum::Set(s)) =
                self.rows.get_mut(&(name, uuid)).and_then(|r| r.get_mut(&index))
            {
                s.remove(&Atom::Uuid(referred));
            }
        }
        Ok((strong, fixed))
    }

    fn check_types(&mut self) -> Result<(), String> {
        for row in std::mem::take(&mut self.dirty) {
            let Some(columns) = self.rows.get(&row) else { continue };
            let table = self.table(row.0).unwrap();
            for (index, datum) in columns {
                let column = &table.columns[usize::from(*index)];
                if !column.admits(datum) {
                    return Err(format!("type: {}.{} = {datum:?}", row.0, column.name));
                }
            }
        }
        let mut unique = std::collections::HashSet::new();
        for ((name, _), columns) in &self.rows {
            for (n, group) in self.table(name).unwrap().indexes.iter().enumerate() {
                let values: Vec<&Datum> = group.iter().map(|i| &columns[i]).collect();
                if !unique.insert((*name, n, values.clone())) {
                    return Err(format!("constraint violation: {name} {values:?} is not unique"));
                }
            }
        }
        Ok(())
    }

    /// Whole rows as text, ordered, with references printed as the identity of the row they mean.
    pub fn dump(&self) -> String {
        let mut lines = Vec::new();
        for ((name, uuid), columns) in &self.rows {
            let table = self.table(name).unwrap();
            let mut line = format!("{name} {}", self.label(name, *uuid));
            for (index, datum) in columns {
                let column = &table.columns[usize::from(*index)];
                if *datum == default_of(table, *index) {
                    continue;
                }
                line.push_str(&format!("\n  {} = {}", column.name, self.text(column, datum)));
            }
            lines.push(line);
        }
        lines.sort();
        lines.join("\n") + "\n"
    }

    fn label(&self, table: &str, uuid: Uuid) -> String {
        let Some(table) = self.table(table) else { return "?".to_owned() };
        let Some(row) = self.rows.get(&(table.name, uuid)) else { return "?".to_owned() };
        let id = match table.column("external_ids") {
            Some(ids) => row[&ids.index].entry(ID_KEY).cloned(),
            None => table.column("name").and_then(|name| row[&name.index].text().cloned()),
        };
        id.map_or_else(|| "-".to_owned(), |id| id.to_string())
    }

    fn text(&self, column: &ColumnSchema, datum: &Datum) -> String {
        let target = column.key.reference.map_or("", |(table, _)| table);
        let atom = |a: &Atom| match a {
            Atom::Text(t) => format!("{t:?}"),
            Atom::Integer(n) => n.to_string(),
            Atom::Boolean(b) => b.to_string(),
            Atom::Real(r) => r.0.to_string(),
            Atom::Uuid(u) => format!("<{}>", self.label(target, *u)),
        };
        match datum {
            Datum::Set(s) => {
                let mut parts: Vec<String> = s.iter().map(atom).collect();
                parts.sort();
                parts.join(", ")
            }
            Datum::Map(m) => {
                let id = Atom::Text(ID_KEY.into());
                let parts: Vec<String> = m
                    .iter()
                    .filter(|(k, _)| **k != id)
                    .map(|(k, v)| format!("{}={}", atom(k), atom(v)))
                    .collect();
                parts.join(", ")
            }
        }
    }

    /// Inserts a root row as somebody else would.
    pub fn insert_foreign(&mut self, table: &'static Table, columns: &[(Column, Cell)]) -> Uuid {
        self.insert(table, columns, None)
    }

    /// Inserts a row into a column of its parent.
    pub fn insert_child(
        &mut self,
        table: &'static Table,
        columns: &[(Column, Cell)],
        parent: (Uuid, Column),
    ) -> Uuid {
        self.insert(table, columns, Some(parent))
    }

    fn insert(
        &mut self,
        table: &'static Table,
        columns: &[(Column, Cell)],
        parent: Option<(Uuid, Column)>,
    ) -> Uuid {
        let name = NamedUuid::numbered(0);
        let row = columns.iter().cloned().collect();
        let mut operations = vec![Operation::Insert { table, named: Some(name.clone()), row }];
        operations.extend(parent.map(|(uuid, column)| Operation::Mutate {
            table: column.table,
            target: uuid.into(),
            mutations: vec![Mutation::insert(column, Cell::reference(&name))],
        }));
        self.execute(&Transaction { operations }).unwrap();
        Uuid(self.next)
    }

    /// The row of an identity.
    pub fn find(&self, table: &str, id: &str) -> Option<Uuid> {
        self.rows.keys().find(|(t, u)| *t == table && self.label(t, *u) == id).map(|(_, u)| *u)
    }

    pub fn get(&self, column: Column, uuid: Uuid) -> Option<&Datum> {
        self.rows.get(&(column.table.name, uuid))?.get(&column.index)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Number of rows that carry our identity.
    pub fn owned(&self) -> usize {
        self.rows.keys().filter(|(t, u)| self.label(t, *u) != "-").count()
    }

    /// Removes a row behind the controller's back.
    pub fn vandalize(&mut self, table: &str, id: &str) {
        let found = self.rows.keys().find(|(t, u)| *t == table && self.label(t, *u) == id).copied();
        let key = found.expect("row to vandalize");
        // Detach it everywhere, as `ovn-nbctl` would.
        for columns in self.rows.values_mut() {
            for datum in columns.values_mut() {
                if let Datum::Set(s) = datum {
                    s.remove(&Atom::Uuid(key.1));
                }
            }
        }
        self.rows.remove(&key);
        self.commit().expect("still consistent");
    }
}

/// Every column of every table.
pub fn monitored(database: &'static Database) -> &'static [(&'static Table, &'static [Column])] {
    type All = BTreeMap<&'static str, &'static [(&'static Table, &'static [Column])]>;
    static ALL: Mutex<All> = Mutex::new(BTreeMap::new());
    ALL.lock().unwrap().entry(database.name).or_insert_with(|| {
        let all = database.tables.iter().map(|t| {
            let columns = (0..t.columns.len()).map(|i| Column { table: t, index: i as u16 });
            let columns: &'static [Column] = Box::leak(columns.collect());
            (*t, columns)
        });
        Box::leak(all.collect())
    })
}

fn holds(condition: &Condition, row: &BTreeMap<u16, Datum>) -> bool {
    match condition {
        Condition::Equals(column, wanted) => row.get(&column.index) == Some(wanted),
        Condition::Includes(column, wanted) => match (row.get(&column.index), wanted) {
            (Some(Datum::Set(a)), Datum::Set(b)) => b.is_subset(a),
            (Some(Datum::Map(a)), Datum::Map(b)) => b.iter().all(|(k, v)| a.get(k) == Some(v)),
            _ => false,
        },
    }
}

fn datum(cell: &Cell, names: &BTreeMap<NamedUuid, Uuid>) -> Result<Datum, String> {
    let atom = |item: &Item| match item {
        Item::Atom(a) => Ok(a.clone()),
        Item::Reference(n) => {
            names.get(n).map(|u| Atom::Uuid(*u)).ok_or_else(|| format!("unknown named-uuid {n}"))
        }
    };
    Ok(match cell {
        Cell::Set(s) => Datum::Set(s.iter().map(atom).collect::<Result<_, _>>()?),
        Cell::Map(m) => Datum::Map(
            m.iter().map(|(k, v)| Ok((k.clone(), atom(v)?))).collect::<Result<_, String>>()?,
        ),
    })
}

fn mutate(current: &mut Datum, mutator: Mutator, operand: Datum) {
    match (current, mutator, operand) {
        (Datum::Set(s), Mutator::Insert, Datum::Set(o)) => s.extend(o),
        (Datum::Set(s), Mutator::Delete, Datum::Set(o)) => s.retain(|a| !o.contains(a)),
        (Datum::Map(m), Mutator::Insert, Datum::Map(o)) => {
            for (k, v) in o {
                m.entry(k).or_insert(v);
            }
        }
        (Datum::Map(m), Mutator::Delete, Datum::Set(o)) => m.retain(|k, _| !o.contains(k)),
        (Datum::Map(m), Mutator::Delete, Datum::Map(o)) => {
            m.retain(|k, v| o.get(k) != Some(v));
        }
        _ => panic!("mutation of the wrong type"),
    }
}

fn default_of(table: &Table, index: u16) -> Datum {
    use kube_ovn::ovsdb::schema::AtomicType;
    let column = &table.columns[usize::from(index)];
    if column.is_map() {
        return Datum::Map(BTreeMap::new());
    }
    if column.min == 0 {
        return Datum::Set(BTreeSet::new());
    }
    Datum::one(match column.key.atomic {
        AtomicType::Integer => Atom::Integer(0),
        AtomicType::Real => Atom::Real(kube_ovn::ovsdb::datum::Real(0.0)),
        AtomicType::Boolean => Atom::Boolean(false),
        AtomicType::Text => Atom::Text("".into()),
        AtomicType::Uuid => Atom::Uuid(Uuid(0)),
    })
}

fn defaults(table: &'static Table) -> BTreeMap<u16, Datum> {
    (0..table.columns.len() as u16).map(|i| (i, default_of(table, i))).collect()
}
