//! A node in a network namespace of its own: real ovsdb-server and ovs-vswitchd (userspace
//! datapath), a gateway behind br-int, the CNI server on a socket, and a store that the test fills
//! as the watches would.

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use kube_ovn::{
    api::{Kind, Pod, PodLife, Subnet, Text},
    host::{Datapath, HostOp},
    kernel::{Netlink, netns},
    net::{Cidr, Dad, LinkChange, LinkState, Mac, Place, VethPair},
    node::{
        apply::Executor,
        attach::Attacher,
        cni_server::{Socket, serve},
        ovs_rows::{PortState, observe_ovs, port_state},
        resolve::{ConflictProbe, NodeFacts},
        service::handler,
        state::{Change, Cluster},
        vswitch::Vswitch,
    },
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use crate::ovsdb_server::Folder;

use crate::kernel::Namespace;

pub const GATEWAY: &str = "10.16.0.1";

/// Runs `test` with the network namespace of a fresh node around it and everything it starts.
pub fn on_node<F: Future<Output = ()>>(test: impl FnOnce(Node) -> F + Send) {
    let namespace = Namespace::new("node");
    netns::enter(&namespace.place, move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(async move { test(Node::start().await).await });
    })
    .unwrap();
}

/// Path of the script that runs OVS programs of the cached tree.
fn ovn_run() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/sandbox/ovn-run")
}

fn schema() -> String {
    let output = Command::new(ovn_run()).arg("--root").output().unwrap();
    let root = String::from_utf8(output.stdout).unwrap();
    format!("{}/usr/share/openvswitch/vswitch.ovsschema", root.trim())
}

/// A process that ends with the test.
pub struct Daemon(Child);

