//! The ovs container with real daemons and a userspace datapath, in a network namespace of its
//! own whose `eth1` leads to a peer namespace.

use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use kube_ovn::{
    central::{
        health, other_datapath, ovs_arguments,
        ovs_config::{Datapath, OvsConfig},
        ovs_paths::OvsPaths,
        start_ovs::{self, Ovs, OvsError},
        uninstall, uplink_apply,
        vswitch::{Switch, parse_map},
    },
    kernel::{
        Netlink, netns,
        process::{Invocation, Launcher, send_signal},
    },
    net::{Cidr, Dad, LinkChange, LinkState, Mac, Place, Route, VethPair},
};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::sync::watch;

use crate::{
    central::{block_on, eventually},
    ovn,
};

const OURS: &str = "10.99.0.5/24";
const OURS6: &str = "fd99::5/64";
const PEERS: &str = "10.99.0.1/24";
const BEHIND: &str = "10.98.0.0/16";

pub type Running =
    (tokio::runtime::Runtime, watch::Sender<bool>, tokio::task::JoinHandle<Result<(), OvsError>>);

/// A node: its namespace with `eth1`, the peer's namespace, folders, containers.
pub struct Node {
    name: String,
    pub root: PathBuf,
    pub place: Place,
    peer: Place,
    pub paths: OvsPaths,
}

impl Node {
    pub fn new(name: &str) -> Self {
        let peer = netns::create_named(&format!("ko{}{name}p", std::process::id())).unwrap();
        let node = Node::bare(name, peer);
        node.make_links();
        node
    }

    /// A node without links.
    pub fn bare(name: &str, peer: Place) -> Self {
        let name = format!("ko{}{name}", std::process::id());
        let place = netns::create_named(&name).unwrap();
        let root = std::env::temp_dir().join(format!("kube-ovn-{name}"));
        fs::create_dir_all(&root).unwrap();
        let mut paths = OvsPaths::rooted(root.to_str().unwrap());
        paths.schemas = ovn::rootfs().join("usr/share/openvswitch");
        Node { name, root, place, peer, paths }
    }

    fn make_links(&self) {
        let mut netlink = Netlink::open(&self.place).unwrap();
        let mac: Mac = "02:00:00:00:99:01".parse().unwrap();
        let pair = VethPair {
            host: "eth1".into(),
            peer: "eth0".into(),
            peer_place: self.peer.clone(),
            peer_mac: mac,
            mtu: None,
            host_queue_length: 1000,
        };
        netlink.create_veth(&pair).unwrap();
        for address in [OURS, OURS6] {
            netlink.add_address("eth1", address.parse().unwrap(), Dad::Skip).unwrap();
        }
        let up = LinkChange { state: Some(LinkState::Up), ..LinkChange::default() };
        netlink.set_link("lo", &up).unwrap();
        let route =
            Route::via(BEHIND.parse().unwrap(), "10.99.0.1".parse().unwrap(), &"eth1".into());
        netlink.replace_route(&route).unwrap();
        let mut peer = Netlink::open(&self.peer).unwrap();
        peer.set_link("lo", &up).unwrap();
        peer.set_link("eth0", &up).unwrap();
        peer.add_address("eth0", PEERS.parse().unwrap(), Dad::Skip).unwrap();
        // Frames that leave a userspace datapath carry sums as they are.
        kube_ovn::kernel::ethtool::disable_tx_checksum(&self.peer, "eth0").unwrap();
    }

    /// Starts daemons inside the namespace; `exec` keeps the process id.
    fn launcher(&self) -> Launcher {
        let path = self.root.join("run-in-node");
        let mut file = fs::File::create(&path).unwrap();
        let namespace = netns::named_path(&self.name);
        let (namespace, run) = (namespace.display(), ovn::wrapper());
        let run = run.display();
        writeln!(file, "#!/bin/sh\nexec nsenter --net={namespace} {run} \"$@\"").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        drop(file);
        Launcher::through(path).logging_to(self.root.join("daemons.log"))
    }

