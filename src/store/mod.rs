//! The store: tables of validated objects, indexes, and views that record what was read.

pub mod feature;
pub mod last_valid;
mod table;
mod view;
pub mod watch;

pub use feature::{EventType, Feature, Output, Owner, Presence, Problem, Wanted};
pub use table::{Store, Stored};
pub use view::{Read, View};
