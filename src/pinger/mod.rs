//! kube-ovn-pinger: is the network good, as a pod sees it? One round asks Open vSwitch and OVN of
//! the node, the API server, all other pingers, all nodes, DNS, and the outside; the results are
//! log lines and metrics.
//!
//! Pure: [`target`] (whom to ask), [`report`] (OVS answers -> samples), [`metrics`] (names), the
//! message half of [`dns`]. I/O: [`probe`], [`local`] (this node's daemons), [`round`].

pub mod dns;
pub mod local;
pub mod metrics;
pub mod probe;
pub mod report;
pub mod round;
pub mod target;
