//! Whether addresses are recorded, given and used as they should be. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::Serialize;
use serde_json::Value;

use super::{
    cluster::{each, name, text},
    sender::port_of,
};
use crate::{
    api::names::{annotation, label},
    net::{Cidr, DualStack, parse_ip},
};

/// Objects as the API server gave them.
#[derive(Debug, Default)]
pub struct Objects {
    pub subnets: Vec<Value>,
    pub ips: Vec<Value>,
    pub pods: Vec<Value>,
    pub nodes: Vec<Value>,
}

/// Something that is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    pub object: String,
    pub problem: String,
    pub remedy: String,
}

fn finding(object: String, problem: String, remedy: &str) -> Finding {
    Finding { object, problem, remedy: remedy.to_owned() }
}

/// Addresses of an IP object or Vip.
pub fn addresses(ip: &Value) -> Vec<IpAddr> {
    let spec = &ip["spec"];
    let both = [&spec["v4IpAddress"], &spec["v6IpAddress"]];
    let mut all: Vec<IpAddr> = both.iter().filter_map(|a| parse_ip(text(a)).ok()).collect();
    if all.is_empty() {
        all = text(&spec["ipAddress"]).split(',').filter_map(|a| parse_ip(a.trim()).ok()).collect();
    }
    all
}

fn cidrs(subnet: &Value) -> DualStack<Cidr> {
    DualStack::parse_cidrs(text(&subnet["spec"]["cidrBlock"])).unwrap_or_default()
}

/// Every contradiction between the objects.
pub fn check(objects: &Objects) -> Vec<Finding> {
    let mut findings = Vec::new();
    recorded(objects, &mut findings);
    used(objects, &mut findings);
    counted(objects, &mut findings);
    findings.sort();
    findings
}

/// IP objects by themselves, and against subnets and their pods.
fn recorded(objects: &Objects, findings: &mut Vec<Finding>) {
    let subnets: BTreeMap<&str, &Value> = objects.subnets.iter().map(|s| (name(s), s)).collect();
    let pods: BTreeSet<String> = objects
        .pods
        .iter()
        .map(|p| format!("{}/{}", text(&p["metadata"]["namespace"]), name(p)))
        .collect();
    let nodes: BTreeSet<&str> = objects.nodes.iter().map(name).collect();
    let mut holders: BTreeMap<(String, IpAddr), &str> = BTreeMap::new();
    for ip in &objects.ips {
        let (own, spec) = (name(ip), &ip["spec"]);
        let object = format!("IP {own}");
        let Some(subnet) = subnets.get(text(&spec["subnet"])) else {
            let problem = format!("its subnet {:?} does not exist", text(&spec["subnet"]));
            findings.push(finding(object, problem, "release it, or make the subnet again"));
            continue;
        };
        let found = addresses(ip);
        if found.is_empty() {
            findings.push(finding(object.clone(), "it holds no address".into(), "release it"));
        }
        for address in found {
            let cidrs = cidrs(subnet);
            if !cidrs.contains(address) {
                let problem = format!("{address} is outside of {cidrs}");
                findings.push(finding(object.clone(), problem, "restart its pod for a new one"));
            }
            // Tenants may use the same addresses: a VPC is a space of its own.
            let space = match text(&subnet["spec"]["provider"]) {
                "" | "ovn" => text(&subnet["spec"]["vpc"]).to_owned(),
                provider => format!("provider {provider}"),
            };
            if let Some(other) = holders.insert((space, address), own) {
                let problem = format!("{address} is also in IP {other}");
                findings.push(finding(object.clone(), problem, "restart one of the two pods"));
            }
        }
        let namespace = text(&spec["namespace"]);
        let kept = ip["metadata"]["labels"][label::IP_RESERVED] == "true"
            || !text(&spec["podType"]).is_empty()
            || !ip["metadata"]["deletionTimestamp"].is_null();
        let holder = format!("{namespace}/{}", text(&spec["podName"]));
        if !namespace.is_empty() && !kept && !pods.contains(&holder) {
            findings.push(finding(
                object,
                format!("its pod {holder} is gone"),
                "kubectl ko ipam release NAME",
            ));
        } else if namespace.is_empty()
            && let Some(node) = own.strip_prefix("node-")
            && !nodes.contains(node)
        {
            findings.push(finding(object, format!("node {node} is gone"), "release it"));
        }
    }
}

/// Pods against their records.
fn used(objects: &Objects, findings: &mut Vec<Finding>) {
    let ips: BTreeMap<&str, &Value> = objects.ips.iter().map(|ip| (name(ip), ip)).collect();
    for pod in objects.pods.iter().filter(|pod| has_network(pod)) {
        let status: BTreeSet<IpAddr> = each(&pod["status"]["podIPs"])
            .filter_map(|ip| parse_ip(text(&ip["ip"])).ok())
            .collect();
        let object = format!("Pod {}/{}", text(&pod["metadata"]["namespace"]), name(pod));
        let annotated = text(&pod["metadata"]["annotations"][annotation::IP_ADDRESS]);
        let annotated: BTreeSet<IpAddr> =
            annotated.split(',').filter_map(|ip| parse_ip(ip.trim()).ok()).collect();
        let Some(ip) = ips.get(port_of(pod).as_str()) else {
            if !status.is_empty() {
                let remedy =
                    "delete the pod: it was attached by another plugin or its record is lost";
                findings.push(finding(object, "no IP object records its address".into(), remedy));
            }
            continue;
        };
        let recorded: BTreeSet<IpAddr> = addresses(ip).into_iter().collect();
        if !status.is_empty() && !status.is_subset(&recorded) {
            let problem = format!("it uses {}, but {} is recorded", list(&status), list(&recorded));
            findings.push(finding(object, problem, "delete the pod"));
        } else if !annotated.is_empty() && annotated != recorded {
            let problem = format!(
                "its annotation says {}, its IP object {}",
                list(&annotated),
                list(&recorded)
            );
            findings.push(finding(object, problem, "remove the annotation ip_address"));
        }
    }
}

