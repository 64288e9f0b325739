//! Kube-OVN in Rust: see the map in this file once modules land.
