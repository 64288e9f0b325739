//! Queues, policing and the mirror in the vswitch database. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::ovs_rows::{integer, text_map};
use crate::{
    api::Text,
    host::{INTEGRATION_BRIDGE, MirrorScope, OvsMirror, PortShaping, QosRow},
    ovsdb::{
        datum::{Atom, Datum, Uuid},
        replica::{Replica, Row},
        schema::{
            Column, Table,
            vswitch::{self, bridge, interface, mirror, port, qos, queue},
        },
        transaction::{Cell, Item, Mutation, NamedUuid, Operation, Target, Transaction},
    },
};

/// Key that marks queueing rows as ours; ovn-controller's have another.
const OURS: &str = "iface-id";
/// Name of the mirror.
const MIRROR: &str = "m0";

/// Tables that this file reads, beside those of ports.
pub const MONITORED: [(&Table, &[Column]); 3] = [
    (&vswitch::QOS, &[qos::TYPE, qos::OTHER_CONFIG, qos::QUEUES, qos::EXTERNAL_IDS]),
    (&vswitch::QUEUE, &[queue::OTHER_CONFIG, queue::EXTERNAL_IDS]),
    (
        &vswitch::MIRROR,
        &[mirror::NAME, mirror::OUTPUT_PORT, mirror::SELECT_ALL, mirror::SELECT_DST_PORT],
    ),
];

fn is_ours(row: &Row, ids: Column) -> bool {
    row.entry(ids, OURS).is_some()
}

fn first(row: &Row, column: Column) -> Option<Uuid> {
    row.get(column)?.uuids().next()
}

/// The QoS row of a port, if it is ours.
fn qos_of<'r>(replica: &'r Replica, port_row: &Row) -> Option<&'r Row> {
    let row = replica.get(&vswitch::QOS, first(port_row, port::QOS)?)?;
    is_ours(row, qos::EXTERNAL_IDS).then_some(row)
}

/// Queue 0 of a QoS row.
fn queue_of<'r>(replica: &'r Replica, row: &Row) -> Option<&'r Row> {
    let Some(Datum::Map(map)) = row.get(qos::QUEUES) else { return None };
    let Some(Atom::Uuid(uuid)) = map.get(&Atom::Integer(0)) else { return None };
    replica.get(&vswitch::QUEUE, *uuid)
}

/// Limits of a port. A QoS row that somebody else made is not seen.
pub fn observe_shaping(replica: &Replica, port_row: &Row, interface_row: &Row) -> PortShaping {
    let qos = qos_of(replica, port_row).map(|row| QosRow {
        kind: row.text(qos::TYPE).cloned().unwrap_or_default(),
        other_config: text_map(row, qos::OTHER_CONFIG),
        queue: queue_of(replica, row).map(|q| text_map(q, queue::OTHER_CONFIG)),
        external_ids: text_map(row, qos::EXTERNAL_IDS),
    });
    let rate = |column| integer(interface_row, column).unwrap_or(0);
    PortShaping {
        policing_rate: rate(interface::INGRESS_POLICING_RATE),
        policing_burst: rate(interface::INGRESS_POLICING_BURST),
        qos,
    }
}

/// Rows of ours that nothing refers to: they are roots and outlive their ports.
fn stale_rows(replica: &Replica) -> Vec<(&'static Table, Uuid)> {
    let used = |table, column| -> BTreeSet<Uuid> {
        let rows = replica.rows(table);
        rows.filter_map(|r: &Row| r.get(column)).flat_map(referred).collect()
    };
    let mut stale = Vec::new();
    for (table, ids, used) in [
        (&vswitch::QOS, qos::EXTERNAL_IDS, used(&vswitch::PORT, port::QOS)),
        (&vswitch::QUEUE, queue::EXTERNAL_IDS, used(&vswitch::QOS, qos::QUEUES)),
    ] {
        let rows = replica.rows(table).filter(|r| is_ours(r, ids) && !used.contains(&r.uuid));
        stale.extend(rows.map(|r| (table, r.uuid)));
    }
    stale
}

