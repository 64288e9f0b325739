use k8s_openapi::api::core::v1 as core;

use crate::{
    api::{ExternalGateway, Placement},
    net::{Cidr, DualStack},
};

use super::{
    findings::{Findings, reason},
    items, text,
};

/// ConfigMap `ovn-external-gw-config`. What is wrong with it is part of it.
pub fn parse_external_gateway(raw: &core::ConfigMap) -> ExternalGateway {
    let get = |key: &str| raw.data.as_ref().and_then(|d| d.get(key)).map_or("", |v| v.trim());
    let mut found = Findings::new(reason::VPC);
    let placement = match get("type") {
        "" | "centralized" => {
            Placement::Centralized(items(get("external-gw-nodes")).map(Into::into).collect())
        }
        "distributed" => Placement::Distributed,
        other => {
            found.refuse("type", other, "write centralized or distributed");
            Placement::Centralized(Vec::new())
        }
    };
    let list = |found: &mut Findings, key: &str| {
        let value = get(key);
        let cidrs = (!value.is_empty()).then(|| DualStack::parse_cidrs(value));
        cidrs.and_then(|parsed| found.take(key, value, parsed)).unwrap_or_default()
    };
    let addresses: DualStack<Cidr> = list(&mut found, "nic-ip");
    // The length of the prefix does not matter here: the port's decides.
    let bare: Vec<&str> =
        items(get("external-gw-addr")).map(|a| a.split('/').next().unwrap_or(a)).collect();
    let next_hops = match bare.join(",").as_str() {
        "" => DualStack::default(),
        hops => found
            .take("external-gw-addr", hops, DualStack::parse_addresses(hops))
            .unwrap_or_default(),
    };
    for (family, hop) in next_hops.iter() {
        if addresses.get(family).is_some_and(|c| !c.contains(*hop)) {
            found.refuse("external-gw-addr", hop, format!("lies outside nic-ip {addresses}"));
        }
    }
    let mac = match get("nic-mac") {
        "" => None,
        value => found.take("nic-mac", value, value.parse()),
    };
    let enabled = get("enable-external-gw") != "false";
    if enabled && addresses.is_empty() {
        let remedy = "give the gateway port a free address of the external network, for example \
                      172.56.0.254/16";
        found.refuse("nic-ip", "", remedy);
    }
    let namespace = text(raw.metadata.namespace.as_ref());
    ExternalGateway {
        key: format!("{namespace}/{}", text(raw.metadata.name.as_ref())).into(),
        enabled,
        placement,
        nic: get("external-gw-nic").into(),
        next_hops,
        addresses,
        mac,
        invalid: found.into_list(),
    }
}
