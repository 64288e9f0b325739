//! Pods and what makes pods: annotations of addresses.

use std::net::IpAddr;

use serde_json::Value;

use super::review::{Asked, Facts, Operation, Request, bad, denied, text};
use crate::{
    api::{
        Settings,
        names::{annotation, label},
        parse::{PoolWish, fixed_addresses, parse_pool_wish},
    },
    net::{Cidr, DualStack, Mac, parse_ip},
};

const PREFIX: &str = "ovn.kubernetes.io/";

pub fn review(request: &Request, facts: &Facts, settings: &Settings) -> Asked<()> {
    if request.operation != Operation::Create {
        return Ok(());
    }
    let object = &request.object;
    let metadata = match request.resource.as_str() {
        "pods" => &object["metadata"],
        "cronjobs" => &object["spec"]["jobTemplate"]["spec"]["template"]["metadata"],
        _ => &object["spec"]["template"]["metadata"],
    };
    let annotations = &metadata["annotations"];
    let get = |suffix: &str| text(&annotations[format!("{PREFIX}{suffix}")]);
    let (address, pool) = (get("ip_address"), get("ip_pool"));
    let is_pod = request.resource == "pods";
    if pool.is_empty() && (!is_pod || address.is_empty()) {
        return Ok(());
    }
    // The pod of a live migration takes over the addresses of another.
    if is_pod && !annotations[annotation::MIGRATION_JOB_NAME].is_null() {
        return Ok(());
    }
    let findings = check(&get);
    if !findings.is_empty() {
        return bad(findings.join("; "));
    }
    let wanted = match fixed_addresses(address) {
        Ok(wanted) if !address.is_empty() => vec![("ip_address", address, vec![wanted])],
        _ => Vec::new(),
    };
    let pooled = match parse_pool_wish(pool) {
        Ok(PoolWish::Pool(name)) if !name.is_empty() => {
            if facts.find("ippools", &name)?.is_none() {
                let remedy = "ippool not found; create it or correct the name";
                return denied(format!("{PREFIX}ip_pool {name:?}: {remedy}"));
            }
            None
        }
        Ok(PoolWish::Addresses(candidates)) => Some(("ip_pool", pool, candidates)),
        _ => None,
    };
    let requester = Requester { name: requester(request), namespace: &request.namespace };
    let subnet = match get("logical_switch") {
        "" => &*settings.default_subnet,
        name => name,
    };
    for (suffix, value, candidates) in wanted.into_iter().chain(pooled) {
        let labels = format!("{}={subnet}", label::SUBNET);
        let records = facts.all("ips", &labels)?;
        check_free(suffix, value, &candidates, records, &requester)?;
    }
    Ok(())
}

/// Who will hold the addresses.
struct Requester<'a> {
    name: &'a str,
    namespace: &'a str,
}

/// Pods of a virtual machine come and go; the machine holds the address.
fn requester(request: &Request) -> &str {
    let metadata = &request.object["metadata"];
    let owners = metadata["ownerReferences"].as_array();
    let machine =
        owners.into_iter().flatten().find(|owner| owner["kind"] == "VirtualMachineInstance");
    match machine {
        Some(owner) => text(&owner["name"]),
        None if request.name.is_empty() => text(&metadata["name"]),
        None => &request.name,
    }
}

/// What is wrong in the annotations alone.
fn check<'a>(get: &impl Fn(&str) -> &'a str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut refuse = |suffix: &str, value: &str, remedy: String| {
        findings.push(format!("{PREFIX}{suffix} {value:?}: {remedy}"));
    };
    let cidr = get("cidr");
    let cidrs = match DualStack::parse_cidrs(cidr) {
        _ if cidr.is_empty() => None,
        Ok(cidrs) => Some(cidrs),
        Err(error) => {
            refuse("cidr", cidr, format!("invalid cidr: {error}"));
            None
        }
    };
    let inside = |ip: IpAddr| cidrs.as_ref().is_none_or(|cidrs| cidrs.contains(ip));
    let address = get("ip_address");
    for item in address.split(',').map(str::trim).filter(|_| !address.is_empty()) {
        let parsed = match item.contains('/') {
            true => item.parse::<Cidr>().map(|cidr| cidr.address),
            false => parse_ip(item),
        };
        match parsed {
            Err(error) => refuse("ip_address", item, format!("not a valid ip_address: {error}")),
            Ok(ip) if !inside(ip) => refuse("ip_address", item, format!("not in cidr {cidr}")),
            Ok(_) => {}
        }
    }
    if let Err(error) = fixed_addresses(address)
        && !address.is_empty()
    {
        refuse("ip_address", address, error.to_string());
    }
    let pool = get("ip_pool");
    match parse_pool_wish(pool) {
        Err(error) => refuse("ip_pool", pool, format!("not a valid address: {error}")),
        Ok(PoolWish::Addresses(all)) => {
            let outside = all.iter().find(|pair| !pair.iter().any(|(_, ip)| inside(*ip)));
            if let Some(pair) = outside {
                refuse("ip_pool", pool, format!("{pair} is not in cidr {cidr}"));
            }
        }
        Ok(PoolWish::Pool(_)) => {}
    }
    let mac = get("mac_address");
    if !mac.is_empty() && mac.parse::<Mac>().is_err() {
        refuse("mac_address", mac, "not a MAC address, as 00:11:22:33:44:55".to_owned());
    }
    for suffix in ["ingress_rate", "egress_rate"] {
        let rate = get(suffix);
        if !rate.is_empty() && rate.parse::<i64>().is_err() {
            refuse(suffix, rate, "not a whole number of Mbit/s".to_owned());
        }
    }
    findings
}

/// At least one candidate must be free. (Upstream wants every address of a pool free, and so
/// refuses the second pod of a Deployment because the first one holds an address.)
fn check_free(
    suffix: &str,
    value: &str,
    candidates: &[DualStack<IpAddr>],
    records: &[Value],
    requester: &Requester<'_>,
) -> Asked<()> {
    let mut taken = None;
    for candidate in candidates {
        let holder = candidate.iter().find_map(|(_, ip)| holder(*ip, records, requester));
        match holder {
            None => return Ok(()),
            Some(holder) => taken = Some(holder),
        }
    }
    match taken {
        None => Ok(()),
        Some((ip, record)) => {
            let name = text(&record["metadata"]["name"]);
            let remedy = format!("{ip} is taken by IP {name:?}; choose another address");
            denied(format!("{PREFIX}{suffix} {value:?}: {remedy}"))
        }
    }
}

fn holder<'a>(
    ip: IpAddr,
    records: &'a [Value],
    requester: &Requester<'_>,
) -> Option<(IpAddr, &'a Value)> {
    let holds = |record: &&Value| {
        let spec = &record["spec"];
        let held = [&spec["v4IpAddress"], &spec["v6IpAddress"]].into_iter();
        // Written by hand an address may be in upper case; it is the same address.
        let same = held.map(text).any(|t| parse_ip(&t.to_lowercase()).is_ok_and(|h| h == ip));
        let own = text(&spec["podName"]) == requester.name
            && text(&spec["namespace"]) == requester.namespace;
        same && !own
    };
    records.iter().find(holds).map(|record| (ip, record))
}
