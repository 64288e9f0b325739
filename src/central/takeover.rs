//! Which container owns the Open vSwitch daemons of a node.
//!
//! A rolling update starts the new pod while the old one still runs (maxSurge 1); both share the
//! host's process ids and run folders. The new one claims the daemons, stops the old ones and
//! starts its own; the old one sees that it lost the claim and neither restarts nor stops
//! anything. Upstream compared control groups and DaemonSet revisions for the same purpose.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::{
    files::{self, FileError},
    ovs_paths::OvsPaths,
    rpc,
};
use crate::kernel::process;

const CONTROL_LIMIT: Duration = Duration::from_secs(2);
const END_LIMIT: Duration = Duration::from_secs(10);

/// A claim on the daemons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    file: PathBuf,
    token: String,
}

impl Owner {
    /// Takes the daemons over from whoever has them.
    pub fn claim(paths: &OvsPaths) -> Result<Self, FileError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let token = format!("{}-{now}", std::process::id());
        let file = paths.owner();
        files::write_private(&file, token.as_bytes())?;
        Ok(Owner { file, token })
    }

    /// `true` while nobody else has claimed them. A missing file is no claim of somebody else.
    pub fn holds(&self) -> bool {
        match fs::read_to_string(&self.file) {
            Ok(token) => token == self.token,
            Err(e) => e.kind() == std::io::ErrorKind::NotFound,
        }
    }
}

/// How ovn-controller is left: for its successor on this node, or for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Chassis, bindings and flows stay.
    Restart,
    /// The chassis is removed from the SB database, and the datapaths from the kernel.
    Cleanup,
}

impl Leave {
    pub fn controller(self) -> &'static [&'static str] {
        match self {
            Leave::Restart => &["exit", "--restart"],
            Leave::Cleanup => &["exit"],
        }
    }

    pub fn vswitchd(self) -> &'static [&'static str] {
        match self {
            Leave::Restart => &["exit"],
            Leave::Cleanup => &["exit", "--cleanup"],
        }
    }
}

/// Ends a daemon that is not our child; none running is fine.
pub async fn end_daemon(pidfile: &Path, program: &str, exit: &[&str]) {
    let Some(pid) = read_pid(pidfile) else { return };
    let Some((command, arguments)) = exit.split_first() else { return };
    let asked = rpc::control_daemon(pidfile, command, arguments, CONTROL_LIMIT).await.is_ok();
    // The number may belong to another process by now: only a daemon that answered on its socket,
    // or has its name, is waited for and killed.
    let named = process::command_name(pid).is_some_and(|name| program.starts_with(&name));
    if !asked && !named {
        return;
    }
    tracing::info!(program, pid, "ending the daemon that runs already");
    if asked && is_gone_within(pid, END_LIMIT).await {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if let Err(error) = process::send_signal(pid, signal) {
            tracing::warn!(program, pid, %error, "cannot end");
        }
        if is_gone_within(pid, END_LIMIT).await {
            return;
        }
    }
}

fn read_pid(pidfile: &Path) -> Option<i32> {
    fs::read_to_string(pidfile).ok()?.trim().parse().ok()
}

async fn is_gone_within(pid: i32, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while process::is_alive(pid) {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_claim_counts() {
        let root = std::env::temp_dir().join(format!("kube-ovn-owner-{}", std::process::id()));
        let paths = OvsPaths::rooted(root.to_str().unwrap());
        fs::create_dir_all(&paths.run).unwrap();
        let old = Owner::claim(&paths).unwrap();
        assert!(old.holds());
        let new = Owner::claim(&paths).unwrap();
        assert!(!old.holds() && new.holds());
        fs::remove_dir_all(&root).unwrap();
        assert!(new.holds());
    }
}
