//! Southbound chassis: ours carry `vendor=kube-ovn`, and those of nodes that are gone are removed,
//! so that no tunnel stays up to a dead address. A loop of its own: nothing waits for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::sync::{mpsc, watch};

use crate::{
    api::{Text, names},
    ovsdb::{
        client::{Client, Event},
        datum::Uuid,
        replica::{Replica, Row},
        schema::{Column, Table, sb},
        transaction::{Item, Mutation, Operation, Target, Transaction},
    },
};

use sb::chassis::{EXTERNAL_IDS, HOSTNAME, NAME, OTHER_CONFIG};

/// Node name -> system-id of its chassis (annotation `ovn.kubernetes.io/chassis`), if known.
pub type Nodes = BTreeMap<Text, Option<Text>>;

const VENDOR: (&str, &str) = ("vendor", names::VENDOR);
/// A chassis that has just come up may be seen before its node's annotation.
const SETTLE: Duration = Duration::from_secs(5);

/// What the southbound client has to monitor.
pub fn monitored() -> Vec<(&'static Table, &'static [Column])> {
    const CHASSIS: &[Column] = &[NAME, HOSTNAME, EXTERNAL_IDS, OTHER_CONFIG];
    const PRIVATE: &[Column] = &[sb::chassis_private::NAME];
    vec![(&sb::CHASSIS, CHASSIS), (&sb::CHASSIS_PRIVATE, PRIVATE)]
}

/// What is to be done about the chassis.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Upkeep {
    pub tag: BTreeSet<Uuid>,
    pub remove: BTreeSet<Uuid>,
}

/// Chassis to tag (named by a node) and to remove (ours, but no node has the host name, or the
/// node names another one: it was reinstalled). Chassis of other zones (`is-remote`, OVN-IC) and
/// chassis that never were ours stay (upstream removed remote ones).
pub fn plan_upkeep<'r>(nodes: &Nodes, chassis: impl IntoIterator<Item = &'r Row>) -> Upkeep {
    let mut upkeep = Upkeep::default();
    let named: BTreeSet<&Text> = nodes.values().flatten().collect();
    for row in chassis {
        if row.entry(OTHER_CONFIG, "is-remote").is_some_and(|v| &**v == "true") {
            continue;
        }
        let Some(name) = row.text(NAME) else { continue };
        let ours = row.entry(EXTERNAL_IDS, VENDOR.0).is_some_and(|v| &**v == VENDOR.1);
        if named.contains(name) {
            if !ours {
                upkeep.tag.insert(row.uuid);
            }
            continue;
        }
        let replaced = match row.text(HOSTNAME).map(|host| nodes.get(host)) {
            Some(Some(current)) => current.is_some(),
            _ => true,
        };
        if ours && replaced {
            upkeep.remove.insert(row.uuid);
        }
    }
    upkeep
}

fn transaction(upkeep: &Upkeep, replica: &Replica) -> Transaction {
    let mut operations = Vec::new();
    for uuid in &upkeep.tag {
        let value = BTreeMap::from([(VENDOR.0.into(), Item::Atom(VENDOR.1.into()))]);
        operations.push(Operation::Mutate {
            table: &sb::CHASSIS,
            target: Target::Uuid(*uuid),
            mutations: Mutation::put(EXTERNAL_IDS, value).into(),
        });
    }
    for uuid in &upkeep.remove {
        operations.push(Operation::Delete { table: &sb::CHASSIS, target: Target::Uuid(*uuid) });
        // Its companion has the same name and would stay.
        let name = replica.get(&sb::CHASSIS, *uuid).and_then(|row| row.text(NAME));
        if let Some(private) = name.and_then(|n| replica.by_name(&sb::CHASSIS_PRIVATE, n)) {
            let target = Target::Uuid(private.uuid);
            operations.push(Operation::Delete { table: &sb::CHASSIS_PRIVATE, target });
        }
    }
    Transaction { operations }
}

/// Keeps the chassis in order until the controller ends. `nodes` is `None` until all nodes are
/// listed.
pub async fn keep_chassis(
    client: Client,
    mut events: mpsc::UnboundedReceiver<Event>,
    mut nodes: watch::Receiver<Option<Nodes>>,
) {
    let mut replica = Replica::new(&sb::DATABASE, &monitored());
    let mut connected = false;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::Connected { update, .. }) | Some(Event::Updated(update)) => {
                    connected = replica.apply(&update).is_ok();
                    if !connected {
                        client.resynchronize();
                    }
                }
                Some(Event::Disconnected { reason }) => {
                    tracing::warn!(%reason, "southbound database disconnected");
                    connected = false;
                }
                None => return,
            },
            changed = nodes.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(SETTLE) => {
                let known = nodes.borrow().clone();
                if let Some(known) = known.filter(|_| connected) {
                    apply_upkeep(&client, &replica, &known).await;
                }
            }
        }
    }
}

async fn apply_upkeep(client: &Client, replica: &Replica, nodes: &Nodes) {
    let upkeep = plan_upkeep(nodes, replica.rows(&sb::CHASSIS));
    if upkeep == Upkeep::default() {
        return;
    }
    tracing::info!(tagged = upkeep.tag.len(), removed = upkeep.remove.len(), "southbound chassis");
    if let Err(error) = client.transact(&transaction(&upkeep, replica)).await {
        tracing::warn!(%error, "southbound chassis could not be written, trying again");
    }
}
