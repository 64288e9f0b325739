//! `ipam`: addresses, who holds them, and whether that is true.

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Serialize;
use serde_json::Value;

use super::{
    Arguments, FOUND, Session, Tool, argument, bundle_arg,
    cluster::{Cluster, name, text},
    ipam_check::{Finding, Objects, addresses, check, usage},
    output::{Tone, count, emit, table},
    output_arg,
};
use crate::{api::names::label, net::parse_ip};

pub const TOOL: Tool = Tool {
    name: "ipam",
    aliases: &[],
    about: "Addresses: check them, show who holds them, release what nobody holds",
    example: "ipam check\nipam show\nipam show ovn-default\nipam show 10.16.0.9\n\
              ipam release client.default",
    arguments: Arguments::Own,
    command,
    run: |session, matches| Box::pin(run(session, matches)),
};

fn command(command: Command) -> Command {
    let sub = |name: &'static str, about: &'static str| Command::new(name).about(about);
    command
        .subcommand_required(true)
        .subcommand(
            sub("check", "Compare IP objects, pods, subnets and their counters")
                .arg(output_arg())
                .arg(bundle_arg()),
        )
        .subcommand(
            sub("show", "Subnets and their use; of one subnet, address or pod the records")
                .arg(output_arg())
                .arg(bundle_arg())
                .arg(Arg::new("what").value_name("SUBNET|ADDRESS|NAMESPACE/POD")),
        )
        .subcommand(
            sub("release", "Delete the record of an address that nobody holds")
                .arg(Arg::new("what").required(true).value_name("NAME|ADDRESS"))
                .arg(
                    Arg::new("force")
                        .long("force")
                        .action(ArgAction::SetTrue)
                        .help("Although a pod holds it; the pod loses its network"),
                ),
        )
}

async fn run(session: &Session<'_>, matches: &ArgMatches) -> anyhow::Result<u8> {
    let Some((verb, inner)) = matches.subcommand() else {
        bail!("write a subcommand: check, show or release")
    };
    let session = session.with_format(inner);
    let cluster = session.cluster().await?;
    match verb {
        "check" => checked(&session, &cluster).await,
        "show" => show(&session, &cluster, argument(inner, "what")).await,
        _ => {
            let wish = match inner.get_flag("force") {
                true => Wish::Always,
                false => Wish::IfFree,
            };
            release(&cluster, argument(inner, "what"), wish).await
        }
    }
}

async fn observe(cluster: &Cluster) -> anyhow::Result<Objects> {
    // Pods last: one that is gone by then still has its record.
    let ips = cluster.list("/apis/kubeovn.io/v1/ips", "").await?;
    Ok(Objects {
        subnets: cluster.list("/apis/kubeovn.io/v1/subnets", "").await?,
        nodes: cluster.list("/api/v1/nodes", "").await?,
        pods: cluster.list("/api/v1/pods", "").await?,
        ips,
    })
}

async fn checked(session: &Session<'_>, cluster: &Cluster) -> anyhow::Result<u8> {
    let objects = observe(cluster).await?;
    let mut findings = check(&objects);
    if cluster.is_live() && !findings.is_empty() {
        // What changes at this moment is not wrong.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let again = check(&observe(cluster).await?);
        findings.retain(|finding| again.contains(finding));
    }
    let summary = format!(
        "{}, {}, {} checked: {}",
        count(objects.subnets.len(), "subnet"),
        count(objects.ips.len(), "address record"),
        count(objects.pods.len(), "pod"),
        count(findings.len(), "contradiction")
    );
    emit(session.format, &findings, |all| {
        let line = |f: &Finding| format!("{}: {} ({})\n", f.object, f.problem, f.remedy);
        let tone = if all.is_empty() { Tone::Good } else { Tone::Bad };
        let lines: String = all.iter().map(line).collect();
        lines + &session.paint.tone(tone, &summary) + "\n"
    })?;
    Ok(if findings.is_empty() { 0 } else { FOUND })
}

#[derive(Debug, Serialize)]
struct Record {
    name: String,
    subnet: String,
    addresses: Vec<String>,
    mac: String,
    node: String,
    holder: String,
    state: &'static str,
}

fn record(ip: &Value) -> Record {
    let spec = &ip["spec"];
    let holder = match text(&spec["namespace"]) {
        "" => text(&spec["podName"]).to_owned(),
        namespace => format!("{namespace}/{}", text(&spec["podName"])),
    };
    let state = match ip["metadata"]["labels"][label::IP_RESERVED] == "true" {
        _ if !ip["metadata"]["deletionTimestamp"].is_null() => "leaving",
        true => "reserved",
        false => "held",
    };
    Record {
        name: name(ip).to_owned(),
        subnet: text(&spec["subnet"]).to_owned(),
        addresses: addresses(ip).iter().map(ToString::to_string).collect(),
        mac: text(&spec["macAddress"]).to_owned(),
        node: text(&spec["nodeName"]).to_owned(),
        holder,
        state,
    }
}

