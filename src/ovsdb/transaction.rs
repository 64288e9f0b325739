//! Transactions (RFC 7047, sections 4.1.3 and 5.2) and their replies.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use serde_json::{Map, Value, json};

use super::{
    datum::{Atom, Datum, Uuid},
    json::{parse_uuid, render_atom, render_datum, render_map, render_set},
    schema::{Column, Database, Table},
};

/// Name of a row inserted by the same transaction: `[A-Za-z_][A-Za-z0-9_]*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedUuid(Arc<str>);

impl NamedUuid {
    /// The name of the n-th new row of a transaction.
    pub fn numbered(n: usize) -> Self {
        NamedUuid(format!("row{n}").into())
    }
}

impl fmt::Display for NamedUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An element that may be a row which has no UUID yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    Atom(Atom),
    Reference(NamedUuid),
}

/// A column value that may refer to new rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    Set(BTreeSet<Item>),
    Map(BTreeMap<Atom, Item>),
}

impl<A: Into<Atom>> From<A> for Item {
    fn from(atom: A) -> Self {
        Item::Atom(atom.into())
    }
}

impl Cell {
    /// A scalar or a set of one.
    pub fn one(item: impl Into<Item>) -> Self {
        Cell::Set(BTreeSet::from([item.into()]))
    }

    /// A set of one reference to a new row.
    pub fn reference(name: &NamedUuid) -> Self {
        Cell::Set(BTreeSet::from([Item::Reference(name.clone())]))
    }

    pub fn set<I: Into<Item>>(items: impl IntoIterator<Item = I>) -> Self {
        Cell::Set(items.into_iter().map(Into::into).collect())
    }

    pub fn map<K: Into<Atom>, V: Into<Item>>(entries: impl IntoIterator<Item = (K, V)>) -> Self {
        Cell::Map(entries.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }
}

impl From<Datum> for Cell {
    fn from(datum: Datum) -> Self {
        match datum {
            Datum::Set(set) => Cell::set(set),
            Datum::Map(map) => Cell::map(map),
        }
    }
}

/// The rows that an operation is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// The only fast way: the server finds the row without a scan.
    Uuid(Uuid),
    /// A row inserted earlier in the same transaction.
    New(NamedUuid),
    /// The rows that fulfil all conditions; with none, every row of the table.
    Where(Vec<Condition>),
}

impl From<Uuid> for Target {
    fn from(uuid: Uuid) -> Self {
        Target::Uuid(uuid)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// The column has exactly this value.
    Equals(Column, Datum),
    /// The set or map has at least these elements.
    Includes(Column, Datum),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutator {
    /// Adds elements. A key that a map has already **keeps its old value**.
    Insert,
    /// Removes elements. Of a map, a map operand removes entries with equal values, a set
    /// operand removes keys whatever their values.
    Delete,
}

/// A change of a set or map that does not mention the other elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Mutation {
    pub column: Column,
    pub mutator: Mutator,
    pub operand: Cell,
}

impl Mutation {
    pub fn insert(column: Column, operand: Cell) -> Self {
        Mutation { column, mutator: Mutator::Insert, operand }
    }

    pub fn delete(column: Column, operand: Cell) -> Self {
        Mutation { column, mutator: Mutator::Delete, operand }
    }

    /// Removes keys of a map, whatever their values.
    pub fn delete_keys<K: Into<Atom>>(column: Column, keys: impl IntoIterator<Item = K>) -> Self {
        Mutation::delete(column, Cell::set(keys.into_iter().map(|k| Item::Atom(k.into()))))
    }

