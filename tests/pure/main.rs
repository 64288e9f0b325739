//! Pure tests: no root, no server, seconds.

mod api;
mod cmd;
mod cni;
mod cni_node;
mod cni_rows;
mod commit;
mod crds;
mod engine;
mod gateways;
mod host;
mod host_attach;
mod host_firewall;
mod install;
mod ipam;
mod ipam_crash;
mod ipam_model;
mod last_valid;
mod leader;
mod ledger;
mod net;
mod ovsdb_frame;
mod ovsdb_json;
mod ovsdb_replica;
mod pinger;
mod plan;
mod scale;
mod schema;
mod security;
mod subtract;
mod takeover;
mod translate;

mod architecture;
mod publish;
mod publish_write;
mod serve;
mod shaping;
mod source;
#[path = "../support/mod.rs"]
mod support;
mod watch;
mod writes;
