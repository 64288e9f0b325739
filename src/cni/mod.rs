//! Container Network Interface: the specification's types (versions 0.1.0 to 1.1.0), the wire
//! protocol between plugin and node daemon, and the plugin itself.
//!
//! The plugin is a courier: configuration and `CNI_*` environment go to the daemon's unix socket
//! as one HTTP request, the answer is printed in the layout of the configuration's `cniVersion`.
//! It has no runtime, no thread and no retry; the container runtime owns retries, and the daemon
//! cancels work whose connection is gone.

pub mod client;
pub mod config;
pub mod plugin;
pub mod result;
pub mod spec;
pub mod wire;
