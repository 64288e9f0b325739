//! NAT gateways, addresses of the outside and rules that use them.

use serde_json::Value;

use super::review::{Asked, Facts, Operation, Request, bad, check_addresses, text};
use crate::{
    api::names::label,
    net::{DualStack, parse_ip},
};

/// The external subnet when none is named.
const EXTERNAL_SUBNET: &str = "ovn-vpc-external-network";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Dnat,
    Snat,
    Fip,
}

/// Whether a change has to be looked at: a creation, or an update of the spec.
fn is_news(request: &Request) -> bool {
    match request.operation {
        Operation::Create => true,
        Operation::Update => request.spec_changed(),
        _ => false,
    }
}

/// NAT gateways must be configured and switched on.
fn check_configured(facts: &Facts) -> Asked<()> {
    for (name, key, on) in [
        ("ovn-vpc-nat-config", "image", None),
        ("ovn-vpc-nat-gw-config", "enable-vpc-nat-gw", Some("true")),
    ] {
        let Some(config) = facts.config(name)? else {
            return bad(format!("ConfigMap kube-system/{name} not configured; create it"));
        };
        let value = text(&config["data"][key]);
        if value.is_empty() {
            return bad(format!("ConfigMap kube-system/{name}: parameter {key:?} is empty"));
        }
        if on.is_some_and(|on| value != on) {
            return bad(format!("ConfigMap kube-system/{name}: parameter {key:?} is not true"));
        }
    }
    Ok(())
}

pub fn gateway(request: &Request, facts: &Facts) -> Asked<()> {
    let name = request.name.as_str();
    if request.operation == Operation::Delete {
        let labels = format!("{}={name}", label::VPC_NAT_GW_NAME);
        return match facts.all("iptables-eips", &labels)?.first() {
            Some(eip) => {
                let eip = text(&eip["metadata"]["name"]);
                bad(format!("vpc-nat-gateway {name:?}: cannot delete while eip {eip:?} is in use"))
            }
            None => Ok(()),
        };
    }
    if !is_news(request) {
        return Ok(());
    }
    check_configured(facts)?;
    let spec = &request.object["spec"];
    facts.one("vpcs", "spec.vpc", text(&spec["vpc"]))?;
    let subnet = facts.one("subnets", "spec.subnet", text(&spec["subnet"]))?;
    let lan = text(&spec["lanIp"]);
    let block = text(&subnet["spec"]["cidrBlock"]);
    match parse_ip(lan) {
        // Empty: chosen by the controller.
        _ if lan.is_empty() => {}
        Err(error) => return bad(format!("spec.lanIp {lan:?}: {error}")),
        Ok(ip) if !DualStack::parse_cidrs(block).unwrap_or_default().contains(ip) => {
            return bad(format!("spec.lanIp {lan:?}: lies outside {block}; choose one in it"));
        }
        Ok(_) => {}
    }
    for (index, toleration) in spec["tolerations"].as_array().into_iter().flatten().enumerate() {
        let field = format!("spec.tolerations[{index}]");
        let operator = text(&toleration["operator"]);
        // Kubernetes' defaults: an empty operator is Equal, an empty effect all of them.
        if !["", "Exists", "Equal"].contains(&operator) {
            return bad(format!("{field}.operator {operator:?}: write Exists or Equal"));
        }
        let effect = text(&toleration["effect"]);
        if !["", "NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
            let remedy = "write NoSchedule, PreferNoSchedule or NoExecute";
            return bad(format!("{field}.effect {effect:?}: {remedy}"));
        }
    }
    match text(&spec["qosPolicy"]) {
        "" => Ok(()),
        policy => facts.one("qos-policies", "spec.qosPolicy", policy).map(drop),
    }
}

fn external_subnet<'a>(facts: &'a Facts, name: &str) -> Asked<&'a Value> {
    let name = if name.is_empty() { EXTERNAL_SUBNET } else { name };
    facts.one("subnets", "spec.externalSubnet", name)
}

fn refuse_ready(request: &Request) -> Asked<()> {
    if request.operation == Operation::Update && request.is_frozen() {
        let (kind, name) = (&request.resource, &request.name);
        return bad(format!("{kind} {name:?} is ready, a change is not supported"));
    }
    Ok(())
}

pub fn iptables_eip(request: &Request, facts: &Facts) -> Asked<()> {
    if request.operation == Operation::Delete {
        return iptables_eip_unused(request, facts);
    }
    if !is_news(request) {
        return Ok(());
    }
    refuse_ready(request)?;
    check_configured(facts)?;
    let spec = &request.object["spec"];
    if text(&spec["natGwDp"]).is_empty() {
        return bad("spec.natGwDp: must be set to the name of a VpcNatGateway");
    }
    let subnet = external_subnet(facts, text(&spec["externalSubnet"]))?;
    check_addresses(&request.object, ["v4ip", "v6ip"], subnet)
}

