//! Between planner and vswitch database: what the replica says about ports, and operations as one
//! transaction. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{ovs_bridge, ovs_shaping};
use crate::{
    api::Text,
    host::{Datapath, HostOp, INTEGRATION_BRIDGE, ObservedOvs, OvsPort, OvsPortKind},
    ovsdb::{
        datum::{Atom, Datum, Uuid},
        replica::{Replica, Row},
        schema::{
            Column, Table,
            vswitch::{self, bridge, interface, open_vswitch, port},
        },
        transaction::{Cell, Item, Mutation, NamedUuid, Operation, Target, Transaction},
    },
};

/// What the node replicates of `Open_vSwitch`: no statistics, they change every few seconds.
pub const MONITORED: &[(&Table, &[Column])] = &[
    (
        &vswitch::OPEN_VSWITCH,
        &[open_vswitch::BRIDGES, open_vswitch::EXTERNAL_IDS, open_vswitch::OVS_VERSION],
    ),
    (
        &vswitch::BRIDGE,
        &[
            bridge::NAME,
            bridge::PORTS,
            bridge::DATAPATH_TYPE,
            bridge::EXTERNAL_IDS,
            bridge::MIRRORS,
        ],
    ),
    (&vswitch::PORT, &[port::NAME, port::INTERFACES, port::EXTERNAL_IDS, port::QOS]),
    ovs_shaping::MONITORED[0],
    ovs_shaping::MONITORED[1],
    ovs_shaping::MONITORED[2],
    (
        &vswitch::INTERFACE,
        &[
            interface::NAME,
            interface::TYPE,
            interface::EXTERNAL_IDS,
            interface::OFPORT,
            interface::ERROR,
            interface::MAC,
            interface::MTU_REQUEST,
            interface::INGRESS_POLICING_RATE,
            interface::INGRESS_POLICING_BURST,
        ],
    ),
];

/// `external_ids` key that joins an interface to its logical port.
pub const IFACE_ID: &str = "iface-id";
/// Set by ovn-controller when the flows of the port are in.
pub const OVN_INSTALLED: &str = "ovn-installed";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    #[error("bridge {0} does not exist; ovn-controller makes br-int, is the ovs-ovn pod running?")]
    NoBridge(Text),
    #[error("the vswitch database has no Open_vSwitch row; is ovs-vswitchd running?")]
    NoRoot,
}

/// `true` for an operation of the vswitch database, `false` for one of the kernel.
pub fn is_ovs(op: &HostOp) -> bool {
    matches!(
        op,
        HostOp::SetExternalIds(_)
            | HostOp::SetOvsPort(_)
            | HostOp::SetInterfaceIds { .. }
            | HostOp::RemoveOvsPort { .. }
            | HostOp::SetShaping { .. }
            | HostOp::SweepQueues
            | HostOp::SetMirror(_)
            | HostOp::SetBridge(_)
            | HostOp::RemoveBridge(_)
    )
}

/// The operations of `ops` that concern the database, as one transaction; `None` when there is
/// nothing to do.
pub fn plan_transaction<'a>(
    replica: &Replica,
    ops: impl IntoIterator<Item = &'a HostOp>,
) -> Result<Option<Transaction>, RowError> {
    let mut transaction = Transaction::default();
    for op in ops {
        match op {
            HostOp::SetExternalIds(ids) => {
                let root = replica.singleton(&vswitch::OPEN_VSWITCH).ok_or(RowError::NoRoot)?;
                let column = open_vswitch::EXTERNAL_IDS;
                put_ids(&mut transaction, root, column, ids);
            }
            HostOp::SetOvsPort(wanted) => set_port(&mut transaction, replica, wanted)?,
            HostOp::SetInterfaceIds { interface, ids } => {
                if let Some(row) = replica.by_name(&vswitch::INTERFACE, interface) {
                    put_ids(&mut transaction, row, interface::EXTERNAL_IDS, ids);
                }
            }
            HostOp::RemoveOvsPort { port, .. } => remove_port(&mut transaction, replica, port),
            HostOp::SetShaping { port, shaping } => {
                ovs_shaping::set_shaping(&mut transaction, replica, port, shaping);
            }
            HostOp::SweepQueues => ovs_shaping::sweep_queues(&mut transaction, replica),
            HostOp::SetMirror(mirror) => {
                ovs_shaping::set_mirror(&mut transaction, replica, mirror);
            }
            HostOp::SetBridge(wanted) => {
                ovs_bridge::set_bridge(&mut transaction, replica, wanted)?;
            }
            HostOp::RemoveBridge(name) => {
                ovs_bridge::remove_bridge(&mut transaction, replica, name);
            }
            _ => {}
        }
    }
    Ok((!transaction.operations.is_empty()).then_some(transaction))
}

