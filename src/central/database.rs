//! One database server from its file to serving and back: observe, decide, make the file, serve,
//! watch. Everything that can be decided without the outside is in [`super::decide`].

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    arguments::{self, Served},
    config::{CentralConfig, Paths, Role},
    dbfile::{self, Local, SavedHeader},
    decide::{self, Decision, Peer, Rank, Situation},
    files::{self, FileError, FileMaker},
    members,
    rpc::{self, RpcError},
    supervise::{Backoff, Control, StopSignal, is_stopping, pause, stop_daemon, stopped},
    upkeep::{Finding, Upkeep},
};
use crate::kernel::process::{Daemon, Launcher, ProcessError};

const ASK_AGAIN: Duration = Duration::from_secs(2);
/// A large database is read before the server opens its sockets.
const SERVE_LIMIT: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path}: {source}")]
    Read { path: std::path::PathBuf, source: std::io::Error },
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("the server ended before it served: {0}")]
    Ended(String),
    #[error("the disk of {0} is full; free some space")]
    DiskFull(String),
}

/// What every task of the container shares.
#[derive(Debug, Clone)]
pub struct Central {
    pub config: CentralConfig,
    pub paths: Paths,
    pub launcher: Launcher,
}

/// Runs one database server until the stop signal; every failure is logged and tried again.
pub async fn run(central: Arc<Central>, role: Role, mut stop: StopSignal) {
    let mut server = Server::new(central, role, stop.clone());
    let mut backoff = Backoff::default();
    while !is_stopping(&stop) {
        let started = Instant::now();
        if let Err(error) = server.cycle().await {
            tracing::error!(database = role.database(), %error, "database is down, trying again");
        }
        if !pause(backoff.after(started.elapsed()), &mut stop).await {
            break;
        }
    }
    server.end().await;
}

struct Server {
    central: Arc<Central>,
    role: Role,
    stop: StopSignal,
    daemon: Option<Daemon>,
    /// What we learnt about a file that looks good but is not.
    verdict: Option<Local>,
    /// Members that did not answer when they were asked last.
    silent: Vec<std::net::IpAddr>,
    /// The last reason logged, with the silent members, so that waiting does not flood the log.
    reason: (&'static str, Vec<std::net::IpAddr>),
}

impl Server {
    fn new(central: Arc<Central>, role: Role, stop: StopSignal) -> Self {
        Server {
            central,
            role,
            stop,
            daemon: None,
            verdict: None,
            silent: Vec::new(),
            reason: Default::default(),
        }
    }

    fn files(&self) -> FileMaker<'_> {
        FileMaker {
            launcher: &self.central.launcher,
            config: &self.central.config,
            paths: &self.central.paths,
            role: self.role,
        }
    }

    /// From whatever is there to a served database, then watching it until it fails.
    async fn cycle(&mut self) -> Result<(), DatabaseError> {
        self.prepare().await?;
        if is_stopping(&self.stop) {
            return Ok(());
        }
        let started = self.serve().await;
        if let Err(error) = started {
            self.end().await;
            self.examine().await?;
            return Err(error);
        }
        tracing::info!(database = self.role.database(), "served");
        self.watch().await;
        self.end().await;
        Ok(())
    }

    fn observe(&self) -> Result<(Local, Option<SavedHeader>), DatabaseError> {
        let (file, header) =
            (self.central.paths.database(self.role), self.central.paths.header(self.role));
        let local = dbfile::observe_file(&file, self.role.database())
            .map_err(|source| DatabaseError::Read { path: file, source })?;
        let saved = dbfile::observe_saved_header(&header)
            .map_err(|source| DatabaseError::Read { path: header, source })?;
        match &self.verdict {
            Some(verdict) if local != Local::Missing => Ok((verdict.clone(), saved)),
            _ => Ok((local, saved)),
        }
    }

