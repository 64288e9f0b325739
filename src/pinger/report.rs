//! What Open vSwitch says about itself -> samples; pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::metrics::{
    DB_SIZE, DP, DP_FLOWS, DP_HIT, DP_IF, DP_IF_TOTAL, DP_LOST, DP_MASKS, DP_MASKS_HIT,
    DP_MASKS_RATIO, DP_MISSED, DP_TOTAL, FAILED_REQUESTS, IF, IF_ADMIN, IF_INDEX, IF_LINK, IF_MAC,
    IF_MTU, IF_PORT, INFO, LOG_SIZE, STATISTICS, STATUS,
};
use crate::telemetry::{Family, Sample};

/// Everything that one round read on the node.
#[derive(Debug, Clone, Default)]
pub struct OvsState {
    /// The row of table Open_vSwitch, as JSON of RFC 7047.
    pub system: Value,
    /// Rows of table Interface.
    pub interfaces: Vec<Value>,
    /// Name of a datapath and the text of `dpctl/show` for it.
    pub datapaths: Vec<(String, String)>,
    /// `ovsdb-server` or `ovs-vswitchd`, and whether it answers.
    pub components: Vec<(&'static str, bool)>,
    /// Component, path, bytes.
    pub logs: Vec<(&'static str, String, u64)>,
    /// Bytes of conf.db.
    pub database: Option<u64>,
    pub failed_requests: u64,
    pub run_folder: String,
}

/// An entry of an OVSDB map.
pub fn entry<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let pairs = tagged(value, "map")?.as_array()?;
    pairs.iter().find(|p| p[0] == key).map(|p| &p[1])
}

fn tagged<'a>(value: &'a Value, tag: &str) -> Option<&'a Value> {
    (value[0] == tag).then_some(&value[1])
}

/// The text of a scalar, empty for an empty set.
pub fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Array(_) => tagged(value, "uuid").and_then(Value::as_str).unwrap_or("").to_owned(),
        _ => String::new(),
    }
}

/// Samples of everything that is known.
pub fn samples(state: &OvsState) -> Vec<Sample> {
    let ids = &state.system["external_ids"];
    let id = |key| entry(ids, key).map(scalar).unwrap_or_default();
    let host = id("hostname");
    let mut all = Vec::new();
    if state.system.is_object() {
        let of = |column: &str| scalar(&state.system[column]);
        let labels = [
            &host,
            &id("system-id"),
            &state.run_folder,
            &of("system_type"),
            &of("system_version"),
            &of("ovs_version"),
            &of("db_version"),
        ];
        all.push(INFO.sample(&labels.map(String::as_str), 1.0));
    }
    for (component, up) in &state.components {
        all.push(STATUS.sample(&[&host, component], f64::from(u8::from(*up))));
    }
    for (component, path, size) in &state.logs {
        all.push(LOG_SIZE.sample(&[&host, component, path], *size as f64));
    }
    if let Some(size) = state.database {
        all.push(DB_SIZE.sample(&[&host, "OVS_DB"], size as f64));
    }
    all.push(FAILED_REQUESTS.sample(&[&host], state.failed_requests as f64));
    let ports: BTreeMap<String, String> =
        state.interfaces.iter().map(|i| (scalar(&i["name"]), scalar(&i["ofport"]))).collect();
    // BUG of upstream: datapath and dp_total are set and reset in the same round.
    all.push(DP_TOTAL.sample(&[&host], state.datapaths.len() as f64));
    for (name, text) in &state.datapaths {
        datapath(&mut all, &host, (name, &Datapath::parse(text)), &ports);
    }
    for row in &state.interfaces {
        interface(&mut all, &host, row);
    }
    all
}

