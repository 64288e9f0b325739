//! Records that were edited while nobody led: whatever they say now, an address in use stays with
//! its pod. Port and annotations witness it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use kube_ovn::{
    api::{Ip, Kind, Pod, Subnet, Text},
    controller::{
        commit,
        ledger::{
            Action,
            witness::{self, Heard, Testimony, hear, parse_port_addresses},
        },
    },
    ovsdb::{
        replica::{Replica, Scope, Update},
        schema::nb,
    },
    store::watch::{Json, Seen, SeenMap},
};
use proptest::prelude::*;
use serde_json::json;

use crate::{
    ledger::{World, names},
    support::objects::*,
};

fn port_of(ip: &Ip) -> Testimony {
    Testimony { subnet: Some(ip.subnet.clone()), addresses: ip.addresses, mac: ip.mac }
}

/// The pod as the controller annotated it.
fn set_up(pod: Pod, ip: &Ip) -> Pod {
    let mut pod = pod;
    let values = [
        ("allocated", "true".to_owned()),
        ("ip_address", ip.addresses.to_string()),
        ("mac_address", ip.mac.unwrap().to_string()),
        ("logical_switch", ip.subnet.to_string()),
    ];
    for (name, value) in values {
        pod.annotations.insert(format!("ovn.kubernetes.io/{name}").into(), value.as_str().into());
    }
    pod
}

/// What a new leader makes of what it finds.
fn listen(world: &mut World, seen: &SeenMap, ports: &HashMap<Text, Testimony>) -> Heard {
    let heard = hear(&world.store, seen, ports);
    world.ledger.take_heard(&heard);
    heard.restored.iter().for_each(|ip| world.put(shared(ip.clone())));
    heard
}

/// One pod with an address, as a new leader finds it: its record and its port.
fn running() -> (Pod, Ip, HashMap<Text, Testimony>) {
    let mut world = World::new();
    let plain = pod("default", "a", Some("node1"));
    world.put(shared(plain.clone()));
    let ip = world.settle().remove(0);
    let ports = HashMap::from([(ip.name.clone(), port_of(&ip))]);
    (set_up(plain, &ip), ip, ports)
}

fn found(pod: &Pod, record: Option<&Ip>) -> World {
    let mut world = World::new();
    world.put(shared(subnet("blue", "10.17.0.0/29")));
    record.into_iter().for_each(|ip| world.put(shared(ip.clone())));
    world.put(shared(pod.clone()));
    world
}

#[test]
fn a_record_stands_while_one_witness_agrees() {
    let (pod, ip, mut ports) = running();
    // An old backup of the database, or an edit of the port.
    ports.get_mut(&ip.name).unwrap().addresses = addresses("10.16.0.6");
    assert_eq!(listen(&mut found(&pod, Some(&ip)), &SeenMap::default(), &ports), Heard::default());
    // An edit of the annotations.
    let (mut pod, ip, ports) = running();
    pod.annotations.insert("ovn.kubernetes.io/ip_address".into(), "10.16.0.5".into());
    assert_eq!(listen(&mut found(&pod, Some(&ip)), &SeenMap::default(), &ports), Heard::default());
    // Nobody but the annotations: users write them.
    let none = HashMap::new();
    assert_eq!(listen(&mut found(&pod, Some(&ip)), &SeenMap::default(), &none), Heard::default());
}

#[test]
fn a_record_of_another_pod_gets_its_pod_back() {
    let (pod, ip, ports) = running();
    for annotated in [true, false] {
        let mut pod = pod.clone();
        if !annotated {
            pod.annotations.clear();
        }
        let edits = [
            Ip { pod_name: "b".into(), ..ip.clone() },
            Ip { namespace: "".into(), ..ip.clone() },
            Ip { pod_type: "VirtualMachine".into(), ..ip.clone() },
            Ip { addresses: addresses("10.16.0.6"), ..ip.clone() },
            Ip { addresses: Default::default(), ..ip.clone() },
            Ip { mac: None, ..ip.clone() },
            Ip { subnet: "blue".into(), ..ip.clone() },
            Ip { managed: false, ..ip.clone() },
        ];
        for edited in edits {
            let mut world = found(&pod, Some(&edited));
            let heard = listen(&mut world, &SeenMap::default(), &ports);
            assert_eq!(heard.restored, std::slice::from_ref(&ip), "{edited:?}");
            assert_eq!(world.actions(), vec![], "{edited:?}");
            let held = world.ledger.ipam().allocation(&ip.name).unwrap();
            assert_eq!((held.addresses, &*held.owner), (ip.addresses, "default/a"));
        }
    }
}

