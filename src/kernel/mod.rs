//! I/O: one call is one kernel effect; no decisions.
//!
//! Nothing on the path of a pod NIC forks: links, addresses and routes go through [`Netlink`].
//! Only the firewall batches ([`iptables`], [`ipset`]) run a program, one per batch, fed on stdin.
//! Calls block for microseconds; asynchronous callers wrap a group of them in [`within`].

pub mod arp;
pub mod ethtool;
pub mod generic;
pub mod ipset;
pub mod iptables;
mod link;
mod monitor;
mod netlink;
pub mod netns;
pub mod process;
mod program;
mod qdisc;
mod route;
mod rule;
pub mod sysctl;

use std::{io, sync::Arc};

pub use monitor::{Change, Monitor};
pub use netlink::{Effort, Netlink};
pub use netns::within;

/// A kernel call failed; every variant names the object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("network namespace {path}: {source}")]
    Namespace { path: Arc<str>, source: io::Error },
    /// `object` is what was touched (`link ovn0`, `route 10.16.0.0/16`), `hint` the kernel's
    /// own words, if it has any.
    #[error("{object}: {source}{hint}")]
    Call { object: String, source: io::Error, hint: String },
    #[error("{object}: unreadable reply: {message}")]
    Reply { object: String, message: String },
    #[error("{program}: {message}")]
    Program { program: &'static str, message: String },
}

impl Error {
    pub(crate) fn call(object: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Error::Call { object: object.into(), source: source.into(), hint: String::new() }
    }

    fn errno(&self) -> Option<i32> {
        match self {
            Error::Namespace { source, .. } | Error::Call { source, .. } => source.raw_os_error(),
            Error::Reply { .. } | Error::Program { .. } => None,
        }
    }

    /// The object (or its namespace) does not exist.
    pub fn is_missing(&self) -> bool {
        const GONE: [i32; 5] =
            [libc::ENODEV, libc::ENOENT, libc::ESRCH, libc::EADDRNOTAVAIL, libc::ENXIO];
        self.errno().is_some_and(|e| GONE.contains(&e))
    }

    pub fn is_existing(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }
}

/// Turns "it is not there" into success: the result that a deletion wants.
pub(crate) fn missing_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(e) if e.is_missing() => Ok(()),
        other => other,
    }
}