/// Only what differs is written, so an idle planner makes no traffic.
fn put_ids(
    transaction: &mut Transaction,
    row: &Row,
    column: Column,
    ids: &BTreeMap<Text, Option<Text>>,
) {
    let changed = ids.iter().filter(|(k, v)| row.entry(column, k) != v.as_ref());
    let (mut stale, mut entries) = (BTreeSet::new(), BTreeMap::new());
    for (key, value) in changed {
        if row.entry(column, key).is_some() {
            stale.insert(Atom::Text(key.clone()));
        }
        if let Some(value) = value {
            entries.insert(Atom::Text(key.clone()), Item::Atom(Atom::Text(value.clone())));
        }
    }
    let mut mutations = Vec::new();
    if !stale.is_empty() {
        mutations.push(Mutation::delete_keys(column, stale));
    }
    if !entries.is_empty() {
        mutations.push(Mutation::insert(column, Cell::Map(entries)));
    }
    if !mutations.is_empty() {
        let (table, target) = (row.table(), Target::Uuid(row.uuid));
        transaction.operations.push(Operation::Mutate { table, target, mutations });
    }
}

fn set_port(
    transaction: &mut Transaction,
    replica: &Replica,
    wanted: &OvsPort,
) -> Result<(), RowError> {
    let bridge_row = replica
        .by_name(&vswitch::BRIDGE, &wanted.bridge)
        .ok_or_else(|| RowError::NoBridge(wanted.bridge.clone()))?;
    let port_row = replica.by_name(&vswitch::PORT, &wanted.name);
    let interface_row = replica.by_name(&vswitch::INTERFACE, &wanted.name);
    if let (Some(port_row), Some(interface_row)) = (port_row, interface_row)
        && references(bridge_row, bridge::PORTS, port_row.uuid)
    {
        update_interface(transaction, interface_row, wanted);
        return Ok(());
    }
    // A port of that name on another bridge would break the unique index.
    remove_port(transaction, replica, &wanted.name);
    insert_port(transaction, bridge_row, wanted);
    Ok(())
}

fn kind_text(kind: OvsPortKind) -> &'static str {
    match kind {
        OvsPortKind::System => "",
        OvsPortKind::Internal => "internal",
    }
}

fn update_interface(transaction: &mut Transaction, row: &Row, wanted: &OvsPort) {
    let mut columns = BTreeMap::new();
    let mut set = |column: Column, atom: Atom| {
        if row.get(column) != Some(&Datum::one(atom.clone())) {
            columns.insert(column, Cell::one(atom));
        }
    };
    set(interface::TYPE, kind_text(wanted.kind).into());
    if let Some(mac) = wanted.mac {
        set(interface::MAC, mac.to_string().into());
    }
    if let Some(mtu) = wanted.mtu_request {
        set(interface::MTU_REQUEST, i64::from(mtu).into());
    }
    if !columns.is_empty() {
        let (table, target) = (row.table(), Target::Uuid(row.uuid));
        transaction.operations.push(Operation::Update { table, target, row: columns });
    }
    let ids = wanted.external_ids.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).collect();
    put_ids(transaction, row, interface::EXTERNAL_IDS, &ids);
}

