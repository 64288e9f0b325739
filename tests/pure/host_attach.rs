//! Plans of pod NICs.

use std::collections::BTreeMap;

use kube_ovn::{
    api::{Map, Subnet},
    host::{
        AttachError, AttachObserved, AttachPlan, AttachRequest, Datapath, DefaultRoute, ExtraRoute,
        GatewayCheck, HostOp, nic_names, plan_attach, plan_detach, pod_mtu,
    },
    net::{Dad, DualStack, Link, LinkChange, LinkState, Mac, Place, Route},
};

use crate::{
    host::{address, link},
    support::{
        host_view::{cidr, ip, overlay},
        objects,
    },
};

const CID: &str = "0123456789abcdef0123456789abcdef";
const NETNS: &str = "/var/run/netns/cni-1";
const MAC: Mac = Mac([0, 0, 0, 0x53, 0x6b, 0xb6]);

fn request() -> AttachRequest {
    AttachRequest {
        owner_name: "web".into(),
        namespace: "default".into(),
        provider: "ovn".into(),
        container_id: CID.into(),
        netns: NETNS.into(),
        ifname: "eth0".into(),
        mac: MAC,
        addresses: DualStack::parse_cidrs("10.16.0.5/16,fd00:10:16::5/112").unwrap(),
        gateways: objects::addresses("10.16.0.1,fd00:10:16::1"),
        u2o_addresses: DualStack::default(),
        default_route: DefaultRoute::Wanted,
        routes: vec![],
        mtu: Some(1400),
        datapath: Datapath::System,
        dad: Dad::Skip,
        gateway_check: GatewayCheck::Required,
    }
}

fn plan(request: &AttachRequest) -> AttachPlan {
    plan_attach(request, &AttachObserved::default()).unwrap()
}

/// The world after the plan.
fn applied(request: &AttachRequest) -> AttachObserved {
    let plan = plan(request);
    let port = plan.ops.iter().find_map(|op| match op {
        HostOp::SetOvsPort(port) => Some(port.clone()),
        _ => None,
    });
    let mut host = Link { kind: "veth".into(), mtu: 1400, ..link(9, &plan.names.host) };
    host.tx_queue_length = 1000;
    let pod = Link {
        kind: "veth".into(),
        mtu: 1400,
        mac: Some(request.mac),
        alias: Some(plan.names.container.clone()),
        ..link(2, &request.ifname)
    };
    AttachObserved {
        host_link: Some(host),
        pod_links: vec![link(1, "lo"), pod],
        pod_addresses: request
            .addresses
            .iter()
            .map(|(_, c)| address(&request.ifname, &c.to_string()))
            .chain([address(&request.ifname, "fe80::200:ff:fe53:6bb6/64")])
            .collect(),
        pod_routes: plan.routes,
        port,
        rivals: vec![],
    }
}

fn pod() -> Place {
    Place::Namespace(NETNS.into())
}

#[test]
fn names_are_upstreams() {
    let host = |ifname: &str| nic_names(CID, ifname).map(|n| n.host.to_string());
    assert_eq!(host("eth0").as_deref(), Ok("0123456789ab_h"));
    assert_eq!(&*nic_names(CID, "eth0").unwrap().container, "0123456789ab_c");
    assert_eq!(host("net1").as_deref(), Ok("01234567_net1_h"));
    assert_eq!(host("abcdefghijkl").as_deref(), Ok("_abcdefghijkl_h"));
    // KubeVirt hotplug: `pod` and 11 characters.
    assert_eq!(host("podabcdefg1234").as_deref(), Ok("01234_abcdefg_h"));
    assert_eq!(host("pod1").as_deref(), Ok("01234567_pod1_h"));
    for ifname in ["eth0", "net1", "a", "abcdefghijkl", "podabcdefg1234"] {
        assert!((14..=15).contains(&host(ifname).unwrap().len()), "{ifname}");
    }
}

/// Upstream bug 9: it panicked.
#[test]
fn bug_09_long_ifname_is_refused() {
    for ifname in ["abcdefghijklm", "abcdefghijklmno", "podabcdefghijkl"] {
        let error = nic_names(CID, ifname).unwrap_err();
        assert_eq!(error, AttachError::LongIfname(ifname.into()));
        assert!(error.to_string().contains("12"));
    }
    for ifname in ["", "a/b", "a b", "..", "ünicode"] {
        assert_eq!(nic_names(CID, ifname), Err(AttachError::BadIfname(ifname.into())));
    }
    for id in ["", "short", "0123456789/bcdef", "0123456789aé"] {
        assert_eq!(nic_names(id, "eth0"), Err(AttachError::BadContainerId(id.into())));
    }
}

