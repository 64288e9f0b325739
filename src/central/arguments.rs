//! Argument vectors and the server configuration of ovsdb-server and ovn-northd. Pure.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::config::{CentralConfig, Paths, Role, Transport};
use crate::kernel::process::Invocation;

/// Whether the server serves its database file yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// Only `_Server`: tells other members that we hold nothing.
    Nothing,
    File,
}

/// The JSON of `ovsdb-server --config-file`.
///
/// Listeners stand in here and not in Connection rows: so the inactivity probe reaches them in
/// raft mode too (upstream BUG: its Local_Config rows lack it), and a database that was taken over
/// from another mode brings no listener of its own.
pub fn server_config(config: &CentralConfig, paths: &Paths, role: Role, served: Served) -> Value {
    let mut remotes = Map::new();
    remotes.insert(format!("punix:{}", paths.socket(role).display()), json!({}));
    for ip in &config.listen {
        let remote = config.transport.listener(*ip, config.ports(role).client);
        remotes.insert(remote, json!({ "inactivity-probe": config.probe_interval }));
    }
    let mut databases = Map::new();
    if served == Served::File {
        databases.insert(paths.database(role).display().to_string(), json!({}));
    }
    json!({ "remotes": remotes, "databases": databases })
}

pub fn ovsdb_server(config: &CentralConfig, paths: &Paths, role: Role) -> Invocation {
    let mut arguments = logging(&format!("ovsdb-server-{}", role.short()), &paths.logs);
    arguments.extend([
        format!("--config-file={}", paths.server_config(role).display()),
        format!("--unixctl={}", paths.control(role).display()),
        format!("--pidfile={}", paths.pidfile(role).display()),
        "--overwrite-pidfile".to_owned(),
    ]);
    arguments.extend(tls_files(config.transport, &paths.tls));
    Invocation::new("ovsdb-server", arguments)
        .with("OVN_RUNDIR", paths.run.display().to_string())
        .with("OVS_RUNDIR", paths.run.display().to_string())
}

/// northd runs on every member; the SB lock `ovn_northd` makes one of them active.
pub fn northd(config: &CentralConfig, paths: &Paths) -> Invocation {
    let mut arguments = logging("ovn-northd", &paths.logs);
    arguments.extend([
        format!("--ovnnb-db={}", config.client_addresses(Role::Northbound, paths)),
        format!("--ovnsb-db={}", config.client_addresses(Role::Southbound, paths)),
        format!("--n-threads={}", config.northd_threads.max(1)),
        format!("--pidfile={}", northd_pidfile(paths)),
        "--overwrite-pidfile".to_owned(),
    ]);
    arguments.extend(tls_files(config.transport, &paths.tls));
    // Without --unixctl the socket is $OVN_RUNDIR/ovn-northd.PID.ctl, where tools look for it.
    Invocation::new("ovn-northd", arguments)
        .with("OVN_RUNDIR", paths.run.display().to_string())
        .with("OVS_RUNDIR", paths.run.display().to_string())
}

pub fn northd_pidfile(paths: &Paths) -> String {
    paths.run.join("ovn-northd.pid").display().to_string()
}

/// Log options: everything from INFO to the container log and to the file that
/// `kubectl ko log` collects. The console pattern names the daemon.
pub fn logging(name: &str, directory: &Path) -> Vec<String> {
    vec![
        "-vconsole:info".to_owned(),
        "-vsyslog:off".to_owned(),
        "-vfile:info".to_owned(),
        format!("-vPATTERN:console:%D{{%Y-%m-%dT%H:%M:%S.###Z}} {name} %c%T|%p|%m"),
        format!("--log-file={}", directory.join(format!("{name}.log")).display()),
    ]
}

pub fn tls_files(transport: Transport, directory: &Path) -> Vec<String> {
    if transport == Transport::Plain {
        return Vec::new();
    }
    let file = |name: &str| directory.join(name).display().to_string();
    vec![
        format!("--private-key={}", file("key")),
        format!("--certificate={}", file("cert")),
        format!("--ca-cert={}", file("cacert")),
    ]
}

/// `ovsdb-tool create FILE SCHEMA`.
pub fn create(file: &Path, schema: &Path) -> Invocation {
    Invocation::new("ovsdb-tool", ["create".to_owned(), text(file), text(schema)])
}