#[test]
fn a_record_that_cannot_be_read_is_written_anew() {
    let (pod, ip, ports) = running();
    let spec = json!({"podName": "a", "namespace": "default", "v4IpAddress": "10.16.0."});
    let mut seen = SeenMap::default();
    let it = Seen { spec: Some(Json::from(&spec)), ..Seen::default() };
    seen.insert(Kind::Ip, ip.name.clone(), Arc::new(it));
    for ports in [ports, HashMap::new()] {
        let mut world = found(&pod, None);
        let heard = listen(&mut world, &seen, &ports);
        assert_eq!(heard.restored, [Ip { node: "".into(), ..ip.clone() }]);
        assert_eq!(world.actions(), vec![]);
    }
}

#[test]
fn an_address_without_a_record_is_held_and_recorded_again() {
    let (pod, ip, ports) = running();
    for ports in [ports, HashMap::new()] {
        let mut world = found(&pod, None);
        // Looked at first, and it would take the lowest address.
        world.put(shared(crate::support::objects::pod("default", "0", Some("node1"))));
        assert_eq!(listen(&mut world, &SeenMap::default(), &ports).held.len(), 1);
        let recorded = world.settle();
        assert_eq!(recorded.len(), 2);
        for record in recorded {
            assert_eq!(record.addresses == ip.addresses, &*record.pod_name == "a", "{record:?}");
        }
    }
}

#[test]
fn a_node_keeps_its_join_address() {
    let mut world = World::new();
    world.put(shared(node("node1", "172.18.0.2")));
    let ip = world.settle().remove(0);
    let ports = HashMap::from([(ip.name.clone(), port_of(&ip))]);
    let edited = Ip { addresses: addresses("100.64.0.99"), ..ip.clone() };
    world.put(shared(edited));
    assert_eq!(listen(&mut world, &SeenMap::default(), &ports).restored, [ip]);
}

#[test]
fn an_address_that_another_record_has_is_nobodys_to_restore() {
    let (pod, ip, ports) = running();
    let edited = Ip { addresses: addresses("10.16.0.5"), ..ip.clone() };
    let mut world = found(&pod, Some(&edited));
    let other =
        Ip { addresses: ip.addresses, ..pod_ip("default", "z", "ovn-default", "10.16.0.2") };
    world.put(shared(other));
    let heard = listen(&mut world, &SeenMap::default(), &ports);
    assert_eq!((heard.restored, heard.held), (vec![], vec![]));
    assert!(heard.conflicts[0].contains("z.default"), "{:?}", heard.conflicts);
}

#[test]
fn what_a_gone_pod_left_is_not_put_right() {
    let (_, ip, ports) = running();
    let mut world = World::new();
    world.put(shared(Ip { addresses: addresses("10.16.0.6"), ..ip }));
    assert_eq!(listen(&mut world, &SeenMap::default(), &ports), Heard::default());
}

#[test]
fn a_record_that_is_torn_away_is_made_again_with_its_address() {
    let mut world = World::new();
    world.put(shared(pod("default", "a", Some("node1"))));
    let ip = world.settle().remove(0);
    // Its finalizer was taken off: no deletion was seen before, or it was not finished.
    for deleting in [false, true] {
        world.put(shared(Ip { deleting, ..ip.clone() }));
        world.remove(Kind::Ip, &ip.name);
        world.put(shared(pod("default", "0", Some("node1"))));
        let recorded = world.settle();
        let again = recorded.iter().find(|record| record.name == ip.name).unwrap();
        assert_eq!((again.addresses, again.mac), (ip.addresses, ip.mac));
        world.remove(Kind::Pod, "default/0");
        world.settle();
    }
}

#[test]
fn an_unrecorded_address_waits_for_its_port_to_leave() {
    let mut world = World::new();
    world.put(shared(pod("default", "a", Some("node1"))));
    let ip = world.record();
    // The answer was lost, and the pod goes; its port may stand.
    world.ledger.write_failed(&ip.name.clone(), &Action::Record(ip));
    world.remove(Kind::Pod, "default/a");
    world.port_stands = true;
    assert_eq!(world.actions(), vec![]);
    assert!(!world.ledger.is_idle());
    world.port_stands = false;
    assert_eq!(names(&world.actions()), vec![("delete", "a.default".into())]);
}

