//! Bridges of ours in the vswitch database. Pure.

use std::collections::BTreeMap;

use super::ovs_rows::RowError;
use crate::{
    api::{Text, names},
    host::{Datapath, EXTERNAL_BRIDGE_MARK, ExternalBridge, SeenBridge},
    ovsdb::{
        datum::{Atom, Datum},
        replica::Replica,
        schema::vswitch::{self, bridge, interface, open_vswitch, port},
        transaction::{Cell, Mutation, NamedUuid, Operation, Target, Transaction},
    },
};

/// All bridges by name.
pub fn observe_bridges(replica: &Replica) -> BTreeMap<Text, SeenBridge> {
    let rows = replica.rows(&vswitch::BRIDGE);
    rows.filter_map(|row| {
        let ports = row.get(bridge::PORTS).into_iter().flat_map(Datum::uuids);
        let names = ports.filter_map(|u| replica.get(&vswitch::PORT, u)?.text(port::NAME).cloned());
        let mark = row.entry(bridge::EXTERNAL_IDS, EXTERNAL_BRIDGE_MARK).cloned();
        Some((row.text(bridge::NAME)?.clone(), SeenBridge { ports: names.collect(), mark }))
    })
    .collect()
}

/// A bridge with its internal port, as `ovs-vsctl add-br` makes it. An existing one is fine.
pub(super) fn set_bridge(
    transaction: &mut Transaction,
    replica: &Replica,
    wanted: &ExternalBridge,
) -> Result<(), RowError> {
    if replica.by_name(&vswitch::BRIDGE, &wanted.name).is_some() {
        return Ok(());
    }
    let root = replica.singleton(&vswitch::OPEN_VSWITCH).ok_or(RowError::NoRoot)?;
    let first = transaction.operations.len();
    let [new_interface, new_port, new_bridge] =
        [first, first + 1, first + 2].map(NamedUuid::numbered);
    let name = || Cell::one(Atom::Text(wanted.name.clone()));
    let datapath = match wanted.datapath {
        Datapath::System => "",
        Datapath::Netdev => "netdev",
    };
    let ids = [("vendor", names::VENDOR), (EXTERNAL_BRIDGE_MARK, &*wanted.network)];
    let insert = |table, named, row| Operation::Insert { table, named: Some(named), row };
    transaction.operations.extend([
        insert(
            &vswitch::INTERFACE,
            new_interface.clone(),
            BTreeMap::from([
                (interface::NAME, name()),
                (interface::TYPE, Cell::one(Atom::from("internal"))),
            ]),
        ),
        insert(
            &vswitch::PORT,
            new_port.clone(),
            BTreeMap::from([
                (port::NAME, name()),
                (port::INTERFACES, Cell::reference(&new_interface)),
            ]),
        ),
        insert(
            &vswitch::BRIDGE,
            new_bridge.clone(),
            BTreeMap::from([
                (bridge::NAME, name()),
                (bridge::PORTS, Cell::reference(&new_port)),
                (bridge::DATAPATH_TYPE, Cell::one(Atom::from(datapath))),
                (bridge::EXTERNAL_IDS, Cell::map(ids.map(|(k, v)| (k, Atom::from(v))))),
            ]),
        ),
        Operation::Mutate {
            table: &vswitch::OPEN_VSWITCH,
            target: Target::Uuid(root.uuid),
            mutations: vec![Mutation::insert(open_vswitch::BRIDGES, Cell::reference(&new_bridge))],
        },
    ]);
    Ok(())
}

/// Its ports vanish with it. A missing one is fine.
pub(super) fn remove_bridge(transaction: &mut Transaction, replica: &Replica, name: &str) {
    let (Some(root), Some(row)) =
        (replica.singleton(&vswitch::OPEN_VSWITCH), replica.by_name(&vswitch::BRIDGE, name))
    else {
        return;
    };
    let bridges = Cell::one(Atom::Uuid(row.uuid));
    transaction.operations.push(Operation::Mutate {
        table: &vswitch::OPEN_VSWITCH,
        target: Target::Uuid(root.uuid),
        mutations: vec![Mutation::delete(open_vswitch::BRIDGES, bridges)],
    });
}
