//! OVSDB (RFC 7047). Pure half: values, schemas, facts, the replica. I/O half: wire and client.

pub mod datum;
pub mod row;
pub mod schema;
