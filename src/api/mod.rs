//! The Kubernetes surface: CRD types, annotation and label names, raw -> validated objects.

mod admin_policy;
pub mod admin_raw;
pub mod crd;
mod external;
pub mod names;
mod object;
pub mod parse;
pub mod policy;
mod security;
pub mod selectors;
mod service;
mod workload;

pub use admin_policy::*;
pub use external::*;
pub use object::*;
pub use policy::NetworkPolicy;
pub use security::*;
pub use service::*;
pub use workload::*;
