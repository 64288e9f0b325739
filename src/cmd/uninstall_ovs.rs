//! Removes Open vSwitch state from a node.

use std::process::ExitCode;

use clap::ArgMatches;

use super::Applet;

pub const APPLET: Applet = Applet {
    name: "uninstall-ovs",
    aliases: &[],
    about: "Stop Open vSwitch on this node and remove its state",
    example: "uninstall-ovs",
    command: clap::Command::default,
    run,
};

fn run(_: &ArgMatches) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not in this build")
}