fn datapath(
    all: &mut Vec<Sample>,
    host: &str,
    (name, dp): (&str, &Datapath),
    ports: &BTreeMap<String, String>,
) {
    // `netdev@ovs-netdev`; the kernel's are `system@ovs-system`.
    let kind = name.split_once('@').map_or("system", |(kind, _)| kind);
    all.push(DP.sample(&[host, name, kind], 1.0));
    all.push(DP_IF_TOTAL.sample(&[host, name], dp.ports.len() as f64));
    for (port, kind) in &dp.ports {
        let of_port = ports.get(port).map_or("", String::as_str);
        all.push(DP_IF.sample(&[host, name, port, kind, of_port], 1.0));
    }
    for (family, value) in [
        (&DP_FLOWS, dp.flows),
        (&DP_HIT, dp.hit),
        (&DP_MISSED, dp.missed),
        (&DP_LOST, dp.lost),
        (&DP_MASKS_HIT, dp.masks_hit),
        (&DP_MASKS, dp.masks),
        (&DP_MASKS_RATIO, dp.masks_ratio),
    ] {
        all.extend(value.map(|value| family.sample(&[host, name], value)));
    }
}

fn interface(all: &mut Vec<Sample>, host: &str, row: &Value) {
    let name = scalar(&row["name"]);
    all.push(IF.sample(&[host, &scalar(&row["_uuid"]), &name], 1.0));
    let mut put = |family: &'static Family, value: Option<f64>| {
        all.extend(value.map(|value| family.sample(&[host, &name], value)));
    };
    put(&IF_ADMIN, Some(state(&row["admin_state"])));
    put(&IF_LINK, Some(state(&row["link_state"])));
    put(&IF_MTU, row["mtu"].as_f64());
    put(&IF_PORT, row["ofport"].as_f64());
    put(&IF_INDEX, row["ifindex"].as_f64());
    for (key, family) in STATISTICS {
        put(family, entry(&row["statistics"], key).and_then(Value::as_f64));
    }
    let mac = scalar(&row["mac_in_use"]);
    if !mac.is_empty() {
        all.push(IF_MAC.sample(&[host, &name, &mac], 1.0));
    }
}

fn state(value: &Value) -> f64 {
    match value.as_str() {
        Some("down") => 0.0,
        Some("up") => 1.0,
        _ => 2.0,
    }
}

/// The text of `dpctl/show DATAPATH`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Datapath {
    pub hit: Option<f64>,
    pub missed: Option<f64>,
    pub lost: Option<f64>,
    pub flows: Option<f64>,
    /// The userspace datapath has no masks.
    pub masks_hit: Option<f64>,
    pub masks: Option<f64>,
    pub masks_ratio: Option<f64>,
    /// Name and type.
    pub ports: Vec<(String, String)>,
}

impl Datapath {
    pub fn parse(text: &str) -> Self {
        let mut dp = Datapath::default();
        for line in text.lines().map(str::trim) {
            let Some((field, rest)) = line.split_once(':') else { continue };
            let value = |key: &str| {
                let word = rest.split_whitespace().find_map(|w| w.strip_prefix(key));
                word.and_then(|text| text.parse().ok())
            };
            match field {
                "lookups" => {
                    (dp.hit, dp.missed, dp.lost) = (value("hit:"), value("missed:"), value("lost:"))
                }
                "flows" => dp.flows = rest.trim().parse().ok(),
                "masks" => {
                    (dp.masks_hit, dp.masks) = (value("hit:"), value("total:"));
                    dp.masks_ratio = value("hit/pkt:");
                }
                _ if field.starts_with("port ") => dp.ports.extend(parse_port(rest)),
                _ => {}
            }
        }
        dp
    }
}

/// `br-int (internal)`, `genev_sys_6081 (geneve: packet_type=ptap)`, `eth0`.
fn parse_port(text: &str) -> Option<(String, String)> {
    let text = text.trim();
    let (name, kind) = match text.split_once(" (") {
        Some((name, rest)) => (name, rest.split([':', ')']).next().unwrap_or("system")),
        None => (text, "system"),
    };
    (!name.is_empty()).then(|| (name.trim().to_owned(), kind.to_owned()))
}

/// Ports of Open vSwitch that the southbound database does not bind to this chassis.
pub fn unbound(ovs: &[String], southbound: &[String]) -> Vec<String> {
    ovs.iter().filter(|port| !southbound.contains(port)).cloned().collect()
}

/// `external_ids:iface-id` of the rows that have one, sorted.
pub fn interface_ids(rows: &[Value]) -> Vec<String> {
    let ids = rows.iter().filter_map(|row| entry(&row["external_ids"], "iface-id"));
    let mut ids: Vec<String> = ids.map(scalar).filter(|id| !id.is_empty()).collect();
    ids.sort();
    ids.dedup();
    ids
}
