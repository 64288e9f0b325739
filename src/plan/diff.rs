//! The differ: touched places + replica -> the smallest transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::{
    ovsdb::{
        datum::{Atom, Datum, Uuid},
        replica::{Replica, Row},
        row::{Columns, Element, ID_KEY, RowKey, Value},
        schema::{Column, Strength, Table, nb},
        transaction::{Cell, Item, Mutation, NamedUuid, Operation, Target, Transaction},
    },
    store::Owner,
};

use super::{Batch, Cause, Desired, Touch, adopt, desired::Contribution};

/// What a batch of owners needs.
#[derive(Debug, Default)]
pub struct Plan {
    pub transaction: Transaction,
    /// Touches that wait for a row which does not exist yet, by owner.
    pub deferred: BTreeMap<Owner, BTreeSet<Touch>>,
    /// Rows that the transaction writes; their updates are our own.
    pub written: HashSet<Uuid>,
    /// Rows that the transaction makes.
    pub inserted: BTreeSet<RowKey>,
    /// Deleted rows by cause, for the fuse.
    pub deleted: BTreeMap<Cause, usize>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.transaction.operations.is_empty()
    }
}

/// Plans the touches of a batch.
pub fn plan(desired: &Desired, replica: &Replica, batch: &Batch) -> Plan {
    let mut differ = Differ {
        desired,
        replica,
        resolved: HashMap::new(),
        inserts: BTreeMap::new(),
        edits: BTreeMap::new(),
        plan: Plan::default(),
    };
    differ.choose_inserts(batch);
    // Last come the rows that must not go before the references to them do.
    for turn in [Turn::First, Turn::Last] {
        for (owner, cause, touches) in &batch.owners {
            for touch in touches.iter().filter(|t| turn_of(t) == turn) {
                if !differ.touch(touch, *cause) {
                    differ.plan.deferred.entry(owner.clone()).or_default().insert(touch.clone());
                }
            }
        }
    }
    differ.finish()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    First,
    Last,
}

/// A row of a root table stays until it is deleted, so strong references to it (those of switches
/// to a `Load_Balancer_Group`) can be in the way.
fn turn_of(touch: &Touch) -> Turn {
    match touch {
        Touch::Row(key) if key.table.is_root && holders(key.table).next().is_some() => Turn::Last,
        _ => Turn::First,
    }
}

/// Columns with strong references to a table.
pub(super) fn holders(table: &'static Table) -> impl Iterator<Item = Column> {
    nb::DATABASE.tables.iter().flat_map(move |holder| {
        holder.all_columns().filter(move |c| {
            c.schema()
                .key
                .reference
                .is_some_and(|(to, s)| to == table.name && s == Strength::Strong)
        })
    })
}

/// Changes of one existing row, merged over all touches of it.
#[derive(Default)]
struct Edit {
    update: BTreeMap<Column, Cell>,
    delete: BTreeMap<Column, BTreeSet<Item>>,
    insert: BTreeMap<Column, BTreeSet<Item>>,
    keys: BTreeMap<Column, BTreeSet<Atom>>,
    put: BTreeMap<Column, BTreeMap<Atom, Item>>,
    delete_row: bool,
}

struct Differ<'a> {
    desired: &'a Desired,
    replica: &'a Replica,
    resolved: HashMap<RowKey, Option<Uuid>>,
    /// Rows to insert, with their name in the transaction.
    inserts: BTreeMap<RowKey, NamedUuid>,
    /// Edits of existing rows.
    edits: BTreeMap<(&'static str, Uuid), (RowKey, Edit)>,
    plan: Plan,
}