fn list(all: &BTreeSet<IpAddr>) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn has_network(pod: &Value) -> bool {
    let ended = matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed");
    let annotated = pod["metadata"]["annotations"][annotation::ALLOCATED] == "true";
    let leaving = !pod["metadata"]["deletionTimestamp"].is_null();
    pod["spec"]["hostNetwork"] != true && !ended && !leaving && annotated
}

/// The counters in the subnets' status.
fn counted(objects: &Objects, findings: &mut Vec<Finding>) {
    for subnet in &objects.subnets {
        let usage = usage(subnet, &objects.ips);
        for (field, used) in [("v4usingIPs", usage.v4), ("v6usingIPs", usage.v6)] {
            let shown = subnet["status"][field].as_f64();
            // Vips and gateways of other kinds count too, but never less than the IP objects.
            if let Some(shown) = shown.filter(|shown| *shown < used as f64) {
                findings.push(finding(
                    format!("Subnet {}", name(subnet)),
                    format!("status.{field} is {shown}, but {used} are recorded"),
                    "wait for the controller; if it stays, look at its log",
                ));
            }
        }
    }
}

/// Recorded addresses of a subnet by family.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub v4: usize,
    pub v6: usize,
}

pub fn usage(subnet: &Value, ips: &[Value]) -> Usage {
    let own = ips.iter().filter(|ip| text(&ip["spec"]["subnet"]) == name(subnet));
    let mut usage = Usage::default();
    for address in own.flat_map(addresses) {
        if address.is_ipv4() {
            usage.v4 += 1;
        } else {
            usage.v6 += 1;
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn subnet(name: &str, vpc: &str) -> Value {
        json!({"metadata": {"name": name},
               "spec": {"cidrBlock": "10.16.0.0/16", "vpc": vpc}, "status": {"v4usingIPs": 9.0}})
    }

    fn ip(pod: &str, subnet: &str, address: &str) -> Value {
        json!({"metadata": {"name": format!("{pod}.default")}, "spec": {"podName": pod,
            "namespace": "default", "subnet": subnet, "ipAddress": address, "v4IpAddress": address}})
    }

    fn pod(name: &str, address: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "default",
                "annotations": {annotation::ALLOCATED: "true", annotation::IP_ADDRESS: address}},
               "spec": {}, "status": {"phase": "Running", "podIPs": [{"ip": address}]}})
    }

    fn problems(objects: &Objects) -> Vec<String> {
        check(objects).into_iter().map(|f| format!("{}: {}", f.object, f.problem)).collect()
    }

    #[test]
    fn agreement_is_clean() {
        let objects = Objects {
            subnets: vec![subnet("s", "v"), subnet("t", "w")],
            ips: vec![ip("a", "s", "10.16.0.2"), ip("b", "t", "10.16.0.2")],
            pods: vec![pod("a", "10.16.0.2"), pod("b", "10.16.0.2")],
            nodes: Vec::new(),
        };
        assert_eq!(problems(&objects), Vec::<String>::new(), "VPCs are spaces of their own");
    }

    #[test]
    fn contradictions_are_found() {
        let mut low = subnet("s", "v");
        low["status"]["v4usingIPs"] = json!(1.0);
        let objects = Objects {
            subnets: vec![low],
            ips: vec![
                ip("a", "s", "10.16.0.2"),
                ip("b", "s", "10.16.0.2"),
                ip("gone", "s", "10.17.0.9"),
                ip("lost", "no-subnet", "10.16.0.3"),
            ],
            pods: vec![pod("a", "10.16.0.2"), pod("b", "10.16.0.7"), pod("c", "10.16.0.8")],
            nodes: Vec::new(),
        };
        let found = problems(&objects).join("\n");
        for problem in [
            "IP b.default: 10.16.0.2 is also in IP a.default",
            "IP gone.default: 10.17.0.9 is outside of 10.16.0.0/16",
            "IP gone.default: its pod default/gone is gone",
            "IP lost.default: its subnet \"no-subnet\" does not exist",
            "Pod default/b: it uses 10.16.0.7, but 10.16.0.2 is recorded",
            "Pod default/c: no IP object records its address",
            "Subnet s: status.v4usingIPs is 1, but 3 are recorded",
        ] {
            assert!(found.contains(problem), "{problem} not in\n{found}");
        }
    }

    /// Upstream's del-redundant-ips.sh compared the first address of a pod only, and took every
    /// record of a dual-stack pod for redundant.
    #[test]
    fn dual_stack_pods_agree_with_one_record() {
        let mut record = ip("a", "s", "10.16.0.2");
        record["spec"]["ipAddress"] = json!("10.16.0.2,fd00::2");
        record["spec"]["v6IpAddress"] = json!("fd00::2");
        let mut subnet = subnet("s", "v");
        subnet["spec"]["cidrBlock"] = json!("10.16.0.0/16,fd00::/64");
        let mut pod = pod("a", "10.16.0.2,fd00::2");
        pod["status"]["podIPs"] = json!([{"ip": "10.16.0.2"}, {"ip": "fd00::2"}]);
        let objects =
            Objects { subnets: vec![subnet], ips: vec![record], pods: vec![pod], nodes: vec![] };
        assert_eq!(problems(&objects), Vec::<String>::new());
    }
}
