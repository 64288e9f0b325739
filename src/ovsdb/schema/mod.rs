//! Static descriptions of the databases, generated from the `*.ovsschema` files.
//!
//! A feature names a column by constant (`nb::logical_switch_port::ADDRESSES`); the type of a
//! value is checked against the schema by [`ColumnSchema::admits`] in every test case.

use std::collections::{BTreeMap, BTreeSet};

use super::datum::{Atom, Datum, Real, Uuid};

#[rustfmt::skip]
pub mod nb;
#[rustfmt::skip]
pub mod sb;
#[rustfmt::skip]
pub mod vswitch;
pub mod server;

/// One database (`OVN_Northbound`).
#[derive(Debug)]
pub struct Database {
    pub name: &'static str,
    pub version: &'static str,
    pub tables: &'static [&'static Table],
}

#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    pub columns: &'static [ColumnSchema],
    /// Rows of a non-root table vanish when nothing refers to them strongly.
    pub is_root: bool,
    pub max_rows: Option<u32>,
    /// Unique column groups, as indexes into `columns`.
    pub indexes: &'static [&'static [u16]],
}

/// Tables are compared by address: there is one static per table.
impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}
impl Eq for Table {}

#[derive(Debug)]
pub struct ColumnSchema {
    pub name: &'static str,
    pub key: BaseType,
    /// Present for maps.
    pub value: Option<BaseType>,
    pub min: u32,
    /// `u32::MAX` means unlimited.
    pub max: u32,
    pub mutable: bool,
    pub ephemeral: bool,
}

#[derive(Debug)]
pub struct BaseType {
    pub atomic: AtomicType,
    /// Referred table and strength of the reference, for UUID columns.
    pub reference: Option<(&'static str, Strength)>,
    pub choices: &'static [&'static str],
    pub min_integer: Option<i64>,
    pub max_integer: Option<i64>,
    /// Longest text, in characters.
    pub max_length: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtomicType {
    Integer,
    Real,
    Boolean,
    Text,
    Uuid,
}

impl AtomicType {
    /// As RFC 7047 writes it.
    pub const fn name(self) -> &'static str {
        match self {
            AtomicType::Integer => "integer",
            AtomicType::Real => "real",
            AtomicType::Boolean => "boolean",
            AtomicType::Text => "string",
            AtomicType::Uuid => "uuid",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    Strong,
    Weak,
}

/// A column of a table: `table` and the position in `table.columns`.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub table: &'static Table,
    pub index: u16,
}

impl Column {
    pub fn schema(self) -> &'static ColumnSchema {
        &self.table.columns[usize::from(self.index)]
    }

    pub fn name(self) -> &'static str {
        self.schema().name
    }
}

impl PartialEq for Column {
    fn eq(&self, other: &Self) -> bool {
        self.table == other.table && self.index == other.index
    }
}
impl Eq for Column {}
impl PartialOrd for Column {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Column {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.table.name.cmp(other.table.name).then(self.index.cmp(&other.index))
    }
}
impl std::hash::Hash for Column {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.table.name.hash(state);
        self.index.hash(state);
    }
}

impl Table {
    /// Looks a column up by name.
    pub fn column(&'static self, name: &str) -> Option<Column> {
        let index = self.columns.iter().position(|c| c.name == name)?;
        Some(Column { table: self, index: index as u16 })
    }

    /// Its columns, in the order of the schema.
    pub fn all_columns(&'static self) -> impl Iterator<Item = Column> {
        (0..self.columns.len()).map(move |index| Column { table: self, index: index as u16 })
    }
}

impl Database {
    /// Looks a table up by name.
    pub fn table(&self, name: &str) -> Option<&'static Table> {
        self.tables.iter().copied().find(|t| t.name == name)
    }
}

impl BaseType {
    /// Any value of the type.
    pub const fn plain(atomic: AtomicType) -> Self {
        let (min_integer, max_integer) = (None, None);
        BaseType {
            atomic,
            reference: None,
            choices: &[],
            min_integer,
            max_integer,
            max_length: None,
        }
    }

    /// An integer of a range, both ends included.
    pub const fn integer(min_integer: Option<i64>, max_integer: Option<i64>) -> Self {
        BaseType { min_integer, max_integer, ..Self::plain(AtomicType::Integer) }
    }

    /// One of these texts.
    pub const fn choice(choices: &'static [&'static str]) -> Self {
        BaseType { choices, ..Self::plain(AtomicType::Text) }
    }

    /// A text of at most this many characters.
    pub const fn short_text(max_length: u32) -> Self {
        BaseType { max_length: Some(max_length), ..Self::plain(AtomicType::Text) }
    }

    /// The UUID of a row of `table`.
    pub const fn reference(table: &'static str, strength: Strength) -> Self {
        BaseType { reference: Some((table, strength)), ..Self::plain(AtomicType::Uuid) }
    }

    /// The value of a scalar that nobody has set (RFC 7047, section 5.2.1).
    pub fn default_atom(&self) -> Atom {
        match self.atomic {
            AtomicType::Integer => Atom::Integer(0),
            AtomicType::Real => Atom::Real(Real(0.0)),
            AtomicType::Boolean => Atom::Boolean(false),
            AtomicType::Text => Atom::Text("".into()),
            AtomicType::Uuid => Atom::Uuid(Uuid::default()),
        }
    }

    fn admits(&self, atom: &Atom) -> bool {
        match (self.atomic, atom) {
            (AtomicType::Integer, Atom::Integer(n)) => {
                self.min_integer.is_none_or(|m| *n >= m) && self.max_integer.is_none_or(|m| *n <= m)
            }
            (AtomicType::Real, Atom::Real(_)) | (AtomicType::Boolean, Atom::Boolean(_)) => true,
            (AtomicType::Text, Atom::Text(t)) => {
                (self.choices.is_empty() || self.choices.contains(&&**t))
                    && self.max_length.is_none_or(|m| t.chars().count() <= m as usize)
            }
            (AtomicType::Uuid, Atom::Uuid(_)) => true,
            _ => false,
        }
    }
}

impl ColumnSchema {
    pub fn is_map(&self) -> bool {
        self.value.is_some()
    }

    /// At most one element: differences replace the value instead of amending it.
    pub fn is_single(&self) -> bool {
        self.max <= 1
    }

    /// The value of a column that an insert does not name (RFC 7047, section 5.2.1).
    pub fn default_datum(&self) -> Datum {
        match (&self.value, self.min) {
            (None, 0) => Datum::Set(BTreeSet::new()),
            (None, _) => Datum::one(self.key.default_atom()),
            (Some(_), 0) => Datum::Map(BTreeMap::new()),
            (Some(value), _) => {
                Datum::Map(BTreeMap::from([(self.key.default_atom(), value.default_atom())]))
            }
        }
    }

    /// `true` when `datum` has the column's type and size.
    pub fn admits(&self, datum: &Datum) -> bool {
        let (count, typed) = match (datum, &self.value) {
            (Datum::Set(s), None) => (s.len(), s.iter().all(|a| self.key.admits(a))),
            (Datum::Map(m), Some(v)) => {
                (m.len(), m.iter().all(|(k, x)| self.key.admits(k) && v.admits(x)))
            }
            _ => return false,
        };
        typed && count >= self.min as usize && (self.max == u32::MAX || count <= self.max as usize)
    }
}
