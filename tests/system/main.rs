//! System tests: real servers and the real kernel, in temporary folders and namespaces of their
//! own. Needs root. A test that cannot run fails.

mod central;
mod central_faults;
mod central_ovs;
mod chart;
mod gateways;
mod in_guest;
mod judge;
mod kernel;
mod kernel_attach;
mod kernel_firewall;

mod kube_api;
mod monitor;
mod node_cni;
mod node_daemon;
mod node_rig;
mod node_server;
mod northd;
mod ovn;
mod ovsdb;
#[path = "../support/ovsdb_server.rs"]
mod ovsdb_server;
mod ovsdb_tls;
mod ovsdb_unixctl;
mod pinger;
mod policy_order;
mod secure_serving;
mod services;
#[path = "../support/mod.rs"]
mod support;
