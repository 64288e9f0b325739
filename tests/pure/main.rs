//! Pure tests: no root, no server, seconds.

mod api;
mod schema;
