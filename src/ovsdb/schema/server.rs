//! The part of database `_Server` that a client needs to choose a server (ovsdb-server(5)).

use super::{AtomicType, BaseType, Column, ColumnSchema, Database, Table};

const fn scalar(name: &'static str, key: BaseType) -> ColumnSchema {
    ColumnSchema { name, key, value: None, min: 1, max: 1, mutable: true, ephemeral: false }
}

pub static DATABASE_TABLE: Table = Table {
    name: "Database",
    columns: &[
        scalar("connected", BaseType::plain(AtomicType::Boolean)),
        scalar("leader", BaseType::plain(AtomicType::Boolean)),
        scalar("model", BaseType::plain(AtomicType::Text)),
        scalar("name", BaseType::plain(AtomicType::Text)),
    ],
    is_root: true,
    max_rows: None,
    indexes: &[&[3]],
};

pub mod database {
    use super::Column;

    /// Clustered: in contact with a majority. Always true of a standalone database.
    pub const CONNECTED: Column = Column { table: &super::DATABASE_TABLE, index: 0 };
    pub const LEADER: Column = Column { table: &super::DATABASE_TABLE, index: 1 };
    /// `standalone`, `clustered` or `relay`.
    pub const MODEL: Column = Column { table: &super::DATABASE_TABLE, index: 2 };
    pub const NAME: Column = Column { table: &super::DATABASE_TABLE, index: 3 };
}

pub static DATABASE: Database =
    Database { name: "_Server", version: "1.2.0", tables: &[&DATABASE_TABLE] };
