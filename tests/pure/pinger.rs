//! The pinger without a network: targets, DNS messages, texts of Open vSwitch, metric names.

use kube_ovn::{
    cmd::{self, options::Environment, pinger_options::*},
    net::Family,
    pinger::{
        dns::{Resolver, encode_query, parse_answer},
        metrics::{OVS_FAMILIES, families},
        report::{Datapath, OvsState, interface_ids, samples, unbound},
        target::{self, Echoes, PortCheck, Transport, parse_port_checks},
    },
    telemetry::{Exposure, Recorder},
};
use proptest::prelude::*;
use serde_json::json;

fn options(words: &[&str]) -> Result<PingerOptions, String> {
    let applet = cmd::APPLETS.iter().find(|a| a.name == "kube-ovn-pinger").unwrap();
    let words = std::iter::once("kube-ovn-pinger").chain(words.iter().copied());
    let matches = cmd::command(applet).try_get_matches_from(words).map_err(|e| e.to_string())?;
    let env = Environment::from([
        ("POD_NAME", "p"),
        ("OVN_SB_SERVICE_HOST", "fd00::9"),
        ("OVN_SB_SERVICE_PORT", "6642"),
    ]);
    PingerOptions::parse(&matches, &env).map_err(|e| e.to_string())
}

#[test]
fn defaults_are_upstreams() {
    let options = options(&[]).unwrap();
    assert_eq!((options.mode, options.exit_code), (Mode::Server, 0));
    assert_eq!(options.interval.as_secs(), 5);
    assert_eq!(options.serving.port, 8080);
    assert!(options.serving.addresses.is_empty(), "TRAP: [::], which takes both families");
    let local = options.local.unwrap();
    assert_eq!(local.southbound.unwrap().to_string(), "tcp:[fd00::9]:6642");
    assert_eq!(local.controller_pid.to_str(), Some("/var/run/ovn/ovn-controller.pid"));
}

#[test]
fn wrong_flags_name_flag_value_and_remedy() {
    for (flag, words) in [
        ("--mode=once", "write server or job"),
        ("--external-address=1.1.1", "1.1.1"),
        ("--database.vswitch.socket.remote=x", "unix:FILE"),
    ] {
        let error = options(&[flag]).unwrap_err();
        assert!(
            error.contains(words) && error.contains(flag.split('=').next().unwrap()),
            "{error}"
        );
    }
    let given = options(&["--target-ip-ports=tcp-1.2.3.4-80,nonsense"]).unwrap();
    assert_eq!(given.port_checks.len(), 1);
    assert!(given.notes[0].contains("nonsense"), "{:?}", given.notes);
    assert!(options(&["--network-mode=calico"]).unwrap().local.is_none());
}

/// TRAP: upstream then listens nowhere, and the probes kill its pod.
#[test]
fn trap_without_metrics_health_is_still_served() {
    assert_eq!(options(&["--enable-metrics=false"]).unwrap().serving.metrics, Exposure::Hidden);
}

#[test]
fn port_checks() {
    let list =
        ["tcp-10.16.0.9-80", "UDP-fd00::1-53", "tcp-x-80", "sctp-1.1.1.1-1", "tcp-1.1.1.1-0"];
    let list: Vec<String> = list.map(str::to_owned).to_vec();
    let (checks, wrong) = parse_port_checks(&list);
    let expected = [(Transport::Tcp, "10.16.0.9", 80), (Transport::Udp, "fd00::1", 53)];
    let expected = expected.map(|(transport, address, port)| PortCheck {
        transport,
        address: address.parse().unwrap(),
        port,
    });
    assert_eq!(checks, expected);
    assert_eq!(wrong.len(), 3);
}

#[test]
fn only_running_pods_of_own_families_are_targets() {
    let pod = |name: &str, phase: &str, ips: &[&str]| {
        let ips: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"nodeName": "n"},
            "status": {"phase": phase, "hostIP": "192.0.2.1", "podIPs": ips}}))
        .unwrap()
    };
    let pods = [
        pod("b", "Running", &["10.16.0.3", "fd00::3"]),
        pod("a", "Running", &["10.16.0.2"]),
        pod("c", "Pending", &["10.16.0.4"]),
        pod("d", "Running", &[]),
    ];
    let peers = target::pods(&pods, &[Family::V4]);
    let names: Vec<&str> = peers.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(peers[0].node_address, "192.0.2.1");
    assert_eq!(target::pods(&pods, &[Family::V4, Family::V6]).len(), 3);
}

#[test]
fn every_internal_address_of_a_node_is_a_target() {
    let node = serde_json::from_value(json!({"metadata": {"name": "n"}, "status": {"addresses": [
        {"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n"},
        {"type": "InternalIP", "address": "fd00::1"}, {"type": "ExternalIP", "address": "1.1.1.1"}]}}))
    .unwrap();
    assert_eq!(target::nodes(&[node], &[Family::V4, Family::V6]).len(), 2);
}

