//! OVSDB (RFC 7047).
//!
//! Pure half: values ([`datum`], [`json`]), schemas ([`schema`]), facts ([`row`]), the
//! [`replica`], [`transaction`]s, [`endpoint`] syntax, message framing ([`frame`]).
//! I/O half: [`wire`] and [`tls`] (one connection), [`client`] (stays connected), [`rpc`] (single
//! requests), [`unixctl`], [`dial`] (does a host live).

pub mod client;
pub mod datum;
pub mod dial;
pub mod endpoint;
pub mod frame;
mod glance;
pub mod json;
pub mod replica;
pub mod row;
pub mod rpc;
pub mod schema;
mod session;
pub mod tls;
pub mod transaction;
pub mod unixctl;
pub mod wire;
