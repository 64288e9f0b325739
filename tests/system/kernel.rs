//! The kernel half on the real kernel, in namespaces of our own. Needs root.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use kube_ovn::{
    kernel::{self, Change, Monitor, Netlink, arp, ethtool, netns, sysctl},
    net::{
        AddressState, Dad, LinkChange, LinkState, Mac, Place, Route, RouteProtocol, Scope, VethPair,
    },
};

/// A named namespace that goes away with the test.
pub struct Namespace {
    name: String,
    pub place: Place,
}

impl Namespace {
    pub fn new(label: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kot-{label}-{}-{n}", std::process::id());
        let place = netns::create_named(&name).expect("this test needs root");
        Namespace { name, place }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        netns::delete_named(&self.name).unwrap();
    }
}

const POD_MAC: Mac = Mac([0, 0, 0, 0x53, 0x6b, 0xb6]);

fn pair(peer: &Place) -> VethPair {
    VethPair {
        host: "0123456789ab_h".into(),
        peer: "eth0".into(),
        peer_place: peer.clone(),
        peer_mac: POD_MAC,
        mtu: Some(1400),
        host_queue_length: 1000,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two namespaces joined by a veth pair; `node` holds the host end.
fn joined() -> (Namespace, Namespace, Netlink, Netlink) {
    let (node, pod) = (Namespace::new("node"), Namespace::new("pod"));
    let mut host = Netlink::open(&node.place).unwrap();
    host.create_veth(&pair(&pod.place)).unwrap();
    let mut inner = Netlink::open(&pod.place).unwrap();
    let up = LinkChange { state: Some(LinkState::Up), ..Default::default() };
    inner.set_link("eth0", &up).unwrap();
    (node, pod, host, inner)
}

#[test]
fn a_datapath_or_discipline_that_is_not_there_is_as_good_as_removed() {
    let node = Namespace::new("dp");
    kernel::generic::delete_datapath(&node.place, "ovs-system").unwrap();
    let mut netlink = Netlink::open(&node.place).unwrap();
    for link in ["lo", "nowhere"] {
        netlink.await_other_qdisc(link, "netem", Duration::ZERO).unwrap();
    }
    netlink
        .set_link("lo", &LinkChange { state: Some(LinkState::Up), ..Default::default() })
        .unwrap();
    let error = netlink.await_other_qdisc("lo", "noqueue", Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("noqueue of lo"), "{error}");
}

#[test]
fn veth_is_born_complete_in_the_pod() {
    let (_node, _pod, mut host, mut pod) = joined();
    let outer = host.link("0123456789ab_h").unwrap().unwrap();
    let inner = pod.link("eth0").unwrap().unwrap();
    assert_eq!((outer.mtu, outer.tx_queue_length, outer.state), (1400, 1000, LinkState::Up));
    assert_eq!((&*outer.kind, &*inner.kind), ("veth", "veth"));
    assert_eq!((inner.mtu, inner.mac, inner.state), (1400, Some(POD_MAC), LinkState::Up));
    assert!(host.create_veth(&pair(&_pod.place)).unwrap_err().is_existing());
    host.delete_link("0123456789ab_h").unwrap();
    host.delete_link("0123456789ab_h").unwrap();
    assert_eq!(pod.link("eth0").unwrap(), None);
}

#[test]
fn link_changes_are_one_request() {
    let (_node, _pod, _host, mut pod) = joined();
    let mac = Mac([0, 0, 0, 1, 2, 3]);
    let change = LinkChange {
        mac: Some(mac),
        mtu: Some(1300),
        tx_queue_length: Some(77),
        alias: Some("0123456789ab_c".into()),
        state: Some(LinkState::Up),
    };
    pod.set_link("eth0", &change).unwrap();
    let link = pod.link("eth0").unwrap().unwrap();
    assert_eq!((link.mac, link.mtu, link.tx_queue_length), (Some(mac), 1300, 77));
    assert_eq!(link.alias.as_deref(), Some("0123456789ab_c"));
    let down = LinkChange { state: Some(LinkState::Down), ..Default::default() };
    pod.set_link("eth0", &down).unwrap();
    assert_eq!(pod.link("eth0").unwrap().unwrap().state, LinkState::Down);
    assert!(pod.set_link("nope", &change).unwrap_err().is_missing());
}

#[test]
fn addresses_are_idempotent_and_skip_dad() {
    let (_node, _pod, _host, mut pod) = joined();
    for cidr in ["10.16.0.5/16", "fd00:10:16::5/112"] {
        for _ in 0..2 {
            pod.add_address("eth0", cidr.parse().unwrap(), Dad::Skip).unwrap();
        }
    }
    let seen = pod.addresses().unwrap();
    let find = |text: &str| {
        let found: Vec<_> = seen.iter().filter(|a| a.cidr.to_string() == text).collect();
        assert_eq!(found.len(), 1, "{text} in {seen:?}");
        (found[0].link.clone(), found[0].scope, found[0].state)
    };
    let ready = (Arc::from("eth0"), Scope::Global, AddressState::Ready);
    assert_eq!(find("10.16.0.5/16"), ready);
    assert_eq!(find("fd00:10:16::5/112"), ready);
    for _ in 0..2 {
        pod.remove_address("eth0", "10.16.0.5/16".parse().unwrap()).unwrap();
    }
    pod.remove_address("gone", "10.16.0.5/16".parse().unwrap()).unwrap();
    assert!(!pod.addresses().unwrap().iter().any(|a| a.cidr.address == ip("10.16.0.5")));
}

#[test]
fn routes_are_dumped_as_written() {
    let (_node, _pod, _host, mut pod) = joined();
    pod.add_address("eth0", "10.16.0.5/16".parse().unwrap(), Dad::Skip).unwrap();
    pod.add_address("eth0", "fd00:10:16::5/112".parse().unwrap(), Dad::Skip).unwrap();
    let eth0: Arc<str> = "eth0".into();
    let mut wanted = vec![
        Route::via("0.0.0.0/0".parse().unwrap(), ip("10.16.0.1"), &eth0),
        Route::via("::/0".parse().unwrap(), ip("fd00:10:16::1"), &eth0),
        Route::via("192.168.7.0/24".parse().unwrap(), ip("10.16.0.9"), &eth0),
    ];
    wanted[2].source = Some(ip("10.16.0.5"));
    let mut on_link = Route::via("192.168.8.0/24".parse().unwrap(), ip("172.30.0.1"), &eth0);
    on_link.on_link = true;
    wanted.push(on_link);
    for route in wanted.iter().chain(&wanted) {
        pod.replace_route(route).unwrap();
    }
    let seen = pod.routes().unwrap();
    for route in &wanted {
        assert_eq!(seen.iter().filter(|r| *r == route).count(), 1, "{route:?} in {seen:?}");
    }
    let kernel = seen.iter().find(|r| r.destination.to_string() == "10.16.0.0/16").unwrap();
    assert_eq!((kernel.scope, kernel.protocol), (Scope::Link, RouteProtocol::Kernel));
    for route in wanted.iter().chain(&wanted) {
        pod.remove_route(route).unwrap();
    }
    let left = pod.routes().unwrap();
    assert!(wanted.iter().all(|r| !left.contains(r)), "{left:?}");
}

/// Upstream bug 22: a deletion by destination alone hits the route of another link.
#[test]
fn bug_22_route_of_another_link_survives() {
    let (_node, pod_ns, mut host, mut pod) = joined();
    let mut second = pair(&pod_ns.place);
    (second.host, second.peer) = ("01234567_net1_h".into(), "net1".into());
    host.create_veth(&second).unwrap();
    let up = LinkChange { state: Some(LinkState::Up), ..Default::default() };
    pod.set_link("net1", &up).unwrap();
    pod.add_address("eth0", "10.16.0.5/16".parse().unwrap(), Dad::Skip).unwrap();
    pod.add_address("net1", "10.17.0.5/16".parse().unwrap(), Dad::Skip).unwrap();
    let destination = "192.168.7.0/24".parse().unwrap();
    let theirs = Route::via(destination, ip("10.17.0.1"), &"net1".into());
    pod.replace_route(&theirs).unwrap();
    pod.remove_route(&Route::via(destination, ip("10.16.0.1"), &"eth0".into())).unwrap();
    assert!(pod.routes().unwrap().contains(&theirs));
}

#[test]
fn checksum_offload_is_switched_off() {
    let (_node, pod, _host, _inner) = joined();
    assert!(ethtool::has_tx_checksum(&pod.place, "eth0").unwrap());
    ethtool::disable_tx_checksum(&pod.place, "eth0").unwrap();
    assert!(!ethtool::has_tx_checksum(&pod.place, "eth0").unwrap());
    assert!(ethtool::disable_tx_checksum(&pod.place, "nope").unwrap_err().is_missing());
}

/// Upstream bug 23: a check limited to one try sent nothing.
#[test]
fn bug_23_one_probe_is_sent_and_absent_gateways_time_out() {
    let (_node, pod_ns, mut host, mut pod) = joined();
    for (mut ns, link, last) in [(&mut host, "0123456789ab_h", "1"), (&mut pod, "eth0", "5")] {
        let ns = &mut ns;
        for net in ["10.16.0.", "fd00:10:16::"] {
            let prefix = if net.contains(':') { 112 } else { 16 };
            let cidr = format!("{net}{last}/{prefix}").parse().unwrap();
            ns.add_address(link, cidr, Dad::Skip).unwrap();
        }
    }
    let gateway_mac = host.link("0123456789ab_h").unwrap().unwrap().mac;
    let second = Duration::from_secs(1);
    for (source, target) in [("10.16.0.5", "10.16.0.1"), ("fd00:10:16::5", "fd00:10:16::1")] {
        let mut query = arp::Query {
            link: "eth0".into(),
            mac: POD_MAC,
            source: Some(ip(source)),
            target: ip(target),
        };
        assert_eq!(arp::resolve(&pod_ns.place, &query, second).unwrap(), gateway_mac);
        assert!(arp::echo(&pod_ns.place, ip(target), second).unwrap().is_some());
        // Conflict probe: nobody has the address.
        query.source = None;
        query.target = if target.contains(':') { ip("fd00:10:16::7") } else { ip("10.16.0.7") };
        let short = Duration::from_millis(100);
        assert_eq!(arp::resolve(&pod_ns.place, &query, short).unwrap(), None);
        assert!(arp::echo(&pod_ns.place, query.target, short).unwrap().is_none());
    }
}

#[test]
fn announcements_teach_the_neighbours() {
    let (node, pod_ns, mut host, mut pod) = joined();
    let node_link = "0123456789ab_h";
    host.add_address(node_link, "10.16.0.1/16".parse().unwrap(), Dad::Skip).unwrap();
    host.add_address(node_link, "fd00:10:16::1/112".parse().unwrap(), Dad::Skip).unwrap();
    for target in ["10.16.0.9", "fd00:10:16::9"] {
        // A stale entry is corrected by the announcement.
        host.replace_neighbour(node_link, ip(target), Mac([2; 6])).unwrap();
        let listen = arp::Query {
            link: node_link.into(),
            mac: Mac([2; 6]),
            source: None,
            target: ip(target),
        };
        let place = node.place.clone();
        let heard = std::thread::spawn(move || {
            arp::resolve(&place, &listen, Duration::from_secs(2)).unwrap()
        });
        std::thread::sleep(Duration::from_millis(100));
        arp::announce(&pod_ns.place, "eth0", POD_MAC, ip(target)).unwrap();
        assert_eq!(heard.join().unwrap(), Some(POD_MAC));
    }
    let _ = &mut pod;
}

#[test]
fn sysctls_are_read_and_written() {
    let ns = Namespace::new("sysctl");
    netns::enter(&ns.place, || {
        let name = "net.ipv4.conf.all.rp_filter";
        sysctl::write(name, "0").unwrap();
        assert_eq!(sysctl::read(name).unwrap().as_deref(), Some("0"));
        sysctl::write(name, "1").unwrap();
        assert_eq!(sysctl::read(name).unwrap().as_deref(), Some("1"));
        assert_eq!(sysctl::read("net.ipv4.no_such").unwrap(), None);
    })
    .unwrap();
}

#[tokio::test]
async fn changes_wake_the_monitor() {
    let (node, pod) = (Namespace::new("node"), Namespace::new("pod"));
    let mut monitor = Monitor::open(&node.place).unwrap();
    let (place, peer) = (node.place.clone(), pair(&pod.place));
    kernel::within(place, move || {
        let mut host = Netlink::open(&Place::Host)?;
        host.create_veth(&peer)?;
        host.add_address(&peer.host, "10.16.0.1/16".parse().unwrap(), Dad::Skip)
    })
    .await
    .unwrap();
    let mut seen = Vec::new();
    while !(seen.contains(&Change::Link("0123456789ab_h".into()))
        && seen.contains(&Change::Addresses)
        && seen.contains(&Change::Routes))
    {
        let more = tokio::time::timeout(Duration::from_secs(2), monitor.changed()).await;
        seen.extend(more.expect("a change within two seconds").unwrap());
    }
}

#[test]
fn missing_namespace_is_named() {
    let gone = Place::Namespace("/var/run/netns/kot-no-such".into());
    let error = Netlink::open(&gone).err().unwrap();
    assert!(error.is_missing() && error.to_string().contains("kot-no-such"), "{error}");
}

/// Reported, not asserted: the machine may be busy.
#[test]
fn veth_path_latency() {
    let (node, pod) = (Namespace::new("node"), Namespace::new("pod"));
    let mut host = Netlink::open(&node.place).unwrap();
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = std::time::Instant::now();
        host.create_veth(&pair(&pod.place)).unwrap();
        let mut inner = Netlink::open(&pod.place).unwrap();
        let alias = LinkChange {
            alias: Some("0123456789ab_c".into()),
            state: Some(LinkState::Up),
            ..Default::default()
        };
        inner.set_link("eth0", &alias).unwrap();
        inner.add_address("eth0", "10.16.0.5/16".parse().unwrap(), Dad::Skip).unwrap();
        let route = Route::via("0.0.0.0/0".parse().unwrap(), ip("10.16.0.1"), &"eth0".into());
        inner.replace_route(&route).unwrap();
        times.push(start.elapsed());
        host.delete_link("0123456789ab_h").unwrap();
    }
    times.sort_unstable();
    println!("veth, address, route: p50 {:?} p90 {:?}", times[25], times[45]);
}
