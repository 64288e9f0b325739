//! Node state: ovn0, routes, tunnel endpoint, settings.

use std::collections::BTreeMap;

use kube_ovn::{
    api::{Map, Subnet},
    host::{
        Datapath, Encap, EncapRequest, HostOp, HostState, HostView, NetworkType, Observed, OvsPort,
        TxChecksum, checksum_links, choose_encap, desired_host, diff_host, overlay_mtu, parse_join,
    },
    net::{
        AddressState, Cidr, Dad, Link, LinkAddress, LinkState, Mac, Place, Route, RouteProtocol,
        Scope,
    },
};

use crate::support::{
    host_view::{JOIN_MAC, cidr, dual_node, ip, overlay, seen, v4_node},
    objects,
};

pub fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.into(),
        mac: Some(Mac([2, 0, 0, 0, 0, index as u8])),
        mtu: 1500,
        state: LinkState::Up,
        tx_queue_length: 1000,
        kind: "".into(),
        alias: None,
    }
}

pub fn address(link: &str, text: &str) -> LinkAddress {
    let cidr: Cidr = text.parse().unwrap();
    let local = text.starts_with("fe80");
    LinkAddress {
        link: link.into(),
        cidr,
        scope: if local { Scope::Link } else { Scope::Global },
        state: AddressState::Ready,
    }
}

/// The world after `wanted` has been applied on a node with `eth0`.
fn applied(wanted: &HostState) -> Observed {
    let mut ovn0 = link(7, "ovn0");
    ovn0.mac = Some(JOIN_MAC);
    let firewall = wanted.firewall.as_ref().unwrap();
    let sets = kube_ovn::host::diff_sets(&firewall.ipsets, "").before;
    let mut addresses = vec![address("eth0", "172.18.0.2/16")];
    let on_ovn0 = &wanted.links["ovn0"];
    for cidr in on_ovn0.addresses.iter().flatten().chain(&on_ovn0.link_local) {
        addresses.push(address("ovn0", &cidr.to_string()));
    }
    Observed {
        links: vec![link(2, "eth0"), ovn0],
        addresses,
        routes: wanted.routes.clone().unwrap(),
        policy_routes: vec![],
        policy_rules: vec![],
        tx_checksum: BTreeMap::new(),
        sysctls: wanted.sysctls.clone(),
        ipsets: Some(sets.into()),
        iptables: Default::default(),
        ovs: kube_ovn::host::ObservedOvs {
            external_ids: wanted.external_ids.clone(),
            ports: wanted.ports.iter().map(|p| (p.name.clone(), p.clone())).collect(),
            ..Default::default()
        },
    }
}

fn routes(view: &HostView) -> Vec<String> {
    let text = |r: &Route| {
        let via = r.gateway.map_or(String::new(), |g| format!(" via {g}"));
        let source = r.source.map_or(String::new(), |s| format!(" src {s}"));
        format!("{}{via}{source} {:?} {}", r.destination, r.protocol, r.metric)
    };
    desired_host(view).routes.unwrap().iter().map(text).collect()
}

#[test]
fn unannotated_node_has_no_ovn0_and_an_untouched_firewall() {
    let mut view = dual_node();
    view.join = None;
    let state = desired_host(&view);
    assert_eq!((state.routes.is_none(), state.firewall.is_none()), (true, true));
    assert!(state.ports.is_empty() && !state.links.contains_key("ovn0"));
    // The endpoint is set before: the chassis must register for the controller to annotate it.
    assert_eq!(&*state.external_ids["ovn-encap-ip"], "172.18.0.2");
    let listing = Observed { ipsets: Some("create ovn40subnets x\n".into()), ..Default::default() };
    assert!(!diff_host(&state, &listing).iter().any(|op| matches!(op, HostOp::RestoreIpsets(_))));
}

#[test]
fn annotations_become_the_join_port() {
    let entries = [
        ("ovn.kubernetes.io/ip_address", "100.64.0.2,fd00:100:64::2"),
        ("ovn.kubernetes.io/cidr", "100.64.0.0/16,fd00:100:64::/112"),
        ("ovn.kubernetes.io/mac_address", "00:00:00:12:34:56"),
        ("ovn.kubernetes.io/gateway", "100.64.0.1,fd00:100:64::1"),
        ("ovn.kubernetes.io/port_name", "node-node1"),
    ];
    let map: Map = entries.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    assert_eq!(parse_join(&map).unwrap(), dual_node().join);
    for (key, _) in entries {
        let mut less = map.clone();
        less.remove(key);
        assert_eq!(parse_join(&less).unwrap(), None, "{key}");
    }
    let mut bad = map.clone();
    bad.insert("ovn.kubernetes.io/ip_address".into(), "10.0.0.1".into());
    assert!(parse_join(&bad).unwrap_err().message.contains("10.0.0.1"));
    bad = map;
    bad.insert("ovn.kubernetes.io/mac_address".into(), "nonsense".into());
    assert!(parse_join(&bad).unwrap_err().message.contains("mac_address"));
}