    /// Starts the container; `extra` are variables beside or instead of the usual ones.
    pub fn start(&self, extra: &[(&str, &str)]) -> Running {
        let mut variables = extra.to_vec();
        variables.extend([
            ("KUBE_NODE_NAME", "n1"),
            ("POD_IP", "10.99.0.5"),
            ("OVN_DB_IPS", "10.99.0.1"),
        ]);
        let env = |name: &str| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        };
        let ovs = Ovs {
            config: OvsConfig::parse(&env).unwrap(),
            paths: self.paths.clone(),
            launcher: self.launcher(),
            place: self.place.clone(),
            cpus: 2,
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (ask, stop) = watch::channel(false);
        let program = runtime.spawn(async move {
            let end = start_ovs::run(Arc::new(ovs), stop).await;
            if let Err(error) = &end {
                eprintln!("start-ovs ended: {error}");
            }
            end
        });
        (runtime, ask, program)
    }

    fn started(&self) -> Running {
        let running = self.start(&[("OVS_DATAPATH", "netdev"), ("IFACE", "eth[1-9]")]);
        eventually("br-phy has the addresses", || {
            self.has("br-phy", OURS) && !self.has("eth1", OURS)
        });
        eventually("healthy", || self.is_healthy());
        running
    }

    pub fn pids(&self) -> Vec<i32> {
        ovn::pids_below(&self.root)
    }

    pub fn kill_all(&self, running: Running) {
        running.0.shutdown_background();
        self.pids().into_iter().for_each(|pid| send_signal(pid, Signal::SIGKILL).unwrap());
        eventually("daemons are gone", || self.pids().is_empty());
    }

    fn has(&self, link: &str, address: &str) -> bool {
        let cidr: Cidr = address.parse().unwrap();
        let all = Netlink::open(&self.place).unwrap().addresses().unwrap();
        all.iter().any(|a| *a.link == *link && a.cidr == cidr)
    }

    /// The link that the static route goes over.
    fn route_link(&self) -> Option<String> {
        let routes = Netlink::open(&self.place).unwrap().routes().unwrap();
        let behind: Cidr = BEHIND.parse().unwrap();
        routes.iter().find(|r| r.destination == behind).map(|r| r.link.to_string())
    }

    pub fn is_healthy(&self) -> bool {
        block_on(health::check_ovs(&self.paths, health::Probe::Ready)).is_empty()
    }

