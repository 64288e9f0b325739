//! The Kubernetes surface: CRD types, annotation and label names, raw -> validated objects.

mod object;

pub use object::*;
