//! The ovn-central container with real ovsdb-server, ovsdb-tool and ovn-northd: several of them
//! side by side on addresses of 127.0.0.0/8.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use kube_ovn::{
    central::{
        config::{CentralConfig, Paths, Role},
        database::Central,
        dbfile,
        health::{self, Probe},
        leader, members, rpc,
        rpc::Rpc,
        start_db::{self, Labels},
        status::{ClusterStatus, Serving},
    },
    kernel::process::{Launcher, send_signal},
};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::sync::watch;

use crate::ovn;

/// Long enough for an election on a busy machine, short enough to notice a hang.
const LIMIT: Duration = Duration::from_secs(60);

/// One container: its own folders, its own runtime (so that it can be killed as a whole).
pub struct Container {
    pub central: Arc<Central>,
    pub root: PathBuf,
    running: Option<(tokio::runtime::Runtime, watch::Sender<bool>, tokio::task::JoinHandle<()>)>,
}

impl Container {
    pub fn new(name: &str, variables: &[(&str, &str)]) -> Self {
        let root = std::env::temp_dir().join(format!("kube-ovn-{}-{name}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let mut paths = Paths::rooted(root.to_str().unwrap());
        paths.schemas = ovn::rootfs().join("usr/share/ovn");
        start_db::make_folders(&paths).unwrap();
        let env = |name: &str| {
            let of = |(n, _): &&(&str, &str)| *n == name;
            variables.iter().find(of).map(|(_, value)| (*value).to_owned())
        };
        let mut config = CentralConfig::parse(&env).unwrap();
        // Elections of the tests need not wait for loaded hosts.
        config.election_timer = 1000;
        let launcher = Launcher::through(ovn::wrapper()).logging_to(root.join("daemons.log"));
        let central = Arc::new(Central { config, paths, launcher });
        Container { central, root, running: None }
    }

    pub fn start(&mut self) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (ask, stop) = watch::channel(false);
        let program = runtime.spawn(start_db::run(self.central.clone(), Labels::Off, stop));
        self.running = Some((runtime, ask, program));
    }

    /// SIGTERM of the container.
    pub fn stop(&mut self) {
        let Some((runtime, ask, program)) = self.running.take() else { return };
        ask.send(true).unwrap();
        runtime.block_on(async { tokio::time::timeout(LIMIT, program).await }).unwrap().unwrap();
        assert_eq!(self.pids(), Vec::<i32>::new(), "daemons left behind");
    }

    /// SIGKILL of everything in the container at once.
    pub fn kill(&mut self) {
        if let Some((runtime, ..)) = self.running.take() {
            runtime.shutdown_background();
        }
        for pid in self.pids() {
            send_signal(pid, Signal::SIGKILL).unwrap();
        }
        eventually("daemons are gone", || self.pids().is_empty());
    }

    fn pids(&self) -> Vec<i32> {
        ovn::pids_below(&self.central.paths.run)
    }

    pub fn serving(&self, role: Role) -> Option<Serving> {
        block_on(members::observe_local(&self.central.paths, role, members::LIMIT)).ok().flatten()
    }

    fn status(&self, role: Role) -> ClusterStatus {
        let control = self.central.paths.control(role);
        let arguments = [role.database()];
        let text = block_on(rpc::control(&control, "cluster/status", &arguments, LIMIT));
        ClusterStatus::parse(&text.unwrap_or_default())
    }

    pub fn is_ready(&self) -> bool {
        block_on(health::check_ovn(&self.central.paths, Probe::Ready)).is_empty()
    }

    /// A transaction through the local socket; `false` when it was not committed.
    pub fn add_switch(&self, name: &str) -> bool {
        let insert = json!({"op": "insert", "table": "Logical_Switch", "row": {"name": name}});
        let write = async {
            let socket = self.central.paths.socket(Role::Northbound);
            let mut rpc = Rpc::local(&socket, Duration::from_secs(10)).await?;
            rpc.transact("OVN_Northbound", vec![insert]).await
        };
        block_on(write).is_ok()
    }

    pub fn switches(&self) -> Vec<String> {
        self.select(Role::Northbound, "Logical_Switch", "name")
    }

    pub fn select(&self, role: Role, table: &str, column: &str) -> Vec<String> {
        let select = json!({"op": "select", "table": table, "columns": [column], "where": []});
        let read = async {
            let socket = self.central.paths.socket(role);
            let mut rpc = Rpc::local(&socket, Duration::from_secs(10)).await?;
            rpc.transact(role.database(), vec![select]).await
        };
        let Ok(results) = block_on(read) else { return Vec::new() };
        let rows = results[0]["rows"].as_array().cloned().unwrap_or_default();
        let mut all: Vec<String> = rows.iter().map(|row| row[column].to_string()).collect();
        all.iter_mut().for_each(|text| *text = text.trim_matches('"').to_owned());
        all.sort();
        all
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.root.join("daemons.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("== {}", self.root.display());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        if let Some((runtime, ..)) = self.running.take() {
            runtime.shutdown_background();
        }
        for pid in self.pids() {
            let _ = send_signal(pid, Signal::SIGKILL);
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

#[track_caller]
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    let limit = if crate::in_guest::is_guest() { 4 * LIMIT } else { LIMIT };
    while !check() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Two free ports for each database.
pub fn free_ports() -> [(&'static str, String); 4] {
    let held: Vec<TcpListener> =
        (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let port = |i: usize| held[i].local_addr().unwrap().port().to_string();
    [
        ("NB_PORT", port(0)),
        ("SB_PORT", port(1)),
        ("NB_CLUSTER_PORT", port(2)),
        ("SB_CLUSTER_PORT", port(3)),
    ]
}

pub fn standalone(name: &str) -> Container {
    let ports = free_ports();
    let mut variables: Vec<(&str, &str)> = ports.iter().map(|(n, v)| (*n, v.as_str())).collect();
    variables.extend([
        ("POD_IP", "127.0.0.1"),
        ("ENABLE_BIND_LOCAL_IP", "true"),
        ("PROBE_INTERVAL", "1000"),
    ]);
    Container::new(name, &variables)
}

pub fn cluster(name: &str) -> Vec<Container> {
    cluster_with(name, &[])
}

/// The same with further variables.
pub fn cluster_with(name: &str, extra: &[(&str, &str)]) -> Vec<Container> {
    let ports = free_ports();
    let member = |n: usize| {
        let ip = format!("127.0.0.{n}");
        let mut variables: Vec<(&str, &str)> =
            ports.iter().map(|(n, v)| (*n, v.as_str())).collect();
        variables.extend([
            ("NODE_IPS", "127.0.0.1,127.0.0.2,127.0.0.3"),
            ("POD_IP", &ip),
            ("ENABLE_BIND_LOCAL_IP", "true"),
        ]);
        variables.extend(extra);
        Container::new(&format!("{name}{n}"), &variables)
    };
    (1..=3).map(member).collect()
}

/// Every member serves both databases, three servers each, one cluster.
pub fn is_whole(all: &[Container]) -> bool {
    Role::BOTH.into_iter().all(|role| {
        let serving: Vec<Serving> = all.iter().filter_map(|c| c.serving(role)).collect();
        let one_cluster = serving.iter().all(|s| s.cluster == serving[0].cluster);
        serving.len() == all.len()
            && one_cluster
            && serving.iter().all(|s| s.connected)
            && serving.iter().filter(|s| s.leader).count() == 1
            && all.iter().all(|c| c.status(role).servers.len() == all.len())
    })
}

fn start_cluster(name: &str) -> Vec<Container> {
    let mut all = cluster(name);
    all.iter_mut().for_each(Container::start);
    eventually("three members in one cluster", || is_whole(&all));
    all
}

/// Upstream TRAP: its probe asked for cluster/status, which a standalone server refuses.
#[test]
fn standalone_is_ready_keeps_data_over_restart_and_runs_northd() {
    let mut container = standalone("single");
    container.start();
    eventually("ready", || container.is_ready());
    let mode = fs::metadata(container.central.paths.database(Role::Northbound)).unwrap();
    assert!(mode.len() > 0);
    eventually("northd copies the switch", || {
        container.add_switch("s1");
        !container.select(Role::Southbound, "Datapath_Binding", "tunnel_key").is_empty()
    });
    eventually("options are written", || {
        let options = container.select(Role::Northbound, "NB_Global", "options");
        options.len() == 1
            && ["northd_probe_interval", "use_logical_dp_groups", "inactivity_probe"]
                .iter()
                .all(|key| options[0].contains(key))
    });
    eventually("it leads everything", || {
        let (leads, _) = block_on(leader::observe(&container.central)).unwrap();
        leads.northbound && leads.southbound && leads.northd
    });
    let before = container.switches();
    container.stop();
    container.start();
    eventually("ready again", || container.is_ready());
    assert_eq!(container.switches(), before);
    container.stop();
}

/// Upstream BUG: PROBE_INTERVAL did not reach listeners that are no Connection rows.
#[test]
fn inactivity_probe_of_listeners_is_the_configured_one() {
    use std::io::Read;
    let mut container = standalone("probe");
    container.start();
    eventually("ready", || container.is_ready());
    let address = ("127.0.0.1", container.central.config.northbound.client);
    let mut idle = std::net::TcpStream::connect(address).unwrap();
    idle.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let start = Instant::now();
    let mut buffer = [0; 256];
    let read = idle.read(&mut buffer).unwrap();
    assert!(String::from_utf8_lossy(&buffer[..read]).contains("echo"));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    container.stop();
}

#[test]
fn killed_daemons_come_back() {
    let mut container = standalone("respawn");
    container.start();
    eventually("ready", || container.is_ready());
    eventually("write", || container.add_switch("s1"));
    let before = container.pids();
    for pid in &before {
        send_signal(*pid, Signal::SIGKILL).unwrap();
    }
    eventually("new daemons", || {
        let now = container.pids();
        now.len() == 3 && now.iter().all(|pid| !before.contains(pid)) && container.is_ready()
    });
    assert_eq!(container.switches(), ["s1"]);
    container.stop();
}

#[test]
fn a_damaged_standalone_file_is_kept_aside_and_made_anew() {
    let mut container = standalone("damaged");
    let file = container.central.paths.database(Role::Northbound);
    fs::write(&file, "no database").unwrap();
    container.start();
    eventually("ready", || container.is_ready());
    assert_eq!(backups(&file).len(), 1);
    container.stop();
}

fn backups(file: &Path) -> Vec<PathBuf> {
    let prefix = format!("{}.backup-", file.display());
    let entries = fs::read_dir(file.parent().unwrap()).unwrap().flatten().map(|e| e.path());
    entries.filter(|path| path.display().to_string().starts_with(&prefix)).collect()
}

#[test]
fn raft_survives_kill_9_of_each_member_and_of_all() {
    let mut all = start_cluster("kill");
    eventually("all ready", || all.iter().all(Container::is_ready));
    let mut wanted = Vec::new();
    for victim in 0..3 {
        all[victim].kill();
        let other = (victim + 1) % 3;
        let name = format!("while-{victim}-is-dead");
        eventually("the other two accept writes", || all[other].add_switch(&name));
        wanted.push(name);
        all[victim].start();
        eventually("whole again", || is_whole(&all));
    }
    let cluster = all[0].serving(Role::Northbound).unwrap().cluster;
    all.iter_mut().for_each(Container::kill);
    // The last one up must not be needed, and nobody may bootstrap.
    all.iter_mut().rev().for_each(Container::start);
    eventually("whole after all were killed", || is_whole(&all));
    assert_eq!(all[0].serving(Role::Northbound).unwrap().cluster, cluster);
    let switches = all[0].switches();
    assert!(wanted.iter().all(|name| switches.contains(name)), "{switches:?}");
    all.iter_mut().for_each(Container::stop);
    all.iter_mut().for_each(Container::start);
    eventually("whole after all were stopped", || is_whole(&all));
    all.iter_mut().for_each(Container::stop);
}

#[test]
fn a_lost_disk_rejoins_the_cluster_and_its_old_server_is_kicked() {
    let mut all = start_cluster("lost");
    eventually("write", || all[1].add_switch("before"));
    eventually("headers are saved", || {
        all.iter().all(|c| c.central.paths.header(Role::Northbound).exists())
    });
    let cluster = all[1].serving(Role::Northbound).unwrap().cluster;
    for victim in [0, 2] {
        all[victim].kill();
        let paths = all[victim].central.paths.clone();
        if victim == 0 {
            // The whole disk: not even the saved header is left.
            fs::remove_dir_all(&paths.databases).unwrap();
            fs::create_dir_all(&paths.databases).unwrap();
        } else {
            fs::remove_file(paths.database(Role::Northbound)).unwrap();
        }
        all[victim].start();
        eventually("whole, with three servers", || is_whole(&all));
        assert_eq!(all[victim].serving(Role::Northbound).unwrap().cluster, cluster);
        assert!(all[victim].switches().contains(&"before".to_owned()));
        eventually("no stale id is recorded any more", || {
            let path = all[victim].central.paths.header(Role::Northbound);
            let saved = dbfile::observe_saved_header(&path).unwrap();
            saved.is_some_and(|header| header.stale.is_empty())
        });
    }
    all.iter_mut().for_each(Container::stop);
}

/// Upstream TRAP: the first node bootstrapped a second cluster here.
#[test]
fn the_first_node_with_a_lost_disk_waits_while_the_others_are_down() {
    let mut all = start_cluster("split");
    let cluster = all[1].serving(Role::Northbound).unwrap().cluster;
    all.iter_mut().for_each(Container::kill);
    let paths = all[0].central.paths.clone();
    fs::remove_dir_all(&paths.databases).unwrap();
    fs::create_dir_all(&paths.databases).unwrap();
    all[0].start();
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(all[0].serving(Role::Northbound), None);
    assert!(!all[0].is_ready());
    eventually("alive", || block_on(health::check_ovn(&paths, Probe::Live)).is_empty());
    // One old member has no quorum; the new one joins it as soon as it can.
    all[1].start();
    all[2].start();
    eventually("whole, the old cluster", || is_whole(&all));
    assert_eq!(all[0].serving(Role::Northbound).unwrap().cluster, cluster);
    all.iter_mut().for_each(Container::stop);
}

#[test]
fn a_corrupt_member_rejoins_and_a_kicked_one_stays_out() {
    let mut all = start_cluster("corrupt");
    all[2].kill();
    let file = all[2].central.paths.database(Role::Southbound);
    fs::write(&file, "no database").unwrap();
    all[2].start();
    eventually("whole again", || is_whole(&all));
    assert_eq!(backups(&file).len(), 1);
    let control = all[0].central.paths.control(Role::Southbound);
    let address = all[2].central.config.raft_address(Role::Southbound);
    let arguments = ["OVN_Southbound", &address];
    block_on(rpc::control(&control, "cluster/kick", &arguments, LIMIT)).unwrap();
    eventually("two servers left", || all[0].status(Role::Southbound).servers.len() == 2);
    for _ in 0..2 {
        std::thread::sleep(Duration::from_secs(4));
        assert_eq!(all[0].status(Role::Southbound).servers.len(), 2);
        assert_eq!(all[2].serving(Role::Southbound), None);
        all[2].stop();
        all[2].start();
    }
    all.iter_mut().for_each(Container::stop);
}

#[test]
fn restore_a_standalone_file_on_the_first_node_makes_the_cluster() {
    let mut single = standalone("source");
    single.start();
    eventually("write", || single.add_switch("precious"));
    single.stop();
    let mut all = cluster("restore");
    fs::copy(
        single.central.paths.database(Role::Northbound),
        all[0].central.paths.database(Role::Northbound),
    )
    .unwrap();
    all.iter_mut().for_each(Container::start);
    eventually("three members", || is_whole(&all));
    assert_eq!(all[2].switches(), ["precious"]);
    all.iter_mut().for_each(Container::stop);
}

#[test]
fn only_one_northd_is_active_and_a_freed_lock_finds_a_holder() {
    let mut all = start_cluster("northd");
    let active = |all: &[Container]| {
        let leads = all.iter().map(|c| block_on(leader::observe(&c.central)));
        leads.filter(|result| result.as_ref().is_ok_and(|(leads, _)| leads.northd)).count()
    };
    eventually("one active northd", || active(&all) == 1);
    let leader = all.iter().find(|c| c.serving(Role::Southbound).is_some_and(|s| s.leader));
    block_on(leader::free_lock(&leader.unwrap().central)).unwrap();
    eventually("one active northd", || active(&all) == 1);
    let local: IpAddr = "127.0.0.1".parse().unwrap();
    assert_eq!(all[0].central.config.local, local);
    all.iter_mut().for_each(Container::stop);
}

/// An address that answers nothing: its queue of connections is full.
fn silent_host(ip: &str, port: u16) -> (TcpListener, Vec<TcpStream>) {
    let address = SocketAddr::new(ip.parse().unwrap(), port);
    let listen = async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(address).unwrap();
        socket.listen(1).unwrap().into_std().unwrap()
    };
    let listener = block_on(listen);
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the queue takes them all");
    }
    (listener, waiting)
}

/// The lock of a northd whose host does not answer is freed without the inactivity probe of the
/// server (3 minutes), that of one whose host only refuses (it starts again) is not.
#[test]
fn the_lock_of_a_silent_host_is_free_after_three_dials() {
    let mut all = start_cluster("silence");
    let active = || {
        let leads = |c: &Container| block_on(leader::observe(&c.central));
        all.iter().position(|c| leads(c).is_ok_and(|(leads, _)| leads.northd))
    };
    eventually("an active northd", || active().is_some());
    let holder = active();
    let serves = |c: &&Container| c.serving(Role::Southbound).is_some_and(|s| s.leader);
    let central = &all.iter().find(serves).unwrap().central;
    let keep = |ip: &str, seconds: u64| {
        let (_tell, hosts) = watch::channel(vec![ip.parse::<IpAddr>().unwrap()]);
        let keeping = leader::keep_northd(central, hosts, LIMIT);
        block_on(async { tokio::time::timeout(Duration::from_secs(seconds), keeping).await })
            .expect_err("it ends with its container only");
    };
    keep("127.0.0.77", 3);
    assert_eq!(active(), holder, "a host that refuses lives");
    // Its session stands and says nothing, as that of a host without power.
    let pidfile = all[holder.unwrap()].central.paths.run.join("ovn-northd.pid");
    let pid: i32 = fs::read_to_string(pidfile).unwrap().trim().parse().unwrap();
    send_signal(pid, Signal::SIGSTOP).unwrap();
    let _silent = silent_host("127.0.0.78", central.config.southbound.client);
    keep("127.0.0.78", 8);
    eventually("another northd is active", || active().is_some_and(|now| Some(now) != holder));
    send_signal(pid, Signal::SIGCONT).unwrap();
    all.iter_mut().for_each(Container::stop);
}
