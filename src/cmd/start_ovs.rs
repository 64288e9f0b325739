//! Runs the ovs container.

use std::process::ExitCode;

use clap::ArgMatches;

use super::Applet;

pub const APPLET: Applet = Applet {
    name: "start-ovs",
    aliases: &[],
    about: "Run Open vSwitch and ovn-controller on this node",
    example: "OVN_DB_IPS=10.0.0.1 KUBE_NODE_NAME=node1 start-ovs",
    command: clap::Command::default,
    run,
};

fn run(_: &ArgMatches) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not in this build")
}
