//! Pure: what a node must look like, and the ordered operations that make it so.
//!
//! The node loops build a [`HostView`], [`desired_host`] turns it into the whole [`HostState`],
//! [`diff_host`] compares that with what was [`Observed`]; the executor in `node` applies the
//! [`HostOp`]s in order. [`plan_attach`] does the same for one pod NIC, on the same executor, so
//! CNI requests and the loop never race. An empty list means that nothing is to be done.

mod attach;
mod encap;
mod ipset;
mod iptables;
mod state;
mod view;

pub use attach::*;
pub use encap::*;
pub use ipset::{IpSet, SetKind, parse_set_names};
pub use iptables::Tables;
pub use state::*;
pub use view::*;

/// The whole wanted state of the node.
pub fn desired_host(view: &HostView) -> HostState {
    let _ = view;
    HostState::default()
}

/// Operations from what is seen to what is wanted: created before referred to, deleted after.
pub fn diff_host(wanted: &HostState, observed: &Observed) -> Vec<HostOp> {
    let _ = (wanted, observed);
    Vec::new()
}
