//! The servers beside this monitor: control sockets, files, the content of the databases.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    content,
    metrics::{
        CLUSTER_ENABLED, DB_SIZE, DB_STATUS, FAILED_REQUESTS, LOG_SIZE, STATUS, STATUS_CONTENT,
    },
    raft::{self, Raft},
};
use crate::{
    ovsdb::{
        client::{Client, Event, LeaderOnly, Options},
        endpoint::Endpoint,
        replica::Replica,
        rpc,
        schema::{Column, Database, Table, nb, sb},
        unixctl::UnixctlError,
    },
    telemetry::Sample,
};

/// One database and its server.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    pub component: &'static str,
    pub database: String,
    pub remote: Endpoint,
    pub control: PathBuf,
    pub file: PathBuf,
    pub log: PathBuf,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Sources {
    /// Label `hostname`.
    pub host: String,
    pub northbound: Server,
    pub southbound: Server,
    pub northd_pid: PathBuf,
    pub northd_log: PathBuf,
    pub timeout: Duration,
}

/// A copy of a database that keeps itself current.
#[derive(Clone)]
struct Follower(Arc<Mutex<(Replica, Standing)>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Current,
    /// Not connected, or the server is not the one to tell.
    Absent,
}

impl Follower {
    fn start(
        database: &'static Database,
        remote: Endpoint,
        monitored: &'static [(&'static Table, &'static [Column])],
        leader_only: LeaderOnly,
    ) -> Self {
        let options = Options {
            monitored: monitored.to_vec(),
            leader_only,
            ..Options::new(database, vec![remote])
        };
        let (client, mut events) = Client::connect(options);
        let state = (Replica::new(database, monitored), Standing::Absent);
        let follower = Follower(Arc::new(Mutex::new(state)));
        let shared = Arc::clone(&follower.0);
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Event::Connected { update, .. } | Event::Updated(update) => {
                        state.1 = Standing::Current;
                        if let Err(error) = state.0.apply(&update) {
                            tracing::error!(%error, "replica is wrong, asking for a snapshot");
                            state.1 = Standing::Absent;
                            client.resynchronize();
                        }
                    }
                    Event::Disconnected { reason } => {
                        tracing::debug!(%reason, "database is not followed");
                        state.1 = Standing::Absent;
                    }
                }
            }
        });
        follower
    }
}

/// Reads everything, again and again.
pub struct Monitor {
    sources: Sources,
    northbound: Follower,
    southbound: Follower,
    failed_requests: u64,
}

impl Monitor {
    /// Starts to follow both databases.
    pub fn start(sources: Sources) -> Self {
        let remote = |server: &Server| server.remote.clone();
        // Only the monitor beside the northbound leader tells the content.
        let northbound = Follower::start(
            &nb::DATABASE,
            remote(&sources.northbound),
            content::NORTHBOUND,
            LeaderOnly::Yes,
        );
        let southbound = Follower::start(
            &sb::DATABASE,
            remote(&sources.southbound),
            content::SOUTHBOUND,
            LeaderOnly::No,
        );
        Monitor { sources, northbound, southbound, failed_requests: 0 }
    }

    /// All samples as of now.
    pub async fn observe(&mut self) -> Vec<Sample> {
        let sources = self.sources.clone();
        let mut all = Vec::new();
        for server in [&sources.northbound, &sources.southbound] {
            self.observe_server(server, &mut all).await;
        }
        self.observe_northd(&mut all).await;
        self.observe_content(&mut all);
        let host = sources.host.as_str();
        all.push(FAILED_REQUESTS.sample(&[host], self.failed_requests as f64));
        all
    }

    async fn observe_server(&mut self, server: &Server, all: &mut Vec<Sample>) {
        let (host, limit) = (self.sources.host.clone(), self.sources.timeout);
        let (host, name) = (host.as_str(), server.database.as_str());
        let ask =
            |command| rpc::control(&server.control, command, std::slice::from_ref(&name), limit);
        let storage = ask("ovsdb-server/get-db-storage-status").await;
        let sound = storage.as_ref().is_ok_and(|text| text.contains("status: ok"));
        all.push(DB_STATUS.sample(&[host, name], f64::from(u8::from(sound))));
        self.failed_requests += u64::from(storage.is_err());
        let file = server.file.display().to_string();
        let enabled = |on: bool| CLUSTER_ENABLED.sample(&[host, &file], f64::from(u8::from(on)));
        match ask("cluster/status").await {
            Ok(text) => {
                all.push(enabled(true));
                all.extend(raft::samples(host, name, server.component, &Raft::parse(&text)));
            }
            // A standalone server answers that it knows no such cluster.
            Err(rpc::RpcError::Control(UnixctlError::Failed { .. })) if sound => {
                all.push(enabled(false));
                all.push(STATUS.sample(&[host, server.component], 1.0));
                all.push(STATUS_CONTENT.sample(&[host, server.component, "standalone"], 1.0));
            }
            Err(error) => {
                tracing::warn!(%error, database = name, "the database server does not answer");
                self.failed_requests += 1;
                all.push(STATUS.sample(&[host, server.component], 0.0));
            }
        }
        if let Some(size) = size(&server.file).await {
            all.push(DB_SIZE.sample(&[host, name], size));
        }
        self.observe_log(server.component, &server.log, all).await;
    }

    async fn observe_northd(&mut self, all: &mut Vec<Sample>) {
        const COMPONENT: &str = "ovn-northd";
        let asked =
            rpc::control_daemon(&self.sources.northd_pid, "status", &[], self.sources.timeout);
        let value = match asked.await {
            Ok(text) => northd_health(&text),
            Err(error) => {
                tracing::warn!(%error, "ovn-northd does not answer");
                self.failed_requests += 1;
                0.0
            }
        };
        all.push(STATUS.sample(&[&self.sources.host, COMPONENT], value));
        self.observe_log(COMPONENT, &self.sources.northd_log, all).await;
    }

    async fn observe_log(&self, component: &str, log: &Path, all: &mut Vec<Sample>) {
        if let Some(size) = size(log).await {
            let log = log.display().to_string();
            all.push(LOG_SIZE.sample(&[&self.sources.host, component, &log], size));
        }
    }

    fn observe_content(&self, all: &mut Vec<Sample>) {
        let northbound = self.northbound.0.lock().unwrap_or_else(PoisonError::into_inner);
        let southbound = self.southbound.0.lock().unwrap_or_else(PoisonError::into_inner);
        if (northbound.1, southbound.1) == (Standing::Current, Standing::Current) {
            all.extend(content::samples(&self.sources.host, &northbound.0, &southbound.0));
        }
    }
}

/// `Status: active`. BUG of upstream: `paused` gives no sample at all.
pub fn northd_health(text: &str) -> f64 {
    match text.split_once(':').map_or(text, |(_, value)| value).trim() {
        "active" => 1.0,
        "standby" => 2.0,
        _ => 0.0,
    }
}

async fn size(path: &Path) -> Option<f64> {
    tokio::fs::metadata(path).await.ok().map(|file| file.len() as f64)
}
