//! Pure tests: no root, no server, seconds.

mod api;
mod cmd;
mod cni;
mod ovsdb_json;
mod ovsdb_replica;
mod schema;
