//! The kubeovn.io/v1 custom resources as the API server stores them (group constants in
//! [`super::names`]). Nothing here is checked; [`super::parse`] does that.

mod condition;
mod egress_gateway;
mod ip;
mod nat_gateway;
mod ovn_nat;
mod pattern;
mod security;
mod service;
pub mod shape;
mod subnet;
mod underlay;
mod vpc;

pub use condition::{Condition, NodeCondition, ObservedCondition};
pub use egress_gateway::*;
pub use ip::*;
pub use nat_gateway::*;
pub use ovn_nat::*;
pub use security::*;
pub use service::*;
pub use shape::Count;
pub use subnet::*;
pub use underlay::*;
pub use vpc::*;