#[test]
fn selectors_of_daemon_sets() {
    let set = serde_json::from_value(json!({"spec": {"template": {}, "selector": {
        "matchLabels": {"app": "kube-ovn-pinger"},
        "matchExpressions": [{"key": "x", "operator": "In", "values": ["1", "2"]}]}}}))
    .unwrap();
    assert_eq!(target::selector(&set), "app=kube-ovn-pinger,x in (1,2)");
}

#[test]
fn lost_echoes() {
    let echoes = Echoes::of(&[Some(1.0), None, Some(2.0)]);
    assert_eq!((echoes.sent, echoes.received, echoes.lost()), (3, 2, 1));
    assert!((echoes.mean_ms - 1.5).abs() < 1e-9);
    assert_eq!(format!("{:.2}", Echoes::of(&[None]).mean_ms), "0.00");
}

#[test]
fn names_to_ask_for() {
    let resolver = Resolver::parse(
        "# x\nnameserver 10.96.0.10\nnameserver fd00:10:96::a\nnameserver bad\n\
         search kube-system.svc.cluster.local svc.cluster.local. cluster.local\noptions ndots:5 edns0\n",
    );
    assert_eq!(resolver.servers.len(), 2);
    assert_eq!(
        resolver.candidates("kubernetes.default"),
        [
            "kubernetes.default.kube-system.svc.cluster.local",
            "kubernetes.default.svc.cluster.local",
            "kubernetes.default.cluster.local",
            "kubernetes.default"
        ]
    );
    assert_eq!(resolver.candidates("kube-ovn.io."), ["kube-ovn.io"]);
    assert_eq!(Resolver::parse("search a").candidates("x.y"), ["x.y", "x.y.a"]);
}

/// An answer by hand: CNAME by pointer, then A and AAAA.
fn answer(code: u8) -> Vec<u8> {
    let mut message = encode_query(7, "a.b", Family::V4).unwrap();
    (message[2], message[3], message[7]) = (0x81, 0x80 | code, 3);
    for (kind, data) in [(5, &b"\x01c\xc0\x0e"[..]), (1, &[10, 0, 0, 1]), (28, &[0xfd; 16])] {
        message.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 9, 0, data.len() as u8]);
        message.extend(data);
    }
    message
}

#[test]
fn answers() {
    let found = parse_answer(&answer(0), 7).unwrap();
    assert_eq!(found.code, 0);
    assert_eq!(found.addresses.len(), 2);
    assert_eq!(found.addresses[0].to_string(), "10.0.0.1");
    assert_eq!(parse_answer(&answer(3), 7).unwrap().code, 3);
    assert_eq!(parse_answer(&answer(0), 8), None, "somebody else's");
    assert_eq!(parse_answer(&encode_query(7, "a.b", Family::V4).unwrap(), 7), None, "a question");
    for name in ["", ".", "a..b", &"x".repeat(64), &"x.".repeat(130)] {
        assert_eq!(encode_query(1, name, Family::V6), None, "{name}");
    }
}

proptest! {
    #[test]
    fn no_message_makes_the_parser_fail(bytes in proptest::collection::vec(any::<u8>(), 0..80), id: u16) {
        let _ = parse_answer(&bytes, id);
        let mut message = answer(0);
        for (at, byte) in bytes.iter().enumerate() {
            let at = (at * 7) % message.len();
            message[at] ^= byte;
        }
        let _ = parse_answer(&message, 7);
        let _ = Datapath::parse(&String::from_utf8_lossy(&bytes));
    }
}

const USERSPACE: &str = "netdev@ovs-netdev:\n  lookups: hit:5512 missed:317 lost:2\n  flows: 12\n  \
port 0: ovs-netdev (tap)\n  port 1: br-int (tap)\n  port 2: 2f_0 \n  \
port 3: genev_sys_6081 (geneve: packet_type=ptap)\n";
const KERNEL: &str = "system@ovs-system:\n  lookups: hit:10 missed:3 lost:0\n  flows: 4\n  \
masks: hit:20 total:2 hit/pkt:1.54\n  caches:\n    masks-cache: size:256\n  port 0: ovs-system (internal)\n  port 1: eth1\n";

#[test]
fn datapaths() {
    let dp = Datapath::parse(USERSPACE);
    assert_eq!(
        (dp.hit, dp.missed, dp.lost, dp.flows),
        (Some(5512.0), Some(317.0), Some(2.0), Some(12.0))
    );
    assert_eq!(dp.masks, None);
    let ports: Vec<(&str, &str)> = dp.ports.iter().map(|(n, k)| (n.as_str(), k.as_str())).collect();
    assert_eq!(
        ports,
        [
            ("ovs-netdev", "tap"),
            ("br-int", "tap"),
            ("2f_0", "system"),
            ("genev_sys_6081", "geneve")
        ]
    );
    let dp = Datapath::parse(KERNEL);
    assert_eq!((dp.masks_hit, dp.masks, dp.masks_ratio), (Some(20.0), Some(2.0), Some(1.54)));
    assert_eq!(dp.ports.len(), 2);
}