    /// Sets entries of a map, over old values too.
    pub fn put(column: Column, entries: BTreeMap<Atom, Item>) -> [Self; 2] {
        let keys = Mutation::delete_keys(column, entries.keys().cloned());
        [keys, Mutation::insert(column, Cell::Map(entries))]
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// `named` is for references by other operations of the transaction.
    Insert {
        table: &'static Table,
        named: Option<NamedUuid>,
        row: BTreeMap<Column, Cell>,
    },
    /// Overwrites whole columns.
    Update {
        table: &'static Table,
        target: Target,
        row: BTreeMap<Column, Cell>,
    },
    Mutate {
        table: &'static Table,
        target: Target,
        mutations: Vec<Mutation>,
    },
    Delete {
        table: &'static Table,
        target: Target,
    },
    /// Fails the transaction with "timed out", at once, unless a row fulfils the condition now.
    Wait {
        table: &'static Table,
        condition: Condition,
    },
    /// Text for the server's transaction log.
    Comment(String),
}

/// Operations that are executed in order, all or none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    pub operations: Vec<Operation>,
}

impl Transaction {
    /// The parameters of a `transact` request.
    pub fn to_params(&self, database: &Database) -> Value {
        let mut params = vec![json!(database.name)];
        params.extend(self.operations.iter().map(Operation::to_json));
        Value::Array(params)
    }
}

impl Operation {
    fn to_json(&self) -> Value {
        match self {
            Operation::Insert { table, named, row } => {
                let mut op = json!({"op": "insert", "table": table.name, "row": row_json(row)});
                if let Some(name) = named {
                    op["uuid-name"] = json!(&*name.0);
                }
                op
            }
            Operation::Update { table, target, row } => json!({
                "op": "update", "table": table.name, "where": target.to_json(),
                "row": row_json(row),
            }),
            Operation::Mutate { table, target, mutations } => json!({
                "op": "mutate", "table": table.name, "where": target.to_json(),
                "mutations": mutations.iter().map(Mutation::to_json).collect::<Vec<_>>(),
            }),
            Operation::Delete { table, target } => {
                json!({"op": "delete", "table": table.name, "where": target.to_json()})
            }
            Operation::Wait { table, condition } => json!({
                "op": "wait", "table": table.name, "timeout": 0,
                "where": [condition.to_json()], "columns": ["_uuid"],
                "until": "!=", "rows": [],
            }),
            Operation::Comment(text) => json!({"op": "comment", "comment": text}),
        }
    }
}

impl Mutation {
    fn to_json(&self) -> Value {
        let mutator = match self.mutator {
            Mutator::Insert => "insert",
            Mutator::Delete => "delete",
        };
        json!([self.column.name(), mutator, cell_json(&self.operand)])
    }
}

impl Target {
    fn to_json(&self) -> Value {
        match self {
            Target::Uuid(uuid) => json!([["_uuid", "==", ["uuid", uuid.to_string()]]]),
            Target::New(name) => json!([["_uuid", "==", ["named-uuid", &*name.0]]]),
            Target::Where(all) => all.iter().map(Condition::to_json).collect(),
        }
    }
}

impl Condition {
    fn to_json(&self) -> Value {
        match self {
            Condition::Equals(column, datum) => json!([column.name(), "==", render_datum(datum)]),
            Condition::Includes(column, datum) => {
                json!([column.name(), "includes", render_datum(datum)])
            }
        }
    }
}

fn row_json(row: &BTreeMap<Column, Cell>) -> Value {
    let columns: Map<String, Value> =
        row.iter().map(|(column, cell)| (column.name().to_owned(), cell_json(cell))).collect();
    Value::Object(columns)
}

fn cell_json(cell: &Cell) -> Value {
    match cell {
        Cell::Set(items) => render_set(items.iter().map(item_json)),
        Cell::Map(entries) => {
            render_map(entries.iter().map(|(k, v)| (render_atom(k), item_json(v))))
        }
    }
}

fn item_json(item: &Item) -> Value {
    match item {
        Item::Atom(atom) => render_atom(atom),
        Item::Reference(name) => json!(["named-uuid", &*name.0]),
    }
}

/// What each operation did, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub results: Vec<OperationResult>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationResult {
    /// The UUID of the new row.
    Inserted(Uuid),
    /// The number of rows that matched.
    Matched(u64),
    /// A wait or a comment.
    Done,
}

/// The server refused a transaction; nothing of it was executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}{}{}", index.map(|i| format!(" in operation {i}")).unwrap_or_default(),
    if details.is_empty() { String::new() } else { format!(": {details}") })]
pub struct Refusal {
    /// The error tag: `constraint violation`, `timed out`, `referential integrity violation`...
    pub error: String,
    pub details: String,
    /// The operation at fault; `None` when the transaction failed as a whole at its commit.
    pub index: Option<usize>,
}

impl Refusal {
    /// A [`Operation::Wait`] did not hold.
    pub fn is_unmet_wait(&self) -> bool {
        self.error == "timed out"
    }

    /// Reads `{"error": "..", "details": ".."}`.
    pub fn parse(value: &Value, index: Option<usize>) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let details = text("details").unwrap_or_default();
        Some(Refusal { error: text("error")?, details, index })
    }
}

/// A reply that is not one to the transaction sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed reply to a transaction: {0}")]
pub struct BadReply(pub String);

impl Outcome {
    /// Reads the result of a `transact` request of `count` operations: one element for each,
    /// `null` behind a failed one, and one more when the commit failed.
    pub fn parse(reply: &Value, count: usize) -> Result<Result<Self, Refusal>, BadReply> {
        let bad = || BadReply(reply.to_string().chars().take(200).collect());
        let elements = reply.as_array().ok_or_else(bad)?;
        let mut results = Vec::with_capacity(count);
        for (position, element) in elements.iter().enumerate() {
            let index = (position < count).then_some(position);
            if let Some(refusal) = Refusal::parse(element, index) {
                return Ok(Err(refusal));
            }
            let result = if let Some(uuid) = element.get("uuid") {
                OperationResult::Inserted(parse_uuid(uuid).ok_or_else(bad)?)
            } else if let Some(count) = element.get("count") {
                OperationResult::Matched(count.as_u64().ok_or_else(bad)?)
            } else if element.is_object() {
                OperationResult::Done
            } else {
                return Err(bad());
            };
            results.push(result);
        }
        if results.len() == count { Ok(Ok(Outcome { results })) } else { Err(bad()) }
    }

    /// The UUID of the row that operation `index` inserted.
    pub fn inserted(&self, index: usize) -> Option<Uuid> {
        match self.results.get(index) {
            Some(OperationResult::Inserted(uuid)) => Some(*uuid),
            _ => None,
        }
    }
}
