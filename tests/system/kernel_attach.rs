//! Plans of pod NICs and of host routes, applied to the real kernel (without OVS).

use kube_ovn::{
    host::{
        AttachObserved, AttachRequest, Datapath, DefaultRoute, ExtraRoute, GatewayCheck, HostOp,
        HostState, Observed, diff_host, plan_attach, plan_detach,
    },
    kernel::{Error, Netlink, arp, ethtool},
    net::{Dad, DualStack, Link, LinkState, Mac, Place, Route},
};

use crate::{
    kernel::Namespace,
    support::{
        host_view::{cidr, ip},
        objects,
    },
};

const CID: &str = "fedcba9876543210";

/// Applies kernel operations; `host` plays the node's namespace. Returns their number.
fn apply(host: &Place, ops: &[HostOp]) -> Result<usize, Error> {
    let at = |place: &Place| match place {
        Place::Host => host.clone(),
        inner => inner.clone(),
    };
    let netlink = |place: &Place| Netlink::open(&at(place));
    for op in ops {
        match op {
            HostOp::CreateVeth(pair) => netlink(&Place::Host)?.create_veth(pair)?,
            HostOp::SetLink { place, link, change } => netlink(place)?.set_link(link, change)?,
            HostOp::DeleteLink { place, link } => netlink(place)?.delete_link(link)?,
            HostOp::TxChecksumOff { place, link } => {
                ethtool::disable_tx_checksum(&at(place), link)?
            }
            HostOp::AddAddress { place, link, cidr, dad } => {
                netlink(place)?.add_address(link, *cidr, *dad)?;
            }
            HostOp::RemoveAddress { place, link, cidr } => {
                netlink(place)?.remove_address(link, *cidr)?;
            }
            HostOp::ReplaceRoute { place, route } => netlink(place)?.replace_route(route)?,
            HostOp::RemoveRoute { place, route } => netlink(place)?.remove_route(route)?,
            HostOp::Announce { place, link, mac, address } => {
                arp::announce(&at(place), link, *mac, *address)?;
            }
            HostOp::SetOvsPort(_) | HostOp::RemoveOvsPort { .. } => {}
            other => panic!("not a kernel operation: {other:?}"),
        }
    }
    let is_ovs = |op: &&HostOp| matches!(op, HostOp::SetOvsPort(_));
    Ok(ops.len() - ops.iter().filter(is_ovs).count())
}

fn observe(host: &Place, pod: &Place, name: &str) -> AttachObserved {
    let mut inner = Netlink::open(pod).unwrap();
    let links = inner.links().unwrap();
    AttachObserved {
        host_link: Netlink::open(host).unwrap().link(name).unwrap(),
        pod_addresses: inner.addresses_of(&links).unwrap(),
        pod_routes: inner.routes_of(&links).unwrap(),
        pod_links: links,
        ..AttachObserved::default()
    }
}

fn request(pod: &Place) -> AttachRequest {
    let Place::Namespace(netns) = pod else { panic!("a named namespace") };
    AttachRequest {
        owner_name: "web".into(),
        namespace: "default".into(),
        provider: "ovn".into(),
        container_id: CID.into(),
        netns: netns.clone(),
        ifname: "eth0".into(),
        mac: Mac([0, 0, 0, 0x53, 0x6b, 0xb6]),
        addresses: DualStack::parse_cidrs("10.16.0.5/16,fd00:10:16::5/112").unwrap(),
        gateways: objects::addresses("10.16.0.1,fd00:10:16::1"),
        u2o_addresses: DualStack::default(),
        default_route: DefaultRoute::Wanted,
        routes: vec![
            ExtraRoute { destination: cidr("192.168.9.0/24"), gateway: None },
            ExtraRoute { destination: cidr("192.168.8.0/24"), gateway: Some(ip("172.30.0.1")) },
        ],
        mtu: Some(1400),
        datapath: Datapath::Netdev,
        dad: Dad::Skip,
        gateway_check: GatewayCheck::Required,
    }
}

