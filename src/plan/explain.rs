use crate::{ovsdb::row::RowKey, store::Owner};

use super::{Desired, desired::Contribution};

/// Who made a row and who contributes to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub row: RowKey,
    pub made_by: Vec<Owner>,
    /// Column name, printed element or entry, owners.
    pub contributions: Vec<(&'static str, String, Vec<Owner>)>,
}

/// Explains a row; `None` when nobody wants it.
pub fn explain_row(desired: &Desired, row: &RowKey) -> Option<Explanation> {
    let made_by: Vec<Owner> = desired.owners(row).cloned().collect();
    let mut contributions = Vec::new();
    for (column, contribution) in desired.contributions(row) {
        match contribution {
            Contribution::Members(all) => {
                contributions.extend(all.iter().map(|(element, owners)| {
                    (column.name(), format!("{element:?}"), owners.owners().cloned().collect())
                }));
            }
            Contribution::Entries(all) => {
                contributions.extend(all.iter().map(|(key, owners)| {
                    (column.name(), format!("{key:?}"), owners.owners().cloned().collect())
                }));
            }
        }
    }
    if made_by.is_empty() && contributions.is_empty() {
        return None;
    }
    Some(Explanation { row: row.clone(), made_by, contributions })
}