async fn show(session: &Session<'_>, cluster: &Cluster, what: &str) -> anyhow::Result<u8> {
    let objects = observe(cluster).await?;
    if what.is_empty() {
        return subnets(session, &objects);
    }
    let address = parse_ip(what).ok();
    let fits = |ip: &&Value| {
        let record = record(ip);
        record.subnet == what
            || record.name == what
            || record.holder == what
            || address.is_some_and(|address| addresses(ip).contains(&address))
    };
    let mut found: Vec<(Option<std::net::IpAddr>, Record)> = objects
        .ips
        .iter()
        .filter(fits)
        .map(|ip| (addresses(ip).first().copied(), record(ip)))
        .collect();
    found.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
    let found: Vec<Record> = found.into_iter().map(|(_, record)| record).collect();
    emit(session.format, &found, |all| {
        let row = |r: &Record| {
            let addresses = r.addresses.join(",");
            let cells = [&addresses, &r.mac, &r.holder, &r.node, &r.subnet];
            let mut cells: Vec<String> = cells.iter().map(|cell| (*cell).clone()).collect();
            cells.push(r.state.to_owned());
            cells
        };
        let head = ["ADDRESS", "MAC", "HOLDER", "NODE", "SUBNET", "STATE"];
        table(&head, &all.iter().map(row).collect::<Vec<_>>())
    })?;
    Ok(if found.is_empty() { FOUND } else { 0 })
}

#[derive(Debug, Serialize)]
struct SubnetUse {
    name: String,
    vpc: String,
    cidr: String,
    v4: usize,
    v6: usize,
    #[serde(rename = "availableV4")]
    available_v4: String,
    #[serde(rename = "availableV6")]
    available_v6: String,
}

fn subnets(session: &Session<'_>, objects: &Objects) -> anyhow::Result<u8> {
    let number = |value: &Value| value.as_f64().map_or(String::new(), |n| format!("{n:.0}"));
    let row = |subnet: &Value| {
        let used = usage(subnet, &objects.ips);
        SubnetUse {
            name: name(subnet).to_owned(),
            vpc: text(&subnet["spec"]["vpc"]).to_owned(),
            cidr: text(&subnet["spec"]["cidrBlock"]).to_owned(),
            v4: used.v4,
            v6: used.v6,
            available_v4: number(&subnet["status"]["v4availableIPs"]),
            available_v6: number(&subnet["status"]["v6availableIPs"]),
        }
    };
    let all: Vec<SubnetUse> = objects.subnets.iter().map(row).collect();
    emit(session.format, &all, |all| {
        let cells = |s: &SubnetUse| {
            let used = [s.v4.to_string(), s.v6.to_string()];
            let rest = [s.available_v4.clone(), s.available_v6.clone()];
            [
                [s.name.clone(), s.vpc.clone()],
                [s.cidr.clone(), used[0].clone()],
                [rest[0].clone(), used[1].clone()],
            ]
            .concat()
            .into_iter()
            .chain([rest[1].clone()])
            .collect()
        };
        let head = ["SUBNET", "VPC", "CIDR", "V4 USED", "V4 FREE", "V6 USED", "V6 FREE"];
        table(&head, &all.iter().map(cells).collect::<Vec<Vec<String>>>())
    })?;
    Ok(0)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    IfFree,
    Always,
}

async fn release(cluster: &Cluster, what: &str, wish: Wish) -> anyhow::Result<u8> {
    let objects = observe(cluster).await?;
    let address = parse_ip(what).ok();
    let fits = |ip: &&Value| match address {
        Some(address) => addresses(ip).contains(&address),
        None => name(ip) == what,
    };
    let found: Vec<&Value> = objects.ips.iter().filter(fits).collect();
    let ip = match &found[..] {
        [one] => *one,
        [] => bail!("no IP object is named {what:?} or holds that address"),
        several => {
            let names: Vec<&str> = several.iter().map(|ip| name(ip)).collect();
            bail!("several VPCs use {what}: {}; give the name", names.join(", "))
        }
    };
    let record = record(ip);
    let held = objects.pods.iter().any(|pod| {
        let own = format!("{}/{}", text(&pod["metadata"]["namespace"]), name(pod));
        let ended = matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed");
        own == record.holder && !ended
    }) || objects.nodes.iter().any(|node| format!("node-{}", name(node)) == record.name);
    if held && wish == Wish::IfFree {
        bail!("{} is held by {}; delete that first, or give --force", record.name, record.holder);
    }
    let path = format!("/apis/kubeovn.io/v1/ips/{}", record.name);
    cluster.delete(&path).await.with_context(|| format!("release {}", record.name))?;
    println!("released {} ({})", record.addresses.join(","), record.name);
    Ok(0)
}
