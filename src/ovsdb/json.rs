//! Values as JSON (RFC 7047, section 5.1).
//!
//! A set of one is written and read as the bare atom, any other as `["set", [..]]`; a map as
//! `["map", [[k, v], ..]]`; references as `["uuid", ".."]`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::{Value, json};

use super::{
    datum::{Atom, Datum, Real, Uuid},
    schema::{AtomicType, BaseType, Column},
};

/// A value that is not of its column's type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{table}.{column}: {reason}")]
pub struct DecodeError {
    pub table: &'static str,
    pub column: &'static str,
    pub reason: String,
}

pub fn render_atom(atom: &Atom) -> Value {
    match atom {
        Atom::Integer(n) => json!(n),
        Atom::Real(r) => json!(r.0),
        Atom::Boolean(b) => json!(b),
        Atom::Text(t) => json!(&**t),
        Atom::Uuid(u) => json!(["uuid", u.to_string()]),
    }
}

pub fn render_datum(datum: &Datum) -> Value {
    match datum {
        Datum::Set(set) => render_set(set.iter().map(render_atom)),
        Datum::Map(map) => render_map(map.iter().map(|(k, v)| (render_atom(k), render_atom(v)))),
    }
}

/// A set of one as the bare atom, any other as `["set", [..]]`.
pub fn render_set(atoms: impl Iterator<Item = Value>) -> Value {
    let mut atoms: Vec<Value> = atoms.collect();
    match atoms.len() {
        1 => atoms.swap_remove(0),
        _ => json!(["set", atoms]),
    }
}

pub fn render_map(entries: impl Iterator<Item = (Value, Value)>) -> Value {
    let entries: Vec<Value> = entries.map(|(k, v)| json!([k, v])).collect();
    json!(["map", entries])
}

/// Reads a value of `column`. The number of elements and the range of numbers are the server's
/// business and not checked.
pub fn parse_datum(column: Column, value: &Value) -> Result<Datum, DecodeError> {
    let schema = column.schema();
    let parsed = match &schema.value {
        None => parse_set(&schema.key, value).map(Datum::Set),
        Some(of) => parse_map(&schema.key, of, value).map(Datum::Map),
    };
    parsed.map_err(|reason| DecodeError {
        table: column.table.name,
        column: schema.name,
        reason: reason.to_string(),
    })
}

/// `["tag", content]`
fn tagged<'a>(value: &'a Value, tag: &str) -> Option<&'a Value> {
    match value.as_array()?.as_slice() {
        [Value::String(found), content] if found == tag => Some(content),
        _ => None,
    }
}

enum Reason<'a> {
    Expected(AtomicType, &'a Value),
    NotSet(&'a Value),
    NotMap(&'a Value),
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Expected(atomic, found) => {
                write!(f, "expected {}, found {found}", atomic.name())
            }
            Reason::NotSet(found) => write!(f, "expected a set, found {found}"),
            Reason::NotMap(found) => write!(f, "expected a map, found {found}"),
        }
    }
}

fn parse_set<'a>(base: &BaseType, value: &'a Value) -> Result<BTreeSet<Atom>, Reason<'a>> {
    match tagged(value, "set") {
        Some(Value::Array(atoms)) => atoms.iter().map(|a| parse_atom(base.atomic, a)).collect(),
        Some(_) => Err(Reason::NotSet(value)),
        None => Ok(BTreeSet::from([parse_atom(base.atomic, value)?])),
    }
}

fn parse_map<'a>(
    key: &BaseType,
    of: &BaseType,
    value: &'a Value,
) -> Result<BTreeMap<Atom, Atom>, Reason<'a>> {
    let Some(Value::Array(entries)) = tagged(value, "map") else {
        return Err(Reason::NotMap(value));
    };
    entries
        .iter()
        .map(|entry| match entry.as_array().map(Vec::as_slice) {
            Some([k, v]) => Ok((parse_atom(key.atomic, k)?, parse_atom(of.atomic, v)?)),
            _ => Err(Reason::NotMap(value)),
        })
        .collect()
}

fn parse_atom(atomic: AtomicType, value: &Value) -> Result<Atom, Reason<'_>> {
    let atom = match atomic {
        AtomicType::Integer => value.as_i64().map(Atom::Integer),
        AtomicType::Real => value.as_f64().map(|r| Atom::Real(Real(r))),
        AtomicType::Boolean => value.as_bool().map(Atom::Boolean),
        AtomicType::Text => value.as_str().map(|t| Atom::Text(t.into())),
        AtomicType::Uuid => parse_uuid(value).map(Atom::Uuid),
    };
    atom.ok_or(Reason::Expected(atomic, value))
}

/// `["uuid", "xxxxxxxx-.."]`
pub fn parse_uuid(value: &Value) -> Option<Uuid> {
    tagged(value, "uuid")?.as_str()?.parse().ok()
}