fn state() -> OvsState {
    OvsState {
        system: json!({"external_ids": ["map", [["hostname", "node1"], ["system-id", "s"]]],
            "ovs_version": "3.5.0", "db_version": "8.5.1", "system_type": "debian",
            "system_version": ["set", []]}),
        interfaces: vec![json!({"_uuid": ["uuid", "u"], "name": "br-int", "admin_state": "up",
            "link_state": "down", "mtu": 1400, "ofport": 1, "ifindex": ["set", []],
            "mac_in_use": "0a:00:00:00:00:01",
            "statistics": ["map", [["rx_missed_errors", 3], ["tx_bytes", 9]]]})],
        datapaths: vec![("netdev@ovs-netdev".into(), USERSPACE.into())],
        components: vec![("ovsdb-server", true), ("ovs-vswitchd", false)],
        logs: vec![("ovs-vswitchd", "/var/log/x.log".into(), 12)],
        database: Some(99),
        failed_requests: 4,
        run_folder: "/var/run/openvswitch".into(),
    }
}

fn rendered(state: &OvsState) -> Vec<String> {
    let shown = |s: &kube_ovn::telemetry::Sample| {
        assert_eq!(s.labels.len(), s.family.labels.len(), "{}", s.family.name);
        format!("{}{:?} {}", s.family.name, s.labels, s.value)
    };
    samples(state).iter().map(shown).collect()
}

#[test]
fn open_vswitch_samples() {
    let all = rendered(&state());
    for wanted in [
        r#"kube_ovn_ovs_info["node1", "s", "/var/run/openvswitch", "debian", "", "3.5.0", "8.5.1"] 1"#,
        r#"kube_ovn_ovs_status["node1", "ovs-vswitchd"] 0"#,
        r#"kube_ovn_db_file_size_bytes["node1", "OVS_DB"] 99"#,
        r#"kube_ovn_failed_req_count["node1"] 4"#,
        r#"kube_ovn_dp_if["node1", "netdev@ovs-netdev", "br-int", "tap", "1"] 1"#,
        r#"kube_ovn_dp_if_total["node1", "netdev@ovs-netdev"] 4"#,
        r#"kube_ovn_interface_admin_state["node1", "br-int"] 1"#,
        r#"kube_ovn_interface_link_state["node1", "br-int"] 0"#,
        r#"kube_ovn_interface_rx_missed_err["node1", "br-int"] 3"#,
        r#"kube_ovn_interface_mac_in_use["node1", "br-int", "0a:00:00:00:00:01"] 1"#,
    ] {
        assert!(all.iter().any(|line| line == wanted), "{wanted} is not in\n{}", all.join("\n"));
    }
    assert!(
        !all.iter().any(|line| line.contains("interface_if_index")),
        "an empty set is no value"
    );
    assert!(!rendered(&OvsState::default()).is_empty(), "nothing readable is a state too");
}

/// Upstream sets both and resets them in the same round, so they are never exported.
#[test]
fn bug_datapath_and_dp_total_are_exported() {
    let all = rendered(&state());
    assert!(all.contains(&r#"kube_ovn_dp_total["node1"] 1"#.to_owned()));
    let wanted = r#"kube_ovn_datapath["node1", "netdev@ovs-netdev", "netdev"] 1"#;
    assert!(all.contains(&wanted.to_owned()));
}

#[test]
fn ports_that_are_not_bound() {
    let rows = [
        json!({"external_ids": ["map", [["iface-id", "a.ns"], ["vendor", "kube-ovn"]]]}),
        json!({"external_ids": ["map", []]}),
        json!({"external_ids": ["map", [["iface-id", "b.ns"]]]}),
    ];
    let ovs = interface_ids(&rows);
    assert_eq!(ovs, ["a.ns", "b.ns"]);
    assert_eq!(unbound(&ovs, &["b.ns".into(), "lrp".into()]), ["a.ns"]);
}

#[test]
fn metric_names_are_upstreams_and_unique() {
    let mut names: Vec<&str> =
        families().iter().map(|f| f.name).chain(OVS_FAMILIES.iter().map(|f| f.name)).collect();
    names.sort_unstable();
    let before = names.len();
    names.dedup();
    assert_eq!(names.len(), before);
    for wanted in [
        "pinger_ovs_up",
        "pinger_ovn_controller_down",
        "pinger_inconsistent_port_binding",
        "pinger_apiserver_latency_ms",
        "pinger_external_dns_unhealthy",
        "pinger_pod_ping_lost_total",
        "pinger_node_ping_count_total",
        "pinger_external_ping_lost_total",
        "kube_ovn_interface_rx_missed_err",
        "kube_ovn_dp_masks_hit_ratio",
        "kube_ovn_log_file_size_bytes",
    ] {
        assert!(names.contains(&wanted), "{wanted}");
    }
    assert_eq!(OVS_FAMILIES.len(), 37);
    Recorder::register(&prometheus::Registry::new(), &families()).unwrap();
}
