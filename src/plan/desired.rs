use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    ovsdb::{
        datum::Atom,
        row::{Columns, Element, Fact, RowKey, Value},
        schema::Column,
    },
    store::Owner,
};

use super::claims::Claims;

/// A place in the database whose wanted content may have changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Touch {
    /// Existence and the columns of a row.
    Row(RowKey),
    /// One element of a set column that owners contribute to.
    Member(RowKey, Column, Element),
    /// One key of a map column that owners contribute to.
    Entry(RowKey, Column, Atom),
}

impl Touch {
    pub fn row(&self) -> &RowKey {
        match self {
            Touch::Row(row) | Touch::Member(row, ..) | Touch::Entry(row, ..) => row,
        }
    }
}

/// Contributions to one column of one row; every claim keeps its owners so that two owners of the
/// same element do not take it from each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contribution {
    Members(BTreeMap<Element, Claims<()>>),
    Entries(BTreeMap<Atom, Claims<Atom>>),
}

/// The sum of all facts, addressable by row.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Claims per row, by owner: the lowest owner wins, the others are reported by the oracle.
    rows: HashMap<RowKey, Claims<Arc<Columns>>>,
    contributions: HashMap<RowKey, BTreeMap<Column, Contribution>>,
}

impl Desired {
    /// Columns that the row must have; `None` when it must not exist.
    pub fn row(&self, key: &RowKey) -> Option<&Columns> {
        self.rows.get(key)?.first().map(|columns| &**columns)
    }

    /// Who asked for the row.
    pub fn owners(&self, key: &RowKey) -> impl Iterator<Item = &Owner> {
        self.rows.get(key).into_iter().flat_map(Claims::owners)
    }

    pub fn rows(&self) -> impl Iterator<Item = &RowKey> {
        self.rows.keys()
    }

    /// Rows, ours or foreign, that somebody contributes to.
    pub fn contributed_rows(&self) -> impl Iterator<Item = &RowKey> {
        self.contributions.keys()
    }

    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    pub fn contributions(&self, key: &RowKey) -> impl Iterator<Item = (Column, &Contribution)> {
        self.contributions.get(key).into_iter().flatten().map(|(c, v)| (*c, v))
    }

    pub fn contribution(&self, key: &RowKey, column: Column) -> Option<&Contribution> {
        self.contributions.get(key)?.get(&column)
    }

    /// Whether some owner wants `element` in the column.
    pub fn has_member(&self, key: &RowKey, column: Column, element: &Element) -> bool {
        matches!(self.contribution(key, column),
            Some(Contribution::Members(all)) if all.contains_key(element))
    }

    /// The wanted value of a map key; the lowest owner wins.
    pub fn entry(&self, key: &RowKey, column: Column, name: &Atom) -> Option<&Atom> {
        match self.contribution(key, column)? {
            Contribution::Entries(all) => all.get(name)?.first(),
            Contribution::Members(_) => None,
        }
    }

    pub fn insert(&mut self, owner: &Owner, fact: &Fact) {
        match fact {
            Fact::Row { key, columns } => {
                self.rows.entry(key.clone()).or_default().insert(owner, columns.clone());
            }
            Fact::Member { row, column, element } => {
                let slot = self.slot(row, *column, Contribution::Members(BTreeMap::new()));
                if let Contribution::Members(all) = slot {
                    all.entry(element.clone()).or_default().insert(owner, ());
                }
            }
            Fact::Entry { row, column, key, value } => {
                let slot = self.slot(row, *column, Contribution::Entries(BTreeMap::new()));
                if let Contribution::Entries(all) = slot {
                    all.entry(key.clone()).or_default().insert(owner, value.clone());
                }
            }
        }
    }

    fn slot(&mut self, row: &RowKey, column: Column, empty: Contribution) -> &mut Contribution {
        let columns = self.contributions.entry(row.clone()).or_default();
        columns.entry(column).or_insert(empty)
    }

    pub fn remove(&mut self, owner: &Owner, fact: &Fact) {
        match fact {
            Fact::Row { key, .. } => {
                if let Some(claims) = self.rows.get_mut(key) {
                    claims.remove(owner);
                    if claims.is_empty() {
                        self.rows.remove(key);
                    }
                }
            }
            Fact::Member { row, column, element } => {
                self.release(row, *column, |c| {
                    if let Contribution::Members(all) = c
                        && let Some(owners) = all.get_mut(element)
                    {
                        owners.remove(owner);
                        if owners.is_empty() {
                            all.remove(element);
                        }
                    }
                });
            }
            Fact::Entry { row, column, key, .. } => {
                self.release(row, *column, |c| {
                    if let Contribution::Entries(all) = c
                        && let Some(claims) = all.get_mut(key)
                    {
                        claims.remove(owner);
                        if claims.is_empty() {
                            all.remove(key);
                        }
                    }
                });
            }
        }
    }

    fn release(&mut self, row: &RowKey, column: Column, f: impl FnOnce(&mut Contribution)) {
        let Some(columns) = self.contributions.get_mut(row) else { return };
        if let Some(contribution) = columns.get_mut(&column) {
            f(contribution);
            let empty = match contribution {
                Contribution::Members(all) => all.is_empty(),
                Contribution::Entries(all) => all.is_empty(),
            };
            if empty {
                columns.remove(&column);
            }
        }
        if columns.is_empty() {
            self.contributions.remove(row);
        }
    }
}

/// The touch that corresponds to a fact.
pub fn touch_of(fact: &Fact) -> Touch {
    match fact {
        Fact::Row { key, .. } => Touch::Row(key.clone()),
        Fact::Member { row, column, element } => {
            Touch::Member(row.clone(), *column, element.clone())
        }
        Fact::Entry { row, column, key, .. } => Touch::Entry(row.clone(), *column, key.clone()),
    }
}

/// `Merged` columns of a row fact become entries, so that a key that is no longer wanted is known
/// to have been ours.
pub fn normalized(facts: Vec<Fact>) -> Vec<Fact> {
    let mut all = Vec::with_capacity(facts.len());
    for fact in facts {
        let Fact::Row { key, columns } = &fact else {
            all.push(fact);
            continue;
        };
        if !columns.iter().any(|(_, value)| matches!(value, Value::Merged(_))) {
            all.push(fact);
            continue;
        }
        let mut kept = Vec::new();
        for (column, value) in columns.iter() {
            if let Value::Merged(entries) = value {
                all.extend(entries.iter().map(|(name, value)| Fact::Entry {
                    row: key.clone(),
                    column: *column,
                    key: name.clone(),
                    value: value.clone(),
                }));
            } else {
                kept.push((*column, value.clone()));
            }
        }
        all.push(Fact::Row { key: key.clone(), columns: Arc::new(kept.into_iter().collect()) });
    }
    all.shrink_to_fit();
    all
}
