//! Loops of the node daemon: they join the pure planner ([`host`](crate::host)) with the kernel
//! and the local Open vSwitch.
//!
//! * [`state`]: what the watches saw, and the means to wait for more of it.
//! * [`cni_server`] -> [`attach`]: one pod NIC per request of the CNI plugin.
//! * [`resolve`]: pure, from a request and the state to what is to be attached, or waited for.

pub mod cni_server;
pub mod metrics;
pub mod ovs_rows;
pub mod resolve;
pub mod state;
