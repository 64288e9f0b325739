//! The monitor without servers: texts of raft, rows of the databases, flags, names.

use kube_ovn::{
    cmd::{self, monitor_options::MonitorOptions, options::Environment},
    monitor::{
        content::{self, NORTHBOUND, SOUTHBOUND},
        metrics::FAMILIES,
        observe::northd_health,
        raft::{self, Raft},
    },
    ovsdb::{
        replica::{Replica, Scope, Update},
        schema::{Column, Database, Table, nb, sb},
    },
    telemetry::{Sample, Snapshot},
};
use serde_json::{Value, json, value::RawValue};

const LEADER: &str = "4da8\nName: OVN_Northbound\nCluster ID: fc5b (fc5bcf37-1111)\n\
Server ID: 4da8 (4da85563-2222)\nAddress: tcp:[10.0.0.1]:6643\nStatus: cluster member\n\
Role: leader\nTerm: 2\nLeader: self\nVote: self\n\n\
Last Election started 6549 ms ago, reason: timeout\nElection timer: 5000\nLog: [2, 12]\n\
Entries not yet committed: 1\nEntries not yet applied: 0\n\
Connections: ->8b2c <-8b2c (->77aa) <-77aa\nDisconnections: 0\nServers:\n    \
4da8 (4da8 at tcp:[10.0.0.1]:6643) (self) next_index=3 match_index=11\n    \
8b2c (8b2c at tcp:[10.0.0.2]:6643) next_index=12 match_index=11 last msg 14 ms ago\n    \
77aa (77aa at tcp:[10.0.0.3]:6643) next_index=4 match_index=0\n";

fn shown(samples: &[Sample]) -> Vec<String> {
    let line = |s: &Sample| {
        assert_eq!(s.labels.len(), s.family.labels.len(), "{}", s.family.name);
        format!("{}{:?} {}", s.family.name.trim_start_matches("kube_ovn_"), s.labels, s.value)
    };
    samples.iter().map(line).collect()
}

#[track_caller]
fn has(all: &[String], wanted: &str) {
    assert!(all.iter().any(|line| line == wanted), "{wanted} is not in\n{}", all.join("\n"));
}

