//! The replica under `update2` notifications.

use std::collections::{BTreeMap, BTreeSet};

use kube_ovn::ovsdb::{
    datum::{Atom, Datum, Uuid},
    replica::{ChangeKind, Replica, ReplicaError, Scope, Update},
    schema::{Column, nb, sb},
};
use nb::{logical_switch as ls, logical_switch_port as lsp};
use proptest::prelude::*;
use serde_json::{Value, json};

const COLUMNS: &[Column] =
    &[lsp::NAME, lsp::ADDRESSES, lsp::EXTERNAL_IDS, lsp::TAG, lsp::UP, lsp::TYPE];

fn replica() -> Replica {
    let switch = &[ls::NAME, ls::PORTS, ls::EXTERNAL_IDS];
    let bfd = &[nb::bfd::LOGICAL_PORT, nb::bfd::DST_IP];
    Replica::new(
        &nb::DATABASE,
        &[(&nb::LOGICAL_SWITCH_PORT, COLUMNS), (&nb::LOGICAL_SWITCH, switch), (&nb::BFD, bfd)],
    )
}

fn update(scope: Scope, tables: Value) -> Update {
    let tables = serde_json::value::to_raw_value(&tables).unwrap().into();
    Update { scope, tables, transaction: Some(Uuid(9)) }
}

fn port(n: u128, change: Value) -> Value {
    json!({"Logical_Switch_Port": {Uuid(n).to_string(): change}})
}

fn delta(replica: &mut Replica, tables: Value) -> Vec<(Uuid, ChangeKind)> {
    let changes = replica.apply(&update(Scope::Delta, tables)).unwrap();
    let mut changes: Vec<_> = changes.into_iter().map(|c| (c.uuid, c.kind)).collect();
    changes.sort_by_key(|c| c.0);
    changes
}

#[test]
fn an_insert_leaves_default_values_out() {
    let mut r = replica();
    let changes = delta(&mut r, port(1, json!({"insert": {"name": "p"}})));
    assert_eq!(changes, [(Uuid(1), ChangeKind::Insert)]);
    let row = r.get(&nb::LOGICAL_SWITCH_PORT, Uuid(1)).unwrap();
    assert_eq!(row.text(lsp::NAME).map(|t| &**t), Some("p"));
    assert_eq!(row.text(lsp::TYPE).map(|t| &**t), Some(""));
    assert_eq!(row.get(lsp::TAG), Some(&Datum::Set(BTreeSet::new())));
    assert_eq!(row.get(lsp::ENABLED), None, "not monitored");
    assert_eq!(row.get(ls::NAME), None, "another table");
    assert_eq!(r.transaction(), Some(Uuid(9)));
}

#[test]
fn modify_is_a_difference_of_sets_and_maps_and_a_new_value_of_scalars() {
    let mut r = replica();
    let ids = json!(["map", [["same", "1"], ["other", "1"]]]);
    let first = json!({"name": "p", "addresses": ["set", ["a", "b"]], "external_ids": ids, "tag": 3, "up": true});
    delta(&mut r, port(1, json!({"initial": first})));
    let diff = json!({"addresses": ["set", ["b", "c"]], "tag": 4, "up": ["set", []],
        "external_ids": ["map", [["same", "1"], ["other", "2"], ["new", "3"]]]});
    assert_eq!(delta(&mut r, port(1, json!({"modify": diff}))), [(Uuid(1), ChangeKind::Modify)]);
    let row = r.by_name(&nb::LOGICAL_SWITCH_PORT, "p").unwrap();
    assert_eq!(row.get(lsp::ADDRESSES), Some(&Datum::Set(["a", "c"].map(Atom::from).into())));
    assert_eq!(row.get(lsp::TAG), Some(&Datum::one(4.into())));
    assert!(row.get(lsp::UP).unwrap().is_empty());
    let ids = [("other", "2"), ("new", "3")].map(|(k, v)| (Atom::from(k), Atom::from(v)));
    assert_eq!(row.get(lsp::EXTERNAL_IDS), Some(&Datum::Map(ids.into())));
}

