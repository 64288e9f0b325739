//! The ovn-central and ovs containers: servers, northd, vswitchd and ovn-controller are started,
//! watched and repaired here. Decisions are pure ([`decide`], [`arguments`], [`status`]); no shell
//! is involved anywhere.

pub mod arguments;
pub mod config;
pub mod database;
pub mod dbfile;
pub mod decide;
pub mod files;
pub mod guard;
pub mod health;
pub mod leader;
mod logs;
pub mod members;
pub mod options;
pub mod other_datapath;
pub mod ovs_arguments;
pub mod ovs_config;
pub mod ovs_paths;
pub use crate::ovsdb::rpc;
pub mod rules;
pub mod start_db;
pub mod start_ovs;
pub mod status;
pub mod supervise;
pub mod takeover;
pub mod uninstall;
pub mod upkeep;
pub mod uplink;
pub mod uplink_apply;
pub mod vswitch;
mod vswitchd;
