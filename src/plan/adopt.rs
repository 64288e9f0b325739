//! Finding the row that a key means: by our identity, else, for take-over, by natural key.

use crate::ovsdb::{
    datum::Atom,
    replica::{Replica, Row},
    row::{Element, RowKey, Value},
};

use super::Desired;

/// The existing row of `key`. A row without an identity that has the wanted name is adopted: it
/// was written by upstream, or by an earlier life of ours before the identity was known.
pub fn find<'r>(desired: &Desired, replica: &'r Replica, key: &RowKey) -> Option<&'r Row> {
    if key.is_singleton() {
        return replica.singleton(key.table);
    }
    if let Some(row) = replica.by_id(key.table, &key.id) {
        return Some(row);
    }
    let name = key.table.column("name")?;
    let Some(Value::Set(wanted)) = desired.row(key)?.get(name) else { return None };
    let Some(Element::Atom(Atom::Text(text))) = wanted.first() else { return None };
    // An ACL name is a label for logs, not an identity.
    if key.table.name == "ACL" || text.is_empty() {
        return None;
    }
    replica.all_by_name(key.table, text).find(|row| row.id().is_none())
}
