//! `tcpdump`: the packets of a pod, seen on its own interface.

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches, Command};

use super::{
    Arguments, Session, Tool, Usage, argument,
    cluster::text,
    exec::{Input, Place},
    handed_on,
    packet::{Sender, parse_sender},
    sender::{self, Interface, port_of},
    words,
};

pub const TOOL: Tool = Tool {
    name: "tcpdump",
    aliases: &[],
    about: "Capture the packets of a pod; Ctrl-C ends the capture there too",
    example: "tcpdump default/client icmp\ntcpdump client -c 10 tcp port 80\n\
              tcpdump client -w - > client.pcap",
    arguments: Arguments::HandedOn,
    command: |command: Command| {
        command
            .arg(Arg::new("pod").value_name("[NAMESPACE/]POD").required(true))
            .arg(handed_on("arguments"))
    },
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session<'_>, matches: &ArgMatches) -> anyhow::Result<u8> {
    let wish = argument(matches, "pod");
    let Sender::Pod { namespace, name } = parse_sender(wish).map_err(Usage)? else {
        return Err(Usage(format!("{wish}: write [NAMESPACE/]POD")).into());
    };
    let cluster = session.cluster().await?;
    let pod = cluster.get(&format!("/api/v1/namespaces/{namespace}/pods/{name}")).await?;
    let pod = pod.with_context(|| format!("there is no pod {namespace}/{name}"))?;
    let node = text(&pod["spec"]["nodeName"]);
    if node.is_empty() {
        bail!("pod {namespace}/{name} runs on no node yet");
    }
    let switch = cluster.switch(node).await?;
    let arguments = words(matches, "arguments");
    if pod["spec"]["hostNetwork"] == true {
        return start(&cluster, &switch, tcpdump(None, &arguments)).await;
    }
    let interface = sender::interface(&cluster, &switch, &port_of(&pod)).await?;
    let agent = cluster.agent(node).await?;
    start(&cluster, &agent, in_pod(&interface, &arguments)?).await
}

async fn start(
    cluster: &super::cluster::Cluster,
    at: &Place,
    command: Vec<String>,
) -> anyhow::Result<u8> {
    eprintln!("+ kubectl exec {} -- {}", at.pod, super::exec::shown(&command));
    cluster.stream(at, &command, Input::Nothing).await
}

/// In the pod's network namespace; an internal port keeps its name there.
fn in_pod(interface: &Interface, arguments: &[String]) -> anyhow::Result<Vec<String>> {
    if interface.netns.is_empty() {
        bail!("Open vSwitch interface {} does not say its network namespace", interface.name);
    }
    let device = match interface.nic_type.as_str() {
        "internal-port" => interface.name.as_str(),
        _ => "eth0",
    };
    let mut command = vec!["nsenter".to_owned(), format!("--net={}", interface.netns)];
    command.extend(tcpdump(Some(device), arguments));
    Ok(command)
}

/// Output line by line, since it goes through a pipe; no name resolution. As root: the agent lacks
/// the right to become the user that Debian's tcpdump changes to.
fn tcpdump(device: Option<&str>, arguments: &[String]) -> Vec<String> {
    let mut command: Vec<String> =
        ["tcpdump", "-nn", "-l", "-U", "-Z", "root"].map(str::to_owned).into();
    let chosen = arguments.iter().any(|a| a.starts_with("-i") || a.starts_with("--interface"));
    if let Some(device) = device.filter(|_| !chosen) {
        command.extend(["-i".to_owned(), device.to_owned()]);
    }
    command.extend_from_slice(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(nic_type: &str) -> Interface {
        Interface {
            name: "abc_h".into(),
            ofport: 1,
            nic_type: nic_type.into(),
            netns: "/var/run/netns/x".into(),
        }
    }

    /// Upstream blanked the name of an internal port before it used it.
    #[test]
    fn the_interface_is_that_of_the_pod() {
        let shown = |nic_type: &str, arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
            in_pod(&interface(nic_type), &arguments).expect("command").join(" ")
        };
        let enter = "nsenter --net=/var/run/netns/x tcpdump -nn -l -U -Z root";
        assert_eq!(shown("", &["icmp"]), format!("{enter} -i eth0 icmp"));
        assert_eq!(shown("internal-port", &[]), format!("{enter} -i abc_h"));
        assert_eq!(shown("", &["-i", "net1"]), format!("{enter} -i net1"));
        assert!(in_pod(&Interface::default(), &[]).is_err());
    }
}
