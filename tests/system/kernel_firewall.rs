//! Rendered sets and rules on the real kernel: loaded, read back, changed, removed.

use std::{net::UdpSocket, time::Duration};

use kube_ovn::{
    host::{
        Firewall, HostView, NatAction, desired_firewall, diff_sets, diff_tables, parse_counters,
    },
    kernel::{
        Netlink, ipset,
        iptables::{self, Backend},
        netns, sysctl,
    },
    net::{Dad, Family, LinkChange, LinkState, Mac, Route, VethPair},
};

use crate::{
    kernel::Namespace,
    support::host_view::{centralized, dual_node, overlay, policy, seen, v4_node},
};

/// One round of the node loop; returns how many batches were needed.
fn reconcile(firewall: &Firewall, backend: Backend) -> usize {
    let sets = diff_sets(&firewall.ipsets, &ipset::save().unwrap());
    let mut batches = 0;
    let mut restore_sets = |batch: &str| {
        if !batch.is_empty() {
            ipset::restore(batch).unwrap_or_else(|e| panic!("{e}\n{batch}"));
            batches += 1;
        }
    };
    restore_sets(&sets.before);
    let mut changed = 0;
    for (family, tables) in firewall.tables.iter() {
        let batch = diff_tables(tables, &iptables::save(backend, family).unwrap());
        if !batch.is_empty() {
            iptables::restore(backend, family, &batch).unwrap_or_else(|e| panic!("{e}\n{batch}"));
            changed += 1;
        }
    }
    restore_sets(&sets.after);
    batches + changed
}

fn busy_node() -> HostView {
    let mut view = dual_node();
    let block = "10.17.0.0/16,fd00:10:17::/112";
    view.subnets.push(centralized("egress", block, ["172.18.0.12", "172.18.0.13"]));
    view.subnets.push(centralized("egress6", "fd00:10:18::/112", ["fd00:ee::12", "fd00:ee::13"]));
    let mut ruled = seen(overlay("ruled.one", "10.19.0.0/16,fd00:10:19::/112"));
    ruled.nat_policy = vec![
        policy(
            "aaaaaaaaaaaa",
            NatAction::Forward,
            &["10.19.0.0/24"],
            &["8.8.8.0/24", "1.1.1.1/32"],
        ),
        policy("bbbbbbbbbbbb", NatAction::Nat, &["10.19.0.5/32"], &["0.0.0.0/0"]),
        policy("cccccccccccc", NatAction::Nat, &[], &["::/0", "fd00:99::1/128"]),
    ];
    view.subnets.push(ruled);
    view
}

/// Sets as kube-proxy makes them in ipvs mode.
fn ipvs(view: &mut HostView) {
    for (prefix, family) in [("KUBE-", "inet"), ("KUBE-6-", "inet6")] {
        let kinds = [
            ("CLUSTER-IP", "hash:ip,port".to_owned()),
            ("NODE-PORT-LOCAL-TCP", "bitmap:port range 0-65535".to_owned()),
            ("NODE-PORT-LOCAL-UDP", "bitmap:port range 0-65535".to_owned()),
        ];
        for (suffix, kind) in kinds {
            let family =
                if kind.starts_with("hash") { format!(" family {family}") } else { String::new() };
            ipset::restore(&format!("create {prefix}{suffix} {kind}{family}\n")).unwrap();
            view.kube_proxy_sets.insert(format!("{prefix}{suffix}").into());
        }
    }
}

fn in_namespace(label: &str, test: impl FnOnce() + Send) {
    let ns = Namespace::new(label);
    netns::enter(&ns.place, test).unwrap();
}

fn round_trip(backend: Backend) {
    in_namespace("fw", || {
        let firewall = desired_firewall(&busy_node());
        assert_eq!(reconcile(&firewall, backend), 3, "sets, v4, v6");
        assert_eq!(reconcile(&firewall, backend), 0, "nothing the second time");
        // Read back: every chain of ours prints exactly as rendered.
        for (family, tables) in firewall.tables.iter() {
            let listing = iptables::save(backend, family).unwrap();
            let nat = listing.split("*nat\n").nth(1).and_then(|t| t.split("COMMIT").next());
            for (chain, rules) in &tables.nat.chains {
                let prefix = format!("-A {chain} ");
                let lines = nat.unwrap().lines().filter_map(|l| l.split_once(&prefix));
                let printed: Vec<&str> = lines.map(|l| l.1).collect();
                assert_eq!(printed, *rules, "{family:?} {chain}");
            }
        }
    });
}

#[test]
fn rules_round_trip_through_nft() {
    round_trip(Backend::Nft);
}

#[test]
fn rules_round_trip_through_legacy() {
    round_trip(Backend::Legacy);
}

