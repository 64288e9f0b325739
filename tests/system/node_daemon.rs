//! The daemon executable on a real node, against as much of the Kubernetes API as it uses.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::MetadataExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kube_ovn::{
    kernel::Netlink,
    net::{Dad, LinkChange, LinkState, Place},
};
use serde_json::{Value, json};

use crate::{
    kernel::Namespace,
    kube_api::KubeApi,
    node_rig::{Node, Sandbox, on_node, wait_until},
};

/// Answers an address of the tunnel network, so that the NIC has a peer.
fn tunnel_nic(node: &Node) -> Namespace {
    let fabric = Namespace::new("fabric");
    let mut host = Netlink::open(&Place::Host).unwrap();
    host.create_veth(&kube_ovn::net::VethPair {
        host: "eth1".into(),
        peer: "eth0".into(),
        peer_place: fabric.place.clone(),
        peer_mac: "00:00:00:00:00:02".parse().unwrap(),
        mtu: Some(1500),
        host_queue_length: 1000,
    })
    .unwrap();
    host.add_address("eth1", "172.31.0.1/24".parse().unwrap(), Dad::Skip).unwrap();
    node.vsctl(&["set", "open", ".", "external-ids:system-id=chassis-1"]);
    fabric
}

fn node_object() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "node1", "uid": "n1", "resourceVersion": "1", "annotations": {
            "ovn.kubernetes.io/allocated": "true",
            "ovn.kubernetes.io/ip_address": "100.64.0.2",
            "ovn.kubernetes.io/cidr": "100.64.0.0/16",
            "ovn.kubernetes.io/mac_address": "00:00:00:53:6b:aa",
            "ovn.kubernetes.io/gateway": "100.64.0.1",
            "ovn.kubernetes.io/port_name": "node-node1",
        }},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.31.0.1"}]},
    })
}

fn subnet_object() -> Value {
    json!({
        "apiVersion": "kubeovn.io/v1", "kind": "Subnet",
        "metadata": {"name": "ovn-default", "uid": "s1", "resourceVersion": "1"},
        "spec": {"cidrBlock": "10.16.0.0/16", "gateway": "10.16.0.1", "protocol": "IPv4",
                 "vpc": "ovn-cluster", "provider": "ovn", "default": true,
                 "gatewayType": "distributed", "natOutgoing": true,
                 "excludeIps": ["10.16.0.1"]},
        "status": {"conditions": [{"type": "Ready", "status": "True",
                                   "lastUpdateTime": "", "lastTransitionTime": ""}]},
    })
}

fn pod_object(name: &str, uid: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "uid": uid, "resourceVersion": "1",
            "annotations": {
                "ovn.kubernetes.io/allocated": "true", "ovn.kubernetes.io/routed": "true",
                "ovn.kubernetes.io/ip_address": ip, "ovn.kubernetes.io/cidr": "10.16.0.0/16",
                "ovn.kubernetes.io/gateway": "10.16.0.1",
                "ovn.kubernetes.io/mac_address": "00:00:00:53:6b:b6",
                "ovn.kubernetes.io/logical_switch": "ovn-default",
            }},
        "spec": {"nodeName": "node1", "containers": []},
        "status": {"phase": "Pending"},
    })
}

struct Daemon(Child);

