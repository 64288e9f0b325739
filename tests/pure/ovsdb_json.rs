//! Values and transactions as JSON.

use std::collections::BTreeMap;

use kube_ovn::ovsdb::{
    datum::{Atom, Datum, Real, Uuid},
    json::{parse_datum, render_datum},
    schema::{Column, nb, sb, vswitch},
    transaction::{
        Cell, Condition, Item, Mutation, NamedUuid, Operation, OperationResult, Outcome, Target,
        Transaction,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};

const PORT: &str = "0a1b2c3d-0000-1111-2222-333344445555";

fn uuid() -> Uuid {
    PORT.parse().unwrap()
}

fn round(column: Column, value: Value) -> Datum {
    let datum = parse_datum(column, &value).unwrap();
    assert_eq!(render_datum(&datum), value);
    datum
}

#[test]
fn a_set_of_one_is_a_bare_atom() {
    use nb::logical_switch_port as lsp;
    assert_eq!(round(lsp::NAME, json!("a.b")).text().map(|t| &**t), Some("a.b"));
    assert_eq!(round(lsp::TAG, json!(7)), Datum::one(7.into()));
    assert_eq!(round(nb::logical_switch::PORTS, json!(["uuid", PORT])), Datum::one(uuid().into()));
    assert_eq!(round(lsp::UP, json!(true)), Datum::one(true.into()));
    let tagged = parse_datum(lsp::TAG, &json!(["set", [7]])).unwrap();
    assert_eq!(tagged, Datum::one(7.into()));
}

#[test]
fn empty_and_larger_sets_are_tagged() {
    use nb::logical_switch_port as lsp;
    assert!(round(lsp::ADDRESSES, json!(["set", []])).is_empty());
    assert_eq!(
        round(lsp::ADDRESSES, json!(["set", ["a", "b"]])),
        Datum::Set(["a", "b"].map(Atom::from).into())
    );
}

#[test]
fn maps_are_tagged_always() {
    let ids = nb::logical_switch::EXTERNAL_IDS;
    assert!(round(ids, json!(["map", []])).is_empty());
    assert_eq!(round(ids, json!(["map", [["k", "v"]]])).entry("k").map(|t| &**t), Some("v"));
    let tables = round(vswitch::bridge::FLOW_TABLES, json!(["map", [[3, ["uuid", PORT]]]]));
    assert_eq!(tables, Datum::Map([(3.into(), uuid().into())].into()));
}

/// `\"}` ended a message for the scanner of another client.
#[test]
fn strings_may_hold_quotes_braces_and_any_character() {
    for text in ["\\\"}", "{\"a\": [", "é\u{1F980}\n\t\u{0}", ""] {
        round(nb::acl::MATCH, json!(text));
    }
}

#[test]
fn a_real_may_be_written_as_an_integer() {
    let element = parse_datum(vswitch::interface::LINK_SPEED, &json!(10_000_000_000_i64)).unwrap();
    assert_eq!(element, Datum::one(10_000_000_000.into()));
    assert_eq!(render_datum(&Datum::one(Atom::Real(Real(1.5)))), json!(1.5));
}

#[test]
fn errors_name_table_column_and_value() {
    let error = |column, value| parse_datum(column, &value).unwrap_err().to_string();
    assert_eq!(
        error(sb::port_binding::TUNNEL_KEY, json!("1")),
        "Port_Binding.tunnel_key: expected integer, found \"1\""
    );
    assert_eq!(
        error(nb::acl::EXTERNAL_IDS, json!(["set", []])),
        "ACL.external_ids: expected a map, found [\"set\",[]]"
    );
    assert!(error(nb::logical_switch::PORTS, json!(["uuid", "x"])).contains("expected uuid"));
    assert!(error(nb::logical_switch::PORTS, json!(["set", 1])).contains("expected a set"));
}

#[test]
fn transactions_refer_to_new_rows_by_name() {
    let port = NamedUuid::numbered(0);
    let row = BTreeMap::from([
        (nb::logical_switch_port::NAME, Cell::one("p")),
        (nb::logical_switch_port::EXTERNAL_IDS, Cell::map([("a", "b")])),
    ]);
    let transaction = Transaction {
        operations: vec![
            Operation::Insert { table: &nb::LOGICAL_SWITCH_PORT, named: Some(port.clone()), row },
            Operation::Mutate {
                table: &nb::LOGICAL_SWITCH,
                target: uuid().into(),
                mutations: vec![Mutation::insert(
                    nb::logical_switch::PORTS,
                    Cell::reference(&port),
                )],
            },
        ],
    };
    assert_eq!(
        transaction.to_params(&nb::DATABASE),
        json!(["OVN_Northbound",
            {"op": "insert", "table": "Logical_Switch_Port", "uuid-name": "row0",
             "row": {"name": "p", "external_ids": ["map", [["a", "b"]]]}},
            {"op": "mutate", "table": "Logical_Switch",
             "where": [["_uuid", "==", ["uuid", PORT]]],
             "mutations": [["ports", "insert", ["named-uuid", "row0"]]]},
        ])
    );
}

#[test]
fn the_epoch_wait_has_no_timeout() {
    let epoch = Datum::Map([("epoch".into(), "7".into())].into());
    let wait = Operation::Wait {
        table: &nb::NB_GLOBAL,
        condition: Condition::Includes(nb::nb_global::EXTERNAL_IDS, epoch),
    };
    assert_eq!(
        Transaction { operations: vec![wait] }.to_params(&nb::DATABASE)[1],
        json!({"op": "wait", "table": "NB_Global", "timeout": 0,
            "where": [["external_ids", "includes", ["map", [["epoch", "7"]]]]],
            "columns": ["_uuid"], "until": "!=", "rows": []})
    );
}

#[test]
fn every_other_operation() {
    let ids = nb::nb_global::EXTERNAL_IDS;
    let entries = BTreeMap::from([("k".into(), Item::from("v"))]);
    let operations = vec![
        Operation::Update {
            table: &nb::NB_GLOBAL,
            target: Target::Where(vec![]),
            row: BTreeMap::from([(nb::nb_global::IPSEC, Cell::one(true))]),
        },
        Operation::Mutate {
            table: &nb::NB_GLOBAL,
            target: Target::Where(vec![]),
            mutations: Mutation::put(ids, entries).into(),
        },
        Operation::Delete { table: &nb::ACL, target: Target::New(NamedUuid::numbered(1)) },
        Operation::Comment("why".into()),
    ];
    let params = Transaction { operations }.to_params(&nb::DATABASE);
    assert_eq!(
        params[1],
        json!({"op": "update", "table": "NB_Global", "where": [], "row": {"ipsec": true}})
    );
    assert_eq!(
        params[2]["mutations"],
        json!([["external_ids", "delete", "k"], ["external_ids", "insert", ["map", [["k", "v"]]]]])
    );
    assert_eq!(params[3]["where"], json!([["_uuid", "==", ["named-uuid", "row1"]]]));
    assert_eq!(params[4], json!({"op": "comment", "comment": "why"}));
}

#[test]
fn outcomes() {
    let reply = json!([{"uuid": ["uuid", PORT]}, {"count": 2}, {}]);
    let outcome = Outcome::parse(&reply, 3).unwrap().unwrap();
    assert_eq!(
        outcome.results,
        [OperationResult::Inserted(uuid()), OperationResult::Matched(2), OperationResult::Done]
    );
    assert_eq!(outcome.inserted(0), Some(uuid()));
    assert_eq!(outcome.inserted(1), None);
}

#[test]
fn refusals_name_the_operation_or_the_commit() {
    let refused = |reply| Outcome::parse(&reply, 2).unwrap().unwrap_err();
    let first = refused(json!([{"error": "timed out", "details": "\"wait\" timed out"}, null]));
    assert!(first.is_unmet_wait() && first.index == Some(0));
    let commit = refused(
        json!([{"count": 1}, {"count": 1}, {"error": "constraint violation", "details": "d"}]),
    );
    assert_eq!((commit.index, commit.to_string().as_str()), (None, "constraint violation: d"));
    assert!(Outcome::parse(&json!([{}]), 2).is_err());
    assert!(Outcome::parse(&json!({}), 2).is_err());
    assert!(Outcome::parse(&json!([1, 2]), 2).is_err());
}

proptest! {
    #[test]
    fn any_set_and_map_survives(
        set in prop::collection::btree_set(".{0,4}", 0..4),
        map in prop::collection::btree_map(".{0,4}", ".{0,4}", 0..4),
    ) {
        let set = Datum::Set(set.into_iter().map(Atom::from).collect());
        prop_assert_eq!(&parse_datum(nb::address_set::ADDRESSES, &render_datum(&set)).unwrap(), &set);
        let map = Datum::Map(map.into_iter().map(|(k, v)| (k.into(), v.into())).collect());
        prop_assert_eq!(&parse_datum(nb::address_set::EXTERNAL_IDS, &render_datum(&map)).unwrap(), &map);
    }
}
