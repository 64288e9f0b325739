//! OVSDB values (RFC 7047, section 5.1): atoms, sets and maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    sync::Arc,
};

/// A row identity, printed in the 8-4-4-4-12 form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub u128);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            (n >> 96) as u32,
            (n >> 80) as u16,
            (n >> 64) as u16,
            (n >> 48) as u16,
            n & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was not `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a UUID")]
pub struct BadUuid(pub String);

impl FromStr for Uuid {
    type Err = BadUuid;

    fn from_str(text: &str) -> Result<Self, BadUuid> {
        let bad = || BadUuid(text.to_owned());
        if text.len() != 36 || !text.is_ascii() {
            return Err(bad());
        }
        let mut n = 0u128;
        for (i, byte) in text.bytes().enumerate() {
            if matches!(i, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return Err(bad());
                }
                continue;
            }
            let digit = char::from(byte).to_digit(16).ok_or_else(bad)?;
            n = n << 4 | u128::from(digit);
        }
        Ok(Uuid(n))
    }
}

/// A real number with a total order, so that atoms can be keys.
#[derive(Clone, Copy, Debug)]
pub struct Real(pub f64);

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.0.total_cmp(&other.0).is_eq()
    }
}
impl Eq for Real {}
impl PartialOrd for Real {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Real {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
impl std::hash::Hash for Real {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    Integer(i64),
    Real(Real),
    Boolean(bool),
    Text(Arc<str>),
    Uuid(Uuid),
}

/// A column value. A scalar is a set of one; an optional value a set of none or one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Datum {
    Set(BTreeSet<Atom>),
    Map(BTreeMap<Atom, Atom>),
}

impl Datum {
    pub fn one(atom: Atom) -> Self {
        Datum::Set(BTreeSet::from([atom]))
    }

    pub fn is_empty(&self) -> bool {
        match self {
            Datum::Set(s) => s.is_empty(),
            Datum::Map(m) => m.is_empty(),
        }
    }

    /// The only text of a scalar or optional text column.
    pub fn text(&self) -> Option<&Arc<str>> {
        match self {
            Datum::Set(s) if s.len() == 1 => match s.first() {
                Some(Atom::Text(t)) => Some(t),
                _ => None,
            },
            _ => None,
        }
    }

    /// A value of a text map.
    pub fn entry(&self, key: &str) -> Option<&Arc<str>> {
        match self {
            Datum::Map(m) => match m.get(&Atom::Text(key.into())) {
                Some(Atom::Text(t)) => Some(t),
                _ => None,
            },
            Datum::Set(_) => None,
        }
    }

    /// UUIDs of a reference set.
    pub fn uuids(&self) -> impl Iterator<Item = Uuid> + '_ {
        let set = match self {
            Datum::Set(s) => Some(s),
            Datum::Map(_) => None,
        };
        set.into_iter().flatten().filter_map(|a| match a {
            Atom::Uuid(u) => Some(*u),
            _ => None,
        })
    }
}

impl From<&str> for Atom {
    fn from(t: &str) -> Self {
        Atom::Text(t.into())
    }
}
impl From<String> for Atom {
    fn from(t: String) -> Self {
        Atom::Text(t.into())
    }
}
impl From<Arc<str>> for Atom {
    fn from(t: Arc<str>) -> Self {
        Atom::Text(t)
    }
}
impl From<i64> for Atom {
    fn from(n: i64) -> Self {
        Atom::Integer(n)
    }
}
impl From<bool> for Atom {
    fn from(b: bool) -> Self {
        Atom::Boolean(b)
    }
}
impl From<Uuid> for Atom {
    fn from(u: Uuid) -> Self {
        Atom::Uuid(u)
    }
}
