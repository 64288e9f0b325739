//! The kubeovn.io/v1 custom resources as the API server stores them (group constants in
//! [`super::names`]). Nothing here is checked; [`super::parse`] does that.

mod condition;
mod ip;
mod pattern;
pub mod shape;
mod subnet;
mod vpc;

pub use condition::{Condition, NodeCondition, ObservedCondition};
pub use ip::*;
pub use shape::Count;
pub use subnet::*;
pub use vpc::*;
