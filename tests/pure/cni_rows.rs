//! Host operations as one transaction of the vswitch database.

use std::collections::BTreeMap;

use kube_ovn::{
    host::{Datapath, HostOp, OvsPort, OvsPortKind},
    node::ovs_rows::{
        MONITORED, PortState, RowError, datapath, observe_ovs, plan_transaction, port_state,
        rivals, system_id, vendor_bridge_ports,
    },
    ovsdb::{
        datum::Uuid,
        replica::{Replica, Scope, Update},
        schema::vswitch,
    },
};
use serde_json::{Value, json};

const ROOT: u128 = 1;
const BRIDGE: u128 = 2;
const PORT: u128 = 3;
const INTERFACE: u128 = 4;

fn id(n: u128) -> String {
    Uuid(n).to_string()
}

fn uuids(all: &[u128]) -> Value {
    json!(["set", all.iter().map(|n| json!(["uuid", id(*n)])).collect::<Vec<_>>()])
}

fn replica(external_ids: Value, error: Value) -> Replica {
    let mut replica = Replica::new(&vswitch::DATABASE, MONITORED);
    let tables = json!({
        "Open_vSwitch": {id(ROOT): {"initial": {
            "bridges": uuids(&[BRIDGE]),
            "external_ids": ["map", [["system-id", "chassis-1"], ["ovn-encap-ip", "10.0.0.1"]]]}}},
        "Bridge": {id(BRIDGE): {"initial": {
            "name": "br-int", "ports": uuids(&[PORT]), "datapath_type": "netdev"}}},
        "Port": {id(PORT): {"initial": {
            "name": "0123456789ab_h", "interfaces": uuids(&[INTERFACE])}}},
        "Interface": {id(INTERFACE): {"initial": {
            "name": "0123456789ab_h", "external_ids": external_ids, "error": error}}},
    });
    let tables = serde_json::value::to_raw_value(&tables).unwrap().into();
    replica.apply(&Update { scope: Scope::Snapshot, tables, transaction: None }).unwrap();
    replica
}

fn usual() -> Replica {
    replica(json!(["map", [["iface-id", "web-0.shop"], ["pod_name", "web-0"]]]), json!(["set", []]))
}

fn port(name: &str, bridge: &str, ids: &[(&str, &str)]) -> OvsPort {
    OvsPort {
        bridge: bridge.into(),
        name: name.into(),
        kind: OvsPortKind::System,
        mac: None,
        mtu_request: None,
        external_ids: ids.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
    }
}

fn params(replica: &Replica, ops: &[HostOp]) -> Value {
    match plan_transaction(replica, ops).unwrap() {
        Some(transaction) => transaction.to_params(&vswitch::DATABASE),
        None => Value::Null,
    }
}

#[test]
fn a_new_port_is_three_operations_of_one_transaction() {
    let mut wanted = port("fedcba987654_h", "br-int", &[("iface-id", "b.shop")]);
    wanted.kind = OvsPortKind::Internal;
    wanted.mtu_request = Some(1400);
    wanted.mac = Some("00:00:00:53:6b:b6".parse().unwrap());
    assert_eq!(
        params(&usual(), &[HostOp::SetOvsPort(wanted)]),
        json!(["Open_vSwitch",
            {"op": "insert", "table": "Interface", "uuid-name": "row0", "row": {
                "name": "fedcba987654_h", "type": "internal", "mtu_request": 1400,
                "mac": "00:00:00:53:6b:b6", "external_ids": ["map", [["iface-id", "b.shop"]]]}},
            {"op": "insert", "table": "Port", "uuid-name": "row1", "row": {
                "name": "fedcba987654_h", "interfaces": ["named-uuid", "row0"]}},
            {"op": "mutate", "table": "Bridge", "where": [["_uuid", "==", ["uuid", id(BRIDGE)]]],
             "mutations": [["ports", "insert", ["named-uuid", "row1"]]]},
        ])
    );
}

#[test]
fn an_equal_port_is_no_operation_and_a_differing_one_only_its_difference() {
    let same = port("0123456789ab_h", "br-int", &[("iface-id", "web-0.shop")]);
    assert_eq!(params(&usual(), &[HostOp::SetOvsPort(same)]), Value::Null);
    let other =
        port("0123456789ab_h", "br-int", &[("iface-id", "web-1.shop"), ("ip", "10.16.0.5")]);
    assert_eq!(
        params(&usual(), &[HostOp::SetOvsPort(other)]),
        json!(["Open_vSwitch",
            {"op": "mutate", "table": "Interface",
             "where": [["_uuid", "==", ["uuid", id(INTERFACE)]]],
             "mutations": [
                ["external_ids", "delete", "iface-id"],
                ["external_ids", "insert", ["map", [["iface-id", "web-1.shop"], ["ip", "10.16.0.5"]]]]
             ]},
        ])
    );
}

