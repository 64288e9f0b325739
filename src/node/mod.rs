//! Loops of the node daemon: they join the pure planner ([`host`](crate::host)) with the kernel
//! and the local Open vSwitch.
//!
//! * [`state`]: what the watches saw, and the means to wait for more of it.
//! * [`vswitch`]: replica of the local Open vSwitch, and transactions; [`ovs_rows`] its pure half.
//! * [`apply`]: the one executor of operations; [`observe`]: dumps for the planner.
//! * [`cni_server`] -> [`attach`], [`detach`]: one pod NIC per request of the CNI plugin;
//!   [`resolve`] (pure) says what a request needs or waits for.
//! * [`garbage`] (pure): which attachments nobody needs any more.
//! * [`reconcile`]: the host loop; [`health`]: is the join network reachable; [`chassis`]: the
//!   node's annotation; [`install`]: files of the plugin.
//! * [`metrics`], [`figures`]: what requests write, and what is read.
//! * [`feed`]: what the watches report, as changes of the state.

pub mod apply;
pub mod attach;
pub mod chassis;
pub mod check_ports;
pub mod cni_server;
pub mod datapath;
pub mod detach;
pub mod events;
pub mod feed;
pub mod figures;
pub mod garbage;
pub mod gateway;
pub mod health;
pub mod install;
pub mod locks;
pub mod metrics;
pub mod netem;
pub mod nics;
pub mod observe;
pub mod ovs_bridge;
pub mod ovs_rows;
pub mod ovs_shaping;
mod pair;
pub mod progress;
pub mod reconcile;
pub mod resolve;
pub mod service;
pub mod state;
pub mod vswitch;
