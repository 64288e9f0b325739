//! The few rows that the ovs container itself keeps in the local Open_vSwitch database. The server
//! may be older or newer than the schema that this program was built with, so rows are addressed
//! by name.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{
    ovs_paths::OvsPaths,
    rpc::{Rpc, RpcError},
    uplink::{self, Carried},
};
use crate::net::Mac;

const LIMIT: Duration = Duration::from_secs(10);
const DATABASE: &str = "Open_vSwitch";
/// The owner mark of Kube-OVN's bridges and ports.
const VENDOR: &str = crate::api::names::VENDOR;

/// A session with the local server.
pub struct Switch {
    rpc: Rpc,
}

/// A row of Bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeRow {
    pub uuid: Value,
    pub name: String,
    /// "" = the kernel's.
    pub datapath_type: String,
    pub external_ids: BTreeMap<String, String>,
    /// Row ids of its ports.
    pub ports: Vec<Value>,
}

impl BridgeRow {
    pub fn is_ours(&self) -> bool {
        self.external_ids.get("vendor").is_some_and(|v| v == VENDOR)
    }

    pub fn carried(&self) -> Option<Carried> {
        Carried::parse(|key| self.external_ids.get(key).cloned())
    }
}

/// New values of map entries; `None` removes the key.
pub type Entries = BTreeMap<&'static str, Option<String>>;

impl Switch {
    pub async fn open(paths: &OvsPaths) -> Result<Self, RpcError> {
        Ok(Switch { rpc: Rpc::local(&paths.socket(), LIMIT).await? })
    }

    pub async fn transact(&mut self, operations: Vec<Value>) -> Result<Vec<Value>, RpcError> {
        self.rpc.transact(DATABASE, operations).await
    }

    async fn select(&mut self, table: &str, columns: &[&str]) -> Result<Vec<Value>, RpcError> {
        let select = json!({"op": "select", "table": table, "columns": columns, "where": []});
        let mut results = self.transact(vec![select]).await?;
        let rows = results.first_mut().map(|r| r["rows"].take());
        Ok(rows.and_then(|rows| rows.as_array().cloned()).unwrap_or_default())
    }

    /// Makes the only row of Open_vSwitch if it is not there (`ovs-vsctl init`).
    pub async fn initialize(&mut self) -> Result<(), RpcError> {
        if self.select(DATABASE, &["_uuid"]).await?.is_empty() {
            let insert = json!({"op": "insert", "table": DATABASE, "row": {}});
            self.transact(vec![insert]).await?;
        }
        Ok(())
    }

    /// `external_ids` of the Open_vSwitch row.
    pub async fn root_ids(&mut self) -> Result<BTreeMap<String, String>, RpcError> {
        let rows = self.select(DATABASE, &["external_ids"]).await?;
        Ok(rows.first().map(|row| parse_map(&row["external_ids"])).unwrap_or_default())
    }

    /// Writes entries of a map column of the Open_vSwitch row.
    pub async fn set_root(&mut self, column: &str, entries: &Entries) -> Result<(), RpcError> {
        let mutations = mutations(column, entries);
        self.transact(vec![json!({"op": "mutate", "table": DATABASE, "where": [],
                                  "mutations": mutations})])
            .await
            .map(|_| ())
    }

    /// Writes plain columns of the Open_vSwitch row.
    pub async fn update_root(&mut self, row: Value) -> Result<(), RpcError> {
        let update = json!({"op": "update", "table": DATABASE, "where": [], "row": row});
        self.transact(vec![update]).await.map(|_| ())
    }

    pub async fn bridges(&mut self) -> Result<Vec<BridgeRow>, RpcError> {
        let columns = ["_uuid", "name", "datapath_type", "external_ids", "ports"];
        let rows = self.select("Bridge", &columns).await?;
        Ok(rows.iter().filter_map(parse_bridge).collect())
    }

    pub async fn bridge(&mut self, name: &str) -> Result<Option<BridgeRow>, RpcError> {
        Ok(self.bridges().await?.into_iter().find(|bridge| bridge.name == name))
    }

    /// Names of the ports of a bridge that carry our mark: its NIC.
    pub async fn vendor_ports(&mut self, bridge: &BridgeRow) -> Result<Vec<String>, RpcError> {
        let rows = self.select("Port", &["_uuid", "name", "external_ids"]).await?;
        let ours = rows.iter().filter(|row| {
            bridge.ports.contains(&row["_uuid"])
                && parse_map(&row["external_ids"]).get("vendor").is_some_and(|v| v == VENDOR)
        });
        Ok(ours.filter_map(|row| Some(row["name"].as_str()?.to_owned())).collect())
    }

    /// Names of the interfaces that Open vSwitch makes itself.
    pub async fn internal_interfaces(&mut self) -> Result<Vec<String>, RpcError> {
        let rows = self.select("Interface", &["name", "type"]).await?;
        let internal = rows.iter().filter(|row| row["type"] == "internal");
        Ok(internal.filter_map(|row| Some(row["name"].as_str()?.to_owned())).collect())
    }