#[test]
fn a_rival_loses_the_key_and_only_it() {
    assert_eq!(rivals(&usual(), "web-0.shop", "new_h"), ["0123456789ab_h".into()]);
    assert!(rivals(&usual(), "web-0.shop", "0123456789ab_h").is_empty());
    let ids = BTreeMap::from([("iface-id".into(), None)]);
    let op = HostOp::SetInterfaceIds { interface: "0123456789ab_h".into(), ids };
    assert_eq!(
        params(&usual(), &[op]),
        json!(["Open_vSwitch",
            {"op": "mutate", "table": "Interface",
             "where": [["_uuid", "==", ["uuid", id(INTERFACE)]]],
             "mutations": [["external_ids", "delete", "iface-id"]]},
        ])
    );
}

#[test]
fn a_port_leaves_whichever_bridge_holds_it() {
    let remove = |port: &str| HostOp::RemoveOvsPort { bridge: "br-int".into(), port: port.into() };
    assert_eq!(params(&usual(), &[remove("gone_h")]), Value::Null);
    let operation = json!(
        {"op": "mutate", "table": "Bridge", "where": [["_uuid", "==", ["uuid", id(BRIDGE)]]],
         "mutations": [["ports", "delete", ["uuid", id(PORT)]]]});
    assert_eq!(params(&usual(), &[remove("0123456789ab_h")]), json!(["Open_vSwitch", operation]));
}

#[test]
fn settings_are_merged_key_by_key() {
    let ids = BTreeMap::from([
        ("ovn-encap-ip".into(), Some("10.0.0.2".into())),
        ("system-id".into(), Some("chassis-1".into())),
        ("gone".into(), None),
    ]);
    assert_eq!(
        params(&usual(), &[HostOp::SetExternalIds(ids)]),
        json!(["Open_vSwitch",
            {"op": "mutate", "table": "Open_vSwitch",
             "where": [["_uuid", "==", ["uuid", id(ROOT)]]],
             "mutations": [
                ["external_ids", "delete", "ovn-encap-ip"],
                ["external_ids", "insert", ["map", [["ovn-encap-ip", "10.0.0.2"]]]]
             ]},
        ])
    );
}

#[test]
fn a_missing_bridge_is_named() {
    let op = HostOp::SetOvsPort(port("a_h", "br-ex", &[]));
    let error = plan_transaction(&usual(), &[op]).unwrap_err();
    assert_eq!(error, RowError::NoBridge("br-ex".into()));
    let empty = Replica::new(&vswitch::DATABASE, MONITORED);
    let ids = BTreeMap::from([("a".into(), Some("b".into()))]);
    let error = plan_transaction(&empty, &[HostOp::SetExternalIds(ids)]).unwrap_err();
    assert_eq!(error, RowError::NoRoot);
}

#[test]
fn states_of_a_port() {
    let of = |ids: Value, error: Value| port_state(&replica(ids, error), "0123456789ab_h");
    let (none, no_ids) = (json!(["set", []]), json!(["map", []]));
    assert_eq!(port_state(&usual(), "gone_h"), PortState::Missing);
    assert_eq!(of(no_ids.clone(), none.clone()), PortState::Pending);
    assert_eq!(of(json!(["map", [["ovn-installed", "true"]]]), none), PortState::Installed);
    let late = json!("could not open network device 0123456789ab_h (No such device)");
    assert_eq!(of(no_ids.clone(), late), PortState::Pending);
    assert_eq!(of(no_ids, json!("busy")), PortState::Failed("busy".into()));
}

#[test]
fn observation_of_the_switch() {
    let replica = usual();
    let seen = observe_ovs(&replica);
    assert_eq!(&*seen.external_ids["ovn-encap-ip"], "10.0.0.1");
    assert_eq!(seen.ports.keys().map(|k| k.to_string()).collect::<Vec<_>>(), ["0123456789ab_h"]);
    assert_eq!(system_id(&replica).as_deref(), Some("chassis-1"));
    assert_eq!(datapath(&replica), Some(Datapath::Netdev));
    assert!(vendor_bridge_ports(&replica).is_empty(), "br-int has no vendor");
}
