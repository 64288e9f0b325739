//! kube-ovn-monitor: OVN as metrics. One runs beside each member of the databases and reports that
//! member (raft, files, daemons); what the databases hold is reported by the one whose northbound
//! server leads, so that nothing is counted twice. (Upstream runs one in all, which sees one
//! member only.)
//!
//! It reads and never repairs: upstream's monitor replaces the database file under a running
//! server when it finds it unhealthy.
//!
//! Pure: [`raft`] and [`content`] (texts and rows -> samples), [`metrics`] (names). I/O:
//! [`observe`].

pub mod content;
pub mod metrics;
pub mod observe;
pub mod raft;
