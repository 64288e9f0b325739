//! Loops of the cluster controller: leader election, allocation, reconcile, publish.

pub mod chassis;
pub mod commit;
pub mod figures;
pub mod gateway;
pub mod gateway_probe;
pub mod holder;
pub mod leader;
pub mod ledger;
pub mod patience;
pub mod publish;
pub mod reconcile;
pub mod records;
pub mod unsupported;
