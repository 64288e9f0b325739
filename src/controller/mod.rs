//! Loops of the cluster controller: leader election, allocation, reconcile, publish.

pub mod commit;
pub mod leader;