#[test]
fn ovn0_is_a_complete_internal_port() {
    let state = desired_host(&dual_node());
    let port = &state.ports[0];
    assert_eq!((&*port.bridge, &*port.name, port.mac), ("br-int", "ovn0", Some(JOIN_MAC)));
    assert_eq!(port.mtu_request, Some(1400));
    assert_eq!(&*port.external_ids["iface-id"], "node-node1");
    assert_eq!(&*port.external_ids["ip"], "100.64.0.2,fd00:100:64::2");
    let wanted = &state.links["ovn0"];
    assert_eq!(wanted.link_local, Some(cidr("fe80::200:ff:fe12:3456/64")));
    assert_eq!(wanted.tx_queue_length, Some(1000));
    assert_eq!(wanted.tx_checksum, None);
    assert_eq!(desired_host(&v4_node()).links["ovn0"].link_local, None);
}

#[test]
fn applied_state_needs_no_operation() {
    for view in [dual_node(), v4_node()] {
        let wanted = desired_host(&view);
        assert_eq!(diff_host(&wanted, &applied(&wanted)), []);
    }
}

#[test]
fn port_comes_before_its_link_and_sets_before_rules() {
    let wanted = desired_host(&dual_node());
    let mut observed = Observed {
        ipsets: Some("create ovn40gone hash:net family inet maxelem 65536\n".into()),
        ..Observed::default()
    };
    observed.iptables.v4 = Some("".into());
    let kinds = |ops: &[HostOp]| -> Vec<&str> {
        let name = |op: &HostOp| match op {
            HostOp::SetExternalIds(_) => "ids",
            HostOp::SetOvsPort(_) => "port",
            HostOp::RestoreIpsets(b) if b.starts_with("destroy") => "destroy",
            HostOp::RestoreIpsets(_) => "sets",
            HostOp::RestoreIptables { .. } => "rules",
            HostOp::SetLink { .. } => "link",
            HostOp::AddAddress { .. } => "address",
            HostOp::ReplaceRoute { .. } => "route",
            _ => "other",
        };
        ops.iter().map(name).collect()
    };
    // ovn0 is not there yet: nothing may refer to it.
    assert_eq!(kinds(&diff_host(&wanted, &observed)), ["ids", "port", "sets", "rules", "destroy"]);
    observed.links = vec![link(7, "ovn0")];
    let ops = diff_host(&wanted, &observed);
    assert_eq!(
        kinds(&ops)[2..],
        [
            "link", "address", "address", "address", "route", "route", "route", "route", "sets",
            "rules", "destroy"
        ]
    );
    let added = ops.iter().filter_map(|op| match op {
        HostOp::AddAddress { dad, .. } => Some(*dad),
        _ => None,
    });
    assert!(added.into_iter().all(|dad| dad == Dad::Skip));
}

#[test]
fn addresses_of_ovn0_are_exact() {
    let wanted = desired_host(&dual_node());
    let mut observed = applied(&wanted);
    observed.addresses.push(address("ovn0", "100.64.0.9/16"));
    observed.addresses.push(address("ovn0", "fe80::1/64"));
    observed.addresses.push(address("eth0", "100.64.0.10/16"));
    assert_eq!(
        diff_host(&wanted, &observed),
        [HostOp::RemoveAddress {
            place: Place::Host,
            link: "ovn0".into(),
            cidr: cidr("100.64.0.9/16")
        }]
    );
}

#[test]
fn drifted_link_and_settings_are_put_right() {
    let wanted = desired_host(&v4_node());
    let mut observed = applied(&wanted);
    observed.links[1].state = LinkState::Down;
    observed.links[1].mac = Some(Mac([9; 6]));
    observed.sysctls.insert("net.ipv4.ip_forward".into(), "0".into());
    observed.ovs.external_ids.insert("ovn-encap-ip".into(), "1.2.3.4".into());
    observed.ovs.external_ids.insert("ovn-remote".into(), "tcp:1.2.3.4:6642".into());
    let port: &mut OvsPort = observed.ovs.ports.get_mut("ovn0").unwrap();
    port.mtu_request = Some(1500);
    port.external_ids.insert("attached-mac".into(), "x".into());
    let ops = diff_host(&wanted, &observed);
    assert_eq!(ops.len(), 4, "{ops:?}");
    let HostOp::SetExternalIds(ids) = &ops[0] else { panic!("{ops:?}") };
    assert_eq!(ids.keys().map(|k| &**k).collect::<Vec<_>>(), ["ovn-encap-ip"]);
    assert!(matches!(&ops[1], HostOp::SetOvsPort(p) if p.mtu_request == Some(1400)));
    assert!(matches!(&ops[2], HostOp::WriteSysctl { value, .. } if &**value == "1"));
    let HostOp::SetLink { change, .. } = &ops[3] else { panic!("{ops:?}") };
    assert_eq!((change.mac, change.state), (Some(JOIN_MAC), Some(LinkState::Up)));
}