#[test]
fn changes_carry_the_row_before() {
    let mut r = replica();
    delta(&mut r, port(1, json!({"insert": {"name": "p", "tag": 3}})));
    let gone = r.apply(&update(Scope::Delta, port(1, json!({"delete": null})))).unwrap();
    let before = gone[0].before.as_ref().unwrap();
    assert_eq!(before.get(lsp::TAG), Some(&Datum::one(3.into())));
    assert!(r.is_empty() && r.by_name(&nb::LOGICAL_SWITCH_PORT, "p").is_none());
    assert_eq!(delta(&mut r, port(1, json!({"delete": null}))), []);
}

#[test]
fn rows_are_found_by_id_and_follow_its_changes() {
    let mut r = replica();
    let with = |id: &str| json!({"external_ids": ["map", [["kube-ovn/id", id]]]});
    delta(&mut r, port(1, json!({"insert": with("pod:a:x")})));
    delta(&mut r, port(2, json!({"insert": with("pod:a:x")})));
    let found: Vec<_> =
        r.all_by_id(&nb::LOGICAL_SWITCH_PORT, "pod:a:x").map(|row| row.uuid).collect();
    assert_eq!(found, [Uuid(1), Uuid(2)]);
    assert_eq!(
        r.by_id(&nb::LOGICAL_SWITCH_PORT, "pod:a:x").unwrap().id().map(|i| &**i),
        Some("pod:a:x")
    );
    assert!(r.by_id(&nb::LOGICAL_SWITCH, "pod:a:x").is_none(), "per table");
    delta(&mut r, port(1, json!({"modify": with("pod:b:x")})));
    assert_eq!(r.by_id(&nb::LOGICAL_SWITCH_PORT, "pod:a:x").unwrap().uuid, Uuid(2));
    assert_eq!(r.by_id(&nb::LOGICAL_SWITCH_PORT, "pod:b:x").unwrap().uuid, Uuid(1));
    delta(&mut r, port(1, json!({"modify": with("pod:b:x")})));
    assert!(r.by_id(&nb::LOGICAL_SWITCH_PORT, "pod:b:x").is_none(), "the id was taken off");
}

#[test]
fn a_name_may_move_from_a_deleted_row_to_a_new_one_in_one_update() {
    for (old, new) in [(1, 2), (2, 1)] {
        let mut r = replica();
        delta(&mut r, port(old, json!({"insert": {"name": "p"}})));
        let both = json!({"Logical_Switch_Port": {
            Uuid(old).to_string(): {"delete": null}, Uuid(new).to_string(): {"insert": {"name": "p"}}}});
        delta(&mut r, both);
        assert_eq!(r.by_name(&nb::LOGICAL_SWITCH_PORT, "p").unwrap().uuid, Uuid(new));
    }
}

#[test]
fn rows_are_found_by_the_unique_columns_of_the_schema() {
    let mut r = replica();
    let row = |port: &str| json!({"insert": {"logical_port": port, "dst_ip": "1.1.1.1"}});
    delta(&mut r, json!({"BFD": {Uuid(1).to_string(): row("a"), Uuid(2).to_string(): row("b")}}));
    let key = |port: &str| {
        [
            (nb::bfd::DST_IP, Datum::one("1.1.1.1".into())),
            (nb::bfd::LOGICAL_PORT, Datum::one(port.into())),
        ]
    };
    assert_eq!(r.by_unique(&nb::BFD, &key("b")).unwrap().uuid, Uuid(2));
    assert!(r.by_unique(&nb::BFD, &key("c")).is_none());
    delta(&mut r, port(7, json!({"insert": {"name": "p"}})));
    assert_eq!(
        r.by_unique(&nb::LOGICAL_SWITCH_PORT, &[(lsp::NAME, Datum::one("p".into()))]).unwrap().uuid,
        Uuid(7)
    );
}

#[test]
fn a_snapshot_reports_only_differences() {
    let mut r = replica();
    let rows = |names: &[(u128, &str)]| {
        let rows: BTreeMap<String, Value> = names
            .iter()
            .map(|(n, name)| (Uuid(*n).to_string(), json!({"initial": {"name": name}})))
            .collect();
        json!({"Logical_Switch_Port": rows})
    };
    r.apply(&update(Scope::Snapshot, rows(&[(1, "a"), (2, "b"), (3, "c")]))).unwrap();
    let changes = r.apply(&update(Scope::Snapshot, rows(&[(2, "b"), (3, "x"), (4, "d")]))).unwrap();
    let mut changes: Vec<_> = changes.iter().map(|c| (c.uuid, c.kind)).collect();
    changes.sort_by_key(|c| c.0);
    assert_eq!(
        changes,
        [
            (Uuid(1), ChangeKind::Delete),
            (Uuid(3), ChangeKind::Modify),
            (Uuid(4), ChangeKind::Insert)
        ]
    );
    assert!(r.by_name(&nb::LOGICAL_SWITCH_PORT, "c").is_none());
    r.clear();
    assert!(
        r.is_empty()
            && r.transaction().is_none()
            && r.by_name(&nb::LOGICAL_SWITCH_PORT, "d").is_none()
    );
}