/// `ovsdb-tool create-cluster`; `contents` is a schema or a standalone database. The election
/// timer is given at birth: the stock 1000 ms is too short on loaded hosts.
pub fn create_cluster(file: &Path, contents: &Path, local: &str, timer: u64) -> Invocation {
    let timer = format!("--election-timer={timer}");
    let arguments =
        [timer, "create-cluster".to_owned(), text(file), text(contents), local.to_owned()];
    Invocation::new("ovsdb-tool", arguments)
}

pub fn join_cluster(
    file: &Path,
    role: Role,
    cluster: Option<&str>,
    local: &str,
    remotes: &[String],
) -> Invocation {
    let mut arguments: Vec<String> = cluster.iter().map(|id| format!("--cid={id}")).collect();
    arguments.push("join-cluster".to_owned());
    arguments.extend([text(file), role.database().to_owned(), local.to_owned()]);
    arguments.extend(remotes.iter().cloned());
    Invocation::new("ovsdb-tool", arguments)
}

pub fn cluster_to_standalone(target: &Path, source: &Path) -> Invocation {
    Invocation::new("ovsdb-tool", ["cluster-to-standalone".to_owned(), text(target), text(source)])
}

pub fn check_cluster(file: &Path) -> Invocation {
    Invocation::new("ovsdb-tool", ["check-cluster".to_owned(), text(file)])
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &[(&str, &str)]) -> CentralConfig {
        let mut all = vec![("POD_IP", "10.0.0.1"), ("POD_IPS", "10.0.0.1,fd00::1")];
        all.extend(extra);
        CentralConfig::parse(&|name| {
            all.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        })
        .unwrap()
    }

    #[test]
    fn upstream_bug_probe_interval_reaches_raft_listeners() {
        let config = config(&[("NODE_IPS", "10.0.0.1,10.0.0.2"), ("PROBE_INTERVAL", "60000")]);
        let json = server_config(&config, &Paths::system(), Role::Southbound, Served::Nothing);
        assert_eq!(json["remotes"]["ptcp:6642:[::]"]["inactivity-probe"], 60000);
        assert_eq!(json["databases"], json!({}));
    }

    #[test]
    fn listeners_follow_bind_local_ip_and_ssl() {
        let config = config(&[("ENABLE_BIND_LOCAL_IP", "true"), ("ENABLE_SSL", "true")]);
        let json = server_config(&config, &Paths::system(), Role::Northbound, Served::File);
        let remotes: Vec<&String> = json["remotes"].as_object().unwrap().keys().collect();
        assert_eq!(
            remotes,
            ["pssl:6641:[10.0.0.1]", "pssl:6641:[fd00::1]", "punix:/var/run/ovn/ovnnb_db.sock"]
        );
        assert_eq!(json["databases"], json!({"/etc/ovn/ovnnb_db.db": {}}));
        let server = ovsdb_server(&config, &Paths::system(), Role::Northbound);
        assert!(server.arguments.contains(&"--private-key=/var/run/tls/key".to_owned()));
        assert!(server.arguments.contains(&"--unixctl=/var/run/ovn/ovnnb_db.ctl".to_owned()));
    }

    #[test]
    fn northd_asks_every_member() {
        let config = config(&[("NODE_IPS", "10.0.0.1,10.0.0.2"), ("OVN_NORTHD_N_THREADS", "4")]);
        let all = northd(&config, &Paths::system()).arguments.join(" ");
        assert!(all.contains("--ovnnb-db=tcp:[10.0.0.1]:6641,tcp:[10.0.0.2]:6641"), "{all}");
        assert!(all.contains("--n-threads=4"));
    }

    #[test]
    fn cluster_commands() {
        let file = Path::new("/d");
        let remotes = ["tcp:[10.0.0.2]:6643".to_owned()];
        let join = join_cluster(file, Role::Northbound, Some("c"), "tcp:[10.0.0.1]:6643", &remotes);
        assert_eq!(
            join.arguments.join(" "),
            "--cid=c join-cluster /d OVN_Northbound tcp:[10.0.0.1]:6643 tcp:[10.0.0.2]:6643"
        );
        let create = create_cluster(file, Path::new("/s"), "tcp:[10.0.0.1]:6643", 5000);
        assert_eq!(create.arguments[0], "--election-timer=5000");
    }
}