#[test]
fn a_leader_of_three() {
    let raft = Raft::parse(LEADER);
    let all = shown(&raft::samples("n1", "OVN_Northbound", "ovsdb-server-northbound", &raft));
    let member = r#"["n1", "OVN_Northbound", "4da85563-2222", "fc5bcf37-1111"]"#;
    for (name, value) in [
        ("cluster_term", 2),
        ("cluster_leader_self", 1),
        ("cluster_vote_self", 1),
        ("cluster_election_timer", 5000),
        ("cluster_log_not_committed", 1),
        ("cluster_log_not_applied", 0),
        ("cluster_log_index_start", 2),
        ("cluster_log_index_next", 12),
        ("cluster_inbound_connections_total", 2),
        ("cluster_outbound_connections_total", 1),
        ("cluster_inbound_connections_error_total", 0),
        ("cluster_outbound_connections_error_total", 1),
        ("cluster_peer_count", 2),
        ("cluster_next_index", 3),
        ("cluster_match_index", 11),
    ] {
        has(&all, &format!("{name}{member} {value}"));
    }
    has(&all, r#"ovn_status["n1", "ovsdb-server-northbound"] 1"#);
    let member = member.trim_end_matches(']');
    has(&all, &format!(r#"cluster_role{member}, "leader"] 1"#));
    has(&all, &format!(r#"cluster_status{member}, "cluster member"] 1"#));
    assert!(all.iter().any(|l| l.starts_with("ovn_status_content") && l.contains("last msg")));
}

/// Upstream registers the metrics of peers and never sets them.
#[test]
fn bug_metrics_of_peers_are_set() {
    let all = shown(&raft::samples("n1", "D", "c", &Raft::parse(LEADER)));
    let peer = |id: &str| format!(r#"["n1", "D", "4da85563-2222", "fc5bcf37-1111", "{id}""#);
    has(&all, &format!("cluster_peer_next_index{}] 12", peer("8b2c")));
    has(&all, &format!("cluster_peer_match_index{}] 0", peer("77aa")));
    let address = r#", "tcp:[10.0.0.3]:6643"]"#;
    has(&all, &format!("cluster_inbound_peer_connected{}{address} 1", peer("77aa")));
    has(&all, &format!("cluster_outbound_peer_connected{}{address} 0", peer("77aa")));
}

#[test]
fn health_of_members() {
    let of = |from: &str, to: &str| Raft::parse(&LEADER.replace(from, to)).health();
    assert_eq!(of("", ""), 1.0);
    assert_eq!(of("Role: leader", "Role: follower"), 2.0);
    assert_eq!(of("Role: leader", "Role: candidate"), 0.0);
    assert_eq!(of("Status: cluster member", "Status: disconnected from the cluster"), 0.0);
    assert_eq!(Raft::parse("").health(), 0.0);
}

/// Upstream gives no sample for a paused northd, so that no alarm sees it.
#[test]
fn bug_a_paused_northd_is_unhealthy() {
    for (text, value) in [
        ("Status: active\n", 1.0),
        ("Status: standby\n", 2.0),
        ("Status: paused\n", 0.0),
        ("", 0.0),
    ] {
        assert_eq!(northd_health(text), value, "{text}");
    }
}

fn replica(
    database: &'static Database,
    monitored: &'static [(&'static Table, &'static [Column])],
    tables: Value,
) -> Replica {
    let mut replica = Replica::new(database, monitored);
    let tables = RawValue::from_string(tables.to_string()).unwrap().into();
    replica.apply(&Update { scope: Scope::Snapshot, tables, transaction: None }).unwrap();
    replica
}

fn id(n: u8) -> String {
    format!("{n:08x}-0000-0000-0000-000000000000")
}

#[test]
fn content_of_the_databases() {
    let northbound = replica(
        &nb::DATABASE,
        NORTHBOUND,
        json!({
        "Logical_Switch": {id(1): {"initial": {"name": "ovn-default",
            "external_ids": ["map", [["vendor", "kube-ovn"]]],
            "ports": ["set", [["uuid", id(2)], ["uuid", id(3)]]]}}},
        "Logical_Switch_Port": {
            id(2): {"initial": {"name": "a.ns", "addresses": "0a:00:00:00:00:01 10.16.0.2 fd00::2"}},
            id(3): {"initial": {"name": "r", "type": "router", "addresses": "router"}}}}),
    );
    let southbound = replica(
        &sb::DATABASE,
        SOUTHBOUND,
        json!({
        "Chassis": {id(9): {"initial": {"name": "sys", "hostname": "node1",
            "encaps": ["uuid", id(8)]}}},
        "Encap": {id(8): {"initial": {"ip": "192.0.2.1"}}},
        "Datapath_Binding": {id(7): {"initial": {"tunnel_key": 5,
            "external_ids": ["map", [["logical-switch", id(1)]]]}}},
        "Port_Binding": {id(6): {"initial": {"logical_port": "a.ns", "tunnel_key": 4,
            "datapath": ["uuid", id(7)], "chassis": ["uuid", id(9)]}}}}),
    );
    let all = shown(&content::samples("n1", &northbound, &southbound));
    let (switch, port) = (id(1), id(2));
    has(&all, &format!(r#"chassis_info["node1", "{}", "sys", "192.0.2.1"] 1"#, id(9)));
    has(&all, &format!(r#"logical_switch_info["n1", "{switch}", "ovn-default"] 1"#));
    has(
        &all,
        &format!(
            r#"logical_switch_external_id["n1", "{switch}", "vendor", "kube-ovn", "ovn-default"] 1"#
        ),
    );
    has(&all, &format!(r#"logical_switch_tunnel_key["n1", "{switch}", "ovn-default"] 5"#));
    has(&all, &format!(r#"logical_switch_ports_num["n1", "{switch}", "ovn-default"] 2"#));
    has(
        &all,
        &format!(r#"logical_switch_port_binding["n1", "{switch}", "{port}", "ovn-default"] 1"#),
    );
    has(
        &all,
        &format!(
            r#"logical_switch_port_info["n1", "{port}", "a.ns", "{}", "ovn-default", "{}", "{}", "0a:00:00:00:00:01", "10.16.0.2 fd00::2"] 1"#,
            id(9),
            id(7),
            id(6)
        ),
    );
    has(
        &all,
        &format!(
            r#"logical_switch_port_info["n1", "{}", "r", "", "ovn-default", "", "", "router", "router"] 1"#,
            id(3)
        ),
    );
    has(
        &all,
        &format!(r#"logical_switch_port_tunnel_key["n1", "{port}", "ovn-default", "a.ns"] 4"#),
    );
}

#[test]
fn flags_and_their_refusals() {
    let parse = |words: &[&str]| {
        let applet = cmd::APPLETS.iter().find(|a| a.name == "kube-ovn-monitor").unwrap();
        let words = std::iter::once("x").chain(words.iter().copied());
        let matches = cmd::command(applet).try_get_matches_from(words).unwrap();
        let env = Environment::from([
            ("KUBE_NODE_NAME", "node1"),
            ("POD_IPS", "192.0.2.1"),
            ("ENABLE_BIND_LOCAL_IP", "true"),
        ]);
        MonitorOptions::parse(&matches, &env, "host").map_err(|e| e.to_string())
    };
    let options = parse(&[]).unwrap();
    assert_eq!((options.serving.port, options.interval.as_secs()), (10661, 30));
    assert_eq!(options.serving.addresses.len(), 1);
    assert_eq!(options.sources.host, "node1");
    assert_eq!(options.sources.southbound.control.to_str(), Some("/run/ovn/ovnsb_db.ctl"));
    let error = parse(&["--database.northbound.socket.remote=db.sock"]).unwrap_err();
    assert!(error.contains("database.northbound.socket.remote=db.sock"), "{error}");
    let notes = parse(&["--database.northbound.port.raft=1"]).unwrap().notes;
    assert!(notes[0].contains("no effect"), "{notes:?}");
}

#[test]
fn families_register_under_upstreams_names() {
    Snapshot::register(&prometheus::Registry::new(), FAMILIES).unwrap();
    assert_eq!(FAMILIES.len(), 36);
    for wanted in [
        "kube_ovn_ovn_status",
        "kube_ovn_db_file_size_bytes",
        "kube_ovn_cluster_role",
        "kube_ovn_chassis_info",
        "kube_ovn_logical_switch_port_tunnel_key",
    ] {
        assert!(FAMILIES.iter().any(|f| f.name == wanted), "{wanted}");
    }
}