impl<'a> Differ<'a> {
    fn existing(&mut self, key: &RowKey) -> Option<&'a Row> {
        let uuid = match self.resolved.get(key) {
            Some(known) => *known,
            None => {
                let found = adopt::find(self.desired, self.replica, key).map(|r| r.uuid);
                self.resolved.insert(key.clone(), found);
                found
            }
        };
        self.replica.get(key.table, uuid?)
    }

    /// The row as an element: by UUID, or by name when this transaction inserts it.
    fn item(&mut self, element: &Element) -> Option<Item> {
        match element {
            Element::Atom(atom) => Some(Item::Atom(atom.clone())),
            Element::Row(key) => match self.existing(key) {
                Some(row) => Some(Item::Atom(Atom::Uuid(row.uuid))),
                None => self.inserts.get(key).cloned().map(Item::Reference),
            },
        }
    }

    /// Rows of the batch that can be inserted now: every row they refer to exists or is inserted
    /// too, and something refers to those that OVSDB would otherwise collect as garbage.
    fn choose_inserts(&mut self, batch: &Batch) {
        let mut parents: HashMap<RowKey, Vec<RowKey>> = HashMap::new();
        let mut wanted = BTreeSet::new();
        for touch in batch.touches() {
            match touch {
                Touch::Row(key) if self.desired.row(key).is_some() => {
                    if self.existing(key).is_none() {
                        wanted.insert(key.clone());
                        continue;
                    }
                    // A row that is there already may name new ones.
                    for (column, element) in self.elements_of(key) {
                        if let (Element::Row(child), true) = (element, anchors(column)) {
                            parents.entry(child).or_default().push(key.clone());
                        }
                    }
                }
                Touch::Member(parent, column, Element::Row(child)) if anchors(*column) => {
                    parents.entry(child.clone()).or_default().push(parent.clone());
                }
                _ => {}
            }
        }
        for key in &wanted {
            // A new parent takes all that was contributed to it, whoever is in the batch.
            for (column, contribution) in self.desired.contributions(key) {
                if let (Contribution::Members(all), true) = (contribution, anchors(column)) {
                    for element in all.keys() {
                        if let Element::Row(child) = element {
                            parents.entry(child.clone()).or_default().push(key.clone());
                        }
                    }
                }
            }
            for (column, element) in self.elements_of(key) {
                if let (Element::Row(child), true) = (element, anchors(column)) {
                    parents.entry(child).or_default().push(key.clone());
                }
            }
        }
        loop {
            let ready = |differ: &mut Self, wanted: &BTreeSet<RowKey>, key: &RowKey| {
                let mut exists = |k: &RowKey| wanted.contains(k) || differ.existing(k).is_some();
                let anchored = key.table.is_root
                    || parents.get(key).is_some_and(|all| all.iter().any(&mut exists));
                let children = differ.elements_of(key);
                let mut exists = |k: &RowKey| wanted.contains(k) || differ.existing(k).is_some();
                anchored
                    && children.iter().all(|(_, element)| match element {
                        Element::Row(child) => exists(child),
                        Element::Atom(_) => true,
                    })
            };
            let late: Vec<RowKey> =
                wanted.iter().filter(|key| !ready(self, &wanted, key)).cloned().collect();
            if late.is_empty() {
                break;
            }
            for key in late {
                wanted.remove(&key);
            }
        }
        self.inserts =
            wanted.into_iter().enumerate().map(|(n, k)| (k, NamedUuid::numbered(n))).collect();
    }

    fn elements_of(&self, key: &RowKey) -> Vec<(Column, Element)> {
        let columns = self.desired.row(key).into_iter().flat_map(Columns::iter);
        columns
            .filter_map(|(column, value)| match value {
                Value::Set(all) => Some(all.iter().map(|e| (*column, e.clone()))),
                _ => None,
            })
            .flatten()
            .collect()
    }

    /// Plans one touch; `false` when it must wait.
    fn touch(&mut self, touch: &Touch, cause: Cause) -> bool {
        match touch {
            Touch::Row(key) => self.touch_row(key, cause),
            Touch::Member(row, column, element) => self.touch_member(row, *column, element),
            Touch::Entry(row, column, name) => self.touch_entry(row, *column, name),
        }
    }

    fn edit(&mut self, key: &RowKey, uuid: Uuid) -> &mut Edit {
        let slot = self.edits.entry((key.table.name, uuid));
        &mut slot.or_insert_with(|| (key.clone(), Edit::default())).1
    }

    fn touch_row(&mut self, key: &RowKey, cause: Cause) -> bool {
        if key.is_singleton() && self.desired.row(key).is_none() {
            return true;
        }
        let Some(columns) = self.desired.row(key) else {
            let doomed: Vec<Uuid> =
                self.replica.all_by_id(key.table, &key.id).map(|r| r.uuid).collect();
            if turn_of(&Touch::Row(key.clone())) == Turn::Last
                && doomed.iter().any(|uuid| self.is_held(key.table, *uuid))
            {
                return false;
            }
            for uuid in doomed {
                *self.plan.deleted.entry(cause).or_default() += 1;
                self.edit(key, uuid).delete_row = true;
            }
            return true;
        };
        let Some(row) = self.existing(key) else { return self.inserts.contains_key(key) };
        // Two rows with one identity (a lost race): keep the one that is found first.
        let twins: Vec<Uuid> = self
            .replica
            .all_by_id(key.table, &key.id)
            .map(|r| r.uuid)
            .filter(|u| *u != row.uuid && !key.is_singleton())
            .collect();
        for uuid in twins {
            self.edit(key, uuid).delete_row = true;
        }
        let mut complete = true;
        for (column, value) in columns.iter() {
            complete &= self.compare(key, row, *column, value);
        }
        complete
    }

    /// Whether a row refers to this one and will do so after the transaction.
    fn is_held(&self, table: &'static Table, uuid: Uuid) -> bool {
        let target = Atom::Uuid(uuid);
        holders(table).any(|column| {
            self.replica.rows(column.table).any(|row| {
                let refers = row.get(column).is_some_and(|d| d.uuids().any(|u| u == uuid));
                let edit = self.edits.get(&(column.table.name, row.uuid)).map(|(_, edit)| edit);
                let lets_go = edit.is_some_and(|edit| {
                    edit.delete_row
                        || edit.update.contains_key(&column)
                        || edit
                            .delete
                            .get(&column)
                            .is_some_and(|items| items.contains(&Item::Atom(target.clone())))
                });
                refers && !lets_go
            })
        })
    }

    fn compare(&mut self, key: &RowKey, row: &Row, column: Column, value: &Value) -> bool {
        let empty = Datum::Set(BTreeSet::new());
        let current = row.get(column).unwrap_or(&empty);
        match value {
            Value::Set(wanted) => {
                let items: Option<BTreeSet<Item>> = wanted.iter().map(|e| self.item(e)).collect();
                let Some(items) = items else { return false };
                self.compare_set(key, row, column, items);
                true
            }
            Value::Map(wanted) => {
                let wanted = with_identity(key, column, wanted);
                let Datum::Map(current) = current else {
                    return self.put_all(key, row.uuid, column, wanted);
                };
                let stale = current.iter().filter(|(k, v)| wanted.get(k) != Some(v));
                let stale: BTreeSet<Atom> = stale.map(|(k, _)| k.clone()).collect();
                let fresh = wanted.into_iter().filter(|(k, v)| current.get(k) != Some(v));
                let fresh: BTreeMap<Atom, Item> = fresh.map(|(k, v)| (k, Item::Atom(v))).collect();
                if !stale.is_empty() || !fresh.is_empty() {
                    let edit = self.edit(key, row.uuid);
                    edit.keys.entry(column).or_default().extend(stale);
                    edit.put.entry(column).or_default().extend(fresh);
                }
                true
            }
            Value::Contributed => self.compare_contributed(key, row, column),
            // Became entries when the fact was taken in.
            Value::Merged(_) | Value::Initial(_) => true,
        }
    }

    fn put_all(
        &mut self,
        key: &RowKey,
        uuid: Uuid,
        column: Column,
        wanted: BTreeMap<Atom, Atom>,
    ) -> bool {
        let entries = wanted.into_iter().map(|(k, v)| (k, Item::Atom(v)));
        self.edit(key, uuid).put.entry(column).or_default().extend(entries);
        true
    }

    fn compare_set(&mut self, key: &RowKey, row: &Row, column: Column, wanted: BTreeSet<Item>) {
        let current: BTreeSet<Item> = match row.get(column) {
            Some(Datum::Set(all)) => all.iter().cloned().map(Item::Atom).collect(),
            _ => BTreeSet::new(),
        };
        if current == wanted {
            return;
        }
        let edit = self.edit(key, row.uuid);
        // Mutations of a set with an upper bound could exceed it half-way.
        if column.schema().max != u32::MAX {
            edit.update.insert(column, Cell::Set(wanted));
            return;
        }
        let stale = current.difference(&wanted).cloned();
        edit.delete.entry(column).or_default().extend(stale);
        let fresh = wanted.difference(&current).cloned();
        edit.insert.entry(column).or_default().extend(fresh);
    }

    /// Elements that wait for their row are left to the touches of their own owners.
    fn compare_contributed(&mut self, key: &RowKey, row: &Row, column: Column) -> bool {
        match self.desired.contribution(key, column) {
            Some(Contribution::Members(all)) => {
                let mut items: BTreeSet<Item> = all.keys().filter_map(|e| self.item(e)).collect();
                items.extend(self.foreign(row, column));
                self.compare_set(key, row, column, items);
            }
            Some(Contribution::Entries(_)) => {
                let names: BTreeSet<Atom> = match row.get(column) {
                    Some(Datum::Map(m)) => m.keys().cloned().collect(),
                    _ => BTreeSet::new(),
                };
                let wanted = self.desired.contribution(key, column);
                let mut all = names;
                if let Some(Contribution::Entries(w)) = wanted {
                    all.extend(w.keys().cloned());
                }
                for name in all {
                    self.touch_entry(key, column, &name);
                }
            }
            None if column.schema().is_map() => {
                if let Some(Datum::Map(m)) = row.get(column) {
                    let names: BTreeSet<Atom> = m.keys().cloned().collect();
                    if !names.is_empty() {
                        self.edit(key, row.uuid).keys.entry(column).or_default().extend(names);
                    }
                }
            }
            None => {
                let items = self.foreign(row, column).collect();
                self.compare_set(key, row, column, items);
            }
        }
        true
    }

    /// Rows of others in a column that owners contribute to: routes learned by OVN-IC, ports made
    /// by hand. They stay, unless `row` itself is just being taken over from upstream: then what
    /// nobody wants in it was upstream's.
    fn foreign(&self, row: &Row, column: Column) -> impl Iterator<Item = Item> + use<'a> {
        let replica = self.replica;
        let table = column.schema().key.reference.and_then(|(name, _)| {
            replica.database().tables.iter().find(|t| t.name == name).copied()
        });
        let elements = match row.get(column) {
            Some(Datum::Set(all)) if table.is_some() && row.id().is_some() => all.clone(),
            _ => BTreeSet::new(),
        };
        elements.into_iter().filter_map(move |element| {
            let Atom::Uuid(uuid) = &element else { return None };
            let identified = replica.get(table?, *uuid).is_some_and(|r| r.id().is_some());
            (!identified).then_some(Item::Atom(element))
        })
    }

    fn touch_member(&mut self, key: &RowKey, column: Column, element: &Element) -> bool {
        let wanted = self.desired.has_member(key, column, element);
        let Some(row) = self.existing(key) else {
            let inserted = self.inserts.contains_key(key) && self.item(element).is_some();
            return !wanted || inserted;
        };
        let uuid = row.uuid;
        let Some(item) = self.item(element) else { return !wanted };
        let present = match (&item, row.get(column)) {
            (Item::Atom(atom), Some(Datum::Set(all))) => all.contains(atom),
            _ => false,
        };
        // A row that goes keeps its members to the last: what replaces it comes by the same
        // transaction, while this touch may come earlier. (A row that only the reference keeps goes
        // by its own touch.)
        let goes = self.desired.row(key).is_none() && row.id() == Some(&key.id) && !anchors(column);
        if wanted && !present {
            self.edit(key, uuid).insert.entry(column).or_default().insert(item);
        } else if !wanted && present && !goes {
            self.edit(key, uuid).delete.entry(column).or_default().insert(item);
        }
        true
    }

    fn touch_entry(&mut self, key: &RowKey, column: Column, name: &Atom) -> bool {
        let wanted = self.desired.entry(key, column, name);
        let Some(row) = self.existing(key) else {
            return wanted.is_none() || self.inserts.contains_key(key);
        };
        let uuid = row.uuid;
        let current = match row.get(column) {
            Some(Datum::Map(all)) => all.get(name),
            _ => None,
        };
        if current == wanted {
            return true;
        }
        let edit = self.edit(key, uuid);
        match wanted {
            Some(value) => {
                edit.keys.entry(column).or_default().insert(name.clone());
                let value = Item::Atom(value.clone());
                edit.put.entry(column).or_default().insert(name.clone(), value);
            }
            None => {
                edit.keys.entry(column).or_default().insert(name.clone());
            }
        }
        true
    }

    fn insert_row(&mut self, key: &RowKey) -> BTreeMap<Column, Cell> {
        let mut cells: BTreeMap<Column, Cell> = BTreeMap::new();
        let columns = self.desired.row(key).into_iter().flat_map(Columns::iter);
        for (column, value) in columns {
            let cell = match value {
                Value::Set(all) | Value::Initial(all) => {
                    Cell::Set(all.iter().filter_map(|e| self.item(e)).collect())
                }
                Value::Map(all) => Cell::map(with_identity(key, *column, all)),
                Value::Contributed | Value::Merged(_) => continue,
            };
            cells.insert(*column, cell);
        }
        for (column, contribution) in self.desired.contributions(key) {
            let cell = match contribution {
                Contribution::Members(all) => {
                    Cell::Set(all.keys().filter_map(|e| self.item(e)).collect())
                }
                Contribution::Entries(all) => {
                    Cell::map(all.iter().filter_map(|(k, c)| Some((k.clone(), c.first()?.clone()))))
                }
            };
            cells.insert(column, cell);
        }
        if let Some(ids) = key.table.column("external_ids") {
            cells.entry(ids).or_insert_with(|| Cell::map(with_identity(key, ids, &[])));
        }
        cells
    }

    fn finish(mut self) -> Plan {
        let inserts: Vec<(RowKey, NamedUuid)> =
            self.inserts.iter().map(|(k, n)| (k.clone(), n.clone())).collect();
        let mut operations = Vec::new();
        // Deletes first: a new row may take the unique name of an old one.
        let edits = std::mem::take(&mut self.edits);
        for ((_, uuid), (key, edit)) in edits {
            self.plan.written.insert(uuid);
            if edit.delete_row {
                operations.insert(0, Operation::Delete { table: key.table, target: uuid.into() });
                continue;
            }
            operations.extend(edit.operations(&key, uuid));
        }
        for (key, name) in inserts {
            let row = self.insert_row(&key);
            operations.push(Operation::Insert { table: key.table, named: Some(name), row });
            self.plan.inserted.insert(key);
        }
        self.plan.transaction = Transaction { operations };
        self.plan
    }
}

