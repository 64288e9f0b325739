//! Nodes, pods and a central database in the guest: namespaces joined by a Linux bridge.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use kube_ovn::{
    kernel::{Netlink, netns},
    net::{Cidr, Dad, LinkChange, LinkState, Mac, Place, Route, VethPair},
    ovsdb::schema::{nb, sb},
};

use crate::{
    central::eventually,
    central_ovs::{Node, Running},
    kernel::Namespace,
    ovsdb_server::{Folder, OvsdbServer, ovn_run, run},
};

pub fn up() -> LinkChange {
    LinkChange { state: Some(LinkState::Up), ..LinkChange::default() }
}

/// A command in a namespace.
pub fn inside(place: &Place, program: &str) -> Command {
    let Place::Namespace(path) = place else { panic!("a namespace is wanted") };
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={path}")).arg(program).stdin(Stdio::null());
    command
}

/// An ovs-vsctl command on the database of a node.
pub fn vsctl(node: &Node, arguments: &[&str]) -> String {
    let mut command = ovn_run("ovs-vsctl");
    command.arg(format!("--db=unix:{}", node.paths.socket().display())).arg("--timeout=60");
    let output = command.args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {text}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Kind of a link of a node, if it is there.
pub fn kind_of(node: &Node, link: &str) -> Option<String> {
    let found = Netlink::open(&node.place).unwrap().link(link).unwrap();
    found.map(|link| link.kind.to_string())
}

/// Where the nodes' NICs meet, with the databases and ovn-northd at 10.99.0.1.
pub struct Fabric {
    pub namespace: Namespace,
    nb: OvsdbServer,
    _sb: OvsdbServer,
    northd: std::process::Child,
    _folder: Folder,
}

impl Fabric {
    pub fn new() -> Self {
        let namespace = Namespace::new("fabric");
        for arguments in [
            &["link", "add", "name", "br0", "type", "bridge"][..],
            &["addr", "add", "10.99.0.1/24", "dev", "br0"],
            &["link", "set", "br0", "up"],
            &["link", "set", "lo", "up"],
        ] {
            let mut command = inside(&namespace.place, "ip");
            command.args(arguments);
            run(command);
        }
        let (nb, sb) = netns::enter(&namespace.place, || {
            let remote = ["--remote=ptcp:6642:10.99.0.1".to_owned()];
            (
                OvsdbServer::standalone(&nb::DATABASE),
                OvsdbServer::standalone_with(&sb::DATABASE, &remote),
            )
        })
        .unwrap();
        let folder = Folder::new();
        let mut command = ovn_run("ovn-northd");
        command
            .arg(format!("--ovnnb-db={}", nb.endpoint()))
            .arg(format!("--ovnsb-db={}", sb.endpoint()))
            .arg(format!("--unixctl={}", folder.0.join("northd.ctl").display()))
            .args(["--no-chdir", "-vconsole:off", "-vsyslog:off"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let northd = command.spawn().unwrap();
        Fabric { namespace, nb, _sb: sb, northd, _folder: folder }
    }

    pub fn nbctl(&self, arguments: &[&str]) {
        let mut command = ovn_run("ovn-nbctl");
        command.arg(format!("--db={}", self.nb.endpoint())).arg("--timeout=120").args(arguments);
        run(command);
    }

    /// A node with its NIC in the fabric, and its running container.
    pub fn node(&self, name: &str, number: u8) -> (Node, Running) {
        let node = Node::bare(name, self.namespace.place.clone());
        let outer = format!("port{number}");
        let pair = VethPair {
            host: "eth1".into(),
            peer: outer.as_str().into(),
            peer_place: self.namespace.place.clone(),
            peer_mac: Mac([2, 0, 0, 0, 0x98, number]),
            mtu: None,
            host_queue_length: 1000,
        };
        let mut netlink = Netlink::open(&node.place).unwrap();
        netlink.create_veth(&pair).unwrap();
        netlink.set_link("lo", &up()).unwrap();
        let address = format!("10.99.0.{}", number + 1);
        netlink.add_address("eth1", format!("{address}/24").parse().unwrap(), Dad::Skip).unwrap();
        Netlink::open(&self.namespace.place).unwrap().set_link(&outer, &up()).unwrap();
        let mut command = inside(&self.namespace.place, "ip");
        command.args(["link", "set", &outer, "master", "br0"]);
        run(command);
        let running = node.start(&[("KUBE_NODE_NAME", name), ("POD_IP", &address)]);
        eventually("the node is healthy", || node.is_healthy());
        vsctl(
            &node,
            &["set", "Open_vSwitch", ".", &format!("external_ids:ovn-encap-ip={address}")],
        );
        eventually("br-int", || kind_of(&node, "br-int").is_some());
        (node, running)
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        let _ = self.northd.kill();
        let _ = self.northd.wait();
    }
}

/// A pod: a namespace with eth0.
pub struct Pod {
    pub namespace: Namespace,
    pub port: String,
    pub address: IpAddr,
    pub mac: Mac,
}

impl Pod {
    pub fn new(node: &Node, name: &str, address: &str) -> Self {
        let number = address.bytes().fold(7u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        Pod::plug(node, name, &format!("{address}/24"), Mac([2, 0, 0, 0, 0x97, number]))
    }

    /// Joins a new pod to its logical port.
    pub fn plug(node: &Node, iface_id: &str, cidr: &str, mac: Mac) -> Self {
        let namespace = Namespace::new("pod");
        let port = format!("{}_h", iface_id.split('.').next().unwrap());
        let cidr: Cidr = cidr.parse().unwrap();
        let pair = VethPair {
            host: port.as_str().into(),
            peer: "eth0".into(),
            peer_place: namespace.place.clone(),
            peer_mac: mac,
            mtu: Some(1400),
            host_queue_length: 1000,
        };
        Netlink::open(&node.place).unwrap().create_veth(&pair).unwrap();
        let mut netlink = Netlink::open(&namespace.place).unwrap();
        netlink.set_link("eth0", &up()).unwrap();
        netlink.set_link("lo", &up()).unwrap();
        netlink.add_address("eth0", cidr, Dad::Skip).unwrap();
        let id = format!("external_ids:iface-id={iface_id}");
        vsctl(node, &["add-port", "br-int", &port, "--", "set", "Interface", &port, &id]);
        Pod { namespace, port, address: cidr.address, mac }
    }

    pub fn set_gateway(&self, gateway: &str) {
        let route =
            Route::via("0.0.0.0/0".parse().unwrap(), gateway.parse().unwrap(), &"eth0".into());
        Netlink::open(&self.namespace.place).unwrap().replace_route(&route).unwrap();
    }

    /// Starts echoes to another pod, `each` seconds apart.
    pub fn start_ping(&self, to: &Pod, count: u32, each: &str) -> Ping {
        let mut command = inside(&self.namespace.place, "ping");
        command.args(["-n", "-q", "-c", &count.to_string(), "-i", each, "-W", "5"]);
        command.arg(to.address.to_string()).stdout(Stdio::piped());
        Ping { child: command.spawn().unwrap(), count }
    }

    pub fn ping(&self, to: &Pod, count: u32) -> Echoes {
        self.start_ping(to, count, "0.2").end()
    }

    pub fn reaches(&self, to: &Pod) -> bool {
        self.ping(to, 1).lost == 0
    }

    /// Sends a megabyte by TCP; the receiver's count.
    pub fn send_megabyte(&self, to: &Pod) -> usize {
        const SIZE: usize = 1 << 20;
        let listen = || TcpListener::bind(SocketAddr::new(to.address, 0));
        let listener = netns::enter(&to.namespace.place, listen).unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let receiver = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).map(|_| all.len()).unwrap_or(0)
        });
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(30));
        let mut stream = netns::enter(&self.namespace.place, connect).unwrap().unwrap();
        stream.write_all(&vec![7; SIZE]).unwrap();
        drop(stream);
        receiver.join().unwrap()
    }
}

/// Running echoes.
pub struct Ping {
    child: std::process::Child,
    count: u32,
}

#[derive(Debug)]
pub struct Echoes {
    pub sent: u32,
    pub lost: u32,
    /// Shortest round trip, ms.
    pub fastest: f64,
}

impl Ping {
    pub fn end(self) -> Echoes {
        let output = self.child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let received = text.lines().find_map(|line| {
            let (before, _) = line.split_once(" received")?;
            before.rsplit(' ').next()?.parse::<u32>().ok()
        });
        let fastest = text.lines().find_map(|line| {
            line.strip_prefix("rtt ")?.split_once("= ")?.1.split('/').next()?.parse().ok()
        });
        let lost = self.count - received.unwrap_or(0);
        Echoes { sent: self.count, lost, fastest: fastest.unwrap_or(f64::INFINITY) }
    }
}

impl Echoes {
    /// Percent.
    pub fn loss(&self) -> u32 {
        self.lost * 100 / self.sent
    }
}