/// Upstream bug 18: it looked for the tunnel device once, at start.
#[test]
fn bug_18_late_tunnel_device_gets_its_settings() {
    let mut view = v4_node();
    let wanted = desired_host(&view);
    assert_eq!(checksum_links(&wanted), ["genev_sys_6081".into()]);
    let mut observed = applied(&wanted);
    assert_eq!(diff_host(&wanted, &observed), []);
    observed.links.push(Link { state: LinkState::Down, ..link(9, "genev_sys_6081") });
    observed.tx_checksum.insert("genev_sys_6081".into(), TxChecksum::On);
    let ops = diff_host(&wanted, &observed);
    assert!(matches!(&ops[0], HostOp::SetLink { link, .. } if &**link == "genev_sys_6081"));
    assert!(matches!(&ops[1], HostOp::TxChecksumOff { link, .. } if &**link == "genev_sys_6081"));
    // The switch of vxlan is a flag; ovn0 needs it on a userspace datapath.
    view.network_type = NetworkType::Vxlan;
    assert_eq!(checksum_links(&desired_host(&view)), []);
    (view.vxlan_tx_off, view.datapath) = (true, Datapath::Netdev);
    assert_eq!(checksum_links(&desired_host(&view)), ["ovn0".into(), "vxlan_sys_4789".into()]);
}

#[test]
fn routes_per_family() {
    assert_eq!(
        routes(&dual_node()),
        [
            "100.64.0.0/16 src 100.64.0.2 Kernel 0",
            "10.16.0.0/16 via 100.64.0.1 src 172.18.0.2 Static 0",
            "fd00:100:64::/112 Kernel 256",
            "fd00:10:16::/112 via fd00:100:64::1 src fc00:f853:ccd:e793::2 Static 1024",
        ]
    );
}

#[test]
fn routes_only_to_subnets_that_ovn_routes() {
    let mut view = v4_node();
    let vlan = |name: &str, block: &str| Subnet { vlan: Some("v".into()), ..overlay(name, block) };
    let subnets = [
        Subnet { vpc: "vpc1".into(), ..overlay("custom", "10.21.0.0/16") },
        vlan("underlay", "10.22.0.0/16"),
        Subnet { logical_gateway: true, ..vlan("logical", "10.23.0.0/16") },
        Subnet { u2o_interconnection: true, ..vlan("u2o", "10.24.0.0/16") },
        Subnet { u2o_interconnection: true, enable_lb: Some(true), ..vlan("lb", "10.25.0.0/16") },
        // Holds the node's own address.
        overlay("nodes", "172.18.0.0/16"),
    ];
    view.subnets.extend(subnets.map(seen));
    let via: Vec<String> = routes(&view).into_iter().filter(|r| r.contains(" via ")).collect();
    let blocks: Vec<&str> = via.iter().filter_map(|r| r.split(' ').next()).collect();
    assert_eq!(blocks, ["10.16.0.0/16", "10.23.0.0/16", "10.24.0.0/16"]);
}

/// Upstream bug 22: it deleted by destination, which can hit the route of another link.
#[test]
fn bug_22_routes_are_deleted_by_all_their_fields() {
    let mut view = v4_node();
    view.subnets.push(seen(overlay("contested", "10.30.0.0/16")));
    let wanted = desired_host(&view);
    let mut observed = applied(&wanted);
    let eth0 = Route::via(cidr("10.30.0.0/16"), ip("172.18.0.1"), &"eth0".into());
    observed.routes.push(eth0.clone());
    let ours = wanted.routes.as_ref().unwrap();
    let ours = ours.iter().find(|r| r.destination == eth0.destination).unwrap();
    // The administrator's route stays, ours gives way, named in full.
    assert_eq!(
        diff_host(&wanted, &observed),
        [HostOp::RemoveRoute { place: Place::Host, route: ours.clone() }]
    );
    observed.routes.retain(|r| r != ours);
    assert_eq!(diff_host(&wanted, &observed), []);
}