impl Edit {
    fn operations(self, key: &RowKey, uuid: Uuid) -> Vec<Operation> {
        let (table, target) = (key.table, Target::Uuid(uuid));
        let mut all = Vec::new();
        if !self.update.is_empty() {
            all.push(Operation::Update { table, target: target.clone(), row: self.update });
        }
        let mut mutations = Vec::new();
        for (column, items) in self.delete.into_iter().filter(|(_, i)| !i.is_empty()) {
            mutations.push(Mutation::delete(column, Cell::Set(items)));
        }
        for (column, items) in self.insert.into_iter().filter(|(_, i)| !i.is_empty()) {
            mutations.push(Mutation::insert(column, Cell::Set(items)));
        }
        for (column, names) in self.keys.into_iter().filter(|(_, n)| !n.is_empty()) {
            mutations.push(Mutation::delete_keys(column, names));
        }
        for (column, entries) in self.put.into_iter().filter(|(_, e)| !e.is_empty()) {
            mutations.push(Mutation::insert(column, Cell::Map(entries)));
        }
        if !mutations.is_empty() {
            all.push(Operation::Mutate { table, target, mutations });
        }
        all
    }
}

/// Whether a reference in the column keeps a row from being collected as garbage.
fn anchors(column: Column) -> bool {
    column.schema().key.reference.is_some_and(|(_, strength)| strength == Strength::Strong)
}

/// `external_ids` of a row of ours always carries the identity.
fn with_identity(key: &RowKey, column: Column, wanted: &[(Atom, Atom)]) -> BTreeMap<Atom, Atom> {
    let mut wanted: BTreeMap<Atom, Atom> = wanted.iter().cloned().collect();
    if column.name() == "external_ids" && !key.is_singleton() {
        wanted.insert(ID_KEY.into(), Atom::Text(key.id.clone()));
    }
    wanted
}
