//! Ipsets through ipset(8), a whole batch per call.

use super::{Error, program::run};

/// `ipset save`: every set of the namespace with its members.
pub fn save() -> Result<String, Error> {
    run("ipset", &["save"], "")
}

/// `ipset restore`: stops at the first line that fails; lines before it stay applied.
pub fn restore(batch: &str) -> Result<(), Error> {
    run("ipset", &["restore"], batch).map(|_| ())
}
