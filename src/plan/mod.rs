//! Generic and pure: engine, differ, adoption, fuse, explain. Knows no feature.
//!
//! ```text
//! Read changed -> Engine::refresh -> re-run the owners that read it -> Desired (+ Touches)
//! Touches of a batch of owners + replica -> diff::plan -> Transaction
//! ```

mod adopt;
mod claims;
mod desired;
pub mod diff;
mod engine;
mod explain;
pub mod fuse;
mod pending;
mod takeover;

pub use desired::{Desired, Touch, touch_of};
pub use engine::{Cause, Derived, Engine, Refresh};
pub use explain::{Explanation, explain_row};
pub use pending::{Batch, Pending};
pub use takeover::{Takeover, removal, takeover};