#[test]
fn add_twice_then_del_twice() {
    let (node, pod) = (Namespace::new("node"), Namespace::new("pod"));
    let request = request(&pod.place);
    let first = plan_attach(&request, &AttachObserved::default()).unwrap();
    apply(&node.place, &first.ops).unwrap();
    apply(&node.place, &first.after_installed).unwrap();
    let seen = observe(&node.place, &pod.place, &first.names.host);
    let second = plan_attach(&request, &seen).unwrap();
    assert_eq!(apply(&node.place, &second.ops).unwrap(), 0, "{:?}", second.ops);
    assert!(!ethtool::has_tx_checksum(&pod.place, "eth0").unwrap());
    let inner = seen.pod_links.iter().find(|l| &*l.name == "eth0").unwrap();
    assert_eq!(inner.alias.as_deref(), Some("fedcba987654_c"));
    for _ in 0..2 {
        apply(&node.place, &plan_detach(CID, "eth0").unwrap()).unwrap();
    }
    let gone = observe(&node.place, &pod.place, &first.names.host);
    assert!(gone.host_link.is_none());
    assert!(!gone.pod_links.iter().any(|l| &*l.name == "eth0"));
}

/// Any prefix of an ADD may have happened before the daemon was killed.
#[test]
fn add_completes_from_every_crash_point() {
    let node = Namespace::new("node");
    let length = {
        let pod = Namespace::new("pod");
        plan_attach(&request(&pod.place), &AttachObserved::default()).unwrap().ops.len()
    };
    for done in 0..length {
        let pod = Namespace::new("pod");
        let request = request(&pod.place);
        let plan = plan_attach(&request, &AttachObserved::default()).unwrap();
        apply(&node.place, &plan.ops[..done]).unwrap();
        for _ in 0..2 {
            let seen = observe(&node.place, &pod.place, &plan.names.host);
            let again = plan_attach(&request, &seen).unwrap();
            apply(&node.place, &again.ops).unwrap_or_else(|e| panic!("after {done}: {e}"));
        }
        let seen = observe(&node.place, &pod.place, &plan.names.host);
        let rest = plan_attach(&request, &seen).unwrap().ops;
        assert!(rest.iter().all(|op| matches!(op, HostOp::SetOvsPort(_))), "{done}: {rest:?}");
        apply(&node.place, &plan.rollback).unwrap();
    }
}

