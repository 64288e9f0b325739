//! `trace`: a packet through OVN's logical network, and through the switch of its node.

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;

use super::{
    Arguments, Session, Tool, Usage,
    cluster::{Cluster, Database},
    exec,
    output::{Format, emit},
    output_arg,
    packet::{self, Flow, Request, Sender},
    picture,
    sender::{self, Endpoint},
    trace_text::parse_walk,
    words,
};

pub const TRACE: Tool = Tool {
    name: "trace",
    aliases: &[],
    about: "Follow a packet through the logical network and the switch of its node",
    example: "trace default/client 10.16.0.9 tcp 80\ntrace client 8.8.8.8 icmp\n\
              trace node//node1 10.16.0.9 arp request\ntrace client fd00:10:96::a udp 53 --drawn",
    arguments: Arguments::Own,
    command,
    run: |session, matches| Box::pin(run(session, matches, Stages::Both)),
};

pub const OVN_TRACE: Tool = Tool {
    name: "ovn-trace",
    aliases: &[],
    about: "Follow a packet through the logical network only",
    example: "ovn-trace default/client 10.16.0.9 tcp 80",
    arguments: Arguments::Own,
    command,
    run: |session, matches| Box::pin(run(session, matches, Stages::Logical)),
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stages {
    Logical,
    Both,
}

fn command(command: Command) -> Command {
    command
        .override_usage(format!("kubectl ko trace [OPTIONS] {}", packet::USAGE))
        .arg(output_arg())
        .arg(
            Arg::new("drawn")
                .long("drawn")
                .action(ArgAction::SetTrue)
                .help("Only the way, as a picture of text"),
        )
        .arg(
            Arg::new("svg")
                .long("svg")
                .value_name("FILE")
                .help("Also draw the way into a file (.svg or .html)"),
        )
        .arg(Arg::new("packet").value_name("PACKET").num_args(1..).required(true))
}

async fn run(session: &Session<'_>, matches: &ArgMatches, stages: Stages) -> anyhow::Result<u8> {
    let wrong = |error: String| Usage(format!("{error}; usage: {}", packet::USAGE));
    let request = packet::parse_request(&words(matches, "packet")).map_err(wrong)?;
    let cluster = session.cluster().await?;
    let from = sender::find(&cluster, &request.sender, request.probe).await?;
    let flow = from.flow(&cluster, &request).await?;
    let report = logical(&cluster, &from, &flow).await?;
    let walk = parse_walk(&report);
    let (start, end) = (shown(&request), request.target.to_string());
    if let Some(file) = matches.get_one::<String>("svg") {
        picture::write(file, &picture::of_walk(&walk, &start, &end))?;
    }
    if matches.get_flag("drawn") {
        print!("{}", walk.drawn(&start, &end));
        return Ok(0);
    }
    if session.format != Format::Text {
        let value = json!({"port": flow.port, "microflow": flow.microflow(), "walk": walk});
        emit(session.format, &value, |_| String::new())?;
        return Ok(0);
    }
    print!("{report}");
    if stages == Stages::Both {
        physical(&cluster, &from, &flow).await?;
    }
    print!("{}", walk.verdicts());
    Ok(0)
}

fn shown(request: &Request) -> String {
    match &request.sender {
        Sender::Node(node) => format!("node {node}"),
        Sender::Pod { namespace, name } => format!("{namespace}/{name}"),
    }
}

pub async fn logical(cluster: &Cluster, from: &Endpoint, flow: &Flow) -> anyhow::Result<String> {
    let at = cluster.leader(Database::Southbound).await?;
    let microflow = flow.microflow();
    let mut command = vec!["ovn-trace"];
    if flow.is_tracked() {
        // One for each connection tracking on the way: switch, router, switch, and a Service.
        command.extend(["--ct=new"; 4]);
    }
    command.extend([from.switch.as_str(), microflow.as_str()]);
    say(&at.pod, &command);
    cluster.text(&at, &command).await.context("trace the logical network")
}

async fn physical(cluster: &Cluster, from: &Endpoint, flow: &Flow) -> anyhow::Result<()> {
    let at = cluster.switch(&from.node).await?;
    let interface = sender::interface(cluster, &at, &flow.port).await?;
    let openflow = flow.openflow(interface.ofport);
    let command = ["ovs-appctl", "ofproto/trace", "br-int", openflow.as_str()];
    println!("--------");
    say(&at.pod, &command);
    print!("{}", cluster.text(&at, &command).await.context("trace the switch of the node")?);
    println!("--------");
    Ok(())
}

/// What runs where, for those who want to go on by hand.
fn say(pod: &str, command: &[&str]) {
    let words: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
    eprintln!("+ kubectl exec {pod} -- {}", exec::shown(&words));
}