#[test]
fn ports_are_read_from_the_database() {
    let (mac, ips) = parse_port_addresses("02:00:00:00:00:01 10.16.0.2 fd00::2").unwrap();
    assert_eq!(
        (mac.to_string().as_str(), ips),
        ("02:00:00:00:00:01", addresses("10.16.0.2,fd00::2"))
    );
    for text in ["unknown", "router", "dynamic", "02:00:00:00:00:01", ""] {
        assert!(parse_port_addresses(text).is_none(), "{text:?}");
    }
    let mut replica = Replica::new(&nb::DATABASE, &commit::monitored());
    let row = |name: &str, id: &str, set: serde_json::Value| {
        json!({"initial": {"name": name, "addresses": set,
            "external_ids": ["map", [["ls", "ovn-default"], [id, "pod:a.default:port"]]]}})
    };
    let ours = json!(["set", ["02:00:00:00:00:01 10.16.0.2", "unknown"]]);
    let rows = json!({"Logical_Switch_Port": {
        "00000000-0000-0000-0000-000000000001": row("a.default", "kube-ovn/id", ours),
        "00000000-0000-0000-0000-000000000002":
            row("b.default", "other", json!("02:00:00:00:00:02 10.16.0.3")),
        "00000000-0000-0000-0000-000000000003": row("r", "kube-ovn/id", json!("router")),
    }});
    let tables = serde_json::value::to_raw_value(&rows).unwrap().into();
    replica.apply(&Update { scope: Scope::Snapshot, tables, transaction: None }).unwrap();
    let ports = witness::ports(&replica);
    assert_eq!(ports.len(), 1);
    let a = &ports["a.default"];
    assert_eq!((a.addresses, a.subnet.as_deref()), (addresses("10.16.0.2"), Some("ovn-default")));
}

#[derive(Debug, Clone, Copy)]
enum Edit {
    Address(u8),
    NoAddress,
    Pod(u8),
    Subnet,
    Unmanaged,
    Unreadable,
    Removed,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (0..16u8).prop_map(Edit::Address),
        Just(Edit::NoAddress),
        (0..12u8).prop_map(Edit::Pod),
        Just(Edit::Subnet),
        Just(Edit::Unmanaged),
        Just(Edit::Unreadable),
        Just(Edit::Removed),
    ]
}

fn edited(ip: &Ip, edit: Edit) -> Option<Ip> {
    let ip = ip.clone();
    match edit {
        Edit::Address(n) => Some(Ip { addresses: addresses(&format!("10.18.0.{n}")), ..ip }),
        Edit::NoAddress => Some(Ip { addresses: Default::default(), ..ip }),
        Edit::Pod(n) => Some(Ip { pod_name: format!("p{n}").into(), ..ip }),
        Edit::Subnet => Some(Ip { subnet: "blue".into(), ..ip }),
        Edit::Unmanaged => Some(Ip { managed: false, ..ip }),
        Edit::Unreadable | Edit::Removed => None,
    }
}

fn roomy() -> World {
    let mut world = World::new();
    let green = Subnet { namespaces: vec!["default".into()], ..subnet("green", "10.18.0.0/28") };
    world.put(shared(green));
    world.put(shared(subnet("blue", "10.17.0.0/29")));
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// Six pods run; some records are edited, nobody leads; six new pods ask before them.
    #[test]
    fn no_edit_gives_an_address_in_use_away(
        edits in prop::collection::btree_map(0..6u8, edit(), 0..6),
        bare in prop::collection::btree_set(0..6u8, 0..6),
        order in any::<bool>(),
    ) {
        let mut before = roomy();
        for n in 0..6 {
            before.put(shared(pod("default", &format!("p{n}"), Some("node1"))));
        }
        let used: BTreeMap<Text, Ip> =
            before.settle().into_iter().map(|ip| (ip.name.clone(), ip)).collect();
        prop_assert_eq!(used.len(), 6);
        let ports = used.iter().map(|(name, ip)| (name.clone(), port_of(ip))).collect();

        let mut world = roomy();
        let mut seen = SeenMap::default();
        let mut objects = Vec::new();
        for (n, ip) in (0..).zip(used.values()) {
            let plain = pod("default", &ip.pod_name, Some("node1"));
            // Some were not told of their address yet.
            let user = if bare.contains(&n) { plain } else { set_up(plain, ip) };
            objects.push(shared(user));
            let record = match edits.get(&n) {
                Some(edit) => edited(ip, *edit),
                None => Some(ip.clone()),
            };
            if record.is_some() || matches!(edits.get(&n), Some(Edit::Unreadable)) {
                seen.insert(Kind::Ip, ip.name.clone(), Arc::default());
            }
            objects.extend(record.map(shared));
            objects.push(shared(pod("default", &format!("0{n}"), Some("node1"))));
        }
        if order {
            objects.reverse();
        }
        objects.into_iter().for_each(|object| world.put(object));
        listen(&mut world, &seen, &ports);
        world.settle();

        let mut holders: BTreeMap<String, Vec<Text>> = BTreeMap::new();
        for (port, _, allocation) in world.ledger.ipam().allocations() {
            holders.entry(allocation.addresses.to_string()).or_default().push(port.clone());
        }
        for (address, ports) in &holders {
            prop_assert_eq!(ports.len(), 1, "{} is held by {:?}", address, ports);
        }
        for (name, ip) in &used {
            prop_assert_eq!(&holders[&ip.addresses.to_string()], &vec![name.clone()]);
            let record = world.store.get::<Ip>(name).unwrap();
            prop_assert_eq!((record.addresses, &record.pod_name), (ip.addresses, &ip.pod_name));
        }
    }
}