/// The pod's namespace died with its end of the pair: DEL after a reboot, ADD of the same id.
#[test]
fn dead_namespace_is_no_obstacle() {
    let node = Namespace::new("node");
    let name = {
        let pod = Namespace::new("pod");
        let plan = plan_attach(&request(&pod.place), &AttachObserved::default()).unwrap();
        apply(&node.place, &plan.ops).unwrap();
        plan.names.host
    };
    // The kernel removes the pair with the namespace, a moment later.
    let mut host = Netlink::open(&node.place).unwrap();
    for _ in 0..200 {
        if host.link(&name).unwrap().is_none() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    apply(&node.place, &plan_detach(CID, "eth0").unwrap()).unwrap();
    assert_eq!(host.link(&name).unwrap(), None);
}

fn observe_host(host: &mut Netlink) -> Observed {
    let links: Vec<Link> = host.links().unwrap();
    Observed {
        addresses: host.addresses_of(&links).unwrap(),
        routes: host.routes_of(&links).unwrap(),
        links,
        ..Observed::default()
    }
}

/// ovn0 played by one end of a veth pair.
#[test]
fn host_routes_converge_and_spare_other_links() {
    use crate::support::host_view::{dual_node, overlay, seen};
    let (node, peer) = (Namespace::new("node"), Namespace::new("peer"));
    let mut host = Netlink::open(&node.place).unwrap();
    for (name, other) in [("ovn0", "ovn0p"), ("eth9", "eth9p")] {
        let pair = kube_ovn::net::VethPair {
            host: name.into(),
            peer: other.into(),
            peer_place: peer.place.clone(),
            peer_mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: None,
            host_queue_length: 500,
        };
        host.create_veth(&pair).unwrap();
    }
    host.add_address("eth9", cidr("172.18.0.2/16"), Dad::Skip).unwrap();
    host.add_address("eth9", cidr("fc00:f853:ccd:e793::2/64"), Dad::Skip).unwrap();
    let theirs = Route::via(cidr("10.30.0.0/16"), ip("172.18.0.1"), &"eth9".into());
    host.replace_route(&theirs).unwrap();
    let mut view = dual_node();
    view.subnets.push(seen(overlay("contested", "10.30.0.0/16")));
    let mut wanted: HostState = kube_ovn::host::desired_host(&view);
    // Only the kernel is here.
    (wanted.ports, wanted.external_ids, wanted.firewall) = Default::default();
    wanted.sysctls.clear();
    let mut converge = |wanted: &HostState, rounds: usize| {
        for _ in 0..rounds {
            let ops = diff_host(wanted, &observe_host(&mut host));
            apply(&node.place, &ops).unwrap();
        }
        let observed = observe_host(&mut host);
        assert_eq!(diff_host(wanted, &observed), []);
        observed
    };
    let observed = converge(&wanted, 1);
    let ovn0 = observed.links.iter().find(|l| &*l.name == "ovn0").unwrap();
    assert_eq!((ovn0.tx_queue_length, ovn0.state), (1000, LinkState::Up));
    assert!(observed.routes.contains(&theirs));
    // A subnet goes, another source comes.
    view.subnets.remove(0);
    view.subnets.push(seen(overlay("next", "10.31.0.0/16,fd00:10:31::/112")));
    let mut next = kube_ovn::host::desired_host(&view);
    (next.ports, next.external_ids, next.firewall) = Default::default();
    next.sysctls.clear();
    let observed = converge(&next, 1);
    assert!(observed.routes.contains(&theirs));
    assert!(!observed.routes.iter().any(|r| r.destination == cidr("10.16.0.0/16")));
}

/// Policy routing in a real kernel: what is ours is seen again, converges and goes.
#[test]
fn policy_rules_and_tables_converge() {
    use kube_ovn::net::{POLICY_PROTOCOL, PolicyRule, RouteProtocol};
    let (node, peer) = (Namespace::new("node"), Namespace::new("peer"));
    let mut host = Netlink::open(&node.place).unwrap();
    host.create_veth(&kube_ovn::net::VethPair {
        host: "eth9".into(),
        peer: "eth9p".into(),
        peer_place: peer.place.clone(),
        peer_mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: None,
        host_queue_length: 500,
    })
    .unwrap();
    host.add_address("eth9", cidr("172.18.0.2/16"), Dad::Skip).unwrap();
    assert!(host.policy_rules().unwrap().is_empty(), "the kernel's own rules are not ours");
    for (table, source) in [(1000, cidr("10.30.0.0/16")), (100_000, cidr("10.31.0.5/32"))] {
        let rule = PolicyRule { source, priority: 1500, table };
        let mut route = Route::via(cidr("0.0.0.0/0"), ip("172.18.0.9"), &"eth9".into());
        (route.table, route.protocol) = (table, RouteProtocol::Other(POLICY_PROTOCOL));
        for _ in 0..2 {
            host.replace_route(&route).unwrap();
            host.add_rule(&rule).unwrap();
        }
        let links = host.links().unwrap();
        assert_eq!(host.policy_routes_of(&links).unwrap(), [route.clone()]);
        assert!(!host.routes_of(&links).unwrap().contains(&route), "not in the main table");
        assert_eq!(host.policy_rules().unwrap(), std::slice::from_ref(&rule));
        for _ in 0..2 {
            host.remove_rule(&rule).unwrap();
            host.remove_route(&route).unwrap();
        }
        assert!(host.policy_rules().unwrap().is_empty());
        assert!(host.policy_routes_of(&links).unwrap().is_empty());
    }
    // A fresh veth has no queue of its own.
    assert_eq!(host.root_qdisc("eth9").unwrap().as_deref().unwrap_or("noqueue"), "noqueue");
}