#[test]
fn mtu_by_subnet_then_provider_network_then_overlay() {
    let mut subnet: Subnet = overlay("s", "10.16.0.0/16");
    let labels: Map =
        [("net1.provider-network.kubernetes.io/mtu".into(), "9000".into())].into_iter().collect();
    assert_eq!(pod_mtu(&subnet, None, &labels, 1400), Some(1400));
    assert_eq!(pod_mtu(&subnet, Some(""), &labels, 1400), Some(1400));
    assert_eq!(pod_mtu(&subnet, Some("net1"), &labels, 1400), Some(9000));
    assert_eq!(pod_mtu(&subnet, Some("net2"), &labels, 1400), None);
    subnet.u2o_interconnection = true;
    assert_eq!(pod_mtu(&subnet, Some("net1"), &labels, 1400), Some(1400));
    subnet.mtu = Some(1280);
    assert_eq!(pod_mtu(&subnet, Some("net1"), &labels, 1400), Some(1280));
}

#[test]
fn fresh_nic_in_order() {
    let plan = plan(&request());
    let kinds: Vec<&str> = plan
        .ops
        .iter()
        .map(|op| match op {
            HostOp::CreateVeth(pair) => {
                assert_eq!((&*pair.host, &*pair.peer), ("0123456789ab_h", "eth0"));
                assert_eq!((pair.peer_mac, pair.mtu), (MAC, Some(1400)));
                assert_eq!((&pair.peer_place, pair.host_queue_length), (&pod(), 1000));
                "veth"
            }
            HostOp::SetOvsPort(_) => "port",
            HostOp::SetLink { place, change, .. } => {
                assert_eq!(*place, pod());
                let up = LinkChange {
                    alias: Some("0123456789ab_c".into()),
                    state: Some(LinkState::Up),
                    ..LinkChange::default()
                };
                assert_eq!(*change, up);
                "link"
            }
            HostOp::AddAddress { dad: Dad::Skip, .. } => "address",
            HostOp::ReplaceRoute { .. } => "route",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["veth", "port", "link", "address", "address", "route", "route"]);
    assert_eq!(&*plan.iface_id, "web.default");
    assert_eq!(plan.gateways, [ip("10.16.0.1"), ip("fd00:10:16::1")]);
    assert_eq!(plan.after_installed.len(), 2);
    assert_eq!(
        plan.routes,
        [
            Route::via(cidr("0.0.0.0/0"), ip("10.16.0.1"), &"eth0".into()),
            Route::via(cidr("::/0"), ip("fd00:10:16::1"), &"eth0".into()),
        ]
    );
}

#[test]
fn external_ids_of_the_interface() {
    let port = applied(&request()).port.unwrap();
    let ids: BTreeMap<&str, &str> = port.external_ids.iter().map(|(k, v)| (&**k, &**v)).collect();
    let expected = [
        ("iface-id", "web.default"),
        ("ip", "10.16.0.5,fd00:10:16::5"),
        ("pod_name", "web"),
        ("pod_namespace", "default"),
        ("pod_netns", NETNS),
        ("vendor", "kube-ovn"),
    ];
    assert_eq!(ids, BTreeMap::from(expected));
    let mut other = request();
    other.provider = "net1.default.ovn".into();
    assert_eq!(&*plan(&other).iface_id, "web.default.net1.default.ovn");
}

#[test]
fn second_add_does_nothing() {
    let plan = plan_attach(&request(), &applied(&request())).unwrap();
    assert_eq!(plan.ops, []);
    // The result is the same, so the runtime may ask again.
    assert_eq!(plan.routes.len(), 2);
}

#[test]
fn half_done_add_is_completed() {
    let mut observed = applied(&request());
    observed.pod_addresses.retain(|a| a.cidr.address.is_ipv6());
    observed.pod_addresses.push(address("eth0", "10.16.0.99/16"));
    observed.port = None;
    observed.pod_links[1].mac = Some(Mac([6; 6]));
    let ops = plan_attach(&request(), &observed).unwrap().ops;
    assert!(
        matches!(
            &ops[..],
            [
                HostOp::SetOvsPort(_),
                HostOp::SetLink { .. },
                HostOp::RemoveAddress { .. },
                HostOp::AddAddress { .. }
            ]
        ),
        "{ops:?}"
    );
}

/// The pod's end is gone (or was never moved): the pair is made anew.
#[test]
fn broken_pair_is_replaced() {
    let mut observed = applied(&request());
    observed.pod_links.truncate(1);
    observed.pod_addresses.clear();
    observed.pod_routes.clear();
    let ops = plan_attach(&request(), &observed).unwrap().ops;
    assert!(matches!(&ops[..2], [HostOp::DeleteLink { .. }, HostOp::CreateVeth(_)]), "{ops:?}");
}

#[test]
fn what_is_not_ours_is_not_taken() {
    let mut observed = AttachObserved { pod_links: vec![link(2, "eth0")], ..Default::default() };
    assert_eq!(plan_attach(&request(), &observed), Err(AttachError::IfnameTaken("eth0".into())));
    // Short prefixes of container ids collide between sandboxes.
    observed = applied(&request());
    let ids = &mut observed.port.as_mut().unwrap().external_ids;
    ids.insert("pod_netns".into(), "/var/run/netns/cni-2".into());
    ids.insert("iface-id".into(), "other.default".into());
    let error = plan_attach(&request(), &observed).unwrap_err();
    assert!(error.to_string().contains("other.default"), "{error}");
    let mut none = request();
    none.addresses = DualStack::default();
    assert!(matches!(
        plan_attach(&none, &AttachObserved::default()),
        Err(AttachError::NoAddress(_))
    ));
}

#[test]
fn other_interfaces_lose_the_same_iface_id() {
    let observed = AttachObserved { rivals: vec!["old_h".into()], ..Default::default() };
    let ops = plan_attach(&request(), &observed).unwrap().ops;
    let HostOp::SetInterfaceIds { interface, ids } = &ops[0] else { panic!("{ops:?}") };
    assert_eq!((&**interface, &ids["iface-id"]), ("old_h", &None));
}

#[test]
fn userspace_datapath_switches_checksums_off() {
    let mut netdev = request();
    netdev.datapath = Datapath::Netdev;
    let off = |ops: &[HostOp]| ops.iter().any(|op| matches!(op, HostOp::TxChecksumOff { .. }));
    assert!(off(&plan(&netdev).ops));
    assert!(!off(&plan(&request()).ops));
}

#[test]
fn interconnection_address_is_the_next_hop_and_checked_first() {
    let mut underlay = request();
    underlay.u2o_addresses = objects::addresses("10.16.0.254");
    let plan = plan(&underlay);
    assert_eq!(plan.routes[0].gateway, Some(ip("10.16.0.254")));
    assert_eq!(plan.routes[1].gateway, Some(ip("fd00:10:16::1")));
    assert_eq!(plan.gateways, ["10.16.0.254", "10.16.0.1", "fd00:10:16::1"].map(ip));
}

#[test]
fn extra_routes_and_what_cannot_be() {
    let mut extra = request();
    extra.default_route = DefaultRoute::None;
    let route = |destination: &str, gateway: Option<&str>| ExtraRoute {
        destination: cidr(destination),
        gateway: gateway.map(ip),
    };
    extra.routes = vec![
        route("192.168.0.0/24", None),
        route("192.168.0.0/24", None),
        route("192.168.1.0/24", Some("172.30.0.1")),
        route("192.168.2.0/24", Some("fd00::1")),
    ];
    let plan = plan(&extra);
    assert_eq!(plan.routes.len(), 2, "{:?}", plan.routes);
    assert_eq!(plan.routes[0].gateway, Some(ip("10.16.0.1")));
    // Outside the prefix: reached over this link all the same.
    assert_eq!((plan.routes[0].on_link, plan.routes[1].on_link), (false, true));
    assert_eq!(plan.warnings.len(), 1);
    assert!(plan.warnings[0].contains("192.168.2.0/24"));
}

#[test]
fn migration_skips_the_gateway_check() {
    let mut migration = request();
    migration.gateway_check = GatewayCheck::Skipped;
    assert_eq!(plan(&migration).gateways, Vec::<std::net::IpAddr>::new());
}

/// Upstream bug 8: a failed add-port left the veth pair. Bug 14: DEL of an old sandbox acted on
/// the new pod of the same name.
#[test]
fn bugs_08_and_14_removal_knows_the_sandbox_only() {
    let ops = plan_detach(CID, "eth0").unwrap();
    assert_eq!(ops, plan(&request()).rollback);
    let host = "0123456789ab_h".into();
    let expected = [
        HostOp::RemoveOvsPort { bridge: "br-int".into(), port: "0123456789ab_h".into() },
        HostOp::DeleteLink { place: Place::Host, link: host },
    ];
    assert_eq!(ops, expected);
    assert!(plan_detach(CID, "abcdefghijklm").is_err());
}
