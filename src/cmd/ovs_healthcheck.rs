//! Probes the ovs container.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{
    Applet,
    ovn_healthcheck::{live, probe, report},
    runtime,
};
use crate::central::{health, ovs_paths::OvsPaths};

pub const APPLET: Applet = Applet {
    name: "ovs-healthcheck",
    aliases: &[],
    about: "Probe Open vSwitch and ovn-controller of this node",
    example: "ovs-healthcheck --live",
    command,
    run,
};

fn command() -> clap::Command {
    clap::Command::new("ovs-healthcheck").arg(live())
}

fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let probe = probe(matches);
    runtime::block_on(
        async move { Ok(report(&health::check_ovs(&OvsPaths::system(), probe).await)) },
    )
}
