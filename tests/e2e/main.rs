//! End-to-end tests on the sandbox: a real Kubernetes cluster of three nodes on this machine, with
//! the product installed as users install it; packets prove what works. One file per field, one
//! test per user story, each in a namespace of its own which it removes.
//!
//! A running sandbox (SANDBOX_DIR) is used, else `install.sh --sandbox` makes one; it stays. Needs
//! root. Stories run one at a time whatever `--test-threads` says; `uninstall` comes last by name.
//! Progress goes to the terminal with the seconds of each step, a failure prints what the cluster
//! knows about it.
//!
//!     cargo test --test e2e -- --test-threads=1
//!
//! `masters` makes a cluster of its own, from the air-gapped tarball, and removes it.
//!
//! E2E_PODS sets the size of the churn (100).

mod accidents;
mod addresses;
mod admin_policy;
mod adoption;
mod allocation;
mod audit;
mod churn;
mod cluster;
mod cni;
mod drift;
mod echoes;
mod exposure;
mod external;
mod gateways;
mod guard;
mod ko;
mod ko_commands;
mod ko_disruptive;
mod ko_interrupted;
mod machines;
mod manual_addresses;
mod manual_gateways;
mod manual_nodes;
mod masters;
mod mirror;
mod multicast;
mod not_supported;
mod operate;
mod pods;
mod policy;
mod prometheus;
mod records;
mod renumber;
mod security;
mod services;
mod story;
mod subnet_vips;
mod subnets;
mod traffic;
mod two_versions;
mod uninstall;