/// UUIDs in a set, or among the values of a map.
fn referred(datum: &Datum) -> Vec<Uuid> {
    let Datum::Map(map) = datum else { return datum.uuids().collect() };
    let values = map.values();
    values.filter_map(|atom| if let Atom::Uuid(uuid) = atom { Some(*uuid) } else { None }).collect()
}

/// `true` when [`sweep_queues`] has work.
pub fn has_stale_queues(replica: &Replica) -> bool {
    !stale_rows(replica).is_empty()
}

pub(super) fn sweep_queues(transaction: &mut Transaction, replica: &Replica) {
    let stale = stale_rows(replica).into_iter();
    transaction
        .operations
        .extend(stale.map(|(table, uuid)| Operation::Delete { table, target: Target::Uuid(uuid) }));
}

fn texts(map: &BTreeMap<Text, Text>) -> Cell {
    Cell::map(map.iter().map(|(k, v)| (k.clone(), Atom::Text(v.clone()))))
}

fn update(table: &'static Table, uuid: Uuid, row: BTreeMap<Column, Cell>) -> Operation {
    Operation::Update { table, target: Target::Uuid(uuid), row }
}

/// Brings a port to its limits. Rows that lose their last reference are swept in the next round.
pub(super) fn set_shaping(
    transaction: &mut Transaction,
    replica: &Replica,
    name: &str,
    wanted: &PortShaping,
) {
    let (Some(port_row), Some(interface_row)) =
        (replica.by_name(&vswitch::PORT, name), replica.by_name(&vswitch::INTERFACE, name))
    else {
        return;
    };
    let seen = observe_shaping(replica, port_row, interface_row);
    let policing = |s: &PortShaping| (s.policing_rate, s.policing_burst);
    if policing(&seen) != policing(wanted) {
        let row = BTreeMap::from([
            (interface::INGRESS_POLICING_RATE, Cell::one(Atom::from(wanted.policing_rate))),
            (interface::INGRESS_POLICING_BURST, Cell::one(Atom::from(wanted.policing_burst))),
        ]);
        transaction.operations.push(update(&vswitch::INTERFACE, interface_row.uuid, row));
    }
    match (&wanted.qos, qos_of(replica, port_row)) {
        (None, None) => {}
        (None, Some(_)) => {
            let row = BTreeMap::from([(port::QOS, Cell::Set(BTreeSet::new()))]);
            transaction.operations.push(update(&vswitch::PORT, port_row.uuid, row));
        }
        (Some(qos), current) => set_qos(transaction, replica, port_row, (qos, current)),
    }
}

fn set_qos(
    transaction: &mut Transaction,
    replica: &Replica,
    port_row: &Row,
    (wanted, current): (&QosRow, Option<&Row>),
) {
    let queues = match (&wanted.queue, current.and_then(|row| queue_of(replica, row))) {
        (None, _) => Cell::Map(BTreeMap::new()),
        (Some(config), Some(row)) => {
            if text_map(row, queue::OTHER_CONFIG) != *config {
                let columns = BTreeMap::from([(queue::OTHER_CONFIG, texts(config))]);
                transaction.operations.push(update(&vswitch::QUEUE, row.uuid, columns));
            }
            Cell::map([(Atom::Integer(0), Item::Atom(Atom::Uuid(row.uuid)))])
        }
        (Some(config), None) => {
            let named = NamedUuid::numbered(transaction.operations.len());
            transaction.operations.push(Operation::Insert {
                table: &vswitch::QUEUE,
                named: Some(named.clone()),
                row: BTreeMap::from([
                    (queue::OTHER_CONFIG, texts(config)),
                    (queue::EXTERNAL_IDS, texts(&wanted.external_ids)),
                ]),
            });
            Cell::map([(Atom::Integer(0), Item::Reference(named))])
        }
    };
    let row = BTreeMap::from([
        (qos::TYPE, Cell::one(Atom::Text(wanted.kind.clone()))),
        (qos::OTHER_CONFIG, texts(&wanted.other_config)),
        (qos::EXTERNAL_IDS, texts(&wanted.external_ids)),
        (qos::QUEUES, queues),
    ]);
    let Some(current) = current else {
        let named = NamedUuid::numbered(transaction.operations.len());
        transaction.operations.push(Operation::Insert {
            table: &vswitch::QOS,
            named: Some(named.clone()),
            row,
        });
        let row = BTreeMap::from([(port::QOS, Cell::reference(&named))]);
        transaction.operations.push(update(&vswitch::PORT, port_row.uuid, row));
        return;
    };
    transaction.operations.push(update(&vswitch::QOS, current.uuid, row));
}

