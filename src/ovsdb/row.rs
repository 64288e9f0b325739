//! Facts: what a feature wants to be true in a database, and how rows are named before they have
//! a UUID.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use super::{
    datum::Atom,
    schema::{Column, Table},
};

/// `external_ids` key under which every row of ours carries its identity.
pub const ID_KEY: &str = "kube-ovn/id";

/// First part of the identity of a row whose table has no `external_ids` (`Load_Balancer_Group`):
/// the identity is its `name`, and nobody else's names begin so.
pub const NAMED: &str = "kube-ovn";

/// Identity of a row that we make: its table and `feature:owner:discriminator`.
/// The id "" names the only row of a singleton table (`NB_Global`).
#[derive(Clone)]
pub struct RowKey {
    pub table: &'static Table,
    pub id: Arc<str>,
}

impl RowKey {
    pub fn new(table: &'static Table, feature: &str, owner: &str, discriminator: &str) -> Self {
        RowKey { table, id: format!("{feature}:{owner}:{discriminator}").into() }
    }

    /// `feature:owner`.
    pub fn maker(&self) -> &str {
        self.id.match_indices(':').nth(1).map_or(&*self.id, |(end, _)| &self.id[..end])
    }

    /// The only row of a table with at most one row.
    pub fn singleton(table: &'static Table) -> Self {
        RowKey { table, id: "".into() }
    }

    pub fn is_singleton(&self) -> bool {
        self.id.is_empty()
    }
}

impl PartialEq for RowKey {
    fn eq(&self, other: &Self) -> bool {
        self.table == other.table && self.id == other.id
    }
}
impl Eq for RowKey {}
impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for RowKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.table.name, &self.id).cmp(&(other.table.name, &other.id))
    }
}
impl std::hash::Hash for RowKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.table.name.hash(state);
        self.id.hash(state);
    }
}
impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.table.name, self.id)
    }
}

/// An element of a set as a feature writes it: a literal, or a reference to another wanted row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    Atom(Atom),
    Row(RowKey),
}

/// A column value as a feature writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Ordered, without doubles.
    Set(Box<[Element]>),
    /// Given to a row that we make; what an existing row has is kept. For values that others hold
    /// in their tables, such as the MAC address of a gateway: one that upstream chose at random
    /// stays when its router is taken over.
    Initial(Box<[Element]>),
    /// Ordered by key.
    Map(Box<[(Atom, Atom)]>),
    /// The column is the union of the [`Fact::Member`]s (set) or [`Fact::Entry`]s (map) of all
    /// owners; what nobody contributes is removed.
    Contributed,
    /// Of a map: these entries are enforced, all other keys belong to somebody else.
    Merged(Box<[(Atom, Atom)]>),
}

impl Value {
    pub fn set(elements: impl IntoIterator<Item = Element>) -> Self {
        Value::Set(elements.into_iter().collect::<BTreeSet<_>>().into_iter().collect())
    }
}

/// The columns of a row fact, ordered. Slices, not trees: there are ten thousand of these, of a
/// few small columns each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns(Box<[(Column, Value)]>);

impl Columns {
    pub fn get(&self, column: Column) -> Option<&Value> {
        self.iter().find(|(c, _)| **c == column).map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Column, &Value)> {
        self.0.iter().map(|(column, value)| (column, value))
    }
}

impl FromIterator<(Column, Value)> for Columns {
    fn from_iter<I: IntoIterator<Item = (Column, Value)>>(all: I) -> Self {
        Columns(all.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect())
    }
}

/// One thing that must be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The row exists and has these columns; columns not named are nobody's business.
    Row { key: RowKey, columns: Arc<Columns> },
    /// `element` is in the set column of another row.
    Member { row: RowKey, column: Column, element: Element },
    /// `key=value` is in the map column of another row.
    Entry { row: RowKey, column: Column, key: Atom, value: Atom },
}

impl Fact {
    /// The row that the fact is about.
    pub fn row(&self) -> &RowKey {
        match self {
            Fact::Row { key, .. } => key,
            Fact::Member { row, .. } | Fact::Entry { row, .. } => row,
        }
    }
}

/// Builds a [`Fact::Row`].
#[derive(Clone, Debug)]
pub struct RowBuilder {
    key: RowKey,
    columns: BTreeMap<Column, Value>,
}

impl RowBuilder {
    pub fn new(key: &RowKey) -> Self {
        RowBuilder { key: key.clone(), columns: BTreeMap::new() }
    }

    /// A scalar or one-element set.
    #[must_use]
    pub fn set(self, column: Column, atom: impl Into<Atom>) -> Self {
        self.elements(column, [Element::Atom(atom.into())])
    }

    /// A scalar that only a row made by us gets, see [`Value::Initial`].
    #[must_use]
    pub fn initial(mut self, column: Column, atom: impl Into<Atom>) -> Self {
        self.columns.insert(column, Value::Initial([Element::Atom(atom.into())].into()));
        self
    }

    /// A set of literals; none is the empty set.
    #[must_use]
    pub fn atoms<A: Into<Atom>>(self, column: Column, atoms: impl IntoIterator<Item = A>) -> Self {
        self.elements(column, atoms.into_iter().map(|a| Element::Atom(a.into())))
    }

    /// A set of literals or references.
    #[must_use]
    pub fn elements(mut self, column: Column, all: impl IntoIterator<Item = Element>) -> Self {
        self.columns.insert(column, Value::set(all));
        self
    }

    /// A text map, enforced whole.
    #[must_use]
    pub fn map<K: Into<Atom>, V: Into<Atom>>(
        mut self,
        column: Column,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.columns.insert(column, Value::Map(ordered(entries)));
        self
    }

    /// A text map of which only these entries are ours.
    #[must_use]
    pub fn merge<K: Into<Atom>, V: Into<Atom>>(
        mut self,
        column: Column,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.columns.insert(column, Value::Merged(ordered(entries)));
        self
    }

    /// The column is filled by other owners.
    #[must_use]
    pub fn contributed(mut self, column: Column) -> Self {
        self.columns.insert(column, Value::Contributed);
        self
    }

    pub fn fact(self) -> Fact {
        Fact::Row { key: self.key, columns: Arc::new(self.columns.into_iter().collect()) }
    }
}

/// Entries by key; of two with one key the last counts.
fn ordered<K: Into<Atom>, V: Into<Atom>>(
    entries: impl IntoIterator<Item = (K, V)>,
) -> Box<[(Atom, Atom)]> {
    let all: BTreeMap<Atom, Atom> =
        entries.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
    all.into_iter().collect()
}
