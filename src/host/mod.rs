//! Pure: what a node must look like, and the ordered operations that make it so.
//!
//! The node loops build a [`HostView`], [`desired_host`] turns it into the whole [`HostState`],
//! [`diff_host`] compares that with what was [`Observed`]; the executor in `node` applies the
//! [`HostOp`]s in order. [`plan_attach`] does the same for one pod NIC, on the same executor, so
//! CNI requests and the loop never race. An empty list means that nothing is to be done.

mod attach;
mod diff;
mod egress;
mod encap;
mod external;
mod firewall;
mod ipset;
mod iptables;
mod nic;
mod ovn0;
mod routes;
mod shaping;
mod state;
mod view;

pub use attach::*;
pub use diff::diff_host;
pub use egress::{EgressRouting, unreachable_gateways};
pub use encap::*;
pub use external::{EXTERNAL_BRIDGE_MARK, ExternalBridge, ExternalView, SeenBridge};
pub use firewall::{Firewall, desired_firewall};
pub use ipset::{IpSet, SetChanges, SetKind, diff_sets, parse_set_names};
pub use iptables::{
    Direction, Hook, HookPlace, Rule, SubnetCounter, Table, Tables, diff_tables, parse_counters,
};
pub use nic::*;
pub use ovn0::checksum_links;
pub use shaping::{
    MirrorScope, MirrorView, Mirrored, NETEM, NicView, OvsMirror, PortShaping, QosRow,
    parse_shaping,
};
pub use state::*;
pub use view::*;

/// The whole wanted state of the node.
pub fn desired_host(view: &HostView) -> HostState {
    let mut state = HostState::default();
    ovn0::desired_settings(view, &mut state);
    shaping::desired_shaping(view, &mut state);
    external::desired_external(view, &mut state);
    if let Some(join) = &view.join {
        ovn0::desired_ovn0(view, join, &mut state);
        state.routes = Some(routes::desired_routes(view, join));
        state.firewall = Some(desired_firewall(view));
        state.egress = Some(egress::desired_egress(view));
    }
    state
}
