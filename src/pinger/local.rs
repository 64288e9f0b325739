//! Open vSwitch and OVN on this node: control sockets, the local database, the southbound
//! database's view of this chassis.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use super::report::{OvsState, interface_ids};
use crate::ovsdb::{
    endpoint::Endpoint,
    rpc::{self, Rpc, RpcError},
    tls::TlsFiles,
};

/// For the southbound database, which may be far.
const PATIENCE: Duration = Duration::from_secs(10);

/// Files of the node, as the flags name them.
#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    pub database: Endpoint,
    pub database_name: String,
    pub database_file: PathBuf,
    pub database_log: PathBuf,
    pub database_pid: PathBuf,
    pub vswitchd_log: PathBuf,
    pub vswitchd_pid: PathBuf,
    pub controller_pid: PathBuf,
    pub run_folder: String,
    /// For local requests.
    pub timeout: Duration,
    /// Service ovn-sb.
    pub southbound: Option<Endpoint>,
    pub tls: Option<TlsFiles>,
}

#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("OVN_SB_SERVICE_HOST is not set; Service ovn-sb must exist before this pod")]
    NoSouthbound,
    #[error("no chassis with hostname {0} in the southbound database")]
    NoChassis(String),
}

impl Local {
    pub async fn daemon_answers(&self, pid_file: &Path) -> Result<(), RpcError> {
        rpc::control_daemon(pid_file, "version", &[], self.timeout).await.map(drop)
    }

    async fn interfaces(&self) -> Result<Vec<Value>, RpcError> {
        let mut database = Rpc::connect(&self.database, None, self.timeout).await?;
        let select = json!({"op": "select", "table": "Interface", "where": [],
                            "columns": ["external_ids"]});
        Ok(rows(database.transact(&self.database_name, vec![select]).await?.pop()))
    }

    /// Ports of Open vSwitch, and those that the southbound database binds to `node`.
    pub async fn ports(&self, node: &str) -> Result<(Vec<String>, Vec<String>), LocalError> {
        let ovs = interface_ids(&self.interfaces().await?);
        let endpoint = self.southbound.as_ref().ok_or(LocalError::NoSouthbound)?;
        let tls = self.tls.as_ref().filter(|_| matches!(endpoint, Endpoint::Ssl { .. }));
        let mut database = Rpc::connect(endpoint, tls, PATIENCE).await?;
        let select = json!({"op": "select", "table": "Chassis", "columns": ["_uuid"],
                            "where": [["hostname", "==", node]]});
        let chassis = rows(database.transact("OVN_Southbound", vec![select]).await?.pop());
        let uuid = chassis.first().map(|row| row["_uuid"].clone());
        let uuid = uuid.ok_or_else(|| LocalError::NoChassis(node.to_owned()))?;
        // During a live migration the port is bound here too.
        let select = |column: &str, function: &str| {
            json!({"op": "select", "table": "Port_Binding", "columns": ["logical_port"],
                   "where": [[column, function, uuid]]})
        };
        let selects = vec![select("chassis", "=="), select("additional_chassis", "includes")];
        let results = database.transact("OVN_Southbound", selects).await?;
        let bound = results.into_iter().flat_map(|result| rows(Some(result)));
        let names = bound.filter_map(|row| row["logical_port"].as_str().map(str::to_owned));
        let mut bound: Vec<String> = names.collect();
        bound.sort();
        Ok((ovs, bound))
    }

    /// All that the OVS metrics need; what cannot be had is left out and counted.
    pub async fn observe(&self, failed_requests: &mut u64) -> OvsState {
        let mut state = OvsState { run_folder: self.run_folder.clone(), ..OvsState::default() };
        for (name, pid_file, log) in [
            ("ovsdb-server", &self.database_pid, &self.database_log),
            ("ovs-vswitchd", &self.vswitchd_pid, &self.vswitchd_log),
        ] {
            let answer = self.daemon_answers(pid_file).await;
            *failed_requests += u64::from(answer.is_err());
            state.components.push((name, answer.is_ok()));
            if let Ok(file) = tokio::fs::metadata(log).await {
                state.logs.push((name, log.display().to_string(), file.len()));
            }
        }
        state.database = tokio::fs::metadata(&self.database_file).await.ok().map(|f| f.len());
        match self.tables().await {
            Ok((system, interfaces)) => (state.system, state.interfaces) = (system, interfaces),
            Err(error) => {
                tracing::warn!(%error, "cannot read the Open vSwitch database");
                *failed_requests += 1;
            }
        }
        match self.datapaths().await {
            Ok(datapaths) => state.datapaths = datapaths,
            Err(error) => {
                tracing::warn!(%error, "cannot read the datapaths");
                *failed_requests += 1;
            }
        }
        state.failed_requests = *failed_requests;
        state
    }

    async fn tables(&self) -> Result<(Value, Vec<Value>), RpcError> {
        let mut database = Rpc::connect(&self.database, None, self.timeout).await?;
        let selects = [
            json!({"op": "select", "table": "Open_vSwitch", "where": [],
                "columns": ["external_ids", "system_type", "system_version", "ovs_version",
                            "db_version"]}),
            json!({"op": "select", "table": "Interface", "where": [],
                "columns": ["_uuid", "name", "admin_state", "link_state", "mtu", "ofport",
                            "ifindex", "mac_in_use", "statistics"]}),
        ];
        let mut results = database.transact(&self.database_name, selects.to_vec()).await?;
        let interfaces = rows(results.pop());
        let system = rows(results.pop()).into_iter().next().unwrap_or_default();
        Ok((system, interfaces))
    }

    async fn datapaths(&self) -> Result<Vec<(String, String)>, RpcError> {
        let ask = async |command: &str, arguments: &[&str]| {
            rpc::control_daemon(&self.vswitchd_pid, command, arguments, self.timeout).await
        };
        let mut all = Vec::new();
        for name in ask("dpctl/dump-dps", &[]).await?.lines().map(str::trim) {
            if !name.is_empty() {
                all.push((name.to_owned(), ask("dpctl/show", &[name]).await?));
            }
        }
        Ok(all)
    }
}

fn rows(result: Option<Value>) -> Vec<Value> {
    match result.and_then(|mut r| r.get_mut("rows").map(Value::take)) {
        Some(Value::Array(rows)) => rows,
        _ => Vec::new(),
    }
}
