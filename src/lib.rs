//! Kube-OVN on unmodified OVN and Open vSwitch. This file is the map: read it first.
//!
//! # Data flow
//!
//! ```text
//! Kubernetes watch -> store (validated Arc values) -> view -> ovn/* features -> facts
//!                                                                      |
//! OVSDB monitor -> replica ---------------------------> plan: differ <-+
//!                                                         |
//!                               one atomic transaction in flight -> OVN_Northbound
//!                                                         |
//!                               after the commit: publish annotations, IP CRs, status, Events
//! ```
//!
//! The node daemon has the same shape: view -> [`host`] state -> ordered operations -> [`kernel`].
//!
//! # Layers
//!
//! * [`net`] value types; imports nothing.
//! * [`api`] Kubernetes surface; imports `net`.
//! * [`ipam`], [`offload`] pure algorithms on `net` and `api`.
//! * [`ovsdb`] pure half (datum, row, schema, replica) imports `net`; I/O half (wire, client).
//! * [`store`] pure half (table, view) imports `api`, `net`; I/O half (watch).
//! * [`ovn`], [`host`] pure features: read a view, return facts. Never a sibling feature.
//! * [`plan`] pure engine and differ; features are a parameter.
//! * [`kernel`] one call, one kernel effect.
//! * [`controller`], [`node`] join pure and I/O; never import each other.
//! * [`cli`] the commands of `kubectl ko`, on the pure engine and the Kubernetes API.
//! * [`cmd`] joins everything, one file per applet.
//!
//! The rules are tests: `tests/pure/architecture.rs`.
//!
//! # Where to add what
//!
//! * An OVN feature: one file in `src/ovn/`, one line in `ovn::FEATURES`, one folder of cases in
//!   `tests/cases/`.
//! * A node feature: one file in `src/host/`, and its operations in `src/kernel/`.
//! * An applet: one file in `src/cmd/`, one line in `cmd::APPLETS`.
//! * A Kubernetes kind: its validated struct in `src/api/object.rs`, its parser beside it, its
//!   watch in `src/store/watch.rs`.

pub mod api;
pub mod central;
pub mod cli;
pub mod cmd;
pub mod cni;
pub mod controller;
pub mod host;
pub mod ipam;
pub mod kernel;
pub mod monitor;
pub mod net;
pub mod node;
pub mod offload;
pub mod ovn;
pub mod ovsdb;
pub mod pinger;
pub mod plan;
pub mod store;
pub mod telemetry;
pub mod webhook;
