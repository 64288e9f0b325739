//! Labels the pods of the database leaders.

use std::process::ExitCode;

use clap::ArgMatches;

use super::Applet;

pub const APPLET: Applet = Applet {
    name: "kube-ovn-leader-checker",
    aliases: &[],
    about: "Label the ovn-central pods that lead NB, SB and northd",
    example: "kube-ovn-leader-checker --probeInterval=5 --remoteAddresses=10.0.0.2,10.0.0.3",
    command: clap::Command::default,
    run,
};

fn run(_: &ArgMatches) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not in this build")
}
