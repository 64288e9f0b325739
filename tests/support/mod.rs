//! Shared by the test binaries.
#![allow(dead_code)]

pub mod northbound;
pub mod objects;