    /// Moves bridges to a datapath.
    pub async fn set_datapath_type(
        &mut self,
        rows: &[BridgeRow],
        datapath: &str,
    ) -> Result<(), RpcError> {
        let update = |row: &BridgeRow| {
            json!({"op": "update", "table": "Bridge", "where": [["_uuid", "==", row.uuid]],
                   "row": {"datapath_type": datapath}})
        };
        if rows.is_empty() {
            return Ok(());
        }
        self.transact(rows.iter().map(update).collect()).await.map(|_| ())
    }

    /// Removes bridges; their ports and interfaces go with them.
    pub async fn remove_bridges(&mut self, rows: &[BridgeRow]) -> Result<(), RpcError> {
        if rows.is_empty() {
            return Ok(());
        }
        let uuids: Vec<&Value> = rows.iter().map(|row| &row.uuid).collect();
        let mutate = json!({"op": "mutate", "table": DATABASE, "where": [],
                            "mutations": [["bridges", "delete", ["set", uuids]]]});
        self.transact(vec![mutate]).await.map(|_| ())
    }

    /// Makes the bridge of the tunnels with its NIC, and records what it carries. A NIC that was
    /// in the bridge before goes.
    pub async fn put_uplink(
        &mut self,
        carried: &Carried,
        mac: Option<Mac>,
    ) -> Result<(), RpcError> {
        let found = self.bridge(uplink::BRIDGE).await?;
        let operations = match &found {
            None => create_uplink(carried, mac),
            Some(bridge) => {
                let rows = self.select("Port", &["_uuid", "name"]).await?;
                let ports = rows.iter().filter(|row| bridge.ports.contains(&row["_uuid"]));
                change_uplink(bridge, &ports.collect::<Vec<_>>(), carried, mac)
            }
        };
        self.transact(operations).await.map(|_| ())
    }

    /// Forgets what the bridge carries: the NIC has everything back.
    pub async fn forget_carried(&mut self, bridge: &BridgeRow) -> Result<(), RpcError> {
        let mutation = json!(["external_ids", "delete", ["set", uplink::KEYS]]);
        let mutate = json!({"op": "mutate", "table": "Bridge",
            "where": [["_uuid", "==", bridge.uuid]], "mutations": [mutation]});
        self.transact(vec![mutate]).await.map(|_| ())
    }

    /// Brings the database to the schema of the installed Open vSwitch.
    pub async fn convert(&mut self, schema: &Value) -> Result<(), RpcError> {
        super::upkeep::convert(&mut self.rpc, DATABASE, schema).await
    }
}

fn mutations(column: &str, entries: &Entries) -> Vec<Value> {
    let keys: Vec<&&str> = entries.keys().collect();
    let values: Vec<(&str, &String)> =
        entries.iter().filter_map(|(k, v)| Some((*k, v.as_ref()?))).collect();
    vec![json!([column, "delete", ["set", keys]]), json!([column, "insert", ["map", values]])]
}

fn vendor() -> Value {
    json!(["map", [["vendor", VENDOR]]])
}

fn port_rows(nic: &str, port: &str, interface: &str) -> [Value; 2] {
    [
        json!({"op": "insert", "table": "Interface", "uuid-name": interface,
               "row": {"name": nic}}),
        json!({"op": "insert", "table": "Port", "uuid-name": port,
               "row": {"name": nic, "external_ids": vendor(),
                       "interfaces": ["named-uuid", interface]}}),
    ]
}

fn hwaddr(mac: Option<Mac>) -> Value {
    // The address of the NIC, so that peers and switches learn nothing new.
    json!(["map", mac.map(|mac| ("hwaddr", mac.to_string())).into_iter().collect::<Vec<_>>()])
}

fn create_uplink(carried: &Carried, mac: Option<Mac>) -> Vec<Value> {
    let mut ids: Vec<(String, String)> = vec![("vendor".to_owned(), VENDOR.to_owned())];
    ids.extend(carried.to_external_ids().into_iter().map(|(k, v)| (k.to_owned(), v)));
    let mut operations = vec![
        json!({"op": "insert", "table": "Interface", "uuid-name": "local_interface",
               "row": {"name": uplink::BRIDGE, "type": "internal"}}),
        json!({"op": "insert", "table": "Port", "uuid-name": "local_port",
               "row": {"name": uplink::BRIDGE, "interfaces": ["named-uuid", "local_interface"]}}),
    ];
    operations.extend(port_rows(&carried.uplink, "nic_port", "nic_interface"));
    operations.push(json!({"op": "insert", "table": "Bridge", "uuid-name": "bridge", "row": {
        "name": uplink::BRIDGE, "datapath_type": "netdev", "fail_mode": "standalone",
        "external_ids": ["map", ids], "other_config": hwaddr(mac),
        "ports": ["set", [["named-uuid", "local_port"], ["named-uuid", "nic_port"]]]}}));
    operations.push(json!({"op": "mutate", "table": DATABASE, "where": [],
        "mutations": [["bridges", "insert", ["named-uuid", "bridge"]]]}));
    operations
}