    /// A connection from the peer to the node's address, with data.
    pub fn answers_peer(&self) -> bool {
        let listener =
            netns::enter(&self.place, || TcpListener::bind("10.99.0.5:0")).unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(2));
        let Ok(mut stream) = netns::enter(&self.peer, connect).unwrap() else { return false };
        stream.write_all(b"hello").unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        accepted.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut buffer = [0; 5];
        std::io::Read::read_exact(&mut accepted, &mut buffer).is_ok()
    }

    pub fn external_ids(&self) -> std::collections::BTreeMap<String, String> {
        let select = json!({"op": "select", "table": "Open_vSwitch",
                            "columns": ["external_ids"], "where": []});
        let read = async { Switch::open(&self.paths).await?.transact(vec![select]).await };
        let Ok(results) = block_on(read) else { return Default::default() };
        parse_map(&results[0]["rows"][0]["external_ids"])
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.root.join("daemons.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        for pid in self.pids() {
            let _ = send_signal(pid, Signal::SIGKILL);
        }
        for name in [self.name.clone(), format!("{}p", self.name)] {
            let _ = netns::delete_named(&name);
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// The links of a node that Open vSwitch makes.
fn made_links(node: &Node) -> Vec<String> {
    let links = Netlink::open(&node.place).unwrap().links().unwrap();
    let made = links.iter().filter(|l| l.name.starts_with("br-") || l.name.starts_with("ovs-"));
    made.map(|l| l.name.to_string()).collect()
}

pub fn stop((runtime, ask, program): Running) {
    ask.send(true).unwrap();
    let limit = Duration::from_secs(60);
    runtime
        .block_on(async { tokio::time::timeout(limit, program).await })
        .unwrap()
        .unwrap()
        .unwrap();
}

#[test]
fn the_tunnel_nic_moves_into_br_phy_and_back() {
    let node = Node::new("a");
    assert!(node.answers_peer(), "the wires of the test");
    let running = node.started();
    assert!(!node.has("eth1", OURS) && node.has("br-phy", OURS6));
    assert_eq!(node.route_link().as_deref(), Some("br-phy"));
    eventually("the peer reaches the address on br-phy", || node.answers_peer());
    let ids = node.external_ids();
    assert_eq!(ids["ovn-bridge-datapath-type"], "netdev");
    assert_eq!(ids["ovn-remote"], "tcp:[10.99.0.1]:6642");
    assert_eq!(ids["hostname"], "n1");
    assert!(ids["ovs-datapath"].contains("eth1 is in br-phy"), "{ids:?}");
    let system_id = ids["system-id"].clone();

    // ovs-vswitchd dies.
    let pidfile = node.paths.run.join("ovs-vswitchd.pid");
    let pid = || fs::read_to_string(&pidfile).ok().and_then(|text| text.trim().parse().ok());
    let before: i32 = pid().unwrap();
    send_signal(before, Signal::SIGKILL).unwrap();
    eventually("another ovs-vswitchd", || pid().is_some_and(|now| now != before));
    eventually("br-phy is back", || node.has("br-phy", OURS) && node.has("br-phy", OURS6));
    assert_eq!(node.route_link().as_deref(), Some("br-phy"));
    eventually("the peer reaches it again", || node.answers_peer());

    // The container ends in order: the NIC has everything back.
    stop(running);
    assert_eq!(node.pids(), Vec::<i32>::new());
    assert!(node.has("eth1", OURS) && node.has("eth1", OURS6));
    assert_eq!(node.route_link().as_deref(), Some("eth1"));
    assert!(node.answers_peer());

    // The container is killed while the bridge holds the addresses, and its tap device is lost.
    let running = node.started();
    node.kill_all(running);
    Netlink::open(&node.place).unwrap().delete_link("br-phy").unwrap();
    assert!(!node.has("eth1", OURS) && !node.has("br-phy", OURS));
    let running = node.started();
    assert_eq!(node.route_link().as_deref(), Some("br-phy"));
    assert_eq!(node.external_ids()["system-id"], system_id);
    eventually("the peer reaches it", || node.answers_peer());

    let root = node.root.to_str().unwrap();
    let findings = block_on(uninstall::run(&node.paths, root, &node.place)).unwrap();
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!(node.pids(), Vec::<i32>::new());
    assert!(node.has("eth1", OURS) && node.has("eth1", OURS6));
    assert_eq!(node.route_link().as_deref(), Some("eth1"));
    let links = Netlink::open(&node.place).unwrap().links().unwrap();
    let left: Vec<&str> = links.iter().map(|l| &*l.name).filter(|n| n.contains("br-")).collect();
    assert_eq!(left, Vec::<&str>::new());
    assert!(fs::read_dir(&node.paths.config).unwrap().next().is_none());
    // The container notices that it has lost the daemons, and leaves them alone.
    stop(running);
    let findings = block_on(uninstall::run(&node.paths, root, &node.place)).unwrap();
    assert_eq!(findings, Vec::<String>::new());
}

#[test]
fn a_new_container_takes_the_daemons_over_from_the_old_one() {
    let node = Node::new("b");
    let old = node.started();
    let before = node.pids();
    let new = node.started();
    eventually("other daemons", || {
        let now = node.pids();
        now.len() == 3 && now.iter().all(|pid| !before.contains(pid)) && node.is_healthy()
    });
    eventually("br-phy has the addresses", || node.has("br-phy", OURS));
    let now = node.pids();
    stop(old);
    assert_eq!(node.pids(), now, "the old container touched the new one's daemons");
    assert!(node.has("br-phy", OURS));
    stop(new);
    assert_eq!(node.pids(), Vec::<i32>::new());
    assert!(node.has("eth1", OURS));
}

#[test]
fn the_nodes_own_nic_is_not_taken_unless_forced() {
    let node = Node::new("c");
    let running = node.start(&[("OVS_DATAPATH", "auto")]);
    eventually("the reason is told", || {
        node.external_ids().get("ovs-datapath").is_some_and(|text| text.contains("OVS_DATAPATH"))
    });
    assert!(node.has("eth1", OURS));
    eventually("healthy all the same", || node.is_healthy());
    stop(running);
    let running = node.start(&[("OVS_DATAPATH", "netdev")]);
    eventually("forced", || node.has("br-phy", OURS) && !node.has("eth1", OURS));
    let facts = block_on(uplink_apply::observe(&node.place)).unwrap();
    let mac = |name: &str| facts.links.iter().find(|l| *l.name == *name).and_then(|l| l.mac);
    assert_eq!(mac("br-phy"), mac("eth1"));
    stop(running);
    let running = node.start(&[("OVS_DATAPATH", "system")]);
    let (runtime, _ask, program) = running;
    let result = runtime.block_on(program).unwrap();
    assert!(matches!(result, Err(OvsError::NoModule)), "{result:?}");
}

/// Rules outlive a crash of ovn-controller, and are counted for the next start of vswitchd.
#[test]
fn the_number_of_rules_is_recorded_while_there_are_rules() {
    let node = Node::new("d");
    let running = node.started();
    let wait = "ovn-ofctrl-wait-before-clear";
    eventually("br-int", || node.paths.run.join("br-int.mgmt").exists());
    assert!(!node.external_ids().contains_key(wait), "nothing to keep yet");
    let flows: String =
        (0..300).map(|n| format!("table=70,priority={n},ip,actions=drop\n")).collect();
    let file = node.root.join("flows");
    fs::write(&file, flows).unwrap();
    let target = format!("unix:{}", node.paths.run.join("br-int.mgmt").display());
    let arguments = ["add-flows", &target, file.to_str().unwrap()];
    let add = Invocation::new("ovs-ofctl", arguments);
    block_on(node.launcher().run(&add, Duration::from_secs(20))).unwrap();
    eventually("a record", || {
        let ids = node.external_ids();
        let rules: u64 = ids.get("kube-ovn-rules").and_then(|n| n.parse().ok()).unwrap_or(0);
        rules >= 300 && ids.get(wait).is_some_and(|ms| ms == "8000")
    });
    // An empty switch has nothing to keep: ovn-controller must write at once.
    let pid = fs::read_to_string(node.paths.run.join("ovs-vswitchd.pid")).unwrap();
    send_signal(pid.trim().parse().unwrap(), Signal::SIGKILL).unwrap();
    eventually("the wish is gone", || !node.external_ids().contains_key(wait));
    assert!(node.external_ids().contains_key("kube-ovn-rules"));
    stop(running);
}

/// OVS_DATAPATH is changed, or the kernel gets the module: bridges follow, old links go.
#[test]
fn the_former_datapath_is_left() {
    let node = Node::new("e");
    let running = node.started();
    eventually("br-int", || node.paths.run.join("br-int.mgmt").exists());
    node.kill_all(running);
    // Links of a killed vswitchd stay when they are persistent tap devices.
    let tap = |name: &str| {
        let mut command = std::process::Command::new("nsenter");
        command.arg(format!("--net={}", netns::named_path(&node.name).display()));
        assert!(
            command.args(["ip", "tuntap", "add", name, "mode", "tap"]).status().unwrap().success()
        );
    };
    for name in ["br-int", "ovs-netdev", "br-mine"] {
        if !made_links(&node).contains(&name.to_owned()) {
            tap(name);
        }
    }
    let server = ovs_arguments::ovsdb_server(&node.paths);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let work = async {
        let server = node.launcher().spawn(&server).unwrap();
        let mut switch = loop {
            match Switch::open(&node.paths).await {
                Ok(switch) => break switch,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let before = switch.bridges().await.unwrap();
        assert!(before.iter().all(|b| b.datapath_type == "netdev"), "{before:?}");
        for _ in 0..2 {
            other_datapath::leave(&node.place, &mut switch, Datapath::System).await.unwrap();
            let after = switch.bridges().await.unwrap();
            let kinds: Vec<(&str, &str)> =
                after.iter().map(|b| (&*b.name, &*b.datapath_type)).collect();
            assert_eq!(kinds, [("br-int", "system")]);
            assert_eq!(made_links(&node), ["br-mine"], "the administrator's own");
            assert!(node.has("eth1", OURS) && node.has("eth1", OURS6));
        }
        other_datapath::leave(&node.place, &mut switch, Datapath::Netdev).await.unwrap();
        let after = switch.bridge("br-int").await.unwrap().unwrap();
        assert_eq!(after.datapath_type, "netdev");
        server.kill().unwrap();
    };
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), work).await }).unwrap();
}
