//! Keeps daemons running: restart with back-off, orderly stop.

use std::{path::PathBuf, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{rpc, takeover::Owner};
use crate::kernel::process::{Daemon, Invocation, Launcher};

/// `true` once the container is asked to end. A dropped sender counts as asked.
pub type StopSignal = watch::Receiver<bool>;

const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);
/// A daemon that ran this long starts again without delay.
const HEALTHY: Duration = Duration::from_secs(60);
const TERM_AFTER: Duration = Duration::from_secs(5);
const KILL_AFTER: Duration = Duration::from_secs(10);

/// Delays between restarts: doubling from 0.2 s to 10 s, from the start again after a healthy run.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { next: SHORTEST }
    }
}

impl Backoff {
    /// The delay after a run that lasted `ran`.
    pub fn after(&mut self, ran: Duration) -> Duration {
        if ran >= HEALTHY {
            self.next = SHORTEST;
        }
        let delay = self.next;
        self.next = LONGEST.min(self.next * 2);
        delay
    }
}

/// Returns when the stop signal is given.
pub async fn stopped(stop: &mut StopSignal) {
    // An error means that the sender is gone: the program is ending.
    let _ = stop.wait_for(|asked| *asked).await;
}

pub fn is_stopping(stop: &StopSignal) -> bool {
    *stop.borrow()
}

/// Waits for a while; `false` when the stop signal came meanwhile.
pub async fn pause(delay: Duration, stop: &mut StopSignal) -> bool {
    tokio::select! {
        () = tokio::time::sleep(delay) => true,
        () = stopped(stop) => false,
    }
}

/// A daemon that needs nothing but to run.
#[derive(Debug, Clone)]
pub struct Program {
    pub name: &'static str,
    pub invocation: Invocation,
    /// Its control socket is found through this file.
    pub pidfile: PathBuf,
    /// The control command that ends it, with arguments.
    pub exit: &'static [&'static str],
    /// Whose it is; `None` in a container whose daemons nobody else starts.
    pub owner: Option<Owner>,
}

impl Program {
    /// `false` once another container has taken the daemons of this node over.
    fn is_ours(&self) -> bool {
        self.owner.as_ref().is_none_or(Owner::holds)
    }
}

/// Runs a program until the stop signal.
pub async fn supervise(launcher: Launcher, program: Program, mut stop: StopSignal) {
    let mut backoff = Backoff::default();
    while !is_stopping(&stop) && program.is_ours() {
        let started = Instant::now();
        match launcher.spawn(&program.invocation) {
            Err(error) => tracing::error!(daemon = program.name, %error, "not started"),
            Ok(mut daemon) => {
                tracing::info!(daemon = program.name, pid = daemon.pid, "started");
                tokio::select! {
                    status = daemon.wait() => {
                        let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                        tracing::warn!(daemon = program.name, status, "ended");
                    }
                    () = stopped(&mut stop) => {
                        if !program.is_ours() {
                            return;
                        }
                        let control = Control::Pidfile(program.pidfile.clone());
                        stop_daemon(&mut daemon, &control, program.exit).await;
                    }
                }
            }
        }
        if !pause(backoff.after(started.elapsed()), &mut stop).await {
            return;
        }
    }
}

/// How the control socket of a daemon is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    Socket(PathBuf),
    Pidfile(PathBuf),
}

/// Ends a daemon: its control command, SIGTERM after 5 s, SIGKILL after 10 s more.
pub async fn stop_daemon(daemon: &mut Daemon, control: &Control, exit: &[&str]) {
    let limit = Duration::from_secs(2);
    let asked = match (control, exit.split_first()) {
        (_, None) => false,
        (Control::Socket(path), Some((command, arguments))) => {
            rpc::control(path, command, arguments, limit).await.is_ok()
        }
        (Control::Pidfile(path), Some((command, arguments))) => {
            rpc::control_daemon(path, command, arguments, limit).await.is_ok()
        }
    };
    if asked && tokio::time::timeout(TERM_AFTER, daemon.wait()).await.is_ok() {
        return;
    }
    if let Err(error) = daemon.terminate() {
        tracing::warn!(pid = daemon.pid, %error, "cannot stop");
    }
    if tokio::time::timeout(KILL_AFTER, daemon.wait()).await.is_ok() {
        return;
    }
    if let Err(error) = daemon.kill() {
        tracing::warn!(pid = daemon.pid, %error, "cannot kill");
    }
    if let Err(error) = daemon.wait().await {
        tracing::warn!(pid = daemon.pid, %error, "cannot reap");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_and_resets() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        let delays: Vec<u128> = (0..8).map(|_| backoff.after(short).as_millis()).collect();
        assert_eq!(delays, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.after(HEALTHY), SHORTEST);
    }
}
