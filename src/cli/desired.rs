//! What the controller would make of the cluster: its own watches, store and engine, and the
//! northbound database as it is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::{
    Engine as Shared,
    cluster::{Cluster, Database, each, text},
};
use crate::{
    api::{Invalid, Kind, Settings, Subnet, Text},
    ovsdb::{
        json::parse_uuid,
        replica::{Replica, Scope, Update as DatabaseUpdate},
        schema::{Column, Table, nb},
    },
    store::{
        Store, Stored, last_valid,
        watch::{Seen, SeenMap, Update, Watches, What},
    },
};

/// How long the API server may take for all lists.
const PATIENCE: Duration = Duration::from_secs(60);

/// The cluster's objects as the controller takes them in.
pub struct World {
    pub store: Store,
    /// Objects whose spec is refused; the last valid one stays in force if it is recorded.
    pub refused: BTreeMap<(Kind, Text), Vec<Invalid>>,
}

pub async fn world(cluster: &Cluster, shared: &Shared) -> anyhow::Result<World> {
    let settings = settings(cluster, shared).await?;
    let (mut watches, mut updates) = Watches::new(cluster.client.clone());
    let mut unsynced = (shared.watch)(&mut watches, &settings);
    let mut world = World { store: Store::default(), refused: BTreeMap::new() };
    let mut seen = SeenMap::default();
    world.store.upsert(Arc::new(settings));
    let all = async {
        while !unsynced.is_empty() {
            match updates.recv().await {
                Some(Update::Synced(kind)) => {
                    unsynced.remove(&kind);
                }
                Some(Update::Change(change)) => {
                    seen.note(&change);
                    match change.what {
                        What::Upsert(object, seen) => {
                            let held = in_force(&object, &seen, &world.store);
                            world.store.upsert(held.unwrap_or(object));
                        }
                        What::Refused(refused, _) => {
                            world.refused.insert((change.kind, change.key), refused.invalid);
                            // What the status records as valid last is in force.
                            if let Some(object) = refused.last_valid {
                                world.store.upsert(object);
                            }
                        }
                        What::Deleted | What::AbsentAfterRelist => {
                            world.store.remove(change.kind, &change.key);
                        }
                    }
                }
                None => bail!("the watches ended"),
            }
        }
        Ok(())
    };
    let listed = tokio::time::timeout(PATIENCE, all).await;
    if listed.is_err() {
        let missing: Vec<&str> = unsynced.iter().map(|kind| kind.name()).collect();
        bail!("no complete list of {} after {} s", missing.join(", "), PATIENCE.as_secs());
    }
    listed.unwrap_or(Ok(()))?;
    (shared.derive)(&mut world.store, &seen);
    Ok(world)
}

/// What is in force of a subnet whose new range has to wait.
fn in_force(object: &Arc<dyn Stored>, seen: &Seen, store: &Store) -> Option<Arc<dyn Stored>> {
    let new = object.as_any().downcast_ref::<Subnet>()?;
    let status = seen.status.as_ref()?.value();
    let recorded = last_valid::other_range(new, &status, store.get::<Settings>("")?)?;
    Some(Arc::new(recorded))
}

/// By the arguments of the controller that runs.
async fn settings(cluster: &Cluster, shared: &Shared) -> anyhow::Result<Settings> {
    let path = cluster.workload("deployments/kube-ovn-controller");
    let deployment = cluster.get(&path).await?;
    let deployment = deployment.with_context(|| {
        format!("there is no deployment kube-ovn-controller in {}", cluster.namespace)
    })?;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let words = each(&container["command"]).chain(each(&container["args"]));
    let words: Vec<String> = words.map(|word| text(word).to_owned()).collect();
    (shared.settings)(&words).context("read the arguments of kube-ovn-controller")
}

/// The northbound database as its leader holds it.
pub async fn northbound(cluster: &Cluster, shared: &Shared) -> anyhow::Result<Replica> {
    let at = cluster.leader(Database::Northbound).await?;
    let socket = Database::Northbound.socket();
    let command = ["ovsdb-client", "--format=json", "dump", &socket, "OVN_Northbound"];
    let dump = cluster.text(&at, &command).await.context("read the northbound database")?;
    replica_of(&dump, &(shared.monitored)())
}

/// Reads what `ovsdb-client --format=json dump` prints: one table after the other.
pub fn replica_of(
    dump: &str,
    monitored: &[(&'static Table, &'static [Column])],
) -> anyhow::Result<Replica> {
    let mut tables = serde_json::Map::new();
    for table in serde_json::Deserializer::from_str(dump).into_iter::<Value>() {
        let table = table.context("read a table of the dump")?;
        let caption = text(&table["caption"]).trim_end_matches(" table");
        let Some((_, columns)) = monitored.iter().find(|(t, _)| t.name == caption) else {
            continue;
        };
        tables.insert(caption.to_owned(), rows_of(&table, columns)?);
    }
    let tables = serde_json::value::to_raw_value(&Value::Object(tables))?;
    let update =
        DatabaseUpdate { scope: Scope::Snapshot, tables: Arc::from(tables), transaction: None };
    let mut replica = Replica::new(&nb::DATABASE, monitored);
    replica.apply(&update).context("read the northbound database")?;
    Ok(replica)
}

/// `<table-updates2>` of one table.
fn rows_of(table: &Value, columns: &[Column]) -> anyhow::Result<Value> {
    let heads: Vec<&str> = each(&table["headings"]).map(text).collect();
    let uuid_at = heads.iter().position(|head| *head == "_uuid").context("no _uuid in the dump")?;
    let mut rows = serde_json::Map::new();
    for cells in each(&table["data"]) {
        let uuid = parse_uuid(&cells[uuid_at]).context("bad _uuid in the dump")?;
        let known = heads.iter().zip(each(cells));
        let known = known.filter(|(head, _)| columns.iter().any(|c| c.name() == **head));
        let row: serde_json::Map<String, Value> =
            known.map(|(head, value)| ((*head).to_owned(), value.clone())).collect();
        rows.insert(uuid.to_string(), json!({"initial": row}));
    }
    Ok(Value::Object(rows))
}

/// Every column of the northbound database, for tools that show rows.
pub fn all_columns() -> Vec<(&'static Table, &'static [Column])> {
    let columns = |table: &'static Table| -> &'static [Column] {
        // Once per process, and as long as it.
        Box::leak(table.all_columns().collect())
    };
    nb::DATABASE.tables.iter().map(|table| (*table, columns(table))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_become_replicas() {
        let dump = r#"{"caption":"Logical_Switch table","headings":["_uuid","name","ports"],"data":
            [[["uuid","11111111-1111-1111-1111-111111111111"],"ovn-default",["set",[]]]]}
            {"caption":"Unknown table","headings":["_uuid"],"data":[]}"#;
        let replica = replica_of(dump, &all_columns()).expect("replica");
        assert!(replica.by_name(&nb::LOGICAL_SWITCH, "ovn-default").is_some());
        assert!(replica_of("{", &all_columns()).is_err());
    }
}
