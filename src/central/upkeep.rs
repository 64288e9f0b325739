//! What a served database needs from time to time: options, election timer, schema, raft header
//! backup, and leftovers of our own former files kicked out.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use super::{
    config::Role,
    database::{Central, DatabaseError},
    dbfile::{self, SavedHeader},
    files, members, options,
    rpc::{self, Rpc, RpcError},
    status::{self, ClusterStatus, Serving},
};

const LIMIT: Duration = Duration::from_secs(5);
/// A conversion rewrites the database.
const CONVERT_LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    Healthy,
    /// The server no longer has the database.
    Gone,
    /// `ovsdb-server/get-db-storage-status` is not ok: disk full, or inconsistent data.
    StorageFailed(String),
}

/// Work on one served database; lives from one start of its server to the next.
pub struct Upkeep<'a> {
    central: &'a Central,
    role: Role,
    /// Done once after a start.
    trimmed: bool,
    /// Done once after we gained leadership.
    led: bool,
    settled: bool,
}

impl<'a> Upkeep<'a> {
    pub fn new(central: &'a Central, role: Role) -> Self {
        Upkeep { central, role, trimmed: false, led: false, settled: false }
    }

    /// Rounds are short until the server is a member and its options are written.
    pub fn pause(&self) -> Duration {
        if self.settled { Duration::from_secs(5) } else { Duration::from_millis(500) }
    }

    pub async fn round(&mut self) -> Result<Finding, DatabaseError> {
        self.settled = false;
        let serving =
            members::observe_local(&self.central.paths, self.role, members::LIMIT).await?;
        let Some(serving) = serving else { return Ok(Finding::Gone) };
        let name = self.role.database();
        let storage = self.control("ovsdb-server/get-db-storage-status", &[name]).await?;
        if !storage.trim().ends_with("status: ok") {
            return Ok(Finding::StorageFailed(storage));
        }
        if !self.trimmed {
            self.control("ovsdb-server/memory-trim-on-compaction", &["on"]).await?;
            self.trimmed = true;
        }
        let mut settled = true;
        if serving.clustered {
            let status = ClusterStatus::parse(&self.control("cluster/status", &[name]).await?);
            settled = self.tend_cluster(&serving, &status).await?;
        }
        if serving.leader && !self.led {
            self.convert().await?;
            options::write(self.central, self.role).await?;
            tracing::info!(database = name, "leading");
        }
        self.led = serving.leader;
        self.settled = settled && serving.connected;
        Ok(Finding::Healthy)
    }

    async fn control(&self, command: &str, arguments: &[&str]) -> Result<String, DatabaseError> {
        let socket = self.central.paths.control(self.role);
        Ok(rpc::control(&socket, command, arguments, LIMIT).await?)
    }

    /// `true` when nothing is left to do for raft.
    async fn tend_cluster(
        &mut self,
        serving: &Serving,
        status: &ClusterStatus,
    ) -> Result<bool, DatabaseError> {
        if !status.is_member() || !serving.connected {
            return Ok(false);
        }
        let name = self.role.database();
        let path = self.central.paths.header(self.role);
        let saved = dbfile::observe_saved_header(&path)
            .map_err(|source| DatabaseError::Read { path: path.clone(), source })?;
        let recorded = saved.as_ref().map(|h| h.stale.clone()).unwrap_or_default();
        let mut done = true;
        for stale in status.stale(&recorded) {
            done = false;
            tracing::warn!(
                database = name,
                server = stale.id,
                address = stale.address,
                "kicking the server of our lost file"
            );
            self.control("cluster/kick", &[name, &stale.id]).await?;
        }
        let kept = if done { Vec::new() } else { recorded };
        if let Some(header) = header(name, serving, status, kept)
            && saved.as_ref() != Some(&header)
        {
            files::write_saved_header(&path, &header)?;
        }
        let timer = status.election_timer.filter(|_| status.is_leader());
        if let Some(next) =
            timer.and_then(|t| status::next_election_timer(t, self.central.config.election_timer))
        {
            done = false;
            self.control("cluster/change-election-timer", &[name, &next.to_string()]).await?;
        }
        Ok(done)
    }

    async fn convert(&self) -> Result<(), DatabaseError> {
        let path = self.central.paths.schema(self.role);
        let schema = read_schema(&path).map_err(|source| DatabaseError::Read { path, source })?;
        let socket = self.central.paths.socket(self.role);
        let mut rpc = Rpc::local(&socket, CONVERT_LIMIT).await?;
        Ok(convert(&mut rpc, self.role.database(), &schema).await?)
    }
}

pub fn read_schema(path: &Path) -> std::io::Result<Value> {
    serde_json::from_slice(&std::fs::read(path)?).map_err(std::io::Error::other)
}

/// Upgrades the schema of a database that an older release made (ovsdb-client convert). Must run
/// against the leader.
pub async fn convert(rpc: &mut Rpc, database: &str, schema: &Value) -> Result<(), RpcError> {
    let served = rpc.call("get_schema", json!([database])).await?;
    if version(schema) <= version(&served) {
        return Ok(());
    }
    let (from, to) = (served["version"].as_str(), schema["version"].as_str());
    tracing::info!(database, from, to, "converting the schema");
    rpc.call("convert", json!([database, schema])).await.map(|_| ())
}

/// `7.6.0` as numbers.
fn version(schema: &Value) -> Vec<u32> {
    let text = schema["version"].as_str().unwrap_or_default();
    text.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

fn header(
    name: &str,
    serving: &Serving,
    status: &ClusterStatus,
    stale: Vec<String>,
) -> Option<SavedHeader> {
    let us = status.servers.iter().find(|m| m.is_self)?;
    let peers = status.servers.iter().filter(|m| !m.is_self).map(|m| m.address.clone()).collect();
    Some(SavedHeader {
        server_id: serving.server.clone()?,
        name: name.to_owned(),
        local_address: us.address.clone(),
        cluster_id: serving.cluster.clone()?,
        peers,
        stale,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(version(&json!({"version": "7.10.0"})) > version(&json!({"version": "7.9.1"})));
    }
}
