//! kube-ovn-webhook: refuses wrong objects when they are written, with the words that the
//! controller would put into a condition later. Optional: without it nothing but the earliness is
//! lost.
//!
//! Pure: [`review`] decides about a request from facts; a fact that is missing is asked for, read
//! by [`serve`] and the request decided anew. I/O: [`certificate`] (made here, stored in a Secret,
//! announced to the API server), [`serve`].

pub mod certificate;
mod nat;
mod network;
pub mod review;
pub mod serve;
mod workload;