impl Daemon {
    pub fn start(folder: &Path, program: &str, args: &[&str]) -> Self {
        let log = std::fs::File::create(folder.join(format!("{program}.out"))).unwrap();
        let child = Command::new(ovn_run())
            .arg(program)
            .args(args)
            .env("OVS_RUNDIR", folder)
            .env("OVS_DBDIR", folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("the OVS programs: run packaging/sandbox/rootfs tools");
        Daemon(child)
    }

    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

pub struct Node {
    pub cluster: Arc<Cluster>,
    pub executor: Executor,
    pub attacher: Attacher,
    _facts: watch::Sender<NodeFacts>,
    pub socket: PathBuf,
    pub db: Daemon,
    pub switch: Daemon,
    pub stop: CancellationToken,
    _gateway: Namespace,
    pub folder: Folder,
}

impl Node {
    async fn start() -> Self {
        let folder = Folder::new();
        let dir = folder.0.clone();
        let db_file = dir.join("conf.db");
        let created = Command::new(ovn_run())
            .args(["ovsdb-tool", "create", db_file.to_str().unwrap(), &schema()])
            .status()
            .unwrap();
        assert!(created.success());
        let db = start_db(&dir);
        let switch = start_switch(&dir);
        Netlink::open(&Place::Host).unwrap().set_link("lo", &up()).unwrap();
        wait_until("the vswitch database", || dir.join("db.sock").exists()).await;
        let node = Node::daemon(folder, db, switch).await;
        node.vsctl(&["--no-wait", "init"]);
        node.vsctl(&["add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev"]);
        node.add_gateway();
        node
    }

    /// The parts of the node daemon that serve CNI requests.
    async fn daemon(folder: Folder, db: Daemon, switch: Daemon) -> Self {
        let cluster = Arc::new(Cluster::default());
        let vswitch = Vswitch::connect(&folder.0.join("db.sock"));
        vswitch.connected().await;
        let executor = Executor::new(vswitch);
        let (facts, seen) = watch::channel(NodeFacts {
            node: "node1".into(),
            datapath: Datapath::Netdev,
            overlay_mtu: Some(1400),
            conflict_probe: ConflictProbe::On,
        });
        let attacher = Attacher::new(cluster.clone(), executor.clone(), seen, None)
            .with_budget(Duration::from_secs(10));
        let socket = folder.0.join("cni.sock");
        let stop = CancellationToken::new();
        let bound = Socket::bind(&socket).unwrap();
        tokio::spawn(serve(bound, handler(attacher.clone()), None, stop.clone()));
        cluster.apply([Change::Upsert(Arc::new(subnet()))]);
        let gateway = Namespace::new("gw");
        Node {
            cluster,
            executor,
            attacher,
            _facts: facts,
            socket,
            db,
            switch,
            stop,
            _gateway: gateway,
            folder,
        }
    }

    pub fn vsctl(&self, args: &[&str]) -> String {
        let db = format!("--db=unix:{}", self.folder.0.join("db.sock").display());
        let output = Command::new(ovn_run())
            .args(["ovs-vsctl", &db, "--timeout=20"])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A router that answers for the subnet's gateway.
    fn add_gateway(&self) {
        let mut host = Netlink::open(&Place::Host).unwrap();
        host.create_veth(&VethPair {
            host: "gw".into(),
            peer: "eth0".into(),
            peer_place: self._gateway.place.clone(),
            peer_mac: "00:00:00:00:00:01".parse().unwrap(),
            mtu: None,
            host_queue_length: 1000,
        })
        .unwrap();
        let mut inside = Netlink::open(&self._gateway.place).unwrap();
        inside.set_link("eth0", &up()).unwrap();
        for cidr in ["10.16.0.1/16", "fd00::1/64"] {
            inside.add_address("eth0", cidr.parse().unwrap(), Dad::Skip).unwrap();
        }
        self.vsctl(&["add-port", "br-int", "gw"]);
    }

    /// The same router answers for the join subnet.
    pub fn add_join_gateway(&self) {
        let mut inside = Netlink::open(&self._gateway.place).unwrap();
        inside.add_address("eth0", "100.64.0.1/16".parse().unwrap(), Dad::Skip).unwrap();
    }

    pub fn restart_db(&mut self) {
        self.db = start_db(&self.folder.0.clone());
    }

    pub fn restart_switch(&mut self) {
        self.switch = start_switch(&self.folder.0.clone());
    }

    pub fn upsert(&self, pod: Pod) {
        self.cluster.apply([Change::Upsert(Arc::new(pod))]);
    }

    pub fn remove_pod(&self, name: &str) {
        self.cluster.apply([Change::Remove(Kind::Pod, format!("shop/{name}").into())]);
    }

    /// Says what ovn-controller says of every port that comes.
    pub fn install_ports(&self) {
        let executor = self.executor.clone();
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let mut changes = executor.vswitch().changes();
            while !stop.is_cancelled() {
                let waiting: Vec<Text> = executor.vswitch().read(|replica| {
                    let ports = observe_ovs(replica).ports.into_values();
                    let pods = ports.filter(|p| p.external_ids.contains_key("iface-id"));
                    let names = pods.map(|p| p.name);
                    names.filter(|n| port_state(replica, n) == PortState::Pending).collect()
                });
                let ops: Vec<HostOp> = waiting
                    .into_iter()
                    .map(|interface| HostOp::SetInterfaceIds {
                        interface,
                        ids: [("ovn-installed".into(), Some("true".into()))].into(),
                    })
                    .collect();
                let _ = executor.vswitch().apply(&ops).await;
                let _ = changes.changed().await;
            }
        });
    }

    /// Names of the ports that pods have now.
    pub fn pod_ports(&self) -> Vec<String> {
        self.executor.vswitch().read(|replica| {
            let ports = observe_ovs(replica).ports.into_values();
            let pods = ports.filter(|p| p.external_ids.contains_key("pod_name"));
            pods.map(|p| p.name.to_string()).collect()
        })
    }

    /// Names of the host ends that pods have now.
    pub fn pod_links(&self) -> Vec<String> {
        let links = Netlink::open(&Place::Host).unwrap().links().unwrap();
        links.iter().map(|l| l.name.to_string()).filter(|n| n.ends_with("_h")).collect()
    }

    pub fn assert_clean(&self) {
        assert_eq!((self.pod_ports(), self.pod_links()), (vec![], vec![]));
    }

    /// Runs the plugin executable as a container runtime does.
    pub fn plugin(&self, command: &str, pod: &Sandbox) -> std::process::Child {
        use std::io::Write;
        let conf = json!({"cniVersion": "1.0.0", "name": "kube-ovn", "type": "kube-ovn",
                          "server_socket": self.socket});
        let mut child = Command::new(env!("CARGO_BIN_EXE_kube-ovn"))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod.container)
            .env("CNI_NETNS", &pod.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env(
                "CNI_ARGS",
                format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={};K8S_POD_UID={}", pod.name, pod.uid),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
        child
    }

    /// Runs the plugin to its end; exit code and printed object.
    pub async fn cni(&self, command: &str, pod: &Sandbox) -> (i32, Value) {
        let child = self.plugin(command, pod);
        let output =
            tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
        let printed = if output.stdout.trim_ascii().is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&output.stdout).unwrap()
        };
        (output.status.code().unwrap(), printed)
    }

