//! Health probes of the two containers: control sockets and one `_Server` query, no program run.

use std::{path::Path, time::Duration};

use super::{
    config::{Paths, Role},
    members,
    ovs_paths::OvsPaths,
    rpc,
    status::ClusterStatus,
};

const LIMIT: Duration = Duration::from_secs(5);
/// A probe may be run twenty times a minute; the tail of the log is enough.
const LOG_TAIL: u64 = 4096;

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// The daemons run and answer. A member that waits for others is alive.
    Live,
    /// Both databases are served and in contact with a majority.
    Ready,
}

/// Findings of the ovn-central container; none means healthy.
pub async fn check_ovn(paths: &Paths, probe: Probe) -> Vec<String> {
    let mut findings = Vec::new();
    let pidfile = paths.run.join("ovn-northd.pid");
    findings.extend(daemon_finding("ovn-northd", &pidfile, "status").await);
    for role in Role::BOTH {
        if let Some(finding) = check_database(paths, role, probe).await {
            findings.push(format!("{}: {finding}", role.database()));
        }
    }
    findings
}

async fn check_database(paths: &Paths, role: Role, probe: Probe) -> Option<String> {
    let serving = match members::observe_local(paths, role).await {
        Ok(serving) => serving,
        Err(error) => return Some(error.to_string()),
    };
    let Some(serving) = serving else {
        let waiting = "not served yet: waiting for other members".to_owned();
        return (probe == Probe::Ready).then_some(waiting);
    };
    // Upstream asked every server for cluster/status, which a standalone one refuses, so that a
    // single-server installation could never become ready.
    if !serving.clustered {
        return None;
    }
    let control = paths.control(role);
    match rpc::control(&control, "cluster/status", &[role.database()], LIMIT).await {
        Err(error) => Some(error.to_string()),
        Ok(text) => judge(&ClusterStatus::parse(&text), probe),
    }
}

fn judge(status: &ClusterStatus, probe: Probe) -> Option<String> {
    let unfit = match probe {
        Probe::Live => status.status.contains("failed"),
        Probe::Ready => status.is_broken() || !status.is_member(),
    };
    unfit.then(|| format!("{} ({})", status.status, status.role))
}

/// Findings of the ovs container; none means healthy.
pub async fn check_ovs(paths: &OvsPaths) -> Vec<String> {
    let mut findings = Vec::new();
    let databases = async {
        let mut rpc = rpc::Rpc::local(&paths.socket(), LIMIT).await?;
        rpc.call("list_dbs", serde_json::json!([])).await
    };
    match databases.await {
        Ok(names) if names.as_array().is_some_and(|n| n.iter().any(|n| n == "Open_vSwitch")) => {}
        Ok(_) => findings.push("ovsdb-server: no database Open_vSwitch".to_owned()),
        Err(error) => findings.push(format!("ovsdb-server: {error}")),
    }
    let vswitchd = paths.run.join("ovs-vswitchd.pid");
    findings.extend(daemon_finding("ovs-vswitchd", &vswitchd, "version").await);
    let controller = paths.ovn_run.join("ovn-controller.pid");
    findings.extend(daemon_finding("ovn-controller", &controller, "version").await);
    if has_stale_cluster_data(&paths.ovn_logs.join("ovn-controller.log")) {
        // The databases were rebuilt: ovn-controller must forget the raft index it had seen.
        let reset = rpc::control_daemon(&controller, "sb-cluster-state-reset", &[], LIMIT).await;
        findings.extend(reset.err().map(|error| format!("ovn-controller: {error}")));
    }
    findings
}

async fn daemon_finding(name: &str, pidfile: &Path, command: &str) -> Option<String> {
    rpc::control_daemon(pidfile, command, &[], LIMIT).await.err().map(|e| format!("{name}: {e}"))
}

/// The last six lines of the log tell that the server's data is older than what was seen before.
fn has_stale_cluster_data(log: &Path) -> bool {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    text.lines().rev().take(6).any(|l| l.contains("clustered database server has stale data"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joining_server_is_alive_but_not_ready() {
        let status = ClusterStatus::parse("Status: joining cluster\nRole: follower\n");
        assert_eq!(judge(&status, Probe::Live), None);
        assert!(judge(&status, Probe::Ready).is_some());
        let status = ClusterStatus::parse("Status: cluster member\nRole: candidate\n");
        assert_eq!(judge(&status, Probe::Ready), None);
        let status =
            ClusterStatus::parse("Status: disconnected from the cluster (x)\nRole: candidate\n");
        assert!(judge(&status, Probe::Ready).is_some());
        assert_eq!(judge(&status, Probe::Live), None);
    }

    #[test]
    fn stale_data_is_found_in_the_tail_only() {
        let path = std::env::temp_dir().join(format!("kube-ovn-tail-{}", std::process::id()));
        let stale = "x|clustered database server has stale data; trying another server\n";
        std::fs::write(&path, format!("{}{stale}a\nb\n", "filler\n".repeat(2000))).unwrap();
        assert!(has_stale_cluster_data(&path));
        std::fs::write(&path, format!("{stale}1\n2\n3\n4\n5\n6\n")).unwrap();
        assert!(!has_stale_cluster_data(&path));
        std::fs::remove_file(&path).unwrap();
    }
}