    /// Makes sure that the file exists and may be served.
    async fn prepare(&mut self) -> Result<(), DatabaseError> {
        self.check_disk()?;
        if !self.central.config.is_clustered() {
            let (local, _) = self.observe()?;
            self.files().standalone(&local).await?;
            self.verdict = None;
            return Ok(());
        }
        loop {
            let (local, saved) = self.observe()?;
            let decision = self.decide(&local, saved.as_ref()).await?;
            match decision {
                Decision::Start => return Ok(()),
                Decision::Bootstrap(contents) => {
                    tracing::warn!(database = self.role.database(), ?contents, "new cluster");
                    self.files().bootstrap(contents).await?;
                    self.verdict = None;
                    return Ok(());
                }
                Decision::Join { cluster } => {
                    tracing::info!(database = self.role.database(), ?cluster, "joining");
                    self.files().join(cluster.as_deref(), &local, saved.as_ref()).await?;
                    self.verdict = None;
                    return Ok(());
                }
                Decision::Wait(reason) => {
                    let known = (reason, self.silent.clone());
                    if known != self.reason {
                        let (database, silent) = (self.role.database(), &self.silent);
                        tracing::warn!(database, reason, ?silent, "waiting");
                        self.reason = known;
                    }
                    if !pause(ASK_AGAIN, &mut self.stop).await {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Asks the other members where that matters. Only a server that holds nothing answers them
    /// meanwhile, with no database: that is what makes a first bootstrap safe.
    async fn decide(
        &mut self,
        local: &Local,
        saved: Option<&SavedHeader>,
    ) -> Result<Decision, DatabaseError> {
        let central = self.central.clone();
        let address = central.config.raft_address(self.role);
        let others = central.config.raft_peers(self.role);
        let rank = if central.config.is_first() { Rank::First } else { Rank::Later };
        let mut peers: Vec<Peer> = Vec::new();
        let situation =
            |peers| Situation { local, saved, rank, address: &address, others: &others, peers };
        if !decide::decides_alone(&situation(&[])) {
            if decide::is_blank(local, saved) {
                self.ensure_blank_server().await?;
            } else {
                self.end().await;
            }
            peers = members::observe(&central, self.role).await;
            let answers = central.config.peers().zip(&peers);
            let silent = answers.filter(|(_, peer)| **peer == Peer::Unreachable);
            self.silent = silent.map(|(ip, _)| ip).collect();
        }
        Ok(decide::decide(&situation(&peers)))
    }

    async fn ensure_blank_server(&mut self) -> Result<(), DatabaseError> {
        if let Some(daemon) = &mut self.daemon
            && tokio::time::timeout(Duration::ZERO, daemon.wait()).await.is_err()
        {
            return Ok(());
        }
        self.spawn(Served::Nothing)
    }

    fn spawn(&mut self, served: Served) -> Result<(), DatabaseError> {
        self.write_config(served)?;
        let invocation =
            arguments::ovsdb_server(&self.central.config, &self.central.paths, self.role);
        let daemon = self.central.launcher.spawn(&invocation)?;
        tracing::info!(database = self.role.database(), pid = daemon.pid, "ovsdb-server started");
        self.daemon = Some(daemon);
        Ok(())
    }

    fn write_config(&self, served: Served) -> Result<(), DatabaseError> {
        let json =
            arguments::server_config(&self.central.config, &self.central.paths, self.role, served);
        let path = self.central.paths.server_config(self.role);
        Ok(files::write_private(&path, json.to_string().as_bytes())?)
    }

    /// Lets the running blank server open the file, or starts a server; waits until it serves.
    async fn serve(&mut self) -> Result<(), DatabaseError> {
        if self.daemon.is_some() {
            self.write_config(Served::File)?;
            let control = self.central.paths.control(self.role);
            rpc::control(&control, "ovsdb-server/reload", &[], SERVE_LIMIT).await?;
        } else {
            self.spawn(Served::File)?;
        }
        let deadline = Instant::now() + SERVE_LIMIT;
        let mut stop = self.stop.clone();
        while Instant::now() < deadline {
            if members::observe_local(&self.central.paths, self.role, members::LIMIT)
                .await
                .is_ok_and(|s| s.is_some())
            {
                return Ok(());
            }
            let Some(daemon) = &mut self.daemon else { break };
            tokio::select! {
                status = daemon.wait() => {
                    self.daemon = None;
                    let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                    return Err(DatabaseError::Ended(status));
                }
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
                () = stopped(&mut stop) => return Ok(()),
            }
        }
        Err(DatabaseError::Ended("no answer on its socket".to_owned()))
    }

    /// Finds out why a file is not served, before anything is done about it. Nothing is moved
    /// while the disk is full: the file may be whole.
    async fn examine(&mut self) -> Result<(), DatabaseError> {
        self.check_disk()?;
        let (local, _) = self.observe()?;
        let Local::Member(header) = local else { return Ok(()) };
        match self.files().check().await {
            Ok(text) if text.contains("left the cluster") => {
                self.verdict = Some(Local::Removed(header));
            }
            Ok(_) => {}
            Err(FileError::Tool(error)) => {
                if matches!(error, ProcessError::Failed { .. }) {
                    self.verdict = Some(Local::Unusable(error.to_string()));
                }
                tracing::error!(database = self.role.database(), %error, "check of the file");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn check_disk(&self) -> Result<(), DatabaseError> {
        let directory = &self.central.paths.databases;
        match files::is_disk_full(directory) {
            true => Err(DatabaseError::DiskFull(directory.display().to_string())),
            false => Ok(()),
        }
    }

    /// Upkeep until the server ends, loses the database, or the stop signal comes.
    async fn watch(&mut self) {
        let central = self.central.clone();
        let mut upkeep = Upkeep::new(&central, self.role);
        let mut stop = self.stop.clone();
        loop {
            match upkeep.round().await {
                Ok(Finding::Healthy) => {}
                Ok(Finding::Gone) => return self.note_removal().await,
                Ok(Finding::StorageFailed(status)) => {
                    tracing::error!(database = self.role.database(), status, "storage failed");
                    // With space again, only a new start writes to the file again.
                    if !files::is_disk_full(&central.paths.databases) {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(database = self.role.database(), %error, "upkeep failed");
                }
            }
            let Some(daemon) = &mut self.daemon else { return };
            tokio::select! {
                status = daemon.wait() => {
                    self.daemon = None;
                    let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                    tracing::warn!(database = self.role.database(), status, "ovsdb-server ended");
                    return;
                }
                () = tokio::time::sleep(upkeep.pause()) => {}
                () = stopped(&mut stop) => return,
            }
        }
    }

    /// The server dropped its database: somebody kicked it. It must not look blank to others.
    async fn note_removal(&mut self) {
        self.end().await;
        if let Ok((Local::Member(header), _)) = self.observe() {
            self.verdict = Some(Local::Removed(header));
        }
    }

    /// Stops the server. A clustered one hands its leadership over as it exits.
    async fn end(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let control = Control::Socket(self.central.paths.control(self.role));
            stop_daemon(&mut daemon, &control, &["exit"]).await;
        }
    }
}
