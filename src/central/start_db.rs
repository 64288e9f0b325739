//! The ovn-central container: two database servers, northd, and the leader labels.

use std::{sync::Arc, time::Duration};

use super::{
    arguments,
    config::{Paths, Role},
    database::{self, Central},
    leader, logs,
    supervise::{self, Program, StopSignal, pause},
};
use crate::kernel::process;

/// What northd does with its own label and lock is left to the leader checker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Labels {
    /// Outside a pod (tests, by hand): nobody is labelled.
    Off,
    /// The pod that carries the labels.
    Pod(leader::PodName),
}

/// Runs everything until the stop signal, then stops all daemons in order: northd first, so that
/// it gives its lock back; then the servers, which hand raft leadership over.
pub async fn run(central: Arc<Central>, labels: Labels, stop: StopSignal) {
    let (stop_servers, servers_stop) = tokio::sync::watch::channel(false);
    let servers = Role::BOTH
        .map(|role| tokio::spawn(database::run(central.clone(), role, servers_stop.clone())));
    let northd = tokio::spawn(supervise::supervise(
        central.launcher.clone(),
        Program {
            name: "ovn-northd",
            invocation: arguments::northd(&central.config, &central.paths),
            pidfile: arguments::northd_pidfile(&central.paths).into(),
            exit: &["exit"],
            owner: None,
        },
        stop.clone(),
    ));
    let chores = tokio::spawn(chores(central.paths.clone(), stop.clone()));
    let checker = match labels {
        Labels::Off => None,
        Labels::Pod(pod) => {
            let plan = leader::Plan::of(&central.config, pod);
            Some(tokio::spawn(leader::run(central.clone(), plan, None, stop.clone())))
        }
    };
    report_end("ovn-northd", northd.await);
    let _ = stop_servers.send(true);
    for server in servers {
        report_end("ovsdb-server", server.await);
    }
    report_end("chores", chores.await);
    if let Some(checker) = checker {
        report_end("leader checker", checker.await);
    }
}

fn report_end(task: &str, end: Result<(), tokio::task::JoinError>) {
    if let Err(error) = end {
        tracing::error!(task, %error, "task failed");
    }
}

/// Orphans are reaped and log files kept small.
async fn chores(paths: Paths, mut stop: StopSignal) {
    while pause(Duration::from_secs(30), &mut stop).await {
        process::reap_orphans();
        logs::rotate(&paths.logs);
    }
}

/// Folders that the manifests mount, for installations without them.
pub fn make_folders(paths: &Paths) -> std::io::Result<()> {
    for folder in [&paths.databases, &paths.run, &paths.logs] {
        std::fs::create_dir_all(folder)?;
    }
    Ok(())
}