#[test]
fn changed_source_replaces_and_vanished_subnet_deletes() {
    let view = v4_node();
    let wanted = desired_host(&view);
    let mut observed = applied(&wanted);
    observed.routes[1].source = None;
    assert!(matches!(diff_host(&wanted, &observed)[..], [HostOp::ReplaceRoute { .. }]));
    let stale = Route::via(cidr("10.77.0.0/16"), ip("100.64.0.1"), &"ovn0".into());
    observed = applied(&wanted);
    observed.routes.push(stale.clone());
    // On-link routes are the kernel's business.
    let mut on_link = Route::direct(cidr("100.64.0.0/16"), &"ovn0".into());
    on_link.protocol = RouteProtocol::Boot;
    observed.routes.push(on_link);
    assert_eq!(
        diff_host(&wanted, &observed),
        [HostOp::RemoveRoute { place: Place::Host, route: stale }]
    );
}

fn encap_request(flag: &str) -> EncapRequest {
    EncapRequest {
        iface_flag: flag.into(),
        internal_ips: objects::addresses("172.18.0.2,fc00::2"),
        links: vec![link(1, "lo"), link(2, "veth1abc"), link(3, "eth0"), link(4, "eth2")],
        addresses: vec![
            address("lo", "127.0.0.1/8"),
            address("veth1abc", "169.254.1.1/16"),
            address("eth0", "172.18.0.2/16"),
            address("eth0", "fc00::2/64"),
            address("eth2", "fe80::1/64"),
            address("eth2", "192.168.5.9/32"),
            address("eth2", "192.168.6.9/24"),
        ],
        ..EncapRequest::default()
    }
}

fn chosen(request: &EncapRequest) -> (String, String) {
    let encap = choose_encap(request).unwrap();
    (encap.link.to_string(), encap.ip.to_string())
}

#[test]
fn encap_by_address_then_by_name() {
    let mut request = encap_request("");
    assert_eq!(chosen(&request), ("eth0".into(), "172.18.0.2".into()));
    request.pod_ip = Some(ip("192.168.6.9"));
    assert_eq!(chosen(&request), ("eth2".into(), "192.168.6.9".into()));
    request.iface_flag = "eth0".into();
    assert_eq!(chosen(&request), ("eth0".into(), "172.18.0.2".into()));
    request.annotation = Some("eth2".into());
    assert_eq!(chosen(&request), ("eth2".into(), "192.168.6.9".into()));
    request.dpdk_link = Some("eth0".into());
    assert_eq!(chosen(&request), ("eth0".into(), "172.18.0.2".into()));
}

/// Upstream bug 19: `--iface=eth1` on a node without eth1 took `veth1...`.
#[test]
fn bug_19_expressions_match_whole_names() {
    let refused = choose_encap(&encap_request("eth1")).unwrap_err();
    assert!(refused.message.contains("\"eth1\""), "{}", refused.message);
    assert_eq!(chosen(&encap_request("ens.*, eth[0-9]+")).0, "eth0");
    assert_eq!(chosen(&encap_request("eth2|eth3")).0, "eth2");
    assert!(choose_encap(&encap_request("eth(")).unwrap_err().message.contains("eth("));
}

#[test]
fn encap_address_filters() {
    // Link-local only.
    assert!(choose_encap(&encap_request("veth1abc")).unwrap_err().message.contains("veth1abc"));
    let mut request = encap_request("eth2");
    request.allow_host_masks = true;
    assert_eq!(chosen(&request).1, "192.168.5.9");
    // Sources of link-scope routes narrow the choice.
    request = encap_request("eth0");
    request.addresses.insert(0, address("eth0", "172.18.0.99/16"));
    assert_eq!(chosen(&request).1, "172.18.0.99");
    let mut route = Route::direct(cidr("172.18.0.0/16"), &"eth0".into());
    route.source = Some(ip("172.18.0.2"));
    request.routes.push(route);
    assert_eq!(chosen(&request).1, "172.18.0.2");
    // The bridge that took the NIC has its addresses.
    request = encap_request("eth1");
    request.links.extend([link(5, "eth1"), link(6, "br-provider")]);
    request.addresses.push(address("br-provider", "10.1.1.1/24"));
    request.bridge_of.insert("eth1".into(), "br-provider".into());
    assert_eq!(chosen(&request), ("br-provider".into(), "10.1.1.1".into()));
}

#[test]
fn overlay_mtu_by_type_and_family() {
    let encap = |address: &str| Encap { link: "eth0".into(), ip: ip(address), link_mtu: 1500 };
    let (v4, v6) = (encap("10.0.0.1"), encap("fd00::1"));
    assert_eq!(overlay_mtu(1300, NetworkType::Geneve, &v4), 1300);
    assert_eq!(overlay_mtu(0, NetworkType::Geneve, &v4), 1400);
    assert_eq!(overlay_mtu(0, NetworkType::Vlan, &v6), 1380);
    assert_eq!(overlay_mtu(0, NetworkType::Vxlan, &v4), 1450);
    assert_eq!(overlay_mtu(0, NetworkType::Stt, &v6), 1408);
    assert!("gre".parse::<NetworkType>().unwrap_err().message.contains("gre"));
}