    pub async fn add(&self, pod: &Sandbox) -> Value {
        let (code, printed) = self.cni("ADD", pod).await;
        assert_eq!(code, 0, "{printed}");
        printed
    }

    pub async fn del(&self, pod: &Sandbox) {
        assert_eq!(self.cni("DEL", pod).await, (0, Value::Null));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn start_db(dir: &Path) -> Daemon {
    let remote = format!("--remote=punix:{}", dir.join("db.sock").display());
    let control = format!("--unixctl={}", dir.join("db.ctl").display());
    let file = dir.join("conf.db");
    let _ = std::fs::remove_file(dir.join("db.sock"));
    Daemon::start(dir, "ovsdb-server", &[file.to_str().unwrap(), &remote, &control])
}

fn start_switch(dir: &Path) -> Daemon {
    let db = format!("unix:{}", dir.join("db.sock").display());
    let control = format!("--unixctl={}", dir.join("switch.ctl").display());
    let pid = format!("--pidfile={}", dir.join("switch.pid").display());
    let _ = std::fs::remove_file(dir.join("switch.pid"));
    Daemon::start(dir, "ovs-vswitchd", &[&db, &control, &pid, "--disable-system"])
}

fn up() -> LinkChange {
    LinkChange { state: Some(LinkState::Up), ..Default::default() }
}

/// Waits for something that has no event.
pub async fn wait_until(what: &str, mut check: impl FnMut() -> bool) {
    for _ in 0..600 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("waited in vain for {what}");
}

/// A pod sandbox: a container id and a namespace.
pub struct Sandbox {
    pub name: String,
    pub uid: String,
    pub container: String,
    pub netns: String,
    pub namespace: Namespace,
}

impl Sandbox {
    pub fn new(name: &str, uid: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = Namespace::new("pod");
        let Place::Namespace(path) = &namespace.place else { unreachable!() };
        Sandbox {
            name: name.into(),
            uid: uid.into(),
            container: format!("{n:012x}abcdef"),
            netns: path.to_string(),
            namespace,
        }
    }

    pub fn host_end(&self) -> String {
        format!("{}_h", &self.container[..12])
    }

    pub fn addresses(&self) -> Vec<Cidr> {
        let addresses = Netlink::open(&self.namespace.place).unwrap().addresses().unwrap();
        addresses.iter().filter(|a| &*a.link == "eth0").map(|a| a.cidr).collect()
    }
}

/// A pod as the watch shows it before the controller has seen it.
pub fn bare_pod(name: &str, uid: &str) -> Pod {
    Pod {
        namespace: "shop".into(),
        name: name.into(),
        uid: uid.into(),
        node: Some("node1".into()),
        host_network: false,
        life: PodLife::Alive,
        labels: Default::default(),
        annotations: Default::default(),
        owner: None,
        ports: vec![],
        invalid: vec![],
    }
}

/// The pod with its annotations.
pub fn pod(name: &str, uid: &str, ip: &str) -> Pod {
    let mut pod = bare_pod(name, uid);
    let seed = ip.bytes().fold(7u64, |sum, byte| sum.wrapping_mul(131) + u64::from(byte));
    let mac = Mac::local(seed);
    let entries = [
        ("allocated", "true"),
        ("routed", "true"),
        ("ip_address", ip),
        ("mac_address", &mac.to_string()),
        ("cidr", "10.16.0.0/16,fd00::/64"),
        ("gateway", "10.16.0.1,fd00::1"),
        ("logical_switch", "ovn-default"),
    ];
    for (key, value) in entries {
        pod.annotations.insert(format!("ovn.kubernetes.io/{key}").into(), value.into());
    }
    pod
}

pub fn subnet() -> Subnet {
    crate::support::objects::subnet("ovn-default", "10.16.0.0/16,fd00::/64")
}
