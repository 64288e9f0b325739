//! Rows of the databases -> samples; pure.

use std::collections::HashMap;

use super::metrics::{
    CHASSIS, PORT_INFO, PORT_KEY, SWITCH_ID, SWITCH_INFO, SWITCH_KEY, SWITCH_PORT, SWITCH_PORTS,
};
use crate::{
    ovsdb::{
        datum::{Atom, Datum},
        replica::{Replica, Row},
        schema::{Column, Table, nb, sb},
    },
    telemetry::Sample,
};

use nb::{logical_switch as switch, logical_switch_port as port};
use sb::{chassis, datapath_binding as datapath, encap, port_binding as binding};

/// What to monitor of the northbound database.
pub const NORTHBOUND: &[(&Table, &[Column])] = &[
    (&nb::LOGICAL_SWITCH, &[switch::NAME, switch::EXTERNAL_IDS, switch::PORTS]),
    (&nb::LOGICAL_SWITCH_PORT, &[port::NAME, port::TYPE, port::ADDRESSES]),
];

/// What to monitor of the southbound database.
pub const SOUTHBOUND: &[(&Table, &[Column])] = &[
    (&sb::CHASSIS, &[chassis::NAME, chassis::HOSTNAME, chassis::ENCAPS]),
    (&sb::ENCAP, &[encap::IP]),
    (&sb::DATAPATH_BINDING, &[datapath::EXTERNAL_IDS, datapath::TUNNEL_KEY]),
    (
        &sb::PORT_BINDING,
        &[binding::LOGICAL_PORT, binding::CHASSIS, binding::DATAPATH, binding::TUNNEL_KEY],
    ),
];

fn text(row: &Row, column: Column) -> &str {
    row.text(column).map_or("", |t| t)
}

fn number(row: &Row, column: Column) -> Option<f64> {
    match row.get(column)? {
        Datum::Set(set) => match set.first()? {
            Atom::Integer(n) => Some(*n as f64),
            _ => None,
        },
        Datum::Map(_) => None,
    }
}

/// The first reference, as text; empty without.
fn reference(row: &Row, column: Column) -> String {
    let first = row.get(column).and_then(|datum| datum.uuids().next());
    first.map(|uuid| uuid.to_string()).unwrap_or_default()
}

/// Chassis, switches and ports.
pub fn samples(host: &str, northbound: &Replica, southbound: &Replica) -> Vec<Sample> {
    let mut all = Vec::new();
    for row in southbound.rows(&sb::CHASSIS) {
        let encap = row.get(chassis::ENCAPS).and_then(|datum| datum.uuids().next());
        let encap = encap.and_then(|uuid| southbound.get(&sb::ENCAP, uuid));
        let ip = encap.map_or("", |row| text(row, encap::IP));
        let (name, hostname) = (text(row, chassis::NAME), text(row, chassis::HOSTNAME));
        all.push(CHASSIS.sample(&[hostname, &row.uuid.to_string(), name, ip], 1.0));
    }
    let keys: HashMap<&str, f64> = southbound
        .rows(&sb::DATAPATH_BINDING)
        .filter_map(|row| {
            let switch = row.entry(datapath::EXTERNAL_IDS, "logical-switch")?;
            Some((&**switch, number(row, datapath::TUNNEL_KEY)?))
        })
        .collect();
    let bindings: HashMap<&str, &Row> = southbound
        .rows(&sb::PORT_BINDING)
        .map(|row| (text(row, binding::LOGICAL_PORT), row))
        .collect();
    for row in northbound.rows(&nb::LOGICAL_SWITCH) {
        let (uuid, name) = (row.uuid.to_string(), text(row, switch::NAME));
        all.push(SWITCH_INFO.sample(&[host, &uuid, name], 1.0));
        if let Some(Datum::Map(ids)) = row.get(switch::EXTERNAL_IDS) {
            for (key, value) in ids {
                if let (Atom::Text(key), Atom::Text(value)) = (key, value) {
                    all.push(SWITCH_ID.sample(&[host, &uuid, key, value, name], 1.0));
                }
            }
        }
        let key = keys.get(uuid.as_str());
        all.extend(key.map(|key| SWITCH_KEY.sample(&[host, &uuid, name], *key)));
        let mut count = 0;
        for port in row.get(switch::PORTS).into_iter().flat_map(Datum::uuids) {
            count += 1;
            all.push(SWITCH_PORT.sample(&[host, &uuid, &port.to_string(), name], 1.0));
            if let Some(port) = northbound.get(&nb::LOGICAL_SWITCH_PORT, port) {
                all.extend(port_samples(host, name, port, &bindings));
            }
        }
        all.push(SWITCH_PORTS.sample(&[host, &uuid, name], f64::from(count)));
    }
    all
}

fn port_samples(
    host: &str,
    switch: &str,
    row: &Row,
    bindings: &HashMap<&str, &Row>,
) -> Vec<Sample> {
    let (uuid, name) = (row.uuid.to_string(), text(row, port::NAME));
    let bound = bindings.get(name);
    let of = |column| bound.map(|row| reference(row, column)).unwrap_or_default();
    let (mac, ip) = addresses(row);
    let labels = [
        host,
        &uuid,
        name,
        &of(binding::CHASSIS),
        switch,
        &of(binding::DATAPATH),
        &bound.map(|row| row.uuid.to_string()).unwrap_or_default(),
        &mac,
        &ip,
    ];
    let mut all = vec![PORT_INFO.sample(&labels, 1.0)];
    let key = bound.and_then(|row| number(row, binding::TUNNEL_KEY));
    all.extend(key.map(|key| PORT_KEY.sample(&[host, &uuid, switch, name], key)));
    all
}

/// MAC and addresses of the first entry; `router`, `unknown` and `dynamic` stand for themselves.
fn addresses(row: &Row) -> (String, String) {
    let Some(Datum::Set(set)) = row.get(port::ADDRESSES) else { return Default::default() };
    let Some(Atom::Text(first)) = set.first() else { return Default::default() };
    match first.split_once(' ') {
        Some((mac, ips)) => (mac.to_owned(), ips.trim().to_owned()),
        None => (first.to_string(), first.to_string()),
    }
}