fn iptables_eip_unused(request: &Request, facts: &Facts) -> Asked<()> {
    let old = &request.old;
    if old["status"]["ready"] != true {
        return Ok(());
    }
    let ip = match text(&old["spec"]["v4ip"]) {
        "" => text(&old["status"]["ip"]),
        ip => ip,
    };
    let labels = format!("{}={ip}", label::EIP_V4_IP);
    for (word, plural) in [
        ("fip", "iptables-fip-rules"),
        ("snat", "iptables-snat-rules"),
        ("dnat", "iptables-dnat-rules"),
    ] {
        let named = text(&old["status"]["nat"]).split(',').any(|nat| nat.trim() == word);
        if let Some(rule) = facts.all(plural, &labels)?.first().filter(|_| named) {
            let (name, rule) = (&request.name, text(&rule["metadata"]["name"]));
            return bad(format!(
                "eip {name:?} is still in use by {word} {rule:?}; remove it first"
            ));
        }
    }
    Ok(())
}

/// Ports and protocol of a DNAT rule.
fn check_dnat(spec: &Value) -> Asked<()> {
    for field in ["externalPort", "internalPort"] {
        let port = text(&spec[field]);
        if !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return bad(format!("spec.{field} {port:?}: write a port from 1 to 65535"));
        }
    }
    let protocol = text(&spec["protocol"]);
    if !["tcp", "udp"].contains(&protocol.to_lowercase().as_str()) {
        return bad(format!("spec.protocol {protocol:?}: write tcp or udp"));
    }
    Ok(())
}

fn check_address(spec: &Value, field: &str) -> Asked<()> {
    let value = text(&spec[field]);
    match parse_ip(value) {
        Ok(_) => Ok(()),
        Err(error) => bad(format!("spec.{field} {value:?}: {error}")),
    }
}

pub fn iptables_rule(request: &Request, facts: &Facts, rule: Rule) -> Asked<()> {
    if !is_news(request) {
        return Ok(());
    }
    refuse_ready(request)?;
    check_configured(facts)?;
    let spec = &request.object["spec"];
    facts.one("iptables-eips", "spec.eip", text(&spec["eip"]))?;
    match rule {
        Rule::Dnat => {
            check_dnat(spec)?;
            check_address(spec, "internalIp")
        }
        Rule::Fip => check_address(spec, "internalIp"),
        Rule::Snat => {
            let cidr = text(&spec["internalCIDR"]);
            match DualStack::parse_cidrs(cidr) {
                Ok(_) if !cidr.is_empty() => Ok(()),
                _ => bad(format!("spec.internalCIDR {cidr:?}: write a CIDR")),
            }
        }
    }
}

/// BUG of upstream: its configuration never sends these and [`ovn_rule`]'s.
pub fn ovn_eip(request: &Request, facts: &Facts) -> Asked<()> {
    if request.operation == Operation::Delete {
        return ovn_eip_unused(request, facts);
    }
    if !is_news(request) {
        return Ok(());
    }
    refuse_ready(request)?;
    let spec = &request.object["spec"];
    let subnet = external_subnet(facts, text(&spec["externalSubnet"]))?;
    check_addresses(&request.object, ["v4Ip", "v6Ip"], subnet)
}

fn ovn_eip_unused(request: &Request, facts: &Facts) -> Asked<()> {
    let name = request.name.as_str();
    if request.old["status"]["ready"] != true {
        return Ok(());
    }
    for plural in ["ovn-dnat-rules", "ovn-fips", "ovn-snat-rules"] {
        let user = facts.all(plural, "")?.iter().find(|rule| rule["spec"]["ovnEip"] == name);
        if let Some(rule) = user {
            let rule = text(&rule["metadata"]["name"]);
            return bad(format!("ovn-eip {name:?} is still used by {plural} {rule:?}"));
        }
    }
    Ok(())
}

pub fn ovn_rule(request: &Request, facts: &Facts, rule: Rule) -> Asked<()> {
    if !is_news(request) {
        return Ok(());
    }
    refuse_ready(request)?;
    let spec = &request.object["spec"];
    facts.one("ovn-eips", "spec.ovnEip", text(&spec["ovnEip"]))?;
    let is_set = |field: &str| !text(&spec[field]).is_empty();
    if rule == Rule::Snat {
        return check_ovn_snat(&is_set);
    }
    if !is_set("ipName") && !is_set("v4Ip") && !is_set("v6Ip") {
        return bad("spec: name the target by ipName, v4Ip or v6Ip");
    }
    if rule == Rule::Dnat { check_dnat(spec) } else { Ok(()) }
}

fn check_ovn_snat(is_set: &impl Fn(&str) -> bool) -> Asked<()> {
    let cidr = is_set("v4IpCidr") || is_set("v6IpCidr");
    if is_set("vpcSubnet") && is_set("ipName") {
        return bad("spec: vpcSubnet and ipName exclude each other; remove one");
    }
    if is_set("vpc") && !cidr {
        return bad("spec.vpc: needs v4IpCidr or v6IpCidr");
    }
    if !is_set("vpc") && cidr {
        return bad("spec.vpc: must be set beside v4IpCidr or v6IpCidr");
    }
    if !is_set("vpc") && !is_set("vpcSubnet") && !is_set("ipName") {
        return bad("spec: name the source by vpcSubnet, ipName, or vpc and a CIDR");
    }
    Ok(())
}
