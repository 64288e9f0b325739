//! An object edited into something that is not valid, and a process that starts after that.

use kube::api::DynamicObject;
use kube_ovn::{
    api::{
        Kind, Subnet,
        parse::{parse_accepted_subnet, parse_subnet},
    },
    controller::reconcile::usage::obstacle,
    node::{feed, state::Change as NodeChange},
    store::{
        Wanted, last_valid,
        watch::{Change, Refused, Seen, Update, What, read_custom},
    },
};
use serde_json::{Value, json};

use crate::support::{cluster::Cluster, objects::*};

const GOOD: &str = "10.16.0.0/16";

fn raw(spec: Value, status: Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "kubeovn.io/v1", "kind": "Subnet",
        "metadata": {"name": "ovn-default", "uid": "u"}, "spec": spec, "status": status,
    }))
    .unwrap()
}

fn read(spec: Value, status: Value) -> (Seen, Result<Subnet, Refused>) {
    read_custom(raw(spec, status), |raw| parse_subnet(raw, &settings()))
}

/// The status after the controller accepted `spec`.
fn recorded(spec: Value) -> Value {
    let (seen, _) = read(spec, json!({}));
    let text = seen.spec.as_ref().unwrap().text();
    match last_valid::desired_record(Kind::Subnet, &"ovn-default".into(), text) {
        Some(Wanted::Status { status, .. }) => status,
        other => panic!("{other:?}"),
    }
}

fn last(refused: &Refused) -> Subnet {
    let object = refused.last_valid.as_ref().expect("the last valid version");
    object.as_any().downcast_ref::<Subnet>().unwrap().clone()
}

/// An invalid edit, then a restart of the controller: nothing is written, no port goes.
#[test]
fn a_restart_with_an_invalid_subnet_keeps_the_ports_of_its_pods() {
    let (_, before) = read(json!({"cidrBlock": GOOD}), json!({}));
    let before = before.unwrap();
    let mut cluster = Cluster::with([
        shared(settings()),
        shared(vpc("ovn-cluster")),
        shared(subnet("join", "100.64.0.0/16")),
        shared(before.clone()),
        shared(namespace("default")),
        shared(pod("default", "a", Some("node1"))),
        shared(pod_ip("default", "a", "ovn-default", "10.16.0.2")),
    ]);
    assert!(cluster.nb.dump().contains("a.default"), "{}", cluster.nb.dump());
    let wrong = json!({"cidrBlock": GOOD, "gateway": "10.99.0.1"});
    let (_, after) = read(wrong.clone(), recorded(json!({"cidrBlock": GOOD})));
    let refused = after.unwrap_err();
    assert!(refused.invalid[0].message.contains("10.99.0.1"), "{:?}", refused.invalid);
    assert_eq!(last(&refused), before);
    // The new process never saw the valid spec.
    cluster.store.remove(Kind::Subnet, "ovn-default");
    cluster.store.upsert(refused.last_valid.unwrap());
    assert_eq!(cluster.restart(), 0);
    // Without the record all of it would go.
    let (_, unrecorded) = read(wrong, json!({}));
    assert!(unrecorded.unwrap_err().last_valid.is_none());
    cluster.store.remove(Kind::Subnet, "ovn-default");
    assert!(cluster.restart() > 0);
}

#[test]
fn the_record_is_ignored_while_the_spec_is_valid() {
    let status = recorded(json!({"cidrBlock": GOOD, "private": true}));
    let (_, parsed) = read(json!({"cidrBlock": GOOD, "private": false}), status.clone());
    assert!(!parsed.unwrap().private);
    // Neither does its age or text matter to an object that is malformed.
    let (_, parsed) = read(json!({"cidrBlock": 5}), status);
    assert!(last(&parsed.unwrap_err()).private);
}

#[test]
fn a_record_that_cannot_be_used_counts_as_none() {
    for record in [json!("{"), json!(7), json!("{\"cidrBlock\":\"10.0.0.0/99\"}"), Value::Null] {
        let (_, parsed) = read(json!({}), json!({"lastValidSpec": record}));
        assert!(parsed.unwrap_err().last_valid.is_none());
    }
}

#[test]
fn only_kinds_with_the_field_and_specs_of_sane_size_are_recorded() {
    let record = |kind, spec: &str| last_valid::desired_record(kind, &"x".into(), spec);
    assert!(record(Kind::Vpc, "{}").is_some());
    assert!(record(Kind::IpPool, "{}").is_some());
    assert_eq!(record(Kind::Pod, "{}"), None);
    assert_eq!(record(Kind::Vpc, &"x".repeat(300_000)), None);
}

/// What another subnet is in the way of is valid by itself, but not in force: nodes, which go by
/// the record, do nothing for it, until the way is free.
#[test]
fn a_refused_subnet_is_not_recorded_and_no_node_acts_on_it() {
    let mut cluster = Cluster::with([
        shared(settings()),
        shared(vpc("ovn-cluster")),
        shared(subnet("ovn-default", GOOD)),
        shared(Subnet { created: 5, ..subnet("late", "10.16.8.0/24") }),
        shared(Subnet { vpc: "absent".into(), ..subnet("lost", "10.30.0.0/24") }),
    ]);
    let accepted = |cluster: &Cluster, name| obstacle(&cluster.store, Kind::Subnet, name).is_none();
    assert!(accepted(&cluster, "ovn-default"));
    assert!(!accepted(&cluster, "late") && !accepted(&cluster, "lost"));
    let unrecorded = raw(json!({"cidrBlock": GOOD, "natOutgoing": true}), json!({}));
    let (seen, parsed) = read_custom(unrecorded, |raw| parse_accepted_subnet(raw, &settings()));
    let what = What::Refused(parsed.unwrap_err(), std::sync::Arc::new(seen));
    let update = Update::Change(Change { kind: Kind::Subnet, key: "late".into(), what });
    assert!(feed::changes(update).is_empty());
    cluster.store.remove(Kind::Subnet, "ovn-default");
    assert!(accepted(&cluster, "late"));
}

/// A node agent that starts while the spec is malformed finds what was in force.
#[test]
fn a_node_finds_the_record_of_a_malformed_subnet() {
    let status = recorded(json!({"cidrBlock": GOOD}));
    for wrong in [json!({"cidrBlock": 5}), json!({"cidrBlock": "nonsense"})] {
        let raw = raw(wrong, status.clone());
        let (_, parsed) = read_custom(raw, |raw| parse_accepted_subnet(raw, &settings()));
        let cidrs = match &parsed {
            Ok(subnet) => subnet.cidrs,
            Err(refused) => last(refused).cidrs,
        };
        assert_eq!(cidrs.to_string(), GOOD);
    }
}

/// The node agents, too: routes and sets of the subnet stay.
#[test]
fn a_node_goes_by_the_record() {
    let change = |status| {
        let (seen, parsed) = read(json!({"cidrBlock": "nonsense"}), status);
        let what = What::Refused(parsed.unwrap_err(), std::sync::Arc::new(seen));
        let key = "ovn-default".into();
        feed::changes(Update::Change(Change { kind: Kind::Subnet, key, what }))
    };
    let mut status = recorded(json!({"cidrBlock": GOOD}));
    status["activateGateway"] = json!("node2");
    match &change(status)[..] {
        [NodeChange::SubnetStatus(_, status), NodeChange::Upsert(object)] => {
            assert_eq!(&*status.active_gateways[0], "node2");
            assert_eq!(object.kind(), Kind::Subnet);
        }
        other => panic!("{other:?}"),
    }
    assert!(change(json!({})).is_empty(), "what is in force stays");
}
