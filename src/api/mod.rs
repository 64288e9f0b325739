//! The Kubernetes surface: CRD types, annotation and label names, raw -> validated objects.

pub mod crd;
pub mod names;
mod object;

pub use object::*;
