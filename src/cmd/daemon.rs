//! The node agent: CNI server, host networking, local OVS.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{Applet, daemon_options};

pub const APPLET: Applet = Applet {
    name: "kube-ovn-daemon",
    aliases: &["kube-ovn-cni"],
    about: "Node agent: CNI server, host networking, local Open vSwitch",
    example: "kube-ovn-daemon --node-name=node1 --iface=eth1 \
              --service-cluster-ip-range=10.96.0.0/12",
    command: daemon_options::command,
    run,
};

pub const START: Applet = Applet {
    name: "start-cniserver",
    aliases: &[],
    about: "Wait for Open vSwitch on this node, then run kube-ovn-daemon",
    example: "start-cniserver --iface=eth1",
    command: APPLET.command,
    run,
};

fn run(_: &ArgMatches) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not in this build")
}
