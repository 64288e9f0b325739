//! Probes over loopback: echoes, ports, DNS, the daemons of a node.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use kube_ovn::{
    net::Family,
    ovsdb::{rpc::Rpc, schema::vswitch},
    pinger::{
        dns::{DnsError, Resolver},
        local::{Local, LocalError},
        probe::{connect, ping},
        report::samples,
        target::Transport,
    },
};
use serde_json::json;
use tokio::net::{TcpListener, UdpSocket};

use crate::ovsdb_server::OvsdbServer;

#[tokio::test]
async fn echoes_come_back_and_lost_ones_are_counted() {
    for target in ["127.0.0.1", "::1"] {
        let echoes = ping(target.parse().unwrap(), Duration::from_secs(5)).await.unwrap();
        assert_eq!((echoes.sent, echoes.lost()), (3, 0), "{target}");
        assert!(echoes.mean_ms > 0.0);
    }
    let echoes = ping("127.0.0.1".parse().unwrap(), Duration::ZERO).await.unwrap();
    assert_eq!((echoes.sent, echoes.lost()), (3, 3));
}

#[tokio::test]
async fn ports_answer_or_say_why_not() {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = tcp.local_addr().unwrap();
    connect(Transport::Tcp, open).await.unwrap();
    drop(tcp);
    assert!(connect(Transport::Tcp, open).await.unwrap_err().contains("refused"));
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = udp.local_addr().unwrap();
    let answers = tokio::spawn(async move {
        let mut question = [0; 64];
        let (length, peer) = udp.recv_from(&mut question).await.unwrap();
        udp.send_to(&question[..length], peer).await.unwrap();
    });
    connect(Transport::Udp, target).await.unwrap();
    answers.await.unwrap();
}

/// Answers every question for `known` with 10.96.0.1 and says no to all others.
async fn name_server(known: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let mut message = buffer[..length].to_vec();
            let asked = String::from_utf8_lossy(&message).contains(known);
            message[2] = 0x81;
            message[3] = if asked { 0x80 } else { 0x83 };
            if asked {
                message[7] = 1;
                message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 96, 0, 1]);
            }
            // Somebody else's answer comes first.
            let mut other = message.clone();
            other[0] ^= 1;
            let _ = socket.send_to(&other, peer).await;
            let _ = socket.send_to(&message, peer).await;
        }
    });
    address
}

#[tokio::test]
async fn names_resolve_by_the_search_list() {
    let server = name_server("\x07cluster\x05local").await;
    let mut resolver = Resolver::parse("search x svc.cluster.local\noptions ndots:5\n");
    assert!(matches!(
        resolver.resolve("kubernetes.default", &[Family::V4]).await,
        Err(DnsError::NoServer(_))
    ));
    (resolver.servers, resolver.port) = (vec![server.ip()], server.port());
    let found = resolver.resolve("kubernetes.default", &[Family::V4]).await.unwrap();
    assert_eq!(found, [IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1))]);
    let error = resolver.resolve("nowhere.example.", &[Family::V4]).await.unwrap_err();
    assert!(matches!(error, DnsError::NoHost { code: 3, .. }), "{error}");
}

#[tokio::test]
async fn a_node_without_switch_is_reported_and_its_database_is_read() {
    let server = OvsdbServer::standalone(&vswitch::DATABASE);
    let control = server.control();
    let folder = control.parent().unwrap();
    let database = server.endpoint();
    let mut rpc = Rpc::connect(&database, None, Duration::from_secs(5)).await.unwrap();
    let row = json!({"op": "insert", "table": "Open_vSwitch",
        "row": {"external_ids": ["map", [["hostname", "node1"], ["system-id", "s"]]]}});
    rpc.transact("Open_vSwitch", vec![row]).await.unwrap();
    // ovs-appctl's convention: NAME.PID.ctl beside NAME.pid.
    std::fs::write(folder.join("ovsdb-server.pid"), "1\n").unwrap();
    std::fs::rename(&control, folder.join("ovsdb-server.1.ctl")).unwrap();
    let local = Local {
        database,
        database_name: "Open_vSwitch".into(),
        database_file: folder.join("1.db"),
        database_log: folder.join("1.log"),
        database_pid: folder.join("ovsdb-server.pid"),
        vswitchd_log: folder.join("none.log"),
        vswitchd_pid: folder.join("ovs-vswitchd.pid"),
        controller_pid: folder.join("ovn-controller.pid"),
        run_folder: "/run".into(),
        timeout: Duration::from_secs(5),
        southbound: None,
        tls: None,
    };
    local.daemon_answers(&local.database_pid).await.unwrap();
    local.daemon_answers(&local.vswitchd_pid).await.unwrap_err();
    assert!(matches!(local.ports("node1").await, Err(LocalError::NoSouthbound)));
    let mut failed = 0;
    let state = local.observe(&mut failed).await;
    assert_eq!(state.components, [("ovsdb-server", true), ("ovs-vswitchd", false)]);
    assert_eq!(failed, 2, "version and the datapaths of ovs-vswitchd");
    assert!(state.database.is_some_and(|size| size > 0));
    let all = samples(&state);
    let info = all.iter().find(|s| s.family.name == "kube_ovn_ovs_info").unwrap();
    assert_eq!(info.labels[..2], ["node1".to_owned(), "s".to_owned()]);
}
