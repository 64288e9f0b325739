//! Subnet, Vpc, IP and Vip. The rules of a Subnet and a Vpc are the controller's own.

use serde_json::Value;

use super::review::{
    Asked, Facts, Operation, Request, bad, check_addresses, conflict, denied, text,
};
use crate::api::{
    Invalid, Settings, Subnet, Vpc, crd,
    parse::{conflicts, parse_subnet, parse_vpc, vpc_conflicts},
};

fn joined(found: Vec<Invalid>) -> String {
    found.into_iter().map(|f| f.message).collect::<Vec<_>>().join("; ")
}

fn typed<T: serde::de::DeserializeOwned>(object: &Value) -> Asked<T> {
    serde_json::from_value(object.clone()).or_else(bad)
}

fn count(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn in_use(subnet: &Value) -> bool {
    let status = &subnet["status"];
    count(&status["v4usingIPs"]) != 0.0 || count(&status["v6usingIPs"]) != 0.0
}

pub fn subnet(request: &Request, facts: &Facts, settings: &Settings) -> Asked<()> {
    let name = request.name.as_str();
    match request.operation {
        Operation::Delete if in_use(&request.old) => {
            return denied(format!("subnet {name:?}: cannot delete while IPs are in use"));
        }
        Operation::Create => {}
        // A label or a finalizer; what is wrong already must not stop it.
        Operation::Update if request.spec_changed() => {}
        _ => return Ok(()),
    }
    let gateway = |object: &Value| text(&object["spec"]["gateway"]).to_owned();
    let (before, after) = (gateway(&request.old), gateway(&request.object));
    if request.operation == Operation::Update && before != after && in_use(&request.old) {
        let remedy = "gateway cannot be updated while IPs are in use";
        return denied(format!("spec.gateway {after:?}: {remedy}"));
    }
    let raw: crd::Subnet = typed(&request.object)?;
    let parsed = match parse_subnet(&raw, settings) {
        Ok(subnet) => subnet,
        Err(found) => return denied(joined(found)),
    };
    // Every other subnet was there before a change that is not made yet.
    let newest = Subnet { created: i64::MAX, ..parsed };
    let others = facts.all("subnets", "")?.iter();
    let others: Vec<Subnet> = others
        .filter_map(|other| serde_json::from_value::<crd::Subnet>(other.clone()).ok())
        .filter_map(|raw| parse_subnet(&raw, settings).ok())
        .collect();
    let found = conflicts(&newest, &others);
    if !found.is_empty() {
        return conflict(joined(found));
    }
    if request.operation == Operation::Create && facts.find("vpcs", name)?.is_some() {
        return bad(format!("metadata.name {name:?}: vpc and subnet must have different names"));
    }
    // A Vpc that does not exist may come with the next request.
    if let Some(vpc) = facts.find("vpcs", &newest.vpc)? {
        let vpc: Vpc = parse_vpc(&typed::<crd::Vpc>(vpc)?).0;
        let found = vpc_conflicts(&newest, settings, [&vpc]);
        if !found.is_empty() {
            return bad(joined(found));
        }
    }
    Ok(())
}

pub fn vpc(request: &Request, facts: &Facts) -> Asked<()> {
    let name = request.name.as_str();
    match request.operation {
        Operation::Create => {
            if facts.find("subnets", name)?.is_some() {
                let remedy = "vpc and subnet must have different names";
                return bad(format!("metadata.name {name:?}: {remedy}"));
            }
            check_vpc(request)
        }
        Operation::Update if request.spec_changed() => check_vpc(request),
        Operation::Delete => check_vpc_unused(request, facts),
        _ => Ok(()),
    }
}

fn check_vpc(request: &Request) -> Asked<()> {
    let found = parse_vpc(&typed::<crd::Vpc>(&request.object)?).1;
    if found.is_empty() { Ok(()) } else { bad(joined(found)) }
}

fn check_vpc_unused(request: &Request, facts: &Facts) -> Asked<()> {
    let name = request.name.as_str();
    let subnets = request.old["status"]["subnets"].as_array().cloned().unwrap_or_default();
    if !subnets.is_empty() {
        let names: Vec<&str> = subnets.iter().map(text).collect();
        let remedy = format!("still has the subnets {}; delete them first", names.join(", "));
        return denied(format!("vpc {name:?}: {remedy}"));
    }
    for plural in ["ovn-dnat-rules", "ovn-snat-rules", "ovn-fips"] {
        for rule in facts.all(plural, "")? {
            let vpc = match text(&rule["status"]["vpc"]) {
                "" => text(&rule["spec"]["vpc"]),
                vpc => vpc,
            };
            if vpc == name {
                let rule = text(&rule["metadata"]["name"]);
                let remedy = format!("{plural} {rule:?} uses it; delete that first");
                return denied(format!("vpc {name:?}: {remedy}"));
            }
        }
    }
    Ok(())
}

/// Kinds whose addresses outlive pods.
const POD_TYPES: &[&str] = &["", "VirtualMachine", "StatefulSet"];

/// BUG of upstream: its configuration never sends these.
pub fn ip(request: &Request, facts: &Facts) -> Asked<()> {
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    if request.operation == Operation::Update && !request.spec_changed() {
        return Ok(());
    }
    let spec = &request.object["spec"];
    let subnet = facts.one("subnets", "spec.subnet", text(&spec["subnet"]))?;
    check_addresses(&request.object, ["v4IpAddress", "v6IpAddress"], subnet)?;
    let kind = text(&spec["podType"]);
    if !POD_TYPES.contains(&kind) {
        return bad(format!(
            "spec.podType {kind:?}: leave it empty, or StatefulSet, VirtualMachine"
        ));
    }
    if request.operation == Operation::Update {
        for field in [
            "subnet",
            "namespace",
            "podName",
            "podType",
            "v4IpAddress",
            "v6IpAddress",
            "macAddress",
        ] {
            let (before, after) = (text(&request.old["spec"][field]), text(&spec[field]));
            if !before.is_empty() && before != after {
                return bad(format!("spec.{field} {after:?}: cannot change, it is {before:?}"));
            }
        }
    }
    Ok(())
}

pub fn vip(request: &Request, facts: &Facts) -> Asked<()> {
    match request.operation {
        Operation::Create => {}
        Operation::Update if request.spec_changed() => {
            if !text(&request.old["status"]["mac"]).is_empty() {
                let name = request.name.as_str();
                return bad(format!("vip {name:?} is assigned, a change is not supported"));
            }
        }
        _ => return Ok(()),
    }
    let subnet = facts.one("subnets", "spec.subnet", text(&request.object["spec"]["subnet"]))?;
    check_addresses(&request.object, ["v4ip", "v6ip"], subnet)
}