/// Our mirror of the integration bridge; those of others have other names.
fn mirror_row<'r>(replica: &'r Replica, bridge_row: &Row) -> Option<&'r Row> {
    let uuids = bridge_row.get(bridge::MIRRORS)?.uuids();
    let mut rows = uuids.filter_map(|uuid| replica.get(&vswitch::MIRROR, uuid));
    rows.find(|row| row.text(mirror::NAME).is_some_and(|name| **name == *MIRROR))
}

fn port_names<'r>(replica: &'r Replica, row: &'r Row, column: Column) -> BTreeSet<Text> {
    let uuids = row.get(column).into_iter().flat_map(Datum::uuids);
    uuids.filter_map(|u| replica.get(&vswitch::PORT, u)?.text(port::NAME).cloned()).collect()
}

pub fn observe_mirror(replica: &Replica) -> Option<OvsMirror> {
    let bridge_row = replica.by_name(&vswitch::BRIDGE, INTEGRATION_BRIDGE)?;
    let row = mirror_row(replica, bridge_row)?;
    let all = row.get(mirror::SELECT_ALL) == Some(&Datum::one(Atom::Boolean(true)));
    Some(OvsMirror {
        output: port_names(replica, row, mirror::OUTPUT_PORT).pop_first()?,
        scope: if all { MirrorScope::All } else { MirrorScope::Pods },
        towards: port_names(replica, row, mirror::SELECT_DST_PORT),
    })
}

pub(super) fn set_mirror(transaction: &mut Transaction, replica: &Replica, wanted: &OvsMirror) {
    let uuid_of = |name: &Text| replica.by_name(&vswitch::PORT, name).map(|row| row.uuid);
    let (Some(bridge_row), Some(output)) =
        (replica.by_name(&vswitch::BRIDGE, INTEGRATION_BRIDGE), uuid_of(&wanted.output))
    else {
        return;
    };
    let towards = wanted.towards.iter().filter_map(uuid_of).map(Atom::Uuid);
    let columns = BTreeMap::from([
        (mirror::NAME, Cell::one(Atom::from(MIRROR))),
        (mirror::OUTPUT_PORT, Cell::one(Atom::Uuid(output))),
        (mirror::SELECT_ALL, Cell::one(Atom::Boolean(wanted.scope == MirrorScope::All))),
        (mirror::SELECT_DST_PORT, Cell::set(towards)),
    ]);
    if let Some(row) = mirror_row(replica, bridge_row) {
        transaction.operations.push(update(&vswitch::MIRROR, row.uuid, columns));
        return;
    }
    let named = NamedUuid::numbered(transaction.operations.len());
    transaction.operations.push(Operation::Insert {
        table: &vswitch::MIRROR,
        named: Some(named.clone()),
        row: columns,
    });
    transaction.operations.push(Operation::Mutate {
        table: &vswitch::BRIDGE,
        target: Target::Uuid(bridge_row.uuid),
        mutations: vec![Mutation::insert(bridge::MIRRORS, Cell::reference(&named))],
    });
}