/// `ports` are the rows of the ports of the bridge.
fn change_uplink(
    bridge: &BridgeRow,
    ports: &[&Value],
    carried: &Carried,
    mac: Option<Mac>,
) -> Vec<Value> {
    let this = json!([["_uuid", "==", bridge.uuid]]);
    let ids = carried.to_external_ids();
    let mut keys: Vec<&str> = ids.keys().copied().collect();
    keys.push("vendor");
    let mut values: Vec<(&str, &str)> = ids.iter().map(|(k, v)| (*k, v.as_str())).collect();
    values.push(("vendor", VENDOR));
    let mut mutations = vec![
        json!(["external_ids", "delete", ["set", keys]]),
        json!(["external_ids", "insert", ["map", values]]),
        json!(["other_config", "delete", ["set", ["hwaddr"]]]),
        json!(["other_config", "insert", hwaddr(mac)]),
    ];
    let mut operations = vec![json!({"op": "update", "table": "Bridge", "where": this,
        "row": {"datapath_type": "netdev", "fail_mode": "standalone"}})];
    let wanted = |row: &Value| row["name"] == uplink::BRIDGE || row["name"] == *carried.uplink;
    let strange: Vec<&Value> =
        ports.iter().filter(|row| !wanted(row)).map(|row| &row["_uuid"]).collect();
    if !strange.is_empty() {
        mutations.push(json!(["ports", "delete", ["set", strange]]));
    }
    if !ports.iter().any(|row| row["name"] == *carried.uplink) {
        operations.extend(port_rows(&carried.uplink, "nic_port", "nic_interface"));
        mutations.push(json!(["ports", "insert", ["named-uuid", "nic_port"]]));
    }
    operations
        .push(json!({"op": "mutate", "table": "Bridge", "where": this, "mutations": mutations}));
    operations
}

fn parse_bridge(row: &Value) -> Option<BridgeRow> {
    Some(BridgeRow {
        uuid: row["_uuid"].clone(),
        name: row["name"].as_str()?.to_owned(),
        datapath_type: row["datapath_type"].as_str().unwrap_or_default().to_owned(),
        external_ids: parse_map(&row["external_ids"]),
        ports: parse_set(&row["ports"]),
    })
}

/// A set of one is written as the bare atom (RFC 7047, section 5.1).
fn parse_set(value: &Value) -> Vec<Value> {
    match value.as_array().map(Vec::as_slice) {
        Some([tag, items]) if tag == "set" => items.as_array().cloned().unwrap_or_default(),
        _ => vec![value.clone()],
    }
}

/// A map of texts.
pub fn parse_map(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_array().and_then(|a| a.get(1)?.as_array());
    let text = |v: Option<&Value>| v.and_then(Value::as_str).map(str::to_owned);
    let pairs = pairs.into_iter().flatten();
    pairs.filter_map(|pair| Some((text(pair.get(0))?, text(pair.get(1))?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried() -> Carried {
        let addresses = vec!["10.0.0.5/24".parse().unwrap()];
        Carried { uplink: "eth1".into(), addresses, routes: vec![] }
    }

    #[test]
    fn an_existing_bridge_gets_another_nic() {
        let bridge = BridgeRow {
            uuid: json!(["uuid", "b"]),
            name: uplink::BRIDGE.into(),
            datapath_type: "netdev".into(),
            external_ids: BTreeMap::new(),
            ports: vec![],
        };
        let local = json!({"_uuid": ["uuid", "1"], "name": "br-phy"});
        let old = json!({"_uuid": ["uuid", "2"], "name": "eth0"});
        let text = json!(change_uplink(&bridge, &[&local, &old], &carried(), None)).to_string();
        assert!(text.contains(r#"["ports","delete",["set",[["uuid","2"]]]]"#), "{text}");
        assert!(text.contains(r#"["ports","insert",["named-uuid","nic_port"]]"#));
        let own = json!({"_uuid": ["uuid", "3"], "name": "eth1"});
        let text = json!(change_uplink(&bridge, &[&local, &own], &carried(), None)).to_string();
        assert!(!text.contains("\"ports\""), "{text}");
    }

    #[test]
    fn sets_and_maps_of_the_wire() {
        let one = json!(["uuid", "a"]);
        assert_eq!(parse_set(&one), std::slice::from_ref(&one));
        assert_eq!(parse_set(&json!(["set", [["uuid", "a"]]])), [one]);
        assert_eq!(parse_map(&json!(["map", [["a", "b"]]]))["a"], "b");
        let entries = Entries::from([("a", Some("1".to_owned())), ("b", None)]);
        let text = json!(mutations("external_ids", &entries)).to_string();
        assert!(text.contains(r#"["set",["a","b"]]"#) && text.contains(r#"[["a","1"]]"#), "{text}");
    }
}
