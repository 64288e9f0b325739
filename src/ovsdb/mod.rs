//! OVSDB (RFC 7047). Pure half: values, schemas, facts, the replica, transactions. I/O half: wire
//! and client.

pub mod datum;
mod index;
pub mod json;
pub mod replica;
pub mod row;
pub mod schema;
pub mod transaction;