impl Daemon {
    fn start(node: &Node, api: &KubeApi) -> Self {
        let folder = &node.folder.0;
        let kubeconfig = folder.join("kubeconfig");
        api.write_kubeconfig(&kubeconfig);
        let flag = |name: &str, file: &str| format!("--{name}={}", folder.join(file).display());
        let log = std::fs::File::create(folder.join("daemon.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_kube-ovn"))
            .arg("kube-ovn-daemon")
            .args([
                "--node-name=node1",
                "--iface=eth1",
                "--service-cluster-ip-range=10.96.0.0/12",
                &flag("kubeconfig", "kubeconfig"),
                &flag("ovs-socket", "db.sock"),
                &flag("bind-socket", "daemon.sock"),
                &flag("cni-conf-dir", "net.d"),
                concat!(
                    "--cni-conf-file=",
                    env!("CARGO_MANIFEST_DIR"),
                    "/packaging/cni/01-kube-ovn.conflist"
                ),
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Daemon(child)
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

fn http(path: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect("127.0.0.1:10665") {
        let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let _ = stream.read_to_string(&mut answer);
    }
    answer
}

fn addresses(link: &str) -> Vec<String> {
    let all = Netlink::open(&Place::Host).unwrap().addresses().unwrap();
    all.iter().filter(|a| &*a.link == link).map(|a| a.cidr.to_string()).collect()
}

#[test]
fn daemon_from_nothing_to_pods_and_through_kill_9() {
    on_node(|mut node| async move {
        let api = KubeApi::start().await;
        let _fabric = tunnel_nic(&node);
        node.add_join_gateway();
        node.install_ports();
        api.put("subnets", subnet_object());
        api.put("nodes", node_object());
        node.socket = node.folder.0.join("daemon.sock");
        let started = Instant::now();
        let mut daemon = Daemon::start(&node, &api);
        let log = node.folder.0.join("daemon.log");
        let ready = || http("/readyz").starts_with("HTTP/1.1 200");
        for _ in 0..400 {
            if ready() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(ready(), "{}\n{text}", http("/readyz"));
        println!("ready after {:?}", started.elapsed());
        let conflist = node.folder.0.join("net.d/01-kube-ovn.conflist");
        wait_until("the conflist", || conflist.exists()).await;
        assert!(addresses("ovn0").contains(&"100.64.0.2/16".to_owned()));
        let ids = node.vsctl(&["get", "open", ".", "external_ids"]);
        assert!(ids.contains("ovn-encap-ip=\"172.31.0.1\""), "{ids}");
        assert!(ids.contains("ovn-encap-csum=\"true\""), "{ids}");
        wait_until("the node's annotation and condition", || api.patches().len() >= 2).await;
        let patches = api.patches();
        assert!(patches.iter().any(|(path, body)| path == "nodes/node1"
            && body["metadata"]["annotations"]["ovn.kubernetes.io/chassis"] == "chassis-1"));
        assert!(patches.iter().any(|(path, body)| path == "nodes/node1/status"
            && body["status"]["conditions"][0]["reason"] == "JoinSubnetGatewayReachable"));

        let sandbox = Sandbox::new("web-0", "u1");
        let put = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            api.put("pods", pod_object("web-0", "u1", "10.16.0.5"));
        };
        let (result, ()) = tokio::join!(node.add(&sandbox), put);
        assert_eq!(result["ips"][0]["address"], "10.16.0.5/16");
        let metrics = http("/metrics");
        assert!(
            metrics.contains(
                "cni_op_latency_seconds_count{method=\"/api/v1/add\",node_name=\"node1\",status_code=\"200\"} 1"
            ),
            "{metrics}"
        );

        // Somebody else's hand on ovn0 is undone at once, not at the next tick.
        let mut host = Netlink::open(&Place::Host).unwrap();
        host.remove_address("ovn0", "100.64.0.2/16".parse().unwrap()).unwrap();
        wait_until("ovn0 to heal", || addresses("ovn0").contains(&"100.64.0.2/16".into())).await;
        let down = LinkChange { state: Some(LinkState::Down), ..Default::default() };
        host.set_link("ovn0", &down).unwrap();
        let is_up = || {
            let link = Netlink::open(&Place::Host).unwrap().link("ovn0").unwrap().unwrap();
            link.state == LinkState::Up
        };
        wait_until("ovn0 to be up", is_up).await;

        daemon.kill();
        assert!(node.socket.exists(), "kill -9 leaves the socket file");
        let (code, error) = node.cni("ADD", &sandbox).await;
        assert_eq!((code, &error["code"]), (1, &json!(11)), "{error}");
        let _daemon = Daemon::start(&node, &api);
        wait_until("readiness", ready).await;
        assert_eq!(node.add(&sandbox).await, result);
        assert_eq!(node.pod_ports(), [sandbox.host_end()]);
        node.del(&sandbox).await;
        node.assert_clean();
    });
}

/// A daemon that dies in the middle of an ADD leaves a pair and a port; the DEL that the runtime
/// sends for the failed sandbox, to the next daemon, removes them.
#[test]
fn kill_9_during_add_is_cleaned_by_del() {
    on_node(|mut node| async move {
        let api = KubeApi::start().await;
        let _fabric = tunnel_nic(&node);
        api.put("subnets", subnet_object());
        api.put("nodes", node_object());
        api.put("pods", pod_object("web-0", "u1", "10.16.0.5"));
        node.socket = node.folder.0.join("daemon.sock");
        let mut daemon = Daemon::start(&node, &api);
        wait_until("the socket", || node.socket.exists()).await;
        let sandbox = Sandbox::new("web-0", "u1");
        let kill = async {
            wait_until("the port", || node.pod_ports().len() == 1).await;
            daemon.kill();
        };
        let ((code, error), ()) = tokio::join!(node.cni("ADD", &sandbox), kill);
        assert_eq!((code, &error["code"]), (1, &json!(11)), "{error}");
        assert_eq!(node.pod_links(), [sandbox.host_end()]);
        let inode = std::fs::metadata(&node.socket).map(|m| m.ino()).unwrap();
        let _daemon = Daemon::start(&node, &api);
        wait_until("the new socket", || {
            std::fs::metadata(&node.socket).is_ok_and(|m| m.ino() != inode)
        })
        .await;
        // It may not have read the database yet: the DEL must wait for that.
        node.del(&sandbox).await;
        node.assert_clean();
    });
}
