//! Pure tests: no root, no server, seconds.

mod api;
mod cni;
mod schema;
mod cmd;
