//! The monitor beside real servers.

use std::time::Duration;

use kube_ovn::{
    monitor::observe::{Monitor, Server, Sources},
    ovsdb::{
        rpc::Rpc,
        schema::{nb, sb},
    },
    telemetry::Sample,
};
use serde_json::json;

use crate::ovsdb_server::{Cluster, Folder, OvsdbServer};

fn server(of: &OvsdbServer, component: &'static str, database: &str) -> Server {
    let control = of.control();
    let folder = control.parent().unwrap();
    let stem = control.file_stem().unwrap().to_string_lossy().into_owned();
    Server {
        component,
        database: database.into(),
        remote: of.endpoint(),
        control: control.clone(),
        file: folder.join(format!("{stem}.db")),
        log: folder.join(format!("{stem}.log")),
    }
}

fn value(all: &[Sample], name: &str, label: &str) -> Option<f64> {
    let name = format!("kube_ovn_{name}");
    let fits = |s: &&Sample| s.family.name == name && s.labels.iter().any(|l| l.contains(label));
    all.iter().find(fits).map(|s| s.value)
}

#[tokio::test]
async fn servers_and_content_are_told_by_the_leader() {
    let northbound = Cluster::start(&nb::DATABASE, 1);
    let southbound = OvsdbServer::standalone(&sb::DATABASE);
    let leader = &northbound.members[0];
    let mut rpc = Rpc::connect(&leader.endpoint(), None, Duration::from_secs(5)).await.unwrap();
    let row = json!({"op": "insert", "table": "Logical_Switch", "row": {"name": "s1"}});
    rpc.transact("OVN_Northbound", vec![row]).await.unwrap();
    let folder = Folder::new();
    let mut monitor = Monitor::start(Sources {
        host: "n1".into(),
        northbound: server(leader, "ovsdb-server-northbound", "OVN_Northbound"),
        southbound: server(&southbound, "ovsdb-server-southbound", "OVN_Southbound"),
        northd_pid: folder.0.join("ovn-northd.pid"),
        northd_log: folder.0.join("ovn-northd.log"),
        timeout: Duration::from_secs(5),
    });
    let mut all = Vec::new();
    for _ in 0..50 {
        all = monitor.observe().await;
        if value(&all, "logical_switch_info", "s1").is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(value(&all, "logical_switch_info", "s1"), Some(1.0));
    assert_eq!(value(&all, "ovn_status", "northbound"), Some(1.0));
    assert_eq!(value(&all, "ovn_status", "southbound"), Some(1.0), "standalone is its leader");
    assert_eq!(value(&all, "ovn_status", "northd"), Some(0.0), "it does not run");
    assert_eq!(value(&all, "db_status", "OVN_Northbound"), Some(1.0));
    assert_eq!(value(&all, "db_status", "OVN_Southbound"), Some(1.0));
    assert_eq!(value(&all, "cluster_leader_self", "OVN_Northbound"), Some(1.0));
    assert_eq!(value(&all, "cluster_leader_self", "OVN_Southbound"), None);
    assert!(value(&all, "db_file_size_bytes", "OVN_Northbound").unwrap() > 0.0);
    assert!(value(&all, "failed_req_count", "n1").unwrap() >= 1.0);
}