#[test]
fn ipvs_rules_round_trip() {
    in_namespace("ipvs", || {
        let mut view = busy_node();
        ipvs(&mut view);
        let firewall = desired_firewall(&view);
        assert_eq!(reconcile(&firewall, Backend::Nft), 3);
        assert_eq!(reconcile(&firewall, Backend::Nft), 0);
        // Back to iptables mode: sets of kube-proxy go after our rules let go of them.
        view.kube_proxy_sets.clear();
        assert_eq!(reconcile(&desired_firewall(&view), Backend::Nft), 2);
        ipset::restore("destroy KUBE-CLUSTER-IP\ndestroy KUBE-6-CLUSTER-IP\n").unwrap();
    });
}

#[test]
fn changes_need_one_batch_and_leave_nothing() {
    in_namespace("fwchange", || {
        let foreign = "*filter\n:FORWARD DROP [0:0]\n:MINE - [0:0]\n-A FORWARD -j MINE\n\
            -A MINE -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n";
        iptables::restore(Backend::Nft, Family::V4, foreign).unwrap();
        reconcile(&desired_firewall(&busy_node()), Backend::Nft);
        // Fewer subnets: stale chains, counters, sets.
        assert_eq!(reconcile(&desired_firewall(&dual_node()), Backend::Nft), 4);
        assert_eq!(reconcile(&desired_firewall(&dual_node()), Backend::Nft), 0);
        assert!(!ipset::save().unwrap().contains("natpr"));
        // The agent loses IPv6.
        reconcile(&desired_firewall(&v4_node()), Backend::Nft);
        let v6 = iptables::save(Backend::Nft, Family::V6).unwrap();
        assert!(!v6.contains("ovn") && !v6.contains("OVN"), "{v6}");
        assert!(!ipset::save().unwrap().contains("ovn6"));
        // All goes; what others made stays.
        let mut nothing = Firewall::default();
        for family in Family::BOTH {
            nothing.tables.set(family, Some(Default::default()));
        }
        reconcile(&nothing, Backend::Nft);
        let v4 = iptables::save(Backend::Nft, Family::V4).unwrap();
        assert!(!v4.contains("ovn") && !v4.contains("OVN"), "{v4}");
        assert!(v4.contains("-A FORWARD -j MINE") && v4.contains("--dport 22"), "{v4}");
        assert!(!ipset::save().unwrap().contains("ovn"));
        iptables::accept_forward(Backend::Nft).unwrap();
        let v4 = iptables::save(Backend::Nft, Family::V4).unwrap();
        assert!(v4.contains(":FORWARD ACCEPT") && v4.contains("-A FORWARD -j MINE"), "{v4}");
    });
}

#[test]
fn jump_moves_above_the_service_portals() {
    in_namespace("portals", || {
        let firewall = desired_firewall(&v4_node());
        reconcile(&firewall, Backend::Nft);
        let kube = "*nat\n:KUBE-SERVICES - [0:0]\n\
            -I PREROUTING 1 -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
            -I PREROUTING 1 -m comment --comment first\nCOMMIT\n";
        iptables::restore(Backend::Nft, Family::V4, kube).unwrap();
        assert_eq!(reconcile(&firewall, Backend::Nft), 1);
        assert_eq!(reconcile(&firewall, Backend::Nft), 0);
        let listing = iptables::save(Backend::Nft, Family::V4).unwrap();
        let order: Vec<&str> = listing
            .lines()
            .filter_map(|l| l.split_once("-A PREROUTING "))
            .filter_map(|l| l.1.rsplit(' ').next())
            .collect();
        assert_eq!(order, ["first", "OVN-PREROUTING", "KUBE-SERVICES"]);
    });
}

#[test]
fn drift_heals_with_one_batch() {
    in_namespace("drift", || {
        let firewall = desired_firewall(&v4_node());
        reconcile(&firewall, Backend::Nft);
        let harm = "*nat\n-F OVN-POSTROUTING\nCOMMIT\n*filter\n-F FORWARD\nCOMMIT\n";
        iptables::restore(Backend::Nft, Family::V4, harm).unwrap();
        ipset::restore("del ovn40subnets 10.16.0.0/16\nadd ovn40other-node 9.9.9.9\n").unwrap();
        assert_eq!(reconcile(&firewall, Backend::Nft), 2);
        assert_eq!(reconcile(&firewall, Backend::Nft), 0);
    });
}

#[test]
fn a_set_in_use_is_resized_under_its_rules() {
    in_namespace("resize", || {
        let firewall = desired_firewall(&v4_node());
        let small = diff_sets(&firewall.ipsets, "").before.replace("1048576", "65536");
        ipset::restore(&small).unwrap();
        let tables = firewall.tables.v4.as_ref().unwrap();
        iptables::restore(Backend::Nft, Family::V4, &diff_tables(tables, "")).unwrap();
        assert_eq!(reconcile(&firewall, Backend::Nft), 1);
        assert_eq!(reconcile(&firewall, Backend::Nft), 0);
    });
}

#[test]
fn subnet_counters_are_listed() {
    in_namespace("count", || {
        reconcile(&desired_firewall(&dual_node()), Backend::Nft);
        for family in Family::BOTH {
            let counters = parse_counters(&iptables::save(Backend::Nft, family).unwrap());
            assert_eq!(counters.len(), 4, "{counters:?}");
        }
    });
}

