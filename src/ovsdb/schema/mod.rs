//! Static descriptions of the databases, generated from the `*.ovsschema` files.
//!
//! A feature names a column by constant (`nb::logical_switch_port::ADDRESSES`); the type of a
//! value is checked against the schema by [`ColumnSchema::admits`] in every test case.

use super::datum::{Atom, Datum};

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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtomicType {
    Integer,
    Real,
    Boolean,
    Text,
    Uuid,
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
}

impl BaseType {
    fn admits(&self, atom: &Atom) -> bool {
        match (self.atomic, atom) {
            (AtomicType::Integer, Atom::Integer(n)) => {
                self.min_integer.is_none_or(|m| *n >= m) && self.max_integer.is_none_or(|m| *n <= m)
            }
            (AtomicType::Real, Atom::Real(_)) | (AtomicType::Boolean, Atom::Boolean(_)) => true,
            (AtomicType::Text, Atom::Text(t)) => {
                self.choices.is_empty() || self.choices.contains(&&**t)
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
