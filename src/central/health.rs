//! Health probes of the two containers: control sockets and one `_Server` query, no program run.

use std::{path::Path, time::Duration};

use futures::future::{join, join_all, join3};

use super::{
    config::{Paths, Role},
    members,
    ovs_paths::OvsPaths,
    rpc,
    status::ClusterStatus,
};

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

impl Probe {
    /// How long a daemon may take to answer. One that computes is not ready but alive: with 10,000
    /// ports on two full cores ovsdb-server was silent for 12 s, and a restart then only adds to
    /// its work. The kubelet gives a probe 45 s.
    fn limit(self) -> Duration {
        match self {
            Probe::Live => Duration::from_secs(30),
            Probe::Ready => Duration::from_secs(5),
        }
    }
}

/// Findings of the ovn-central container; none means healthy.
pub async fn check_ovn(paths: &Paths, probe: Probe) -> Vec<String> {
    let pidfile = paths.run.join("ovn-northd.pid");
    let databases = Role::BOTH.map(|role| async move {
        let finding = check_database(paths, role, probe).await;
        finding.map(|finding| format!("{}: {finding}", role.database()))
    });
    let northd = daemon_finding("ovn-northd", &pidfile, "status", probe);
    let (northd, databases) = join(northd, join_all(databases)).await;
    northd.into_iter().chain(databases.into_iter().flatten()).collect()
}

async fn check_database(paths: &Paths, role: Role, probe: Probe) -> Option<String> {
    let serving = match members::observe_local(paths, role, probe.limit()).await {
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
    match rpc::control(&control, "cluster/status", &[role.database()], probe.limit()).await {
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
pub async fn check_ovs(paths: &OvsPaths, probe: Probe) -> Vec<String> {
    let vswitchd = paths.run.join("ovs-vswitchd.pid");
    let controller = paths.ovn_run.join("ovn-controller.pid");
    let (database, vswitchd, ovn) = join3(
        check_vswitch_database(paths, probe),
        daemon_finding("ovs-vswitchd", &vswitchd, "version", probe),
        daemon_finding("ovn-controller", &controller, "version", probe),
    )
    .await;
    let mut findings: Vec<String> = [database, vswitchd, ovn].into_iter().flatten().collect();
    if has_stale_cluster_data(&paths.ovn_logs.join("ovn-controller.log")) {
        // The databases were rebuilt: ovn-controller must forget the raft index it had seen.
        let limit = probe.limit();
        let reset = rpc::control_daemon(&controller, "sb-cluster-state-reset", &[], limit).await;
        findings.extend(reset.err().map(|error| format!("ovn-controller: {error}")));
    }
    findings
}

async fn check_vswitch_database(paths: &OvsPaths, probe: Probe) -> Option<String> {
    let names = async {
        let mut rpc = rpc::Rpc::local(&paths.socket(), probe.limit()).await?;
        rpc.call("list_dbs", serde_json::json!([])).await
    };
    match names.await {
        Ok(names) if names.as_array().is_some_and(|n| n.iter().any(|n| n == "Open_vSwitch")) => {
            None
        }
        Ok(_) => Some("ovsdb-server: no database Open_vSwitch".to_owned()),
        Err(error) => Some(format!("ovsdb-server: {error}")),
    }
}

async fn daemon_finding(name: &str, pidfile: &Path, command: &str, probe: Probe) -> Option<String> {
    let answer = rpc::control_daemon(pidfile, command, &[], probe.limit()).await;
    answer.err().map(|e| format!("{name}: {e}"))
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