fn insert_port(transaction: &mut Transaction, bridge_row: &Row, wanted: &OvsPort) {
    let number = transaction.operations.len();
    let (new_interface, new_port) = (NamedUuid::numbered(number), NamedUuid::numbered(number + 1));
    let name = || Cell::one(Atom::Text(wanted.name.clone()));
    let mut row = BTreeMap::from([
        (interface::NAME, name()),
        (interface::TYPE, Cell::one(Atom::from(kind_text(wanted.kind)))),
        (
            interface::EXTERNAL_IDS,
            Cell::map(wanted.external_ids.iter().map(|(k, v)| (k.clone(), Atom::from(v.clone())))),
        ),
    ]);
    if let Some(mac) = wanted.mac {
        row.insert(interface::MAC, Cell::one(Atom::from(mac.to_string())));
    }
    if let Some(mtu) = wanted.mtu_request {
        row.insert(interface::MTU_REQUEST, Cell::one(Atom::from(i64::from(mtu))));
    }
    transaction.operations.push(Operation::Insert {
        table: &vswitch::INTERFACE,
        named: Some(new_interface.clone()),
        row,
    });
    let row =
        BTreeMap::from([(port::NAME, name()), (port::INTERFACES, Cell::reference(&new_interface))]);
    transaction.operations.push(Operation::Insert {
        table: &vswitch::PORT,
        named: Some(new_port.clone()),
        row,
    });
    transaction.operations.push(Operation::Mutate {
        table: &vswitch::BRIDGE,
        target: Target::Uuid(bridge_row.uuid),
        mutations: vec![Mutation::insert(bridge::PORTS, Cell::reference(&new_port))],
    });
}

/// Rows of Port and Interface vanish with the last reference to them.
fn remove_port(transaction: &mut Transaction, replica: &Replica, name: &str) {
    let Some(port_row) = replica.by_name(&vswitch::PORT, name) else { return };
    let holders = replica.rows(&vswitch::BRIDGE);
    for holder in holders.filter(|b| references(b, bridge::PORTS, port_row.uuid)) {
        transaction.operations.push(Operation::Mutate {
            table: &vswitch::BRIDGE,
            target: Target::Uuid(holder.uuid),
            mutations: vec![Mutation::delete(bridge::PORTS, Cell::one(Atom::Uuid(port_row.uuid)))],
        });
    }
}

fn references(row: &Row, column: Column, uuid: Uuid) -> bool {
    row.get(column).is_some_and(|datum| datum.uuids().any(|u| u == uuid))
}

pub(super) fn text_map(row: &Row, column: Column) -> BTreeMap<Text, Text> {
    let Some(Datum::Map(map)) = row.get(column) else { return BTreeMap::new() };
    map.iter()
        .filter_map(|entry| match entry {
            (Atom::Text(k), Atom::Text(v)) => Some((k.clone(), v.clone())),
            _ => None,
        })
        .collect()
}

pub(super) fn integer(row: &Row, column: Column) -> Option<i64> {
    match row.get(column) {
        Some(Datum::Set(set)) => match set.first() {
            Some(Atom::Integer(n)) => Some(*n),
            _ => None,
        },
        _ => None,
    }
}

/// A port of the integration bridge as the planner describes it.
pub fn observe_port(replica: &Replica, name: &str) -> Option<OvsPort> {
    let bridge_row = replica.by_name(&vswitch::BRIDGE, INTEGRATION_BRIDGE)?;
    let port_row = replica.by_name(&vswitch::PORT, name)?;
    if !references(bridge_row, bridge::PORTS, port_row.uuid) {
        return None;
    }
    let row = replica.by_name(&vswitch::INTERFACE, name)?;
    let internal = row.text(interface::TYPE).is_some_and(|t| &**t == "internal");
    Some(OvsPort {
        bridge: INTEGRATION_BRIDGE.into(),
        name: name.into(),
        kind: if internal { OvsPortKind::Internal } else { OvsPortKind::System },
        mac: row.text(interface::MAC).and_then(|t| t.parse().ok()),
        mtu_request: integer(row, interface::MTU_REQUEST).and_then(|n| u32::try_from(n).ok()),
        external_ids: text_map(row, interface::EXTERNAL_IDS),
    })
}