#[test]
fn refused_batch_names_its_line() {
    in_namespace("refused", || {
        let bad =
            "*nat\n:OVN-X - [0:0]\n-A OVN-X -m set --match-set nosuch src -j RETURN\nCOMMIT\n";
        let error = iptables::restore(Backend::Nft, Family::V4, bad).unwrap_err().to_string();
        assert!(error.contains("nosuch"), "{error}");
        let error = ipset::restore("add nosuch 1.2.3.4\n").unwrap_err().to_string();
        assert!(error.contains("add nosuch"), "{error}");
    });
}

#[test]
fn backend_follows_the_hint_chains() {
    use iptables::choose_backend;
    let hint = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n";
    let canary = "*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n";
    let rules = "*filter\n-A INPUT -j ACCEPT\nCOMMIT\n";
    assert_eq!(choose_backend("", ""), Backend::Nft);
    assert_eq!(choose_backend(rules, hint), Backend::Legacy);
    assert_eq!(choose_backend(canary, hint), Backend::Nft);
    assert_eq!(choose_backend("", rules), Backend::Legacy);
    assert_eq!(choose_backend(rules, rules), Backend::Nft);
    // Only the chain in mangle counts.
    assert_eq!(choose_backend("", &hint.replace("mangle", "nat")), Backend::Nft);
}

/// Joins `outer` to a link `name` in `node`, both ends addressed.
fn cable(node: &Namespace, outer: &Namespace, name: &str, addresses: [&[&str]; 2]) {
    let pair = VethPair {
        host: name.into(),
        peer: "eth0".into(),
        peer_place: outer.place.clone(),
        peer_mac: Mac([2, 0, 0, 0, 0, name.len() as u8]),
        mtu: None,
        host_queue_length: 1000,
    };
    let mut near = Netlink::open(&node.place).unwrap();
    near.create_veth(&pair).unwrap();
    let mut far = Netlink::open(&outer.place).unwrap();
    let up = LinkChange { state: Some(LinkState::Up), ..LinkChange::default() };
    far.set_link("eth0", &up).unwrap();
    for (netlink, link, list) in [(&mut near, name, addresses[0]), (&mut far, "eth0", addresses[1])]
    {
        for address in list {
            netlink.add_address(link, address.parse().unwrap(), Dad::Skip).unwrap();
        }
    }
}

/// Upstream bug 7, with packets: the first matching policy rule decides, and pods without a rule
/// leave with the node's address.
#[test]
fn bug_07_packets_follow_the_first_matching_policy_rule() {
    let (node, pod, world) = (Namespace::new("n"), Namespace::new("p"), Namespace::new("w"));
    let pods = ["10.16.0.5/16", "10.19.0.5/16", "10.19.1.5/16"];
    cable(&node, &pod, "ovn0", [&["10.16.0.1/16", "10.19.0.1/16"], &pods]);
    cable(&node, &world, "uplink", [&["172.18.0.2/16"], &["172.18.0.100/16"]]);
    let route =
        |to: &str, via: &str| Route::via(to.parse().unwrap(), via.parse().unwrap(), &"eth0".into());
    let mut inner = Netlink::open(&pod.place).unwrap();
    inner.replace_route(&route("172.18.0.0/16", "10.16.0.1")).unwrap();
    let mut outer = Netlink::open(&world.place).unwrap();
    outer.replace_route(&route("10.0.0.0/8", "172.18.0.2")).unwrap();
    let mut view = v4_node();
    let mut ruled = seen(overlay("ruled", "10.19.0.0/16"));
    ruled.nat_policy = vec![
        policy("aaaaaaaaaaaa", NatAction::Forward, &["10.19.0.0/24"], &["172.18.0.100/32"]),
        policy("bbbbbbbbbbbb", NatAction::Nat, &["10.19.0.0/16"], &[]),
    ];
    view.subnets.push(ruled);
    netns::enter(&node.place, || {
        for name in ["all", "ovn0", "uplink"] {
            sysctl::write(&format!("net.ipv4.conf.{name}.rp_filter"), "0").unwrap();
        }
        sysctl::write("net.ipv4.ip_forward", "1").unwrap();
        reconcile(&desired_firewall(&view), Backend::Nft);
    })
    .unwrap();
    let listener = netns::enter(&world.place, || UdpSocket::bind("172.18.0.100:9999")).unwrap();
    let listener = listener.unwrap();
    listener.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    for (source, arrives_as) in
        [("10.16.0.5", "172.18.0.2"), ("10.19.0.5", "10.19.0.5"), ("10.19.1.5", "172.18.0.2")]
    {
        let sender = netns::enter(&pod.place, || UdpSocket::bind((source, 0))).unwrap().unwrap();
        sender.send_to(source.as_bytes(), "172.18.0.100:9999").unwrap();
        let mut buffer = [0; 64];
        let (length, from) = listener.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], source.as_bytes());
        assert_eq!(from.ip().to_string(), arrives_as, "of {source}");
    }
}
