//! Shared by the test binaries.
#![allow(dead_code)]

pub mod cluster;
pub mod host_view;
pub mod northbound;
pub mod objects;
pub mod raw;
pub mod tls;
