//! Control sockets of daemons.

use std::{path::Path, time::Duration};

use kube_ovn::ovsdb::{
    schema::nb,
    unixctl::{UnixctlError, call, socket_of},
};

use crate::ovsdb_server::{Folder, OvsdbServer};

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_daemon_answers_and_its_errors_are_its_own_words() {
    let server = OvsdbServer::standalone(&nb::DATABASE);
    let text = call(&server.control(), "ovsdb-server/list-dbs", &[], LIMIT).await.unwrap();
    assert!(text.contains("OVN_Northbound"), "{text}");
    let error = call(&server.control(), "no/such", &[], LIMIT).await.unwrap_err();
    assert!(matches!(error, UnixctlError::Failed { .. }), "{error}");
    let error = call(&server.control(), "cluster/status", &["OVN_Northbound"], LIMIT).await;
    assert!(matches!(error, Err(UnixctlError::Failed { .. })), "{error:?}");
}

#[tokio::test]
async fn a_missing_and_a_silent_daemon_are_errors() {
    let error = call(Path::new("/nonexistent.ctl"), "version", &[], LIMIT).await.unwrap_err();
    assert!(matches!(error, UnixctlError::Connect { .. }));
    let folder = Folder::new();
    let socket = folder.0.join("x.1.ctl");
    let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let error = call(&socket, "version", &[], Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, UnixctlError::Timeout { .. }));
    std::fs::write(folder.0.join("x.pid"), "1\n").unwrap();
    assert_eq!(socket_of(&folder.0, "x").await.unwrap(), socket);
}