#[test]
fn updates_that_do_not_fit_are_errors() {
    let refused = |tables| replica().apply(&update(Scope::Delta, tables)).unwrap_err();
    assert!(matches!(refused(port(1, json!({"modify": {"name": "x"}}))), ReplicaError::Row { .. }));
    assert!(matches!(refused(port(1, json!({"insert": {"nosuch": 1}}))), ReplicaError::Row { .. }));
    assert!(matches!(refused(port(1, json!({"upsert": {}}))), ReplicaError::Row { .. }));
    assert!(matches!(refused(port(1, json!({"insert": {"name": 1}}))), ReplicaError::Value(_)));
    assert!(matches!(refused(json!({"ACL": {}})), ReplicaError::Table(_)));
    assert!(matches!(refused(json!({"Logical_Switch_Port": {"x": {}}})), ReplicaError::Row { .. }));
    assert!(matches!(refused(json!([])), ReplicaError::Malformed(_)));
}

#[test]
fn after_an_error_only_a_snapshot_counts() {
    let mut r = replica();
    r.apply(&update(Scope::Delta, port(1, json!({"modify": {"name": "x"}})))).unwrap_err();
    assert!(!r.is_current());
    assert_eq!(delta(&mut r, port(1, json!({"insert": {"name": "x"}}))), []);
    let row = port(1, json!({"initial": {"name": "x"}}));
    assert_eq!(r.apply(&update(Scope::Snapshot, row)).unwrap().len(), 1);
    assert!(r.is_current());
}

#[test]
fn a_replica_of_another_database_has_other_tables() {
    let r = Replica::new(&sb::DATABASE, &[(&sb::CHASSIS, &[sb::chassis::NAME])]);
    assert_eq!(r.rows(&nb::LOGICAL_SWITCH).count(), 0);
    assert_eq!(r.len(&sb::CHASSIS), 0);
}

/// The server's side of `modify` (`ovsdb_datum_diff`).
fn diff_sets(old: &BTreeSet<String>, new: &BTreeSet<String>) -> Value {
    json!(["set", old.symmetric_difference(new).collect::<Vec<_>>()])
}

fn diff_maps(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Value {
    let gone = old.iter().filter(|(k, _)| !new.contains_key(*k));
    let set = new.iter().filter(|(k, v)| old.get(*k) != Some(v));
    json!(["map", gone.chain(set).map(|(k, v)| json!([k, v])).collect::<Vec<_>>()])
}

proptest! {
    #[test]
    fn any_sequence_of_differences_ends_at_the_last_value(
        states in prop::collection::vec(
            (prop::collection::btree_set("[a-d]", 0..4), prop::collection::btree_map("[a-d]", "[x-z]", 0..4)), 2..6)
    ) {
        let mut r = replica();
        let (set, map) = &states[0];
        let none = (BTreeSet::new(), BTreeMap::new());
        let row = json!({"addresses": diff_sets(&none.0, set), "external_ids": diff_maps(&none.1, map)});
        delta(&mut r, port(1, json!({"insert": row})));
        for pair in states.windows(2) {
            let (old, new) = (&pair[0], &pair[1]);
            let row = json!({"addresses": diff_sets(&old.0, &new.0), "external_ids": diff_maps(&old.1, &new.1)});
            delta(&mut r, port(1, json!({"modify": row})));
        }
        let (set, map) = states.last().unwrap().clone();
        let row = r.get(&nb::LOGICAL_SWITCH_PORT, Uuid(1)).unwrap();
        let set = Datum::Set(set.into_iter().map(Atom::from).collect());
        let map = Datum::Map(map.into_iter().map(|(k, v)| (k.into(), v.into())).collect());
        prop_assert_eq!(row.get(lsp::ADDRESSES), Some(&set));
        prop_assert_eq!(row.get(lsp::EXTERNAL_IDS), Some(&map));
    }
}
