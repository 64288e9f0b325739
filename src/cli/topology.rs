//! `topology`: VPCs, subnets, gateways and pods as a tree of text, or a picture.

use std::collections::BTreeMap;

use clap::{Arg, ArgMatches, Command};
use serde::Serialize;
use serde_json::Value;

use super::{
    Arguments, Session, Tool, bundle_arg,
    cluster::{each, name, text},
    output::emit,
    output_arg,
    picture::{self, Picture, Shape},
};

pub const TOOL: Tool = Tool {
    name: "topology",
    aliases: &[],
    about: "Draw VPCs, subnets, gateways and pods: a tree, or one SVG or HTML file",
    example: "topology\ntopology --svg network.html\ntopology -o json",
    arguments: Arguments::Own,
    command: |command: Command| {
        command.arg(output_arg()).arg(bundle_arg()).arg(
            Arg::new("svg")
                .long("svg")
                .value_name("FILE")
                .help("Draw into a file instead (.svg or .html)"),
        )
    },
    run: |session, matches| Box::pin(run(session, matches)),
};

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Vpc {
    name: String,
    peers: Vec<String>,
    subnets: Vec<Subnet>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Subnet {
    name: String,
    cidr: String,
    gateway: String,
    /// How traffic leaves the subnet.
    way_out: String,
    vlan: String,
    /// `address holder@node`
    ports: Vec<String>,
}

async fn run(session: &Session<'_>, matches: &ArgMatches) -> anyhow::Result<u8> {
    let cluster = session.cluster().await?;
    let list = async |kind: &str| cluster.list(&format!("/apis/kubeovn.io/v1/{kind}"), "").await;
    let (vpcs, subnets, ips) = (list("vpcs").await?, list("subnets").await?, list("ips").await?);
    let all = topology(&vpcs, &subnets, &ips);
    match matches.get_one::<String>("svg") {
        Some(file) => picture::write(file, &drawn(&all))?,
        None => emit(session.format, &all, |all| tree(all))?,
    }
    Ok(0)
}

fn topology(vpcs: &[Value], subnets: &[Value], ips: &[Value]) -> Vec<Vpc> {
    let mut all: BTreeMap<String, Vpc> = BTreeMap::new();
    for vpc in vpcs {
        let peers = each(&vpc["spec"]["vpcPeerings"]).map(|p| text(&p["remoteVpc"]).to_owned());
        let entry = Vpc { name: name(vpc).to_owned(), peers: peers.collect(), subnets: Vec::new() };
        all.insert(entry.name.clone(), entry);
    }
    for subnet in subnets {
        let vpc = match text(&subnet["spec"]["vpc"]) {
            "" => "(no VPC)",
            vpc => vpc,
        };
        let entry = all.entry(vpc.to_owned());
        let entry = entry.or_insert_with(|| Vpc { name: vpc.to_owned(), ..Vpc::default() });
        entry.subnets.push(one(subnet, ips));
    }
    all.into_values().collect()
}

fn one(subnet: &Value, ips: &[Value]) -> Subnet {
    let spec = &subnet["spec"];
    let own = ips.iter().filter(|ip| text(&ip["spec"]["subnet"]) == name(subnet));
    let mut ports: Vec<String> = own.map(port).collect();
    ports.sort();
    Subnet {
        name: name(subnet).to_owned(),
        cidr: text(&spec["cidrBlock"]).to_owned(),
        gateway: text(&spec["gateway"]).to_owned(),
        way_out: way_out(subnet),
        vlan: text(&spec["vlan"]).to_owned(),
        ports,
    }
}

fn port(ip: &Value) -> String {
    let spec = &ip["spec"];
    let holder = match text(&spec["namespace"]) {
        "" => text(&spec["podName"]).to_owned(),
        namespace => format!("{namespace}/{}", text(&spec["podName"])),
    };
    let node = text(&spec["nodeName"]);
    let at = if node.is_empty() { String::new() } else { format!("@{node}") };
    format!("{} {holder}{at}", text(&spec["ipAddress"]))
}

fn way_out(subnet: &Value) -> String {
    let spec = &subnet["spec"];
    let nat = if spec["natOutgoing"] == true { ", NAT" } else { "" };
    if !text(&spec["vlan"]).is_empty() && spec["logicalGateway"] != true {
        return "the physical network".to_owned();
    }
    match text(&spec["gatewayType"]) {
        "centralized" => {
            let active = text(&subnet["status"]["activateGateway"]);
            let nodes = text(&spec["gatewayNode"]);
            let by = if active.is_empty() { nodes } else { active };
            format!("by {by}{nat}")
        }
        "distributed" => format!("by every node{nat}"),
        _ => String::new(),
    }
}

fn tree(all: &[Vpc]) -> String {
    let mut out = String::new();
    for vpc in all {
        out.push_str(&format!("VPC {}", vpc.name));
        if !vpc.peers.is_empty() {
            out.push_str(&format!("  (peers: {})", vpc.peers.join(", ")));
        }
        out.push('\n');
        for (i, subnet) in vpc.subnets.iter().enumerate() {
            let last = i + 1 == vpc.subnets.len();
            let (branch, below) = if last { ("`-- ", "    ") } else { ("|-- ", "|   ") };
            out.push_str(&format!("{branch}{}\n", title(subnet)));
            for (n, port) in subnet.ports.iter().enumerate() {
                let branch = if n + 1 == subnet.ports.len() { "`-- " } else { "|-- " };
                out.push_str(&format!("{below}{branch}{port}\n"));
            }
        }
    }
    out
}

fn title(subnet: &Subnet) -> String {
    let mut title = format!("{} {}", subnet.name, subnet.cidr);
    for (label, value) in
        [("gateway", &subnet.gateway), ("vlan", &subnet.vlan), ("out", &subnet.way_out)]
    {
        if !value.is_empty() {
            title.push_str(&format!("  {label} {value}"));
        }
    }
    title
}

/// More ports than these are counted only.
const SHOWN: usize = 12;

fn drawn(all: &[Vpc]) -> Picture {
    let mut picture = Picture { title: "Kube-OVN".to_owned(), ..Picture::default() };
    let mut routers: BTreeMap<&str, usize> = BTreeMap::new();
    for vpc in all {
        let router = picture.add(Shape::Router, 0, vec![format!("VPC {}", vpc.name)]);
        routers.insert(&vpc.name, router);
        for subnet in &vpc.subnets {
            let mut lines = vec![subnet.name.clone(), subnet.cidr.clone()];
            if !subnet.gateway.is_empty() {
                lines.push(format!("gateway {}", subnet.gateway));
            }
            let switch = picture.add(Shape::Switch, 1, lines);
            picture.lines.push((router, switch));
            if !subnet.way_out.is_empty() {
                let out = picture.add(Shape::Outside, 3, vec![format!("out {}", subnet.way_out)]);
                picture.lines.push((switch, out));
            }
            if !subnet.ports.is_empty() {
                let mut lines = vec![format!("{} ports", subnet.ports.len())];
                lines.extend(subnet.ports.iter().take(SHOWN).cloned());
                if subnet.ports.len() > SHOWN {
                    lines.push("...".to_owned());
                }
                let ports = picture.add(Shape::Endpoint, 2, lines);
                picture.lines.push((switch, ports));
            }
        }
    }
    for vpc in all {
        for peer in &vpc.peers {
            if let (Some(a), Some(b)) = (routers.get(&*vpc.name), routers.get(&**peer))
                && a < b
            {
                picture.lines.push((*a, *b));
            }
        }
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_tree_of_vpcs_subnets_and_ports() {
        let vpcs = [json!({"metadata": {"name": "ovn-cluster"}, "spec": {}})];
        let subnets = [
            json!({"metadata": {"name": "ovn-default"}, "spec": {"vpc": "ovn-cluster",
                "cidrBlock": "10.16.0.0/16", "gateway": "10.16.0.1", "gatewayType": "distributed",
                "natOutgoing": true}}),
            json!({"metadata": {"name": "vlan1"}, "spec": {"cidrBlock": "10.1.0.0/16", "vlan": "v"}}),
        ];
        let ips = [json!({"spec": {"subnet": "ovn-default", "podName": "a", "namespace": "d",
            "nodeName": "n1", "ipAddress": "10.16.0.2"}})];
        let all = topology(&vpcs, &subnets, &ips);
        let expected = "VPC (no VPC)\n`-- vlan1 10.1.0.0/16  vlan v  out the physical network\n\
            VPC ovn-cluster\n`-- ovn-default 10.16.0.0/16  gateway 10.16.0.1  out by every node, \
            NAT\n    `-- 10.16.0.2 d/a@n1\n";
        assert_eq!(tree(&all), expected);
        let picture = drawn(&all);
        assert_eq!(picture.nodes.len(), 7);
        assert!(picture.svg().contains("ovn-default"));
    }
}