/// Everything that the host planner compares with.
pub fn observe_ovs(replica: &Replica) -> ObservedOvs {
    let root = replica.singleton(&vswitch::OPEN_VSWITCH);
    let external_ids = root.map(|r| text_map(r, open_vswitch::EXTERNAL_IDS)).unwrap_or_default();
    let bridge_row = replica.by_name(&vswitch::BRIDGE, INTEGRATION_BRIDGE);
    let uuids = bridge_row.and_then(|b| b.get(bridge::PORTS));
    let (mut ports, mut shaping) = (BTreeMap::new(), BTreeMap::new());
    for uuid in uuids.into_iter().flat_map(Datum::uuids) {
        let Some(port_row) = replica.get(&vswitch::PORT, uuid) else { continue };
        let Some(name) = port_row.text(port::NAME) else { continue };
        ports.extend(observe_port(replica, name).map(|seen| (name.clone(), seen)));
        if let Some(row) = replica.by_name(&vswitch::INTERFACE, name) {
            let seen = ovs_shaping::observe_shaping(replica, port_row, row);
            shaping.insert(name.clone(), seen);
        }
    }
    ObservedOvs {
        external_ids,
        ports,
        shaping,
        stale_queues: ovs_shaping::has_stale_queues(replica),
        mirror: ovs_shaping::observe_mirror(replica),
        bridges: ovs_bridge::observe_bridges(replica),
    }
}

/// Interfaces other than `own` that claim the same logical port.
pub fn rivals(replica: &Replica, iface_id: &str, own: &str) -> Vec<Text> {
    let rows = replica.rows(&vswitch::INTERFACE);
    let mut names: Vec<Text> = rows
        .filter(|r| r.entry(interface::EXTERNAL_IDS, IFACE_ID).is_some_and(|id| **id == *iface_id))
        .filter_map(|r| r.text(interface::NAME).cloned())
        .filter(|name| **name != *own)
        .collect();
    names.sort();
    names
}

/// Datapath of the integration bridge; `None` until it exists.
pub fn datapath(replica: &Replica) -> Option<Datapath> {
    let row = replica.by_name(&vswitch::BRIDGE, INTEGRATION_BRIDGE)?;
    let netdev = row.text(bridge::DATAPATH_TYPE).is_some_and(|t| &**t == "netdev");
    Some(if netdev { Datapath::Netdev } else { Datapath::System })
}

/// `external_ids:system-id`: the name of this node's chassis.
pub fn system_id(replica: &Replica) -> Option<Text> {
    let root = replica.singleton(&vswitch::OPEN_VSWITCH)?;
    root.entry(open_vswitch::EXTERNAL_IDS, "system-id").cloned()
}

/// `external_ids:ovs-datapath`: what the ovs container says of the datapath.
pub fn datapath_report(replica: &Replica) -> Option<Text> {
    let root = replica.singleton(&vswitch::OPEN_VSWITCH)?;
    root.entry(open_vswitch::EXTERNAL_IDS, "ovs-datapath").cloned()
}

/// NIC -> the bridge of ours that it is a port of.
pub fn vendor_bridge_ports(replica: &Replica) -> BTreeMap<Text, Text> {
    let mut found = BTreeMap::new();
    for row in replica.rows(&vswitch::BRIDGE) {
        let ours = row.entry(bridge::EXTERNAL_IDS, "vendor");
        if ours.is_none_or(|v| **v != *crate::api::names::VENDOR) {
            continue;
        }
        let Some(name) = row.text(bridge::NAME) else { continue };
        for uuid in row.get(bridge::PORTS).into_iter().flat_map(Datum::uuids) {
            let port_row = replica.get(&vswitch::PORT, uuid);
            if let Some(port_name) = port_row.and_then(|p| p.text(port::NAME)) {
                found.insert(port_name.clone(), name.clone());
            }
        }
    }
    found
}

/// How far a port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortState {
    Missing,
    /// vswitchd has not looked at it yet, or ovn-controller has not installed its flows.
    Pending,
    /// vswitchd cannot use the link.
    Failed(Text),
    Installed,
}

/// State of the interface `name`.
pub fn port_state(replica: &Replica, name: &str) -> PortState {
    let Some(row) = replica.by_name(&vswitch::INTERFACE, name) else { return PortState::Missing };
    let installed = row.entry(interface::EXTERNAL_IDS, OVN_INSTALLED);
    if installed.is_some_and(|v| &**v == "true") {
        return PortState::Installed;
    }
    match row.text(interface::ERROR) {
        // vswitchd saw the row before the link, or after a restart; it looks again.
        Some(error) if !error.contains("No such device") => PortState::Failed(error.clone()),
        _ => PortState::Pending,
    }
}
